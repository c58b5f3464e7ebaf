"""Named entities: the table of sentences that they are measured on, and what holds for any words."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entity_table import Row, sentences, table, utterance
from vivavoce.addons import spoken
from vivavoce.addons.entities import KINDS, RULE_KINDS, NamedEntities, find
from vivavoce.addons.spoken import NUMBER_LANGUAGES
from vivavoce.errors import AddonError, SetupError
from vivavoce.model import Entity, Word
from vivavoce.plugins import AddonSettings

ACCOUNT = "nine n w b k six oh one six one three three one nine two six eight one nine"
DOCUMENTED = Path(__file__).parent.parent.parent / "docs" / "how-to" / "entities.md"


def found(text: str, language: str = "en", kinds: tuple[str, ...] = KINDS) -> list[tuple[str, str]]:
    """Give the kinds and texts of a sentence's entities."""
    return [(entity.kind, entity.text) for entity in find(utterance(text, language), kinds)]


def measured(part: str) -> tuple[int, float, float]:
    """Give the number of sentences of a part of the table, and precision and recall on them by exact words and kind."""
    counts: Counter[str] = Counter()
    for line in table():
        if line.part == part:
            answer = {(entity.kind, entity.first, entity.stop) for entity in find(utterance(line.text, line.language))}
            counts["lines"] += 1
            counts["right"] += len(answer & line.entities)
            counts["answered"] += len(answer)
            counts["wanted"] += len(line.entities)
    return counts["lines"], counts["right"] / counts["answered"], counts["right"] / counts["wanted"]


@pytest.mark.parametrize("part", ["tuned", "unseen"])
def test_precision_and_recall_are_those_of_the_page(part: str) -> None:
    """The page says how good the rules are; a change that moves the figures has to say so there."""
    lines, precision, recall = measured(part)
    assert f"| {part} | {lines} | {precision:.3f} | {recall:.3f} |" in DOCUMENTED.read_text(encoding="utf-8")


def test_the_table_has_every_kind_and_sentences_without_any() -> None:
    """The figures rest on all kinds that rules find, in many sentences, a fifth of them without entities."""
    kinds = {kind for line in table() for kind, *_ in line.entities}
    assert kinds == set(RULE_KINDS)
    assert len(table()) >= 150
    assert sum(not line.entities for line in table()) >= len(table()) / 5


@pytest.mark.parametrize("line", table(), ids=lambda line: line.text)
def test_entities_stand_in_the_words_they_name(line: Row) -> None:
    """Text, times and indexes of an entity are those of its words."""
    said = utterance(line.text, line.language)
    entities = find(said)
    check(said.text, entities, len(said.words))
    for entity in entities:
        words = said.words[entity.first : entity.stop]
        assert (entity.start, entity.end) == (words[0].start, words[-1].end)
        assert entity.text in " ".join(word.text for word in words)
        assert entity.text.strip(" ,;:?!\"'") == entity.text


def check(text: str, entities: tuple[Entity, ...], words: int) -> None:
    """Check what holds for the entities of any utterance."""
    at = 0
    for entity in entities:
        assert entity.kind in KINDS
        assert at <= entity.first < entity.stop <= words
        assert entity.text
        assert entity.text in text
        at = entity.stop


@given(words=sentences, language=st.sampled_from([*sorted(NUMBER_LANGUAGES), "pl", "zh", "wo", "", "en-GB", "xx_yy"]))
@example(words=["double"], language="en")
@example(words=["oh", "oh"], language="en")
@example(words=["at", "."], language="en")
@example(words=["9" * 300], language="en")
@example(words=["²³", "٣"], language="en")
def test_any_words_give_entities_within_them(words: list[str], language: str) -> None:
    """Nothing an engine may write fails; entities do not overlap, come in order, and are the same every time."""
    said = replace(
        utterance("", language), words=tuple(Word(text=word, start=0.0, end=0.0, confidence=1.0) for word in words)
    )
    entities = find(said)
    check(said.text, entities, len(said.words))
    assert find(said) == entities


