"""The WebSocket channel driver of Asterisk (chan_websocket), pure: its text frames become events.

Audio comes as binary frames, bare samples in the format that the channel was dialled with. Text frames are control
messages in one of two forms: a line of a name and `key:value` pairs, or a JSON object with `event`, which Asterisk
20.18, 22.8 and 23.2 brought and which also holds the channel's variables. The first is MEDIA_START, with the format;
of the rest only the caller's digits matter here, since they are about audio that is sent to Asterisk. The driver fills
in silence where it is sent none, so nothing is sent to it.

Published at docs.asterisk.org, Configuration / Channel Drivers / WebSocket. Observed of Asterisk 22.10: slin is
little-endian on the machines it runs on, and a hang-up closes the socket with 1000.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from vivavoce.model import AudioFormat

SUBPROTOCOL = "media"
"""What the driver's documentation calls the sub-protocol; any other that a client asks for does as well."""

VARIABLE_PREFIX = "VIVAVOCE_"
"""Channel variables that begin so are session options: VIVAVOCE_LANGUAGE is `language`."""

MAX_CONTROL_CHARS = 65_536
"""A longer control message is refused unread; Asterisk's own are a few hundred, and variables more."""

_FORMATS: dict[str, AudioFormat] = {
    "ulaw": AudioFormat(encoding="ulaw", bit_depth=8, sample_rate=8_000),
    "alaw": AudioFormat(encoding="alaw", bit_depth=8, sample_rate=8_000),
    "slin": AudioFormat(sample_rate=8_000),
    "slin12": AudioFormat(sample_rate=12_000),
    "slin16": AudioFormat(sample_rate=16_000),
    "slin24": AudioFormat(sample_rate=24_000),
    "slin32": AudioFormat(sample_rate=32_000),
    "slin44": AudioFormat(sample_rate=44_100),
    "slin48": AudioFormat(sample_rate=48_000),
}
"""Formats by Asterisk's names; those above 48 kHz and compressed ones are none that a session can have."""

_PLAIN_NAME = re.compile(r"[A-Z][A-Z_]{0,63}")
_MAX_SHOWN_CHARS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaStart:
    """The channel is there, and its audio follows in `audio`.

    `channel_id` is unique as long as Asterisk runs, and the channel's name where an older Asterisk does not say it;
    `connection` is what `websocket_client.conf` calls this server. `options` are the session options among the
    channel's variables, by their names in lower case.
    """

    channel_id: str
    channel: str
    connection: str
    audio: AudioFormat
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Digit:
    """A key that the caller pressed."""

    key: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A control message that asks for nothing, such as MEDIA_XOFF or STATUS; names to come are notices too."""

    name: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A text frame that is no control message, or one that cannot be followed.

    `reason` holds nothing of its text but the beginning of a format's name.
    """

    reason: str


Control = MediaStart | Digit | Notice | Malformed


def read_control(text: str) -> Control:
    """Read one text frame, in either form; never raises."""
    if len(text) > MAX_CONTROL_CHARS:
        return Malformed(f"a control message of {len(text)} characters; the most is {MAX_CONTROL_CHARS}")
    fields = _json_fields(text) if text.lstrip().startswith("{") else _plain_fields(text)
    match fields:
        case None:
            return Malformed("a text frame that is no control message")
        case {"event": "MEDIA_START"}:
            return _media_start(fields)
        case {"event": "DTMF_END", "digit": str(digit)} if len(digit) == 1:
            return Digit(digit)
        case {"event": str(name)}:
            return Notice(name)
        case _:
            return Malformed("a control message without a name")


def _media_start(fields: Mapping[str, Any]) -> Control:
    name = fields.get("format")
    audio = _FORMATS.get(name) if isinstance(name, str) else None
    if audio is None:
        shown = repr(name)[:_MAX_SHOWN_CHARS] if name else "none"
        return Malformed(f"MEDIA_START with format {shown}; dial with one of {', '.join(_FORMATS)}, as in c(slin16)")
    channel, connection = _text(fields, "channel"), _text(fields, "connection_id")
    identity = _text(fields, "channel_id") or channel or connection
    if not identity:
        return Malformed("MEDIA_START without channel_id, channel and connection_id")
    variables = fields.get("channel_variables")
    options = {
        key.removeprefix(VARIABLE_PREFIX).lower(): value
        for key, value in (variables if isinstance(variables, dict) else {}).items()
        if key.startswith(VARIABLE_PREFIX) and isinstance(value, str)
    }
    return MediaStart(channel_id=identity, channel=channel, connection=connection, audio=audio, options=options)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _json_fields(text: str) -> Mapping[str, Any] | None:
    try:
        fields = from_json(text)
    except (ValueError, TypeError):  # TypeError: lone surrogates
        return None
    return fields if isinstance(fields, dict) else None


def _plain_fields(text: str) -> Mapping[str, Any] | None:
    """Read a name and `key:value` pairs; a value ends at a blank, and may hold colons."""
    name, *pairs = text.split() or [""]
    if not _PLAIN_NAME.fullmatch(name):
        return None
    fields = {key: value for key, colon, value in (pair.partition(":") for pair in pairs) if colon}
    return {**fields, "event": name}
