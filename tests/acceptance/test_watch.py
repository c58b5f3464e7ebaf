"""Watching a call: what its watchers get, who may be one, and what becomes of them when the server goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from live import PATIENCE_S, STOP, Json, Opened, connected, is_durable, moved, open_session, transcribe
from recordings import wheel_recording
from server import Server, run_cli, serving
from sound import pcm
from vivavoce.model import SAMPLE_RATE

SPEECH = wheel_recording("beckett")[: 5 * SAMPLE_RATE]
ADDRESS = "john@example.com"
REDACTED = {
    "custom_spelling": True,
    "custom_spelling_config": {"spelling_dictionary": {ADDRESS: ["tried", "failed"]}},
    "pii_redaction": True,
    "pii_redaction_config": {"entity_types": ["EMAIL_ADDRESS"]},
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a key, where one session may be watched by two."""
    with serving(tmp_path_factory.mktemp("watch") / "data", "--max-watchers", "2") as running:
        running.http.headers["x-gladia-key"] = new_key(running)
        yield running


def new_key(server: Server) -> str:
    created = run_cli("keys", "create", "--name", "desk", "--data-dir", str(server.data_dir))
    return created.stdout.split()[-1]


def watched(opened: Opened, query: str = "") -> Opened:
    """Give where a session is watched."""
    parts = urlsplit(opened.url)
    path = f"/v2/live/{opened.session_id}/events"
    return Opened(opened.session_id, parts._replace(path=path, query=query).geturl())


