"""The REST routes against the real application, store and audio files; only the hub is a stand-in."""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from gladiaio_sdk.v2.live.generated_types import LiveV2InitResponse, LiveV2ListResponse, LiveV2Response

from vivavoce.api import requests
from vivavoce.api.app import create_app, docs_page
from vivavoce.api.rest import FILE_PIECE_BYTES, MAX_INIT_BYTES, MAX_PAGE, MAX_PATCH_BYTES
from vivavoce.config import Settings
from vivavoce.errors import CapacityError, StoreError, Unavailable
from vivavoce.events import StoredMessage
from vivavoce.model import Kind, SessionRecord, Status, Utterance, Word, now
from vivavoce.plugins import EngineInfo, Write
from vivavoce.reception.access import new_key
from vivavoce.runtime.catalogue import Listed
from vivavoce.runtime.hub import hash_of
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore
from vivavoce.wire.schema import Capabilities, parse_request

LOCAL = "http://localhost:8080"
SECRET = "the quick brown fox"


@dataclass
class StandInHub:
    """Keeps new sessions without running them."""

    store: SqlStore
    audio: LocalAudio
    info: EngineInfo = field(
        default_factory=lambda: EngineInfo(
            name="tiny", languages=frozenset({"en"}), word_times=True, exact_batches=True, batch_size=1
        )
    )
    features: frozenset[str] = frozenset()
    remedies: dict[str, str] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    failure: Exception | None = None
    reasons: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)

    async def ready(self) -> None:
        pass

    async def engine_info(self, model: str) -> EngineInfo:
        return self.info

    async def models(self, *, fetchable: bool = True) -> list[Listed]:
        return [each for each in self.listed if fetchable or each.get is None]

    async def create(
        self, owner, request, custom_metadata, options, *, most=None, leg=None
    ) -> tuple[SessionRecord, str]:
        if self.failure is not None:
            raise self.failure
        token = secrets.token_urlsafe()
        self.tokens.append(token)
        record = SessionRecord(
            id=str(uuid4()),
            owner=owner,
            token_hash=hash_of(token),
            status=Status.QUEUED,
            created_at=now(),
            request=request,
            custom_metadata=custom_metadata,
        )
        await self.store.add_session(record)
        return record, token

    def is_running(self, session_id: str) -> bool:
        return session_id in self.running

    async def obstacles(self) -> list[str]:
        return self.reasons


@pytest.fixture
async def hub(tmp_path) -> AsyncIterator[StandInHub]:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    audio = LocalAudio(tmp_path / "audio")
    yield StandInHub(store, audio)
    await store.close()
    audio.close()


def client_of(hub: StandInHub, peer: str = "127.0.0.1", **settings: Any) -> httpx.AsyncClient:
    """Give a client of a new application around the hub."""
    app = create_app(hub, Settings(**settings))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(peer, 4000)), base_url=LOCAL)


@pytest.fixture
async def client(hub) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(hub) as client:
        yield client


async def stored(hub: StandInHub, *, owner: str = "local", **fields: Any) -> SessionRecord:
    """Put a session straight into the store."""
    body = fields.pop("body", {})
    parsed = parse_request(body, Capabilities(languages=frozenset({"en"})))
    values = {
        "id": str(uuid4()),
        "owner": owner,
        "token_hash": hash_of(secrets.token_urlsafe()),
        "status": Status.DONE,
        "created_at": now(),
        "completed_at": now(),
        "request": parsed.request,
        "custom_metadata": parsed.custom_metadata,
    }
    record = SessionRecord(**(values | fields))
    await hub.store.add_session(record)
    return record


async def with_audio(hub: StandInHub, data: bytes, *, start: int = 0, **fields: Any) -> SessionRecord:
    """Put a session with recorded audio straight into the store."""
    record = await stored(hub, audio_bytes=len(data), audio_start=start, **fields)
    hub.audio.append(record.id, data)
    return record


