"""How each sentence of an utterance sounds, by two lists of English words.

The sentiment is VADER's: a lexicon with rules for negation, emphasis and "but". A sentence is mixed where both sides
weigh and neither wins. The emotion is the one that most words of a small list of our own speak of, unless they are
negated or contradict the sentiment; most sentences have none, and are neutral. Nobody's tone of voice is heard here,
and irony is taken at its word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from vivavoce.addons.llm import connect
from vivavoce.addons.llm_findings import LlmSentiment
from vivavoce.addons.sentences import sentences
from vivavoce.errors import AddonError, SetupError, Unsupported
from vivavoce.model import Sentiment, Utterance, Word
from vivavoce.plugins import AddonParts, AddonSettings

CLEAR = 0.05
"""VADER's own bound: a sentence whose compound score is nearer to 0 than this is neutral."""

MIXED_SHARE, MIXED_COMPOUND = 0.15, 0.5
"""A sentence is mixed where each side has this share of it, and the compound score is nearer to 0 than that."""

_NEGATION_REACH = 3

_NEGATING = "aint cannot cant dont hardly neither never no nobody none nor not nothing without wont"
_NEGATIONS = frozenset(_NEGATING.split())

_GOOD, _BAD = "positive", "negative"

_LEXICON = """
happiness positive
    amazing awesome brilliant celebrate celebrating cheerful delight delighted delightful enjoy enjoyed enjoying
    excellent excited exciting fantastic fun glad great happily happiness happy joy joyful love loved lovely loves
    loving marvellous marvelous overjoyed perfect pleased pleasure smile smiling thrilled wonderful
gratitude positive
    appreciate appreciated appreciates grateful gratitude thank thankful thanks
relief positive
    phew reassured reassuring relief relieved
anger negative
    anger angry annoyed annoying complain complaining enraged frustrated frustrating frustration furious hate hated
    hates infuriating insult insulted insulting irritated irritating livid mad outrage outraged outrageous rage resent
    rude ridiculous unacceptable
sadness negative
    alone cried cry crying depressed depressing devastated grief grieve grieving heartbroken hopeless lonely miserable
    misery mourn mourning sad sadder sadly sadness sorrow sorrowful tears tragedy tragic unhappy weep
fear negative
    afraid alarmed anxiety anxious dread dreadful fear fearful feared fears frightened frightening horrified nervous
    nightmare panic panicked panicking scared scary terrified terrifying terror threat threatened worried worries worry
    worrying
disappointment negative
    disappointed disappointing disappointment dissatisfied failed failure letdown regret regrets useless waste wasted
disgust negative
    appalling awful disgust disgusted disgusting filthy foul gross horrible loathe nasty nauseating repulsive revolting
    sickening vile
surprise either
    amazed astonished astonishing shocked shocking speechless startled stunned surprise surprised surprising
    surprisingly unbelievable unexpected unexpectedly wow
confusion either
    baffled bewildered confused confusing confusion perplexed puzzled puzzling unclear
"""
"""What words speak of; the line before them says which sentiment the sentence must not contradict."""


def _read_lexicon() -> tuple[dict[str, str], dict[str, str]]:
    """Give the emotion of each word, and the sentiment of each emotion."""
    emotions: dict[str, str] = {}
    leanings: dict[str, str] = {}
    emotion = ""
    for line in _LEXICON.strip().splitlines():
        if line.startswith(" "):
            emotions |= dict.fromkeys(line.split(), emotion)
        else:
            emotion, leanings[emotion] = line.split()
    return emotions, leanings


_EMOTIONS, _LEANINGS = _read_lexicon()

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_LETTERS = re.compile(r"[^\W\d_]+")


class SentimentAnalysis:
    """Judges English by words, or any language by the language model; implements `vivavoce.plugins.Addon`.

    For words it is the looker of all its sessions at once.
    """

    def __init__(self, settings: AddonSettings) -> None:
        """Read the words; raises `SetupError` where the language model is to judge and there is none."""
        self.threads = 1
        self._vader = SentimentIntensityAnalyzer()
        self._llm = None
        if settings.sentiment == "llm":
            if settings.llm is None:
                raise SetupError("--sentiment llm needs --llm-url with --llm-model")
            self._llm = connect(settings.llm)
            self.threads = self._llm.concurrency
        self._within_s = settings.addon_deadline

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:  # noqa: ARG002 - it has none
        """Give the looker; raises `Unsupported` where nobody is expected to speak English and words are to judge."""
        if self._llm is not None:
            return AddonParts(by_target={"": LlmSentiment(self._llm, within_s=self._within_s)})
        if languages and "en" not in languages:
            raise Unsupported(
                "realtime_processing.sentiment_analysis: the words it goes by are English, and en is not among "
                "language_config.languages; leave it out or set it to false"
            )
        return AddonParts(by_target={"": self})

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> tuple[Sentiment, ...]:  # noqa: ARG002
        """Judge each sentence; raises `AddonError` for another language."""
        if utterance.language != "en":
            raise AddonError(f"sentiment_analysis knows English only, and this is {utterance.language}")
        return tuple(self._judge(words, utterance.channel) for words in sentences(utterance.words))

    def close(self) -> None:
        """Free the connections."""
        if self._llm is not None:
            self._llm.close()

    def _judge(self, words: Sequence[Word], channel: int) -> Sentiment:
        text = " ".join(word.text for word in words)
        scores = self._vader.polarity_scores(text)
        sentiment = _sentiment(scores)
        return Sentiment(
            sentiment=sentiment,
            emotion=_emotion(text, sentiment),
            text=text,
            start=words[0].start,
            end=words[-1].end,
            channel=channel,
        )


def _sentiment(scores: Mapping[str, float]) -> str:
    compound = scores["compound"]
    if min(scores["pos"], scores["neg"]) >= MIXED_SHARE and abs(compound) < MIXED_COMPOUND:
        return "mixed"
    if compound >= CLEAR:
        return "positive"
    return "negative" if compound <= -CLEAR else "neutral"


def _emotion(text: str, sentiment: str) -> str:
    bare = "".join(letter for letter in text.casefold() if letter not in _APOSTROPHES)
    tokens = _LETTERS.findall(bare)
    counts: dict[str, int] = {}
    for i, token in enumerate(tokens):
        emotion = _EMOTIONS.get(token)
        if emotion is None or _opposed(_LEANINGS[emotion], sentiment) or _negated(tokens[:i]):
            continue
        counts[emotion] = counts.get(emotion, 0) + 1
    return max(counts, key=lambda emotion: counts[emotion], default="neutral")


def _opposed(leaning: str, sentiment: str) -> bool:
    """Tell whether a sentence says something else than a word in it."""
    return {leaning, sentiment} == {_GOOD, _BAD}


def _negated(before: Sequence[str]) -> bool:
    return any(token in _NEGATIONS or token.endswith("nt") for token in before[-_NEGATION_REACH:])
