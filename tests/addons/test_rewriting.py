"""Phrases in words, and other words in their place: whatever the words are, times and what is around them stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utterance_laws import TEXTS, check_words, utterance, utterances
from vivavoce.addons.rewriting import Phrases, Replacement, apply, bare
from vivavoce.addons.spelling import Spelling
from vivavoce.model import Word


def table(**phrases: str) -> Phrases:
    """Give phrases, blanks written as underscores."""
    made = Phrases()
    for phrase, text in phrases.items():
        made.add(phrase.replace("_", " "), text)
    return made


def test_the_longest_phrase_wins_and_none_overlap():
    """From the left, each word is part of one place at most."""
    phrases = table(a="1", a_b="2", b_c="3")
    assert phrases.find("a b c a".split()) == [  # noqa: SIM905 - a line to read
        Replacement(first=0, stop=2, text="2"),
        Replacement(first=3, stop=4, text="1"),
    ]


def test_marks_at_the_ends_stay_and_those_within_must_match():
    """Quotes, brackets, commas and full stops are kept around a phrase; a comma inside it is another phrase."""
    phrases = table(visa_card="X")
    assert phrases.find(["(“Visa", "card”),"]) == [Replacement(first=0, stop=2, text="X", lead="(“", trail="”),")]
    assert phrases.find(["visa,", "card"]) == []


def test_a_phrase_keeps_its_own_marks():
    """`c++` is not `c`, and its pluses are not punctuation to be kept twice."""
    phrases = Phrases()
    for phrase, text in {"c": "sea", "c++": "C plus plus", ".net": "dot net"}.items():
        phrases.add(phrase, text)
    assert [place.written for place in phrases.find(["c++,", "C.", ".NET?"])] == [
        ["C", "plus", "plus,"],
        ["sea."],
        ["dot", "net?"],
    ]


def test_joined_phrases_are_found_in_any_number_of_words():
    """With an empty joint, blanks do not count."""
    phrases = Phrases(joint="")
    phrases.add("livekit", "LiveKit")
    assert phrases.find(["Live", "Kit."]) == [Replacement(first=0, stop=2, text="LiveKit", trail=".")]
    assert phrases.find(list("alivekit")) == [Replacement(first=1, stop=8, text="LiveKit")]
    assert phrases.find(["live", "ki"]) == phrases.find(["live", "kits"]) == []


def test_as_many_words_as_before_keep_their_own_times():
    """Times and confidences go over one by one."""
    after = apply(utterance(["a", "b"]), [Replacement(first=0, stop=2, text="c d", lead="(", trail=")")])
    assert after.words == (
        Word(text="(c", start=0.0, end=0.5, confidence=0.5),
        Word(text="d)", start=0.5, end=1.0, confidence=0.51),
    )


def test_joined_words_span_their_time_with_the_mean_confidence():
    """Two words become one: from the start of the first to the end of the last."""
    after = apply(utterance(["say", "live", "kit", "now"]), [Replacement(first=1, stop=3, text="LiveKit")])
    assert [word.text for word in after.words] == ["say", "LiveKit", "now"]
    assert (after.words[1].start, after.words[1].end) == (0.5, 1.5)
    assert after.words[1].confidence == pytest.approx(0.515)


def test_a_split_word_shares_its_time_by_letters():
    """One word becomes several, which touch; each is as sure as the one was."""
    after = apply(utterance(["hubspot"]), [Replacement(first=0, stop=1, text="Hub Spots")])
    assert [word.text for word in after.words] == ["Hub", "Spots"]
    assert after.words[0].end == after.words[1].start == pytest.approx(0.2)
    assert (after.words[0].start, after.words[1].end) == (0.0, 0.5)
    assert {word.confidence for word in after.words} == {0.5}


@given(TEXTS)
def test_a_word_is_put_together_from_its_parts(text):
    """Taking the marks off loses nothing."""
    assert "".join(bare(text)) == text


@given(utterances(), st.data())
def test_times_never_go_back_whatever_is_written(before, data):
    """Any words in place of any others: in order, within the time of the old ones, the rest the same objects."""
    edges = sorted(data.draw(st.sets(st.integers(0, len(before.words)), max_size=6)))
    texts = data.draw(st.lists(st.lists(TEXTS, min_size=1, max_size=4), min_size=len(edges), max_size=len(edges)))
    places = [
        Replacement(first=first, stop=stop, text=" ".join(text))
        for first, stop, text in list(zip(edges, edges[1:], texts, strict=False))[::2]
    ]
    after = apply(before, places)
    check_words(before, after)
    written = {at for place in places for at in range(place.first, place.stop)}
    kept = [id(word) for n, word in enumerate(before.words) if n not in written]
    assert [id(word) for word in after.words if id(word) in kept] == kept


@pytest.mark.parametrize(("variant", "becomes"), [("john", "Jon"), ("john smith", "Smith"), ("john", "Jon F.")])
def test_words_keep_their_speaker(variant: str, becomes: str) -> None:
    """However many words come of however many."""
    said = utterance(["I", "am", "john", "smith"])
    said = replace(said, speaker=1, words=tuple(replace(word, speaker=1) for word in said.words))
    written = Spelling({becomes: [variant]}).rewrite(said, final=True)
    assert written.text != said.text
    assert {word.speaker for word in written.words} == {written.speaker} == {1}
