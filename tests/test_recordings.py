"""The recordings are there, as long as they should be, and hold speech at a usable level."""

from __future__ import annotations

import numpy as np
import pytest

from recordings import pcm16, recording_path, wheel_recording
from vivavoce.model import SAMPLE_RATE


@pytest.mark.parametrize(
    ("name", "seconds"), [("two_cities", 44.37), ("beckett", 9.96), ("endgame_nagg_nell", 28.28), ("clone-test", 4.11)]
)
def test_a_recording_keeps_its_length_and_level(name, seconds):
    """Resampling neither loses nor stretches audio, and leaves speech well above silence and below clipping."""
    samples = wheel_recording(name)
    assert recording_path(name).is_file()
    assert samples.dtype == np.float32
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.02)
    assert 0.01 < float(np.sqrt(np.mean(samples**2))) < 0.5
    assert float(np.abs(samples).max()) <= 1.1


def test_pcm16_keeps_full_scale_inside_16_bits():
    """Samples at and beyond full scale are clipped, not wrapped."""
    assert np.frombuffer(pcm16(np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0], np.float32)), "<i2").tolist() == [
        -32768, -32768, 0, 16384, 32767, 32767,
    ]  # fmt: skip
