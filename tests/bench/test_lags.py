"""Lags are arithmetic on moments and words: each case can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.bench.conversation import Conversation, Placed
from vivavoce.bench.corpus import Spoken
from vivavoce.bench.lags import COVERAGE, FINAL, WORD, Heard, Pace, Shown, final_lags, measure, rewritten, trend

TEXT = st.lists(st.sampled_from(["so", "it", "was", "said"]), max_size=6).map(tuple)


def talk(*words: tuple[str, float], start: float = 1.0, speech_end: float = 3.0, stop: float = 3.2) -> Conversation:
    """Give a conversation of one turn with these words and their ends."""
    said = tuple(Spoken(text=text, end=end) for text, end in words)
    turn = Placed(start=start, stop=stop, speech_end=speech_end, said=said)
    return Conversation(samples=np.zeros(16_000, np.float32), turns=(turn,))


def shown(at: float, text: str, *, end: float = 0.0, final: bool = False, start: float = 1.2, name: str = "a") -> Shown:
    """Give a transcript that came `at`."""
    return Shown(at=at, utterance=name, words=tuple(text.split()), start=start, end=end, final=final)


def heard(*states: Shown, said: Conversation, chunk_s: float = 0.1, start: float = 100.0) -> Heard:
    """Give a session that began at 100 on its clock."""
    return Heard(played=said, pace=Pace(start=start, chunk_s=chunk_s), shown=list(states))


@pytest.mark.parametrize(
    ("audio_s", "at"), [(0.0, 50.0), (0.05, 50.0), (0.1, 50.0), (0.11, 50.1), (0.3, 50.2), (2.0, 51.9), (2.05, 52.0)]
)
def test_audio_is_sent_with_the_chunk_that_holds_its_last_byte(audio_s, at):
    """The last byte before `audio_s` is in chunk ceil(audio_s / chunk) - 1, which is due at its number of chunks."""
    assert Pace(start=50.0, chunk_s=0.1).sent_at(audio_s) == pytest.approx(at)


@given(st.floats(0, 1e4), st.sampled_from([0.02, 0.1]), st.floats(0, 1e6))
def test_no_audio_is_sent_long_before_it_is_spoken(audio_s, chunk_s, start):
    """A moment is sent at most one chunk before it would be heard, and never after that, so no delay adds up."""
    sent = Pace(start=start, chunk_s=chunk_s).sent_at(audio_s) - start
    assert max(audio_s - chunk_s, 0) - 1e-6 <= sent <= audio_s + 1e-6


def test_a_word_counts_from_where_it_first_stands_in_its_final_place():
    """Shown early at another place, or as another word, it has not come yet; a later rewrite does not matter."""
    said = talk(("try", 1.5), ("again", 2.0), ("now", 2.5))
    session = heard(
        shown(101.8, "again", end=1.8),
        shown(102.1, "try again", end=2.0),
        shown(102.4, "cry again", end=2.3),
        shown(103.3, "try again now", end=2.5, final=True),
        said=said,
    )
    assert measure([session]).lags[WORD] == pytest.approx([102.1 - 101.4, 102.1 - 101.9, 103.3 - 102.4])


def test_coverage_asks_how_far_was_decoded_not_what_was_understood():
    """A wrong word covers its audio too; the final covers all of its words."""
    said = talk(("try", 1.5), ("again", 2.0), ("now", 2.5))
    session = heard(
        shown(101.8, "dry", end=1.6),
        shown(102.3, "dry a gain", end=2.1),
        shown(103.3, "try again now", end=2.4, final=True),
        said=said,
    )
    assert measure([session]).lags[COVERAGE] == pytest.approx([101.8 - 101.4, 102.3 - 101.9, 103.3 - 102.4])


def test_a_final_shown_early_as_a_partial_covers_what_the_final_does():
    """What is the final to the letter was decoded from the final's clip."""
    said = talk(("try", 1.5))
    session = heard(shown(101.9, "try", end=1.4), shown(102.2, "try", end=1.4, final=True), said=said)
    assert measure([session]).lags[COVERAGE] == pytest.approx([101.9 - 101.4])


def test_a_misheard_word_has_a_lag_and_an_unheard_or_invented_one_only_counts_as_wrong():
    """Words are matched by the fewest edits."""
    said = talk(("try", 1.5), ("it", 2.0), ("now", 2.5))
    session = heard(shown(103.0, "dry it", final=True), shown(104.0, "you", final=True, start=5.0, name="b"), said=said)
    figures = measure([session])
    assert (figures.said, figures.wrong) == (3, 2)
    assert len(figures.lags[WORD]) == 3
    assert measure([heard(said=said)]).wrong == 3


def test_the_final_lag_of_a_turn_is_that_of_its_last_final_that_began_in_it():
    """Speech that is cut gives several finals; what is heard in the gap belongs to no turn."""
    said = talk(("try", 1.5), ("again", 2.9))
    session = heard(
        shown(102.0, "try", start=1.1, final=True),
        shown(103.4, "again", start=2.0, final=True, name="b"),
        shown(104.9, "you", start=4.0, final=True, name="c"),
        said=said,
    )
    assert final_lags(session) == [(pytest.approx(102.9), pytest.approx(0.5))]
    assert measure([session]).unanswered == 0
    assert measure([heard(said=said)]).unanswered == 1
    assert measure([heard(said=said)]).lags[FINAL] == []


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["a", "a b", "a b c"], 0),
        (["a", "b"], 1),
        (["a b c", "a x c d"], 1),
        (["a b c", "x a b c"], 0),
        (["a b c", "a"], 2),
        (["a b", "", "a b"], 2),
    ],
)
def test_rewrites_are_words_that_were_changed_or_taken_away(texts, count):
    """Words that are added, wherever, rewrite nothing."""
    assert rewritten([shown(float(i), text) for i, text in enumerate(texts)]) == count


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5))
def test_rewrites_of_two_utterances_add_up(one, other):
    """Which utterance's transcripts come between those of another does not matter."""
    first = [Shown(at=0.0, utterance="a", words=words, start=0.0, end=0.0, final=False) for words in one]
    second = [Shown(at=0.0, utterance="b", words=words, start=0.0, end=0.0, final=False) for words in other]
    assert rewritten([*first, *second]) == rewritten(first) + rewritten(second) == rewritten([*second, *first])


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), max_size=20), st.floats(0, 5))
def test_a_trend_is_what_the_later_half_adds(lags, more_s):
    """Adding to every lag changes nothing; adding to the later half only shows in full."""
    lags = [(float(i), lag) for i, (_, lag) in enumerate(lags)]
    half = len(lags) // 2
    later = lags[: len(lags) - half] + [(at, lag + more_s) for at, lag in lags[len(lags) - half :]]
    assert trend([(at, lag + more_s) for at, lag in lags]) == pytest.approx(trend(lags), abs=1e-6)
    if half:
        assert trend(later) == pytest.approx(trend(lags) + more_s, abs=1e-6)
