"""What the running program leaves behind: nothing of a deleted session on disk, and no words or secrets in its log."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from live import PATIENCE_S, STOP, Opened, connected, open_session, pieces, transcribe
from recordings import pcm16, wheel_recording
from server import Server, new_key, serving

WORDS = ("wisdom", "foolishness", "incredulity", "superlative")
METADATA = {"customer": "Northwind-4711"}
NOTE = {"note": "Quillfeather-0815"}


@dataclass(frozen=True)
class Ran:
    """A server with two finished sessions, one of which is confidential, and its secrets."""

    server: Server
    key: str
    token: str
    confidential: str
    other: str
    audio: bytes


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Iterator[Ran]:
    """Run sessions through a server that logs all it can, as JSON, and forgets nothing by itself."""
    data_dir = tmp_path_factory.mktemp("traces") / "data"
    key = new_key(data_dir)[0]
    options = ("--log-level", "debug", "--log-format", "json", "--retention-days", "forever")
    with serving(data_dir, *options) as server:
        server.http.headers["x-gladia-key"] = key
        audio = pcm16(wheel_recording("two_cities"))
        opened = open_session(server, custom_metadata=METADATA)
        asyncio.run(_run(opened, audio))
        other = asyncio.run(transcribe(server, [pcm16(wheel_recording("beckett"))]))
        assert server.http.patch(f"/v2/live/{opened.session_id}", json=NOTE).status_code == 204
        server.get("/v2/live", custom_metadata=json.dumps(METADATA))
        assert server.http.get("/nowhere", params={"q": "hush-hush"}).status_code == 404
        token = opened.url.partition("token=")[2]
        yield Ran(server, key, token, opened.session_id, other.session_id, audio)


async def _run(opened: Opened, audio: bytes) -> None:
    async with connected(opened) as socket:
        await socket.send(*pieces(audio, 32_000), STOP)
        assert await socket.ended() == 1000


def test_the_log_is_json_with_session_ids_and_without_words_or_secrets(ran: Ran):
    """At its most talkative: nothing that was said, no token, no key, no query and no metadata."""
    lines = [json.loads(line) for line in ran.server.log.splitlines()]
    events = {line["event"] for line in lines if line.get("session") == ran.confidential}
    assert {"session created", "socket opened", "socket closed", "session over"} <= events
    assert any(line["event"] == "request" and line["path"] == "/v2/live" for line in lines)
    log = ran.server.log.lower()
    secrets = [ran.token, ran.key, "hush-hush", "token=", *METADATA.values(), *NOTE.values(), *WORDS]
    assert [secret for secret in secrets if secret.lower() in log] == []


def traces(ran: Ran, marks: list[bytes]) -> dict[str, list[bytes]]:
    """Give the marks found in each file of the data directory."""
    found = {}
    for path in sorted(ran.server.data_dir.rglob("*")):
        if path.is_file():
            content = path.read_bytes().lower()
            if here := [mark for mark in marks if mark.lower() in content]:
                found[path.name] = here
    return found


def test_a_deleted_session_leaves_no_trace_on_disk(ran: Ran):
    """Words, metadata, id and audio are in no file any more: not in free pages of the database, nor in its log."""
    loud = len(ran.audio) // 2
    texts = [*WORDS, *METADATA.values(), *NOTE.values(), ran.confidential]
    marks = [text.encode() for text in texts] + [ran.audio[loud : loud + 64]]
    before = traces(ran, marks)
    assert {mark for found in before.values() for mark in found} == set(marks), (
        "the test looks for what was never there"
    )
    # Whoever is in the middle of reading the database keeps its log from being emptied for a while.
    reader = sqlite3.connect(ran.server.data_dir / "vivavoce.sqlite3", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (2,)
    assert ran.server.http.delete(f"/v2/live/{ran.confidential}").status_code == 202
    assert traces(ran, marks), "the reader still sees what it began with"
    reader.close()
    deadline = time.monotonic() + PATIENCE_S
    while left := traces(ran, marks):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert ran.server.http.get(f"/v2/live/{ran.confidential}").status_code == 404
    assert ran.server.result(ran.other)["result"]["transcription"]["full_transcript"]


async def test_the_metrics_tell_what_happened(ran: Ran):
    """Counts match what was sent, and no label holds anything but a closed set of names."""
    text = ran.server.http.get("/metrics").text
    values = dict(re.findall(r"^(vivavoce_.+) (\S+)$", text, re.MULTILINE))
    seconds = (len(ran.audio) + len(pcm16(wheel_recording("beckett")))) / 32_000
    assert float(values["vivavoce_audio_received_seconds_total"]) == pytest.approx(seconds, abs=0.01)
    assert float(values["vivavoce_audio_heard_seconds_total"]) == pytest.approx(seconds, abs=0.5)
    assert 0 < float(values["vivavoce_speech_transcribed_seconds_total"]) < seconds
    assert float(values["vivavoce_ack_seconds_count"]) >= 2
    assert 'vivavoce_answer_seconds_count{kind="partial"}' in values
    for name in ("answer_seconds", "decode_seconds", "decode_batch_size"):
        assert float(values[f'vivavoce_{name}_count{{kind="final"}}']) >= 8
    assert float(values['vivavoce_sessions_ended_total{status="done"}']) == 2
    assert float(values['vivavoce_sockets_closed_total{reason="finished"}']) == 2
    assert float(values['vivavoce_http_responses_total{status="404"}']) >= 1
    assert values['vivavoce_sessions{state="live"}'] == "0.0"
    assert {'vivavoce_queue_length{queue="final"}', 'vivavoce_delay_seconds{part="journal"}'} <= set(values)
    for part in ("event loop", "hearing", "finals", "database", "workers"):
        assert float(values[f'vivavoce_cpu_seconds_total{{part="{part}"}}']) > 0
    assert ran.confidential not in text


def test_the_metrics_need_a_key_once_there_is_one(ran: Ran):
    """Loopback is no proof behind a proxy; the key may come the way Prometheus sends it."""
    assert ran.server.http.get("/metrics", headers={"x-gladia-key": "wrong"}).status_code == 401
    headers = {"x-gladia-key": "", "authorization": f"Bearer {ran.key}"}
    assert ran.server.http.get("/metrics", headers=headers).status_code == 200
    for path in ("/health/live", "/health/ready"):
        assert ran.server.http.get(path, headers={"x-gladia-key": ""}).status_code == 200


async def test_with_a_retention_of_nothing_a_session_is_gone_when_it_is_over(tmp_path):
    """The socket brings everything; afterwards neither REST nor the disk has any of it."""
    with serving(tmp_path / "data", "--retention-days", "0") as server:
        heard = await transcribe(server, [pcm16(wheel_recording("beckett"))])
        assert heard.of("post_final_transcript")
        deadline = time.monotonic() + PATIENCE_S
        while "vivavoce_sessions_forgotten_total 1.0" not in server.http.get("/metrics").text:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert server.http.get(f"/v2/live/{heard.session_id}").status_code == 404
        assert list((server.data_dir / "audio").iterdir()) == []
