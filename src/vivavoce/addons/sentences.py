"""Where sentences end in words as an engine writes them: at its stops, question and exclamation marks.

A stop does not end a sentence after an abbreviation or a single letter, nor before a word in lower case.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vivavoce.model import Word

_CLOSING = "\"'”’»)]}"  # noqa: RUF001
_SURE_ENDS = ("?", "!", "。", "？", "！", "؟", "।")  # noqa: RUF001
_STOPS = (".", "…")
_ABBREVIATIONS = frozenset({"mr", "mrs", "ms", "dr", "prof", "st", "sr", "vs", "nr", "fr", "hr", "dhr", "mevr", "bzw"})


def ends_sentence(word: str, following: str | None) -> bool:
    """Say whether a sentence ends with a word, which `following` comes after; None where nothing more is known."""
    bare = word.rstrip(_CLOSING)
    if bare.endswith(_SURE_ENDS):
        return True
    if not bare.endswith(_STOPS):
        return False
    stem = bare.rstrip("".join(_STOPS)).lower()
    if following is None:
        return True
    return not (following[:1].islower() or stem in _ABBREVIATIONS or (len(stem) == 1 and stem.isalpha()))


def ends(texts: Sequence[str]) -> list[int]:
    """Give the index after the last word of each sentence; the last one may go on later."""
    follow = [*texts[1:], None]
    return [nth + 1 for nth, word in enumerate(texts) if follow[nth] is None or ends_sentence(word, follow[nth])]


def sentences(words: Sequence[Word]) -> list[tuple[Word, ...]]:
    """Split words into sentences; every word is in one, in order."""
    stops = ends([word.text for word in words])
    return [tuple(words[first:stop]) for first, stop in pairwise([0, *stops])]
