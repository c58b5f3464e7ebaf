"""Utterances for tests of what is made of their words: given ones, and any there may be."""

from __future__ import annotations

from hypothesis import strategies as st

from vivavoce.model import Utterance, Word

TEXTS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8)
"""A word as an engine may write it: any letters and marks, no blanks."""


def utterance(texts: list[str], *, language: str = "en", confidence: float = 0.5) -> Utterance:
    """Give an utterance of these words, half a second each."""
    words = tuple(
        Word(text=text, start=n / 2, end=n / 2 + 0.5, confidence=confidence + n / 100) for n, text in enumerate(texts)
    )
    return Utterance(
        id="00_00000001", channel=0, start=0.0, end=len(texts) / 2, confidence=0.7, language=language, words=words
    )


@st.composite
def utterances(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS, language: str = "en") -> Utterance:
    """Give any utterance: times in order, some words without length."""
    said = draw(st.lists(texts, max_size=12))
    edges = sorted(draw(st.lists(st.floats(0, 1e4), min_size=2 * len(said), max_size=2 * len(said))))
    sure = draw(st.lists(st.floats(0, 1), min_size=len(said), max_size=len(said)))
    words = tuple(
        Word(text=text, start=edges[2 * n], end=edges[2 * n + 1], confidence=sure[n]) for n, text in enumerate(said)
    )
    return Utterance(id="a", channel=0, start=0.0, end=1e4, confidence=1.0, language=language, words=words)


def check_words(before: Utterance, after: Utterance) -> None:
    """Assert that nothing but words changed, and that these are in order within the time of those before."""
    assert (after.id, after.channel, after.start, after.end) == (before.id, before.channel, before.start, before.end)
    at = before.words[0].start if before.words else 0.0
    for word in after.words:
        assert word.text
        assert not any(letter.isspace() for letter in word.text)
        assert at <= word.start <= word.end
        assert 0 <= word.confidence <= 1
        at = word.end
    assert not before.words or at <= before.words[-1].end
