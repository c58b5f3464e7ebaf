"""The bench on a real server with real speech: a few seconds, one stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest


def clean_environment() -> dict[str, str]:
    """Give the environment without settings of a user."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("VIVAVOCE_", "GLADIA_"))}


def run_bench(place: Path, *arguments: str) -> Any:
    """Run the bench to its end, with `place/tmp` for temporary files, and give what it wrote as JSON."""
    (place / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "vivavoce", "bench", *arguments, "--json", "bench.json"],
        cwd=place, env={**clean_environment(), "TMPDIR": str(place / "tmp"), "COLUMNS": "120"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (place / "shown").write_text(done.stdout, encoding="utf-8")
    return json.loads((place / "bench.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Give what one short run printed and wrote, and its directory."""
    place = tmp_path_factory.mktemp("bench")
    figures = run_bench(place, "1", "--seconds", "5", "--stagger", "0")
    return (place / "shown").read_text(encoding="utf-8"), figures, place


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


@pytest.mark.slow
def test_interrupting_ends_everything_and_leaves_nothing(tmp_path):
    """Ctrl-C in the middle of a run gives the code of an interrupt, and no process or file stays."""
    environment = {**clean_environment(), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "vivavoce", "bench", "1", "--seconds", "60"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert any(line.startswith("vivavoce") for line in process.stdout)
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "")
    psutil.wait_procs(children, timeout=30)
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_loads_give_their_figures(tmp_path):
    """Loads that any machine can bear lose nothing, and what is decoded twice is decoded alike."""
    options = ["--idle", "3", "--silence", "2", "--overload", "2", "--throughput", "--seconds", "5", "--stagger", "1"]
    figures = run_bench(tmp_path, *options)
    assert (figures["idle"]["sessions"], figures["idle"]["refused"], figures["idle"]["lost"]) == (3, 0, 0)
    assert (figures["silence"]["sessions"], figures["silence"]["transcripts"]) == (2, 0)
    assert figures["overload"]["sessions_with_other_finals"] == figures["overload"]["sessions_out_of_order"] == 0
    assert figures["overload"]["finals"] > 0
    throughput = figures["throughput"]
    assert throughput["server"]["finals"] == throughput["bare_loop"]["finals"] > 0
    assert throughput["ratio"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("rival", ["moonshine", "models"])
def test_the_rival_hears_the_same_and_is_compared(tmp_path, rival):
    """moonshine-voice's Transcriber, or the bare models, understand what is played to them; their lags are measured."""
    figures = run_bench(tmp_path, "1", "--vs", rival, "--seconds", "5")
    (theirs,) = figures["vs"][rival]["runs"]
    assert theirs["word_errors"] < theirs["words_said"]
    assert theirs["lags_ms"]["word"]["count"] > 0
    assert theirs["lags_ms"]["final"]["count"] > 0
    assert theirs["cores_per_stream"] > 0
    assert "word_lag_p95_at_1" in figures["vs"][rival]["ratios"]


@pytest.mark.slow
def test_costs_add_up(tmp_path):
    """A server tells what each run cost it, and finals and partials are part of that wherever they are asked for."""
    runs = run_bench(tmp_path, "--costs", "1", "--seconds", "5")["costs"]
    assert [name for run in runs for name in run if name in {"chunk_ms", "channels", "minutes"}] == (
        ["chunk_ms"] * 5 + ["channels"] * 4 + ["minutes"]
    )
    for run in runs:
        spent = run["cpu_ms_per_audio_s"]
        assert spent["finals"] > 0
        assert (spent["partials"] > 0) == ("minutes" not in run)