def assert_error(answer: httpx.Response, status: int, message: str) -> None:
    """Check a refusal against the one body that all of them have."""
    body = answer.json()
    assert (answer.status_code, body["statusCode"]) == (status, status)
    assert message in body["message"]
    assert body["path"] == answer.request.url.path
    assert re.fullmatch(r"G-[0-9a-f]{8}", body["request_id"])
    assert answer.headers["x-request-id"] == body["request_id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    extra = {"validation_errors"} if status == 400 else set()
    assert set(body) - extra == {"timestamp", "path", "request_id", "statusCode", "message"}


# Creating


async def test_a_session_is_created_with_defaults(client, hub):
    """201 with id, creation time and an absolute socket URL whose token is the session's."""
    answer = await client.post("/v2/live", json={})
    assert answer.status_code == 201
    body = answer.json()
    LiveV2InitResponse.from_dict(body)
    assert set(body) == {"id", "created_at", "url"}
    assert body["url"] == f"ws://localhost:8080/v2/live?token={hub.tokens[0]}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created_at"])
    assert (await hub.store.session(body["id"])).request["sample_rate"] == 16_000


async def test_the_body_may_be_missing_and_its_content_type_wrong(client):
    """A curl without -H, or without -d, still gets a session."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await client.post("/v2/live?region=eu-west")).status_code == 201
    assert (await client.post("/v2/live", content=b'{"channels": 2}', headers=headers)).status_code == 201


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff\xfe",
        b'{"endpointing": NaN}',
        b'{"custom_metadata": {"x": 1e999}}',
        b'{"custom_metadata": {"x": "\\ud800"}}',
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
async def test_bodies_that_are_no_json_are_refused(client, raw):
    """Also what Python would take and could never send back."""
    answer = await client.post("/v2/live", content=raw)
    assert_error(answer, 400, "not valid")
    assert answer.json()["validation_errors"] == ["body must be valid JSON"]


async def test_wrong_fields_are_listed_by_their_paths(client):
    """The SDK finds the field at the front of each string."""
    answer = await client.post("/v2/live", json={"endpointing": 11, "language_config": {"languages": "en"}, "x": 1})
    assert_error(answer, 400, "look at validation_errors")
    errors = answer.json()["validation_errors"]
    assert len(errors) == 3
    assert all(re.match(r"(endpointing|language_config\.languages|x) must ", error) for error in errors)


@pytest.mark.parametrize("body", ["[]", '"x"', "1", "null"])
async def test_a_body_must_be_an_object(client, body):
    """Other JSON is a mistake, not a request for defaults."""
    assert_error(await client.post("/v2/live", content=body), 400, "not valid")


async def test_what_this_installation_cannot_do_is_refused(client):
    """422 that says what is missing, without a list of fields."""
    answer = await client.post("/v2/live", json={"language_config": {"languages": ["nl"]}})
    assert_error(answer, 422, "nl")


async def test_a_full_server_says_so(client, hub):
    """429, which the SDKs retry."""
    hub.failure = CapacityError("no room for another session")
    assert_error(await client.post("/v2/live", json={}), 429, "no room")


async def test_a_server_that_lags_or_stops_says_when_to_come_again(client, hub):
    """503 rather than 429: it is not the caller's doing; and the reason is told."""
    hub.failure = Unavailable("the server is overloaded (decode)")
    answer = await client.post("/v2/live", json={})
    assert_error(answer, 503, "overloaded (decode)")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_body_that_drips_is_given_up(client, monkeypatch):
    """408, without waiting for the rest."""
    monkeypatch.setattr(requests, "BODY_S", 0.05)

    async def drips():
        for _ in range(1000):
            yield b" "
            await asyncio.sleep(0.01)

    assert_error(await client.post("/v2/live", content=drips()), 408, "must not take longer")


async def test_readiness_gives_its_reasons(client, hub):
    """503 with why; liveness is another matter."""
    assert (await client.get("/health/ready")).json() == {"health": "OK"}
    hub.reasons = ["the server is stopping"]
    answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["reasons"]) == (503, hub.reasons)
    assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_one_mebibyte_is_refused(client, declared):
    """With a declared length and without one."""
    raw = b'{"model": "' + b"x" * MAX_INIT_BYTES + b'"}'

    async def pieces():
        for at in range(0, len(raw), 65_536):
            yield raw[at : at + 65_536]

    assert_error(await client.post("/v2/live", content=raw if declared else pieces()), 413, "must not be larger")


