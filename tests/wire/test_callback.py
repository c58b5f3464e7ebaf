"""What is posted: the very text of the message, in the envelope that the official SDK parses."""

import json
from datetime import UTC, datetime

import pytest
from gladiaio_sdk.v2.live.generated_types import create_live_v2_callback_message_from_json

from vivavoce.events import (
    AudioAccepted,
    AudioRefused,
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
    UtteranceExamined,
)
from vivavoce.model import Feature, Finding, Kind, Result, Transcript, Translation, Utterance, Word
from vivavoce.wire.callback import callback, webhook
from vivavoce.wire.live import render
from vivavoce.wire.schema import Capabilities, parse_request

SESSION = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"
WORD = Word(text='"Žluť" 🐎', start=0.5, end=1.0, confidence=0.9)
UTTERANCE = Utterance(id="00_00000500", channel=0, start=0.5, end=1.0, confidence=0.9, language="cs", words=(WORD,))
TRANSCRIPT = Transcript(utterances=(UTTERANCE,))
EVENTS = [
    SessionStarted(),
    RecordingStarted(),
    AudioAccepted(start_byte=0, stop_byte=2, start_s=0, stop_s=0.1),
    AudioRefused(reason="no"),
    StopAccepted(recorded_s=1, left_s=0),
    SpeechStarted(channel=0, at_s=0.5),
    SpeechEnded(channel=0, at_s=1.0),
    Partial(utterance=UTTERANCE),
    Final(utterance=UTTERANCE),
    UtteranceExamined(
        utterance=UTTERANCE,
        finding=Finding(feature=Feature.TRANSLATION, found=Translation(target="cs", utterance=UTTERANCE)),
    ),
    UtteranceExamined(utterance=UTTERANCE, finding=Finding(feature=Feature.TRANSLATION, found=None, error="no")),
    UtteranceExamined(utterance=UTTERANCE, finding=Finding(feature=Feature.SENTIMENT_ANALYSIS, found=())),
    UtteranceExamined(utterance=UTTERANCE, finding=Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, found=())),
    RecordingEnded(recorded_s=1),
    TranscriptExamined(finding=Finding(feature=Feature.SUMMARIZATION, found="A horse.")),
    TranscriptReady(transcript=TRANSCRIPT),
    ResultReady(result=Result(transcript=TRANSCRIPT, audio_s=1, channels=1, transcription_s=0.1)),
    SessionEnded(),
]


def message(event) -> Message:
    return render(SESSION, event, datetime(2026, 11, 3, 8, 15, 42, 118_000, tzinfo=UTC))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_each_message_is_posted_as_the_sdk_reads_it(event):
    """Session id, event and the message letter for letter; nothing else."""
    said = message(event)
    name, body = callback(SESSION, said)
    parsed = json.loads(body)
    assert parsed == {"id": SESSION, "event": f"live.{parsed['payload']['type']}", "payload": json.loads(said.text)}
    assert name == parsed["event"]
    assert body.endswith(f'"payload":{said.text}}}')
    assert create_live_v2_callback_message_from_json(body)._unknown_fields == {}


def test_errors_are_not_posted():
    """The SDK's parser of callbacks would raise at them."""
    said = message(Problem(code="session_timeout", message="late"))
    assert callback(SESSION, said) is None
    with pytest.raises(ValueError, match="Unsupported callback"):
        create_live_v2_callback_message_from_json(json.dumps({"id": SESSION, "event": "live.error", "payload": {}}))


def test_webhooks_tell_of_four_moments_and_of_nothing_that_was_said():
    """Only the session's id."""
    told = [webhook(SESSION, message(event)) for event in EVENTS]
    names = ["live.start_session", "live.start_recording", "live.end_recording", "live.end_session"]
    assert [name for name, _ in filter(None, told)] == names
    assert [json.loads(body) for _, body in filter(None, told)] == [
        {"event": name, "payload": {"id": SESSION}} for name in names
    ]


def options(**body):
    return parse_request(body, Capabilities(languages=frozenset({"en"}), features=frozenset({"callback"}))).options


def test_callbacks_have_flags_and_defaults_of_their_own():
    """Independent of the socket's; nothing without `callback`, even if an address is given."""
    url = "https://receiver.example/hook"
    asked = options(callback=True, callback_config={"url": url})
    assert asked.callback_url == url
    assert asked.callback_wanted == {
        Kind.FINAL, Kind.PRE_PROCESSING, Kind.REALTIME, Kind.POST_PROCESSING, Kind.LIFECYCLE
    }  # fmt: skip
    partials = {"url": url, "receive_partial_transcripts": True, "receive_lifecycle_events": False}
    changed = options(callback=True, callback_config=partials)
    assert changed.callback_wanted == asked.callback_wanted - {Kind.LIFECYCLE} | {Kind.PARTIAL}
    assert changed.wanted == asked.wanted
    for off in ({"callback_config": {"url": url}}, {"callback": False}, {}):
        assert (options(**off).callback_url, options(**off).callback_wanted) == (None, frozenset())
