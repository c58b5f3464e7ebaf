"""Compressed audio becomes PCM of the right length and sound, however it is cut, and junk harms nothing."""

import tracemalloc

import numpy as np
import pytest

from live import pieces
from packed import OPUS_FRAME_S, opus_packets, packed
from recordings import wheel_recording
from vivavoce.bridges.unpacking import MAX_FRAME_S, MAX_STRAY_BYTES, unpacker
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


def crc(data, bits, polynomial):
    """Give the check that ends a head (8 bits) or a frame (16) of FLAC."""
    rest, top = 0, 1 << (bits - 1)
    for byte in data:
        rest ^= byte << (bits - 8)
        for _ in range(8):
            rest = (rest << 1) ^ (polynomial if rest & top else 0)
        rest &= (1 << bits) - 1
    return rest.to_bytes(bits // 8, "big")


def flac_silence(rate, frames):
    """Give frames of the most samples that one can have, all the same: 15 bytes each (RFC 9639)."""
    stream = b""
    for number in range(frames):
        head = b"\xff\xf8\x7d\x08" + bytes([number % 128]) + b"\xff\xfe" + rate.to_bytes(2, "big")
        head += crc(head, 8, 0x07)
        body = head + bytes(3)
        stream += body + crc(body, 16, 0x8005)
    return stream


def ogg_silence(pages):
    """Give pages full of the shortest packets, which are silence of 20 ms each."""
    return (b"OggS" + bytes(22) + b"\xff" + b"\x01" * 255 + b"\x08" * 255) * pages


@pytest.mark.parametrize(
    ("kind", "data"), [("flac", flac_silence(16_000, 100) * 500), ("opus", ogg_silence(1000))], ids=["flac", "ogg"]
)
def test_packed_silence_takes_no_more_memory_than_sound(kind, data):
    """A frame of a megabyte may stand for days; only what is asked for is worked out."""
    each = unpacker(kind, SAMPLE_RATE)
    tracemalloc.start()
    try:
        pieces_ = each.feed(data)
        heard = sum(len(next(pieces_)) for _ in range(20))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert heard > 20 * 0.02 * SAMPLE_RATE
    assert most < 2 << 20


@pytest.mark.parametrize(("rate", "fits"), [(1000, False), (4000, True)])
def test_a_frame_that_says_it_lasts_for_minutes_is_told(rate, fits):
    """Four bytes of it could stand for hours at the rate that is asked for."""
    each, frames = unpacker("flac", SAMPLE_RATE), flac_silence(rate, 300)
    if fits:
        assert len(next(each.feed(frames))) <= 2 * MAX_FRAME_S * SAMPLE_RATE
    else:
        with pytest.raises(UnsupportedAudio, match="lasts longer"):
            list(each.feed(frames))
