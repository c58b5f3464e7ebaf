"""A transcript's summary: its most telling sentences, or what a language model writes.

A language model reads at most `WINDOW_WORDS` at once. Of a longer transcript it makes notes part by part, then the
summary from the notes; where even these are too long, notes of the notes come first. Parts are read at the same time,
as far as the endpoint's bound on questions lets them.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from threading import Thread
from typing import Any, Literal, TypeVar, cast

from vivavoce.addons.extraction import Budget, extract
from vivavoce.addons.llm import Answer, Llm, connect
from vivavoce.errors import AddonError, SetupError
from vivavoce.model import Transcript, Utterance
from vivavoce.plugins import AddonParts, AddonSettings, TranscriptAddon

SummaryKind = Literal["general", "bullet_points", "concise"]

WINDOW_WORDS = 2_000
"""Words that a language model reads at once; small local ones know 4,096 tokens."""

MAX_LETTERS = {"general": 4_000, "bullet_points": 4_000, "concise": 1_000, "part": 3_000}
"""Longest answers that are taken for a summary, or for notes of a part."""

_SENTENCE_WORDS = 15
_POINTS = (3, 10)
_DASH = re.compile(r"^\s*(?:[-*•–—](?:\s+|$))+")  # noqa: RUF001
_NUMBER = re.compile(r"^\s*(\d{1,2})[.)](?:\s+|$)")
_LONG_WORD = 12
_LEVELS = 4  # notes of notes of notes: more than any session has words for

Turn = dict[str, str]
"""What one voice said: `text`, and `by` where there are several voices."""

_Voice = tuple[int, int | None]
Item = TypeVar("Item")


class ExtractiveSummary:
    """Pick the most telling sentences; implements `plugins.TranscriptAddon`.

    General: a tenth of the words, 50 to 200 of them, as one text. Concise: one or two sentences of together 50 words.
    Bullet points: three to ten sentences, one on each line after a dash.
    """

    def __init__(self, kind: SummaryKind) -> None:
        """Make summaries of a kind."""
        self._kind = kind

    def look(self, transcript: Transcript) -> str:
        """Give the summary, which is empty where nothing was said; takes less than a second for hours of speech."""
        words = sum(len(utterance.words) for utterance in transcript.utterances)
        fewest, most = _POINTS
        match self._kind:
            case "general":
                return " ".join(extract(transcript, Budget(sentences=words, words=min(max(words // 10, 50), 200))))
            case "concise":
                return " ".join(extract(transcript, Budget(sentences=2, words=50)))
            case "bullet_points":
                points = min(max(words // (10 * _SENTENCE_WORDS), fewest), most)
                found = extract(transcript, Budget(sentences=points, words=points * 2 * _SENTENCE_WORDS))
                return "\n".join(f"- {point}" for point in found)


class _Text(Answer):
    summary: str


class _Points(Answer):
    points: tuple[str, ...]


class LlmSummary:
    """Have a language model write; implements `plugins.TranscriptAddon`."""

    def __init__(self, llm: Llm, kind: SummaryKind, *, within_s: float) -> None:
        """Ask `llm`, which has `within_s` for all parts of a transcript together."""
        self._llm, self._kind, self._within_s = llm, kind, within_s

    def look(self, transcript: Transcript) -> str:
        """Give the summary, which is empty where nothing was said; blocks. Raises `AddonError`."""
        if not transcript.text.strip():
            return ""
        deadline = time.monotonic() + self._within_s
        language = transcript.languages[0]
        names = _names(transcript.utterances)
        windows = [_turns(window, names) for window in _windows(transcript.utterances, _spoken_words)]
        if len(windows) == 1:
            return self._write({"language": language, "turns": windows[0]}, deadline)
        notes = self._notes([{"language": language, "turns": turns} for turns in windows], deadline)
        for _ in range(_LEVELS):
            groups = _windows(notes, _written_words)
            if len(groups) == 1:
                return self._write({"language": language, "parts": notes}, deadline)
            notes = self._notes([{"language": language, "parts": group} for group in groups], deadline)
        raise AddonError("the transcript is too long for the language model")

    def _write(self, given: Mapping[str, Any], deadline: float) -> str:
        """Give the summary of what fits into one question."""
        most = MAX_LETTERS[self._kind]
        if self._kind != "bullet_points":
            return self._ask(f"summary_{self._kind}", given, most, deadline)

        def fits(answer: _Points) -> bool:
            return bool(_items(answer.points)) and sum(map(len, answer.points)) <= most

        found = self._llm.ask(
            "summary_bullet_points", given, _Points, fits=fits, within_s=_left_s(deadline), live=False
        )
        return "\n".join(f"- {point}" for point in _items(found.points))

    def _notes(self, parts: Sequence[Mapping[str, Any]], deadline: float) -> list[str]:
        """Give notes of each part, in order; after the first failure no other part is begun."""
        notes = [""] * len(parts)
        waiting = deque(enumerate(parts))
        failures: list[Exception] = []

        def read() -> None:
            with suppress(IndexError):
                while not failures:
                    nth, part = waiting.popleft()
                    try:
                        notes[nth] = self._ask("summary_part", part, MAX_LETTERS["part"], deadline)
                    except Exception as failure:  # noqa: BLE001 - raised again below
                        failures.append(failure)

        # Daemons, unlike the threads of an executor: the end of the program does not wait for an endpoint.
        readers = [Thread(target=read, name=f"summary-{nth}", daemon=True) for nth in range(self._llm.aside)]
        readers = readers[: len(parts)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        if failures:
            raise failures[0]
        return notes

    def _ask(self, prompt: str, given: Mapping[str, Any], most: int, deadline: float) -> str:
        def fits(answer: _Text) -> bool:
            return bool(answer.summary.strip()) and len(answer.summary) <= most

        return self._llm.ask(prompt, given, _Text, fits=fits, within_s=_left_s(deadline), live=False).summary.strip()


class SummaryAddon:
    """Summaries for all sessions; implements `plugins.Addon`."""

    def __init__(self, settings: AddonSettings) -> None:
        """Use what the settings name; raises `SetupError` where that is a language model without an endpoint."""
        self._llm: Llm | None = None
        if settings.summarizer == "llm":
            if settings.llm is None:
                raise SetupError("--summarizer llm needs --llm-url with --llm-model")
            self._llm = connect(settings.llm)
        self._within_s = settings.closing_deadline
        self.threads = self._llm.aside if self._llm else 1
        """How many transcripts may be read at once."""

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:  # noqa: ARG002 (the protocol's)
        """Give what writes a session's summary of the `type` in its options."""
        kind = cast("SummaryKind", options.get("type") or "general")
        reader: TranscriptAddon = ExtractiveSummary(kind)
        if self._llm is not None:
            reader = LlmSummary(self._llm, kind, within_s=self._within_s)
        return AddonParts(transcript=reader)

    def close(self) -> None:
        """Free the connections."""
        if self._llm is not None:
            self._llm.close()


