"""Media streams as the networks publish them: what each message means, and that none of them can do harm."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire.media_streams import (
    DIALECTS,
    EXOTEL,
    PLIVO,
    TELNYX,
    TWILIO,
    VONAGE,
    Ignored,
    Started,
    Stopped,
    Unreadable,
    read,
)
from vivavoce.wire.tracks import Media

AUDIO = bytes(range(160))
PAYLOAD = b64encode(AUDIO).decode()


def told(dialect, **message):
    return read(dialect, json.dumps(message))


def test_a_twilio_call_from_greeting_to_hang_up():
    """Twilio's messages of one call; numbers are texts, names are in camel case, both tracks are announced."""
    stream = {"streamSid": "MZ18ad3ab5a668481ce02b83e7395059f0"}
    start = {
        "accountSid": "AC1",
        "callSid": "CA7c1e2b905d344f0a9b6e2f8a41c7d3e5",
        "tracks": ["outbound", "inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"language": "en", "metadata.desk": "7"},
        **stream,
    }
    media = {"track": "outbound", "chunk": "12", "timestamp": "245", "payload": PAYLOAD}
    assert [
        told(TWILIO, event="connected", protocol="Call", version="1.0.0"),
        told(TWILIO, event="start", sequenceNumber="1", start=start, **stream),
        told(TWILIO, event="media", sequenceNumber="3", media=media, **stream),
        told(TWILIO, event="mark", sequenceNumber="4", mark={"name": "greeting"}, **stream),
        told(TWILIO, event="dtmf", sequenceNumber="5", dtmf={"track": "inbound_track", "digit": "1"}, **stream),
        told(TWILIO, event="stop", sequenceNumber="6", stop={"callSid": start["callSid"]}, **stream),
    ] == [
        Ignored(),
        Started(
            call_id=start["callSid"],
            tracks=("inbound", "outbound"),
            encoding="ulaw",
            sample_rate=8000,
            parameters={"language": "en", "metadata.desk": "7"},
            metadata={"callSid": start["callSid"], **stream},
        ),
        Media(track="outbound", payload=AUDIO, timestamp_ms=245, number=12),
        Ignored(),
        Ignored(),
        Stopped(),
    ]


@pytest.mark.parametrize(
    ("media", "message", "stamp", "number"),
    [
        ({"chunk": "3", "timestamp": "40"}, {"sequenceNumber": "9"}, 40, 3),
        ({"timestamp": "40"}, {"sequenceNumber": "9"}, 40, None),
        ({}, {"sequenceNumber": "9"}, None, 9),
        ({}, {"sequence_number": 9}, None, 9),
        ({}, {"sequence_number": "x"}, None, None),
        ({}, {}, None, None),
    ],
)
def test_a_frame_without_stamp_and_number_has_that_of_its_message(media, message, stamp, number):
    """Which counts other messages too, so it says the order and nothing else."""
    frame = told(TWILIO, event="media", media={"payload": PAYLOAD, **media}, **message)
    assert frame == Media(track="inbound", payload=AUDIO, timestamp_ms=stamp, number=number)


def test_a_telnyx_call():
    """Telnyx names streams outside `start`, says nothing about tracks, and takes the encoding of the line."""
    start = {
        "user_id": "3e6f995f",
        "call_control_id": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLiz",
        "from": "+13122010094",
        "media_format": {"encoding": "PCMA", "sample_rate": 8000, "channels": 1},
        "custom_parameters": {"language": "de"},
    }
    assert told(TELNYX, event="start", sequence_number="1", start=start, stream_id="32de0dea") == Started(
        call_id=start["call_control_id"],
        tracks=(),
        encoding="alaw",
        sample_rate=8000,
        parameters={"language": "de"},
        metadata={"call_control_id": start["call_control_id"], "stream_id": "32de0dea"},
    )
    media = {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": PAYLOAD}
    assert told(TELNYX, event="media", sequence_number="4", media=media, stream_id="32de0dea") == Media(
        track="inbound", payload=AUDIO, timestamp_ms=20, number=2
    )
    assert told(TELNYX, event="error", payload={"code": 100003, "title": "malformed_frame"}) == Ignored()


@pytest.mark.parametrize("headers", ["language=en;metadata.desk=7", "language=en, metadata.desk=7"])
def test_a_plivo_call(headers):
    """Plivo puts headers beside `start` as one text, and stamps by the clock on the wall; its numbers are numbers."""
    start = {
        "callId": "c1",
        "streamId": "s1",
        "accountId": "MA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-l16", "sampleRate": 16000},
    }
    assert told(PLIVO, event="start", sequenceNumber=1, start=start, extra_headers=headers) == Started(
        call_id="c1",
        tracks=("inbound",),
        encoding="pcm",
        sample_rate=16000,
        parameters={"language": "en", "metadata.desk": "7"},
        metadata={"callId": "c1", "streamId": "s1"},
    )
    media = {"track": "inbound", "timestamp": "1705312200000", "chunk": 41, "payload": PAYLOAD}
    assert told(PLIVO, event="media", sequenceNumber=42, streamId="s1", media=media) == Media(
        track="inbound", payload=AUDIO, timestamp_ms=1_705_312_200_000, number=41
    )


def test_a_vonage_call():
    """Vonage describes the audio in one JSON frame, with the caller's headers beside it, and sends bare samples."""
    event = told(
        VONAGE,
        event="websocket:connected",
        **{"content-type": "audio/l16;rate=16000", "uuid": "aaaa-bbbb", "language": "en", "metadata": {"desk": 7}},
    )
    assert isinstance(event, Started)
    assert (event.call_id, event.encoding, event.sample_rate) == ("aaaa-bbbb", "pcm", 16000)
    assert event.parameters["language"] == "en"
    assert json.loads(event.parameters["metadata"]) == {"desk": 7}
    assert read(VONAGE, AUDIO) == Media(track="inbound", payload=AUDIO)
    assert told(VONAGE, event="websocket:dtmf", digit="5", duration=260) == Ignored()


def test_an_exotel_call():
    """Exotel writes rates as text and sends linear samples, under whatever name."""
    start = {
        "stream_sid": "s1",
        "call_sid": "c1",
        "account_sid": "a1",
        "custom_parameters": {"language": "hi"},
        "media_format": {"encoding": "base64", "sample_rate": "16000", "bit_rate": "256kbps"},
    }
    assert told(EXOTEL, event="start", sequence_number=1, stream_sid="s1", start=start) == Started(
        call_id="c1",
        tracks=(),
        encoding="pcm",
        sample_rate=16000,
        parameters={"language": "hi"},
        metadata={"call_sid": "c1", "stream_sid": "s1"},
    )
    media = {"chunk": 2, "timestamp": "100", "payload": PAYLOAD}
    assert told(EXOTEL, event="media", sequence_number=3, stream_sid="s1", media=media) == Media(
        track="inbound", payload=AUDIO, timestamp_ms=100, number=2
    )
    stop = {"call_sid": "c1", "account_sid": "a1", "reason": "callended"}
    assert told(EXOTEL, event="stop", sequence_number=9, stream_sid="s1", stop=stop) == Stopped()


@pytest.mark.parametrize(
    ("dialect", "encoding", "way_out"),
    [(TELNYX, "L16", "PCMU or PCMA"), (TELNYX, "OPUS", "PCMU or PCMA"), (PLIVO, "opus", "PCMU or PCMA or L16")],
)
def test_an_encoding_that_is_not_taken_says_which_are(dialect, encoding, way_out):
    """A stream that could only become noise is refused, with what to set."""
    described = {"encoding": encoding, "sample_rate": 16000, "sampleRate": 16000}
    event = told(dialect, event="start", start={"media_format": described, "mediaFormat": described})
    assert isinstance(event, Unreadable)
    assert way_out in event.reason


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '{"event": 7}',
        '{"event": "media"}',
        '{"event": "media", "media": []}',
        '{"event": "media", "media": {}}',
        '{"event": "media", "media": {"payload": 7}}',
        '{"event": "media", "media": {"track": "sideways", "payload": "AAAA"}}',
        '{"event": "media", "media": {"payload": "no base64"}}',
        '{"event": "media", "media": {"payload": "AAA"}}',
        '{"event": "media", "media": {"payload": "\\ud800"}}',
        b"\x00\x01",
        json.dumps({"event": "start", "start": {"callSid": "C" * 300, "mediaFormat": {"encoding": "audio/x-mulaw"}}}),
    ],
)
def test_what_breaks_the_format_is_named_without_quoting_it(frame):
    """A bad frame is an answer and not an exception, and says in our own words what is wrong."""
    event = read(TWILIO, frame)
    assert isinstance(event, Unreadable)
    assert "no base64" not in event.reason
    assert "CCC" not in event.reason


