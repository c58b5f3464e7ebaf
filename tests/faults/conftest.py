"""One server for the fault tests that need nothing special of it, and one with all defaults."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from faults.clients import available
from faults.run import SERVER_OPTIONS, Runner
from server import Server, serving


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Iterator[Runner]:
    """Runs schedules against a server that cuts no utterance by the clock."""
    with serving(tmp_path_factory.mktemp("faults") / "data", *SERVER_OPTIONS) as running:
        yield Runner(running)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """The real program, with all defaults."""
    with serving(tmp_path_factory.mktemp("defaults") / "data") as running:
        yield running


@pytest.fixture(autouse=True)
def sdk_leaves_nothing_to_later_tests() -> Iterator[None]:
    """Collect the HTTP clients that the Python SDK never closes, where nobody takes that for our mistake."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def client(request) -> str:
    """A client by name, for indirect parameters; the test is skipped where this machine cannot run it."""
    if not available(request.param):
        pytest.skip("the JavaScript SDK is not installed: `make clients`")
    return request.param