# Where clients are sent


@pytest.mark.parametrize(
    ("settings", "peer", "headers", "origin"),
    [
        ({}, "127.0.0.1", {}, "ws://localhost:8080"),
        ({}, "127.0.0.1", {"host": "[::1]:9"}, "ws://[::1]:9"),
        ({"public_url": "https://stt.example.net"}, "127.0.0.1", {}, "wss://stt.example.net"),
        ({}, "127.0.0.1", {"x-forwarded-proto": "https", "x-forwarded-host": "a.example"}, "ws://localhost:8080"),
        (
            {"trusted_proxies": "127.0.0.0/8"},
            "127.0.0.1",
            {"x-forwarded-proto": "https", "x-forwarded-host": "a.example:444, b.example"},
            "wss://a.example:444",
        ),
        ({"trusted_proxies": "10.0.0.1"}, "::ffff:10.0.0.1", {"x-forwarded-proto": "wss"}, "wss://localhost:8080"),
        ({"trusted_proxies": "10.0.0.1"}, "10.0.0.2", {"x-forwarded-proto": "https"}, "ws://localhost:8080"),
        (
            {"trusted_proxies": "127.0.0.1"},
            "127.0.0.1",
            {"x-forwarded-proto": "gopher", "x-forwarded-host": "a b<c>"},
            "ws://",
        ),
    ],
)
async def test_urls_carry_the_public_origin(hub, settings, peer, headers, origin):
    """The setting, else the request's own; forwarded headers count from configured proxies only."""
    async with client_of(hub, peer, **settings) as client:
        created = (await client.post("/v2/live", json={}, headers=headers)).json()
        listed = (await client.get("/v2/live", headers=headers)).json()
    assert created["url"].startswith(f"{origin}/v2/live?token=" if origin != "ws://" else origin)
    assert listed["first"].startswith(origin.replace("ws", "http", 1))
    assert "<" not in created["url"]


# Who may call


async def test_with_keys_a_caller_needs_one_and_sees_only_its_own_sessions(client, hub):
    """401 without a valid key; somebody else's session is not there."""
    mine, secret = new_key("mine")
    other, _ = new_key("other")
    for key in (mine, other):
        await hub.store.add_key(key)
    foreign = await stored(hub, owner=other.id)
    for path in ("/v2/live", f"/v2/live/{foreign.id}", f"/v2/live/{foreign.id}/file", "/v2/live/none"):
        assert_error(await client.get(path), 401, "no gladia key provided")
        assert_error(await client.get(path, headers={"x-gladia-key": "vv_no"}), 401, "gladia key not found")
    assert_error(await client.post("/v2/live", content=b"{"), 401, "no gladia key provided")
    headers = {"X-Gladia-Key": secret}
    created = (await client.post("/v2/live", json={}, headers=headers)).json()
    assert [item["id"] for item in (await client.get("/v2/live", headers=headers)).json()["items"]] == [created["id"]]
    for method, path in [("GET", ""), ("GET", "/file"), ("PATCH", ""), ("DELETE", "")]:
        answer = await client.request(method, f"/v2/live/{foreign.id}{path}", headers=headers)
        assert_error(answer, 404, "no live session")
    for path in ("/health", "/openapi.json", "/docs", "/v1/models"):  # nothing of anybody's sessions
        assert (await client.get(path)).status_code == 200


async def test_pages_may_read_refusals(client, hub):
    """A browser shows an error to a page only with CORS headers on it."""
    headers = {"origin": "http://localhost:3000"}
    assert "access-control-allow-origin" in (await client.get("/v2/live/none", headers=headers)).headers
    hub.failure = RuntimeError("bug")
    answer = await client.post("/v2/live", json={}, headers=headers)
    assert answer.status_code == 500
    assert "access-control-allow-origin" in answer.headers


