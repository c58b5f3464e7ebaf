"""Conversations to play: turns with equally long gaps between them, cut into chunks of a client's format.

A gap is no digital silence but the quiet noise of a room, at `ROOM_DB`. Which turns come in which order, and the noise,
follow from the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import av
import numpy as np
from numpy.random import Generator, default_rng

from vivavoce.bench.corpus import Spoken, Turn
from vivavoce.model import SAMPLE_RATE, Samples

ROOM_DB = -60.0
"""Level of the noise between turns, under full scale."""

TAIL_S = 2.0
"""Quiet after the last turn, so that it ends as all others do."""

_LONGEST_WAIT_S = 4.0


class Format(StrEnum):
    """How audio goes to the server."""

    PCM16K = "pcm16k"
    ULAW8K = "ulaw8k"

    @property
    def rate(self) -> int:
        """Samples a second."""
        return 16_000 if self is Format.PCM16K else 8_000

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample."""
        return 2 if self is Format.PCM16K else 1

    @property
    def request(self) -> dict[str, object]:
        """The fields of a session's request that describe it."""
        encoding, depth = ("wav/pcm", 16) if self is Format.PCM16K else ("wav/ulaw", 8)
        return {"encoding": encoding, "bit_depth": depth, "sample_rate": self.rate, "channels": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A turn in a conversation; times in seconds of the conversation."""

    start: float
    stop: float
    speech_end: float
    said: tuple[Spoken, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Conversation:
    """One side of a conversation: what a microphone hears, and what is said when."""

    samples: Samples
    turns: tuple[Placed, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def speech_s(self) -> float:
        """Seconds of turns."""
        return sum(turn.stop - turn.start for turn in self.turns)

    @cached_property
    def said(self) -> tuple[Spoken, ...]:
        """All words, in order."""
        return tuple(word for turn in self.turns for word in turn.said)


def conversation(turns: Sequence[Turn], seconds: float, seed: int) -> Conversation:
    """Make a conversation of whole turns, half of it quiet, that lasts `seconds` or as little more as can be.

    It begins with up to four seconds of quiet, so that conversations of other seeds speak at other times.
    """
    rng = default_rng(seed)
    pieces = [_room(rng, rng.uniform(0.2, _LONGEST_WAIT_S))]
    placed: list[Placed] = []
    order: list[int] = []
    at_s = len(pieces[0]) / SAMPLE_RATE
    while at_s < seconds or not placed:
        order = order or [int(i) for i in rng.permutation(len(turns))]
        turn = turns[order.pop()]
        placed.append(_place(turn, at_s))
        pieces += [turn.samples, _room(rng, turn.duration_s)]
        at_s += 2 * turn.duration_s
    pieces.append(_room(rng, max(TAIL_S - (at_s - placed[-1].stop), 0.0)))
    return Conversation(samples=np.concatenate(pieces), turns=tuple(placed))


def encode(samples: Samples, form: Format) -> bytes:
    """Write samples as a client sends them."""
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    if form is Format.PCM16K:
        return bytes(pcm)
    frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler(format="s16", layout="mono", rate=form.rate)
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    encoder.sample_rate, encoder.layout, encoder.format = form.rate, "mono", "s16"
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    packets = [packet for piece in pieces for packet in encoder.encode(piece)]
    return b"".join(bytes(packet) for packet in [*packets, *encoder.encode(None)])


def chunks(data: bytes, form: Format, chunk_s: float) -> list[bytes]:
    """Cut encoded audio into chunks of `chunk_s`; the last one may be shorter."""
    size = round(form.rate * chunk_s) * form.sample_bytes
    return [data[at : at + size] for at in range(0, len(data), size)]


def _room(rng: Generator, seconds: float) -> Samples:
    noise = rng.standard_normal(round(seconds * SAMPLE_RATE)) * 10 ** (ROOM_DB / 20)
    return noise.astype(np.float32)


def _place(turn: Turn, at_s: float) -> Placed:
    return Placed(
        start=at_s,
        stop=at_s + turn.duration_s,
        speech_end=at_s + turn.speech_end,
        said=tuple(Spoken(text=word.text, end=at_s + word.end) for word in turn.said),
    )
