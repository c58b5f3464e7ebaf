"""RTP packets are read as RFC 3550 lays them out, and whatever else arrives on a port is let go without an error."""

from struct import pack

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire.rtp import COMFORT_NOISE, MAX_DATAGRAM_BYTES, Goodbye, PayloadFormat, payload_formats, read, samples

RTCP_SENDER_REPORT = pack("!BBH", 0x80, 200, 6) + bytes(24)


def packet(payload=b"", *, first=0x80, kind=0, sequence=7, timestamp=160, ssrc=0xABCD, behind_header=b""):
    return pack("!BBHII", first, kind, sequence, timestamp, ssrc) + behind_header + payload


def goodbye(*ssrcs):
    return pack("!BBH", 0x80 | len(ssrcs), 203, len(ssrcs)) + b"".join(pack("!I", ssrc) for ssrc in ssrcs)


def test_a_packet_gives_its_header_and_payload():
    """The marker bit is not part of the payload type."""
    got = read(packet(b"sound", kind=0x80 | 8, sequence=65535, timestamp=2**32 - 1))
    assert (got.payload_type, got.sequence, got.timestamp, got.ssrc) == (8, 65535, 2**32 - 1, 0xABCD)
    assert got.payload == b"sound"


@pytest.mark.parametrize(
    ("first", "behind_header", "behind_payload"),
    [
        (0x83, bytes(12), b""),
        (0x90, pack("!HH", 0xBEDE, 2) + bytes(8), b""),
        (0xA0, b"", b"\0\0\3"),
        (0xB2, bytes(8) + pack("!HH", 1, 0), b"\1"),
    ],
    ids=["contributors", "extension", "padding", "all of them"],
)
def test_what_surrounds_the_payload_is_no_audio(first, behind_header, behind_payload):
    """Contributing sources, a header extension and padding are taken off."""
    assert read(packet(b"sound" + behind_payload, first=first, behind_header=behind_header)).payload == b"sound"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        packet()[:11],
        packet(first=0x40),
        packet(first=0x8F),
        packet(first=0x90, behind_header=b"\0\0\0"),
        packet(first=0x90, behind_header=pack("!HH", 0, 9)),
        packet(b"abc\x00", first=0xA0),
        packet(b"abc\x05", first=0xA0),
        packet(bytes(MAX_DATAGRAM_BYTES)),
        RTCP_SENDER_REPORT,
        RTCP_SENDER_REPORT[:-1],
        goodbye(1)[:-1],
        b"INVITE sip:me@here SIP/2.0\r\n\r\n",
    ],
)
def test_other_datagrams_are_nothing(datagram):
    """Cut headers, lengths beyond the end, other versions, other protocols and reports give no packet."""
    assert read(datagram) is None


@given(st.binary(max_size=80), st.integers(0x80, 0xBF))
def test_no_bytes_raise_an_error(body, first):
    """Reading never fails, and a payload is never longer than its datagram."""
    datagram = bytes([first]) + body
    got = read(datagram)
    assert got is None or isinstance(got, Goodbye) or len(got.payload) <= len(datagram) - 12


def test_a_goodbye_on_the_same_port_names_its_streams():
    """It is found behind a report, as compound packets have it, and counted by its header."""
    assert read(goodbye(5)) == Goodbye((5,))
    assert read(RTCP_SENDER_REPORT + goodbye(5, 6) + goodbye(7)) == Goodbye((5, 6, 7))
    assert read(pack("!BBH", 0x81, 203, 3) + pack("!I", 5) + b"\4over\0\0\0") == Goodbye((5,))


def test_settings_add_payload_types_and_change_static_ones():
    """A dynamic type gets a codec and a rate, an event type gets no sound, and 11 can mean what Asterisk means."""
    table = payload_formats(["96=l16/16000", "101=telephone-event", "11=L16/8000"])
    assert table[96] == PayloadFormat("L16", 16000)
    assert table[11] == PayloadFormat("L16", 8000)
    assert table[0] == PayloadFormat("PCMU")
    assert table[101] is None
    assert table[COMFORT_NOISE] is None
    assert 102 not in table


@pytest.mark.parametrize(("name", "codec"), [("PCMU", "pcm_mulaw"), ("PCMA", "pcm_alaw"), ("L16", "pcm_s16be")])
def test_payloads_decode_as_ffmpeg_decodes_them(name, codec):
    """Every code of each format gives FFmpeg's sample."""
    payload = bytes(range(256))
    context = av.CodecContext.create(codec, "r")
    context.sample_rate, context.layout = 8000, "mono"
    (frame,) = context.decode(av.Packet(payload))
    assert np.array_equal(samples(payload, PayloadFormat(name)), frame.to_ndarray().ravel())


def test_an_odd_byte_of_linear_audio_is_left_out():
    """Half a sample shifts nothing."""
    assert samples(b"\x01\x02\x03", PayloadFormat("L16")).tolist() == [0x0102]
