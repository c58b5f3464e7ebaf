"""Deadlines, without waiting for any."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.config import Settings
from vivavoce.runtime.clock import SessionClock


@pytest.fixture
def clock(tmp_path: Path) -> SessionClock:
    settings = Settings(data_dir=tmp_path, grace=60, idle_timeout=30, connect_timeout=600, max_session=1000, idle_cut=1)
    return SessionClock(settings, stall_s=1.0, at=0.0, ever_connected=False)


def test_nobody_came(clock: SessionClock) -> None:
    """A session that is never connected to ends after its own, longer time."""
    assert clock.next(utterance_open=False) == 600
    assert clock.overdue(599) is None
    assert clock.overdue(600) == "nobody was connected for 600 s"


def test_the_client_left(clock: SessionClock) -> None:
    """From the end of its last socket a session has the grace period, and a new socket ends that."""
    clock.on_connect(10)
    clock.on_disconnect(20)
    assert clock.next(utterance_open=True) == 80
    assert clock.overdue(80) == "nobody was connected for 60 s"
    clock.on_connect(79)
    assert clock.overdue(80) is None


def test_the_client_says_nothing(clock: SessionClock) -> None:
    """Anything received, audio or not, puts the idle limit off."""
    clock.on_connect(10)
    clock.on_input(39)
    assert clock.overdue(68) is None
    assert clock.overdue(69) == "nothing was received for 30 s"


def test_a_stall_counts_from_the_last_audio(clock: SessionClock) -> None:
    """Signs of life without audio do not keep an utterance open; without a socket nothing is cut."""
    clock.on_connect(10)
    clock.on_audio(12)
    clock.on_input(12.9)
    assert clock.next(utterance_open=True) == 13
    assert not clock.stalled(12.9)
    assert clock.stalled(13)
    clock.on_disconnect(13)
    assert not clock.stalled(20)


def test_three_hours_are_enough(clock: SessionClock) -> None:
    """However lively, a session ends at its maximum."""
    clock.on_connect(999)
    clock.on_audio(999)
    assert clock.overdue(1000) == "the session reached its maximum of 1000 s"
