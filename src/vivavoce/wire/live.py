"""The live socket, pure: frames in become what a client said, events become messages out.

`receive` reads one frame. Bytes are audio. Text is a JSON object with a `type`: `audio_chunk` carries base64 audio, and
`stop_recording` ends it. A frame that cannot be read is an answer too, never an exception: `BadChunk` where audio was
meant, so that the sender gets a negative acknowledgment, and `BadMessage` elsewhere, which becomes an `error` message.
Either way the session lives on and the frames around it count.

`render` writes one event as one message; the socket, callbacks and the stored result all use it. Any new event needs
its case in `_body`, and the type checker insists on that. A message is always shorter than `MAX_MESSAGE_BYTES`,
since official clients drop the connection at 1 MiB and come back for the same message for ever: the words go
first, then the utterances, then the end of the text. REST keeps all of it.

`CloseCode` says how a socket ends. Clients retry at once and without limit on 1002-4399, and never on 1000, 1001 and
4400-4499; so whatever would fail again closes with 44xx.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, assert_never

from pydantic_core import PydanticSerializationError, from_json, to_json

from vivavoce.errors import MalformedMessage
from vivavoce.events import (
    AudioAccepted,
    AudioRefused,
    Event,
    Final,
    Message,
    Partial,
    Problem,
    RecordingEnded,
    RecordingStarted,
    ResultReady,
    SessionEnded,
    SessionStarted,
    SpeechEnded,
    SpeechStarted,
    StopAccepted,
    TranscriptExamined,
    TranscriptReady,
    TurnContinued,
    TurnEndLikely,
    UtteranceExamined,
)
from vivavoce.model import Feature, Finding, Translation
from vivavoce.wire.result import finding_body, number, result_body, timestamp, transcription_body, utterance_body

MAX_MESSAGE_BYTES = 1_000_000
"""No message is longer, in UTF-8; clients take 1 048 576, and callbacks put an envelope around it."""

_MAX_REASON_CHARS = 500
_MAX_SHOWN_CHARS = 40


class CloseCode(IntEnum):
    """How the server closes a socket, and when."""

    NORMAL = 1000
    """The session is over and its last message is out."""
    TRY_LATER = 1013
    """A watcher cannot be taken now, because there are too many."""
    RESTART = 1012
    """The server goes down; the session survives, so the client is to come back."""
    BAD_REQUEST = 4400
    """What the client sent cannot open a session or a watcher's view of one, or breaks the protocol beyond repair."""
    UNAUTHORIZED = 4401
    """The client's first message has no valid key, or a watcher neither the key of the session's owner nor a token."""
    UNKNOWN_SESSION = 4403
    """No session has this token, or it is over; for watchers, the owner of the key has no such session."""
    TOO_LATE = 4408
    """The first message did not come in time."""
    REPLACED = 4409
    """A newer socket took the session over."""
    NO_ROOM = 4429
    """There is no room for another session of this client now."""
    FAILED = 4450
    """The session failed through no fault of the client, and coming back would not help."""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Audio as bytes; none at all is a sign of life."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StopRecording:
    """The client ends its audio."""


@dataclass(frozen=True, slots=True)
class BadChunk:
    """A chunk without readable audio; `reason` is fit for the negative acknowledgment."""

    reason: str


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A frame that means nothing here; `code` and `reason` are fit for an error message."""

    code: str
    reason: str


Incoming = AudioChunk | StopRecording | BadChunk | BadMessage


def receive(frame: str | bytes) -> Incoming:  # noqa: PLR0911 - one return for each kind of frame
    """Read one frame of a client; never raises.

    Base64 is the standard alphabet without blanks or line ends. Missing padding is forgiven, because what was meant is
    certain; anything else that is not base64 refuses the whole chunk.
    """
    if isinstance(frame, bytes):
        return AudioChunk(frame)
    try:
        # Chunks are never alike, so caching their text would only cost time.
        message = from_json(frame, cache_strings="keys")
    except (ValueError, TypeError):  # TypeError: a str with lone surrogates, which no socket hands over
        return _bad_message("the message is not valid JSON")
    if not isinstance(message, dict):
        return _bad_message("the message must be a JSON object")
    match message.get("type"):
        case "audio_chunk":
            return _chunk(message.get("data"))
        case "stop_recording":
            return StopRecording()
        case str(unknown):
            return _bad_message(f"unknown message type {_shown(unknown)}: send audio_chunk or stop_recording")
        case _:
            return _bad_message("type must be a string")


def render(session_id: str, event: Event, at: datetime) -> Message:
    """Write an event as the message a client gets, shorter than `MAX_MESSAGE_BYTES`; `at` is when it happened."""
    head = {"session_id": session_id, "created_at": timestamp(at)}
    text = ""
    for body in _bodies(event):
        text = _text({"type": body["type"], **head, **body})
        if _size(text) <= MAX_MESSAGE_BYTES:
            break
    return Message(event=event, text=text)


def numbered(text: str, seq: int | None) -> str:
    """Give a message's text as watchers get it, with its `seq` for a first field where it has one."""
    return text if seq is None else f'{{"seq":{seq},{text[1:]}'


