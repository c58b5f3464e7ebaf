"""Asterisk's WebSocket channel driver: both forms of its control messages, as Asterisk 22.10 sends them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.model import AudioFormat
from vivavoce.wire.asterisk import MAX_CONTROL_CHARS, Digit, Malformed, MediaStart, Notice, read_control

PLAIN = (
    "MEDIA_START connection_id:vivavoce channel:WebSocket/vivavoce/0x7f2088002b40 channel_id:1795269677.10 "
    "format:ulaw optimal_frame_size:160 ptime:20"
)
JSON = {
    "event": "MEDIA_START",
    "connection_id": "vivavoce",
    "channel": "WebSocket/vivavoce/0x555593f9f010",
    "channel_id": "1795269677.7",
    "format": "slin16",
    "optimal_frame_size": 640,
    "ptime": 20,
    "channel_variables": {
        "DIALEDPEERNUMBER": "vivavoce/c(slin16)f(json)",
        "VIVAVOCE_LANGUAGE": "en",
        "VIVAVOCE_ENDPOINTING": "0.3",
        "MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE": "640",
    },
}


def started(**changes):
    return read_control(json.dumps({**JSON, **changes}))


def test_the_plain_form_names_channel_and_format():
    """A line of pairs, the older and still default form."""
    assert read_control(PLAIN) == MediaStart(
        channel_id="1795269677.10",
        channel="WebSocket/vivavoce/0x7f2088002b40",
        connection="vivavoce",
        audio=AudioFormat(encoding="ulaw", bit_depth=8, sample_rate=8000),
    )


def test_the_json_form_carries_options_in_channel_variables():
    """Variables that begin with VIVAVOCE_ are session options; the others stay out."""
    start = started()
    assert isinstance(start, MediaStart)
    assert (start.channel_id, start.audio) == ("1795269677.7", AudioFormat(sample_rate=16000))
    assert start.options == {"language": "en", "endpointing": "0.3"}


def test_the_first_releases_name_no_channel_id():
    """Where there is none, the channel's name tells one leg from another."""
    start = read_control(
        "MEDIA_START connection_id:media channel:WebSocket/media/0x55 format:alaw optimal_frame_size:160"
    )
    assert isinstance(start, MediaStart)
    assert start.channel_id == "WebSocket/media/0x55"


@pytest.mark.parametrize(
    ("name", "encoding", "rate"),
    [
        ("ulaw", "ulaw", 8000),
        ("alaw", "alaw", 8000),
        ("slin", "pcm", 8000),
        ("slin12", "pcm", 12000),
        ("slin24", "pcm", 24000),
        ("slin32", "pcm", 32000),
        ("slin44", "pcm", 44100),
        ("slin48", "pcm", 48000),
    ],
)
def test_every_uncompressed_format_up_to_48_khz_is_taken(name, encoding, rate):
    """Asterisk's names stand for an encoding and a rate."""
    start = started(format=name)
    assert isinstance(start, MediaStart)
    assert (start.audio.encoding, start.audio.sample_rate, start.audio.channels) == (encoding, rate, 1)


@pytest.mark.parametrize("name", ["opus", "g722", "slin96", "slin192", "", None, 16, ["ulaw"]])
def test_a_format_that_no_session_has_is_refused_with_the_way_out(name):
    """The reason tells what to dial with."""
    refused = started(format=name)
    assert isinstance(refused, Malformed)
    assert "c(slin16)" in refused.reason


def test_a_digit_is_a_digit_in_both_forms():
    """With the channel's id behind it, or without."""
    assert read_control("DTMF_END digit:5 channel_id:1795269677.10") == Digit("5")
    assert read_control("DTMF_END digit:#") == Digit("#")
    assert read_control('{"event":"DTMF_END","channel_id":"1795269677.7","digit":"*"}') == Digit("*")


@pytest.mark.parametrize(
    "text",
    [
        "MEDIA_XOFF",
        "MEDIA_XON",
        "QUEUE_DRAINED",
        "MEDIA_BUFFERING_COMPLETED one",
        "STATUS queue_length:43 xon_level:800 xoff_level:900 queue_full:false bulk_media:true media_paused:false",
        '{"event":"MEDIA_XOFF","channel_id":"1"}',
        '{"event":"SOME_DAY","channel_id":"1"}',
        "DTMF_END",
    ],
)
def test_what_asks_for_nothing_is_a_notice(text):
    """Notes about audio for Asterisk, and messages that come some day."""
    assert isinstance(read_control(text), Notice)


@pytest.mark.parametrize(
    "text", ["", "hello", "{", "[]", '"MEDIA_START"', "{}", '{"event": 5}', "media_start a:b", "\ud800"]
)
def test_other_text_is_refused(text):
    """Nothing of it is in the reason."""
    refused = read_control(text)
    assert isinstance(refused, Malformed)
    assert "hello" not in refused.reason


def test_endless_text_is_refused_unread():
    """However well it is formed."""
    assert isinstance(read_control(json.dumps(JSON) + " " * MAX_CONTROL_CHARS), Malformed)


def test_a_start_that_names_nothing_is_refused():
    """Two such calls could not be told apart."""
    assert isinstance(started(channel_id="", channel=None, connection_id=7), Malformed)


@given(text=st.one_of(st.text(), st.text().map(lambda rest: "MEDIA_START " + rest)))
def test_no_text_raises(text):
    """Every text frame has an answer."""
    assert isinstance(read_control(text), MediaStart | Digit | Notice | Malformed)


@given(
    body=st.dictionaries(
        st.sampled_from([*JSON, "digit"]),
        st.recursive(
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["MEDIA_START", "ulaw"])
            ),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_no_json_raises(body):
    """Fields of any kind have an answer too."""
    assert isinstance(read_control(json.dumps(body)), MediaStart | Digit | Notice | Malformed)
