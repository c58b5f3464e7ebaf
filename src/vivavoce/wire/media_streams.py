"""Media streams of telephone networks, pure: WebSocket frames in, what they mean out.

Twilio made the form that the others took over with a spelling of their own: JSON objects with an `event`, namely
`connected`, `start` (which call, which tracks, which encoding, the caller's own parameters), `media` (base64 audio of
one track), `mark` and `dtmf`, and `stop`. Vonage sends one JSON object about the format and then bare audio as binary
frames. A `Dialect` is one network's spelling, and `read` gives the same few events for all of them. What a frame holds
beyond them is passed over: the formats grow, and a new event must not end a call. Keys that a caller presses come as
`Ignored`, without the digits, since those may be the number of a card.

The formats as published, read in November 2026:

* Twilio: https://www.twilio.com/docs/voice/media-streams/websocket-messages
* Telnyx: https://developers.telnyx.com/docs/voice/programmable-voice/media-streaming
* Plivo: https://www.plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference
* Vonage: https://developer.vonage.com/en/voice/voice-api/guides/websockets
* Exotel: https://developer.exotel.com/docs/agentstream/stream-voicebot-applet

Numbers come as JSON numbers or as text, by network and by year; both are read. Linear samples are 16 bit,
little-endian.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

from vivavoce.wire.tracks import INBOUND, TRACKS, Media

MAX_ID_CHARS = 256

Encoding = Literal["ulaw", "alaw", "pcm"]

_LAWS: tuple[tuple[str, Encoding], ...] = (("ulaw", "ulaw"), ("pcmu", "ulaw"), ("alaw", "alaw"), ("pcma", "alaw"))
_LINEAR = ("l16", "slin", "linear16", "pcm")
_RATE = re.compile(r";\s*rate=(\d{1,6})\b", re.ASCII)
_SEQUENCES = ("sequenceNumber", "sequence_number")
_PAIR = re.compile(r"[;,]\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A stream begins; without a `call_id` the network names no call, without `tracks` it does not say which come."""

    call_id: str
    tracks: tuple[str, ...]
    encoding: Encoding
    sample_rate: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream or the call is over."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event without audio: a greeting, a mark, a pressed key, or one that is not known."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that breaks the format; the reason quotes nothing of it."""

    reason: str


StreamEvent = Started | Media | Stopped | Ignored | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one network spells its stream.

    `call` and `ids` are fields of `start`, or of the message around it; `ids` go into the session's metadata under
    these names. `linear` and `laws` say which encodings are taken, `otherwise` what one that is not known means. Where
    `stops` is false, nothing tells that a call is over but a socket that is closed in good order.
    """

    name: str
    call: str
    ids: tuple[str, ...]
    start: str = "start"
    format: str = "media_format"
    rate: str = "sample_rate"
    parameters: str = "custom_parameters"
    laws: bool = True
    linear: bool = True
    otherwise: Encoding | None = None
    binary: bool = False
    stops: bool = True


TWILIO = Dialect(
    name="twilio",
    call="callSid",
    ids=("callSid", "streamSid"),
    format="mediaFormat",
    rate="sampleRate",
    parameters="customParameters",
    linear=False,
)
TELNYX = Dialect(
    name="telnyx",
    call="call_control_id",
    ids=("call_control_id", "stream_id"),
    linear=False,  # its L16 is described nowhere down to the order of the bytes
)
PLIVO = Dialect(
    name="plivo",
    call="callId",
    ids=("callId", "streamId"),
    format="mediaFormat",
    rate="sampleRate",
    parameters="extra_headers",
    stops=False,
)
VONAGE = Dialect(
    name="vonage",
    call="uuid",
    ids=("uuid", "conversation_uuid"),
    start="websocket:connected",
    laws=False,
    binary=True,
    stops=False,
)
EXOTEL = Dialect(name="exotel", call="call_sid", ids=("call_sid", "stream_sid"), otherwise="pcm")

DIALECTS = (TWILIO, TELNYX, PLIVO, VONAGE, EXOTEL)