def _bodies(event: Event) -> Iterator[dict[str, Any]]:
    """Give an event's body, and then shorter and shorter ones."""
    yield _body(event)
    match event:
        case Partial() | TurnEndLikely() | Final():
            body = _body(event, words=False)
            yield body
            yield from _cut(body, body["data"]["utterance"], "text")
        case UtteranceExamined():
            yield from _shorter_look(event)
        case TranscriptExamined():
            body = _body(event)
            if body["data"] is not None:
                yield from _cut(body, body["data"], "results")
        case TranscriptReady():
            body = _body(event, words=False)
            yield body
            body["data"]["utterances"] = []
            yield body
            yield from _cut(body, body["data"], "full_transcript")
        case ResultReady():
            yield from _shorter_result(event)


def _shorter_look(event: UtteranceExamined) -> Iterator[dict[str, Any]]:
    """Give what an add-on says of an utterance without words, and then with less and less of its longer part."""
    body = _body(event, words=False)
    data = body["data"]
    if data is None:
        return
    yield body
    original = (data["utterance"], "text")
    translated = isinstance(event.finding.found, Translation)
    found = (data["translated_utterance"], "text") if translated else (data, "results")
    while True:
        holder, name = max(original, found, key=lambda part: len(str(part[0][part[1]])))
        if (shorter := next(_cut(body, holder, name), None)) is None:
            return
        yield shorter


def _shorter_result(event: ResultReady) -> Iterator[dict[str, Any]]:
    """Give a result without words, then without lists, and then with less and less of each text."""
    body = _body(event, words=False)
    data = body["data"]
    yield body
    texts = [data["transcription"], *data.get("translation", {}).get("results", [])]
    for holder in texts:
        holder["utterances"] = []
    if found := data.get("named_entity_recognition"):
        found["results"] = []
    if found := data.get("sentiment_analysis"):
        found["results"] = "[]"
    yield body
    for holder in texts:
        yield from _cut(body, holder, "full_transcript")
    if found := data.get("summarization"):
        yield from _cut(body, found, "results")


