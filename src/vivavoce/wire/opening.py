"""What two protocols share in which one socket is a whole session: the simple stream and the V1 live API.

There is no init request. The first frame carries the key and the configuration, everything after it is audio until the
client says that it ends, and text comes back on the same socket. Each connection has a `Dialect` of its own, which
translates between its protocol and Gladia's v2: the first frame becomes the body of an init request, and v2 messages
become messages of its own. The session itself knows nothing of that.

A frame that cannot be understood is an answer, never an exception. `Complaint` is told to the client and changes
nothing; `Refusal` is told and ends the connection, with a code out of 4400-4499 where the same would fail again.
Neither protocol can return to a session, so whatever closes the socket also ends the audio; what was said is kept as
usual.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic_core import from_json

from vivavoce.errors import (
    CapacityError,
    InvalidConfig,
    MalformedMessage,
    NotAllowed,
    RequestError,
    VivavoceError,
    reason_of,
)
from vivavoce.wire.live import CloseCode

MAX_CONFIG_CHARS = 64 << 10
"""A longer first frame is refused unread."""

MAX_CHUNK_S = 120.0
"""More audio than this in one frame ends the connection, as in V1."""

_MAX_MESSAGE_CHARS = 2000

Compression = Literal["opus", "mp3", "flac", "amr"]
"""How audio may be packed that has to be unpacked before a session takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A first frame that can be read: the key in it, and the body of an init request.

    With `compression` the request's format is what the audio is to be unpacked to: 16-bit PCM with one channel.
    """

    key: str | None
    request: dict[str, Any]
    compression: Compression | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the connection ends, fit for the client, and the code that it is closed with."""

    code: str
    message: str
    close: CloseCode = CloseCode.BAD_REQUEST


@dataclass(frozen=True, slots=True)
class Complaint:
    """What was wrong with a frame that counts for nothing."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Audio:
    """Audio as the client packed it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The client has no more audio."""


Incoming = Audio | End | Complaint | Refusal


class Dialect(Protocol):
    """One connection's protocol; `at_s` is a clock that never goes back, in seconds from anywhere.

    `key_place` tells a client without a key where to put it.
    """

    key_place: str

    def open(self, frame: str | bytes) -> Opening | Refusal:
        """Read the first frame."""

    def greet(self, session_id: str) -> list[str]:
        """Give what is said once the session exists."""

    def receive(self, frame: str | bytes) -> Incoming:
        """Read a later frame."""

    def took(self, size: int, at_s: float) -> None:
        """Take note that the session has this many more bytes of audio, unpacked."""

    def render(self, message: str, at_s: float) -> list[str]:
        """Give a v2 message as this protocol says it; nothing where it has no word for it."""

    def error(self, code: str, message: str) -> str:
        """Give the message that tells of an error."""


def refusal_of(error: VivavoceError, names: Mapping[str, str]) -> Refusal:
    """Say to a client why its session cannot be opened; `names` are the protocol's own for v2's fields."""
    return Refusal(_code_of(error), reason_of(error, names)[:_MAX_MESSAGE_CHARS], _close_of(error))


def _code_of(error: VivavoceError) -> str:
    match error:
        case InvalidConfig():
            return "bad_config"
        case NotAllowed():
            return "unauthorized"
        case _:
            return error.code


def _close_of(error: VivavoceError) -> CloseCode:
    match error:
        case NotAllowed():
            return CloseCode.UNAUTHORIZED
        case CapacityError():
            # Not 1012, also where the server stops: clients of V1 would try again at once and without limit.
            return CloseCode.NO_ROOM
        case RequestError():
            return CloseCode.BAD_REQUEST
        case _:
            return CloseCode.FAILED


def config_of(frame: str | bytes, what: str) -> dict[str, Any] | Refusal:
    """Read the first frame as a JSON object; `what` names the message that it should be."""
    if isinstance(frame, bytes):
        return Refusal("config_expected", f"the first frame must be {what}, and audio may follow")
    if len(frame) > MAX_CONFIG_CHARS:
        return Refusal("bad_config", f"the first frame must not be longer than {MAX_CONFIG_CHARS} characters")
    config = json_object(frame)
    if isinstance(config, Complaint):
        return Refusal(config.code, f"{config.message}; the first frame must be {what}")
    return config


def json_object(frame: str) -> dict[str, Any] | Complaint:
    """Read a text frame as a JSON object."""
    try:
        message = from_json(frame, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, TypeError):  # TypeError: lone surrogates, which no socket hands over
        return Complaint(MalformedMessage.code, "the message is not valid JSON")
    if not isinstance(message, dict):
        return Complaint(MalformedMessage.code, "the message must be a JSON object")
    return message


def spoken(message: str) -> dict[str, Any]:
    """Give a v2 message of our own as its JSON parsed."""
    parsed: dict[str, Any] = from_json(message, cache_strings="keys")
    return parsed


def written(message: dict[str, Any]) -> str:
    """Give a message as the text of a frame."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def flags(*, partials: bool) -> dict[str, bool]:
    """Give the flags of a session that says finals and errors, partials on demand, and nothing else."""
    return {
        "receive_partial_transcripts": partials,
        "receive_final_transcripts": True,
        "receive_speech_events": False,
        "receive_pre_processing_events": False,
        "receive_realtime_processing_events": False,
        "receive_post_processing_events": False,
        "receive_acknowledgments": False,
        "receive_errors": True,
        "receive_lifecycle_events": False,
    }
