"""What a run showed, in figures: as a dataclass, as JSON, and judged by the rule of capacity.

The rule: p95 of word lag and of final lag within `SLACK_S` of their own values with one stream, nothing refused or
broken, no turn unanswered beyond what one stream leaves unanswered, and no backlog growing, which is final lags of the
later half of turns above those of the earlier half by more than `SLACK_S`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vivavoce.bench.lags import FINAL, WORD, Heard, Measured, final_lags, measure, percentiles
from vivavoce.bench.load import Run

SLACK_S = 0.3
_TURNS_FOR_A_TREND = 12
_SHARE = 0.95
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the system under test used: CPU, cores while all streams ran, MiB, and the share of all cores that idled."""

    cpu_s: float
    cores: float
    cores_per_stream: float
    memory_mb: float
    memory_mb_per_stream: float
    idle: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """The figures of one run."""

    streams: int
    measured: Measured
    refused: tuple[str, ...]
    problems: tuple[str, ...]
    given_up: bool
    late_p99_s: float
    bench_cores: float
    usage: Usage | None

    def p95(self, name: str) -> float:
        """Give the p95 of a lag, in seconds."""
        return percentiles(self.measured.lags[name])[1]

    @property
    def error_rate(self) -> float:
        """Word error rate of the finals."""
        return self.measured.wrong / max(self.measured.said, 1)

    @property
    def partial_rate(self) -> float:
        """Partials per second of speech."""
        return self.measured.partials / max(self.measured.speech_s, 1e-9)

    @property
    def rewrites(self) -> float:
        """Words rewritten per word said."""
        return self.measured.rewritten / max(self.measured.said, 1)

    @property
    def audio_per_cpu(self) -> float:
        """Seconds of audio taken per CPU second."""
        return self.measured.audio_s / self.usage.cpu_s if self.usage and self.usage.cpu_s else math.nan

    @property
    def speech_per_cpu(self) -> float:
        """Seconds of speech decoded per CPU second."""
        return self.measured.speech_s / self.usage.cpu_s if self.usage and self.usage.cpu_s else math.nan

    def as_json(self) -> dict[str, Any]:
        """Give everything as JSON knows it; lags in milliseconds."""
        figures = self.measured
        return {
            "streams": self.streams,
            "lags_ms": {name: _figures(lags) for name, lags in figures.lags.items() if lags},
            "word_error_rate": _number(self.error_rate),
            "words_said": figures.said,
            "word_errors": figures.wrong,
            "turns": figures.turns,
            "unanswered": figures.unanswered,
            "partials_per_speech_s": _number(self.partial_rate),
            "rewrites_per_word": _number(self.rewrites),
            "final_trend_ms": round(figures.final_trend_s * 1000, 1),
            "audio_s": _number(figures.audio_s),
            "speech_s": _number(figures.speech_s),
            "cores_per_stream": _number(self.usage.cores_per_stream) if self.usage else None,
            "memory_mb": _number(self.usage.memory_mb) if self.usage else None,
            "memory_mb_per_stream": _number(self.usage.memory_mb_per_stream) if self.usage else None,
            "audio_s_per_cpu_s": _number(self.audio_per_cpu),
            "speech_s_per_cpu_s": _number(self.speech_per_cpu),
            "idle": _number(self.usage.idle) if self.usage else None,
            "bench_cores": _number(self.bench_cores),
            "sending_late_ms_p99": round(self.late_p99_s * 1000, 1),
            "refused": list(self.refused),
            "problems": list(self.problems),
            "given_up": self.given_up,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run must keep to hold, in seconds and as a share of turns; from the run with one stream."""

    word_p95_s: float
    final_p95_s: float
    unanswered: float

    @classmethod
    def of(cls, alone: Result) -> Limits:
        """Take the limits from a run with one stream."""
        figures = alone.measured
        return cls(
            word_p95_s=alone.p95(WORD) + SLACK_S,
            final_p95_s=alone.p95(FINAL) + SLACK_S,
            unanswered=figures.unanswered / max(figures.turns, 1),
        )

    def broken(self, result: Result) -> list[str]:
        """Say what a run did not keep; nothing where it held."""
        figures = result.measured
        reasons = [f"refused: {', '.join(sorted(set(result.refused)))}"] if result.refused else []
        reasons += [f"problems: {', '.join(sorted(set(result.problems)))}"] if result.problems else []
        reasons += ["finals overdue, stopped early"] if result.given_up else []
        for name, limit_s in ((WORD, self.word_p95_s), (FINAL, self.final_p95_s)):
            p95 = result.p95(name)
            if not p95 <= limit_s:
                reasons.append(f"{name} lag p95 {p95 * 1000:.0f} > {limit_s * 1000:.0f} ms")
        allowed = math.ceil(self.unanswered * figures.turns) + math.ceil(0.02 * figures.turns)
        if figures.unanswered > allowed and not result.given_up:
            reasons.append(f"{figures.unanswered} of {figures.turns} turns unanswered")
        if figures.final_trend_s > SLACK_S and figures.turns >= _TURNS_FOR_A_TREND:
            reasons.append(f"backlog grows: final lag rose by {figures.final_trend_s * 1000:.0f} ms")
        return reasons

    def hopeless(self, planned: int) -> Callable[[Sequence[Heard]], bool]:
        """Give a function that tells, in the middle of a run of `planned` turns, that it cannot hold any more."""
        fatal = planned - math.floor(_SHARE * (planned - 1)) + math.ceil((self.unanswered + 0.02) * planned)

        def tell(heard: Sequence[Heard]) -> bool:
            now = time.monotonic()
            return sum(_overdue(session, self.final_p95_s, now) for session in heard) >= fatal

        return tell


def result_of(run: Run, streams: int) -> Result:
    """Give the figures of a run."""
    measured = measure(run.heard)
    return Result(
        streams=streams,
        measured=measured,
        refused=tuple(run.refused),
        problems=tuple(run.problems),
        given_up=run.given_up,
        late_p99_s=percentiles(run.late_s)[2],
        bench_cores=run.bench_cpu_s / run.wall_s if run.wall_s else 0.0,
        usage=_usage(run, measured, streams),
    )


def _usage(run: Run, measured: Measured, streams: int) -> Usage | None:
    if not run.looks:
        return None
    first, last = run.looks[0], run.looks[-1]
    steady = run.busy[-1].since(run.busy[0]) if len(run.busy) > 1 else last.since(first)
    peak = max(look.memory for look in run.looks)
    cpu_s = last.since(first).cpu_s
    return Usage(
        cpu_s=cpu_s,
        cores=steady.cores,
        cores_per_stream=cpu_s / max(measured.audio_s, 1e-9),
        memory_mb=peak / _MIB,
        memory_mb_per_stream=(peak - first.memory) / _MIB / streams,
        idle=steady.idle,
    )


def _overdue(session: Heard, limit_s: float, now: float) -> int:
    """Count the turns whose final came too late or is overdue."""
    ended = [session.pace.sent_at(turn.speech_end) for turn in session.played.turns]
    due = sum(moment + limit_s < now for moment in ended)
    return due - sum(lag <= limit_s for moment, lag in final_lags(session) if moment + limit_s < now)


def _figures(lags: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = (round(value * 1000, 1) for value in percentiles(lags))
    return {"p50": p50, "p95": p95, "p99": p99, "count": len(lags)}


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