# Failures


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v2/live"),
        ("DELETE", "/v2/live"),
        ("OPTIONS", "/v2/live"),
        ("POST", "/v2/live/7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"),
        ("POST", "/health"),
        ("GET", "/v2/live/"),
        ("GET", "/nowhere"),
        ("GET", "/"),
    ],
)
async def test_unknown_paths_and_wrong_methods_are_not_found(client, method, path):
    """There is no 405, and no redirect either."""
    assert_error(await client.request(method, path), 404, f"Cannot {method} {path}")


async def test_a_bug_is_a_bare_internal_error_in_the_answer_and_a_traceback_in_the_log(client, hub, capsys):
    """Clients learn nothing but the id under which the log has the rest."""
    hub.failure = RuntimeError("odd state")
    answer = await client.post("/v2/live", json={})
    assert_error(answer, 500, "Internal server error")
    assert "odd state" not in answer.text
    logged = capsys.readouterr().out
    assert "RuntimeError" in logged
    assert answer.json()["request_id"] in logged


async def test_a_failing_store_is_a_passing_failure_without_its_details(client, hub, capsys):
    """503, which the SDKs retry; a database's own error may quote rows, and reaches neither client nor log."""
    hub.failure = StoreError("cannot keep a session")
    hub.failure.__cause__ = ValueError(f"row was: {SECRET}")
    answer = await client.post("/v2/live", json={})
    assert_error(answer, 503, "Temporarily unavailable")
    logged = capsys.readouterr().out
    assert "cannot keep a session" in logged
    assert SECRET not in answer.text + logged


async def test_a_closed_store_is_answered_too(client, hub):
    """Even the question whether keys exist may fail."""
    await hub.store.close()
    assert_error(await client.get("/v2/live"), 503, "Temporarily unavailable")


# Listing


async def days(hub: StandInHub) -> list[str]:
    """Put five sessions into the store, one a day at noon, and give their ids, the newest first."""
    first = datetime(2026, 11, 1, 12, tzinfo=UTC)
    records = [
        await stored(
            hub,
            created_at=first + timedelta(days=day),
            status=list(Status)[day % 4],
            body={"custom_metadata": {"desk": f"north-{day % 2}", "count": day, "site": {"floor": day}}},
        )
        for day in range(5)
    ]
    return [record.id for record in reversed(records)]


async def test_pages_follow_one_another_until_next_is_null(client, hub):
    """Newest first; `first`, `current` and `next` are absolute and keep the filters."""
    ids = await days(hub)
    url, seen, pages = "/v2/live?limit=2&after_date=2026-11-01", [], 0
    while url:
        page = (await client.get(url)).json()
        LiveV2ListResponse.from_dict(page)
        assert set(page) == {"first", "current", "next", "items"}
        seen += [item["id"] for item in page["items"]]
        again = (await client.get(page["current"])).json()
        assert [item["id"] for item in again["items"]] == [item["id"] for item in page["items"]]
        assert "after_date=2026-11-01" in page["first"]
        assert page["first"].startswith(f"{LOCAL}/v2/live?")
        url, pages = page["next"], pages + 1
    assert seen == ids
    assert pages == 3


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [4, 3, 2, 1, 0]),
        ("offset=3", [1, 0]),
        ("offset=99999999999999999999999", []),
        ("limit=99999999999999999999999", [4, 3, 2, 1, 0]),
        ("date=2026-11-03", [2]),
        ("date=2026-11-03T23:00:00Z", [2]),
        ("date=9999-12-31", []),
        ("before_date=2026-11-03", [1, 0]),
        ("after_date=2026-11-03", [4, 3, 2]),
        ("after_date=2026-11-03T12:00:00.000Z", [4, 3, 2]),
        ("after_date=2026-11-03T12:00:01Z", [4, 3]),
        ("after_date=2026-11-03T14:00:01%2B02:00", [4, 3]),
        ("after_date=2026-11-03T14:00:01+02:00", [4, 3]),
        ("after_date=2026-11-02&before_date=2026-11-04", [2, 1]),
        ("date=2026-11-03&before_date=2026-11-02", []),
        ("status=queued", [4, 0]),
        ("status=done&status=error", [3, 2]),
        ("status=done,error", [3, 2]),
        ("custom_metadata[desk]=north-1", [3, 1]),
        ("custom_metadata[desk]=north-1&custom_metadata[count]=3", [3]),
        ("custom_metadata%5Bdesk%5D=north-1", [3, 1]),
        ("custom_metadata[nothing]=x", []),
        ('custom_metadata={"count":3}', [3]),
        ('custom_metadata={"count":"3"}', [3]),
        ('custom_metadata={"site":{"floor":2}}', [2]),
        ("unknown=1", [4, 3, 2, 1, 0]),
    ],
)
async def test_the_list_can_be_filtered(client, hub, query, found):
    """Dates are UTC days or moments, metadata comes in both spellings, unknown parameters are ignored."""
    ids = await days(hub)
    answer = await client.get(f"/v2/live?{query}")
    assert answer.status_code == 200
    assert [4 - ids.index(item["id"]) for item in answer.json()["items"]] == found


