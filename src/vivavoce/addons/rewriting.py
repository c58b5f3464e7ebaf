"""Finding phrases among an utterance's words and writing others for them; times, confidences and punctuation are kept.

A phrase is looked for in whole words. Punctuation and symbols at its ends belong to it only where the phrase has them
too: `c++,` is `c++` and a comma. What stays of them is written around the new text.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vivavoce.model import Utterance, Word, spread_words

_MOST_MARKS = 8
"""Punctuation marks at one end of a word that are looked at, which bounds the work."""

_START = 2
"""Letters by which most words are told to start no phrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """`text` instead of the words from `first` up to `stop`, between what is kept of their ends."""

    first: int
    stop: int
    text: str
    lead: str = ""
    trail: str = ""

    @property
    def written(self) -> list[str]:
        """The new words."""
        return f"{self.lead}{self.text}{self.trail}".split()


@functools.lru_cache(maxsize=20_000)
def folded(text: str) -> str:
    """Give a text as it is compared: without case, and in one Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def bare(text: str) -> tuple[str, str, str]:
    """Take a text apart into leading marks, the rest without marks at its ends, and trailing marks."""
    lead, trail = _marks(text), _marks(text[::-1])
    return text[:lead], text[lead : max(lead, len(text) - trail)], text[max(lead, len(text) - trail) :]


class Phrases:
    """Phrases to find, and what to write for each."""

    def __init__(self, key: Callable[[str], str] = folded, joint: str = " ", more: int = 0) -> None:
        """Make an empty table.

        Words are the same where `key` gives the same for them, phrases where their words' keys are the same with
        `joint` between them. With an empty `joint`, `more` words than the longest phrase has may add up to a phrase.
        """
        self._key = key
        self._joint = joint
        self._more = more
        self._lengths: set[int] = set()
        self._wanted: dict[str, str] = {}
        self._starts: set[str] = set()

    def add(self, phrase: str, text: str) -> None:
        """Take up a phrase, unless there is one like it or nothing is left of it or of what to write."""
        words = phrase.split()
        key = self._joint.join(map(self._key, words))
        if key.strip() and text.strip():
            self._wanted.setdefault(key, text)
            self._starts.add(key[:_START])
            self._lengths |= set(range(len(words) if self._joint else 1, len(words) + self._more + 1))

    def find(self, words: Sequence[str]) -> list[Replacement]:
        """Give the places of phrases, from the left, the longest first; none overlap."""
        found: list[Replacement] = []
        first = 0
        while first < len(words):
            place = self._at(words, first)
            if place is not None:
                found.append(place)
            first = place.stop if place is not None else first + 1
        return found

    def _at(self, words: Sequence[str], first: int) -> Replacement | None:
        """Give the longest phrase that starts with a word; of equally long ones that with the most marks of its own."""
        starts = [self._key(words[first][lead:])[:_START] for lead in range(_marks(words[first]) + 1)]
        if not any(len(start) < _START or start in self._starts or start[0] in self._starts for start in starts):
            return None
        for stop in sorted((first + length for length in self._lengths if first + length <= len(words)), reverse=True):
            for lead, trail in _ends(words[first], words[stop - 1]):
                inside = " ".join(words[first:stop])
                keys = [self._key(word) for word in inside[len(lead) : len(inside) - len(trail)].split(" ")]
                text = self._wanted.get(self._joint.join(keys)) if keys[0] and keys[-1] else None
                if text is not None:
                    return Replacement(first=first, stop=stop, text=text, lead=lead, trail=trail)
        return None


def apply(utterance: Utterance, replacements: Sequence[Replacement]) -> Utterance:
    """Give the utterance with some of its words replaced; the replacements do not overlap.

    As many words as before keep their times and confidences one by one. Otherwise the new words share the time from
    the first old word's start to the last one's end by their letters, and have the mean of the confidences.
    """
    words: list[Word] = []
    at = 0
    for each in sorted(replacements, key=lambda replacement: replacement.first):
        words += utterance.words[at : each.first]
        words += _written(utterance.words[each.first : each.stop], each.written)
        at = each.stop
    return replace(utterance, words=(*words, *utterance.words[at:]))


def _marks(text: str) -> int:
    """Count the marks that a text begins with, up to `_MOST_MARKS`."""
    if text[:1].isalnum():
        return 0
    for n, letter in enumerate(text[:_MOST_MARKS]):
        if unicodedata.category(letter)[0] not in "PS":
            return n
    return min(len(text), _MOST_MARKS)


def _ends(head: str, tail: str) -> Sequence[tuple[str, str]]:
    """Give the marks that may be cut off a phrase's first and last word, the fewest first."""
    leads, trails = _marks(head), _marks(tail[::-1])
    if not leads and not trails:
        return (("", ""),)
    ways = sorted(itertools.product(range(leads + 1), range(trails + 1)), key=sum)
    return [(head[:lead], tail[len(tail) - trail :]) for lead, trail in ways]


def _written(old: Sequence[Word], texts: Sequence[str]) -> tuple[Word, ...]:
    if len(texts) == len(old):
        return tuple(replace(word, text=text) for word, text in zip(old, texts, strict=True))
    start, end = old[0].start, old[-1].end
    mean = min(1.0, sum(word.confidence for word in old) / len(old))
    spread = spread_words(texts, [mean] * len(texts), start, end)
    # Rounding may put an edge beyond the end.
    ends = [*(min(word.end, end) for word in spread[:-1]), end]
    return tuple(
        replace(word, start=min(word.start, end), end=stop, speaker=old[0].speaker)
        for word, stop in zip(spread, ends, strict=True)
    )
