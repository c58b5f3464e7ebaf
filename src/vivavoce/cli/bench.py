"""`vivavoce bench`: how fast a server is, with how many live streams, and at which accuracy."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import vivavoce
from vivavoce.cli.client import Key
from vivavoce.errors import SetupError, VivavoceError

if TYPE_CHECKING:
    from rich.console import Console

    from vivavoce.bench.capacity import Capacity
    from vivavoce.bench.conversation import Conversation
    from vivavoce.bench.corpus import Turn
    from vivavoce.bench.load import Pacing, System, Target
    from vivavoce.bench.result import Limits, Result

SEARCH_S, SEARCHES_S = 420.0, 690.0
"""How long the search for one system's capacity may take, warming up included, and all of them."""

WARM_UP_S = 5.0

_LABELS, _FIGURES = 40, 22
_OTHER: dict[str, Any] = {"rich_help_panel": "Other loads"}
_SETS_OF_TALKS = 4

ALONE_S = 90.0
"""Least length of the run with one stream that a search measures others by."""


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
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the server that is started.")
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
    vs: Annotated[
        Rival | None,
        typer.Option(help="Put this through the same: moonshine-voice's Transcriber, or the models with no server."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw latency against streams, as .svg or .png.")
    ] = None,
) -> None:
    """Measure latency, accuracy and cost with live streams over real sockets.

    Starts a server of its own, or takes a running one, and plays conversations to it at the pace of speech: recordings
    with known words, each followed by as much quiet. Shows how long words and finals take to come, how many words are
    wrong, and what each stream costs.
    """
    from rich.console import Console

    from vivavoce.bench.load import Pacing
    from vivavoce.bench.report import require_plots

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
    counts = sorted(set(streams or ([] if others else [1])))
    chosen = _parse(settings or [])
    if server is None and (many := max(idle or 0, silence or 0)):
        chosen.setdefault("max_sessions", str(max(2 * many, 256)))
    session = _Bench(console=console, pacing=pacing, seconds=seconds, seed=seed, audio=audio)
    if not others.keys() <= {"idle", "silence"} or counts or find_capacity:
        session.prepare()
    with _target(server, key, pid, chosen) as target:
        if counts or find_capacity:
            _measure(session, "vivavoce", _live(target), find_capacity=find_capacity, counts=counts)
        for name, wanted in others.items():
            session.other(name, target, wanted, chosen)
    if vs is not None and session.results:
        with _rival(vs, chosen) as rival:
            _measure(session, vs.value, rival, find_capacity=find_capacity, counts=counts)
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


def _note(text: str) -> None:
    """Tell a person at a terminal what takes its time."""
    from vivavoce.cli.screen import progress_console

    console = progress_console()
    if console.is_terminal:
        console.print(text, style="dim")


@contextmanager
def _target(url: str | None, key: str | None, pid: int | None, settings: Mapping[str, str]) -> Iterator[Target]:
    """Give the running server, or one that is started for the block."""
    from vivavoce.bench.load import Target
    from vivavoce.cli.client import base_url
    from vivavoce.cli.embedded import embedded_process

    if url is not None:
        yield Target(url=base_url(url), key=key, pid=pid)
        return
    _note("starting a server …")
    with embedded_process(settings) as server:
        yield Target(url=server.url, pid=server.pid)


def _live(target: Target) -> System:
    """Give the server as a system under test."""
    from vivavoce.bench.load import finish, play

    def run(talks: Any, pacing: Pacing, **watch: Any) -> Any:
        return finish(lambda: play(target, talks, pacing, **watch))

    return run


@contextmanager
def _rival(vs: Rival, settings: Mapping[str, str]) -> Iterator[System]:
    """Give what to compare with, for the block."""
    if vs is Rival.MOONSHINE:
        from vivavoce.bench.moonshine import transcriber

        with transcriber() as rival:
            yield rival
    else:
        from vivavoce.bench.models import Models

        with closing(Models(settings)) as models:
            yield models