def mint(server: Server, session_id: str, **body: Any) -> Json:
    answer = server.http.post(f"/v2/live/{session_id}/events/token", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def events_of(text: str) -> list[tuple[str | None, Json]]:
    """Read server-sent events: the id and the data of each."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id"), json.loads(fields["data"])))
    return found


async def follow(url: str, **headers: str) -> list[tuple[str | None, Json]]:
    """Follow an event stream to its end."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        answer = await client.get(url, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events_of(answer.text)


def without_seq(message: Json) -> Json:
    return {name: value for name, value in message.items() if name != "seq"}


def assert_numbered(messages: list[Json], start: int = 0) -> None:
    """What is stored carries a number, without gaps or repeats; what is not carries none."""
    assert [message["seq"] for message in messages if "seq" in message] == list(
        range(start, start + sum("seq" in message for message in messages))
    )
    assert all(("seq" in message) == is_durable(message) for message in messages)


async def test_watchers_see_the_call_whatever_its_own_client_wants(server):
    """Both forms bring the same: partials, and every message that is stored, but no acknowledgment of audio."""
    opened = open_session(server, messages_config={"receive_acknowledgments": True})
    token = mint(server, opened.session_id)
    stream = asyncio.create_task(follow(token["url"]))
    async with connected(opened) as socket, connected(watched(opened)) as watcher:
        await socket.speak(pcm(SPEECH), at=round(2.4 * SAMPLE_RATE) * 2, came=lambda: watcher.partials)
        await socket.send(STOP)
        assert await socket.ended() == 1000
        assert await watcher.ended() == 1000
    events = await stream
    types = set(watcher.types)
    assert {"start_recording", "end_recording", "end_session"} <= types - set(socket.types)
    assert watcher.partials
    assert not socket.partials
    assert "audio_chunk" not in types
    assert_numbered(watcher.messages)
    durable = [message for message in watcher.messages if "seq" in message]
    own = [message for message in socket.messages if message["type"] != "audio_chunk"]
    assert [message for message in own if message not in map(without_seq, durable)] == []
    assert [message for _, message in events if "seq" in message] == durable
    assert all(number == (str(message["seq"]) if "seq" in message else None) for number, message in events)
    again = await follow(token["url"], **{"last-event-id": str(durable[2]["seq"])})
    assert [message for _, message in again] == durable[3:]
    last = {"last-event-id": str(durable[-1]["seq"])}
    assert server.http.get(token["url"], headers=last).status_code == 204
    async with connected(watched(opened, f"from={durable[-2]['seq']}")) as late:
        assert await late.ended() == 1000
    assert late.messages == durable[-2:]


async def test_whoever_comes_in_the_middle_misses_nothing(server):
    """A watcher that begins at any number, at any moment, sees what those see that were there all along."""
    opened = open_session(server)
    async with connected(opened) as socket, connected(watched(opened)) as first:
        await socket.speak(pcm(SPEECH), at=round(2.4 * SAMPLE_RATE) * 2, came=lambda: first.partials)
        async with connected(watched(opened, "from=2&partials=false")) as second:
            await socket.send(STOP)
            assert [await one.ended() for one in (socket, first, second)] == [1000] * 3
    assert second.messages == [message for message in first.messages if message.get("seq", -1) >= 2]


async def test_watchers_never_see_what_is_hidden(server):
    """Redaction comes before anybody sees a text."""
    opened = open_session(server, realtime_processing=REDACTED)
    async with connected(opened) as socket, connected(watched(opened)) as watcher:
        await socket.speak(pcm(SPEECH), at=round(2.4 * SAMPLE_RATE) * 2, came=lambda: watcher.partials)
        await socket.send(STOP)
        assert await watcher.ended() == 1000
    assert any("EMAIL" in said["utterance"]["text"] for said in watcher.transcripts)
    assert not any(ADDRESS in frame for frame in watcher.frames)


async def watch_code(opened: Opened, query: str, **extra: Any) -> int:
    """Give how the server closes a watcher's socket."""
    async with connected(watched(opened, query), **extra) as watcher:
        return await watcher.ended()


async def test_only_the_owner_and_who_has_a_token_may_watch(guarded):
    """A token opens one session, for reading, for a while; neither token stands for the other, and keys stay apart."""
    heard = await transcribe(guarded, [pcm(SPEECH)])
    opened = Opened(heard.session_id, f"{guarded.url.replace('http', 'ws')}/v2/live?token=x")
    other = open_session(guarded)
    token = mint(guarded, opened.session_id)["token"]
    url = f"{guarded.url}/v2/live/{opened.session_id}/events"
    stranger = new_key(guarded)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as anybody:
        assert (await anybody.get(url)).status_code == 401
        assert (await anybody.get(url, params={"token": token})).status_code == 200
        assert (await anybody.get(url, headers={"x-gladia-key": stranger})).status_code == 404
        forged = (token[:-1] + ("0" if token[-1] != "0" else "1"), "9" + token, "", "x.y", "é")
        own = urlsplit(other.url).query.removeprefix("token=")
        for wrong in (*forged, own, mint(guarded, other.session_id)["token"]):
            assert (await anybody.get(url, params={"token": wrong})).status_code == 401, wrong
        assert (await anybody.get(url, params={"token": token, "from": -1})).status_code == 400
        assert (await anybody.get(f"{guarded.url}/v2/live", params={"token": token})).status_code == 401
        assert (await anybody.post(f"{url}/token", params={"token": token})).status_code == 401
    for query, code in ((f"token={token}", 1000), ("token=1.2", 4401), ("", 4401), (f"token={token}&from=x", 4400)):
        assert await watch_code(opened, query) == code, query
    keyed = {"x-gladia-key": guarded.http.headers["x-gladia-key"]}
    assert await watch_code(opened, "", additional_headers=keyed) == 1000
    assert await watch_code(opened, "", additional_headers={"x-gladia-key": stranger}) == 4403
    async with connected(Opened(other.session_id, f"{opened.url[:-1]}{token}")) as socket:
        assert await socket.ended() == 4403
    for body in ({"expires_in": 0}, {"expires_in": 10**9}, {"expires_in": "1"}, {"until": 1}, [1]):
        assert guarded.http.post(f"{url}/token", json=body).status_code == 400, body


async def test_so_many_may_watch_and_no_more(guarded):
    """One too many is sent away until somebody leaves; whoever is cut off makes room too."""
    opened = open_session(guarded)
    token = mint(guarded, opened.session_id)
    place = watched(opened, f"token={token['token']}")
    async with connected(place) as first:
        async with (
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client,
            client.stream("GET", token["url"]) as stream,
        ):
            assert stream.status_code == 200
            assert await watch_code(opened, f"token={token['token']}") == 1013
            assert guarded.http.get(token["url"]).status_code == 429
            await first.drop()
            await until_watchers(guarded, 1)
        await until_watchers(guarded, 0)
    async with connected(place), connected(place):
        await until_watchers(guarded, 2)


async def until_watchers(server: Server, count: int) -> None:
    """Wait until the server counts so many watchers."""
    async with asyncio.timeout(PATIENCE_S):
        while f"vivavoce_watchers {float(count)}" not in server.http.get("/metrics").text:
            await asyncio.sleep(0.05)


async def test_a_watcher_comes_back_after_a_restart_with_its_last_number(tmp_path):
    """Two processes, one sequence of numbered messages."""
    with serving(tmp_path / "data", "--drain-timeout", "0.1") as first:
        opened = open_session(first)
        async with connected(opened) as socket, connected(watched(opened)) as watcher:
            await socket.send(pcm(SPEECH))
            await watcher.until(lambda message: message["type"] == "speech_end")
            assert await asyncio.to_thread(first.stop) == 0
            assert await watcher.ended() == 1012
    seen = [message for message in watcher.messages if "seq" in message]
    with serving(tmp_path / "data") as second:
        place = watched(opened, f"from={seen[-1]['seq'] + 1}")
        async with connected(moved(opened, second)) as socket, connected(moved(place, second)) as later:
            await socket.send(STOP)
            assert await later.ended() == 1000
    assert_numbered(seen + [message for message in later.messages if "seq" in message])
    assert later.types[-1] == "end_session"
