"""A session's result as text, JSON and subtitles."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from vivavoce.errors import VivavoceError

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2Response, LiveV2Utterance, LiveV2Word

LINE_LENGTH = 42
LINES = 2
CUE_S = 7.0
"""Longest time one subtitle stays; with `LINE_LENGTH` and `LINES` what most subtitling guides ask for."""
SHORTEST_CUE_S = 1.0
"""A shorter subtitle stays this long, where the next one leaves room."""


class Format(StrEnum):
    """How a transcript is written."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """One subtitle; times in seconds."""

    start: float
    end: float
    channel: int
    lines: tuple[str, ...]


def render(session: LiveV2Response, wanted: Format) -> str:
    """Write a session's stored result, ending in a newline unless it is empty text.

    JSON is the `result` of the session with its id, but for the messages; subtitles name the channel where there are
    several. Raises `VivavoceError` where the session has no result.
    """
    if session.result is None or session.result.transcription is None:
        raise VivavoceError(f"session {session.id} has no result: it is {session.status}")
    result = session.result.to_dict(encode_json=False)
    result.pop("messages", None)
    utterances = session.result.transcription.utterances
    match wanted:
        case Format.JSON:
            return json.dumps({"id": session.id, **result}, ensure_ascii=False, indent=2) + "\n"
        case Format.TEXT:
            several = session.result.metadata.number_of_distinct_channels > 1
            return "".join(f"{as_line(utterance, name_channel=several)}\n" for utterance in utterances)
        case _:
            return subtitles(utterances, wanted)


def as_line(utterance: LiveV2Utterance, *, name_channel: bool) -> str:
    """Write an utterance as one line of text."""
    text = utterance.text.strip()
    return f"Channel {utterance.channel + 1}: {text}" if name_channel else text


def subtitles(utterances: Sequence[LiveV2Utterance], wanted: Format) -> str:
    """Write utterances as SRT or WebVTT."""
    from pysubs2 import SSAEvent, SSAFile, make_time

    several = len({utterance.channel for utterance in utterances}) > 1
    file = SSAFile()
    for cue in cues(utterances):
        text = "\n".join(cue.lines)
        if wanted is Format.VTT:
            text = html.escape(text, quote=False)
            text = f"<v Channel {cue.channel + 1}>{text}" if several else text
        elif several:
            text = f"[{cue.channel + 1}] {text}"
        file.append(SSAEvent(start=make_time(s=cue.start), end=make_time(s=cue.end), text=text))
    # "keep_ssa_tags" writes the text as it is instead of reading {…} in it as formatting.
    return file.to_string(wanted.value, keep_ssa_tags=True).rstrip("\n") + "\n"


def cues(utterances: Sequence[LiveV2Utterance]) -> list[Cue]:
    """Cut utterances at word times into subtitles of at most `LINES` lines and `CUE_S`, ordered by start."""
    channels = sorted({utterance.channel for utterance in utterances})
    found: list[Cue] = []
    for channel in channels:
        own = [cue for utterance in utterances if utterance.channel == channel for cue in _cues(utterance)]
        found += _prolonged(own)
    return sorted(found, key=lambda cue: (cue.start, cue.channel))


def _cues(utterance: LiveV2Utterance) -> Iterator[Cue]:
    if not utterance.words:
        # Without word times the whole utterance is one cue, however long.
        lines = tuple(_wrapped(utterance.text.strip()))
        if lines:
            yield Cue(start=utterance.start, end=utterance.end, channel=utterance.channel, lines=lines)
        return
    for words in _groups(utterance.words):
        lines = _balanced(_text(words))
        yield Cue(start=words[0].start, end=words[-1].end, channel=utterance.channel, lines=lines)


def _groups(words: Sequence[LiveV2Word]) -> list[list[LiveV2Word]]:
    """Share words among as few cues as they need, none much shorter than the others of its sentence."""
    found = []
    for sentence in _sentences(words):
        best = _filled(sentence, LINES * LINE_LENGTH)
        for size in range(len(_text(sentence)) // len(best), LINES * LINE_LENGTH):
            evener = _filled(sentence, size)
            if len(evener) == len(best):
                best = evener
                break
        found += best
    return found


def _sentences(words: Sequence[LiveV2Word]) -> Iterator[list[LiveV2Word]]:
    """Split words where a sentence ends, but for sentences that fit on the lines of the next together."""
    group: list[LiveV2Word] = []
    for word in words:
        group.append(word)
        if word.word.endswith((".", "?", "!")) and len(_text(group)) > LINE_LENGTH:
            yield group
            group = []
    if group:
        yield group


def _filled(words: Sequence[LiveV2Word], size: int) -> list[list[LiveV2Word]]:
    """Fill one cue of at most `size` letters after the other."""
    groups: list[list[LiveV2Word]] = []
    for word in words:
        if groups:
            longer = [*groups[-1], word]
            text = _text(longer)
            if len(text) <= size and len(_wrapped(text)) <= LINES and word.end - longer[0].start <= CUE_S:
                groups[-1] = longer
                continue
        groups.append([word])
    return groups


def _text(words: Sequence[LiveV2Word]) -> str:
    return " ".join(word.word.strip() for word in words)


def _wrapped(text: str, width: int = LINE_LENGTH) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _balanced(text: str) -> tuple[str, ...]:
    """Break a text into as few lines as it needs, of about the same length."""
    lines = _wrapped(text)
    for width in range(len(text) // max(len(lines), 1), LINE_LENGTH):
        narrower = _wrapped(text, max(width, 1))
        if len(narrower) == len(lines):
            return tuple(narrower)
    return tuple(lines)


def _prolonged(own: Sequence[Cue]) -> list[Cue]:
    """Let short cues of one channel stay readable, and none reach into the next."""
    bounded = []
    for cue, following in pairwise([*own, None]):
        assert cue is not None
        room = following.start if following is not None else float("inf")
        end = min(max(cue.end, cue.start + SHORTEST_CUE_S), max(room, cue.start))
        bounded.append(Cue(start=cue.start, end=end, channel=cue.channel, lines=cue.lines))
    return bounded
