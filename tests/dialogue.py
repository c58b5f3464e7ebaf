"""Two people of the wheel's recordings in turn, for tests that tell them apart."""

from __future__ import annotations

import numpy as np

from recordings import wheel_recording
from sound import Samples, silence
from vivavoce.model import SAMPLE_RATE

TURNS = [
    ("two_cities", 4.8, 6.6),
    ("clone-test", 0.0, 2.1),
    ("two_cities", 6.9, 9.4),
    ("clone-test", 0.0, 4.0),
]
"""Whose words, from where to where in their recording, in seconds."""

PAUSE_S = 0.5


def dialogue() -> Samples:
    """Give the turns, each with a pause after it."""
    turns = [
        wheel_recording(name)[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)] for name, start, stop in TURNS
    ]
    return np.concatenate([part for turn in turns for part in (turn, silence(PAUSE_S))])


def turn_at(at_s: float) -> int:
    """Give the turn that is on at a moment, from 0; turns 0, 2 and so on are one person's, the others the other's."""
    ends = np.cumsum([stop - start + PAUSE_S for _, start, stop in TURNS])
    return int(np.searchsorted(ends, at_s, side="right"))
