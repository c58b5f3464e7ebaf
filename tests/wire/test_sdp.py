"""SDP: which audio of an offer is taken and how that is said, and why an offer is refused."""

from __future__ import annotations

import pytest
from aiosipua.sdp import parse_sdp, serialize_sdp

from vivavoce.errors import Unsupported
from vivavoce.wire.rtp import PayloadFormat
from vivavoce.wire.sdp import answer_to, first_offer, offer_again, sdp_of, terms_of

HEAD = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
AUDIO = "m=audio 4000 RTP/AVP 0"


def said(*lines: str):
    return parse_sdp(HEAD + "".join(f"{line}\r\n" for line in lines))


def streams(sdp) -> list[str]:
    return [line for line in serialize_sdp(sdp).splitlines() if line.startswith("m=")]


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        (["m=audio 4000 RTP/AVP 9 8 0"], ["m=audio 9000 RTP/AVP 8"]),
        (["m=audio 4000 RTP/AVPF 0"], ["m=audio 9000 RTP/AVPF 0"]),
        (["m=audio 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/8000"], ["m=audio 9000 RTP/AVP 96"]),
        (["m=audio 4000 RTP/AVP 18 96", "a=rtpmap:96 pcma/8000/1"], ["m=audio 9000 RTP/AVP 96"]),
        (
            ["m=audio 4000 RTP/AVP 101 97", "a=rtpmap:101 PCMU/8000", "a=rtpmap:97 telephone-event/8000"],
            ["m=audio 9000 RTP/AVP 101 97"],
        ),
        (
            ["m=audio 4000 RTP/SAVP 0", "m=video 4002 RTP/AVP 96", AUDIO],
            ["m=audio 0 RTP/SAVP 0", "m=video 0 RTP/AVP 96", "m=audio 9000 RTP/AVP 0"],
        ),
        (["m=audio 0 RTP/AVP 0", AUDIO], ["m=audio 0 RTP/AVP 0", "m=audio 9000 RTP/AVP 0"]),
    ],
    ids=["first codec", "feedback", "dynamic", "one channel", "events", "not encrypted", "not turned off"],
)
def test_the_first_plain_audio_in_a_codec_of_ours_is_taken_and_all_else_declined(offer, answer):
    """Each stream is answered in its place, with port 0 where it is not taken."""
    assert streams(answer_to(said(*offer), "192.0.2.1", 9000)) == answer


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        (["m=audio 4000 RTP/SAVP 0"], "audio over RTP/SAVP is not taken, only over RTP/AVP; turn SRTP off"),
        (["m=audio 4000 UDP/TLS/RTP/SAVPF 0"], "audio over UDP/TLS/RTP/SAVPF is not taken"),
        (["m=audio 0 RTP/AVP 0"], "its port is 0"),
        (["m=audio 4000 RTP/AVP 9 18"], "audio in G722, G729 is not taken, only in PCMU or PCMA"),
        (["m=audio 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/16000"], "only in PCMU or PCMA"),
        (["m=audio 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/8000/2"], "only in PCMU or PCMA"),
        (["m=video 4000 RTP/AVP 96"], "no audio"),
    ],
    ids=["SRTP", "DTLS", "port 0", "codec", "rate", "stereo", "no audio"],
)
def test_a_refusal_says_why(offer, why):
    """Nothing encrypted is ever taken for speech, and the caller learns what would be."""
    with pytest.raises(Unsupported, match=why):
        answer_to(said(*offer), "192.0.2.1", 9000)
    with pytest.raises(Unsupported, match=why):
        terms_of(said(*offer))


@pytest.mark.parametrize(
    ("lines", "ours", "on_hold"),
    [
        ([AUDIO], "recvonly", False),
        ([AUDIO, "a=sendonly"], "recvonly", False),
        ([AUDIO, "a=recvonly"], "inactive", True),
        ([AUDIO, "a=inactive"], "inactive", True),
        (["a=inactive", AUDIO], "inactive", True),
        (["a=inactive", AUDIO, "a=sendrecv"], "recvonly", False),
        ([AUDIO, "c=IN IP4 0.0.0.0"], "recvonly", True),
    ],
)
def test_we_only_receive_and_a_caller_who_sends_nothing_is_on_hold(lines, ours, on_hold):
    """A direction may be said for one stream or for all; older telephones hold by an address that is none."""
    (audio,) = answer_to(said(*lines), "192.0.2.1", 9000).media
    assert audio.direction == ours
    assert terms_of(said(*lines)).on_hold is on_hold


def test_the_terms_are_where_the_audio_comes_from_and_what_its_types_mean():
    """Codecs that are not taken carry no speech; static types keep their meaning."""
    types = ["a=rtpmap:96 opus/48000/2", "a=rtpmap:97 PCMA/8000"]
    terms = terms_of(said("m=audio 4000 RTP/AVP 0 96 97", "c=IN IP4 192.0.2.7", *types))
    assert terms.host == "192.0.2.7"
    assert terms.formats == {96: None, 97: PayloadFormat("PCMA")}


def test_an_offer_of_ours_names_both_codecs_and_a_later_one_goes_on_with_what_was_agreed():
    """Within a call no stream goes missing or changes its place, and hold is over."""
    first = first_offer("192.0.2.1", 9000)
    assert streams(first) == ["m=audio 9000 RTP/AVP 0 8 101"]
    held = answer_to(said("m=video 4002 RTP/AVP 96", "m=audio 4000 RTP/AVP 8", "a=inactive"), "192.0.2.1", 9000)
    again = offer_again(held)
    assert streams(again) == streams(held) == ["m=video 0 RTP/AVP 96", "m=audio 9000 RTP/AVP 8"]
    assert [first.audio.direction, held.audio.direction, again.audio.direction] == ["recvonly", "inactive", "recvonly"]


def test_sdp_is_read_by_its_type_and_what_cannot_be_read_is_said():
    """A message without a body, or with another's, brings no offer."""
    body = HEAD + AUDIO
    assert terms_of(sdp_of("Application/SDP; charset=utf-8", body)).host == "192.0.2.9"
    assert sdp_of("application/sdp", "") is sdp_of("text/plain", body) is sdp_of(None, body) is None
    with pytest.raises(Unsupported, match="cannot be read"):
        sdp_of("application/sdp", body.replace("4000", "x"))
