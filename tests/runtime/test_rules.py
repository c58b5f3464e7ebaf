"""Text rules: their order, and what becomes of a text when one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from vivavoce.events import Problem
from vivavoce.model import Feature, Utterance, Word
from vivavoce.runtime.rules import WITHHELD, TextRules

SECRET = "swordfish"


class Rule:
    """Rewrites the words by a function."""

    def __init__(self, change: Callable[[list[str]], list[str]]) -> None:
        self.change = change

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
        texts = self.change([word.text for word in utterance.words])
        words = tuple(Word(text=text, start=1.0, end=2.0, confidence=0.5) for text in texts)
        return replace(utterance, words=words)


class Broken:
    """Fails, quoting what was said."""

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
        raise KeyError(utterance.text)


def appending(text: str) -> Rule:
    return Rule(lambda texts: [*texts, text])


def said(text: str) -> Utterance:
    words = tuple(Word(text=word, start=1.0, end=2.0, confidence=0.5) for word in text.split())
    return Utterance(
        id="00_00001000", channel=0, start=1.0, end=2.0, confidence=0.5, language="en", words=words, speaker=3
    )


@pytest.fixture
def problems() -> list[Problem]:
    return []


def test_vocabulary_comes_first_and_redaction_last(problems):
    """However they are given, rules see each other's work in the contract's order."""
    rules = {
        Feature.PII_REDACTION: appending("redacted"),
        Feature.CUSTOM_SPELLING: appending("spelled"),
        Feature.CUSTOM_VOCABULARY: appending("heard"),
    }
    assert TextRules("s", rules, problems.append).apply(said("so"), final=True).text == "so heard spelled redacted"
    assert problems == []


def test_a_rule_cannot_rename_what_it_rewrites(problems):
    """Id, channel and speaker are the session's own."""

    class Renaming(Rule):
        def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
            return replace(super().rewrite(utterance, final=final), id="", channel=7, speaker=None)

    ruled = TextRules("s", {Feature.CUSTOM_SPELLING: Renaming(lambda _: ["x"])}, problems.append).apply(
        said("a"), final=True
    )
    assert (ruled.id, ruled.channel, ruled.speaker, ruled.text) == ("00_00001000", 0, 3, "x")


@pytest.mark.parametrize("final", [True, False])
def test_a_text_survives_a_broken_vocabulary(problems, final):
    """The other rules still work, and the client hears of a final, in words that quote nothing."""
    rules = {Feature.CUSTOM_VOCABULARY: Broken(), Feature.CUSTOM_SPELLING: appending("spelled")}
    ruled = TextRules("s", rules, problems.append).apply(said(SECRET), final=final)
    assert ruled.text == f"{SECRET} spelled"
    assert [problem.code for problem in problems] == ["addon_error"] * final
    assert all(SECRET not in problem.message for problem in problems)


def test_a_final_that_cannot_be_redacted_keeps_its_place_and_loses_its_text(problems):
    """What was to be hidden does not leave because the hiding failed; times, id and speaker do."""
    ruled = TextRules("s", {Feature.PII_REDACTION: Broken()}, problems.append).apply(said(SECRET), final=True)
    assert ruled.text == WITHHELD
    assert (ruled.id, ruled.start, ruled.end, ruled.speaker) == ("00_00001000", 1.0, 2.0, 3)
    assert [(word.start, word.end) for word in ruled.words] == [(1.0, 2.0)]
    (problem,) = problems
    assert "withheld" in problem.message
    assert SECRET not in problem.message


def test_a_partial_that_cannot_be_redacted_is_not_shown(problems):
    """It has no words left, and nobody is told: the next one may do."""
    ruled = TextRules("s", {Feature.PII_REDACTION: Broken()}, problems.append).apply(said(SECRET), final=False)
    assert ruled.words == ()
    assert problems == []


def test_logs_of_failures_quote_nothing(problems, capsys):
    """An error's text may be what was said."""
    TextRules("s", {Feature.PII_REDACTION: Broken()}, problems.append).apply(said(SECRET), final=True)
    logged = capsys.readouterr()
    assert "text rule failed" in logged.out + logged.err
    assert SECRET not in logged.out + logged.err
