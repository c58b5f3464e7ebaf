"""Custom spelling: what is written for what, and what stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utterance_laws import TEXTS, check_words, utterance, utterances
from vivavoce.addons.spelling import Spelling, SpellingAddon
from vivavoce.plugins import AddonSettings


def spelled(dictionary: dict[str, list[str]], text: str) -> str:
    """Give a text under a dictionary."""
    return Spelling(dictionary).rewrite(utterance(text.split()), final=True).text


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("i called GLADIA.", "i called Gladia."),
        ("(glad ya), they said", "(Gladia), they said"),
        ("gladly gladiator", "gladly gladiator"),
        ("data-dog data dog", "data-dog Datadog"),
        ("c plus plus, c plus", "C++, c plus"),
        ("the straße", "the Street"),
        ("THE STRASSE!", "THE Street!"),
    ],
)
def test_variants_are_found_in_any_case_as_whole_words(text, becomes):
    """Parts of words are none of the rule's business, and marks around a variant stay."""
    dictionary = {
        "Gladia": ["gladia", "glad ya"],
        "Datadog": ["data dog"],
        "C++": ["c plus plus"],
        "Street": ["straße"],
    }
    assert spelled(dictionary, text) == becomes


@pytest.mark.parametrize(
    ("variant", "text", "becomes"),
    [
        ("背景", "我 在 背 景 。", "我 在 北京 。"),
        ("背景", "在 背景, 背 景。", "在 北京, 北京。"),
        ("背 景", "背景 背 景", "北京 北京"),
        ("背景", "背 心 景", "背 心 景"),
        ("X 光", "x 光 X光", "北京 北京"),
        ("กรุง เทพ", "กรุงเทพ", "北京"),
        ("glad ya", "gladya", "gladya"),
    ],
)
def test_blanks_do_not_count_in_scripts_without(variant, text, becomes):
    """Engines write a word for each character there, or any others."""
    assert spelled({"北京": [variant]}, text) == becomes


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("ibm. Ask ibm, ibm? (ibm.)", "I.B.M. Ask I.B.M., I.B.M.? (I.B.M.)"),
        ("yahoo! yahoo. yahoo? yahoo!?", "Yahoo! Yahoo! Yahoo!? Yahoo!?"),
        ("gladya.", "Gladia."),
    ],
)
def test_a_spelling_and_a_sentence_do_not_end_twice(text, becomes):
    """A spelling's own final mark is enough."""
    assert spelled({"I.B.M.": ["ibm"], "Yahoo!": ["yahoo"], "Gladia": ["gladya"]}, text) == becomes


@pytest.mark.parametrize("variant", ["o'brien", "o’brien", "OʼBrien"])  # noqa: RUF001
def test_apostrophes_are_one_letter(variant):
    """Engines and keyboards write one or the other."""
    assert spelled({"X": [variant]}, "O'Brien O’Brien's oʼbrien") == "X O’Brien's X"  # noqa: RUF001


def test_the_longest_variant_wins():
    """`new york city` is not `new york` and a city."""
    assert spelled({"NY": ["new york"], "NYC": ["new york city"]}, "new york city in new york") == "NYC in NY"


def test_what_was_written_is_not_looked_at_again():
    """Rules that would feed each other for ever swap words once."""
    assert spelled({"one": ["two"], "two two": ["one"]}, "one two") == "two two one"


def test_the_first_of_two_rules_for_a_variant_counts():
    """A dictionary that contradicts itself still means one thing."""
    assert spelled({"Gray": ["grey"], "Grau": ["GREY"]}, "grey") == "Gray"


@pytest.mark.parametrize("dictionary", [{}, {"x": []}, {"x": [" "]}, {" ": ["the"]}, {"": ["the"]}])
def test_rules_without_words_change_nothing(dictionary):
    """Nothing is not written for anything, nor anything for nothing."""
    before = utterance("the end".split())  # noqa: SIM905 - a line to read
    assert Spelling(dictionary).rewrite(before, final=True) is before


def test_options_are_read_as_the_contract_writes_them():
    """`spelling_dictionary` holds the spellings with their variants."""
    rule = Spelling.from_options({"spelling_dictionary": {"Sean": ["shawn"]}})
    assert rule.rewrite(utterance(["Shawn?"]), final=False).text == "Sean?"


DICTIONARIES = st.dictionaries(TEXTS, st.lists(st.lists(TEXTS, min_size=1, max_size=3).map(" ".join), max_size=3))


@given(st.data())
def test_any_dictionary_keeps_order_times_and_the_words_it_does_not_name(data):
    """Whatever the rules: times never go back, partials and finals read alike, other words are the same objects."""
    dictionary = data.draw(DICTIONARIES)
    variants = [word for listed in dictionary.values() for variant in listed for word in variant.split()]
    before = data.draw(utterances(st.sampled_from(variants) | TEXTS if variants else TEXTS))
    rule = Spelling(dictionary)
    after = rule.rewrite(before, final=True)
    check_words(before, after)
    assert rule.rewrite(before, final=False) == after
    if not any(variants):
        assert after is before


@given(utterances())
def test_a_rule_applies_wherever_its_variant_stands_alone(before):
    """Every word that is the variant, and no other word, is replaced."""
    after = Spelling({"Gladia": ["zzz"]}).rewrite(before, final=True)
    assert after is before
    texts = [text for word in before.words for text in (word.text, "Zzz")]
    after = Spelling({"Gladia": ["zzz"]}).rewrite(utterance(texts), final=True)
    assert [word.text for word in after.words] == [text for word in before.words for text in (word.text, "Gladia")]


def test_the_add_on_reads_the_contracts_options() -> None:
    """The rule of a session is made of its `spelling_dictionary`."""
    parts = SpellingAddon(AddonSettings()).open({"spelling_dictionary": {"Femke": ["femka"]}}, [])
    assert parts.rule is not None
    assert parts.rule.rewrite(utterance(["ask", "Femka."]), final=True).text == "ask Femke."
