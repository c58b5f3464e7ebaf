"""Compressed audio becomes PCM of the right length and sound, however it is cut, and junk harms nothing."""

import numpy as np
import pytest

from live import pieces
from packed import OPUS_FRAME_S, opus_packets, packed
from recordings import wheel_recording
from vivavoce.bridges.unpacking import MAX_STRAY_BYTES, unpacker
from vivavoce.errors import UnsupportedAudio
from vivavoce.model import SAMPLE_RATE

SPEECH = wheel_recording("clone-test")


def unpacked(kind, frames, rate=SAMPLE_RATE):
    """Give all audio of some frames as samples."""
    each = unpacker(kind, rate)
    data = b"".join(piece for frame in frames for piece in each.feed(frame)) + b"".join(each.flush())
    return np.frombuffer(data, "<i2") / 32768


def likeness(heard):
    """Give how much a recording is like the original in loudness over time, from 0 to 1, whatever a codec's delay."""
    step = SAMPLE_RATE // 100
    loud = []
    for samples in (heard, SPEECH):
        windows = samples[: len(samples) // step * step].reshape(-1, step)
        loud.append(np.sqrt(np.mean(windows**2, axis=1)))
    size = min(map(len, loud)) - 20
    return max(np.corrcoef(loud[0][shift:][:size], loud[1][:size])[0, 1] for shift in range(20))


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_packets_of_opus(rate):
    """As much audio as was packed, at the rate that was asked for."""
    packets = opus_packets("clone-test")
    heard = unpacked("opus", packets, rate)
    assert len(heard) == pytest.approx(len(packets) * OPUS_FRAME_S * rate, abs=rate * 0.01)
    if rate == SAMPLE_RATE:
        assert likeness(heard) > 0.95


@pytest.mark.parametrize(
    ("kind", "file"), [("opus", "ogg"), ("mp3", "mp3"), ("flac", "flac"), ("amr", "amr")], ids=lambda value: value
)
def test_files_may_be_cut_anywhere(kind, file):
    """Each size of frame gives the same samples."""
    data = packed("clone-test", file)
    whole = unpacked(kind, [data])
    assert len(whole) == pytest.approx(len(SPEECH), abs=0.15 * SAMPLE_RATE)
    assert likeness(whole) > 0.95
    for size in (1, 997):
        np.testing.assert_array_equal(unpacked(kind, pieces(data, size)), whole)


def test_a_packet_that_is_no_opus_is_told_and_left_out():
    """The packets around it are heard; an empty one is nothing at all."""
    packets = opus_packets("clone-test")
    each = unpacker("opus", SAMPLE_RATE)
    good = sum(len(piece) for packet in packets[:50] for piece in each.feed(packet))
    assert list(each.feed(b"")) == []
    for junk in (b"\xff\xff\xff\0", b"\x03", bytes(70_000)):
        with pytest.raises(UnsupportedAudio):
            list(each.feed(junk))
    more = sum(len(piece) for packet in packets[50:100] for piece in each.feed(packet))
    assert good == pytest.approx(more, abs=2000)


@pytest.mark.parametrize("kind", ["mp3", "flac", "amr"])
def test_a_stream_of_something_else_is_told(kind):
    """Not at once, for tags and cut frames belong to such streams, but before much has come."""
    each = unpacker(kind, SAMPLE_RATE)
    for _ in range(MAX_STRAY_BYTES // 1000):
        assert list(each.feed(b"\xfe" * 1000)) == []
    with pytest.raises(UnsupportedAudio):
        list(each.feed(b"\xfe" * 1000))


def test_noise_never_does_more_than_that():
    """Random bytes give audio, nothing, or the one error."""
    rng = np.random.default_rng(1)
    for kind in ("opus", "mp3", "flac", "amr"):
        each = unpacker(kind, SAMPLE_RATE)
        for size in (1, 3, 500, 20_000):
            try:
                list(each.feed(rng.bytes(size)))
            except UnsupportedAudio:
                continue
        list(each.flush())
