"""The diarizer on real speech: who speaks when, and who is who."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from recordings import wheel_recording
from sound import silence
from vivavoce.engines.diarization import LEAST_S, MoonshineDiarizer
from vivavoce.model import SAMPLE_RATE, Diarization, Samples, Utterance, Voice, Word
from vivavoce.speech.speakers import Speakers

TURNS = [
    ("two_cities", 4.8, 8.0),
    ("clone-test", 0.3, 2.0),
    ("two_cities", 12.0, 14.5),
    ("clone-test", 2.0, 3.8),
    ("two_cities", 20.0, 21.5),
]
"""Whose words, from where to where in seconds; two people."""


@pytest.fixture(scope="module")
def diarizer() -> MoonshineDiarizer:
    return MoonshineDiarizer()


def piece(name: str, start: float, stop: float) -> Samples:
    return wheel_recording(name)[round(start * SAMPLE_RATE) : round(stop * SAMPLE_RATE)]


def cosine(one: Voice, other: Voice) -> float:
    return float(np.dot(one.embedding, other.embedding))


def within(voice: Voice, start: float, stop: float) -> float:
    """Give for how many of those seconds somebody speaks."""
    return sum(max(min(end, stop) - max(begin, start), 0.0) for begin, end in voice.spans)


def longest(voices: tuple[Voice, ...]) -> Voice:
    return max(voices, key=lambda voice: voice.alone_s)


def test_a_person_is_nearer_to_themself_than_to_anybody(diarizer: MoonshineDiarizer) -> None:
    """Of any two turns those by one person are near, those by two are not."""
    turns = [(name, longest(diarizer.voices(piece(name, start, stop)))) for name, start, stop in TURNS]
    for (one, a), (other, b) in combinations(turns, 2):
        assert (cosine(a, b) > 0.4) == (one == other), (one, other, cosine(a, b))


def test_two_people_in_one_clip_are_told_apart(diarizer: MoonshineDiarizer) -> None:
    """Each has spans where they speak, and an embedding like that of a clip of their own."""
    first, second = piece("two_cities", 4.8, 7.8), piece("clone-test", 0.3, 3.3)
    voices = diarizer.voices(np.concatenate([first, silence(0.2), second]))
    assert len(voices) == 2
    for mine, others, voice in (((0.0, 3.0), (3.2, 6.2), voices[0]), ((3.2, 6.2), (0.0, 3.0), voices[1])):
        assert within(voice, *mine) > 2.5
        assert within(voice, *others) < 0.3
    assert cosine(voices[0], longest(diarizer.voices(first))) > 0.5
    assert cosine(voices[1], longest(diarizer.voices(second))) > 0.5


def test_a_clip_has_the_same_voices_every_time(diarizer: MoonshineDiarizer) -> None:
    """Bit for bit, whatever was asked before and in another process's place."""
    clip = piece("two_cities", 0.5, 5.0)
    before = diarizer.voices(clip)
    diarizer.voices(piece("clone-test", 0.0, 3.0))
    assert diarizer.voices(clip) == before
    assert MoonshineDiarizer().voices(clip) == before


def test_long_clips_are_heard_to_their_end(diarizer: MoonshineDiarizer) -> None:
    """In windows of ten seconds, each with the same person, whose spans never overlap and stay inside the clip."""
    voices = diarizer.voices(piece("two_cities", 1.0, 24.0))
    spans = sorted(span for voice in voices for span in voice.spans)
    assert all(start < stop <= 23.0 + 0.02 for start, stop in spans)
    assert spans[-1][1] > 20.0
    assert sum(stop - start for start, stop in spans) > 12.0
    people = [voice for voice in voices if voice.alone_s > 1.0]
    assert len(people) >= 3
    assert all(cosine(one, other) > 0.4 for one, other in combinations(people, 2))


def test_a_clip_without_a_voice_is_taken_for_one(diarizer: MoonshineDiarizer) -> None:
    """Words that the models do not hear still belong to somebody; too little sound is nobody."""
    (voice,) = diarizer.voices(silence(1.0))
    assert voice.spans[0] == (0.0, pytest.approx(1.0, abs=0.02))
    assert diarizer.voices(silence(LEAST_S / 2)) == ()
    assert diarizer.voices(silence(0.0)) == ()


def test_every_turn_of_a_conversation_gets_its_speaker(diarizer: MoonshineDiarizer) -> None:
    """Turns of one to three seconds by two readers, one final each."""
    speakers = Speakers(Diarization())
    heard = []
    for name, start, stop in TURNS:
        word = Word(text="word", start=0.0, end=stop - start, confidence=1.0)
        said = Utterance(
            id=f"00_{start}", channel=0, start=0, end=word.end, confidence=1.0, language="en", words=(word,)
        )
        heard.append(speakers.attribute(said, diarizer.voices(piece(name, start, stop)), 0.0).speaker)
    assert heard == [0, 1, 0, 1, 0]
