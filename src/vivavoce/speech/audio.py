"""Bytes as they arrive → 16 kHz samples of each channel, in whole frames.

A decoder keeps three things: the odd bytes that do not fill a sample of every channel, the input samples that the
resampling filter still reaches back to, and two counters. Output comes in frames of `FRAME` samples only, each worked
out from the same input by the same operations wherever the chunks were cut, so any split of the same bytes gives the
same samples bit for bit; so does starting at any frame, by `seek`. `flush` pads the last frame with silence.

The resampler is a windowed-sinc polyphase filter that looks `REACH` zero crossings ahead: 4 ms at 8 kHz, less above.
Output sample m stands at input time m · rate / 16000, so nothing shifts in time.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vivavoce.model import G711, SAMPLE_RATE, AudioFormat

FRAME = 512
"""Samples of one frame: 32 ms, what the voice activity model takes at once."""

REACH = 32
KAISER_BETA = 8.0


_G711 = {law: (table / 32768).astype(np.float32) for law, table in G711.items()}


def pcm_samples(data: bytes, fmt: AudioFormat) -> NDArray[np.float32]:
    """Read whole sample frames as float32 `[channels, n]`; 8-bit PCM is unsigned, as in WAV, the rest signed."""
    flat: NDArray[np.float32]
    if fmt.encoding != "pcm":
        flat = _G711[fmt.encoding][np.frombuffer(data, np.uint8)]
    elif fmt.bit_depth == 8:  # noqa: PLR2004
        flat = (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    elif fmt.bit_depth == 24:  # noqa: PLR2004
        triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(triples), 4), np.uint8)
        wide[:, 1:] = triples
        flat = (wide.view("<i4")[:, 0] / 2**31).astype(np.float32)
    else:
        signed = np.frombuffer(data, f"<i{fmt.bit_depth // 8}")
        flat = signed.astype(np.float32) * np.float32(2.0 ** (1 - fmt.bit_depth))
    return np.ascontiguousarray(flat.reshape(-1, fmt.channels).T)


@lru_cache(maxsize=16)
def _filter_bank(up: int, down: int) -> tuple[int, NDArray[np.float32]]:
    """Give the filter's half length in input samples and its taps `[up, 2 · half]`, one row per output phase."""
    cutoff = min(1.0, up / down)
    half = math.ceil(REACH / cutoff)
    offset = np.arange(-half + 1, half + 1)[None, :] - (np.arange(up) / up)[:, None]
    window = np.i0(KAISER_BETA * np.sqrt(np.maximum(0.0, 1 - (offset / half) ** 2))) / np.i0(KAISER_BETA)
    taps = np.sinc(cutoff * offset) * window
    return half, (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)


class AudioDecoder:
    """Turns one session's bytes, without any header, into frames."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._format = fmt
        divisor = math.gcd(fmt.sample_rate, SAMPLE_RATE)
        self._up, self._down = SAMPLE_RATE // divisor, fmt.sample_rate // divisor
        self._half = 0
        self._taps: NDArray[np.float32] | None = None
        if self._up != self._down:
            self._half, self._taps = _filter_bank(self._up, self._down)
        self.seek(0)

    @property
    def samples(self) -> int:
        """How many output samples the bytes so far stand for, given or not."""
        return -(-self._taken * self._up // self._down)

    @property
    def at(self) -> int:
        """The first output sample not given yet; a whole number of frames."""
        return self._given

    def seek(self, at: int) -> int:
        """Go to output sample `at`, a whole number of frames, and give the byte of the stream to feed from."""
        first = at * self._down // self._up - max(self._half - 1, 0)
        self._held = np.zeros((self._format.channels, max(-first, 0)), np.float32)
        self._held_from, self._taken, self._given, self._odd = first, max(first, 0), at, b""
        return self._taken * self._format.frame_bytes

    def feed(self, data: bytes) -> NDArray[np.float32]:
        """Give the frames that `data` completes, as `[channels, n · FRAME]`."""
        data = self._odd + data
        whole = len(data) - len(data) % self._format.frame_bytes
        self._odd = data[whole:]
        fresh = pcm_samples(data[:whole], self._format)
        self._taken += fresh.shape[1]
        return self._frames(fresh)

    def flush(self) -> NDArray[np.float32]:
        """Give the last frames, padded with silence; odd bytes that make no whole sample are left out."""
        self._odd = b""
        left = -(-self.samples // FRAME) * FRAME - self._given
        reach = (self._given + left) * self._down // self._up + self._half + 1
        padding = np.zeros((self._format.channels, max(reach - self._taken, 0)), np.float32)
        return self._frames(padding)[:, :left]

    def _frames(self, fresh: NDArray[np.float32]) -> NDArray[np.float32]:
        self._held = np.concatenate([self._held, fresh], axis=1)
        if self._taps is None:
            whole = self._held.shape[1] // FRAME * FRAME
            given, self._held = self._held[:, :whole], self._held[:, whole:]
            self._given = self._held_from = self._given + whole
            return given
        stop = self._held_from + self._held.shape[1]
        frames = []
        while (last := (self._given + FRAME - 1) * self._down // self._up) + self._half < stop:
            frames.append(self._frame(last, self._taps))
            self._given += FRAME
        keep_from = self._given * self._down // self._up - max(self._half - 1, 0)
        self._held = self._held[:, keep_from - self._held_from :]
        self._held_from = keep_from
        return np.concatenate(frames, axis=1) if frames else np.zeros((self._format.channels, 0), np.float32)

    def _frame(self, last: int, taps: NDArray[np.float32]) -> NDArray[np.float32]:
        at = np.arange(self._given, self._given + FRAME) * self._down
        first = at // self._up - self._half + 1 - self._held_from
        reach = self._held[:, : last + self._half + 1 - self._held_from]
        windows = sliding_window_view(reach, 2 * self._half, axis=1)[:, first]
        frame: NDArray[np.float32] = np.einsum("cmk,mk->cm", windows, taps[at % self._up])
        return frame
