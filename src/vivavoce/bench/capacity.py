"""The search for the largest number of streams that a system holds, with few probes.

One stream gives the limits, and from what it cost a first guess; the number grows by half until it fails, and is
halved in from there. A probe that cannot hold any more ends early. A number that held is never tried again, so what
is reported did hold, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from vivavoce.bench.load import BenchError
from vivavoce.bench.result import Limits, Result

Probe = Callable[[int, Limits | None], Result]
"""Runs so many streams, with the limits that may end it early, and gives the result."""

_COMFORT = 1.0
_FINENESS = 16
"""A gap of a sixteenth of what held is not searched any further."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The largest number of streams that held, the probes on the way there, and why each that failed did."""

    streams: int
    limits: Limits
    probes: tuple[Result, ...]
    failures: dict[int, list[str]]
    complete: bool


def find_capacity(
    probe: Probe, *, cores: int, until: float, on_result: Callable[[Result, list[str]], None]
) -> Capacity:
    """Search with `probe` until about `until` on `time.monotonic`'s clock; the result may then be too low.

    Raises `BenchError` where not even one stream is held.
    """
    alone = probe(1, None)
    limits = Limits.of(alone)
    reasons = limits.broken(alone)
    on_result(alone, reasons)
    if reasons:
        raise BenchError(f"not even one stream is held: {'; '.join(reasons)}")
    probes, failures = [alone], dict[int, list[str]]()
    longest_s = 0.0
    held, failed = 1, cast("int | None", None)
    streams: int | None = _first_guess(alone, cores)
    while streams is not None and time.monotonic() + longest_s < until:
        began = time.monotonic()
        result = probe(streams, limits)
        longest_s = max(longest_s, time.monotonic() - began)
        reasons = limits.broken(result)
        probes.append(result)
        on_result(result, reasons)
        if reasons:
            failures[streams] = reasons
            failed = streams
        else:
            held = streams
        streams = following(held, failed)
    ordered = tuple(sorted(probes, key=lambda each: each.streams))
    return Capacity(streams=held, limits=limits, probes=ordered, failures=failures, complete=streams is None)


def following(held: int, failed: int | None) -> int | None:
    """Give the number to try next, or None where the gap between what held and what failed is small enough."""
    if failed is None:
        return held + max(held // 2, 1)
    if failed - held <= max(held // _FINENESS, 1):
        return None
    return (held + failed) // 2


def _first_guess(alone: Result, cores: int) -> int:
    cost = alone.usage.cores_per_stream if alone.usage is not None else 0.5
    return max(round(_COMFORT * cores / max(cost, 0.01)), 2)
