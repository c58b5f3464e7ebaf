"""Domain facts a session reports; `wire` turns each into one message, and nothing else does.

An event's `kind` is the class of messages that a client can switch off. Durable events are numbered and stored before
anybody sees them; the others (partials, hints at the end of a turn, acknowledgments of audio) are only sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from vivavoce.model import Finding, Kind, Result, Transcript, Utterance


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted:
    """The session exists; never sent on a socket, where clients make this up themselves."""

    kind: ClassVar[Kind] = Kind.LIFECYCLE
    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted:
    """The first audio was taken."""

    kind: ClassVar[Kind] = Kind.LIFECYCLE
    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioAccepted:
    """The journal holds the session's bytes up to `stop_byte`; bounds count from the session's first byte."""

    kind: ClassVar[Kind] = Kind.ACK
    durable: ClassVar[bool] = False
    start_byte: int
    stop_byte: int
    start_s: float
    stop_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRefused:
    """One chunk was not taken, and why; audio before and after it is."""

    kind: ClassVar[Kind] = Kind.ACK
    durable: ClassVar[bool] = False
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAccepted:
    """The client ended its audio."""

    kind: ClassVar[Kind] = Kind.ACK
    durable: ClassVar[bool] = True
    recorded_s: float
    left_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted:
    """Somebody began to speak on a channel."""

    kind: ClassVar[Kind] = Kind.SPEECH
    durable: ClassVar[bool] = True
    channel: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEnded:
    """The speech that the last `SpeechStarted` of this channel announced ended at `at_s`."""

    kind: ClassVar[Kind] = Kind.SPEECH
    durable: ClassVar[bool] = True
    channel: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """An utterance so far; the next one with its id replaces it."""

    kind: ClassVar[Kind] = Kind.PARTIAL
    durable: ClassVar[bool] = False
    utterance: Utterance


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEndLikely:
    """Speech paused at `at_s`, `silence_s` ago; unless it goes on, the utterance will be what its final says."""

    kind: ClassVar[Kind] = Kind.TURN
    durable: ClassVar[bool] = False
    utterance: Utterance
    at_s: float
    silence_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnContinued:
    """The last `TurnEndLikely` of this utterance is withdrawn: speech went on, or the final is in another language."""

    kind: ClassVar[Kind] = Kind.TURN
    durable: ClassVar[bool] = False
    utterance_id: str
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """An utterance that will not change any more; `hidden` are parts of its audio not to be kept, in seconds."""

    kind: ClassVar[Kind] = Kind.FINAL
    durable: ClassVar[bool] = True
    utterance: Utterance
    hidden: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UtteranceExamined:
    """An add-on looked at a final, or failed to."""

    kind: ClassVar[Kind] = Kind.REALTIME
    durable: ClassVar[bool] = True
    utterance: Utterance
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnded:
    """No more audio is taken; every final is out, and what add-ons say of it."""

    kind: ClassVar[Kind] = Kind.LIFECYCLE
    durable: ClassVar[bool] = True
    recorded_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptReady:
    """The whole transcript."""

    kind: ClassVar[Kind] = Kind.POST_PROCESSING
    durable: ClassVar[bool] = True
    transcript: Transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptExamined:
    """An add-on looked at the whole transcript, or failed to."""

    kind: ClassVar[Kind] = Kind.POST_PROCESSING
    durable: ClassVar[bool] = True
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReady:
    """The whole result; the last event of post-processing."""

    kind: ClassVar[Kind] = Kind.POST_PROCESSING
    durable: ClassVar[bool] = True
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """The terminal event."""

    kind: ClassVar[Kind] = Kind.LIFECYCLE
    durable: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something went wrong that the client should hear of; `code` is a `VivavoceError` code."""

    kind: ClassVar[Kind] = Kind.ERROR
    durable: ClassVar[bool] = True
    code: str
    message: str


def key_of(event: Event) -> str:
    """Name what a durable event reports, the same for every time it is reported; empty for what may happen again."""
    match event:
        case StopAccepted() | Problem():
            return ""
        case SpeechStarted() | SpeechEnded():
            return f"{type(event).__name__}/{event.channel}/{event.at_s:.4f}"
        case Final():
            return f"Final/{event.utterance.id}"
        case UtteranceExamined() | TranscriptExamined():
            return event.finding.key
        case _:
            return type(event).__name__


def speech_of(key: str) -> tuple[bool, int, float] | None:
    """Read the key of a speech event: whether speech started, the channel, and when; None for any other key."""
    name, _, rest = key.partition("/")
    if name not in {SpeechStarted.__name__, SpeechEnded.__name__}:
        return None
    channel, _, at_s = rest.partition("/")
    return name == SpeechStarted.__name__, int(channel), float(at_s)


Event = (
    SessionStarted
    | RecordingStarted
    | AudioAccepted
    | AudioRefused
    | StopAccepted
    | SpeechStarted
    | SpeechEnded
    | Partial
    | TurnEndLikely
    | TurnContinued
    | Final
    | UtteranceExamined
    | RecordingEnded
    | TranscriptReady
    | TranscriptExamined
    | ResultReady
    | SessionEnded
    | Problem
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An event as written on a wire: `text` is one JSON object."""

    event: Event
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A durable message with its place in the session; `sent` is false for one that only callbacks asked for or nobody.

    `key` names what it reports, so that a replay does not report it again; `at` is how many bytes were acknowledged
    before it was said, so a client that has seen a later acknowledgment has seen the message.
    """

    seq: int
    key: str
    at: int
    kind: Kind
    created_at: datetime
    text: str
    sent: bool = True
