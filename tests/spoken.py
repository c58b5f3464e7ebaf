"""Utterances made of text, for tests of what looks at text."""

from __future__ import annotations

from collections.abc import Sequence

from vivavoce.model import Transcript, Utterance, spread_words


def said(text: str, start: float = 0, end: float | None = None, *, nth: int = 0, **more) -> Utterance:
    """Give an utterance that says a text, half a second a word unless it has an end."""
    words = text.split()
    end = start + len(words) / 2 if end is None else end
    given = {"id": f"00_{nth:08}", "channel": 0, "confidence": 0.9, "language": "en", **more}
    return Utterance(start=start, end=end, words=spread_words(words, [0.9] * len(words), start, end), **given)


def talk(*texts: str | tuple[str, dict], pause_s: float = 0.5) -> Transcript:
    """Give a transcript of texts said one after another, some with what more is known of them."""
    found: list[Utterance] = []
    start = 0.0
    for nth, entry in enumerate(texts):
        text, more = (entry, {}) if isinstance(entry, str) else entry
        found.append(said(text, start, nth=nth, **more))
        start = found[-1].end + pause_s
    return Transcript(utterances=tuple(found))


def texts(words: Sequence) -> list[str]:
    """Give the texts of words."""
    return [word.text for word in words]
