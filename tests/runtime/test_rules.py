"""Text rules: their order, and what becomes of a text when one fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from vivavoce.events import Problem
from vivavoce.model import Feature, Utterance, Word
from vivavoce.runtime.opened import Opened
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


def rules_of(
    rules: Mapping[Feature, Any],
    say: Callable[[Problem], None],
    hides: Callable[[Utterance], Sequence[tuple[float, float]]] | None = None,
) -> TextRules:
    return TextRules("s", Opened(rules=rules, hides=hides), say)


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
    assert rules_of(rules, problems.append).final(said("so")).utterance.text == "so heard spelled redacted"
    assert problems == []


def test_a_rule_cannot_rename_what_it_rewrites(problems):
    """Id, channel and speaker are the session's own."""

    class Renaming(Rule):
        def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
            return replace(super().rewrite(utterance, final=final), id="", channel=7, speaker=None)

    ruled = rules_of({Feature.CUSTOM_SPELLING: Renaming(lambda _: ["x"])}, problems.append).final(said("a")).utterance
    assert (ruled.id, ruled.channel, ruled.speaker, ruled.text) == ("00_00001000", 0, 3, "x")


def test_new_words_have_the_speakers_of_those_they_stand_for(problems):
    """A rule need not know of speakers: a word that it made is said by whoever said what is under it."""

    class Joining(Rule):
        def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
            first, second, third = utterance.words
            joined = Word(text="ab", start=first.start, end=second.end, confidence=0.5)
            between = Word(text="c", start=third.start + 0.1, end=third.start + 0.1, confidence=0.5)
            return replace(utterance, words=(joined, between))

    words = tuple(
        Word(text=text, start=start, end=end, confidence=0.5, speaker=speaker)
        for text, start, end, speaker in (("a", 0.0, 1.0, 1), ("b", 1.0, 1.2, 0), ("c", 2.0, 3.0, 0))
    )
    heard = replace(said("x"), words=words)
    ruled = rules_of({Feature.CUSTOM_SPELLING: Joining(list)}, problems.append).final(heard).utterance
    assert [word.speaker for word in ruled.words] == [1, 0]


@pytest.mark.parametrize("final", [True, False])
def test_a_text_survives_a_broken_vocabulary(problems, final):
    """The other rules still work, and the client hears of a final, in words that quote nothing."""
    rules = {Feature.CUSTOM_VOCABULARY: Broken(), Feature.CUSTOM_SPELLING: appending("spelled")}
    made = rules_of(rules, problems.append)
    ruled = made.final(said(SECRET)) if final else made.partial(said(SECRET))
    assert ruled is not None
    assert ruled.utterance.text == f"{SECRET} spelled"
    assert [problem.code for problem in problems] == ["addon_error"] * final
    assert all(SECRET not in problem.message for problem in problems)


def test_a_final_that_cannot_be_redacted_keeps_its_place_and_loses_its_text(problems):
    """What was to be hidden does not leave because the hiding failed; times, id and speaker do."""
    final = rules_of({Feature.PII_REDACTION: Broken()}, problems.append).final(said(SECRET))
    ruled = final.utterance
    assert ruled.text == WITHHELD
    assert final.hidden == ((1.0, 2.0),)
    assert (ruled.id, ruled.start, ruled.end, ruled.speaker) == ("00_00001000", 1.0, 2.0, 3)
    assert [(word.start, word.end) for word in ruled.words] == [(1.0, 2.0)]
    (problem,) = problems
    assert "withheld" in problem.message
    assert SECRET not in problem.message


def test_a_partial_that_cannot_be_redacted_is_not_shown(problems):
    """Nobody is told either: the next one may do."""
    assert rules_of({Feature.PII_REDACTION: Broken()}, problems.append).partial(said(SECRET)) is None
    assert problems == []


def test_a_partial_without_words_left_is_not_shown(problems):
    """A rule may withhold all of it."""
    assert rules_of({Feature.PII_REDACTION: Rule(lambda _: [])}, problems.append).partial(said("4111")) is None


def test_what_is_hidden_is_found_in_the_text_that_redaction_is_given(problems):
    """The times to silence come from the final as vocabulary and spelling left it."""
    seen = []

    def hides(utterance: Utterance) -> list[tuple[float, float]]:
        seen.append(utterance.text)
        return [(1.25, 1.5)]

    rules = {Feature.CUSTOM_SPELLING: appending("spelled"), Feature.PII_REDACTION: Rule(lambda _: ["[X]"])}
    final = rules_of(rules, problems.append, hides).final(said("so"))
    assert (seen, final.hidden, final.utterance.text) == (["so spelled"], ((1.25, 1.5),), "[X]")


def test_audio_that_cannot_be_searched_is_hidden_whole(problems):
    """Where the times to silence cannot be told, text and audio of the whole final are withheld."""

    def hides(utterance: Utterance) -> list[tuple[float, float]]:
        raise ValueError(utterance.text)

    final = rules_of({Feature.PII_REDACTION: appending("x")}, problems.append, hides).final(said(SECRET))
    assert (final.utterance.text, final.hidden) == (WITHHELD, ((1.0, 2.0),))


def test_logs_of_failures_quote_nothing(problems, capsys):
    """An error's text may be what was said."""
    rules_of({Feature.PII_REDACTION: Broken()}, problems.append).final(said(SECRET))
    logged = capsys.readouterr()
    assert "text rule failed" in logged.out + logged.err
    assert SECRET not in logged.out + logged.err


def test_a_final_that_cannot_be_mended_keeps_its_words(problems):
    """A failure costs what mending would have gained, and nothing of what was said; the text is not logged."""

    def broken(words, language, weigh):
        raise KeyError(words[0].text)

    rules = TextRules("s", Opened(mend=broken), problems.append)
    words = said(SECRET).words
    with capture_logs() as logs:
        assert rules.mend is not None
        assert rules.mend(words, "en", lambda texts: [0.0] * len(texts)) == words
    assert [line["event"] for line in logs] == ["mending a final failed"]
    assert SECRET not in str(logs)
    assert rules_of({}, problems.append).mend is None
