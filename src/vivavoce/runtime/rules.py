"""The text rules of one session: vocabulary, then spelling, then redaction, on every text before anybody has it.

A rule that fails must not lose what was said, and must not show what was to be hidden. So where vocabulary or spelling
fails, the text goes on as it was before; where redaction fails, it is withheld: a final keeps its place and its times
with `WITHHELD` for its only word, and a partial is not shown. The client hears of each final that this happens to.
Rules are deterministic, so a final that is heard again after a crash comes out the same, failures included.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from vivavoce.errors import AddonError
from vivavoce.events import Problem
from vivavoce.model import Feature, Utterance, Word
from vivavoce.plugins import TextRule

log = structlog.get_logger()

ORDER = (Feature.CUSTOM_VOCABULARY, Feature.CUSTOM_SPELLING, Feature.PII_REDACTION)

WITHHELD = "[WITHHELD]"


class TextRules:
    """Applies a session's rules in their order; `say` hears of finals that a rule failed on."""

    def __init__(self, session_id: str, rules: Mapping[Feature, TextRule], say: Callable[[Problem], None]) -> None:
        self._rules = [(feature, rules[feature]) for feature in ORDER if feature in rules]
        self._log = log.bind(session=session_id)
        self._say = say

    def apply(self, utterance: Utterance, *, final: bool) -> Utterance:
        """Give the utterance as it is to be shown and stored; a partial without words is not to be shown."""
        for feature, rule in self._rules:
            try:
                ruled = rule.rewrite(utterance, final=final)
            except Exception as error:  # noqa: BLE001 - a rule may be anybody's, and fail in any way
                self._log.error("a text rule failed", rule=feature.value, error=place_of(error))
                if final:
                    self._say(_problem(feature, utterance))
                if feature is Feature.PII_REDACTION:
                    return _withheld(utterance, final=final)
                continue
            utterance = replace(ruled, id=utterance.id, channel=utterance.channel, speaker=utterance.speaker)
        return utterance


def place_of(error: BaseException) -> str:
    """Name an error and where it was raised, without its text, which may quote what was said."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def _problem(feature: Feature, utterance: Utterance) -> Problem:
    outcome = "its text is withheld" if feature is Feature.PII_REDACTION else "its text is left as it was heard"
    return Problem(code=AddonError.code, message=f"{feature} failed on utterance {utterance.id}: {outcome}")


def _withheld(utterance: Utterance, *, final: bool) -> Utterance:
    word = Word(text=WITHHELD, start=utterance.start, end=utterance.end, confidence=0.0)
    return replace(utterance, words=(word,) if final else (), confidence=0.0)
