"""What stays: stored messages and results, over restarts, signals and kills; one process a data directory."""

from __future__ import annotations

import asyncio
import json
import signal
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from laws import check
from live import (
    MAX_FRAME_BYTES,
    STOP,
    base64_chunk,
    connected,
    is_final,
    moved,
    once,
    open_session,
    pieces,
    transcribe,
    until_status,
)
from recordings import wheel_recording
from server import run_cli, serving
from sound import interleave, pcm, share_of, silence
from vivavoce.model import SAMPLE_RATE

CHUNK = 3200
SPEECH = wheel_recording("two_cities")[: round(4.8 * SAMPLE_RATE)]
SPOKEN = "It was the best of times, it was the worst of times"


async def test_stored_messages_are_what_was_sent(server):
    """`result.messages` holds every message that was sent, in order and to the letter, but for partials and audio
    acknowledgments.
    """
    async with connected(open_session(server)) as socket:
        await socket.send("what?")
        await socket.speak(pcm(SPEECH), at=3 * 2 * SAMPLE_RATE)
        await socket.send('{"type": "audio_chunk", "data": {"chunk": "?"}}', STOP)
        assert await socket.ended() == 1000

    check(socket.messages)
    sent = [
        frame
        for frame, message in zip(socket.frames, socket.messages, strict=True)
        if message["type"] != "audio_chunk" and (message["type"] != "transcript" or is_final(message))
    ]
    assert socket.partials
    assert server.result(socket.session_id)["result"]["messages"] == sent


async def test_results_outlive_the_server(tmp_path):
    """After a restart sessions, their results, messages, metadata and audio are what they were."""
    data_dir = tmp_path / "data"
    with serving(data_dir) as first:
        heard = await transcribe(
            first, pieces(pcm(SPEECH), CHUNK), custom_metadata={"desk": "north", "calls": {"open": [1, None, 2.5]}}
        )
        before, file = first.result(heard.session_id), first.file(heard.session_id)
        assert first.http.patch(f"/v2/live/{heard.session_id}", json={"rating": 5}).status_code == 204
    with serving(data_dir) as second:
        after = second.result(heard.session_id)
        assert after == {**before, "post_session_metadata": {"rating": 5}}
        assert second.file(heard.session_id) == file
        listed = second.get("/v2/live")["items"]
        assert [each["id"] for each in listed] == [heard.session_id]
        assert second.http.delete(f"/v2/live/{heard.session_id}").status_code == 202
        assert second.http.get(f"/v2/live/{heard.session_id}").status_code == 404
        assert not any((data_dir / "audio").iterdir())


@pytest.mark.parametrize(("way", "at_s"), [("a kill", 7.5), pytest.param("a signal", 8.7, marks=pytest.mark.slow)])
async def test_a_session_survives_its_server(tmp_path, way, at_s):
    """A client between two utterances is told to come back when the server is stopped, and one in mid-utterance is cut
    off when it is killed; the next process on the same data goes on with the session, so that in the end nothing is
    missing and nothing is doubled.
    """
    data_dir = tmp_path / "data"
    data = pcm(wheel_recording("two_cities")[: round(12.5 * SAMPLE_RATE)])
    with serving(data_dir, exit_code=0 if way == "a signal" else -signal.SIGKILL) as first:
        opened = open_session(first)
        async with connected(opened) as before:
            sent = round(at_s * SAMPLE_RATE) * 2
            await before.send(*pieces(data[:sent], CHUNK))
            await before.acked_up_to(sent)
            if way == "a signal":
                assert await asyncio.to_thread(first.stop) == 0
            else:
                first.process.kill()
            assert await before.ended(10) == (1012 if way == "a signal" else 1006)
    acked = max(stop for _, stop in before.acked)
    with serving(data_dir) as second:
        assert second.result(opened.session_id)["status"] == "processing"
        async with connected(moved(opened, second)) as after:
            await after.send(*pieces(data[acked:], CHUNK), STOP)
            assert await after.ended() == 1000
        plain = await transcribe(second, pieces(data, CHUNK))
        shown = second.result(opened.session_id)
        file = second.file(opened.session_id)

    messages = once(before.messages + after.messages)
    check([message for message in messages if message["type"] != "transcript" or is_final(message)])
    assert [message["data"] for message in messages if is_final(message)] == plain.finals
    assert shown["result"]["transcription"]["utterances"] == plain.utterances
    assert len(set(shown["result"]["messages"])) == len(shown["result"]["messages"])
    assert file[44:] == data


