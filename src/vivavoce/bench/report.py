"""Results for people: a table, and a plot of latency against the number of streams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vivavoce.bench.capacity import Capacity
from vivavoce.bench.costs import Cost
from vivavoce.bench.lags import ACK, COVERAGE, DECISION, FINAL, WORD, percentiles
from vivavoce.bench.result import Limits, Result
from vivavoce.errors import SetupError

_NAMES = {
    WORD: "word lag",
    COVERAGE: "coverage lag",
    FINAL: "final lag",
    DECISION: "decision lag",
    ACK: "ack lag",
}

_GROWN = {"chunk_ms": "chunks, ms", "channels": "channels", "minutes": "minutes"}
_UNITS = {"chunk_ms": "ms", "channels": "channels", "minutes": "min"}
_MIB = 1 << 20


def table(results: Sequence[Result], title: str) -> Table:
    """Lay out results side by side, one column for each number of streams."""
    shown = Table(title=title, title_justify="left", header_style="dim")
    shown.add_column("streams")
    for result in results:
        shown.add_column(str(result.streams), justify="right")
    for name, label in _NAMES.items():
        if any(result.measured.lags[name] for result in results):
            shown.add_row(f"{label}, p50/p95/p99 ms", *(_lag(result.measured.lags[name]) for result in results))
    shown.add_section()
    shown.add_row("word error rate, finals", *(f"{100 * r.error_rate:.1f} %" for r in results))
    shown.add_row("turns, of them unanswered", *(f"{r.measured.turns}, {r.measured.unanswered}" for r in results))
    shown.add_row("partials a second of speech", *(f"{r.partial_rate:.2f}" for r in results))
    shown.add_row("rewrites a word", *(f"{r.rewrites:.2f}" for r in results))
    shown.add_row("final lag, later half - earlier, ms", *(f"{r.measured.final_trend_s * 1000:+.0f}" for r in results))
    if any(result.usage for result in results):
        shown.add_section()
        _add_usage(shown, results)
    shown.add_section()
    shown.add_row("chunks sent late by, p99 ms", *(f"{r.late_p99_s * 1000:.0f}" for r in results))
    shown.add_row("cores the bench itself used", *(f"{r.bench_cores:.2f}" for r in results))
    shown.add_row("refused, problems", *(f"{len(r.refused)}, {len(r.problems)}" for r in results))
    return shown


def _add_usage(shown: Table, results: Sequence[Result]) -> None:
    used = [(result, result.usage) for result in results]
    shown.add_row("CPU a stream, cores", *(f"{u.cores_per_stream:.3f}" if u else "-" for _, u in used))
    shown.add_row("memory a stream, MiB", *(f"{u.memory_mb_per_stream:.1f}" if u else "-" for _, u in used))
    shown.add_row("memory in all, MiB", *(f"{u.memory_mb:.0f}" if u else "-" for _, u in used))
    shown.add_row("audio a CPU second, s", *(_figure(r.audio_per_cpu) for r, _ in used))
    shown.add_row("speech decoded a CPU second, s", *(_figure(r.speech_per_cpu) for r, _ in used))
    shown.add_row("all cores idle", *(f"{100 * u.idle:.0f} %" if u else "-" for _, u in used))


def _lag(lags: Sequence[float]) -> str:
    return " / ".join("-" if math.isnan(value) else f"{value * 1000:.0f}" for value in percentiles(lags))


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def system_json(results: Sequence[Result], found: Capacity | None) -> dict[str, Any]:
    """Give a system's runs, and what it holds where that was searched for, as JSON knows them."""
    body: dict[str, Any] = {"runs": [result.as_json() for result in results]}
    if found is not None:
        body["capacity"] = found.streams
        body["complete"] = found.complete
        body["limits_ms"] = {
            "word_p95": round(found.limits.word_p95_s * 1000, 1),
            "final_p95": round(found.limits.final_p95_s * 1000, 1),
        }
        body["failures"] = {str(streams): reasons for streams, reasons in sorted(found.failures.items())}
    return body


Findings = tuple[Sequence[Result], "Capacity | None"]
"""A system's runs, by number of streams, and what it holds where that was searched for."""


