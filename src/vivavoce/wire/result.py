"""What is kept of a session, as REST and the socket show it: utterances, transcripts, results, whole sessions.

The domain's words carry no blanks around them and its numbers are exact; here each word and each utterance's text gets
the blank in front that Gladia puts there, and seconds and confidences get three decimals. Everything is plain JSON
values: no NaN and no infinity, whatever an engine says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from vivavoce.events import StoredMessage
from vivavoce.model import Result, SessionRecord, Status, Transcript, Utterance, Word
from vivavoce.wire.schema import audio_format

API_VERSION = 2


def timestamp(at: datetime) -> str:
    """Give a moment as ISO 8601 in UTC, with milliseconds and `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def number(value: float) -> float:
    """Give seconds or a confidence as messages carry them: three decimals, 0 for what is no number."""
    return round(float(value), 3) if isfinite(value) else 0.0


def request_id(session_id: str) -> str:
    """Give the short name of a session: `G-` and the first eight hex digits of its id."""
    return f"G-{session_id.replace('-', '')[:8]}"


def utterance_body(utterance: Utterance, *, words: bool = True) -> dict[str, Any]:
    """Give an utterance as clients know it; without `words` the list is empty and the text still whole."""
    body: dict[str, Any] = {
        "start": number(utterance.start),
        "end": number(utterance.end),
        "confidence": number(utterance.confidence),
        "channel": utterance.channel,
        "language": utterance.language,
        "text": f" {utterance.text}" if utterance.words else "",
        "words": [_word_body(word) for word in utterance.words] if words else [],
    }
    if utterance.speaker is not None:
        body["speaker"] = utterance.speaker
    return body


def transcription_body(transcript: Transcript, *, words: bool = True) -> dict[str, Any]:
    """Give a whole transcript as clients know it."""
    return {
        "full_transcript": transcript.text,
        "languages": list(transcript.languages),
        "utterances": [utterance_body(utterance, words=words) for utterance in transcript.utterances],
    }


def result_body(result: Result, *, words: bool = True) -> dict[str, Any]:
    """Give a result as clients know it, without the messages."""
    return {
        "metadata": {
            "audio_duration": number(result.audio_s),
            "number_of_distinct_channels": result.channels,
            "billing_time": number(result.audio_s * result.channels),
            "transcription_time": number(result.transcription_s),
        },
        "transcription": transcription_body(result.transcript, words=words),
    }


def recorded_s(record: SessionRecord) -> float:
    """Give the seconds of audio a session has, its WAV header not counted."""
    return audio_format(record.request).duration_s(max(record.audio_bytes - record.audio_start, 0))


def session_body(
    record: SessionRecord, finals: Sequence[Utterance], messages: Sequence[StoredMessage]
) -> dict[str, Any]:
    """Give a session as REST shows it; `finals` and `messages` in the store's order, and only read once it is done."""
    body: dict[str, Any] = {
        "id": record.id,
        "request_id": request_id(record.id),
        "version": API_VERSION,
        "status": record.status.value,
        "created_at": timestamp(record.created_at),
        "completed_at": timestamp(record.completed_at) if record.completed_at else None,
        "kind": "live",
        "post_session_metadata": dict(record.post_session_metadata),
        "error_code": record.error_code,
        "file": _file_body(record),
        "request_params": dict(record.request),
        "result": _stored_result(record, finals, messages) if record.status is Status.DONE else None,
    }
    if record.custom_metadata is not None:
        body["custom_metadata"] = dict(record.custom_metadata)
    return body


def _stored_result(
    record: SessionRecord, finals: Sequence[Utterance], messages: Sequence[StoredMessage]
) -> Mapping[str, Any]:
    result = Result(
        transcript=Transcript(utterances=tuple(finals)),
        audio_s=recorded_s(record),
        channels=audio_format(record.request).channels,
        transcription_s=record.transcription_s,
    )
    return {**result_body(result), "messages": [message.text for message in messages if message.sent]}


def _file_body(record: SessionRecord) -> dict[str, Any] | None:
    if record.audio_bytes <= record.audio_start:
        return None
    return {
        "id": str(uuid5(NAMESPACE_URL, f"vivavoce:audio:{record.id}")),
        "filename": None,
        "source": None,
        "audio_duration": number(recorded_s(record)),
        "number_of_channels": audio_format(record.request).channels,
    }


def _word_body(word: Word) -> dict[str, Any]:
    return {
        "word": f" {word.text}",
        "start": number(word.start),
        "end": number(word.end),
        "confidence": number(word.confidence),
    }
