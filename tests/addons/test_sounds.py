"""How far words are from each other by ear."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.addons.sounds import distance, extended, joined, sounds, worth

SOUNDS = st.text(
    st.sampled_from(sounds("the quick brown fox jumps over a lazy dog, judging measure", 1)[0]), max_size=12
)


def apart(one: str, other: str) -> float:
    """Give the distance of two texts as they are likeliest said."""
    return distance(sounds(one, 1)[0], sounds(other, 1)[0], math.inf)


@pytest.mark.parametrize(
    ("heard", "nearer", "farther"),
    [
        ("bat", "pat", "cat"),
        ("thin", "fin", "gin"),
        ("bit", "bet", "bought"),
        ("nine", "mine", "fine"),
        ("hotel", "otel", "motel"),
        ("center", "senter", "sender"),
    ],
)
def test_like_sounds_are_nearer_than_unlike_ones(heard, nearer, farther):
    """Voice, place and openness count by degrees."""
    assert apart(heard, nearer) < apart(heard, farther)


@pytest.mark.parametrize(
    ("one", "other"), [("see", "sea"), ("Leicester", "lester"), ("two", "too"), ("25", "twenty five")]
)
def test_homophones_sound_the_same(one, other):
    """What sounds the same is not apart, however it is written."""
    assert apart(one, other) == 0


def test_a_text_has_all_its_ways_to_be_said_up_to_a_bound():
    """The likeliest first; nothing where nothing is said."""
    both = sounds("either tomato", 10)
    assert len(both) == len(set(both)) == 4
    assert sounds("either tomato", 1) == both[:1]
    assert sounds("—", 10) == []


@given(SOUNDS, SOUNDS, SOUNDS)
def test_no_detour_by_leaving_out_is_shorter(one, other, more):
    """Zero for the same, never more than to leave out one and put in the other."""
    assert distance(one, one, 0) == 0
    there = distance(one, other, math.inf)
    assert there <= distance(one, "", math.inf) + distance("", other, math.inf) + 1e-9
    assert distance(one + more, other + more, math.inf) <= there + 1e-9


@given(SOUNDS, SOUNDS, st.floats(0, 12))
def test_a_limit_gives_the_distance_or_infinity(one, other, limit):
    """A search that is given up early never differs from a whole one."""
    whole = distance(one, other, math.inf)
    assert distance(one, other, limit) == (whole if whole <= limit else math.inf)


def test_long_and_rare_sounds_are_worth_more():
    """Nothing is worth nothing; what is heard everywhere is worth little."""
    values = [worth("".join(sounds(text, 1))) for text in ("—", "the", "joy", "Zhivago", "Giovanni Zhivago")]
    assert values == sorted(values)
    assert values[0] == 0


@given(st.lists(SOUNDS))
def test_joined_sounds_have_no_equal_neighbours(parts):
    """One sound is kept of a row of the same, across words too."""
    whole = joined(parts)
    assert all(one != other for one, other in itertools.pairwise(whole))
    assert joined([whole]) == whole


@given(st.lists(st.text("ab的一", max_size=4), max_size=6))
def test_a_sound_is_the_same_however_it_is_put_together(parts):
    """Word by word or at once."""
    sound = ""
    for part in parts:
        sound = extended(sound, joined([part]))
    assert sound == joined(parts)
