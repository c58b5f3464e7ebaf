"""Where sentences end in words as an engine writes them: at its stops, question and exclamation marks.

A stop does not end a sentence after an abbreviation or a single letter, nor before a word in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from vivavoce.model import Word, spread_words

_CLOSING = "\"'”’»)]}"  # noqa: RUF001
_OPENING = "\"'“‘«([¿¡"  # noqa: RUF001
_SURE_ENDS = ("?", "!", "…", "。", "？", "！", "؟", "।")  # noqa: RUF001
_GLUED = re.compile(r"(?<=[。？！])(?=\w)")  # noqa: RUF001

# One string, since a list would be broken into dozens of lines.
_ABBREVIATED = (
    "approx apt ave bzw capt cf col dept dhr dr e.g ext fig fr gen gov hon i.e lt maj messrs mevr mr mrs ms mt nr ph.d "
    "prof rep rev sen sgt sr st u.k u.s vs"
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())


def ends_sentence(word: str, following: str) -> bool:
    """Say whether a sentence ends with a word, which another one comes after."""
    bare = word.rstrip(_CLOSING)
    if bare.endswith(_SURE_ENDS):
        return True
    stem = bare.rstrip(".").lstrip(_OPENING).casefold()
    # "I" is the one English word that looks like an initial.
    is_initial = len(stem) == 1 and stem.isalpha() and stem != "i"
    return bare.endswith(".") and not (stem in _ABBREVIATIONS or is_initial or following[:1].islower())


def ends(texts: Sequence[str]) -> list[int]:
    """Give the index after the last word of each sentence; the last one may go on later."""
    found = [nth for nth, (word, following) in enumerate(pairwise(texts), start=1) if ends_sentence(word, following)]
    return [*found, len(texts)] if texts else []


def cut(words: Sequence[Word]) -> list[Word]:
    """Part words behind full-width stops, after which Chinese and Japanese write no blank."""
    found: list[Word] = []
    for word in words:
        texts = _GLUED.split(word.text)
        if len(texts) == 1:
            found.append(word)
            continue
        spread = spread_words(texts, [word.confidence] * len(texts), word.start, word.end)
        found += (replace(each, speaker=word.speaker) for each in spread)
    return found


def sentences(words: Sequence[Word]) -> list[tuple[Word, ...]]:
    """Split words into sentences; every word is in one, in order, or its parts are in several."""
    words = cut(words)
    stops = ends([word.text for word in words])
    return [tuple(words[first:stop]) for first, stop in pairwise([0, *stops])]
