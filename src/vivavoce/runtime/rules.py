"""The text rules of one session: vocabulary, then spelling, then redaction, on every text before anybody has it.

A rule that fails must not lose what was said, and must not show what was to be hidden. So where vocabulary or spelling
fails, the text goes on as it was before; where redaction fails, it is withheld: a final keeps its place and its times
with `WITHHELD` for its only word, and a partial is not shown. The client hears of each final that this happens to.
Rules are deterministic, so a final that is heard again after a crash comes out the same, failures included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from vivavoce.errors import AddonError
from vivavoce.events import Final, Partial, Problem
from vivavoce.model import Feature, Mend, Utterance, Weigh, Word
from vivavoce.runtime.opened import RULES, Opened, place_of, way_to

log = structlog.get_logger()

WITHHELD = "[WITHHELD]"


class TextRules:
    """Applies a session's rules in their order; `say` hears of finals that a rule failed on."""

    def __init__(self, session_id: str, opened: Opened, say: Callable[[Problem], None]) -> None:
        self._rules = [(feature, opened.rules[feature]) for feature in RULES if feature in opened.rules]
        self._hides = opened.hides
        self.mend = partial(self._mended, opened.mend) if opened.mend is not None else None
        self._log = log.bind(session=session_id)
        self._say = say

    def partial(self, heard: Utterance) -> Partial | None:
        """Give what is to be shown of an utterance so far, None where that is nothing."""
        for feature, rule in self._rules:
            try:
                heard = _kept(heard, rule.rewrite(heard, final=False))
            except Exception as error:  # noqa: BLE001 - a rule may be anybody's, and fail in any way
                self._log.error("a text rule failed", rule=feature.value, error=place_of(error), way=way_to(error))
                if feature is Feature.PII_REDACTION:
                    return None
        return Partial(utterance=heard) if heard.words else None

    def final(self, heard: Utterance) -> Final:
        """Give the final that is to be shown and stored, and what is to be silenced of its audio."""
        hidden: tuple[tuple[float, float], ...] = ()
        for feature, rule in self._rules:
            try:
                if feature is Feature.PII_REDACTION and self._hides is not None:
                    hidden = tuple((float(start), float(end)) for start, end in self._hides(heard))
                heard = _kept(heard, rule.rewrite(heard, final=True))
            except Exception as error:  # noqa: BLE001 - a rule may be anybody's, and fail in any way
                self._log.error("a text rule failed", rule=feature.value, error=place_of(error), way=way_to(error))
                self._say(_problem(feature, heard))
                if feature is Feature.PII_REDACTION:
                    return _withheld(heard)
        return Final(utterance=heard, hidden=hidden)

    def _mended(self, mend: Mend, words: tuple[Word, ...], language: str, weigh: Weigh) -> tuple[Word, ...]:
        """Mend the words of a final on a thread that decodes; where that fails, the rules have them as they are."""
        try:
            return mend(words, language, weigh) or words
        except Exception as error:  # noqa: BLE001 - as for the rules
            self._log.error("mending a final failed", error=place_of(error), way=way_to(error))
            return words


def _problem(feature: Feature, utterance: Utterance) -> Problem:
    outcome = "its text is withheld" if feature is Feature.PII_REDACTION else "its text is left as it was heard"
    return Problem(code=AddonError.code, message=f"{feature} failed on utterance {utterance.id}: {outcome}")


def _kept(heard: Utterance, ruled: Utterance) -> Utterance:
    """Give a rewritten utterance under its own name: id, channel and speakers are the session's."""
    if any(word.speaker is not None for word in heard.words):
        words = (
            word if word.speaker is not None else replace(word, speaker=_speaker_at(word, heard.words))
            for word in ruled.words
        )
        ruled = replace(ruled, words=tuple(words))
    return replace(ruled, id=heard.id, channel=heard.channel, speaker=heard.speaker)


def _speaker_at(word: Word, heard: Sequence[Word]) -> int | None:
    """Give who said the heard word that a word covers most of, or is nearest to."""
    return max(heard, key=lambda other: min(word.end, other.end) - max(word.start, other.start)).speaker


def _withheld(heard: Utterance) -> Final:
    word = Word(text=WITHHELD, start=heard.start, end=heard.end, confidence=0.0)
    return Final(utterance=replace(heard, words=(word,), confidence=0.0), hidden=((heard.start, heard.end),))
