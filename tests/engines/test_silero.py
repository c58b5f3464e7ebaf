"""The voice activity plugin on the recordings of the moonshine-voice wheel."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import wheel_recording
from vivavoce.engines.silero import SileroVad

VAD = SileroVad()


SAMPLES = wheel_recording("beckett")
FRAMES = SAMPLES[: len(SAMPLES) // VAD.frame * VAD.frame].reshape(-1, VAD.frame)
WHOLE, _ = VAD.probabilities(FRAMES, VAD.open())


def test_speech_stands_out_from_the_pauses():
    """Six phrases with pauses between them are six stretches above one half."""
    speech = WHOLE > 0.5
    assert np.count_nonzero(np.diff(speech.astype(int), prepend=0) == 1) == 6
    assert WHOLE.dtype == np.float32
    assert WHOLE.shape == (len(FRAMES),)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(FRAMES)), max_size=12))
def test_any_split_gives_the_same_bits(cuts):
    """However the frames are cut into calls, the probabilities and the state after them are the same."""
    state, parts = VAD.open(), []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(FRAMES)], strict=True):
        part, state = VAD.probabilities(FRAMES[start:stop], state)
        parts.append(part)
    assert np.concatenate(parts).tobytes() == WHOLE.tobytes()


MUTED = np.concatenate(
    [FRAMES[:90], np.zeros((40, VAD.frame), np.float32), FRAMES[90:], np.full_like(FRAMES[:30], 0.1)]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(MUTED)), max_size=12))
def test_any_split_of_a_muted_line_gives_the_same_bits(cuts):
    """Digital silence changes nothing about that, and neither does storing the state at every cut."""
    whole, _ = VAD.probabilities(MUTED, VAD.open())
    state, parts = VAD.open(), []
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(MUTED)], strict=True):
        part, state = VAD.probabilities(MUTED[start:stop], VAD.load(VAD.save(state)))
        parts.append(part)
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_muted_line_costs_nothing_and_is_no_speech(monkeypatch):
    """After half a second of digital silence the model rests; what is said later is heard as at the start."""
    vad = SileroVad()
    asked = []
    hear = vad._hear
    monkeypatch.setattr(vad, "_hear", lambda frames, state: asked.append(len(frames)) or hear(frames, state))
    speech, state = vad.probabilities(np.zeros((1000, vad.frame), np.float32), vad.open())
    assert sum(asked) == 16
    assert speech.max() < 0.1
    heard, _ = vad.probabilities(FRAMES, state)
    assert heard.tobytes() == WHOLE.tobytes()


def test_state_survives_pickling():
    """A channel goes on from a stored state as if nothing had happened."""
    _, state = VAD.probabilities(FRAMES[:100], VAD.open())
    rest, _ = VAD.probabilities(FRAMES[100:], pickle.loads(pickle.dumps(state)))
    assert rest.tobytes() == WHOLE[100:].tobytes()


def test_state_is_never_changed_in_place():
    """The same state gives the same answer twice, and does not hang on to the caller's samples."""
    frames = FRAMES[:60].copy()
    _, state = VAD.probabilities(frames, VAD.open())
    frames[:] = 1.0
    first, _ = VAD.probabilities(FRAMES[60:], state)
    second, _ = VAD.probabilities(FRAMES[60:], state)
    assert first.tobytes() == second.tobytes() == WHOLE[60:].tobytes()


def test_no_frames_change_nothing():
    """No frames give no probabilities and the state as it was."""
    state = VAD.open()
    empty, after = VAD.probabilities(FRAMES[:0], state)
    assert empty.shape == (0,)
    assert after is state


@pytest.mark.parametrize("level", [0.0, 0.001, 0.01, 0.1])
def test_silence_and_noise_are_not_speech(level):
    """Digital silence and white noise stay below every threshold in use."""
    noise = np.random.default_rng(0).normal(0, level, (150, VAD.frame)).astype(np.float32)
    probabilities, _ = VAD.probabilities(noise, VAD.open())
    assert probabilities.max() < 0.35


def test_loading_does_not_import_the_package_that_carries_the_weights():
    """The weights' package stays unimported: it would load CTranslate2."""
    code = (
        "import sys; from vivavoce.engines.silero import SileroVad; SileroVad(); print('faster_whisper' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