def _cut(body: dict[str, Any], holder: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Give `body` with less and less of the text or the list at `holder[name]`."""
    while whole := holder[name]:
        # A quarter less each time: JSON writes some letters with six bytes and others with one, so there is no telling
        # how many letters fit.
        holder[name] = whole[: len(whole) * 3 // 4]
        yield body


def _body(event: Event, *, words: bool = True) -> dict[str, Any]:  # noqa: C901, PLR0911, PLR0912 - one case an event
    """Give what follows a message's head, its type included."""
    match event:
        case SessionStarted():
            return {"type": "start_session"}
        case RecordingStarted():
            return {"type": "start_recording"}
        case AudioAccepted():
            ranges = {
                "byte_range": [event.start_byte, event.stop_byte],
                "time_range": [number(event.start_s), number(event.stop_s)],
            }
            return {"type": "audio_chunk", "acknowledged": True, "error": None, "data": ranges}
        case AudioRefused():
            error = {"message": event.reason[:_MAX_REASON_CHARS]}
            return {"type": "audio_chunk", "acknowledged": False, "error": error, "data": None}
        case StopAccepted():
            lengths = {
                "recording_duration": number(event.recorded_s),
                "recording_left_to_process": number(event.left_s),
            }
            return {"type": "stop_recording", "acknowledged": True, "error": None, "data": lengths}
        case SpeechStarted():
            return {"type": "speech_start", "data": {"time": number(event.at_s), "channel": event.channel}}
        case SpeechEnded():
            return {"type": "speech_end", "data": {"time": number(event.at_s), "channel": event.channel}}
        case Partial() | Final():
            said = utterance_body(event.utterance, words=words)
            transcript = {"id": event.utterance.id, "is_final": isinstance(event, Final), "utterance": said}
            return {"type": "transcript", "data": transcript}
        case TurnEndLikely():
            return {"type": "turn_end_likely", "data": _turn_body(event, words=words)}
        case TurnContinued():
            return {"type": "turn_continued", "data": {"id": event.utterance_id, "channel": event.channel}}
        case UtteranceExamined():
            return _look_body(event, words=words)
        case RecordingEnded():
            return {"type": "end_recording", "data": {"recording_duration": number(event.recorded_s)}}
        case TranscriptReady():
            return {"type": "post_transcript", "data": transcription_body(event.transcript, words=words)}
        case TranscriptExamined():
            return {"type": "post_summarization", **_answer(event.finding, {"results": event.finding.found})}
        case ResultReady():
            return {"type": "post_final_transcript", "data": result_body(event.result, words=words)}
        case SessionEnded():
            return {"type": "end_session"}
        case Problem():
            return {"type": "error", "data": {"code": event.code, "message": event.message[:_MAX_REASON_CHARS]}}
        case _:
            assert_never(event)


def _turn_body(event: TurnEndLikely, *, words: bool) -> dict[str, Any]:
    said = event.utterance
    return {
        "id": said.id,
        "channel": said.channel,
        "time": number(event.at_s),
        "silence": number(event.silence_s),
        "utterance": utterance_body(said, words=words),
    }


def _look_body(event: UtteranceExamined, *, words: bool) -> dict[str, Any]:
    """Give what an add-on says of an utterance, or that it failed."""
    finding = event.finding
    data = {
        "utterance_id": event.utterance.id,
        "utterance": utterance_body(event.utterance, words=words),
        **finding_body(event.utterance, finding, words=words),
    }
    match finding.feature:
        case Feature.TRANSLATION:
            return {"type": "translation", **_answer(finding, data)}
        case Feature.SENTIMENT_ANALYSIS:
            return {"type": "sentiment_analysis", **_answer(finding, data)}
        case Feature.NAMED_ENTITY_RECOGNITION:
            return {"type": "named_entity_recognition", **_answer(finding, data)}
        case _:
            raise ValueError(f"{finding.feature} says nothing of single utterances")


def _answer(finding: Finding, data: dict[str, Any]) -> dict[str, Any]:
    if finding.found is None:
        return {"error": {"message": (finding.error or "")[:_MAX_REASON_CHARS]}, "data": None}
    return {"error": None, "data": data}


def _chunk(content: Any) -> AudioChunk | BadChunk:
    chunk = content.get("chunk") if isinstance(content, dict) else None
    if not isinstance(chunk, str):
        return BadChunk("data.chunk must be a base64 string")
    data = base64_bytes(chunk)
    return BadChunk("data.chunk is not valid base64") if data is None else AudioChunk(data)


def base64_bytes(text: str) -> bytes | None:
    """Read strict base64, padded or not; None where it is anything else."""
    if len(text) % 4:
        text += "=" * (-len(text) % 4)
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def _bad_message(reason: str) -> BadMessage:
    return BadMessage(MalformedMessage.code, reason)


def _shown(name: str) -> str:
    """Give a name that came from outside, short and in ASCII."""
    return ascii(name[:_MAX_SHOWN_CHARS])


def _text(body: dict[str, Any]) -> str:
    try:
        return to_json(body).decode()
    except PydanticSerializationError:
        # A lone surrogate can be written as JSON but not sent as UTF-8; a question mark in its place can.
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace").decode("utf-8")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))
