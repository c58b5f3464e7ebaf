"""Fixtures that every test may use: real recordings at 16 kHz (read-only) and what is said in them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode adds nothing, and tests share `recordings`

from recordings import TRANSCRIPTS, wheel_recording

# Who runs in the background of a shell ignores SIGINT, and so would all programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing on a busy machine.
settings.register_profile("vivavoce", deadline=None)
settings.load_profile("vivavoce")


@pytest.fixture(scope="session")
def two_cities() -> NDArray[np.float32]:
    """44 s of one man reading, in thirteen or so phrases with clear pauses."""
    return wheel_recording("two_cities")


@pytest.fixture(scope="session")
def two_cities_text() -> str:
    """What is said in `two_cities`."""
    return TRANSCRIPTS["two_cities"]


@pytest.fixture(scope="session")
def beckett() -> NDArray[np.float32]:
    """10 s of six two-word phrases."""
    return wheel_recording("beckett")


@pytest.fixture(scope="session")
def beckett_text() -> str:
    """What is said in `beckett`."""
    return TRANSCRIPTS["beckett"]


@pytest.fixture(scope="session")
def endgame() -> NDArray[np.float32]:
    """28 s of a man and a woman speaking in turn."""
    return wheel_recording("endgame_nagg_nell")
