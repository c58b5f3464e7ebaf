"""Real speech for tests: the recordings inside the moonshine-voice wheel, and what is said in them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vivavoce.bench.corpus import TRANSCRIPTS
from vivavoce.model import SAMPLE_RATE

__all__ = ["TRANSCRIPTS", "pcm16", "recording_path", "wheel_recording"]


def recording_path(name: str) -> Path:
    """Give the WAV file of a recording: `two_cities` (44 s, a man reading), `beckett` (10 s), `clone-test` (4 s), or
    `endgame_nagg_nell` (28 s, a man and a woman in turn).
    """
    spec = importlib.util.find_spec("moonshine_voice")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "assets" / f"{name}.wav"


@cache
def wheel_recording(name: str) -> NDArray[np.float32]:
    """Give a recording as mono float32 in [-1, 1] at 16 kHz, resampled as a whole; it cannot be written to."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(recording_path(name))) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)
    samples.setflags(write=False)
    return samples


def pcm16(samples: NDArray[np.float32]) -> bytes:
    """Give samples as little-endian 16-bit PCM, clipped at full scale."""
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2").tobytes()
