"""Sound that tests make: recordings in other formats, and noises in which nobody speaks."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from recordings import recording_path
from vivavoce.model import SAMPLE_RATE

Samples = NDArray[np.float32]


@cache
def recording_at(name: str, rate: int) -> Samples:
    """Give a recording as mono float32 at `rate`, resampled from its file; it cannot be written to."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    with av.open(str(recording_path(name))) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)
    samples.setflags(write=False)
    return samples


def pcm(samples: Samples, bits: int = 16) -> bytes:
    """Give samples as PCM of 8 (unsigned), 16, 24 or 32 bits, all rounded to 16 bits (8 at 8), so that they agree."""
    scale = 1 << (min(bits, 16) - 1)
    rounded = np.clip(np.rint(samples * scale), -scale, scale - 1).astype("<i4")
    match bits:
        case 8:
            return (rounded + 128).astype(np.uint8).tobytes()
        case 16:
            return rounded.astype("<i2").tobytes()
        case 24:
            return (rounded << 8).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return (rounded << 16).tobytes()


def g711(samples: Samples, law: Literal["alaw", "mulaw"], rate: int = 8000) -> bytes:
    """Give samples as the telephone network encodes them."""
    encoder: Any = av.CodecContext.create(f"pcm_{law}", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm(samples), "<i2").reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def with_wav_header(data: bytes, *, bits: int = 16, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    """Put the header of a WAV file before PCM."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(bits // 8)
        out.setframerate(rate)
        out.writeframes(data)
    return file.getvalue()


def interleave(tracks: Sequence[Samples]) -> Samples:
    """Give several tracks as one with interleaved channels, the shorter ones filled with silence."""
    length = max(len(track) for track in tracks)
    return np.stack([np.pad(track, (0, length - len(track))) for track in tracks], axis=1).reshape(-1)


def silence(seconds: float, rate: int = SAMPLE_RATE) -> Samples:
    """Give digital silence."""
    return np.zeros(round(seconds * rate), np.float32)


def bare(text: str) -> list[str]:
    """Give a text's words in lower case and without punctuation."""
    words = ("".join(letter for letter in word if letter.isalnum() or letter == "'") for word in text.lower().split())
    return [word for word in words if word]


def share_of(expected: str, heard: str) -> float:
    """Give the share of the expected words that were heard, in order; invented words count against it."""
    return SequenceMatcher(None, bare(expected), bare(heard), autojunk=False).ratio()


def noises(seconds: float, seed: int) -> dict[str, Samples]:
    """Give things that are no speech, by name, at full scale or an RMS of 1; `seed` varies the random ones."""
    rng = np.random.default_rng(seed)
    size = round(seconds * SAMPLE_RATE)
    at = np.arange(size) / SAMPLE_RATE
    tone = {hz: np.sin(2 * np.pi * hz * at) for hz in (350, 440, 480, 620)}
    pink = _noise(rng, size, 1)
    made = {
        "digital silence": np.zeros(size),
        "white noise": _noise(rng, size, 0),
        "pink noise": pink,
        "brown noise": _noise(rng, size, 2),
        "pulsing noise": pink * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * at)),
        "mains hum": sum((np.sin(2 * np.pi * 50 * k * at) / k for k in (1, 2, 3, 5)), np.zeros(size)),
        "buzz": np.sign(np.sin(2 * np.pi * 120 * at)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * at)),
        "clicks": _clicks(rng, size),
        "knocks": _knocks(rng, size),
        "DTMF": _dtmf(at),
        "dial tone": tone[350] + tone[440],
        "ringing": (tone[440] + tone[480]) * (at % 6 < 2),
        "busy tone": (tone[480] + tone[620]) * (at % 1 < 0.5),
        "siren": np.sin(2 * np.pi * np.cumsum(300 + 1500 * (1 + np.sin(2 * np.pi * 0.2 * at))) / SAMPLE_RATE),
        "offset": np.ones(size),
    }
    return {name: noise.astype(np.float32) for name, noise in made.items()}


def _noise(rng: np.random.Generator, size: int, slope: float) -> NDArray[np.float64]:
    """Give noise whose power falls with frequency to the power of `slope`."""
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    frequencies[0] = frequencies[1]
    shaped: NDArray[np.float64] = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(size)) / frequencies ** (slope / 2), size
    )
    return shaped / np.sqrt(np.mean(shaped**2))


def _clicks(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    track = np.zeros(size)
    at = rng.integers(0, size, size // 4000)
    track[at] = rng.choice([-1.0, 1.0], len(at))
    return track


def _knocks(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    track = np.zeros(size)
    for at in rng.integers(0, size - 2000, size // 8000):
        track[at : at + 2000] += rng.standard_normal(2000) * np.exp(-np.arange(2000) / 200)
    return track


def _dtmf(at: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.array([697, 770, 852, 941]), np.array([1209, 1336, 1477, 1633])
    key = (at / 0.2).astype(int)
    tones = np.sin(2 * np.pi * low[key % 4] * at) + np.sin(2 * np.pi * high[key // 4 % 4] * at)
    keyed: NDArray[np.float64] = np.where(at % 0.2 < 0.1, tones, 0.0)
    return keyed
