"""What is posted to callbacks and webhooks, pure: messages in their envelopes.

A callback carries the very text that a socket would carry. Only messages that the official SDKs' callback parsers know
are posted, because those raise at any other; so `error` has no envelope, whatever its flag says.
"""

from __future__ import annotations

import json

from vivavoce.events import (
    AudioAccepted,
    AudioRefused,
    Event,
    Final,
    Message,
    Partial,
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
    UtteranceExamined,
)
from vivavoce.model import Feature

_EVENTS: dict[type[Event], str] = {
    SessionStarted: "live.start_session",
    RecordingStarted: "live.start_recording",
    AudioAccepted: "live.audio_chunk",
    AudioRefused: "live.audio_chunk",
    StopAccepted: "live.stop_recording",
    SpeechStarted: "live.speech_start",
    SpeechEnded: "live.speech_end",
    Partial: "live.transcript",
    Final: "live.transcript",
    RecordingEnded: "live.end_recording",
    TranscriptReady: "live.post_transcript",
    TranscriptExamined: "live.post_summarization",
    ResultReady: "live.post_final_transcript",
    SessionEnded: "live.end_session",
}
_LOOKS = {
    Feature.NAMED_ENTITY_RECOGNITION: "live.named_entity_recognition",
    Feature.SENTIMENT_ANALYSIS: "live.sentiment_analysis",
    Feature.TRANSLATION: "live.translation",
}
_WEBHOOK_EVENTS = (SessionStarted, RecordingStarted, RecordingEnded, SessionEnded)


def callback(session_id: str, message: Message) -> tuple[str, str] | None:
    """Give the event and the body of a message's callback, None for what no callback carries."""
    said = message.event
    event = _LOOKS[said.finding.feature] if isinstance(said, UtteranceExamined) else _EVENTS.get(type(said))
    if event is None:
        return None
    return event, f'{{"id":{json.dumps(session_id)},"event":"{event}","payload":{message.text}}}'


def webhook(session_id: str, message: Message) -> tuple[str, str] | None:
    """Give the event and the body of a message's webhook, None for what no webhook tells."""
    if not isinstance(message.event, _WEBHOOK_EVENTS):
        return None
    event = _EVENTS[type(message.event)]
    return event, json.dumps({"event": event, "payload": {"id": session_id}}, separators=(",", ":"))