def _left_s(deadline: float) -> float:
    """Give the seconds until a deadline, at least a moment."""
    return max(deadline - time.monotonic(), 0.001)


def _spoken_words(utterance: Utterance) -> int:
    return _written_words(utterance.text)


def _written_words(text: str) -> int:
    """Count words, and every few letters of scripts without blanks as one."""
    return max(text.count(" ") + 1, len(text) // _LONG_WORD)


def _items(texts: Sequence[str]) -> list[str]:
    """Give the points in what a language model wrote, without the markers that it may put before each.

    A number is a marker where it is the place of its point, and others are numbered so: `15. Mai` is none.
    """
    lines, numbered = [], 0
    for text in texts:
        joined: list[str] = []
        for line in text.split("\n"):
            number = _NUMBER.match(line)
            counted = number is not None and int(number[1]) == numbered + 1
            numbered += counted
            if counted or _DASH.match(line) or not joined:
                joined.append(line)
            else:
                joined[-1] += f" {line}"
        lines += joined
    several = numbered > 1
    found, place = [], 1
    for line in lines:
        number = _NUMBER.match(line)
        counted = several and number is not None and int(number[1]) == place
        place += counted
        bare = _NUMBER.sub("", line, count=1) if counted else line
        found.append(" ".join(_DASH.sub("", bare, count=1).split()))
    return [item for item in found if item]


def _windows(items: Sequence[Item], count: Callable[[Item], int]) -> list[list[Item]]:
    """Split items into runs of at most `WINDOW_WORDS`, or of a single item that has more."""
    found: list[list[Item]] = [[]]
    room = WINDOW_WORDS
    for item in items:
        room -= count(item)
        if room < 0 and found[-1]:
            found.append([])
            room = WINDOW_WORDS - count(item)
        found[-1].append(item)
    return found


def _turns(utterances: Sequence[Utterance], names: Mapping[_Voice, str]) -> list[Turn]:
    """Join what one voice said in a row."""
    found: list[Turn] = []
    for voice, said in groupby(utterances, _voice):
        turn = {"text": " ".join(utterance.text for utterance in said)}
        found.append({"by": names[voice], **turn} if len(names) > 1 else turn)
    return found


def _names(utterances: Sequence[Utterance]) -> dict[_Voice, str]:
    """Name the voices by channel, by speaker, or by both where both differ."""
    voices = sorted({_voice(utterance) for utterance in utterances}, key=lambda voice: (voice[0], voice[1] or 0))
    channels = len({channel for channel, _ in voices}) > 1
    names = {}
    for channel, speaker in voices:
        parts = [f"channel {channel}"] if channels or speaker is None else []
        names[channel, speaker] = ", ".join([*parts, *([f"speaker {speaker}"] if speaker is not None else [])])
    return names


def _voice(utterance: Utterance) -> _Voice:
    return utterance.channel, utterance.speaker
