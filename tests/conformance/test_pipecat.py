"""Pipecat's Gladia service, unmodified, in a pipeline of its own against the running program: real telephone speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framework
from live import EVERYTHING, pieces, transcribe, until_status
from recordings import TRANSCRIPTS
from relay import bad_line
from sound import pcm, recording_at, share_of, silence

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
    task = {"pcm": phone, "rate": RATE, "speed": 4, "settings": settings, "finals": len(finals)}
    story = await framework.run(pipecat, SESSION, url=f"{server.url}/v2/live", **task)

    assert story["errors"] == []
    assert of(story, "final") == finals
    assert share_of(SAID, "".join(finals)) > 0.75
    assert of(story, "partial")
    turns = [what for what, _ in story["events"] if what in {"start", "stop"}]
    assert turns == ["start", "stop"] * len(finals)
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
