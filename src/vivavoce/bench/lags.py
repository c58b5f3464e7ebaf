"""What a session's transcripts say about speed and accuracy; pure, the same for every system under test.

A moment of audio counts as sent when it was due: chunk k at `start + k * chunk_s`, whatever the sender really managed.
So a machine that is too busy to send in time is not flattered.

*Word lag*: from the sending of a word's last byte to the first partial or final that has it at its final place.
*Coverage lag*: from there to the first partial or final decoded from audio up to there. A transcript shows how far it
was decoded by the end of its last word: engines without word times of their own spread words over the whole clip.
Where they do not, the figure is too high, never too low.
*Final lag*: from the end of speech in a turn, as its own energy shows it, to the final that holds it.

The words of the finals are matched with those that were said by the fewest edits. A word that was misheard counts with
the moment of what was said there; one that was never heard, or never said, counts in the error rate only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import numpy as np

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.words import errors, kept, pairs

WORD, COVERAGE, FINAL, DECISION, ACK = "word", "coverage", "final", "decision", "ack"

_ROUNDING_S = 0.002
"""Times on the wire are rounded, and samples cut to frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A partial or final as it arrived: at which moment, of which utterance, from where to where in the audio.

    `words` are those of `text` as they sound.
    """

    at: float
    utterance: str
    words: tuple[str, ...]
    start: float
    end: float
    final: bool
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When audio was due: `start` on the clock of `Shown.at`."""

    start: float
    chunk_s: float

    def due(self, chunk: int) -> float:
        """Give the moment at which a chunk is to be sent."""
        return self.start + chunk * self.chunk_s

    def sent_at(self, audio_s: float) -> float:
        """Give the moment at which the audio before `audio_s` was to be sent completely."""
        return self.due(max(-int(-audio_s // self.chunk_s) - 1, 0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What one session brought."""

    played: Conversation
    pace: Pace
    shown: list[Shown] = field(default_factory=list)
    decision_lags: list[float] = field(default_factory=list)
    ack_lags: list[float] = field(default_factory=list)

    @property
    def finals(self) -> list[Shown]:
        """The finals, as they came."""
        return [each for each in self.shown if each.final]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What sessions brought together; lags in seconds by name, and counts."""

    lags: dict[str, list[float]]
    said: int = 0
    wrong: int = 0
    turns: int = 0
    unanswered: int = 0
    partials: int = 0
    rewritten: int = 0
    speech_s: float = 0.0
    audio_s: float = 0.0
    final_trend_s: float = 0.0


def measure(sessions: Sequence[Heard]) -> Measured:
    """Measure sessions that ran together."""
    lags: dict[str, list[float]] = {name: [] for name in (WORD, COVERAGE, FINAL, DECISION, ACK)}
    ends: list[tuple[float, float]] = []
    wrong = 0
    for session in sessions:
        word, coverage, edits = _word_lags(session)
        lags[WORD] += word
        lags[COVERAGE] += coverage
        lags[DECISION] += session.decision_lags
        lags[ACK] += session.ack_lags
        wrong += edits
        ends += final_lags(session)
    lags[FINAL] = [lag for _, lag in ends]
    turns = sum(len(session.played.turns) for session in sessions)
    return Measured(
        lags=lags,
        said=sum(len(session.played.said) for session in sessions),
        wrong=wrong,
        turns=turns,
        unanswered=turns - len(ends),
        partials=sum(not each.final for session in sessions for each in session.shown),
        rewritten=sum(rewritten(session.shown) for session in sessions),
        speech_s=sum(session.played.speech_s for session in sessions),
        audio_s=sum(session.played.duration_s for session in sessions),
        final_trend_s=trend(ends),
    )


def percentiles(lags: Sequence[float]) -> tuple[float, float, float]:
    """Give p50, p95 and p99; not numbers where there are no lags."""
    if not lags:
        return float("nan"), float("nan"), float("nan")
    p50, p95, p99 = np.percentile(lags, [50, 95, 99])
    return float(p50), float(p95), float(p99)


def final_lags(session: Heard) -> list[tuple[float, float]]:
    """Give, for each turn that was answered, when its speech ended and how long after that its final came.

    The final of a turn is the last one that begins within it.
    """
    found = []
    for turn in session.played.turns:
        held = [each.at for each in session.finals if turn.start - _BEFORE_S <= each.start < turn.speech_end]
        if held:
            ended = session.pace.sent_at(turn.speech_end)
            found.append((ended, max(held) - ended))
    return found


_BEFORE_S = 0.5
"""How much too early the start of an utterance may be told."""


def trend(lags: Sequence[tuple[float, float]]) -> float:
    """Give by how much the median of the later half of (moment, lag) exceeds that of the earlier half."""
    ordered = [lag for _, lag in sorted(lags)]
    half = len(ordered) // 2
    return float(np.median(ordered[-half:]) - np.median(ordered[:half])) if half else 0.0


def rewritten(shown: Sequence[Shown]) -> int:
    """Count the words that the next transcript of their utterance changes or takes away; added ones do not count."""
    count = 0
    for _, states in groupby(sorted(shown, key=lambda each: each.utterance), key=lambda each: each.utterance):
        for before, after in pairwise(states):
            count += len(before.words) - kept(before.words, after.words)
    return count


def _word_lags(session: Heard) -> tuple[list[float], list[float], int]:
    """Give the word lags, the coverage lags and the count of edits."""
    said = session.played.said
    finals = sorted(session.finals, key=lambda each: each.start)
    places = list(_places(finals))
    heard = [final.words[place] for final, place in places]
    texts = [word.text for word in said]
    history: dict[str, list[Shown]] = {}
    for each in session.shown:
        history.setdefault(each.utterance, []).append(each)
    word_lags, coverage_lags = [], []
    for spoken, found in pairs(texts, heard):
        final, place = places[found]
        sent = session.pace.sent_at(said[spoken].end)
        states = history[final.utterance]
        word_lags.append(next(each.at for each in states if _has(each, place, heard[found])) - sent)
        covers = said[spoken].end - _ROUNDING_S
        coverage_lags.append(next(each.at for each in states if each.end >= covers or _same(each, final)) - sent)
    return word_lags, coverage_lags, errors(texts, heard)


def _places(finals: Sequence[Shown]) -> Iterator[tuple[Shown, int]]:
    return ((final, place) for final in finals for place in range(len(final.words)))


def _same(shown: Shown, final: Shown) -> bool:
    """Tell whether a transcript is its utterance's final, or that final while it was still a partial."""
    return (shown.words, shown.start, shown.end) == (final.words, final.start, final.end)


def _has(shown: Shown, place: int, word: str) -> bool:
    return shown.words[place : place + 1] == (word,)