@given(words=sentences, kinds=st.sets(st.sampled_from(RULE_KINDS), min_size=1))
def test_only_chosen_kinds_are_given(words: list[str], kinds: set[str]) -> None:
    """What was not asked for neither appears nor hides what was."""
    assert {entity.kind for entity in find(utterance(" ".join(words)), tuple(kinds))} <= kinds


def test_a_kind_that_is_not_wanted_hides_none_that_is() -> None:
    """A date has an ordinal in it; whoever asks for ordinals gets it."""
    assert found("the fifth of May") == [("DATE", "fifth of May")]
    assert found("the fifth of May", kinds=("ORDINAL",)) == [("ORDINAL", "fifth")]


def test_national_numbers_are_those_of_the_countries_given() -> None:
    """A national number means something only in its country."""
    said = utterance("it is zero nine one two three four five six seven eight")
    assert [entity.kind for entity in find(said, regions=("SE",))] == ["PHONE_NUMBER"]
    assert [entity.kind for entity in find(said, regions=("US",))] == ["NUMBER"]


def test_the_add_on_looks_at_one_utterance_at_a_time() -> None:
    """It has no options, and what was said before changes nothing."""
    said = utterance("write to john at example dot com")
    looker = NamedEntities(AddonSettings()).open({}, ["en"]).by_target[""]
    assert looker.look(said, ()) == looker.look(said, (said,)) == find(said)


def test_a_panic_in_the_numbers_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is written in Rust; what it panics about is here a token without its methods."""
    monkeypatch.setattr(spoken, "_Token", lambda *_: object())
    with pytest.raises(AddonError):
        find(utterance("twenty euros"))


def test_names_by_a_language_model_need_one() -> None:
    """The settings are wrong together, which is told at the start."""
    with pytest.raises(SetupError, match="--llm-url"):
        NamedEntities(AddonSettings(names="llm"))


@pytest.mark.parametrize(
    ("kind", "spoken", "wrong"),
    [
        ("CREDIT_CARD", "four" + 15 * " one", "four" + 14 * " one" + " two"),
        ("IBAN", f"g b two {ACCOUNT}", f"g b five {ACCOUNT}"),
    ],
)
def test_check_digits_decide_what_a_number_is(kind: str, spoken: str, wrong: str) -> None:
    """A card or an account with a wrong digit is neither."""
    assert [name for name, _ in found(spoken)] == [kind]
    assert kind not in {name for name, _ in found(wrong)}


def test_a_month_without_its_capital_is_a_verb_where_the_engine_writes_capitals() -> None:
    """`may` beside a number is no date in text with capitals."""
    assert found("May 5 then.") == [("DATE", "May 5")]
    assert found("Then may 5 come.") == []


def test_a_day_that_no_month_has_is_no_date() -> None:
    """The thirtieth of February does not exist."""
    assert ("DATE", "29th of February") in found("on the 29th of February")
    assert found("on 2024-02-29") == [("DATE", "2024-02-29")]
    assert found("on 2026-02-30") == []
    assert all("30" not in text for kind, text in found("on the 30th of February") if kind == "DATE")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("a charge on account 12345678 of 200 dollars", "en", ["200 dollars"]),
        ("it is 20 of 30 dollars", "en", ["30 dollars"]),
        ("20 of 30 dollar", "nl", ["20 of 30 dollar"]),
        ("entre 2000 et 3000 euros", "fr", ["2000 et 3000 euros"]),
        ("10000 to 20000 dollars", "en", ["10000 to 20000 dollars"]),
        ("98765432 to 20000 dollars", "en", ["20000 dollars"]),
    ],
)
def test_an_amount_has_two_ends_only_with_a_word_between_that_says_so(
    text: str, language: str, expected: list[str]
) -> None:
    """A word of the language, and a first end that may be a price."""
    assert [words for _, words in found(text, language, ("MONEY",))] == expected
