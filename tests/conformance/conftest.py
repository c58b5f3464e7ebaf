"""One server for all conformance tests that need nothing special of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """The real program, with all defaults, on loopback and without keys."""
    with serving(tmp_path_factory.mktemp("conformance") / "data") as running:
        yield running
