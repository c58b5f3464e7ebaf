"""LiveKit's Gladia plugin, unmodified, in its framework against the running program: real speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framework
from example import answering
from live import pieces, transcribe, until_status
from recordings import TRANSCRIPTS
from relay import bad_line
from sound import pcm, recording_at, share_of, silence

# Two frameworks are 800 MB to install.
pytestmark = pytest.mark.slow

CONVERSATION = Path(__file__).parent / "frameworks" / "livekit_conversation.py"
SESSION = Path(__file__).parent / "frameworks" / "livekit_session.py"
DEFAULTS: dict[str, Any] = {"endpointing": 0.05, "maximum_duration_without_endpointing": 5}
"""What the plugin asks for unless told otherwise, as far as it decides on the words."""

SAID = " ".join(TRANSCRIPTS["beckett"].split()[:8])


def speech(rate: int) -> bytes:
    """Give four short phrases and a second of silence."""
    return pcm(np.concatenate([recording_at("beckett", rate)[: round(6.2 * rate)], silence(1.0, rate)]))


@pytest.fixture(scope="module")
def livekit() -> Path:
    """The Python that has LiveKit's agents."""
    return framework.python_of("livekit")


def task_of(tmp_path: Path, rate: int, finals: int) -> dict[str, Any]:
    """Give what a stream at 16-bit PCM of a rate is asked to do, four times as fast as it is spoken."""
    (tmp_path / "speech.pcm").write_bytes(speech(rate))
    return {"pcm": str(tmp_path / "speech.pcm"), "rate": rate, "speed": 4, "options": {}, "finals": finals}


def words_of(utterance: dict[str, Any]) -> list[str]:
    """Give an utterance's words as they are spelled in it."""
    return [word["word"] for word in utterance["words"]]


async def test_a_whole_stream(server, livekit, tmp_path):
    """Each utterance begins, ends with its final, and has its words; the end of input ends the session."""
    plain = await transcribe(server, pieces(speech(16_000), 3200), **DEFAULTS)
    task = {**task_of(tmp_path, 16_000, len(plain.finals)), "speed": 1}
    story = await framework.run(livekit, SESSION, url=f"{server.url}/v2/live", **task)

    assert (story["errors"], story["raised"]) == ([], None)
    assert [final["words"] for final in story["finals"]] == [words_of(each) for each in plain.utterances]
    assert share_of(SAID, " ".join(final["text"] for final in story["finals"])) > 0.75
    kinds = [kind for kind in story["events"] if kind != "interim_transcript"]
    assert kinds == ["start_of_speech", "final_transcript", "end_of_speech"] * len(plain.finals)
    assert len(kinds) < len(story["events"])
    [session_id] = story["ids"]
    shown = await until_status(server, session_id, "done")
    assert shown["result"]["transcription"]["utterances"] == plain.utterances
    assert shown["custom_metadata"].keys() == {"livekit"}


async def test_a_stream_ends_when_its_connection_is_lost(server, livekit, tmp_path):
    """The plugin keeps no audio, does not come back, and tells nobody; the server finishes what it was given.

    Here its framework retries nothing. `examples/livekit_agent.py` shows how an agent gets a new stream.
    """
    task = task_of(tmp_path, 8000, 4)
    async with bad_line(server.url, [70_000]) as line:
        story = await framework.run(livekit, SESSION, url=f"{line.url}/v2/live", **task)
        assert line.drops == 1

    assert len(story["finals"]) < 4
    assert (story["errors"], story["raised"]) == ([], None)
    assert len(story["ids"]) == 1


async def test_an_agent_keeps_listening_when_its_connection_is_lost(server, livekit, tmp_path):
    """The example's agent answers what it hears, before a connection breaks and after it, in a session of its own."""
    (tmp_path / "speech.pcm").write_bytes(pcm(recording_at("beckett", 16_000)))
    task = {"pcm": str(tmp_path / "speech.pcm"), "answers": 4}
    async with answering("--word-delay", "0.01") as (_, model_url), bad_line(server.url, [150_000]) as line:
        names = {"VIVAVOCE_URL": line.url, "OPENAI_BASE_URL": model_url, "OPENAI_API_KEY": "none"}
        said = await framework.run(livekit, CONVERSATION, names, **task)
        assert line.drops == 1

    questions = [text for who, text in said if who == "user"]
    answers = [text for who, text in said if who == "assistant"]
    assert answers == [f"You said: {text}" for text in questions[: len(answers)]]
    assert "tried" in questions[0]
    assert "again" in " ".join(questions[2:])
