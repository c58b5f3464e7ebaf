"""Bytes to frames: every format, every rate, any split."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.model import SAMPLE_RATE, AudioFormat
from vivavoce.speech.audio import FRAME, AudioDecoder, pcm_samples


def tone(rate: int, seconds: float, hz: float = 1000.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def whole(data: bytes, fmt: AudioFormat) -> np.ndarray:
    decoder = AudioDecoder(fmt)
    return np.concatenate([decoder.feed(data), decoder.flush()], axis=1)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 47999, 48000])
def test_a_tone_stays_where_it_was_at_every_rate(rate: int) -> None:
    """Resampling keeps a tone's pitch, level and place in time."""
    pcm = np.rint(tone(rate, 1.0) * 32767).astype("<i2")
    samples = whole(pcm.tobytes(), AudioFormat(sample_rate=rate))[0]
    expected = tone(SAMPLE_RATE, 1.0)
    inner = slice(400, SAMPLE_RATE - 400)
    assert np.abs(samples[:SAMPLE_RATE][inner] - expected[inner]).max() < 1e-3


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_what_16_khz_cannot_hold_is_removed(rate: int) -> None:
    """A tone above the new Nyquist frequency does not come back as another one."""
    pcm = np.rint(tone(rate, 1.0, hz=10_000) * 32767).astype("<i2")
    samples = whole(pcm.tobytes(), AudioFormat(sample_rate=rate))[0]
    assert np.abs(samples[1000:15000]).max() < 5e-3


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_live_resampler_holds_back_10_ms_at_most(rate: int) -> None:
    """Beyond whole frames, at most 10 ms of what came in is still inside."""
    decoder = AudioDecoder(AudioFormat(sample_rate=rate))
    given_out = sum(decoder.feed(bytes(2 * (rate // 1000))).shape[1] for _ in range(1000))
    assert SAMPLE_RATE - given_out < FRAME + 0.010 * SAMPLE_RATE


@given(
    rate=st.sampled_from([8000, 16000, 24000, 44100]),
    depth=st.sampled_from([8, 16, 24, 32]),
    channels=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 40_000), max_size=8),
    seed=st.integers(0, 2**16),
)
def test_any_split_gives_the_same_samples(rate: int, depth: int, channels: int, cuts: list[int], seed: int) -> None:
    """Samples are equal bit for bit wherever the bytes were cut, odd tails included."""
    data = np.random.default_rng(seed).integers(0, 256, 40_000, dtype=np.uint8).tobytes()
    fmt = AudioFormat(sample_rate=rate, bit_depth=depth, channels=channels)
    decoder = AudioDecoder(fmt)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [decoder.feed(data[a:b]) for a, b in pairwise(edges)]
    split = np.concatenate([*pieces, decoder.flush()], axis=1)
    assert np.array_equal(split, whole(data, fmt))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("frames", [0, 1, 79, 80, 257, 511, 512, 513, 5000])
def test_flush_gives_everything_in_whole_frames(rate: int, frames: int) -> None:
    """All that came in comes out, padded to a whole frame and no further."""
    decoder = AudioDecoder(AudioFormat(sample_rate=rate))
    samples = np.concatenate([decoder.feed(bytes(2 * frames)), decoder.flush()], axis=1)
    assert samples.shape[1] % FRAME == 0
    assert 0 <= samples.shape[1] - frames * SAMPLE_RATE / rate < FRAME


def test_bit_depths_agree() -> None:
    """The same 16-bit values written with more bits are the same samples; 8-bit PCM is unsigned."""
    values = np.arange(-32768, 32768, 7, dtype="<i4")
    plain = pcm_samples(values.astype("<i2").tobytes(), AudioFormat())
    deep = pcm_samples((values << 16).tobytes(), AudioFormat(bit_depth=32))
    triple = b"".join(int(value << 8).to_bytes(3, "little", signed=True) for value in values)
    assert np.array_equal(plain, deep)
    assert np.array_equal(plain, pcm_samples(triple, AudioFormat(bit_depth=24)))
    assert pcm_samples(b"\x00\x80\xff", AudioFormat(bit_depth=8)).tolist() == [[-1.0, 0.0, 127 / 128]]


@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        # ITU-T G.711: the largest, the smallest positive and the smallest negative value of each law, 16-bit scale.
        ("ulaw", 0x80, 32124),
        ("ulaw", 0x00, -32124),
        ("ulaw", 0xFF, 0),
        ("ulaw", 0x7F, 0),
        ("ulaw", 0xFE, 8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
    ],
)
def test_g711_values(encoding: str, code: int, value: int) -> None:
    """Each law's codes stand for the values of the standard, and the stated bit depth does not matter."""
    fmt = AudioFormat(encoding=encoding, bit_depth=16, sample_rate=8000)
    assert pcm_samples(bytes([code]), fmt)[0, 0] * 32768 == value
    assert fmt.frame_bytes == 1


def test_channels_come_apart() -> None:
    """Interleaved samples become one row per channel."""
    assert (pcm_samples(np.array([1, 2, 3, 4, 5, 6], "<i2").tobytes(), AudioFormat(channels=3)) * 32768).tolist() == [
        [1, 4],
        [2, 5],
        [3, 6],
    ]


@given(rate=st.sampled_from([8000, 11025, 16000, 44100, 48000]), channels=st.integers(1, 2), frame=st.integers(0, 20))
def test_starting_at_any_frame_gives_the_same_samples(rate: int, channels: int, frame: int) -> None:
    """A decoder that goes to a frame and is fed from the byte it names gives what the first one gave from there."""
    data = np.random.default_rng(rate).integers(0, 256, rate * 2 * channels, dtype=np.uint8).tobytes()
    fmt = AudioFormat(sample_rate=rate, channels=channels)
    decoder = AudioDecoder(fmt)
    start = decoder.seek(frame * FRAME)
    rest = np.concatenate([decoder.feed(data[start:]), decoder.flush()], axis=1)
    assert np.array_equal(rest, whole(data, fmt)[:, frame * FRAME :])
