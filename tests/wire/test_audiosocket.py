"""AudioSocket as Asterisk sends it: events from its frames, however the bytes are cut, and an end to what is none."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire.audiosocket import (
    HANG_UP,
    RATES,
    Audio,
    AudioSocket,
    Digit,
    Failed,
    Fault,
    HungUp,
    Identified,
    Malformed,
    error_frame,
    silence_frame,
)

CALL = UUID("40325ec2-5efd-4bd3-805f-53576e581d13")


def frame(kind, payload=b""):
    return bytes([kind]) + len(payload).to_bytes(2, "big") + payload


NAME = frame(0x01, CALL.bytes)


def events(*pieces):
    """Give what one connection says in all."""
    codec = AudioSocket()
    return [event for piece in pieces for event in codec.feed(piece)]


def cut(data, places):
    """Cut bytes at the given places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


frames = st.one_of(
    st.builds(frame, st.sampled_from(sorted(RATES)), st.binary(max_size=700)),
    st.builds(frame, st.just(0x03), st.sampled_from([b"5", b"#", b"*", b"\x00", b""])),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=40)),
)
streams = st.one_of(st.binary(max_size=80), st.lists(frames, max_size=12).map(lambda parts: NAME + b"".join(parts)))


def test_a_call_as_asterisk_sends_it_is_named_heard_and_hung_up():
    """The trace of a call: its UUID, 20 ms of audio at a time, a key, and the end."""
    audio = bytes(range(160)) * 2
    said = events(NAME, frame(0x10, audio), frame(0x10, audio[:114]), frame(0x03, b"5"), HANG_UP)
    assert said == [Identified(CALL), Audio(8000, audio), Audio(8000, audio[:114]), Digit("5"), HungUp()]


@pytest.mark.parametrize(("kind", "rate"), RATES.items())
def test_the_kind_of_an_audio_frame_is_its_rate(kind, rate):
    """Nine kinds of audio, from telephones to studios."""
    assert events(NAME, frame(kind, b"\x01\x02")) == [Identified(CALL), Audio(rate, b"\x01\x02")]


@given(data=streams, places=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_cut_of_the_bytes_gives_the_same_events(data, places):
    """TCP cuts where it likes; nothing that a peer sends makes that matter, and nothing raises."""
    assert events(*cut(data, places)) == events(data)


@given(data=streams, more=st.binary(max_size=80))
def test_nothing_follows_the_last_event(data, more):
    """After a hang-up, a failure or nonsense, whatever else comes is not read, nor kept."""
    codec = AudioSocket()
    if any(isinstance(event, HungUp | Failed | Malformed) for event in codec.feed(data)):
        assert codec.feed(more) == []


@given(places=st.lists(st.integers(0, 10_000), max_size=30), count=st.integers(1, 20))
def test_less_than_one_frame_is_held(places, count):
    """Audio is handed on as soon as its frame is whole: what stays behind is shorter than a frame."""
    codec, whole = AudioSocket(), NAME + frame(0x12, bytes(640)) * count
    given_out = sum(
        len(event.data) for piece in cut(whole, places) for event in codec.feed(piece) if type(event) is Audio
    )
    assert given_out == 640 * count
    assert not codec.in_frame


def test_a_connection_that_ends_inside_a_frame_was_cut_off():
    """Between two frames a connection may end; inside one it was lost."""
    codec = AudioSocket()
    codec.feed(NAME)
    assert not codec.in_frame
    codec.feed(frame(0x10, bytes(320))[:200])
    assert codec.in_frame


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", frame(0x10, bytes(320)), frame(0x01, bytes(15))[:3], HANG_UP, bytes(4096)],
)
def test_what_is_no_audiosocket_is_told_by_its_first_three_bytes(data):
    """A browser, a TLS client and audio before the name are refused at once, not after 64 KiB."""
    (event,) = events(data[:3])
    assert isinstance(event, Malformed)


@pytest.mark.parametrize("data", [NAME, frame(0x10, bytes(3)), frame(0x03, b"12"), frame(0x03)])
def test_frames_that_go_against_the_protocol_end_the_connection(data):
    """A second name, half a sample, and no digit or two where one is due."""
    named, event = events(NAME, data)
    assert named == Identified(CALL)
    assert isinstance(event, Malformed)


def test_kinds_that_come_some_day_are_skipped():
    """A frame of an unknown kind, and one without samples, hide nothing that follows."""
    audio = frame(0x10, b"\x01\x02")
    assert events(NAME, frame(0x42, bytes(500)), frame(0x10), audio) == [Identified(CALL), Audio(8000, b"\x01\x02")]


def test_an_error_of_the_peer_gives_its_code():
    """The code is Asterisk's own, if it sends one; a long one is shortened."""
    assert events(NAME, frame(0xFF))[1:] == [Failed("")]
    assert events(NAME, frame(0xFF, b"\x04"))[1:] == [Failed("04")]
    assert events(NAME, frame(0xFF, bytes(60_000)))[1:] == [Failed("00000000")]


@pytest.mark.parametrize("fault", Fault)
def test_our_own_error_frames_are_read_back(fault):
    """What refuses a connection is a frame of the protocol."""
    assert events(NAME, error_frame(fault))[1:] == [Failed(f"{fault:02x}")]


@pytest.mark.parametrize("rate", RATES.values())
def test_silence_is_20_ms_of_audio_at_its_rate(rate):
    """As long as Asterisk's own frames, and never empty, which Asterisk takes for an error."""
    assert events(NAME, silence_frame(rate))[1:] == [Audio(rate, bytes(rate // 50 * 2))]
