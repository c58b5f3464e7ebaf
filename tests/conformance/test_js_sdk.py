"""The official JavaScript SDK, unmodified, run with node against the running program on real speech."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from laws import check
from live import EVERYTHING, once, open_session, pieces, transcribe, until_status
from programs import JS, require_node, run_to_end
from recordings import TRANSCRIPTS, wheel_recording
from relay import bad_line
from server import serving
from sound import pcm, share_of, with_wav_header
from vivavoce.model import SAMPLE_RATE

BECKETT = pcm(wheel_recording("beckett"))
SPEECH = pcm(wheel_recording("two_cities")[: 13 * SAMPLE_RATE])
SPEED = 4.0
AMID = 7 * 32_000
"""A byte within an utterance of the recording."""


@pytest.fixture(scope="module", autouse=True)
def _sdk() -> None:
    """The SDK as its lock file pins it, installed once; without node and npm there is nothing to test."""
    require_node("@gladiaio/sdk")


async def run(url: str, recording: bytes, tmp_path: Path, **task: Any) -> dict[str, Any]:
    """Run a session and give what it told; node must end well and print nothing else."""
    (tmp_path / "speech.pcm").write_bytes(recording)
    task = {
        "url": url,
        "pcm": str(tmp_path / "speech.pcm"),
        "frameBytes": 3200,
        "bytesPerSecond": 32_000,
        "speed": SPEED,
        **task,
    }
    out, _ = await run_to_end("node", "session.mjs", json.dumps(task), cwd=JS, within_s=120)
    story: dict[str, Any] = json.loads(out)
    return story


def finals_of(story: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the finals' data."""
    transcripts = [message["data"] for message in story["messages"] if message["type"] == "transcript"]
    return [each for each in transcripts if each["is_final"]]


async def test_a_whole_session(server, tmp_path):
    """Start, stream, hear everything, stop, get, download, list and delete."""
    options = {"messages_config": EVERYTHING, "custom_metadata": {"made by": "the JS SDK"}, "sample_rate": 16_000}
    story, plain = await asyncio.gather(
        run(server.url, BECKETT, tmp_path, options=options, amid=AMID), transcribe(server, pieces(BECKETT, 3200))
    )

    assert story["errors"] == []
    assert story["end"]["code"] == 1000
    assert story["steps"] == ["started", "connected", "ending", "ended"]
    assert story["messages"][0]["type"] == "start_session"
    check(story["messages"][1:])
    assert finals_of(story) == plain.finals
    types = [message["type"] for message in story["messages"]]
    assert types.count("speech_start") == types.count("speech_end") == len(plain.finals)
    assert types.count("transcript") > len(plain.finals)
    acks = [message["data"] for message in story["messages"] if message["type"] == "audio_chunk"]
    assert acks[-1]["byte_range"][1] == len(BECKETT)
    assert types[-4:] == ["end_recording", "post_transcript", "post_final_transcript", "end_session"]

    stored = story["stored"]
    assert (stored["id"], stored["status"]) == (story["id"], "done")
    assert stored["result"]["transcription"]["utterances"] == [final["utterance"] for final in plain.finals]
    assert base64.b64decode(story["file"]) == with_wav_header(BECKETT)
    assert story["listed"]["items"] == [stored]
    assert story["deleted"] is True
    assert story["after"] == 0
    assert story["gone"] == [404, 404, 404]


async def test_connect_session_joins_what_a_backend_created(server, tmp_path):
    """A session whose backend switched acknowledgments off is joined by id and URL, and nothing is lost."""
    opened = open_session(server, messages_config={**EVERYTHING, "receive_acknowledgments": False})
    join = {"id": opened.session_id, "url": opened.url}
    story = await run(server.url, BECKETT, tmp_path, options={}, join=join)

    assert story["end"]["code"] == 1000
    assert story["id"] == opened.session_id
    assert not [message for message in story["messages"] if "acknowledged" in message]
    text = "".join(final["utterance"]["text"] for final in finals_of(story))
    assert share_of(TRANSCRIPTS["beckett"], text) > 0.75
    assert server.file(opened.session_id)[44:] == BECKETT


async def test_acknowledgments_stay_out_of_sight_unless_asked_for(server, tmp_path):
    """The SDK always asks the server for them and shows them only to a user who did so too."""
    options = {"messages_config": {"receive_partial_transcripts": True}, "custom_metadata": {"acks": "hidden"}}
    story = await run(server.url, BECKETT, tmp_path, options=options)

    assert story["end"]["code"] == 1000
    types = {message["type"] for message in story["messages"]}
    assert types == {"speech_start", "speech_end", "transcript", "post_transcript", "post_final_transcript"}
    assert story["stored"]["request_params"]["messages_config"]["receive_acknowledgments"] is True


async def test_the_sdk_resumes_on_a_bad_line(server, tmp_path):
    """A session whose connection breaks three times is whole: the file, every final, and a close with 1000."""
    plain = await transcribe(server, pieces(SPEECH, 3200))
    options = {"messages_config": EVERYTHING, "custom_metadata": {"line": "bad"}}
    async with bad_line(server.url, [60_000, 150_000, 300_000]) as line:
        story = await run(line.url, SPEECH, tmp_path, options=options)
        assert line.drops == 3

    assert story["end"]["code"] == 1000
    assert story["steps"].count("connected") == 4
    assert base64.b64decode(story["file"])[44:] == SPEECH
    assert once(finals_of(story)) == plain.finals


async def test_end_session_finishes_what_was_sent(tmp_path):
    """The SDK stops and leaves with 1001 at once; the session is finished with all that was acknowledged."""
    with serving(tmp_path / "data", "--grace", "1") as server:
        story = await run(server.url, BECKETT, tmp_path, options={"messages_config": EVERYTHING}, end=True)
        assert story["end"]["code"] == 1000
        shown = await until_status(server, story["id"], "done")

    assert share_of(TRANSCRIPTS["beckett"], shown["result"]["transcription"]["full_transcript"]) > 0.75
    assert shown["file"]["audio_duration"] == pytest.approx(len(BECKETT) / 32_000, abs=0.001)
