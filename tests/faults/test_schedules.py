"""Seeded random faults: not a byte is lost or doubled, and the finals are those of a quiet run."""

from __future__ import annotations

import pytest

from faults.clients import SDK_WARNINGS
from faults.proxy import ENDING
from faults.run import Runner

pytestmark = SDK_WARNINGS

QUICK = 8
IN_CI = 50


@pytest.mark.parametrize(
    "seeds", [range(QUICK), pytest.param(range(QUICK, IN_CI), marks=[pytest.mark.slow, pytest.mark.timeout(720)])]
)
async def test_whatever_breaks_nothing_is_lost_or_doubled(runner: Runner, seeds: range) -> None:
    """After each schedule the stored audio is what left the client, and the finals are the undisturbed ones.

    A failing seed runs again with `python -m faults --seed N` in `tests`.
    """
    before = runner.tally.runs
    tally = await runner.run_all(seeds)
    assert not tally.failures, "\n".join(tally.failures.values())
    assert tally.runs == before + len(seeds)
    assert sum(tally.struck[kind] for kind in ENDING) > len(seeds) / 2, "hardly anything broke"
