"""Memory stays flat over many sessions and over a long one."""

from __future__ import annotations

import pytest

from faults.memory import FLAT, long_session, sequential
from faults.run import SERVER_OPTIONS
from server import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


async def test_memory_is_flat_over_two_hundred_sessions(tmp_path) -> None:
    """After the warm-up, sessions that are over leave nothing behind."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:
        figures = await sequential(server)
    assert figures.growth < FLAT, figures


async def test_memory_is_flat_over_half_an_hour_in_one_session(tmp_path) -> None:
    """A long session keeps its audio on the disk and forgets what it has transcribed."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:
        figures = await long_session(server)
    assert figures.growth < FLAT, figures
