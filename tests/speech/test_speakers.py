"""Speaker numbers: who is known again, who is new, and that nothing but the finals so far decides it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.model import Diarization, Utterance, Voice, Word
from vivavoce.speech.speakers import MOST, Speakers

SIZE = 32


def voice(
    person: int, seconds: float = 3.0, start: float = 0.0, *, nearness: float = 0.95, seed: int = 0, size: int = SIZE
) -> Voice:
    """Somebody's voice from `start` on: every person has a direction, and `nearness` is the cosine with it."""
    noise = np.random.default_rng([person, seed]).standard_normal(size)
    noise[person % size] = 0.0
    vector = noise / np.linalg.norm(noise) * np.sqrt(1 - nearness**2)
    vector[person % size] = nearness
    return Voice(spans=((start, start + seconds),), alone_s=seconds, embedding=tuple(vector.tolist()))


def final(*spans: tuple[float, float], channel: int = 0) -> Utterance:
    """A final with a word in each of the spans, in seconds."""
    words = tuple(Word(text=f"w{i}", start=start, end=end, confidence=1.0) for i, (start, end) in enumerate(spans))
    return Utterance(
        id="00_00000000",
        channel=channel,
        start=words[0].start,
        end=words[-1].end,
        confidence=1.0,
        language="en",
        words=words,
    )


def numbers(speakers: Speakers, *people: Voice) -> list[int | None]:
    """Give the speaker of one final after another, of one word and one voice each."""
    return [speakers.attribute(final((0.0, 1.0)), [person], 0.0).speaker for person in people]


def test_people_are_numbered_as_they_appear_and_known_again() -> None:
    """The first is 0, the next 1; whoever comes back has the old number."""
    turns = [voice(person, seed=turn) for turn, person in enumerate([5, 5, 9, 5, 2, 9, 2])]
    assert numbers(Speakers(Diarization()), *turns) == [0, 0, 1, 0, 2, 1, 2]


def test_a_word_belongs_to_who_speaks_during_it() -> None:
    """Two people in one final: each word gets its own, one in between the nearer, the final who says most of it."""
    speakers = Speakers(Diarization())
    pair = [voice(1, 1.0, 0.0), voice(2, 2.0, 2.0)]
    said = speakers.attribute(final((10.1, 10.9), (11.1, 11.3), (11.8, 11.95), (12.0, 13.9)), pair, 10.0)
    assert [word.speaker for word in said.words] == [0, 0, 1, 1]
    assert said.speaker == 1


def test_two_new_people_in_one_final_are_numbered_in_the_order_of_their_words() -> None:
    """Though the second one, who says more, is easier to know."""
    speakers = Speakers(Diarization())
    said = speakers.attribute(final((0.1, 0.9), (1.2, 4.0)), [voice(1, 1.0, 0.0), voice(2, 3.0, 1.0)], 0.0)
    assert [word.speaker for word in said.words] == [0, 1]
    assert numbers(speakers, voice(1, seed=1), voice(2, seed=1)) == [0, 1]


def test_too_little_speech_makes_no_new_speaker() -> None:
    """A stranger's short word goes to the nearest one and leaves that one as it was."""
    speakers = Speakers(Diarization())
    assert numbers(speakers, voice(1)) == [0]
    before = speakers.save()
    assert numbers(speakers, voice(2, 0.3)) == [0]
    assert speakers.save() == before
    assert numbers(speakers, voice(2, 1.0)) == [1]


def test_little_speech_is_known_at_a_smaller_cosine() -> None:
    """What two seconds of a stranger are is half a second of an acquaintance."""
    for seconds, number in ((0.5, 0), (2.5, 1)):
        speakers = Speakers(Diarization())
        assert numbers(speakers, voice(1, nearness=1.0), voice(1, seconds, nearness=0.3)) == [0, number]


@pytest.mark.parametrize(("maximum", "expected"), [(1, 1), (2, 2), (None, MOST)])
def test_there_are_at_most_so_many(maximum: int | None, expected: int) -> None:
    """Beyond the maximum, or the server's own, everybody is somebody known."""
    speakers = Speakers(Diarization(maximum=maximum))
    people = [voice(person) for person in range(MOST + 4)]
    assert set(numbers(speakers, *people)) == set(range(expected))


def test_people_who_are_expected_are_found_more_easily() -> None:
    """A voice at the edge is a new one's while fewer are known than are said to be there."""
    edge = [voice(1, nearness=1.0), voice(1, nearness=0.4)]
    assert numbers(Speakers(Diarization()), *edge) == [0, 0]
    assert numbers(Speakers(Diarization(minimum=2)), *edge) == [0, 1]
    assert len(set(numbers(Speakers(Diarization(minimum=2, maximum=2)), *edge, voice(3), voice(4)))) == 2


def test_where_nobody_is_known_there_is_no_speaker() -> None:
    """A final whose voices are not there keeps its words as they are, and nothing is learnt."""
    speakers = Speakers(Diarization())
    assert speakers.attribute(final((0.0, 1.0)), [], 0.0) == final((0.0, 1.0))
    assert speakers.save() == []


def test_the_channel_is_the_speaker_where_that_is_asked_for() -> None:
    """Whoever is heard, and with nothing to listen for."""
    said = Speakers(Diarization(by_channel=True), index=1, channels=2).attribute(final((0.0, 1.0)), [], 0.0)
    assert (said.speaker, said.words[0].speaker) == (1, 1)


def test_channels_share_no_number() -> None:
    """The first one on each channel has the channel's, the others follow in steps of the channels."""
    for index in (0, 1):
        speakers = Speakers(Diarization(), index=index, channels=2)
        assert numbers(speakers, voice(1), voice(2), voice(3)) == [index, index + 2, index + 4]


def test_another_diarizer_s_speakers_are_not_compared() -> None:
    """After a change of the plugin the old ones keep their numbers and nobody is taken for them."""
    speakers = Speakers(Diarization())
    numbers(speakers, voice(1))
    again = Speakers(Diarization())
    again.restore(speakers.save())
    assert numbers(again, voice(1, size=2 * SIZE)) == [1]


turns = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0.25, 6.0), st.floats(0.1, 1.0), st.integers(0, 9)), min_size=1, max_size=30
)


@given(turns, st.integers(0, 30), st.sampled_from([Diarization(), Diarization(minimum=3, maximum=3)]))
def test_a_speaker_saved_at_any_final_goes_on_alike(
    said: list[tuple[int, float, float, int]], cut: int, asked: Diarization
) -> None:
    """After a crash the same voices get the same numbers, and the same state comes of it, bit for bit."""
    people = [voice(person, seconds, nearness=near, seed=seed) for person, seconds, near, seed in said]
    whole = Speakers(asked)
    expected = numbers(whole, *people)
    first, second = Speakers(asked), Speakers(asked)
    begun = numbers(first, *people[:cut])
    second.restore(first.save())
    assert begun + numbers(second, *people[cut:]) == expected
    assert second.save() == whole.save()


@given(turns)
def test_numbers_have_no_gaps(said: list[tuple[int, float, float, int]]) -> None:
    """Each new number is the next one after the highest so far."""
    people = [voice(person, seconds, nearness=near, seed=seed) for person, seconds, near, seed in said]
    given_out = [number for number in numbers(Speakers(Diarization()), *people) if number is not None]
    assert list(dict.fromkeys(given_out)) == list(range(len(set(given_out))))
