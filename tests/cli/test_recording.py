"""Recordings of any kind as 16 kHz PCM."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest

from recordings import recording_path, wheel_recording
from vivavoce.cli.client import CHUNK_S
from vivavoce.cli.recording import RATE, open_recording
from vivavoce.errors import UnsupportedAudio


def tone(path: Path, *, rate: int, channels: int, seconds: float, codec: str, layout: str) -> Path:
    """Write a file whose channels carry tones of falling loudness, the first the loudest."""
    at = np.arange(round(rate * seconds)) / rate
    samples = np.stack([0.5**channel * 0.5 * np.sin(2 * np.pi * 440 * at) for channel in range(channels)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        for piece in resampler.resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def read(path: Path, *, separate: bool = False, limit_s: float | None = None) -> np.ndarray:
    with open_recording(str(path), separate=separate) as recording:
        data = b"".join(recording.chunks(limit_s))
        return np.frombuffer(data, "<i2").reshape(-1, recording.channels)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s24le", 44_100),
        ("a.flac", "flac", 48_000),
        ("a.mp3", "libmp3lame", 22_050),
        ("a.m4a", "aac", 48_000),
    ],
)
def test_any_format_becomes_16_khz_mono(tmp_path, name, codec, rate):
    """Rates, depths and codecs do not matter: the same two seconds come out, give or take a codec's padding."""
    path = tone(tmp_path / name, rate=rate, channels=2, seconds=2.0, codec=codec, layout="stereo")
    samples = read(path)
    assert samples.shape[1] == 1
    assert len(samples) / RATE == pytest.approx(2.0, abs=0.12)
    assert np.abs(samples).max() > 5_000


def test_separate_channels_keep_their_own_signal(tmp_path):
    """Kept apart, the first channel is twice as loud as the second, as in the file."""
    path = tone(tmp_path / "a.wav", rate=16_000, channels=2, seconds=1.0, codec="pcm_s16le", layout="stereo")
    loudest = np.abs(read(path, separate=True).astype(int)).max(axis=0)
    assert loudest[0] == pytest.approx(2 * loudest[1], rel=0.01)


def test_chunks_are_a_tenth_of_a_second_and_hold_all_samples():
    """A recording that needs no conversion passes through bit for bit, in equal chunks but for the last."""
    path = recording_path("beckett")
    with wave.open(str(path)) as file:
        data = file.readframes(file.getnframes())
    with open_recording(str(path)) as recording:
        chunks = list(recording.chunks())
    assert b"".join(chunks) == data
    assert {len(chunk) for chunk in chunks[:-1]} == {round(RATE * CHUNK_S) * 2}


def test_a_limit_cuts_to_the_sample():
    """Half a second of a recording is its first half second."""
    whole, cut = read(recording_path("beckett")), read(recording_path("beckett"), limit_s=0.5)
    assert len(cut) == RATE // 2
    assert np.array_equal(cut, whole[: len(cut)])


def test_duration_is_known_before_reading():
    """The progress bar's total is the recording's length."""
    with open_recording(str(recording_path("two_cities"))) as recording:
        assert recording.duration_s == pytest.approx(len(wheel_recording("two_cities")) / RATE, abs=0.01)


def test_damaged_packets_are_skipped(tmp_path):
    """Damage in the middle of a file costs what it hit, not the rest."""
    path = tone(tmp_path / "a.mp3", rate=16_000, channels=1, seconds=4.0, codec="libmp3lame", layout="mono")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = b"\x00" * 200
    path.write_bytes(data)
    assert len(read(path)) / RATE > 3.0


@pytest.mark.parametrize("content", [b"", b"# Not audio at all\n" * 50])
def test_what_is_no_audio_is_named(tmp_path, content):
    """A file that cannot be decoded gives one line with its name."""
    path = tmp_path / "notes.md"
    path.write_bytes(content)
    with pytest.raises(UnsupportedAudio, match=r"notes\.md: cannot be read as audio"), open_recording(str(path)):
        pass


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    """Neither a typo nor a directory gets as far as the decoder."""
    for path in (tmp_path / "no.wav", tmp_path):
        with pytest.raises(UnsupportedAudio, match="no such file"), open_recording(str(path)):
            pass


def test_a_file_without_sound_is_named(tmp_path):
    """A picture is media, but not audio."""
    path = tmp_path / "still.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UnsupportedAudio, match="holds no audio"), open_recording(str(path)):
        pass
