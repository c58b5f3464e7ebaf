"""A stored session as REST shows it, judged by the official SDK and by our own OpenAPI models."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from gladiaio_sdk.v2.live import generated_types as sdk
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.events import StoredMessage
from vivavoce.model import (
    LANGUAGES,
    Entity,
    Feature,
    Finding,
    Kind,
    Sentiment,
    SessionRecord,
    Status,
    Translation,
    Utterance,
    Word,
)
from vivavoce.wire.bodies import ErrorBody, InitResponse, SessionBody, SessionList
from vivavoce.wire.result import number, recorded_s, session_body, timestamp
from vivavoce.wire.schema import FEATURES, Capabilities, parse_request

SESSION = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"
ANY = Capabilities(languages=LANGUAGES, features=FEATURES)


def utterance(channel, start, text, language="nl"):
    words = tuple(
        Word(text=word, start=start + i, end=start + i + 0.5, confidence=0.9) for i, word in enumerate(text.split())
    )
    return Utterance(
        id=f"{channel:02}_{int(start * 1000):08}",
        channel=channel,
        start=start,
        end=start + len(words),
        confidence=0.94,
        language=language,
        words=words,
    )


def record(status=Status.DONE, body=None, **fields):
    finished = status in {Status.DONE, Status.ERROR}
    return SessionRecord(
        **{
            "id": SESSION,
            "owner": "",
            "token_hash": "secret-hash",
            "status": status,
            "created_at": datetime(2026, 11, 3, 8, 15, 42, 118_000, tzinfo=UTC),
            "completed_at": datetime(2026, 11, 3, 8, 16, 10, 902_000, tzinfo=UTC) if finished else None,
            "request": parse_request(body or {}, ANY).request,
            **fields,
        }
    )


FINALS = [utterance(0, 0.62, "Goedemorgen, met Femke."), utterance(1, 2.5, "Hello?", "en"), utterance(0, 4, "Dag.")]
MESSAGES = [
    StoredMessage(
        seq=1, key="a", at=0, kind=Kind.LIFECYCLE, created_at=datetime.now(UTC), text='{"type":"start_recording"}'
    ),
    StoredMessage(seq=2, key="b", at=0, kind=Kind.FINAL, created_at=datetime.now(UTC), text='{"type":"transcript"}'),
]


def test_a_finished_session_is_shown_whole():
    """Every field of a done session: names, sizes, its text in order, its messages as strings, its request."""
    body = {"channels": 2, "sample_rate": 8000, "language_config": {"languages": ["nl", "en"]}}
    done = record(
        body=body,
        audio_bytes=44 + 2 * 2 * 8000 * 5,
        audio_start=44,
        transcription_s=0.30712,
        custom_metadata={"desk": "north-3"},
        post_session_metadata={"seen": [1]},
    )
    shown = session_body(done, FINALS, MESSAGES)
    result = shown.pop("result")
    assert UUID(shown["file"].pop("id")) != UUID(SESSION)
    assert shown == {
        "id": SESSION,
        "request_id": "G-7c1e2b90",
        "version": 2,
        "status": "done",
        "created_at": "2026-11-03T08:15:42.118Z",
        "completed_at": "2026-11-03T08:16:10.902Z",
        "kind": "live",
        "custom_metadata": {"desk": "north-3"},
        "post_session_metadata": {"seen": [1]},
        "error_code": None,
        "file": {"filename": None, "source": None, "audio_duration": 5.0, "number_of_channels": 2},
        "request_params": parse_request(body, ANY).request,
    }
    assert result["metadata"] == {
        "audio_duration": 5.0,
        "number_of_distinct_channels": 2,
        "billing_time": 10.0,
        "transcription_time": 0.307,
    }
    assert result["transcription"]["full_transcript"] == "Goedemorgen, met Femke. Hello? Dag."
    assert result["transcription"]["languages"] == ["nl", "en"]
    assert [(said["channel"], said["text"]) for said in result["transcription"]["utterances"]] == [
        (0, " Goedemorgen, met Femke."),
        (1, " Hello?"),
        (0, " Dag."),
    ]
    assert result["messages"] == ['{"type":"start_recording"}', '{"type":"transcript"}']


def test_secrets_stay_inside():
    """Neither the token's hash nor the owner shows."""
    text = json.dumps(session_body(record(owner="key-17"), FINALS, MESSAGES))
    assert "secret-hash" not in text
    assert "key-17" not in text


@pytest.mark.parametrize("status", [Status.QUEUED, Status.PROCESSING, Status.ERROR])
def test_only_a_done_session_has_a_result(status):
    """Before the end, and after a failure, the result is null, whatever finals there are."""
    shown = session_body(record(status, error_code=500 if status is Status.ERROR else None), FINALS, MESSAGES)
    assert shown["result"] is None
    assert shown["error_code"] == (500 if status is Status.ERROR else None)
    assert (shown["completed_at"] is None) == (status is not Status.ERROR)


