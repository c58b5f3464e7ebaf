"""Recordings as chunks of 16-bit PCM: any file or stream that PyAV decodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vivavoce.cli.client import CHUNK_S
from vivavoce.errors import UnsupportedAudio

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

RATE = 16_000
MAX_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class Recording:
    """An opened recording; `duration_s` is None where it is not known before the end."""

    name: str
    channels: int
    duration_s: float | None
    _container: InputContainer
    _stream: av.AudioStream

    def chunks(self, limit_s: float | None = None) -> Iterator[bytes]:
        """Yield interleaved little-endian samples at `RATE`, `CHUNK_S` at a time; damaged packets are skipped.

        Raises `UnsupportedAudio` where nothing at all can be decoded.
        """
        size = round(RATE * CHUNK_S) * self.channels * 2
        left = None if limit_s is None else round(RATE * limit_s) * self.channels * 2
        pending = bytearray()
        decoded = 0
        for piece in self._pieces():
            pending += piece if left is None else piece[: left - decoded]
            decoded += len(piece)
            while len(pending) >= size:
                yield bytes(pending[:size])
                del pending[:size]
            if left is not None and decoded >= left:
                break
        if pending:
            yield bytes(pending)
        if not decoded:
            raise UnsupportedAudio(f"{self.name}: no audio in it can be decoded")

    def _pieces(self) -> Iterator[bytes]:
        import av

        resampler, shape = None, None
        for frame in self._frames():
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if resampler is None or now != shape:
                # Chained streams may change their format; what the old resampler still holds is a few samples.
                layout = "mono" if self.channels == 1 else frame.layout.name
                resampler, shape = av.AudioResampler(format="s16", layout=layout, rate=RATE), now
            for out in resampler.resample(frame):
                yield _samples(out, self.channels)
        for out in resampler.resample(None) if resampler is not None else ():
            yield _samples(out, self.channels)

    def _frames(self) -> Iterator[av.AudioFrame]:
        import av

        for packet in self._container.demux(self._stream):
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                continue


def _samples(frame: av.AudioFrame, channels: int) -> bytes:
    # A plane may be longer than its samples: libav pads it.
    return bytes(frame.planes[0])[: frame.samples * channels * 2]


@contextmanager
def open_recording(source: str, *, separate: bool = False) -> Iterator[Recording]:
    """Open a file, or standard input for `-`; its channels are mixed to one unless `separate`.

    Raises `UnsupportedAudio` with the file's name where it is missing, unreadable or holds no audio.
    """
    import av

    name = "standard input" if source == "-" else source
    if source != "-" and not Path(source).is_file():
        raise UnsupportedAudio(f"{source}: there is no such file")
    try:
        container = _open_stdin() if source == "-" else av.open(source)
    except (av.FFmpegError, OSError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UnsupportedAudio(f"{name}: cannot be read as audio ({why})") from error
    with container:
        if not container.streams.audio:
            raise UnsupportedAudio(f"{name}: holds no audio")
        stream = container.streams.audio[0]
        channels = stream.codec_context.channels if separate else 1
        if channels > MAX_CHANNELS:
            raise UnsupportedAudio(f"{name}: has {channels} channels; at most {MAX_CHANNELS} can be kept apart")
        yield Recording(name, channels, _duration_s(container, stream), container, stream)


def _open_stdin() -> InputContainer:
    """Open standard input so that audio which is only being made is heard soon.

    The raw stream gives what has come so far, and one second (libav takes five) is enough to tell what it is.
    """
    import av

    live = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 - the container reads it
    return av.open(live, "r", buffer_size=4096, options={"analyzeduration": "1000000"})


def _duration_s(container: InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration is not None else None
