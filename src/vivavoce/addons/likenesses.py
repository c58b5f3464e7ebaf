"""Entries of a vocabulary among the words of an utterance, by their letters and by how they sound.

Runs of words (windows) are compared with the entries by sound. What speaks for an entry, all in the logarithm of odds:

- the worth of its sound: a long name, or one with rare sounds, is not met by chance;
- how seldom the window's words are used: engines write rare words, or none that exist, for names they do not know;
- how unsure the engine was of them.

What speaks against it is how much of that worth is lost to the sound that was heard, each word of the window beyond the
first, and how sure the engine was of the least sure word: names are seldom misheard with certainty. The weights are
those of a logistic regression on synthesized telephone calls; docs/how-to/vocabulary.md has its results. An entry is
written where the sum is above a threshold set by its intensity; of windows that overlap, the best one wins.

The same letters (`live kit` for `LiveKit`) count at any intensity and are never taken for another entry; those of a
pronunciation count above the default intensity. Everything depends on a window's own words alone, so a replacement here
changes nothing elsewhere, and unless entries share words, rewriting twice changes nothing more.

An engine that can tell how likely a whole text is, is asked about the likeliest entries, also those whose sound is not
enough (`doubts`, `settled`). It has the audio, of which there is nothing left here but the sound of the words that it
wrote: where a true name is too far from these, the text with the name in it often is nearly as likely to it as its own.

Sounds are known for English only. In other languages entries are compared by their letters.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from vivavoce import pronounce
from vivavoce.addons import rewriting, sounds
from vivavoce.addons.rewriting import Replacement
from vivavoce.model import Word

LONGEST_WORDS = 10
LONGEST_SOUND = 80
"""Entries with more words, or more phones (letters in other languages), are found by their exact letters only."""
DEFAULT_INTENSITY = 0.5
MOST_SOUNDS = 6
"""Ways to say an entry, or one of its pronunciations, that are compared."""
MORE_WORDS = 2
"""A window may have so many words more than the entry: an engine that does not know a name writes several for it.
What it spells letter by letter, or writes in a script without blanks, counts as one."""

_BIAS, _BY_DISTANCE, _BY_WORTH = -4.93, -0.59, 0.48
_BY_SURPRISE, _BY_DOUBT, _BY_WORD, _BY_SURENESS = 0.16, 0.37, -0.89, -1.57
_WORTH_COUNTED = 32.0
_UNHEARD, _LEAST_CONFIDENCE = 18.0, 0.02
"""Surprise of a word that the language model lacks, in nats, and the confidence that lower ones count as."""
_UNKNOWN_CONFIDENCE = 0.75
"""What an engine counts as that is certain of every word: it has no confidences."""
_SURE_BEYOND = 1.03
"""Sureness is the log of how far a confidence is from this, which keeps that of a certain word finite."""
_DOUBTED, _MOST_DOUBTS, _FARTHEST_DOUBTED = 2.0, 4, 0.95
"""Odds that an entry may lack for an engine to be asked about it, how many are asked about at once, and the share of
its worth that it may lose."""
_LONGEST_ASKED = 100
"""Letters of an entry that an engine is asked about; what is not said, such as a row of dots, can be any length."""
_ASKED_BIAS, _BY_ODDS, _BY_ANSWER, _LEAST_ANSWER = 2.05, 0.65, 0.26, -40.0
"""What odds by sound and an engine's answer come to, and the least that an answer counts."""
_STRICTEST, _EASIER = 2.2, 3.6
"""Log odds asked for at intensity 0, and by how much less at intensity 1."""
_NEAREST, _WIDER, _FARTHEST = 0.2, 1.0, 0.8
"""Share of its worth that an entry may lose at intensity 0, by how much more at intensity 1, and the most at any."""
_OTHER_LETTERS = 0.3
"""Share of wrong letters that is let pass at intensity 1, where there are no sounds to go by."""
_FIRST_HAN, _OTHER_LENGTH = "\u3400", 0.01
"""Engines take Chinese characters for others more than they leave some out: of windows as like an entry, the one that
is as long counts."""
_SHORT = 3
"""Letters of words that are taken for usual there."""
_LEAST_PER_EDIT = 2.0
"""Sounds that differ in n phones are taken to be n times this apart at least, which spares measuring most of them.
Single edits can cost less, the sum of several hardly ever does."""
_AT_ONCE = 256
"""Windows that are compared with entries at once, which bounds the memory."""
_MOST_SPELLED = 20
"""Letters of what is spelled out that count as one word."""
_MOST_RUNS, _MOST_SPELLED_RUNS = 2_000, 1_000
"""Windows of an utterance in which several words count as one, and those by phones, of which only what is spelled out
does: shared out evenly among the words that they begin with, of which the shortest count."""
_MOST_MEASURED = 256
"""Pairs of windows and forms whose distance is measured at once, the likeliest ones; a list of ordinary names comes to
a few, one of a thousand like-sounding ones is kept from taking seconds."""
_MOST_DOUBTS_MEASURED = 64
"""The same where an engine is asked, of which only the few likeliest count."""
_USUAL = 9.5
"""Surprise of the thousandth most usual English word."""
_LOG_BASE, _NUMBER = 1e-4, 10.0
"""PocketSphinx counts probabilities in powers of 1.0001."""
_JOINTS = re.compile(r"(?<=\w)(?!'s$)[-.']+(?=\w)")
_PARTS = re.compile("[a-z]+(?:'[a-z]+)*")
_POSSESSIVE = re.compile("['’]s$", re.IGNORECASE)  # noqa: RUF001
_SENTENCE_END = re.compile(r"\w{3}\W*[.?!]\W*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is looked for: its `text`, the ways to say it, and how eagerly."""

    text: str
    intensity: float
    said: tuple[str, ...]
    language: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """One way to say an entry: looked for in windows of up to `words` words, `most` away by sound.

    `odds` is what speaks for it wherever it is heard.
    """

    text: str
    sound: str
    words: int
    most: float
    odds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The words from `first` up to `stop`, by sound; `lead` and `trail` stay. `odds` is what speaks for any entry.

    `words` is how many they count as, what was spelled letter by letter as one.
    """

    first: int
    stop: int
    words: int
    lead: str
    trail: str
    sound: str
    odds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A form that may have been said in a window, with the odds of it by sound alone."""

    window: _Window
    form: _Form
    odds: float

    @property
    def replacement(self) -> Replacement:
        """What to write, and where."""
        return Replacement(
            first=self.window.first,
            stop=self.window.stop,
            text=self.form.text,
            lead=self.window.lead,
            trail=self.window.trail,
        )


class Listener(ABC):
    """Finds entries by their letters, then by how they sound in one language."""

    _per_edit: float
    """What one edit costs at least, or hardly ever less."""
    _most_runs = _MOST_RUNS

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._same = rewriting.Phrases(_letters, joint="")
        for ending in ("", "'s"):
            for entry in entries:
                self._same.add(entry.text + ending, entry.text + ending)
                # Whoever asks for more than usual wants a pronunciation to count where it is a word of its own.
                for said in entry.said if entry.intensity > DEFAULT_INTENSITY else ():
                    self._same.add(said + ending, entry.text + ending)
        self._forms = [
            _Form(text=entry.text, sound=sound, words=len(said.split()) + MORE_WORDS, most=most, odds=odds)
            for entry in entries
            for said in entry.said
            if len(said.split()) <= LONGEST_WORDS
            for sound in self._sounds(said)
            if 0 < len(sound) <= LONGEST_SOUND
            for most, odds in [self._limits(sound, entry.intensity)]
        ]
        self._longest = 2 * max((len(form.sound) for form in self._forms), default=0)
        self._words = np.array([form.words for form in self._forms])
        self._said = np.array([len(form.sound) for form in self._forms])
        self._most = np.array([form.most for form in self._forms])
        self._farthest = _FARTHEST_DOUBTED * np.array([self._worth(form.sound) for form in self._forms])
        self._odds = np.array([form.odds for form in self._forms])
        self._lengths, self._doubted_lengths = self._reach(self._most), self._reach(self._farthest)

    def find(self, words: Sequence[Word]) -> list[Replacement]:
        """Give what is to be written where; none overlap."""
        texts = [word.text for word in words]
        same = self._same.find(texts)
        taken = _places(same)
        found = [each for each in same if not self._stays(each, texts[each.first : each.stop])]
        heard = self._nearby(words, taken, 0.0)
        return found + _best(((each.odds, each) for each in heard), taken)

    def doubts(self, words: Sequence[Word]) -> list[Doubt]:
        """Give the likeliest places of entries, too unlikely ones among them; a few, and no two alike."""
        if not self._farthest.any():
            return []
        taken = _places(self._same.find([word.text for word in words]))
        best: dict[tuple[int, int, str, str], Doubt] = {}
        for each in sorted(self._nearby(words, taken, _DOUBTED), key=lambda each: -each.odds):
            if len(each.form.text) > _LONGEST_ASKED:
                continue
            best.setdefault((each.window.first, each.window.stop, each.window.trail, each.form.text), each)
        return list(islice(best.values(), _MOST_DOUBTS))

    def settled(self, doubts: Sequence[Doubt], answers: Sequence[float]) -> list[Replacement]:
        """Give what is to be written where, by what an engine says for each of the doubts; none overlap."""
        return _best(((_odds(doubt, answer), doubt) for doubt, answer in zip(doubts, answers, strict=True)), set())

    def _nearby(self, words: Sequence[Word], taken: set[int], spare: float) -> list[Doubt]:
        """Give the forms that were heard outside of the places taken, and those that lack up to `spare` of odds."""
        confidences = [word.confidence for word in words]
        if min(confidences, default=1.0) >= 1.0:
            confidences = [_UNKNOWN_CONFIDENCE] * len(words)
        lengths = self._doubted_lengths if spare else self._lengths
        windows = self._windows([word.text for word in words], confidences, taken, lengths)
        return self._heard(list(windows), spare)

    def _reach(self, most: NDArray[np.float64]) -> frozenset[int]:
        """Give the lengths of sounds that are no farther from every form than it may be."""
        edits = {(len(form.sound), int(limit // self._per_edit)) for form, limit in zip(self._forms, most, strict=True)}
        return frozenset(length for said, more in edits for length in range(said - more, said + more + 1))

    def _stays(self, same: Replacement, texts: Sequence[str]) -> bool:
        """Tell whether an entry's letters are left as they stand: nothing would change, or the case of a usual word."""
        before = " ".join(texts)
        after = " ".join(same.written)
        return before == after or (before.lower() == after.lower() and self._usual(same.text))

    def _windows(
        self, texts: Sequence[str], confidences: Sequence[float], taken: set[int], lengths: frozenset[int]
    ) -> Iterator[_Window]:
        """Give the runs of words that may be misheard: not beyond the end of a sentence or into a taken word."""
        bare = [rewriting.bare(text) for text in texts]
        said = [self._sound(body) if n not in taken else "" for n, (_, body, _) in enumerate(bare)]
        lasts = [self._lasts(body, trail, sound) for (_, body, trail), sound in zip(bare, said, strict=True)]
        ends = [_SENTENCE_END.search(text) is not None for text in texts]
        odds = [self._for_word(body, sure) for (_, body, _), sure in zip(bare, confidences, strict=True)]
        sure = [self._sureness(confidence) for confidence in confidences]
        pairs = [(before, after) for (_, before, _), (_, after, _) in pairwise(bare)]
        blanks = [0, *accumulate(not _run_on(*pair) for pair in pairs)]
        own = [0, *accumulate(not (_run_on(*pair) or _spelled(*pair)) for pair in pairs)]
        most_words, longest = int(self._words.max(initial=0)), max(lengths, default=0)
        room = max(self._most_runs // max(len(own) - own[-1] - 1, 1), most_words)
        for first in (n for n, sound in enumerate(said) if sound):
            sound, length, likely, surest, runs = "", 0, 0.0, -math.inf, 0
            for stop in range(first + 1, len(texts) + 1):
                words, gaps = 1 + own[stop - 1] - own[first], blanks[stop - 1] - blanks[first]
                if stop - 1 in taken or words > most_words or gaps + 1 - words >= _MOST_SPELLED or runs >= room:
                    break
                likely, surest = likely + odds[stop - 1], max(surest, sure[stop - 1])
                for last, trail in lasts[stop - 1]:
                    heard = sounds.extended(sound, last)
                    if len(heard) in lengths:
                        runs += words < stop - first
                        yield _Window(
                            first=first,
                            stop=stop,
                            words=words,
                            lead=bare[first][0],
                            trail=trail,
                            sound=heard,
                            odds=likely + (_BY_WORD * gaps + surest),
                        )
                sound, length = sounds.extended(sound, said[stop - 1]), length + len(said[stop - 1])
                if length > self._longest or len(sound) > longest or ends[stop - 1]:
                    break

    def _lasts(self, body: str, trail: str, sound: str) -> list[tuple[str, str]]:
        """Give how a window's last word sounds, with and without an `'s`, and what follows it then."""
        bare = [(self._sound(body.removesuffix(ending)), ending + trail) for ending in _POSSESSIVE.findall(body)]
        return [each for each in ((sound, trail), *bare) if each[0]]

    def _heard(self, windows: Sequence[_Window], spare: float) -> list[Doubt]:
        """Give the forms that were heard in windows, and those that lack up to `spare` of odds."""
        alike: dict[int, list[int]] = {}
        for row, window in enumerate(windows):
            alike.setdefault(len(window.sound), []).append(row)
        some = [rows[at : at + _AT_ONCE] for rows in alike.values() for at in range(0, len(rows), _AT_ONCE)]
        if not some:
            return []
        near = np.concatenate([self._near(windows, rows, spare) for rows in some])
        most = _MOST_MEASURED if not spare else _MOST_DOUBTS_MEASURED
        if len(near) > most:
            near = near[near[:, 3] >= np.partition(near[:, 3], -most)[-most]]
            near = near[np.argsort(-near[:, 3], kind="stable")[:most]]
        heard = []
        for row, column, limit, _ in near[np.lexsort((near[:, 1], near[:, 0]))].tolist():
            window, form = windows[int(row)], self._forms[int(column)]
            apart = self._distance(window.sound, form.sound, limit)
            if apart < math.inf:
                odds = window.odds + form.odds + _BY_DISTANCE * apart
                heard.append(Doubt(window=window, form=form, odds=odds))
        return heard

    def _near(self, windows: Sequence[_Window], rows: Sequence[int], spare: float) -> NDArray[np.float64]:
        """Give what may be within reach of windows with sounds of one length: window, form, limit, and room left."""
        farthest = self._farthest if spare else self._most
        least = np.abs(self._said - len(windows[rows[0]].sound)) * self._per_edit
        (columns,) = np.nonzero(least <= farthest)
        rooms = self._odds[columns] + np.array([windows[row].odds for row in rows])[:, None] + spare
        rooms = np.minimum(rooms / -_BY_DISTANCE, farthest[columns])
        rooms[np.array([windows[row].words for row in rows])[:, None] > self._words[columns]] = -1.0
        edits = cdist(
            [windows[row].sound for row in rows],
            [self._forms[column].sound for column in columns],
            scorer=Levenshtein.distance,
            score_cutoff=max(int(rooms.max(initial=0.0) // self._per_edit), 0),
        )
        slack = rooms - edits * self._per_edit
        here, there = np.nonzero(slack >= 0)
        return np.stack((np.array(rows)[here], columns[there], rooms[here, there], slack[here, there]), axis=1)

    @abstractmethod
    def _sounds(self, text: str) -> list[str]:
        """Give the ways to say a text."""

    @abstractmethod
    def _sound(self, word: str) -> str:
        """Give the likeliest way to say a word; nothing where it is silent."""

    @abstractmethod
    def _for_word(self, word: str, confidence: float) -> float:
        """Give what the presence of a word in a window says for its being misheard."""

    @abstractmethod
    def _sureness(self, confidence: float) -> float:
        """Give what a window's least sure word says against an entry by its confidence: least for certainty."""

    @abstractmethod
    def _limits(self, sound: str, intensity: float) -> tuple[float, float]:
        """Give the largest distance from a sound that is let pass, and the odds for the sound itself."""

    def _worth(self, sound: str) -> float:
        """Give the log odds that a sound is worth where an engine may be asked about it; nothing is asked at 0."""
        del sound
        return 0.0

    @abstractmethod
    def _usual(self, text: str) -> bool:
        """Tell whether a text is met so often that its case tells nothing."""

    @abstractmethod
    def _distance(self, one: str, other: str, limit: float) -> float:
        """Give how far two sounds are from each other, infinity beyond the limit."""


def _run_on(before: str, after: str) -> bool:
    """Tell whether nothing parts two words: an engine cuts a text as it likes in scripts without blanks."""
    return bool(before and after) and (rewriting.unspaced(before[-1]) or rewriting.unspaced(after[0]))


def _spelled(before: str, after: str) -> bool:
    """Tell whether two words are letters of what is spelled out."""
    return len(before) == len(after) == 1 and before.isalpha() and after.isalpha()


def _places(replacements: Sequence[Replacement]) -> set[int]:
    return {at for each in replacements for at in range(each.first, each.stop)}


def _best(heard: Iterable[tuple[float, Doubt]], taken: set[int]) -> list[Replacement]:
    """Give the likeliest of what overlaps, by the odds beside each; what they speak against is left out."""
    found: list[Replacement] = []
    for odds, each in sorted(heard, key=lambda one: (-one[0], one[1].window.first, one[1].window.stop)):
        places = range(each.window.first, each.window.stop)
        if odds >= 0 and taken.isdisjoint(places):
            taken |= set(places)
            found.append(each.replacement)
    return found


def _odds(doubt: Doubt, answer: float) -> float:
    """Give the odds of a form by its sound and by what an engine says for it."""
    return _ASKED_BIAS + _BY_ODDS * doubt.odds + _BY_ANSWER * max(answer, _LEAST_ANSWER)


class English(Listener):
    """Listens to phones."""

    _per_edit = _LEAST_PER_EDIT
    _most_runs = _MOST_SPELLED_RUNS

    def _sounds(self, text: str) -> list[str]:
        return sounds.sounds(text, MOST_SOUNDS)

    def _sound(self, word: str) -> str:
        return _english_sound(word)

    def _for_word(self, word: str, confidence: float) -> float:
        return _BY_SURPRISE * _surprise(word) - _BY_DOUBT * math.log(max(confidence, _LEAST_CONFIDENCE))

    def _sureness(self, confidence: float) -> float:
        return -_BY_SURENESS * math.log(_SURE_BEYOND - min(confidence, 1.0))

    def _limits(self, sound: str, intensity: float) -> tuple[float, float]:
        share = min(_NEAREST + _WIDER * intensity, _FARTHEST)
        asked = _STRICTEST - _EASIER * intensity
        worth = self._worth(sound)
        return share * worth, _BIAS - asked + _BY_WORTH * min(worth, _WORTH_COUNTED)

    def _worth(self, sound: str) -> float:
        return sounds.worth(sound)

    def _usual(self, text: str) -> bool:
        return sum(_surprise(word) for word in text.split()) < _USUAL

    def _distance(self, one: str, other: str, limit: float) -> float:
        return sounds.distance(one, other, limit)


class Foreign(Listener):
    """Compares letters, without accents and double ones, and knows no other evidence."""

    _per_edit = 1.0

    def _sounds(self, text: str) -> list[str]:
        return [sounds.joined([self._sound(word) for word in text.split()])]

    def _sound(self, word: str) -> str:
        plain = unicodedata.normalize("NFKD", word.casefold())
        return sounds.joined([letter for letter in plain if letter.isalnum()])

    def _for_word(self, word: str, confidence: float) -> float:  # noqa: ARG002 - how usual a word is is not known
        return 0.0

    def _sureness(self, confidence: float) -> float:  # noqa: ARG002 - nor is how sure an engine has to be
        return 0.0

    def _limits(self, sound: str, intensity: float) -> tuple[float, float]:
        share = _OTHER_LETTERS * intensity * len(sound)
        return share, -_BY_DISTANCE * share - _BY_WORD * LONGEST_WORDS

    def _usual(self, text: str) -> bool:
        return len(text) <= _SHORT

    def _distance(self, one: str, other: str, limit: float) -> float:
        edits = Levenshtein.distance(one, other)
        unlike = _OTHER_LENGTH * abs(len(one) - len(other)) if other[-1] >= _FIRST_HAN else 0.0
        return edits + unlike if edits <= limit else math.inf


@functools.lru_cache(maxsize=20_000)
def _letters(word: str) -> str:
    """Give a word as entries are told to be the same: without case and the hyphens, stops and apostrophes in it."""
    return _JOINTS.sub("", rewriting.folded(word))


@functools.lru_cache(maxsize=20_000)
def _english_sound(word: str) -> str:
    return sounds.sound(pronounce.phones(word))


@functools.lru_cache(maxsize=20_000)
def _surprise(word: str) -> float:
    """Give how unexpected the rarest part of an English word is, in nats; numbers count as middling."""
    parts = _PARTS.findall(word.lower())
    if not parts:
        return _NUMBER
    return max(min(_UNHEARD, -_LOG_BASE * float(_language_model().prob([part]))) for part in parts)


@functools.cache
def _language_model() -> Any:
    """Give the model of English that comes with PocketSphinx; its frequencies of single words are used."""
    return pocketsphinx.NGramModel.readfile(str(Path(pocketsphinx.get_model_path("en-us")) / "en-us.lm.bin"))
