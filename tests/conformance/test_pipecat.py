"""Pipecat's Gladia service, unmodified, in a pipeline of its own against the running program: real telephone speech."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framework
from example import answering, calling, running
from live import EVERYTHING, pieces, transcribe, until_status
from recordings import TRANSCRIPTS, recording_path
from relay import bad_line
from sound import pcm, recording_at, share_of, silence

# Two frameworks are 800 MB to install.
pytestmark = pytest.mark.slow

SESSION = Path(__file__).parent / "frameworks" / "pipecat_session.py"
RATE = 8000
PHONE = pcm(np.concatenate([recording_at("beckett", RATE)[: round(6.2 * RATE)], silence(1.0, RATE)]))
SAID = " ".join(TRANSCRIPTS["beckett"].split()[:8])
OPTIONS: dict[str, Any] = {"sample_rate": RATE, "maximum_duration_without_endpointing": 5}


@pytest.fixture(scope="module")
def pipecat() -> Path:
    """The Python that has Pipecat."""
    return framework.python_of("pipecat")


@pytest.fixture(scope="module")
def phone(tmp_path_factory) -> str:
    """The path of the recording."""
    path = tmp_path_factory.mktemp("pipecat") / "phone.pcm"
    path.write_bytes(PHONE)
    return str(path)


def of(story: dict[str, Any], kind: str) -> list[str]:
    """Give the texts of one kind of frames, in order."""
    return [text for what, text in story["events"] if what == kind]


async def test_a_whole_session(server, pipecat, phone):
    """Partials, finals and turns reach the pipeline; its end ends the session, which has all the audio."""
    plain = await transcribe(server, pieces(PHONE, 3200), **OPTIONS)
    finals = [utterance["text"] for utterance in plain.utterances]
    settings = {"enable_vad": True, "messages_config": EVERYTHING}
    task = {"pcm": phone, "rate": RATE, "speed": 1, "settings": settings, "finals": len(finals)}
    story = await framework.run(pipecat, SESSION, url=f"{server.url}/v2/live", **task)

    assert story["errors"] == []
    assert of(story, "final") == finals
    assert share_of(SAID, "".join(finals)) > 0.75
    assert of(story, "partial")
    assert len(of(story, "start")) == len(of(story, "stop")) == len(finals)
    shown = await until_status(server, story["id"], "done")
    assert [each["text"] for each in shown["result"]["transcription"]["utterances"]] == finals
    assert server.file(story["id"])[44:] == PHONE


async def test_the_service_resumes_on_a_bad_line(server, pipecat, phone):
    """With all its defaults: a session whose connection breaks goes on, and no word is lost or comes twice."""
    plain = await transcribe(server, pieces(PHONE, 3200), **OPTIONS)
    finals = [utterance["text"] for utterance in plain.utterances]
    task = {"pcm": phone, "rate": RATE, "speed": 4, "settings": {}, "finals": len(finals)}
    async with bad_line(server.url, [70_000]) as line:
        story = await framework.run(pipecat, SESSION, url=f"{line.url}/v2/live", **task)
        assert line.drops == 1

    assert story["connected"] == 2
    assert of(story, "final") == finals
    shown = await until_status(server, story["id"], "done")
    assert [each["text"] for each in shown["result"]["transcription"]["utterances"]] == finals
    assert server.file(story["id"])[44:] == PHONE


async def test_an_agent_answers_a_call(server, pipecat):
    """The example hears a call in Twilio's format and asks its model what was said; the end of the call ends all."""
    port = free_port()
    async with answering("--reply", "Certainly.") as (model, model_url):
        options = ["--vivavoce", server.url, "--port", str(port), "--model-url", model_url]
        async with running("pipecat_agent.py", *options, python=pipecat) as agent:
            await agent.until(lambda line: line.startswith("waits for calls on"))
            await reachable(port)
            async with calling(f"ws://127.0.0.1:{port}/", recording_path("beckett"), 1.0):
                await agent.until(lambda line: line == "agent: Certainly.")
            asked = await model.until(lambda line: line.startswith("asked: "))
            [newest] = server.get("/v2/live", limit=1)["items"]
            await until_status(server, newest["id"], "done")

    assert asked.removeprefix("asked: ") in agent.of("caller")
    assert "tried" in agent.of("caller")[0]


def free_port() -> int:
    """Give a port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


async def reachable(port: int) -> None:
    """Wait until somebody listens on a port."""
    async with asyncio.timeout(60):
        while True:
            with suppress(ConnectionRefusedError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)