def test_a_session_without_audio_has_no_file():
    """A header alone is no audio."""
    assert session_body(record(), [], [])["file"] is None
    assert session_body(record(audio_bytes=44, audio_start=44), [], [])["file"] is None
    assert session_body(record(audio_bytes=46, audio_start=44), [], [])["file"] is not None


def test_a_file_keeps_its_id():
    """The audio of a session has one id for ever, and no other session's audio has it."""
    first, again, other = (
        session_body(record(id=name, audio_bytes=2), [], [])["file"]["id"]
        for name in (SESSION, SESSION, SESSION.replace("7", "8"))
    )
    assert first == again != other


def test_metadata_that_was_not_given_is_not_shown():
    """`custom_metadata` is absent without one, and there when it is empty."""
    assert "custom_metadata" not in session_body(record(), [], [])
    assert session_body(record(custom_metadata={}), [], [])["custom_metadata"] == {}


@pytest.mark.parametrize(
    ("body", "size", "seconds"),
    [
        ({}, 32_000, 1.0),
        ({"bit_depth": 24, "sample_rate": 48_000, "channels": 8}, 3 * 8 * 48_000 * 2, 2.0),
        ({"encoding": "wav/ulaw", "sample_rate": 8000}, 4000, 0.5),
        ({"encoding": "wav/alaw", "sample_rate": 8000, "channels": 2, "bit_depth": 8}, 4000, 0.25),
    ],
)
def test_seconds_come_from_the_announced_format(body, size, seconds):
    """Bytes become seconds by the session's own format, µ-law counted as bytes."""
    assert recorded_s(record(body=body, audio_bytes=size)) == seconds


ADDONS = {
    "realtime_processing": {
        "translation": True,
        "translation_config": {"target_languages": ["fr", "wo"]},
        "named_entity_recognition": True,
        "sentiment_analysis": True,
    },
    "post_processing": {"summarization": True},
}
HELLO, DAG = FINALS[0].id, FINALS[2].id
NAME = Entity(kind="NAME", text="Femke", start=2.62, end=3.12, first=2, stop=3)
GLAD = Sentiment(sentiment="positive", emotion="happiness", text="Dag.", start=4.0, end=4.5, channel=0)
GOOD = [
    Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, utterance_id=DAG, found=(), spent_s=0.25),
    Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, utterance_id=HELLO, found=(NAME,), spent_s=0.25),
    Finding(feature=Feature.SENTIMENT_ANALYSIS, utterance_id=DAG, found=(GLAD,), spent_s=0.1),
    Finding(feature=Feature.SUMMARIZATION, found="Femke says hello.", spent_s=2.0),
    *(
        Finding(
            feature=Feature.TRANSLATION,
            utterance_id=name,
            target="fr",
            found=Translation(target="fr", utterance=utterance(0, start, text, "fr")),
            spent_s=1.0,
        )
        for name, start, text in ((DAG, 4, "Salut."), (HELLO, 0.62, "Bonjour."))
    ),
]
FAILED = [
    Finding(feature=feature, utterance_id=name, target=target, found=None, error="too slow", spent_s=10.0)
    for feature, name, target in (
        (Feature.NAMED_ENTITY_RECOGNITION, FINALS[1].id, ""),
        (Feature.SENTIMENT_ANALYSIS, FINALS[1].id, ""),
        (Feature.SUMMARIZATION, "", ""),
        (Feature.TRANSLATION, HELLO, "wo"),
    )
]


def addon_results(lossless, findings):
    result = session_body(record(body=ADDONS), FINALS, MESSAGES, findings)["result"]
    lossless(sdk.LiveV2TranscriptionResultWithMessages.from_dict(result), result)
    return result


def test_add_ons_are_shown_in_their_envelopes(lossless):
    """Findings in the order of the utterances, sentiments as JSON text, translations by target, times added up."""
    result = addon_results(lossless, GOOD)
    fine = {"success": True, "is_empty": False, "error": None}
    assert result["named_entity_recognition"] == {
        **fine,
        "exec_time": 0.5,
        "results": [{"entity_type": "NAME", "text": "Femke", "start": 2.62, "end": 3.12}],
    }
    sentiments = json.loads(result["sentiment_analysis"].pop("results"))
    assert result["sentiment_analysis"] == {**fine, "exec_time": 0.1}
    assert sentiments == [
        {"sentiment": "positive", "emotion": "happiness", "text": "Dag.", "start": 4.0, "end": 4.5, "channel": 0}
    ]
    assert result["summarization"] == {**fine, "exec_time": 2.0, "results": "Femke says hello."}
    french, wolof = result["translation"].pop("results")
    assert result["translation"] == {**fine, "exec_time": 2.0}
    assert (french["full_transcript"], french["languages"], french["error"]) == ("Bonjour. Salut.", ["fr"], None)
    assert [each["text"] for each in french["utterances"]] == [" Bonjour.", " Salut."]
    assert wolof == {"error": None, "full_transcript": "", "languages": ["wo"], "utterances": []}


