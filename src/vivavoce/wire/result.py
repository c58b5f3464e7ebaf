"""What is kept of a session, as REST and the socket show it: utterances, transcripts, results, whole sessions.

The domain's words carry no blanks around them and its numbers are exact; here each word and each utterance's text gets
the blank in front that Gladia puts there, and seconds and confidences get three decimals. Everything is plain JSON
values: no NaN and no infinity, whatever an engine says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from math import isfinite
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from vivavoce.events import StoredMessage
from vivavoce.model import (
    Entity,
    Feature,
    Finding,
    Result,
    Sentiment,
    SessionRecord,
    Status,
    Transcript,
    Translation,
    Utterance,
    Word,
)
from vivavoce.wire.schema import audio_format, options_of

API_VERSION = 2

_ENVELOPES = (
    Feature.TRANSLATION,
    Feature.SUMMARIZATION,
    Feature.NAMED_ENTITY_RECOGNITION,
    Feature.SENTIMENT_ANALYSIS,
)
"""What add-ons found, in the order of the contract; text rules leave nothing but the text."""

_NOT_MADE = {
    "status_code": HTTPStatus.CONFLICT.value,
    "exception": "NotMade",
    "message": "no summary was made: the client went away (1001), which ends a session without post-processing",
}


def timestamp(at: datetime) -> str:
    """Give a moment as ISO 8601 in UTC, with milliseconds and `Z`."""
    at = at if at.tzinfo is UTC else at.astimezone(UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


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


def finding_body(utterance: Utterance, finding: Finding, *, words: bool = True) -> dict[str, Any]:
    """Give what an add-on found in an utterance as messages carry it, nothing where it failed."""
    found = finding.found
    if isinstance(found, Translation):
        return {
            "original_language": utterance.language,
            "target_language": found.target,
            "translated_utterance": utterance_body(found.utterance, words=words),
        }
    return {} if found is None or isinstance(found, str) else {"results": [_found_body(each) for each in found]}


def result_body(result: Result, *, words: bool = True) -> dict[str, Any]:
    """Give a result as clients know it, without the messages."""
    body = {
        "metadata": {
            "audio_duration": number(result.audio_s),
            "number_of_distinct_channels": result.channels,
            "billing_time": number(result.audio_s * result.channels),
            "transcription_time": number(result.transcription_s),
        },
        "transcription": transcription_body(result.transcript, words=words),
    }
    place = {utterance.id: i for i, utterance in enumerate(result.transcript.utterances)}
    ordered = sorted(result.findings, key=lambda finding: place.get(finding.utterance_id, len(place)))
    for feature in _ENVELOPES:
        if feature in result.features:
            findings = [finding for finding in ordered if finding.feature is feature]
            body[feature.value] = _envelope(feature, result.features[feature], findings, words=words)
    return body


def _envelope(
    feature: Feature, options: Mapping[str, Any], findings: Sequence[Finding], *, words: bool
) -> dict[str, Any]:
    """Give all that an add-on said of a session; it succeeded if it never failed.

    A session of no utterances leaves nothing to look at, and nothing found in it is a success; a summary that nobody
    was asked for is none.
    """
    if feature is Feature.SUMMARIZATION and not findings:
        return {"success": False, "is_empty": True, "exec_time": 0.0, "error": _NOT_MADE, "results": None}
    found = [_found_body(each) for finding in findings for each in _each(finding)]
    results: Any = found
    match feature:
        case Feature.TRANSLATION:
            results = [_translation_body(target, findings, words=words) for target in options["target_languages"]]
        case Feature.SENTIMENT_ANALYSIS:
            results = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        case Feature.SUMMARIZATION:
            results = findings[0].found
    return {
        "success": all(finding.found is not None for finding in findings),
        "is_empty": not any(finding.found for finding in findings),
        "exec_time": number(sum(finding.spent_s for finding in findings)),
        "error": _error_body(findings),
        "results": results,
    }


def _translation_body(target: str, findings: Sequence[Finding], *, words: bool) -> dict[str, Any]:
    """Give all that was translated to one language."""
    own = [finding for finding in findings if finding.target == target]
    translated = [finding.found.utterance for finding in own if isinstance(finding.found, Translation)]
    return {
        "error": _error_body(own),
        "full_transcript": Transcript(utterances=tuple(translated)).text,
        "languages": [target],
        "utterances": [utterance_body(utterance, words=words) for utterance in translated],
    }


def _error_body(findings: Sequence[Finding]) -> dict[str, Any] | None:
    """Tell of failures: how many there were, and why the first."""
    reasons = [finding.error for finding in findings if finding.found is None]
    if not reasons:
        return None
    message = f"{len(reasons)} of {len(findings)} failed, the first one because: {reasons[0]}"
    return {"status_code": 500, "exception": "AddonError", "message": message}


def _each(finding: Finding) -> tuple[Entity, ...] | tuple[Sentiment, ...]:
    return finding.found if isinstance(finding.found, tuple) else ()


def _found_body(found: Entity | Sentiment) -> dict[str, Any]:
    times = {"start": number(found.start), "end": number(found.end)}
    if isinstance(found, Entity):
        return {"entity_type": found.kind, "text": found.text, **times}
    return {
        "sentiment": found.sentiment,
        "emotion": found.emotion,
        "text": found.text,
        **times,
        "channel": found.channel,
    }


def recorded_s(record: SessionRecord) -> float:
    """Give the seconds of audio a session has, its WAV header not counted."""
    return audio_format(record.request).duration_s(max(record.audio_bytes - record.audio_start, 0))


def session_body(
    record: SessionRecord,
    finals: Sequence[Utterance],
    messages: Sequence[StoredMessage],
    findings: Sequence[Finding] = (),
) -> dict[str, Any]:
    """Give a session as REST shows it; all lists in the store's order, and only read once it is done."""
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
        "result": _stored_result(record, finals, messages, findings) if record.status is Status.DONE else None,
    }
    if record.custom_metadata is not None:
        body["custom_metadata"] = dict(record.custom_metadata)
    return body


def _stored_result(
    record: SessionRecord,
    finals: Sequence[Utterance],
    messages: Sequence[StoredMessage],
    findings: Sequence[Finding],
) -> Mapping[str, Any]:
    result = Result(
        transcript=Transcript(utterances=tuple(finals)),
        audio_s=recorded_s(record),
        channels=audio_format(record.request).channels,
        transcription_s=record.transcription_s,
        features=options_of(record.request).features,
        findings=tuple(findings),
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
    body: dict[str, Any] = {
        "word": f" {word.text}",
        "start": number(word.start),
        "end": number(word.end),
        "confidence": number(word.confidence),
    }
    if word.speaker is not None:
        body["speaker"] = word.speaker
    return body