@pytest.mark.parametrize(
    ("query", "start"),
    [
        ("offset=-1", "offset must be greater than or equal to 0"),
        ("offset=x", "offset must be a valid integer"),
        ("limit=0", "limit must be greater than or equal to 1"),
        ("date=yesterday", "date must be a date"),
        ("date=1700000000", "date must be a date"),
        ("before_date=2026-13-01", "before_date must be a date"),
        ("after_date=0001-01-01T00:00:00%2B14:00", "after_date must be a date"),
        ("status=gone", "status.0 must be 'queued'"),
        ("custom_metadata=desk", "custom_metadata must be valid JSON"),
        ("custom_metadata=[1]", "custom_metadata must be a JSON object"),
        ("custom_metadata=%ED%A0%80", "custom_metadata must be valid JSON"),
    ],
)
async def test_wrong_filters_are_listed_by_name(client, query, start):
    """Each string begins with the parameter."""
    answer = await client.get(f"/v2/live?{query}")
    assert_error(answer, 400, "not valid")
    assert answer.json()["validation_errors"][0].startswith(start)


async def test_a_page_is_never_longer_than_its_cap(client, hub):
    """A larger limit gets the cap and a `next` that goes on from there."""
    for _ in range(MAX_PAGE + 1):
        await stored(hub)
    page = (await client.get("/v2/live?limit=5000")).json()
    assert len(page["items"]) == MAX_PAGE
    assert len((await client.get(page["next"])).json()["items"]) == 1


# Reading


async def test_a_finished_session_is_given_whole_in_the_types_of_the_sdk(client, hub):
    """Result, messages and effective configuration, with no field that the SDK does not know."""
    record = await with_audio(hub, bytes(64_000), body={"custom_metadata": {"desk": "n"}}, transcription_s=0.5)
    word = Word(text="Hello", start=0.5, end=1.0, confidence=0.9)
    final = Utterance(id="00_00000500", channel=0, start=0.5, end=1.0, confidence=0.9, language="en", words=(word,))
    message = StoredMessage(seq=1, key="k", at=0, kind=Kind.FINAL, created_at=now(), text='{"type":"transcript"}')
    await hub.store.commit([Write(session_id=record.id, finals=(final,), messages=(message,))])
    body = (await client.get(f"/v2/live/{record.id}")).json()
    parsed = LiveV2Response.from_dict(body)
    assert parsed._unknown_fields == {}
    assert parsed.result.transcription.full_transcript == "Hello"
    assert parsed.result.messages == ['{"type":"transcript"}']
    assert parsed.result.metadata.audio_duration == 2.0
    assert (parsed.status, parsed.custom_metadata) == ("done", {"desk": "n"})
    assert (await client.get("/v2/live")).json()["items"] == [body]
    assert (await client.get(f"/v2/live/{record.id.upper()}")).json() == body


async def test_an_unfinished_session_has_no_result_yet(client, hub):
    """Queued sessions are there to be read, too."""
    created = (await client.post("/v2/live", json={})).json()
    body = (await client.get(f"/v2/live/{created['id']}")).json()
    assert (body["status"], body["result"], body["completed_at"]) == ("queued", None, None)