def test_failures_stand_beside_what_succeeded(lossless):
    """An add-on that failed somewhere did not succeed, says how often and why first, and shows what it has."""
    result = addon_results(lossless, GOOD + FAILED)
    for feature, message in (
        ("named_entity_recognition", "1 of 3 failed, the first one because: too slow"),
        ("sentiment_analysis", "1 of 2 failed, the first one because: too slow"),
        ("translation", "1 of 3 failed, the first one because: too slow"),
    ):
        assert result[feature]["success"] is False
        assert result[feature]["is_empty"] is False
        assert result[feature]["error"] == {"status_code": 500, "exception": "AddonError", "message": message}
    assert result["named_entity_recognition"]["results"]
    french, wolof = result["translation"]["results"]
    assert french["error"] is None
    assert wolof["error"]["message"] == "1 of 1 failed, the first one because: too slow"
    (summary,) = [finding for finding in FAILED if finding.feature is Feature.SUMMARIZATION]
    envelope = addon_results(lossless, [summary])["summarization"]
    assert (envelope["success"], envelope["is_empty"], envelope["results"]) == (False, True, None)


def test_an_add_on_that_had_nothing_to_do_is_empty(lossless):
    """Asked for and never called: it succeeded; what was not asked for is not shown."""
    result = addon_results(lossless, [])
    for feature, nothing in (("named_entity_recognition", []), ("sentiment_analysis", "[]")):
        assert result[feature] == {
            "success": True, "is_empty": True, "exec_time": 0.0, "error": None, "results": nothing
        }  # fmt: skip
    assert [each["utterances"] for each in result["translation"]["results"]] == [[], []]
    plain = session_body(record(), FINALS, MESSAGES, GOOD)["result"]
    assert set(plain) == {"metadata", "transcription", "messages"}


def test_a_summary_that_was_never_made_is_no_success(lossless):
    """A session that ended without post-processing says so; that nothing was said, a summary says by being empty."""
    envelope = addon_results(lossless, [])["summarization"]
    error = envelope.pop("error")
    assert envelope == {"success": False, "is_empty": True, "exec_time": 0.0, "results": None}
    assert (error["status_code"], error["exception"]) == (409, "NotMade")
    assert "no summary was made" in error["message"]
    silent = addon_results(lossless, [Finding(feature=Feature.SUMMARIZATION, found="", spent_s=0.5)])["summarization"]
    assert silent == {"success": True, "is_empty": True, "exec_time": 0.5, "error": None, "results": ""}


records = st.builds(
    record,
    status=st.sampled_from(Status),
    body=st.sampled_from(
        [{}, {"encoding": "wav/ulaw", "sample_rate": 8000}, {"channels": 3, "sample_rate": 24_000}, ADDONS]
    ),
    audio_bytes=st.integers(0, 2**36),
    audio_start=st.sampled_from([0, 44]),
    error_code=st.none() | st.integers(400, 599),
    transcription_s=st.floats(0, 1e6),
    custom_metadata=st.none() | st.just({"desk": {"floor": 3, "open": None}}),
)
finals = st.lists(
    st.builds(utterance, st.integers(0, 7), st.floats(0, 10_000), st.text(max_size=30), st.sampled_from(["en", "haw"])),
    max_size=4,
)


@given(kept=records, said=finals, findings=st.lists(st.sampled_from(GOOD + FAILED), unique_by=lambda found: found.key))
def test_the_sdk_and_openapi_agree_on_every_session(lossless, kept, said, findings):
    """Any session parses into the SDK's type with nothing lost or unknown, and is what the OpenAPI document says."""
    body = json.loads(json.dumps(session_body(kept, said, MESSAGES, findings), allow_nan=False))
    parsed = sdk.LiveV2Response.from_dict(body)
    # The SDK drops nulls of the client's own objects too; those are compared apart.
    assert parsed.custom_metadata == body.pop("custom_metadata", None)
    lossless(sdk.LiveV2Response.from_dict(body), body)
    SessionBody.model_validate(body)
    page = {"first": "http://a/", "current": "http://a/", "next": None, "items": [body]}
    SessionList.model_validate(page)
    lossless(sdk.LiveV2ListResponse.from_dict(page), page)


def test_the_other_answers_have_the_contracts_fields():
    """The models of the init answer and of errors name exactly the contract's fields."""
    started = {"id": SESSION, "created_at": timestamp(datetime.now(UTC)), "url": "ws://localhost:8080/v2/live?token=t"}
    InitResponse.model_validate(started)
    assert sdk.LiveV2InitResponse.from_dict(started).to_dict() == started
    assert set(ErrorBody.model_fields) == {
        "timestamp",
        "path",
        "request_id",
        "statusCode",
        "message",
        "validation_errors",
    }
    assert [name for name, field in ErrorBody.model_fields.items() if not field.is_required()] == ["validation_errors"]


@given(value=st.floats() | st.integers(-(10**6), 10**6))
def test_numbers_have_three_decimals_and_are_json(value):
    """Finite numbers keep three decimals; the others become 0."""
    shown = number(value)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    if abs(value) < 10**9:
        assert abs(shown - value) <= 0.000501
