"""Callbacks and webhooks of the running program: what is posted, how it is signed, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from gladiaio_sdk.v2.live.generated_types import create_live_v2_callback_message_from_json
from standardwebhooks import Webhook

from live import EVERYTHING, PATIENCE_S, STOP, connected, open_session, pieces
from receiver import OK, Post, Receiver, receiving, status
from recordings import pcm16
from server import Server, run_cli, serving, start

CHUNK = 3200
LIFECYCLE = ["live.start_session", "live.start_recording", "live.end_recording", "live.end_session"]


def callback(receiver: Receiver, **flags: bool) -> dict[str, Any]:
    """Give the options that ask for callbacks."""
    return {"callback": True, "callback_config": {"url": receiver.url, **flags}}


async def speak(server: Server, speech: bytes, **options: Any) -> Any:
    """Run a whole session and give what its socket brought."""
    opened = await asyncio.to_thread(lambda: open_session(server, **options))
    async with connected(opened) as socket:
        await socket.send(*pieces(speech, CHUNK), STOP)
        assert await socket.ended() == 1000
    return socket


def events(posts: list[Post]) -> list[str]:
    """Give the events in the order in which they came."""
    return [post.json["event"] for post in posts]


async def test_every_message_is_posted_in_order_and_in_the_words_of_the_socket(tmp_path, beckett):
    """With every flag on: the socket's own messages in an envelope, `start_session` before them."""
    async with receiving() as receiver, receiving() as webhook:
        options = ("--allow-private-callbacks", "--webhook-url", f"{webhook.url}?x=1")
        secret = run_cli("keys", "rotate-secret", "--data-dir", str(tmp_path / "data")).stdout.strip()
        with serving(tmp_path / "data", *options) as server:
            socket = await speak(server, pcm16(beckett), **callback(receiver, **EVERYTHING))
            await receiver.until(lambda it: "live.end_session" in events(it.taken))
            await webhook.until(lambda it: len(it.taken) == 4)
            report = await asyncio.to_thread(server.get, f"/v2/live/{socket.session_id}/deliveries")
            log = server.log
        bodies = [post.json for post in receiver.posts]
        assert {body["id"] for body in bodies} == {socket.session_id}
        assert all(set(body) == {"id", "event", "payload"} for body in bodies)
        assert all(body["event"] == f"live.{body['payload']['type']}" for body in bodies)
        for post in receiver.posts:
            create_live_v2_callback_message_from_json(post.body)
            assert Webhook(secret).verify(post.body, post.headers) == post.json
        payloads = [body["payload"] for body in bodies]
        assert payloads[0]["type"] == "start_session"
        # The socket gets one acknowledgment for several that wait, and drops partials that are replaced.
        assert [each for each in socket.messages if each["type"] != "audio_chunk" and each not in payloads] == []
        ends = [each["data"]["byte_range"][1] for each in payloads if each["type"] == "audio_chunk"]
        assert {stop for _, stop in socket.acked} <= set(ends)
        durable = {"transcript", "speech_start", "speech_end", "end_session", "end_recording", "post_final_transcript"}
        said = [each for each in socket.messages if each["type"] in durable]
        assert [each for each in payloads if each in said] == said
        text = receiver.posts[-2].body
        assert any(frame in text for frame in socket.frames), "the payload is the socket's very text"
        assert [post.json for post in webhook.posts] == [
            {"event": event, "payload": {"id": socket.session_id}} for event in LIFECYCLE
        ]
        assert all(Webhook(secret).verify(post.body, post.headers) for post in webhook.posts)
        assert report["callback"] == {"waiting": 0, "delivered": len(bodies), "dead": 0}
        assert report["webhook"] == {"waiting": 0, "delivered": 4, "dead": 0}
        for hidden in (secret, "whsec_", "/hook", "Ever tried"):
            assert hidden not in log


async def test_the_flags_of_callbacks_have_defaults_of_their_own(tmp_path, beckett):
    """Finals, post-processing and lifecycle; neither partials nor speech events nor acknowledgments."""
    async with receiving() as receiver:
        with serving(tmp_path / "data", "--allow-private-callbacks") as server:
            silent = {"messages_config": dict.fromkeys(EVERYTHING, False)}
            await speak(server, pcm16(beckett), **callback(receiver), **silent)
            await receiver.until(lambda it: "live.end_session" in events(it.taken))
            off = await asyncio.to_thread(
                lambda: open_session(server, callback=False, callback_config={"url": receiver.url})
            )
            assert server.get(f"/v2/live/{off.session_id}/deliveries")["callback"]["waiting"] == 0
        came = events(receiver.posts)
        finals = came.count("live.transcript")
        assert finals >= 3
        assert came == [
            "live.start_session", "live.start_recording", *["live.transcript"] * finals,
            "live.end_recording", "live.post_transcript", "live.post_final_transcript", "live.end_session",
        ]  # fmt: skip


async def test_a_private_address_needs_permission(tmp_path):
    """Told at once where the URL shows it, with the way out; 400 for what is no URL."""
    with serving(tmp_path / "data") as server:
        for url in (
            "http://127.0.0.1:9/x",
            "http://localhost/x",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/",
        ):
            answer = server.http.post("/v2/live", json={"callback": True, "callback_config": {"url": url}})
            assert answer.status_code == 422, url
            assert "--allow-private-callbacks" in answer.json()["message"]
        for url in ("ftp://x/", "nonsense", "http://", "http://a:99999/"):
            answer = server.http.post("/v2/live", json={"callback": True, "callback_config": {"url": url}})
            assert answer.status_code == 400, url
            assert answer.json()["validation_errors"] == ["callback_config.url must be an http or https URL"]