def read(dialect: Dialect, frame: str | bytes) -> StreamEvent:
    """Give what one frame of a network's stream means; never raises."""
    if isinstance(frame, bytes):
        known = dialect.binary
        return Media(track=INBOUND, payload=frame) if known else Unreadable("a binary frame; send JSON text frames")
    try:
        message = from_json(frame)
    except ValueError:
        return Unreadable("a text frame that is not JSON")
    event = message.get("event") if isinstance(message, dict) else None
    match event:
        case dialect.start:
            return _started(dialect, message)
        case "media":
            return _media(message)
        case "stop":
            return Stopped()
    return Ignored() if isinstance(event, str) else Unreadable("a message without an event")


def _started(dialect: Dialect, message: Mapping[str, Any]) -> Started | Unreadable:
    inner = message.get("start")
    start: Mapping[str, Any] = {**message, **(inner if isinstance(inner, dict) else {})}
    named, rate = _format(dialect, start)
    encoding = _encoding(dialect, named)
    if encoding is None:
        taken = [name for name, wanted in (("PCMU or PCMA", dialect.laws), ("L16", dialect.linear)) if wanted]
        return Unreadable(f"an encoding that is not taken here; set the stream's to {' or '.join(taken)}")
    ids = {name: value for name in dialect.ids if (value := start.get(name)) and isinstance(value, str)}
    if any(len(value) > MAX_ID_CHARS for value in ids.values()):
        return Unreadable(f"a call or a stream whose name is longer than {MAX_ID_CHARS} characters")
    return Started(
        call_id=ids.get(dialect.call, ""),
        tracks=(INBOUND,) if dialect.binary else _tracks(start.get("tracks")),
        encoding=encoding,
        sample_rate=rate,
        parameters=_parameters(dialect, start),
        metadata=ids,
    )


def _format(dialect: Dialect, start: Mapping[str, Any]) -> tuple[str, int]:
    """Give the encoding's name and the sample rate; the rate of telephones where none is stated."""
    if dialect.binary:
        named = str(start.get("content-type", ""))
        rate = _RATE.search(named)
        return named, int(rate[1]) if rate else 8_000
    described = start.get(dialect.format)
    described = described if isinstance(described, dict) else {}
    return str(described.get("encoding", "")), _whole(described.get(dialect.rate)) or 8_000


def _encoding(dialect: Dialect, named: str) -> Encoding | None:
    name = named.lower()
    law = next((encoding for part, encoding in _LAWS if part in name), None)
    if law is not None:
        return law if dialect.laws else None
    if any(part in name for part in _LINEAR):
        return "pcm" if dialect.linear else None
    return dialect.otherwise


def _tracks(named: Any) -> tuple[str, ...]:
    names = {str(name).removesuffix("_track") for name in named} if isinstance(named, list) else set()
    return tuple(track for track in TRACKS if track in names)


def _parameters(dialect: Dialect, start: Mapping[str, Any]) -> dict[str, str]:
    """Give what the call's owner attached to the stream."""
    given: Any = start if dialect.binary else start.get(dialect.parameters)
    if isinstance(given, str):
        pairs = (pair.partition("=") for pair in _PAIR.split(given))
        given = {name.strip(): value.strip() for name, _, value in pairs}
    given = given if isinstance(given, dict) else {}
    return {name: _text(value) for name, value in given.items() if name and value is not None}


def _media(message: Mapping[str, Any]) -> Media | Unreadable:
    media = message.get("media")
    if not isinstance(media, dict):
        return Unreadable("a media message without media")
    track = str(media.get("track", INBOUND)).removesuffix("_track")
    if track not in TRACKS:
        return Unreadable("a media message of an unknown track")
    try:
        payload = a2b_base64(media["payload"], strict_mode=True)
    except (KeyError, TypeError, ValueError):
        return Unreadable("a media message whose payload is not base64")
    stamp, number = _whole(media.get("timestamp")), _whole(media.get("chunk"))
    if stamp is None and number is None:
        # Of all messages of the stream, so others may be missing between two frames.
        number = next((_whole(message[name]) for name in _SEQUENCES if name in message), None)
    return Media(track=track, payload=payload, timestamp_ms=stamp, number=number)


def _whole(value: Any) -> int | None:
    """Read a whole number, written as one or as text; None for anything else."""
    if isinstance(value, str) and len(value) <= 20 and value.isdecimal() and value.isascii():  # noqa: PLR2004 - 64 bits
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
