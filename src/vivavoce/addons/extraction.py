"""The most telling sentences of a transcript, by LexRank (Erkan and Radev, 2004), with cosines in place of a threshold.

Sentences vote for those that share their rarer words, and votes count as much as the voter has itself. The similarity
of all pairs is never written down: a round of votes is two passes over the words, so the time grows with the length of
the transcript and not with its square. Of sentences that say the same, one is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vivavoce.addons.rewriting import UNSPACED
from vivavoce.addons.sentences import cut, ends_sentence
from vivavoce.model import Transcript, Utterance, Word

PAUSE_S = 1.5
"""Silence after which a sentence is over, however its text ends."""

MAX_SENTENCE_WORDS = 40
"""Words after which an utterance's end is a sentence's end: not every engine writes stops."""

LONGEST_SENTENCE_WORDS = 50
"""Words beyond which a sentence is cut, in parts of `MAX_SENTENCE_WORDS` at most."""

_FEWEST_WORDS = 4  # shorter sentences tell nothing by themselves
_DAMPING = 0.85
_ROUNDS = 60
_SETTLED = 1e-6
_ALIKE = 0.6

# Scripts without blanks between words are read letter by letter.
_TOKEN = re.compile(rf"{UNSPACED.pattern}|\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much may be taken: so many sentences, and so many words unless the first sentence alone has more."""

    sentences: int
    words: int


def extract(transcript: Transcript, budget: Budget) -> list[str]:
    """Give the most telling sentences, in the order in which they were said; none of a transcript without words."""
    said = list(_sentences(transcript))
    if sum(map(_length, said)) <= budget.words and len(said) <= budget.sentences:
        return said
    tokens = [[token.casefold() for token in _TOKEN.findall(sentence)] for sentence in said]
    telling = [nth for nth, of_one in enumerate(tokens) if len(of_one) >= _FEWEST_WORDS]
    telling = telling or [nth for nth, of_one in enumerate(tokens) if of_one]
    if not telling:
        return []
    vectors = _vectors([tokens[nth] for nth in telling])
    ranks = _ranks(vectors)
    taken: list[int] = []
    room = budget.words
    for best in np.argsort(-ranks, kind="stable"):
        length = _length(said[telling[best]])
        if (taken and length > room) or any(_cosine(vectors[best], vectors[other]) > _ALIKE for other in taken):
            continue
        taken.append(int(best))
        room -= length
        if len(taken) == budget.sentences or room <= 0:
            break
    return [said[telling[nth]] for nth in sorted(taken)]


def _sentences(transcript: Transcript) -> Iterator[str]:
    """Give the sentences of each voice, joined over utterances that end within one, by their beginnings."""
    open_ones: dict[tuple[int, int | None], list[Word]] = {}
    found: list[tuple[list[Word], Utterance]] = []
    for utterance in transcript.utterances:
        voice = _voice(utterance)
        pending = open_ones.get(voice, [])
        if pending and (utterance.start - pending[-1].end > PAUSE_S or len(pending) >= MAX_SENTENCE_WORDS):
            pending = []
        for word in cut(utterance.words):
            if not pending or ends_sentence(pending[-1].text, word.text):
                pending = []
                found.append((pending, utterance))
            pending.append(word)
        open_ones[voice] = pending
    for words, utterance in sorted(found, key=lambda each: each[0][0].start):
        for part in _parts(words):
            yield replace(utterance, words=tuple(part)).text


def _parts(words: list[Word]) -> Iterator[list[Word]]:
    """Cut what is too long for a sentence at the longest silences in it; parts have half of the most words at least."""
    least = MAX_SENTENCE_WORDS // 2
    while len(words) > LONGEST_SENTENCE_WORDS:
        most = min(MAX_SENTENCE_WORDS, len(words) - least)
        silences = [words[at].start - words[at - 1].end for at in range(least, most + 1)]
        at = least + max(range(len(silences)), key=lambda nth: (round(silences[nth], 2), nth))
        yield words[:at]
        words = words[at:]
    yield words


def _length(sentence: str) -> int:
    """Count the words of a sentence; where there are no blanks between them, its letters."""
    return sentence.count(" ") + 1 + len(UNSPACED.findall(sentence))


def _voice(utterance: Utterance) -> tuple[int, int | None]:
    return utterance.channel, utterance.speaker


_Vector = dict[str, float]


def _vectors(tokens: Sequence[Sequence[str]]) -> list[_Vector]:
    """Weigh each sentence's words by how few sentences have them; vectors have length 1, or 0 without any such word."""
    spread = Counter(token for of_one in tokens for token in set(of_one))
    rarity = {token: np.log((1 + len(tokens)) / count) for token, count in spread.items()}
    vectors = []
    for of_one in tokens:
        weights = {token: count * rarity[token] for token, count in Counter(of_one).items()}
        length = float(np.sqrt(sum(weight * weight for weight in weights.values()))) or 1.0
        vectors.append({token: float(weight) / length for token, weight in weights.items()})
    return vectors


def _ranks(vectors: Sequence[_Vector]) -> NDArray[np.float64]:
    """Give each sentence's share of the votes."""
    column = {token: nth for nth, token in enumerate(dict.fromkeys(token for vector in vectors for token in vector))}
    rows = np.array([row for row, vector in enumerate(vectors) for _ in vector], dtype=np.intp)
    columns = np.array([column[token] for vector in vectors for token in vector], dtype=np.intp)
    values = np.array([weight for vector in vectors for weight in vector.values()])
    count = len(vectors)

    def votes(given: NDArray[np.float64]) -> NDArray[np.float64]:
        by_word = np.bincount(columns, values * given[rows], len(column))
        return np.bincount(rows, values * by_word[columns], count).astype(np.float64)

    # A sentence's cosine with itself is among its votes, so that none is without any.
    degrees = np.maximum(votes(np.ones(count)), 1e-9)
    ranks = np.full(count, 1 / count)
    for _ in range(_ROUNDS):
        before, ranks = ranks, (1 - _DAMPING) / count + _DAMPING * votes(ranks / degrees)
        if float(np.abs(ranks - before).sum()) < _SETTLED:
            break
    return ranks


def _cosine(one: _Vector, other: _Vector) -> float:
    return sum(weight * other.get(token, 0.0) for token, weight in one.items())
