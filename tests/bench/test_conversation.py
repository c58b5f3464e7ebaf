"""What is played: half speech, half a quiet room, the same for the same seed, in chunks that lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.bench.conversation import TAIL_S, Format, chunks, conversation, encode
from vivavoce.bench.corpus import Spoken, Turn, speech_end
from vivavoce.model import SAMPLE_RATE


def turn(seconds: float, pitch: float = 300.0) -> Turn:
    """Give a tone as a turn of one word."""
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (0.3 * np.sin(2 * np.pi * pitch * at)).astype(np.float32)
    said = (Spoken(text="tone", end=seconds / 2),)
    return Turn(name="tone", samples=samples, said=said, speech_end=speech_end(samples))


@given(st.floats(0.1, 3.0), st.integers(0, 300), st.integers(10, 29))
def test_speech_ends_with_the_last_10_ms_within_30_db_of_the_loudest(loud_s, quiet_ms, under_db):
    """What is quieter than that, however long, is no speech; what is a little louder is."""
    loud = np.full(round(loud_s * 100) * 160, 0.5, np.float32)
    near = np.full(quiet_ms * 16, 0.5 * 10 ** (-under_db / 20), np.float32)
    far = np.full(SAMPLE_RATE, 0.5 * 10 ** (-40 / 20), np.float32)
    ended = speech_end(np.concatenate([loud, near, far])) * SAMPLE_RATE
    assert ended == pytest.approx(len(loud) + len(near), abs=160)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(SAMPLE_RATE, np.float32)])
def test_silence_holds_no_speech(samples):
    """Nothing loud means that speech ends where it begins."""
    assert speech_end(samples) == 0.0


@given(st.integers(0, 2**31), st.floats(1, 40))
def test_half_of_a_conversation_is_quiet_and_none_of_it_is_digital_silence(seed, seconds):
    """Each turn stands where it is said to, and as much room as turn comes after it."""
    talk = conversation([turn(1.0), turn(2.0, 500.0)], seconds, seed)
    assert talk.duration_s >= seconds
    assert talk.turns
    for each, following in zip(talk.turns, talk.turns[1:], strict=False):
        assert following.start - each.stop == pytest.approx(each.stop - each.start, abs=0.001)
    assert talk.duration_s - talk.turns[-1].stop >= TAIL_S - 0.001 or len(talk.turns) > 1
    loud = np.abs(talk.samples) > 0.05
    assert loud.mean() == pytest.approx(talk.speech_s / talk.duration_s, abs=0.1)
    assert np.count_nonzero(talk.samples) > 0.99 * len(talk.samples)
    for each in talk.turns:
        inside = talk.samples[round(each.start * SAMPLE_RATE) : round(each.stop * SAMPLE_RATE)]
        assert np.abs(inside).max() == pytest.approx(0.3, abs=0.01)


def test_a_conversation_follows_from_its_seed():
    """The same seed gives the same audio, and another one another."""
    first, again, other = (conversation([turn(1.0), turn(2.0)], 20, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.samples, again.samples)
    assert first.turns == again.turns
    assert first.turns != other.turns


@given(st.binary(max_size=5000), st.sampled_from(list(Format)), st.sampled_from([0.02, 0.1]))
def test_chunks_lose_nothing(data, form, chunk_s):
    """Chunks are of one length but for the last, and together what they were cut from."""
    pieces = chunks(data, form, chunk_s)
    assert b"".join(pieces) == data
    size = form.rate * form.sample_bytes * chunk_s
    assert all(len(piece) == pytest.approx(size) for piece in pieces[:-1])


@pytest.mark.parametrize("form", Format)
def test_encoding_keeps_the_length_and_the_level(form):
    """Every format holds as many seconds as the samples do."""
    data = encode(turn(1.0).samples, form)
    assert len(data) / form.rate / form.sample_bytes == pytest.approx(1.0, abs=0.002)
    if form is Format.PCM16K:
        assert np.abs(np.frombuffer(data, "<i2")).max() == pytest.approx(0.3 * 32768, rel=0.01)
