"""Texts are compared as they sound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.bench.words import errors, kept, pairs, words

TEXT = st.lists(st.sampled_from("abcd"), max_size=8)


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ("It was, it WAS!", ["it", "was", "it", "was"]),
        ("in 1859", ["in", "one", "thousand", "eight", "hundred", "and", "fifty", "nine"]),
        ("Mr. Dashwood's ill-disposed", ["mister", "dashwood's", "ill", "disposed"]),
        (" \N{EM DASH} ", []),
    ],
)
def test_a_text_becomes_the_words_one_hears(text, sounds):
    """Case, punctuation and digits do not matter."""
    assert words(text) == sounds


@given(TEXT, TEXT)
def test_pairs_account_for_every_error(said, heard):
    """Words in no pair were left out or invented; wrong pairs were misheard; together these are the errors."""
    found = list(pairs(said, heard))
    assert found == sorted(found)
    assert len({place for place, _ in found}) == len({place for _, place in found}) == len(found)
    misheard = sum(said[one] != heard[other] for one, other in found)
    assert errors(said, heard) == misheard + len(said) - len(found) + len(heard) - len(found)


@given(TEXT, TEXT)
def test_kept_words_stand_in_both(before, after):
    """No more words are kept than either text has, and all of them where one only adds."""
    assert kept(before, after) <= min(len(before), len(after))
    assert kept(before, before + after) == kept(before, after + before) == len(before)
