"""A stored session as REST shows it, judged by the official SDK and by our own OpenAPI models."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from gladiaio_sdk.v2.live import generated_types as sdk
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.events import StoredMessage
from vivavoce.model import Kind, SessionRecord, Status, Utterance, Word
from vivavoce.wire.bodies import ErrorBody, InitResponse, SessionBody, SessionList
from vivavoce.wire.result import number, recorded_s, session_body, timestamp
from vivavoce.wire.schema import LANGUAGES, Capabilities, parse_request

SESSION = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"
ANY = Capabilities(languages=LANGUAGES)


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


records = st.builds(
    record,
    status=st.sampled_from(Status),
    body=st.sampled_from([{}, {"encoding": "wav/ulaw", "sample_rate": 8000}, {"channels": 3, "sample_rate": 24_000}]),
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


@given(kept=records, said=finals)
def test_the_sdk_and_openapi_agree_on_every_session(lossless, kept, said):
    """Any session parses into the SDK's type with nothing lost or unknown, and is what the OpenAPI document says."""
    body = json.loads(json.dumps(session_body(kept, said, MESSAGES), allow_nan=False))
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
