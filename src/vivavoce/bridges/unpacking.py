"""Compressed audio to 16-bit PCM, piece by piece as it arrives, with the decoders inside PyAV.

Opus comes one packet a frame, or as Ogg, which its first bytes tell. The other codecs are streams that say themselves
where their packets begin, so they may be cut anywhere. Blocking: each piece is worked out when it is asked for, from
`AT_ONCE_BYTES` at a time: packed silence can be a thousandth of its audio, and a frame of it more than memory holds.

A packet that cannot be decoded leaves nothing behind. A packet of Opus is complained of at once. In a stream it may be
a tag or a cut frame, so there only a longer stretch without any audio is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import av

from vivavoce.errors import UnsupportedAudio
from vivavoce.wire.ogg import CAPTURE, MAX_PACKET_BYTES, OggOpus
from vivavoce.wire.opening import Compression

MAX_STRAY_BYTES = 64 << 10
"""A stream without audio for so long is not what it was said to be."""

AT_ONCE_BYTES = 4 << 10

MAX_FRAME_S = 20.0
"""The longest frame that a stream of 4 kHz or more can have; one that says a lower rate would unpack without bounds."""

_AMR_MAGIC = b"#!AMR\n"


class Unpacker(Protocol):
    """Gives 16-bit PCM with one channel, at one rate."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the audio that these bytes complete, in pieces; raises `UnsupportedAudio`, and can go on after that."""

    def flush(self) -> Iterator[bytes]:
        """Give what is left."""


def unpacker(compression: Compression, rate: int) -> Unpacker:
    """Make what unpacks this kind of audio to this rate."""
    if compression == "opus":
        return OpusUnpacker(rate)
    return StreamUnpacker(compression, rate)


class _Resampler:
    """Frames of any format to PCM; the format may change in mid-stream."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: Any = None
        self._format: tuple[str, str, int] | None = None

    def pcm(self, frames: Iterable[Any]) -> Iterator[bytes]:
        """Give frames as PCM; raises `UnsupportedAudio` for one that lasts too long."""
        for frame in frames:
            if frame.samples > MAX_FRAME_S * frame.sample_rate:
                raise UnsupportedAudio(f"a frame of the audio lasts longer than {MAX_FRAME_S:g} s")
            found = (frame.format.name, frame.layout.name, frame.sample_rate)
            if found != self._format:
                yield from self.flush()
                self._resampler = av.AudioResampler(format="s16", layout="mono", rate=self._rate)
                self._format = found
            frame.pts = None
            yield from _bytes(self._resampler.resample(frame))

    def flush(self) -> Iterator[bytes]:
        """Give what the filter still holds."""
        if self._resampler is not None:
            yield from _bytes(self._resampler.resample(None))
            self._resampler = None
            self._format = None


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[at : at + AT_ONCE_BYTES] for at in range(0, len(data), AT_ONCE_BYTES))


def _bytes(frames: Iterable[Any]) -> Iterator[bytes]:
    for frame in frames:
        if frame.samples:
            yield frame.to_ndarray().astype("<i2").tobytes()


class OpusUnpacker:
    """Opus, as bare packets or in Ogg; several channels are mixed into one."""

    def __init__(self, rate: int) -> None:
        self._decoder: Any = av.CodecContext.create("libopus", "r")
        self._decoder.layout = "mono"
        self._resampler = _Resampler(rate)
        self._ogg: OggOpus | None = None
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the audio of a packet, or of the pages that these bytes complete."""
        packets: Iterable[bytes] = [data]
        if self._head is not None:
            data = self._head + data
            if len(data) < len(CAPTURE) and CAPTURE.startswith(data):
                self._head = data
                return
            self._ogg = OggOpus() if data.startswith(CAPTURE) else None
            packets = [self._head, *packets]
            self._head = None
        if (ogg := self._ogg) is not None:
            packets = (packet for piece in _cut(data) for packet in ogg.feed(piece))
        spoilt = False
        for packet in filter(None, packets):  # an empty frame is a sign of life
            frames = self._decoded(packet)
            if frames is None:
                spoilt = True
            else:
                yield from self._resampler.pcm(frames)
        if spoilt:
            raise UnsupportedAudio(
                "a frame is not a packet of Opus; each binary frame must hold exactly one, or Ogg pages"
            )

    def flush(self) -> Iterator[bytes]:
        """Give what the resampler still holds."""
        yield from self._resampler.flush()

    def _decoded(self, packet: bytes) -> list[Any] | None:
        if len(packet) > MAX_PACKET_BYTES:
            return None
        try:
            return list(self._decoder.decode(av.Packet(packet)))
        except av.FFmpegError:
            return None


class StreamUnpacker:
    """MP3, FLAC, or AMR narrow-band in its file format."""

    def __init__(self, compression: Compression, rate: int) -> None:
        self._name = compression
        self._decoder: Any = av.CodecContext.create("amrnb" if compression == "amr" else compression, "r")
        self._resampler = _Resampler(rate)
        self._head: bytes | None = b"" if compression == "amr" else None
        self._stray = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the audio of the packets that these bytes complete."""
        self._stray += len(data)
        if self._head is not None:
            data = self._head + data
            if len(data) < len(_AMR_MAGIC) and _AMR_MAGIC.startswith(data):
                self._head = data
                return
            self._head, data = None, data.removeprefix(_AMR_MAGIC)
        for piece in _cut(data):
            yield from self._decoded(self._packets(piece))
        if self._stray > MAX_STRAY_BYTES:
            self._stray = 0
            raise UnsupportedAudio(f"no {self._name.upper()} audio can be found in what is sent")

    def flush(self) -> Iterator[bytes]:
        """Give the packets that only the end completes."""
        while packets := self._packets(b""):
            yield from self._decoded(packets)
        yield from self._resampler.flush()

    def _packets(self, data: bytes) -> list[Any]:
        try:
            return list(self._decoder.parse(data))
        except av.FFmpegError:
            return []

    def _decoded(self, packets: list[Any]) -> Iterator[bytes]:
        for packet in packets:
            try:
                frames = self._decoder.decode(packet)
            except av.FFmpegError:
                continue
            for piece in self._resampler.pcm(frames):
                self._stray = 0
                yield piece
