"""Where sentences end in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoken import said, texts
from vivavoce.addons.sentences import sentences


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("Ask Mr. Jones. He knows.", ["Ask Mr. Jones.", "He knows."]),
        ("It was J. Smith who called.", ["It was J. Smith who called."]),
        ("It costs approx. five euros.", ["It costs approx. five euros."]),
        ('She said "Stop." Then she left.', ['She said "Stop."', "Then she left."]),
        ("No. I did not", ["No.", "I did not"]),
        ("no marks at all", ["no marks at all"]),
        ("你好。 再见。", ["你好。", "再见。"]),
        ("你好。再见！”他说。 走", ["你好。", "再见！”他说。", "走"]),  # noqa: RUF001
        ("", []),
    ],
)
def test_sentences_end_at_their_marks(text, wanted):
    """And not at those of abbreviations and initials."""
    assert [" ".join(texts(sentence)) for sentence in sentences(said(text).words)] == wanted


def test_a_word_of_two_sentences_shares_its_time():
    """Its parts are as sure and as loud as it was, and touch."""
    (one,), (other,) = sentences(said("你好。再见。", 1, 2).words)
    assert (one.start, one.end, other.start, other.end) == (1, 1.5, 1.5, 2)
    assert one.confidence == other.confidence == 0.9


@given(st.lists(st.text(alphabet='aB.?!"…', min_size=1, max_size=4)))
def test_every_word_is_in_one_sentence(words):
    """Nothing is lost, doubled or moved."""
    utterance = said(" ".join(words))
    found = sentences(utterance.words)
    assert [word for sentence in found for word in sentence] == list(utterance.words)
    assert all(found)
