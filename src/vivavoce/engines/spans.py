"""Where a clip is cut that is longer than a model hears in one piece: at quiet places."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vivavoce.model import SAMPLE_RATE, Samples

_HOP, _QUIET_HOPS = SAMPLE_RATE // 50, 10  # a cut lies in the middle of the quietest fifth of a second


def quiet_cuts(samples: Samples, longest: int) -> Iterator[tuple[int, int]]:
    """Give the start and stop of each piece, the last one as it is; `longest` is a whole number of tenths of a second.

    A cut lies in the second half of the longest piece, and depends only on what is heard up to the end of that: it
    stays where it is while the clip grows.
    """
    start = 0
    while len(samples) - start > longest:
        half = start + longest // 2
        energy = np.square(samples[half : start + longest], dtype=np.float64).reshape(-1, _HOP).sum(1)
        quiet = np.convolve(energy, np.ones(_QUIET_HOPS), "valid").argmin()
        stop = half + (int(quiet) + _QUIET_HOPS // 2) * _HOP
        yield start, stop
        start = stop
    yield start, len(samples)
