"""The bench on a real server with real speech: a few seconds, one stream."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Give what one short run printed and wrote, and its temporary directory."""
    place = tmp_path_factory.mktemp("bench")
    (place / "tmp").mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VIVAVOCE_", "GLADIA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "vivavoce", "bench", "1", "--seconds", "5", "--stagger", "0", "--json", "bench.json"],
        cwd=place, env=inherited | {"TMPDIR": str(place / "tmp"), "COLUMNS": "120"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((place / "bench.json").read_text(encoding="utf-8")), place


def test_a_run_shows_every_figure(bench):
    """The table names each lag, the error rate and the cost."""
    for figure in (
        "word lag",
        "coverage lag",
        "final lag",
        "decision lag",
        "ack lag",
        "word error rate",
        "CPU a stream",
    ):
        assert figure in bench[0]


def test_the_figures_are_those_of_a_session_that_worked(bench):
    """Speech was heard, mostly rightly, and every lag was measured and lies where lags can lie."""
    (run,) = bench[1]["runs"]
    assert run["refused"] == run["problems"] == []
    assert run["unanswered"] == 0
    assert run["word_errors"] < run["words_said"]
    assert run["partials_per_speech_s"] > 0
    for name in ("word", "coverage", "final", "decision", "ack"):
        figures = run["lags_ms"][name]
        assert figures["count"] > 0
        assert figures["p50"] <= figures["p95"] <= figures["p99"]
        # A minute would mean that moments of two clocks were mixed up.
        assert abs(figures["p99"]) < 60_000
    assert run["lags_ms"]["ack"]["p50"] > 0
    assert 0 < run["cores_per_stream"] < 10
    assert run["memory_mb"] > 50


def test_nothing_is_left(bench):
    """The server's data and its temporary files are gone."""
    assert list((bench[2] / "tmp").iterdir()) == []
