"""`vivavoce bench`: how fast a server is, with how many live streams, and at which accuracy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vivavoce.cli.client import Key
from vivavoce.errors import SetupError, VivavoceError

_OTHER: dict[str, Any] = {"rich_help_panel": "Other loads"}


class Chunk(StrEnum):
    """Milliseconds of audio in one message."""

    SHORT = "20"
    LONG = "100"


class Form(StrEnum):
    """How audio is encoded."""

    PCM16K = "pcm16k"
    ULAW8K = "ulaw8k"


class Rival(StrEnum):
    """What to compare with."""

    MOONSHINE = "moonshine"
    MODELS = "models"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = (
        "Examples:\n\n"
        "vivavoce bench 1 4 8\n\n"
        "vivavoce bench --find-capacity --vs moonshine --json bench.json --plot bench.svg\n\n"
        "vivavoce bench 4 --chunk 20 --format ulaw8k --set min_silence=0"
    )
    app.command("bench", epilog=epilog, rich_help_panel="More")(bench)


def bench(
    streams: Annotated[list[int] | None, typer.Argument(min=1, help="Numbers of streams to run; 1 by default.")] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", "--url", metavar="URL", help="A running server; by default one is started."),
    ] = None,
    key: Key = None,
    pid: Annotated[
        int | None, typer.Option(help="Process of the running server, to measure its CPU and memory.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help='Recordings: a JSON list of {"file": …, "transcript": …}.'),
    ] = None,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="Length of each stream, at least.")] = 30.0,
    chunk: Annotated[Chunk, typer.Option(help="Milliseconds of audio in a message.")] = Chunk.LONG,
    form: Annotated[Form, typer.Option("--format", help="Encoding of the audio.")] = Form.PCM16K,
    stagger: Annotated[float, typer.Option(min=0, help="Seconds over which the streams start.")] = 5.0,
    endpointing: Annotated[float | None, typer.Option(help="Seconds of silence that end an utterance.")] = None,
    maximum_duration: Annotated[float | None, typer.Option(help="Longest utterance, in seconds.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the server that is started; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is said when follows from it.")] = 0,
    find_capacity: Annotated[
        bool, typer.Option("--find-capacity", help="Search for the largest number of streams that is held.")
    ] = False,
    idle: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Hold N open sessions that only send keep-alives.", **_OTHER)
    ] = None,
    silence: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stream digital silence in N sessions.", **_OTHER)
    ] = None,
    overload: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Play N streams, more than can be held.", **_OTHER)
    ] = None,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Compare decoding at full speed with a bare loop.", **_OTHER)
    ] = False,
    costs: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            min=1,
            max=180,
            help="Show what audio costs by chunks, channels and length of a session, up to so long.",
            **_OTHER,
        ),
    ] = None,
    vs: Annotated[
        Rival | None,
        typer.Option(help="Put this through the same: moonshine-voice's Transcriber, or the models with no server."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    plot_path: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw latency by streams, or costs, as .svg or .png; needs vivavoce[bench]."
        ),
    ] = None,
) -> None:
    """Measure latency, accuracy and cost with live streams over real sockets.

    Starts a server of its own, or takes a running one, and plays conversations to it at the pace of speech: recordings
    with known words, each followed by as much quiet. Shows how long words and finals take to come, how many words are
    wrong, and what each stream costs. What the figures mean is told in docs/how-to/bench.md.
    """
    from rich.console import Console

    from vivavoce.bench.load import Pacing
    from vivavoce.bench.report import require_plots
    from vivavoce.cli.bench_runs import Bench, live, rival, target_of

    for path in (json_path, plot_path):
        _require_writable(path)
    if plot_path is not None:
        require_plots()
    if server is not None and settings:
        raise SetupError("--set is for a server that is started; a running one keeps its settings")
    options = {"endpointing": endpointing, "maximum_duration_without_endpointing": maximum_duration}
    pacing = Pacing(
        form=_form(form),
        chunk_s=int(chunk.value) / 1000,
        stagger_s=stagger,
        options={name: value for name, value in options.items() if value is not None},
    )
    console = Console(highlight=False)
    asked = {"idle": idle, "silence": silence, "overload": overload, "throughput": 1 if throughput else None}
    others = {name: wanted for name, wanted in asked.items() if wanted is not None}
    counts = sorted(set(streams or ([] if others or costs else [1])))
    chosen = _parse(settings or [])
    if server is None and (many := max(idle or 0, silence or 0)):
        chosen.setdefault("max_sessions", str(max(2 * many, 256)))
    session = Bench(console=console, pacing=pacing, seconds=seconds, seed=seed, audio=audio)
    if not others.keys() <= {"idle", "silence"} or counts or find_capacity or costs:
        session.prepare()
    with target_of(server, key, pid, chosen) as target:
        if counts or find_capacity:
            session.measure("vivavoce", live(target), find_capacity=find_capacity, counts=counts)
        for name, wanted in others.items():
            session.other(name, target, wanted, chosen)
        if costs is not None:
            session.cost(target, costs)
    if vs is not None and session.results:
        with rival(vs.value, chosen) as other:
            session.measure(vs.value, other, find_capacity=find_capacity, counts=counts)
        session.compare(vs.value)
    session.write(json_path, plot_path)


def _form(form: Form) -> Any:
    from vivavoce.bench.conversation import Format

    return Format(form.value)


def _require_writable(path: Path | None) -> None:
    if path is not None and not os.access(path.parent, os.W_OK):
        raise VivavoceError(f"{path}: cannot be written, there is no such directory or it is not yours")


def _parse(settings: Sequence[str]) -> dict[str, str]:
    """Read settings given as name=value."""
    from vivavoce.config import Settings

    parsed = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or name not in Settings.model_fields:
            raise SetupError(f"--set {setting}: give a setting of `vivavoce serve` and its value, as min_silence=0")
        parsed[name] = value.strip()
    return parsed