@pytest.mark.parametrize(
    "name", ["x", "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5", "7c1e2b905d344f0a9b6e2f8a41c7d3e5", "%00"]
)
async def test_ids_nobody_has_are_not_found(client, name):
    """Whether they could be ids or not."""
    assert_error(await client.get(f"/v2/live/{name}"), 404, "no live session with this id")


# Annotating


async def test_an_annotation_replaces_the_one_before(client, hub):
    """204, and the object comes back in the session."""
    record = await stored(hub)
    path = f"/v2/live/{record.id}"
    for metadata in ({"browser": "x"}, {"player": {"volume": 3}}):
        assert (await client.patch(path, json=metadata)).status_code == 204
        assert (await client.get(path)).json()["post_session_metadata"] == metadata


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'"x"', b'{"x": "\\udfff"}'])
async def test_an_annotation_is_a_json_object(client, hub, raw):
    """Anything else is refused and changes nothing."""
    record = await stored(hub, post_session_metadata={"kept": True})
    assert_error(await client.patch(f"/v2/live/{record.id}", content=raw), 400, "not valid")
    assert (await client.get(f"/v2/live/{record.id}")).json()["post_session_metadata"] == {"kept": True}


async def test_an_annotation_has_a_size_limit(client, hub):
    """413 beyond 100 kB."""
    record = await stored(hub)
    answer = await client.patch(f"/v2/live/{record.id}", json={"x": "y" * MAX_PATCH_BYTES})
    assert_error(answer, 413, "must not be larger")


# Deleting


async def test_a_finished_session_is_deleted_with_its_audio(client, hub):
    """202, once; afterwards nothing of it is left."""
    record = await with_audio(hub, bytes(3200), status=Status.ERROR)
    answer = await client.delete(f"/v2/live/{record.id}")
    assert (answer.status_code, answer.content) == (202, b"")
    assert hub.audio.size(record.id) == 0
    assert_error(await client.get(f"/v2/live/{record.id}"), 404, "no live session")
    assert_error(await client.delete(f"/v2/live/{record.id}"), 404, "no live session")


async def test_a_session_that_is_not_finished_cannot_be_deleted(client, hub):
    """403 while it is queued, processing, or still being put away."""
    ending = await stored(hub)
    hub.running.add(ending.id)
    for record in (await stored(hub, status=Status.QUEUED), await stored(hub, status=Status.PROCESSING), ending):
        assert_error(await client.delete(f"/v2/live/{record.id}"), 403, "not finished")
        assert (await client.get(f"/v2/live/{record.id}")).status_code == 200


# Downloading


