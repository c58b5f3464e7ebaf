"""What a language model finds in an utterance: how its sentences sound, and the names in it.

Neither takes text from the model. Sentiments are labels of sentences that were cut here; a name counts only where it
stands in the utterance, so one that the model or a caller made up is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from vivavoce.addons.llm import Answer, Llm
from vivavoce.addons.sentences import sentences
from vivavoce.model import Entity, Sentiment, Utterance

MOST_BEFORE = 5
"""Utterances before the one in question that the model is shown."""

_EDGES = "\"'“”‘’«»„()[]{}<>¿¡.,;:!?…-–—"  # noqa: RUF001

EmotionLabel = Literal[
    "neutral",
    "happiness",
    "gratitude",
    "relief",
    "anger",
    "sadness",
    "fear",
    "disappointment",
    "disgust",
    "surprise",
    "confusion",
]
"""The emotions of the lexicon, so that clients see the same ones whoever judges."""


class _Judgement(Answer):
    sentiment: Literal["positive", "negative", "neutral", "mixed"]
    emotion: EmotionLabel


class _Judgements(Answer):
    sentences: tuple[_Judgement, ...]


class _Name(Answer):
    kind: Literal["NAME", "ORGANIZATION", "LOCATION"]
    text: str


class _Names(Answer):
    names: tuple[_Name, ...]


class LlmSentiment:
    """Judge each sentence by a language model; implements `plugins.UtteranceAddon`."""

    def __init__(self, llm: Llm, *, within_s: float) -> None:
        """Ask `llm`, which has `within_s` for an answer."""
        self._llm, self._within_s = llm, within_s

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> tuple[Sentiment, ...]:
        """Give a sentiment for each sentence, in order; blocks. Raises `AddonError`."""
        said = sentences(utterance.words)
        if not said:
            return ()
        texts = [replace(utterance, words=words).text for words in said]
        given = {"sentences": texts, "before": texts_before(before)}
        answer = self._llm.ask(
            "sentiment", given, _Judgements, fits=lambda it: len(it.sentences) == len(said), within_s=self._within_s
        )
        return tuple(
            Sentiment(
                sentiment=judged.sentiment,
                emotion=judged.emotion,
                text=text,
                start=words[0].start,
                end=words[-1].end,
                channel=utterance.channel,
            )
            for words, text, judged in zip(said, texts, answer.sentences, strict=True)
        )


class LlmEntities:
    """Find names of people, organisations and places by a language model; implements `plugins.UtteranceAddon`."""

    def __init__(self, llm: Llm, *, within_s: float) -> None:
        """Ask `llm`, which has `within_s` for an answer."""
        self._llm, self._within_s = llm, within_s

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> tuple[Entity, ...]:
        """Give the names in the order of their words, none overlapping; blocks. Raises `AddonError`."""
        if not utterance.words:
            return ()
        given = {"text": utterance.text, "before": texts_before(before)}
        answer = self._llm.ask("entities", given, _Names, within_s=self._within_s)
        return _located(utterance, answer.names)


def texts_before(before: Sequence[Utterance]) -> list[str]:
    """Give the texts of the last few utterances, as context."""
    return [utterance.text for utterance in before[-MOST_BEFORE:]]


def _located(utterance: Utterance, names: Sequence[_Name]) -> tuple[Entity, ...]:
    """Find the words of each name, a repeated one at its next place."""
    words = [_bare(word.text) for word in utterance.words]
    taken: set[int] = set()
    found = []
    for name in names:
        wanted = [bare for text in name.text.split() if (bare := _bare(text))]
        first = _place(words, wanted, taken)
        if first is None:
            continue
        stop = first + len(wanted)
        taken.update(range(first, stop))
        covered = utterance.words[first:stop]
        text = " ".join(word.text for word in covered).strip(_EDGES)
        found.append(
            Entity(kind=name.kind, text=text, start=covered[0].start, end=covered[-1].end, first=first, stop=stop)
        )
    return tuple(sorted(found, key=lambda entity: entity.first))


def _place(words: Sequence[str], wanted: Sequence[str], taken: set[int]) -> int | None:
    """Give the first place of some words that is not taken."""
    for first in range(len(words) - len(wanted) + 1 if wanted else 0):
        stop = first + len(wanted)
        if list(words[first:stop]) == list(wanted) and taken.isdisjoint(range(first, stop)):
            return first
    return None


def _bare(text: str) -> str:
    """Give a word as names are compared: without case, punctuation around it and an English possessive."""
    bare = text.strip(_EDGES).casefold()
    return bare.removesuffix("'s").removesuffix("’s")  # noqa: RUF001