async def test_a_dead_receiver_slows_no_session_and_its_dead_letters_are_shown(tmp_path, beckett):
    """The session ends as ever; `vivavoce sessions show` tells what was given up and why."""
    async with receiving(lambda _: status(500)) as receiver:
        options = ("--allow-private-callbacks", "--callback-deadline", "1")
        with serving(tmp_path / "data", *options) as server:
            socket = await speak(server, pcm16(beckett), **callback(receiver))
            path = f"/v2/live/{socket.session_id}/deliveries"
            async with asyncio.timeout(PATIENCE_S):
                while (report := await asyncio.to_thread(server.get, path))["callback"]["waiting"]:
                    await asyncio.sleep(0.1)
            shown = await asyncio.to_thread(run_cli, "sessions", "show", socket.session_id, "--server", server.url)
        assert report["callback"]["delivered"] == 0
        assert report["callback"]["dead"] == len(report["dead_letters"]) >= 6
        assert shown.returncode == 0, shown.stderr
        assert "tried" in shown.stdout
        assert f"callbacks: 0 delivered, 0 waiting, {report['callback']['dead']} dead" in shown.stderr
        assert "the receiver answered 500" in shown.stderr


async def test_with_a_retention_of_nothing_a_session_stays_until_its_callbacks_are_delivered(tmp_path):
    """The receiver gets all of it, however long it fails; then result and outbox are gone at once."""
    up = False
    async with receiving(lambda _: OK if up else status(503)) as receiver:
        with serving(tmp_path / "data", "--allow-private-callbacks", "--retention-days", "0") as server:
            socket = await speak(server, b"\0" * 32_000, **callback(receiver))
            await receiver.until(lambda it: len(it.posts) >= 3)
            path = f"/v2/live/{socket.session_id}"
            assert (await asyncio.to_thread(server.result, socket.session_id))["status"] == "done"
            up = True
            await receiver.until(lambda it: "live.end_session" in events(it.taken))
            async with asyncio.timeout(PATIENCE_S):
                while (await asyncio.to_thread(server.http.get, path)).status_code != 404:
                    await asyncio.sleep(0.1)
    assert owed(tmp_path / "data") == []


async def test_keys_have_secrets_of_their_own(tmp_path, beckett):
    """Shown once when the key is made, renewed by id, and never in the log."""
    data = tmp_path / "data"
    made = run_cli("keys", "create", "--name", "desk", "--data-dir", str(data))
    key = made.stdout.strip()
    secret = next(word.strip(",") for word in made.stderr.split() if word.startswith("whsec_"))
    key_id = made.stderr.split("key ")[1].split()[0]
    async with receiving() as receiver:
        with serving(data, "--allow-private-callbacks") as server:
            server.http.headers["x-gladia-key"] = key
            await asyncio.to_thread(lambda: open_session(server, **callback(receiver)))
            await receiver.until(lambda it: len(it.taken) == 1)
            assert Webhook(secret).verify(receiver.taken[0].body, receiver.taken[0].headers)
            renewed = await asyncio.to_thread(run_cli, "keys", "rotate-secret", key_id, "--data-dir", str(data))
            assert renewed.returncode == 0, renewed.stderr
        unknown = run_cli("keys", "rotate-secret", "nobody", "--data-dir", str(data))
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert "vivavoce keys list" in unknown.stderr
    with sqlite3.connect(data / "vivavoce.sqlite3") as database:
        (kept,) = database.execute("SELECT count(*) FROM signing_secrets WHERE owner = ?", (key_id,)).fetchone()
    assert kept == 2


def owed(data: Path) -> list[tuple[str, str]]:
    """Read from the store what was ever to be posted: ids and events, in order."""
    with sqlite3.connect(data / "vivavoce.sqlite3") as database:
        return database.execute("SELECT id, event FROM outbox ORDER BY position").fetchall()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_nothing_owed_is_lost_when_the_server_is_killed_while_the_receiver_fails(tmp_path, beckett, seed):
    """After `kill -9`, with three in ten posts failing, all that was committed arrives, in order, with its ids."""
    chance = random.Random(seed)
    data = tmp_path / "data"
    async with receiving(lambda _: status(500) if chance.random() < 0.3 else OK) as receiver:
        server = await asyncio.to_thread(start, data, "--allow-private-callbacks")
        flags = {**EVERYTHING, "receive_partial_transcripts": False, "receive_acknowledgments": False}
        opened = await asyncio.to_thread(lambda: open_session(server, **callback(receiver, **flags)))
        async with connected(opened) as socket:
            await socket.send(*pieces(pcm16(beckett), CHUNK))
            await socket.until(lambda _: len(socket.finals) >= 3)
            server.process.kill()
            await socket.ended()
        server.process.wait()
        server.process.stdout.close()
        server.http.close()
        committed = owed(data)
        with serving(data, "--allow-private-callbacks"):
            ids = [delivery for delivery, _ in committed]
            await receiver.until(lambda it: set(ids) <= {post.id for post in it.taken})
    first = list(dict.fromkeys(post.id for post in receiver.taken))
    assert first[: len(ids)] == ids
    assert len(ids) > 10
    assert [event for _, event in committed][:2] == ["live.start_session", "live.start_recording"]
    bodies: dict[str, set[str]] = {}
    for post in receiver.posts:
        bodies.setdefault(post.id, set()).add(json.dumps(post.json))
    assert all(len(each) == 1 for each in bodies.values())