def test_digits_that_a_caller_presses_are_kept_nowhere():
    """They may be the number of a card: the event that stands for them has no field to hold one."""
    for dialect in DIALECTS:
        assert repr(told(dialect, event="dtmf", dtmf={"digit": "4"})) == "Ignored()"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    ["event", "start", "media", "payload", "tracks", "callSid", "mediaFormat", "media_format", "extra_headers",
     "custom_parameters", "customParameters", "encoding", "sampleRate", "timestamp", "chunk", "track", "content-type"]
)  # fmt: skip
messages = st.dictionaries(fields, json_values | st.dictionaries(fields, json_values, max_size=6), max_size=6)


@given(
    st.sampled_from(DIALECTS),
    messages,
    st.sampled_from(["start", "websocket:connected", "media", "stop", "other"]),
    st.booleans(),
)
def test_no_message_whatever_raises(dialect, message, event, named):
    """Any JSON gives one of the events."""
    frame = json.dumps(message | ({"event": event} if named else {}))
    assert isinstance(read(dialect, frame), Started | Media | Stopped | Ignored | Unreadable)


@given(st.sampled_from(DIALECTS), st.text() | st.binary())
def test_no_frame_whatever_raises(dialect, frame):
    """Any frame gives one of the events."""
    assert isinstance(read(dialect, frame), Started | Media | Stopped | Ignored | Unreadable)
