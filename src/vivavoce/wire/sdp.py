"""SDP of telephone calls: an offer → our answer and what was agreed, or why there is no answer; pure (RFC 3264).

Of the audio streams that an offer names the first is taken that has a port, is not encrypted and comes in PCMU or
PCMA, under whatever payload type; every other stream is answered with port 0. We send nothing, so what we say is
`recvonly`, or `inactive` where the other side sends nothing either.

Where the other side leaves the offer to us, the first names both codecs, and a later one repeats what was agreed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aiosipua.sdp import Codec, MediaDescription, SdpMessage, parse_sdp
from aiosipua.sdp_negotiate import build_sdp, negotiate_sdp

from vivavoce.errors import Unsupported
from vivavoce.wire.rtp import EVENTS, STATIC_FORMATS, PayloadFormat

PROFILES = ("RTP/AVP", "RTP/AVPF")
"""Unencrypted RTP, with feedback and without."""

SAMPLE_RATE = 8000
"""Of both codecs, in Hz."""

MAX_NAMED_CHARS = 100
"""Of an offer's own words, what is repeated in the reason of a refusal."""

_PCMU, _PCMA = 0, 8
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_SENDING = {"sendrecv", "sendonly"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the other side's audio comes: from `host`, empty where it names none, or not at all while `on_hold`.

    `formats` say what its payload types mean, None for those that carry no speech.
    """

    host: str
    on_hold: bool
    formats: Mapping[int, PayloadFormat | None]


def sdp_of(content_type: str | None, body: str) -> SdpMessage | None:
    """Read the SDP of a message, None where it brings none; raises `Unsupported` for SDP that cannot be read."""
    if not body or (content_type or "").partition(";")[0].strip().lower() != "application/sdp":
        return None
    try:
        return parse_sdp(body)
    except ValueError:
        raise Unsupported("the SDP cannot be read") from None


def terms_of(said: SdpMessage) -> Terms:
    """Give what the other side's offer or answer says; raises `Unsupported` where it has no audio that we take."""
    audio = _audio_of(said)
    where = audio.connection or said.connection
    host = where.address if where else ""
    return Terms(
        host=host,
        on_hold=_direction(said, audio) not in _SENDING or host == "0.0.0.0",  # noqa: S104 - how older telephones hold (RFC 2543)
        formats={
            codec.payload_type: _format(codec) for codec in audio.codecs if codec.payload_type not in STATIC_FORMATS
        },
    )


def answer_to(offer: SdpMessage, address: str, port: int) -> SdpMessage:
    """Answer an offer: its audio is taken at `address` and `port`; raises `Unsupported` where it has none for us."""
    audio = _audio_of(offer)
    taken = [codec.payload_type for codec in audio.codecs if _format(codec)]
    events = (codec.payload_type for codec in audio.codecs if codec.encoding_name.lower() == EVENTS)
    answer, _ = negotiate_sdp(
        replace(offer, media=[audio]), address, port, taken, dtmf_payload_type=next(events, 0), session_id=str(port)
    )
    (ours,) = answer.media
    _set_direction(ours, "recvonly" if _direction(offer, audio) in _SENDING else "inactive")
    answer.media = [ours if each is audio else _declined(each) for each in offer.media]
    return answer


def first_offer(address: str, port: int) -> SdpMessage:
    """Give an offer to take audio at `address` and `port`."""
    offer = build_sdp(address, port, _PCMU, "PCMU", SAMPLE_RATE, session_id=str(port))
    (audio,) = offer.media
    audio.formats.insert(1, str(_PCMA))
    audio.attributes["rtpmap"].insert(1, f"{_PCMA} PCMA/{SAMPLE_RATE}")
    _set_direction(audio, "recvonly")
    return offer


def offer_again(ours: SdpMessage) -> SdpMessage:
    """Give an offer to go on as in the last SDP of ours, with audio, also where the call was on hold.

    It has all streams of that one in their order, as an offer within a call must.
    """
    media = [replace(each, attributes=dict(each.attributes)) for each in ours.media]
    for each in media:
        if each.port:
            _set_direction(each, "recvonly")
    return replace(ours, origin=replace(ours.origin), media=media)


def _audio_of(said: SdpMessage) -> MediaDescription:
    """Give the stream that is taken."""
    streams = [each for each in said.media if each.media == "audio"]
    problems = [_problem(each) for each in streams]
    for stream, problem in zip(streams, problems, strict=True):
        if not problem:
            return stream
    raise Unsupported(problems[0] if problems else "there is no audio in the SDP")


def _problem(audio: MediaDescription) -> str:
    if audio.port <= 0:
        return "the audio is turned off: its port is 0"
    if audio.proto.upper() not in PROFILES:
        return f"audio over {audio.proto[:MAX_NAMED_CHARS]} is not taken, only over RTP/AVP; turn SRTP off"
    if not any(_format(codec) for codec in audio.codecs):
        names = ", ".join(codec.encoding_name or str(codec.payload_type) for codec in audio.codecs)
        return f"audio in {names[:MAX_NAMED_CHARS] or 'no codec'} is not taken, only in PCMU or PCMA"
    return ""


def _format(codec: Codec) -> PayloadFormat | None:
    """Give how a codec's payloads are read, None for one that is not taken."""
    name = codec.encoding_name.upper()
    if name not in {"PCMU", "PCMA"} or codec.clock_rate not in {0, SAMPLE_RATE} or (codec.channels or 1) != 1:
        return None
    return PayloadFormat("PCMU" if name == "PCMU" else "PCMA", SAMPLE_RATE)


def _direction(said: SdpMessage, audio: MediaDescription) -> str:
    """Give which way a stream goes, seen from the other side; what is said for all streams holds for each."""
    for attributes in (audio.attributes, said.attributes):
        for direction in _DIRECTIONS:
            if direction in attributes:
                return direction
    return "sendrecv"


def _set_direction(audio: MediaDescription, direction: str) -> None:
    for each in _DIRECTIONS:
        audio.attributes.pop(each, None)
    audio.attributes[direction] = []


def _declined(stream: MediaDescription) -> MediaDescription:
    return MediaDescription(media=stream.media, port=0, proto=stream.proto, formats=list(stream.formats))
