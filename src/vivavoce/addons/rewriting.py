"""Finding phrases among an utterance's words and writing others for them; times, confidences and punctuation are kept.

A phrase is looked for in whole words. Punctuation and symbols at its ends belong to it only where the phrase has them
too: `c++,` is `c++` and a comma. What stays of them is written around the new text.
"""

from __future__ import annotations

import bisect
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vivavoce.model import Utterance, Word, spread_words

_MOST_MARKS = 8
"""Punctuation marks at one end of a word that are looked at, which bounds the work."""

_STOPS = ".。"
_FINAL = f"{_STOPS}?!…？！"  # noqa: RUF001
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ′＇", "'"))  # noqa: RUF001

_START = 2
"""Letters by which most words are told to start no phrase."""


UNSPACED_RANGES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
UNSPACED = re.compile(f"[{UNSPACED_RANGES}]")
"""A letter of a script without blanks between words; there engines write any part of a text as a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """`text` instead of the words from `first` up to `stop`, between what is kept of their ends.

    Where both the text and what is kept end it, as `I.B.M.` does a sentence, the text's own mark is enough.
    """

    first: int
    stop: int
    text: str
    lead: str = ""
    trail: str = ""

    @property
    def written(self) -> list[str]:
        """The new words."""
        ending, mark = self.text[-1:], self.trail[:1]
        twice = mark and ending in _FINAL and mark in {ending, *_STOPS}
        return f"{self.lead}{self.text}{self.trail[1:] if twice else self.trail}".split()


@functools.lru_cache(maxsize=20_000)
def folded(text: str) -> str:
    """Give a text as it is compared: without case, in one Unicode form, and with one kind of apostrophe."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).translate(_APOSTROPHES)


def unspaced(letter: str) -> bool:
    """Tell whether a letter is of a script without blanks between words."""
    return letter >= "\u0e00" and UNSPACED.match(letter) is not None


def bare(text: str) -> tuple[str, str, str]:
    """Take a text apart into leading marks, the rest without marks at its ends, and trailing marks."""
    lead, trail = _marks(text), _marks(text[::-1])
    return text[:lead], text[lead : max(lead, len(text) - trail)], text[max(lead, len(text) - trail) :]


class Phrases:
    """Phrases to find, and what to write for each."""

    def __init__(self, key: Callable[[str], str] = folded, joint: str = " ") -> None:
        """Make an empty table.

        Words are the same where `key` gives the same for them, phrases where their words' keys are the same with
        `joint` between them. In scripts without blanks between words there is none: how a phrase is cut there does not
        count. With an empty `joint` it does not count anywhere.
        """
        self._key = key
        self._joint = joint
        self._wanted: dict[str, str] = {}
        self._sorted: list[str] = []
        self._starts: set[str] = set()

    def add(self, phrase: str, text: str) -> None:
        """Take up a phrase, unless there is one like it or nothing is left of it or of what to write."""
        key = functools.reduce(self._joined, map(self._key, phrase.split()), "")
        if key.strip() and text.strip() and key not in self._wanted:
            self._wanted[key] = text
            bisect.insort(self._sorted, key)
            self._starts.add(key[:_START])

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
        leads = range(_marks(words[first]) + 1)
        starts = [self._key(words[first][lead:])[:_START] for lead in leads]
        if not any(len(start) < _START or start in self._starts or start[0] in self._starts for start in starts):
            return None
        found = [place for lead in leads for place in self._from(words, first, lead)]
        return max(found, key=lambda place: (place.stop, -len(place.lead) - len(place.trail)), default=None)

    def _from(self, words: Sequence[str], first: int, lead: int) -> Iterator[Replacement]:
        """Give the phrases that start behind so many marks of a word: as far as any phrase goes on like the words."""
        before = ""
        for stop in range(first + 1, len(words) + 1):
            word = words[stop - 1] if before else words[first][lead:]
            for trail in range(_marks(word[::-1]) + 1):
                body = self._key(word[: len(word) - trail])
                text = self._wanted.get(self._joined(before, body)) if body else None
                if text is not None:
                    ends = words[first][:lead], word[len(word) - trail :]
                    yield Replacement(first=first, stop=stop, text=text, lead=ends[0], trail=ends[1])
            before = self._joined(before, self._key(word))
            at = bisect.bisect_left(self._sorted, before)
            if not before or at == len(self._sorted) or not self._sorted[at].startswith(before):
                return

    def _joined(self, before: str, after: str) -> str:
        """Put a word's key behind those of the words before it."""
        apart = before and after and not (unspaced(before[-1]) or unspaced(after[0]))
        return f"{before}{self._joint}{after}" if apart else before + after


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