@pytest.mark.parametrize("way", ["a kill", pytest.param("a signal", marks=pytest.mark.slow)])
async def test_a_session_nobody_returns_to_is_finished_by_the_next_server(tmp_path, way):
    """After a restart, a session whose client stays away ends after the grace with all that was acknowledged."""
    data_dir = tmp_path / "data"
    with serving(data_dir, exit_code=0 if way == "a signal" else -signal.SIGKILL) as first:
        async with connected(open_session(first)) as socket:
            await socket.send(pcm(SPEECH))
            await socket.acked_up_to(len(SPEECH) * 2)
            await asyncio.to_thread(first.stop if way == "a signal" else first.process.kill)
            await socket.ended()
    with serving(data_dir, "--grace", "1") as second:
        shown = await until_status(second, socket.session_id, "done")
        assert share_of(SPOKEN, shown["result"]["transcription"]["full_transcript"]) > 0.85
        assert second.file(socket.session_id)[44:] == pcm(SPEECH)


def test_a_data_directory_has_one_process(tmp_path):
    """A second server on the same directory says so in one line and exits with another code than 0; the first lives."""
    with serving(tmp_path / "data") as first:
        second = run_cli("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))

        assert second.returncode not in {0, None}
        assert str(tmp_path / "data") in "".join(second.stderr.split("\n"))
        assert "Traceback" not in second.stderr
        assert second.stdout == ""
        assert first.get("/health")["health"] == "OK"


def test_a_taken_port_is_one_clear_line(server, tmp_path):
    """A port that is in use is named; nothing is started."""
    port = urlsplit(server.url).port
    second = run_cli("serve", "--port", str(port), "--data-dir", str(tmp_path / "data"))

    assert second.returncode != 0
    assert str(port) in second.stderr
    assert "Traceback" not in second.stderr


async def test_logs_hold_neither_tokens_nor_speech(tmp_path):
    """At the most talkative level too, nothing of what opens a session, and nothing of what was said, is logged."""
    with serving(tmp_path / "data", "--log-level", "debug", "--log-format", "json") as talkative:
        opened = open_session(talkative, custom_metadata={"caller": "Malone"})
        async with connected(opened) as dropped:
            await dropped.send("what?", pcm(SPEECH))
            await dropped.acked_up_to(len(SPEECH) * 2)
            await dropped.drop()
        async with connected(opened) as socket:
            await socket.send(base64_chunk(pcm(SPEECH)[:1000]), STOP)
            assert await socket.ended() == 1000
        async with connected(opened) as late:
            assert await late.ended() == 4403
        talkative.http.get(opened.url.replace("ws", "http", 1))
        log = talkative.log

    token = parse_qs(urlsplit(opened.url).query)["token"][0]
    assert len(token) >= 32
    assert opened.session_id in log
    for secret in (token, token[:12], "Malone", "best of", "worst", "what?"):
        assert secret not in log
    for line in log.splitlines():
        assert isinstance(json.loads(line), dict), line
    database = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("*.sqlite3*"))
    assert token.encode() not in database


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_no_frame_reaches_a_megabyte(server):
    """The closing messages of a session with a hundred minutes of speech fit what clients take; REST has every word."""
    track = np.tile(np.concatenate([wheel_recording("two_cities"), silence(1)]), 17)
    frames = pieces(pcm(interleave([track] * 8)), 1 << 18)
    async with connected(open_session(server, channels=8)) as socket:
        await socket.send(*frames, STOP)
        assert await socket.ended(1000) == 1000

    check(socket.messages)
    stored = await asyncio.to_thread(server.result, socket.session_id)
    whole = stored["result"]["transcription"]
    assert len(json.dumps(whole)) > MAX_FRAME_BYTES
    assert whole["utterances"] == sorted(socket.utterances, key=lambda each: (each["start"], each["channel"]))
    for kind in ("post_transcript", "post_final_transcript"):
        data = socket.of(kind)[0]["data"]
        shortened = data.get("transcription", data)
        assert shortened["full_transcript"] == whole["full_transcript"]
        assert [each["text"] for each in shortened["utterances"]] in (
            [],
            [each["text"] for each in whole["utterances"]],
        )
