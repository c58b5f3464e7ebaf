"""A client of the simple stream in JavaScript, written from the fields of its messages, against the running program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from programs import JS, require_node, run_to_end
from recordings import wheel_recording
from sound import g711, pcm, recording_at, share_of

SPOKEN = "I do I think that America could do it very well"
CONFIG = {"language": "auto", "enable_partials": True, "call_id": "desk-3-0412"}


@pytest.fixture(scope="module", autouse=True)
def _ws() -> None:
    """The package `ws` as the lock file pins it, installed once; without node and npm there is nothing to test."""
    require_node("ws")


def said(story: dict[str, Any]) -> str:
    """Give what the finals say."""
    return " ".join(each["text"] for each in story["transcripts"] if each["is_final"])


async def run(server_url: str, audio: bytes, tmp_path: Path, **task: Any) -> dict[str, Any]:
    """Run the client and give what it heard; node must end well and print nothing else."""
    (tmp_path / "speech").write_bytes(audio)
    url = f"ws{server_url.removeprefix('http')}/audio/stream"
    task = {"url": url, "key": "any", "audio": str(tmp_path / "speech"), "speed": 2.0, **task}
    out, errors = await run_to_end("node", "stream.mjs", json.dumps(task), cwd=JS, within_s=120)
    assert errors == b""
    story: dict[str, Any] = json.loads(out)
    return story


async def test_a_client_written_from_the_fields(server, tmp_path):
    """Partials, finals, times and the close, from 20 ms of PCM a frame, with the key in a header."""
    config = {**CONFIG, "encoding": "pcm_s16le", "sample_rate": 16_000, "diarization": False}
    speech = pcm(wheel_recording("clone-test"))
    story = await run(server.url, speech, tmp_path, config=config, frameBytes=640, bytesPerSecond=32_000, amid=64_000)

    assert (story["code"], story["errors"], story["others"]) == (1000, [], [])
    assert [each for each in story["transcripts"] if not each["is_final"]]
    assert story["transcripts"][-1]["is_final"]
    assert share_of(SPOKEN, said(story)) > 0.85
    assert {each["speaker"] for each in story["transcripts"]} == {None}
    assert all(0 <= each["start_time"] < each["end_time"] <= 4.2 for each in story["transcripts"])


async def test_a_telephone_with_speakers(server, tmp_path):
    """The same from µ-law, with the key in the configuration; finals name their speaker, partials do not yet."""
    config = {**CONFIG, "encoding": "mulaw", "sample_rate": 8000, "diarization": True, "x_gladia_key": "any"}
    speech = g711(recording_at("clone-test", 8000), "mulaw")
    story = await run(server.url, speech, tmp_path, config=config, frameBytes=160, bytesPerSecond=8000)

    assert (story["code"], story["errors"], story["others"]) == (1000, [], [])
    assert share_of(SPOKEN, said(story)) > 0.85
    assert {(each["is_final"], each["speaker"]) for each in story["transcripts"]} <= {(True, 0), (False, None)}


async def test_a_client_with_a_bad_configuration_reads_why(server, tmp_path):
    """A code, a sentence that names the field, and a close that is not to be followed by another try."""
    config = {**CONFIG, "encoding": "pcm_s16le", "sample_rate": 4000}
    story = await run(server.url, bytes(640), tmp_path, config=config, frameBytes=640, bytesPerSecond=8000)
    assert (story["code"], story["transcripts"], story["others"]) == (4400, [], [])
    assert story["errors"] == [{"code": "bad_config", "message": "sample_rate must not be less than 8000"}]