async def test_the_file_is_a_wav_of_every_channel(client, hub):
    """The audio as it was sent, in whole frames, at the announced length; larger than one piece."""
    data = bytes(range(256)) * (FILE_PIECE_BYTES // 128)
    record = await with_audio(hub, data + b"x", body={"channels": 2, "sample_rate": 8000})
    for name in ("file", "audio"):
        answer = await client.get(f"/v2/live/{record.id}/{name}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert int(answer.headers["content-length"]) == len(answer.content)
        with wave.open(io.BytesIO(answer.content)) as file:
            assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
            assert file.readframes(file.getnframes()) == data
        head = await client.head(f"/v2/live/{record.id}/{name}")
        assert (head.content, head.headers["content-length"]) == (b"", answer.headers["content-length"])


async def test_a_header_that_the_client_sent_is_not_in_the_file_twice(client, hub):
    """Audio begins behind it; bytes that were written but not committed stay out."""
    record = await with_audio(hub, b"H" * 44 + b"ab" * 100, start=44)
    hub.audio.append(record.id, b"not committed")
    content = (await client.get(f"/v2/live/{record.id}/file")).content
    assert content.startswith(b"RIFF")
    assert content.endswith(b"data" + (200).to_bytes(4, "little") + b"ab" * 100)


async def test_a_session_without_audio_gives_an_empty_wav(client, hub):
    """Nothing was recorded, and the file says so."""
    record = await stored(hub)
    with wave.open(io.BytesIO((await client.get(f"/v2/live/{record.id}/file")).content)) as file:
        assert file.getnframes() == 0


async def test_there_is_no_file_before_the_end(client, hub):
    """404 while the session goes on."""
    record = await with_audio(hub, bytes(3200), status=Status.PROCESSING)
    assert_error(await client.get(f"/v2/live/{record.id}/file"), 404, "not ready")


# Around it


async def test_a_language_that_is_missing_is_refused_with_the_models_that_know_it(client, hub):
    """By the model that the request stands for; what is not here is not offered."""
    codes = {"tiny": {"en"}, "mine": {"en", "fr"}, "big": {"nl", "fr"}, "gone": {"nl"}}
    hub.listed = [
        Listed(name=name, engine="t", languages=frozenset(known), features=(), loaded=False, default=name == "tiny")
        for name, known in codes.items()
    ]
    hub.listed[-1] = replace(hub.listed[-1], get="vivavoce models verify gone")
    said = {}
    for model, language in (("solaria-1", "nl"), ("mine", "nl"), ("mine", "de")):
        body = {"model": model, "language_config": {"languages": [language]}}
        said[model, language] = (await client.post("/v2/live", json=body)).json()["message"]
    assert "the model tiny (the default one) does not know nl (it knows: en)" in said["solaria-1", "nl"]
    assert "the model mine does not know nl" in said["mine", "nl"]
    assert said["mine", "nl"].endswith("ask for those, or for another model: big")
    assert said["mine", "de"].endswith("ask for those, or add a model that does (see `vivavoce models list`)")


async def test_health_and_models_are_public(client, hub):
    """For monitors, and for clients that ask what there is and what there could be."""
    hub.listed = [
        Listed(name="tiny", engine="t", languages=frozenset({"nl", "en"}), features=("x",), loaded=True, default=True),
        Listed(name="big", engine="t", languages=None, features=(), loaded=False, get="vivavoce models download big"),
    ]
    body = (await client.get("/health")).json()
    assert body["health"] == "OK"
    assert set(body) == {"health", "version"}
    assert (await client.head("/health")).status_code == 200
    tiny, big = (await client.get("/v1/models")).json()["models"]
    assert tiny == {
        "name": "tiny",
        "engine": "t",
        "languages": ["en", "nl"],
        "features": ["x"],
        "loaded": True,
        "default": True,
        "installed": True,
    }
    assert big == {
        "name": "big",
        "engine": "t",
        "features": [],
        "loaded": False,
        "default": False,
        "installed": False,
        "get": "vivavoce models download big",
    }


async def test_every_answer_has_a_request_id_of_its_own(client):
    """Good ones, too."""
    ids = {(await client.get("/health")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


async def test_the_openapi_document_is_complete_and_loads_into_schemathesis(hub):
    """Every reference resolves, every operation is there, and cases can be made from it."""
    app = create_app(hub, Settings())
    document = app.openapi()
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in names
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()
    operations = {result.ok().label for result in schema.get_all_operations()}
    assert operations == {
        "POST /v2/live",
        "GET /v2/live",
        "GET /v2/live/{session_id}",
        "PATCH /v2/live/{session_id}",
        "DELETE /v2/live/{session_id}",
        "GET /v2/live/{session_id}/file",
        "GET /v2/live/{session_id}/deliveries",
        "GET /v2/live/{session_id}/events",
        "POST /v2/live/{session_id}/events/token",
        "GET /health",
        "GET /v1/models",
        "GET /health/live",
        "GET /health/ready",
        "GET /metrics",
    }


async def test_the_docs_page_lists_every_operation_and_needs_no_network(client, hub):
    """It refers to nothing outside this server, so it works offline."""
    answer = await client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text == docs_page(create_app(hub, Settings()).openapi())
    for path in ("POST /v2/live", "GET /v2/live/{session_id}/file"):
        assert f"<code>{path}</code>" in answer.text
    assert "maximum_duration_without_endpointing" in answer.text
    assert "<script" not in answer.text
    assert not re.search(r'(src|href)="(https?:)?//', answer.text)