def ratios(ours: Findings, theirs: Findings) -> dict[str, float]:
    """Put one system's figures over another's: what they hold; lags and cost at the fewest and most streams of both."""
    found = {}
    if ours[1] is not None and theirs[1] is not None:
        found["capacity"] = round(ours[1].streams / theirs[1].streams, 3)
    others = {each.streams: each for each in theirs[0]}
    both = [each for each in ours[0] if each.streams in others]
    for one in [*both[:1], *both[1:][-1:]]:
        other = others[one.streams]
        for name in (WORD, COVERAGE, FINAL):
            found[f"{name}_lag_p95_at_{one.streams}"] = round(one.p95(name) / other.p95(name), 3)
        if one.usage and other.usage:
            found[f"cpu_at_{one.streams}"] = round(one.usage.cores_per_stream / other.usage.cores_per_stream, 3)
    return found


def costs_table(costs: Sequence[Cost]) -> Table:
    """Lay out costs, one row for each run, in milliseconds of CPU for a second of audio."""
    title = "CPU ms a second of audio, by chunk, channels and length"
    shown = Table(title=title, title_justify="left", header_style="dim", box=None, pad_edge=False)
    parts = [part for part in costs[0].parts if any(cost.parts[part] for cost in costs)]
    shown.add_column("", no_wrap=True)
    for head in ("all", *parts, "MiB"):
        shown.add_column(head.replace(" ", "\n"), justify="right")
    for cost in costs:
        spent = [cost.milliseconds[part] for part in parts]
        memory = "-" if cost.memory is None else f"{cost.memory / _MIB:.0f}"
        row = (f"{sum(spent):.1f}", *(f"{each:.1f}" for each in spent), memory)
        shown.add_row(f"{cost.size:g} {_UNITS[cost.grown]}", *row)
    return shown


def require_plots() -> None:
    """Raise `SetupError` where plots cannot be drawn."""
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise SetupError("plots need matplotlib: pip install 'vivavoce[bench]'") from error


def plot(path: Path, systems: Mapping[str, Sequence[Result]], limits: Mapping[str, Limits]) -> None:
    """Draw lags against streams as SVG, PNG or what else the ending of `path` says.

    `systems` are results by name; where `limits` has that name, what the rule of capacity allows is drawn too.
    """
    require_plots()
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), (WORD, COVERAGE, FINAL), strict=True):
        for color, (system, results) in zip(("C0", "C1", "C2"), systems.items(), strict=False):
            measured = [result for result in results if result.measured.lags[name]]
            streams = [result.streams for result in measured]
            points = [percentiles(result.measured.lags[name]) for result in measured]
            for index, (label, style) in enumerate((("p50", "-"), ("p95", "--"), ("p99", ":"))):
                values = [point[index] * 1000 for point in points]
                axes.plot(streams, values, style, color=color, marker=".", label=f"{system} {label}")
            if system in limits and name in {WORD, FINAL}:
                limit_s = limits[system].word_p95_s if name == WORD else limits[system].final_p95_s
                axes.axhline(limit_s * 1000, color=color, linewidth=0.6, alpha=0.6)
        axes.set_title(_NAMES[name])
        axes.set_xlabel("streams")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("ms")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    _save(figure, path)


def plot_costs(path: Path, costs: Sequence[Cost]) -> None:
    """Draw what a second of audio costs and what on, against chunks, channels and the length of a session."""
    require_plots()
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, (grown, title) in zip(figure.subplots(1, 3), _GROWN.items(), strict=True):
        runs = [cost for cost in costs if cost.grown == grown]
        names = [f"{cost.size:g}" for cost in runs]
        below = [0.0] * len(runs)
        for part in costs[0].parts:
            spent = [cost.milliseconds[part] for cost in runs]
            axes.bar(names, spent, bottom=below, label=part)
            below = [low + each for low, each in zip(below, spent, strict=True)]
        axes.set_xlabel(title)
        axes.set_ylabel("CPU ms a second of audio")
        axes.grid(alpha=0.3, axis="y")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(costs[0].parts))
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except ValueError as error:
        raise SetupError(f"{path}: cannot be drawn: {error}") from error
