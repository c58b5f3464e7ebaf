"""What `vivavoce bench` runs, one after another, what it shows of it, and what it writes."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vivavoce

if TYPE_CHECKING:
    from rich.console import Console

    from vivavoce.bench.capacity import Capacity
    from vivavoce.bench.conversation import Conversation
    from vivavoce.bench.corpus import Turn
    from vivavoce.bench.costs import Cost
    from vivavoce.bench.load import Pacing, System, Target
    from vivavoce.bench.result import Limits, Result

SEARCH_S, SEARCHES_S = 420.0, 690.0
"""How long the search for one system's capacity may take, warming up included, and all of them."""

WARM_UP_S = 5.0

_LABELS, _FIGURES = 40, 22
_SETS_OF_TALKS = 4
_ROUNDS = 5

ALONE_S = 90.0
"""Least length of the run with one stream that a search measures others by."""


def note(text: str) -> None:
    """Tell a person at a terminal what takes its time."""
    from vivavoce.cli.screen import progress_console

    console = progress_console()
    if console.is_terminal:
        console.print(text, style="dim")


@contextmanager
def _spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Show a person at a terminal that work goes on; what is given changes the text."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from vivavoce.cli.screen import progress_console

    notes = progress_console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda now: progress.update(task, description=now)


@contextmanager
def target_of(url: str | None, key: str | None, pid: int | None, settings: Mapping[str, str]) -> Iterator[Target]:
    """Give the running server, or one that is started for the block."""
    from vivavoce.bench.load import Target
    from vivavoce.cli.client import base_url
    from vivavoce.cli.embedded import embedded_process

    if url is not None:
        yield Target(url=base_url(url), key=key, pid=pid)
        return
    note("starting a server …")
    with embedded_process(settings) as server:
        yield Target(url=server.url, pid=server.pid)


def live(target: Target) -> System:
    """Give the server as a system under test."""
    from vivavoce.bench.load import finish, play

    def run(talks: Any, pacing: Pacing, **watch: Any) -> Any:
        return finish(lambda: play(target, talks, pacing, **watch))

    return run


@contextmanager
def rival(name: str, settings: Mapping[str, str]) -> Iterator[System]:
    """Give what to compare with, for the block."""
    if name == "moonshine":
        from vivavoce.bench.moonshine import transcriber

        with transcriber() as transcribes:
            yield transcribes
    else:
        from vivavoce.bench.models import Models

        with closing(Models(settings)) as models:
            yield models


@dataclass(kw_only=True)
class Bench:
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
    costs: list[Cost] = field(default_factory=list)

    def prepare(self) -> None:
        """Find out what is said when in the recordings."""
        from vivavoce.bench.corpus import turns
        from vivavoce.plugins import plugin

        note("finding the words in the recordings …")
        self.turns = turns(self.audio, plugin("aligners", "pocketsphinx")())

    def measure(self, name: str, system: System, *, find_capacity: bool, counts: Sequence[int]) -> None:
        """Warm a system up and run what was asked for."""
        until = min(time.monotonic() + SEARCH_S, self.began + SEARCHES_S)
        self.console.print(f"[bold]{name}[/]")
        self.play(system, 1, WARM_UP_S)
        if find_capacity:
            self.search(name, system, until)
        else:
            self.results[name] = [self.play(system, streams, self.seconds) for streams in counts]
        self.report(name)

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

        with _spinner(name) as tell:
            self.others[name] = self._other(name, target, wanted, settings, lambda s: tell(f"{name} {s:.0f} s"))
        self.console.print(f"[bold]{name}[/]", Pretty(self.others[name], expand_all=True))

    def cost(self, target: Target, longest_min: float) -> None:
        """Find out what a second of audio costs as sessions grow, up to so many minutes, and print it."""
        from vivavoce.bench.costs import Plan, costs
        from vivavoce.bench.load import finish
        from vivavoce.bench.report import costs_table

        plan = Plan(talk=self._talk, seconds=self.seconds, longest_min=longest_min, pacing=self.pacing)
        with _spinner("costs") as tell:
            self.costs = finish(lambda: costs(target, plan, lambda what: tell(f"costs: {what}")))
        self.console.print(costs_table(self.costs))

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
        pairs = [
            (finish(lambda: throughput.served(target, talks, self.pacing)), throughput.bare(talks, cores, settings))
            for _ in range(_ROUNDS)
        ]
        return throughput.ratios(pairs, sum(talk.duration_s for talk in talks))

    def _talks(self, count: int, seconds: float) -> list[Conversation]:
        return [self._talk(each, seconds) for each in range(count)]

    def _talk(self, nth: int, seconds: float) -> Conversation:
        from vivavoce.bench.conversation import conversation

        return conversation(self.turns, seconds, self.seed * 10_000 + nth)

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
            **({"costs": [cost.as_json() for cost in self.costs]} if self.costs else {}),
        }
        if rivals := [name for name in self.results if name != "vivavoce"]:
            body["vs"] = {
                name: {**system_json(self.results[name], self.found.get(name)), "ratios": self._ratios(name)}
                for name in rivals
            }
        return body

    def write(self, json_path: Path | None, plot_path: Path | None) -> None:
        """Write the files that were asked for."""
        from vivavoce.bench.report import plot, plot_costs

        if json_path is not None:
            json_path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        if plot_path is not None and self.results:
            plot(plot_path, self.results, {name: found.limits for name, found in self.found.items()})
        elif plot_path is not None and self.costs:
            plot_costs(plot_path, self.costs)
