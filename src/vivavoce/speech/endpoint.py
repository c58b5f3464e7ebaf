"""Where speech begins and ends on one channel, from probabilities and loudness; no clock is ever read.

Each step takes one frame: the probability of speech in it and the level of its `BLOCKS` blocks of 8 ms. The endpointer
is in one of three states:

- *idle*: no segment. A frame at or above `enter` makes its first sample the onset of a segment: *voiced*.
- *voiced*: speech goes on. It lasts until a frame falls below `leave` (hysteresis: 0.25 under `enter`): *pausing*.
- *pausing*: the segment has an end. A frame at or above `enter` makes it *voiced* again; enough silence closes it.

The end of speech is where the signal itself falls silent, not where the model notices: the end of the last loud block,
at most `BACKDATE` before the frame that fell below `leave`. A block is loud within 30 dB of the segment's peak and 6 dB
over the background (the lowest recent level). Silence counts from there, so the model's own delay is not paid twice.

A segment is announced (`Opened`) once its loud part is `SHORTEST` long and comes to nothing if it never is. `Paused`
tells an end of speech before it is certain, as soon as `TAIL` of quiet has followed it, so that the final can be
decoded before it is due. A segment as long as `maximum` is cut at its quietest moment near the end, and the next one
starts there; `Foreseen` tells shortly before where that will most likely be. Every `Opened` is followed by exactly one
`Closed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.model import SAMPLE_RATE
from vivavoce.speech.audio import FRAME

BLOCK = 128
BLOCKS = FRAME // BLOCK
HYSTERESIS = 0.25
SHORTEST = SAMPLE_RATE // 10
TAIL = SAMPLE_RATE // 10
BACKDATE = SAMPLE_RATE * 2 // 5
LOUD_UNDER_PEAK_DB = 30.0
LOUD_OVER_FLOOR_DB = 6.0
QUIET_UNDER_PEAK_DB = 12.0
FLOOR_RISE_DB = 0.2
FLOOR_RISE_IDLE_DB = 2.0
"""How fast the background may rise in a frame: slowly under speech, whose gaps alone show it, quickly without."""

CUT_WINDOW = SAMPLE_RATE * 2
CUT_SMOOTHING = 5
FORESIGHT = SAMPLE_RATE * 3 // 10
"""How long before a cut in mid-speech its place is foretold; it holds unless somewhere still to come is quieter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Speech began at sample `onset`."""

    onset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The open segment's speech may have ended at sample `end`."""

    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """The open segment will be cut in mid-speech, at sample `end` if nothing quieter comes."""

    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The open segment is over; `forced` if it was cut in mid-speech."""

    onset: int
    end: int
    forced: bool


Mark = Opened | Paused | Foreseen | Closed


def levels(frames: NDArray[np.float32]) -> list[list[float]]:
    """Give the level of each block in dB under full scale, `BLOCKS` a frame, for frames `[n, FRAME]`.

    As numbers of Python's own, since a step looks at four of them at a time.
    """
    blocks = frames.reshape(-1, BLOCKS, BLOCK).astype(np.float64)
    power: list[list[float]] = (10 * np.log10(np.einsum("nbs,nbs->nb", blocks, blocks) / BLOCK + 1e-10)).tolist()
    return power


class Endpointer:
    """One channel's segments; positions are samples from the channel's start."""

    def __init__(self, *, threshold: float, silence: int, maximum: int) -> None:
        self._enter = threshold
        self._leave = max(threshold - HYSTERESIS, 0.01)
        self._silence = max(silence, TAIL)
        self._maximum = maximum
        self._foresight = min(FORESIGHT, maximum // 4)
        self.at = 0
        self.onset: int | None = None
        self.open = False
        self._pause: int | None = None
        self._told: int | None = None
        self._foretold = False
        self._last_loud = 0
        self._peak = -100.0
        self._floor = 0.0
        self._recent: deque[float] = deque(maxlen=CUT_WINDOW // BLOCK + CUT_SMOOTHING)

    def save(self) -> dict[str, Any]:
        """Give all that `restore` needs to go on from here, as JSON values."""
        return {
            "at": self.at,
            "onset": self.onset,
            "pause": self._pause,
            "last_loud": self._last_loud,
            "peak": self._peak,
            "floor": self._floor,
            "recent": list(self._recent),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from where `save` was called, which must not be while a segment is open."""
        self.at, self.onset = saved["at"], saved["onset"]
        self.open, self._pause, self._told, self._foretold = False, saved["pause"], None, False
        self._last_loud, self._peak, self._floor = saved["last_loud"], saved["peak"], saved["floor"]
        self._recent.clear()
        self._recent.extend(saved["recent"])

    @property
    def last_loud(self) -> int:
        """End of the last loud block of the segment."""
        return self._last_loud

    def step(self, probability: float, blocks: Sequence[float]) -> list[Mark]:
        """Take one frame and give what it decides, in order."""
        start, self.at = self.at, self.at + FRAME
        if self.onset is None:
            if probability < self._enter:
                self._track_floor(blocks, FLOOR_RISE_IDLE_DB)
                return []
            self._begin(start)
        elif probability >= self._enter:
            self._pause = None
        elif probability < self._leave and self._pause is None:
            self._pause = self._end_of_speech(start)
        self._hear(start, blocks)
        return self._decide()

    def cut(self) -> list[Mark]:
        """Close what is open at the end of the frames so far."""
        if self.onset is None:
            return []
        end = self._pause if self._pause is not None else self._end_of_speech(self.at)
        return self._close(end, forced=False)

    def _begin(self, onset: int) -> None:
        self.onset = self._last_loud = onset
        self._pause = self._told = None
        self._foretold = False
        self._peak = -100.0
        self._recent.clear()

    def _hear(self, start: int, blocks: Sequence[float]) -> None:
        self._track_floor(blocks, FLOOR_RISE_DB)
        self._recent.extend(blocks)
        if self._pause is not None:
            return
        self._peak = max(self._peak, *blocks)
        over_floor = min(self._floor + LOUD_OVER_FLOOR_DB, self._peak - QUIET_UNDER_PEAK_DB)
        loud_from = max(self._peak - LOUD_UNDER_PEAK_DB, over_floor)
        for nth, level in enumerate(blocks):
            if level > loud_from:
                self._last_loud = start + (nth + 1) * BLOCK

    def _track_floor(self, blocks: Sequence[float], rise_db: float) -> None:
        self._floor = min(self._floor + rise_db, *blocks)

    def _end_of_speech(self, noticed: int) -> int:
        assert self.onset is not None
        return max(min(self._last_loud, noticed), noticed - BACKDATE, self.onset)

    def _decide(self) -> list[Mark]:
        assert self.onset is not None
        marks: list[Mark] = []
        if not self.open and self._last_loud - self.onset >= SHORTEST:
            self.open = True
            marks.append(Opened(onset=self.onset))
        end = self._pause
        if end is not None and self.at - end >= self._silence:
            return marks + self._close(end, forced=False)
        if self.at - self.onset >= self._maximum:
            return marks + (self._close(end, forced=False) if end is not None else self._split())
        end = self._last_loud if end is None else end
        if self.open and end != self._told and self.at - end >= TAIL:
            self._told = end
            marks.append(Paused(end=end))
        elif self.open and self._pause is None and not self._foretold and self._to_cut <= self._foresight:
            self._foretold = True
            marks.append(Foreseen(end=self._quietest()))
        return marks

    @property
    def _to_cut(self) -> int:
        """How many samples are left before the segment is cut."""
        assert self.onset is not None
        return -(-(self.onset + self._maximum - self.at) // FRAME) * FRAME

    def _close(self, end: int, *, forced: bool) -> list[Mark]:
        assert self.onset is not None
        closed = Closed(onset=self.onset, end=end, forced=forced)
        was_open, self.open, self.onset = self.open, False, None
        return [closed] if was_open else []

    def _split(self) -> list[Mark]:
        """Cut in mid-speech at the quietest moment near the end; the next segment starts there."""
        assert self.onset is not None
        cut = self._quietest()
        peak = self._peak
        last_loud = max(self._last_loud, cut)
        marks = self._close(cut, forced=True)
        self._begin(cut)
        self._peak, self._last_loud = peak, last_loud
        return marks

    def _quietest(self) -> int:
        """Give the middle of the quietest moment so far in the window that will be looked at when the cut is due."""
        window = (min(CUT_WINDOW, self._maximum // 2) - max(self._to_cut, 0)) // BLOCK
        recent = np.array(self._recent)[-window - CUT_SMOOTHING + 1 :]
        smooth = np.convolve(recent, np.full(CUT_SMOOTHING, 1 / CUT_SMOOTHING), "valid")
        quietest = len(smooth) - int(np.argmin(smooth[::-1]))
        return self.at - (len(smooth) - quietest + CUT_SMOOTHING // 2) * BLOCK