@dataclass(kw_only=True)
class _Bench:
    """One command's work: what is played, to which systems, and what came of it."""

    console: Console
    pacing: Pacing
    seconds: float
    seed: int
    audio: Path | None
    turns: list[Turn] = field(default_factory=list)
    results: dict[str, list[Result]] = field(default_factory=dict)
    found: dict[str, Capacity] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Find out what is said when in the recordings."""
        from vivavoce.bench.corpus import turns
        from vivavoce.plugins import plugin

        _note("finding the words in the recordings …")
        self.turns = turns(self.audio, plugin("aligners", "pocketsphinx")())

    def play(self, system: System, streams: int, seconds: float, limits: Limits | None = None) -> Result:
        """Run a number of streams, showing progress."""
        from rich.progress import BarColumn, Progress, TextColumn

        from vivavoce.bench.result import result_of
        from vivavoce.cli.screen import progress_console

        talks = self._talks(streams, seconds)
        watch: dict[str, Any] = {}
        if limits is not None:
            watch["hopeless"] = limits.hopeless(sum(len(talk.turns) for talk in talks))
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=40), TextColumn("{task.completed:.0f} s"))
        notes = progress_console()
        with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
            total = max(talk.duration_s for talk in talks) + self.pacing.stagger_s
            task = progress.add_task(f"{streams} streams", total=total)
            run = system(talks, self.pacing, progress=lambda done_s: progress.update(task, completed=done_s), **watch)
        return result_of(run, streams)

    def search(self, name: str, system: System, until: float) -> None:
        """Search for what a system holds until about `until` on `time.monotonic`'s clock."""
        from vivavoce.bench.capacity import find_capacity

        def probe(streams: int, limits: Limits | None) -> Result:
            return self.play(system, streams, max(self.seconds, ALONE_S) if limits is None else self.seconds, limits)

        found = find_capacity(probe, cores=os.cpu_count() or 1, until=until, on_result=self._tell)
        self.found[name], self.results[name] = found, list(found.probes)

    def _tell(self, result: Result, reasons: Sequence[str]) -> None:
        from vivavoce.bench.lags import FINAL, WORD

        verdict = f"[red]failed[/]: {'; '.join(reasons)}" if reasons else "[green]held[/]"
        p95 = ", ".join(f"{name} {result.p95(name) * 1000:.0f}" for name in (WORD, FINAL))
        self.console.print(f"{result.streams:>4} streams {verdict} [dim](p95 {p95} ms)[/]", soft_wrap=True)

    def other(self, name: str, target: Target, wanted: int, settings: Mapping[str, str]) -> None:
        """Run a load of another kind and print its figures."""
        from rich.pretty import Pretty
        from rich.progress import Progress, SpinnerColumn, TextColumn

        from vivavoce.cli.screen import progress_console

        columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:.0f} s"))
        notes = progress_console()
        with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
            task = progress.add_task(name, total=None)
            run = partial(self._other, name, target, wanted, settings)
            self.others[name] = run(lambda done_s: progress.update(task, completed=done_s))
        self.console.print(f"[bold]{name}[/]", Pretty(self.others[name], expand_all=True))

    def _other(
        self, name: str, target: Target, wanted: int, settings: Mapping[str, str], progress: Callable[[float], None]
    ) -> dict[str, Any]:
        from vivavoce.bench import scenarios, throughput
        from vivavoce.bench.load import finish

        if name == "idle":
            return finish(lambda: scenarios.idle(target, wanted, self.seconds, progress))
        if name == "silence":
            return finish(lambda: scenarios.silence(target, wanted, self.seconds, self.pacing, progress))
        cores = os.cpu_count() or 1
        if name == "overload":
            talks = self._talks(cores, self.seconds)
            return finish(lambda: scenarios.overload(target, talks, wanted, self.pacing, progress))
        talks = self._talks(_SETS_OF_TALKS * cores, 2 * self.seconds)
        served = finish(lambda: throughput.served(target, talks, self.pacing))
        loop = throughput.bare(talks, cores, settings)
        return throughput.ratios(served, loop, sum(talk.duration_s for talk in talks))

    def _talks(self, count: int, seconds: float) -> list[Conversation]:
        from vivavoce.bench.conversation import conversation

        return [conversation(self.turns, seconds, self.seed * 10_000 + each) for each in range(count)]

    def report(self, name: str) -> None:
        """Print a system's figures."""
        from vivavoce.bench.report import table

        results = self.results[name]
        # Tables that fit beside each other's figures on the terminal.
        side_by_side = max((self.console.width - _LABELS) // _FIGURES, 1)
        for first in range(0, len(results), side_by_side):
            self.console.print(table(results[first : first + side_by_side], name))
        if name in self.found:
            found = self.found[name]
            note = "" if found.complete else " (the search ran out of time: perhaps more)"
            self.console.print(f"[bold]{name} holds {found.streams} streams[/]{note}")

    def compare(self, rival: str) -> None:
        """Print how the server does beside a rival."""
        self.console.print(f"vivavoce against {rival}:")
        for line, ratio in self._ratios(rival).items():
            self.console.print(f"  {line.replace('_', ' ')}: {ratio:.2f} x")

    def _ratios(self, rival: str) -> dict[str, float]:
        from vivavoce.bench.report import ratios

        ours, theirs = ((self.results[name], self.found.get(name)) for name in ("vivavoce", rival))
        return ratios(ours, theirs)

    def as_json(self) -> dict[str, Any]:
        """Give everything as JSON knows it."""
        from vivavoce.bench.report import system_json

        body = {
            "vivavoce": vivavoce.__version__,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
            "played": {
                "format": self.pacing.form.value,
                "chunk_ms": round(self.pacing.chunk_s * 1000),
                "seconds": self.seconds,
                "stagger_s": self.pacing.stagger_s,
                "seed": self.seed,
                "audio": self.audio.name if self.audio else "moonshine-voice",
                "options": dict(self.pacing.options),
            },
            **(system_json(self.results["vivavoce"], self.found.get("vivavoce")) if self.results else {}),
            **self.others,
        }
        if rivals := [name for name in self.results if name != "vivavoce"]:
            body["vs"] = {
                name: {**system_json(self.results[name], self.found.get(name)), "ratios": self._ratios(name)}
                for name in rivals
            }
        return body

    def write(self, json_path: Path | None, plot_path: Path | None) -> None:
        """Write the files that were asked for."""
        from vivavoce.bench.report import plot

        if json_path is not None:
            json_path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        if plot_path is not None and self.results:
            plot(plot_path, self.results, {name: found.limits for name, found in self.found.items()})


def _measure(session: _Bench, name: str, system: System, *, find_capacity: bool, counts: Sequence[int]) -> None:
    """Warm a system up and run what was asked for."""
    until = min(time.monotonic() + SEARCH_S, session.began + SEARCHES_S)
    session.console.print(f"[bold]{name}[/]")
    session.play(system, 1, WARM_UP_S)
    if find_capacity:
        session.search(name, system, until)
    else:
        session.results[name] = [session.play(system, streams, session.seconds) for streams in counts]
    session.report(name)
