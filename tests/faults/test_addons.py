"""Slow and failing add-ons, and a process that dies or stops while they work: each answer comes once, none is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from faults.held import FAIL
from laws import check
from live import Json, connected, is_final, moved, once, open_session, transcribe, until_status
from recordings import wheel_recording
from server import serving
from sound import pcm
from vivavoce.model import SAMPLE_RATE

SPEECH = pcm(wheel_recording("two_cities")[: 10 * SAMPLE_RATE])
STOP = '{"type": "stop_recording"}'
FEATURES = {
    "realtime_processing": {"named_entity_recognition": True, "sentiment_analysis": True},
    "post_processing": {"summarization": True},
}
HERE = Path(__file__).parent


@pytest.fixture
def held(tmp_path, monkeypatch) -> Path:
    """The directory whose files hold the add-ons up; both are installed for the servers that the test starts."""
    installed, switches = tmp_path / "site", tmp_path / "switches"
    about = installed / "held_addons-1.0.dist-info"
    about.mkdir(parents=True)
    switches.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: held-addons\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[vivavoce.addons]\nnamed_entity_recognition = held:Names\nsummarization = held:Summary\n"
    )
    paths = [str(installed), str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("HELD_ADDONS", str(switches))
    return switches


def keys_of(messages: list[Json], kind: str) -> list[str]:
    """Give the utterances that messages of a type speak of."""
    return sorted(message["data"]["utterance_id"] for message in messages if message["type"] == kind)


async def test_a_slow_add_on_delays_no_final_and_an_ended_session_waits_for_it(tmp_path, held):
    """All finals, and what others say of them, are out while one add-on sleeps; the session ends when it has spoken."""
    (held / "names").touch()
    with serving(tmp_path / "data") as server:
        async with connected(open_session(server, **FEATURES)) as socket:
            await socket.send(SPEECH, STOP)
            await socket.until(lambda message: message["type"] == "stop_recording")
            await socket.until(lambda _: len(socket.finals) > 1 and len(socket.of("sentiment_analysis")) > 1)
            assert socket.of("named_entity_recognition") == []
            assert "end_recording" not in socket.types
            (held / "names").unlink()
            assert await socket.ended() == 1000
        check(socket.messages)
        finals = sorted(final["id"] for final in socket.finals)
        assert keys_of(socket.messages, "named_entity_recognition") == finals
        assert keys_of(socket.messages, "sentiment_analysis") == finals
        assert socket.of("post_summarization")[0]["data"] == {"results": f"{len(finals)} utterances."}


async def test_failures_are_told_and_nothing_else_is_lost(tmp_path, held):
    """Error and null data in each message, `success: false` in what is stored, and a whole transcript."""
    (held / "names").write_text(FAIL)
    (held / "summary").write_text(FAIL)
    with serving(tmp_path / "data") as server:
        heard = await transcribe(server, [SPEECH], **FEATURES)
        result = server.result(heard.session_id)["result"]
    said = heard.of("named_entity_recognition") + heard.of("post_summarization")
    assert len(said) == len(heard.finals) + 1
    assert all(message["data"] is None for message in said)
    assert {message["error"]["message"] for message in said} == {"names was told to fail", "summary was told to fail"}
    for feature in ("named_entity_recognition", "summarization"):
        assert result[feature]["success"] is False
        assert "was told to fail" in result[feature]["error"]["message"]
    assert result["sentiment_analysis"]["success"] is True
    assert result["transcription"]["utterances"] == heard.utterances


async def test_an_add_on_beyond_its_deadline_is_answered_for(tmp_path, held):
    """Nobody waits longer for it than the setting says, and the server stops although its threads hang."""
    (held / "names").touch()
    with serving(tmp_path / "data", "--addon-deadline", "0.2") as server:
        heard = await transcribe(server, [SPEECH], **FEATURES)
        reasons = {message["error"]["message"] for message in heard.of("named_entity_recognition")}
        assert reasons == {"named_entity_recognition took longer than 0.2 s"}
        assert len(heard.of("named_entity_recognition")) == len(heard.finals)


@pytest.mark.parametrize("way", ["a kill", pytest.param("a signal", marks=pytest.mark.slow)])
async def test_what_add_ons_owe_is_asked_again_after_a_restart(tmp_path, held, way):
    """A process that ends between a final and its add-on leaves the question to the next one, and only that one."""
    (held / "names").touch()
    exit_code = 0 if way == "a signal" else -signal.SIGKILL
    with serving(tmp_path / "data", exit_code=exit_code) as first:
        opened = open_session(first, **FEATURES)
        async with connected(opened) as before:
            await before.send(SPEECH)
            await before.acked_up_to(len(SPEECH))
            await before.until(is_final)
            await before.until(lambda message: message["type"] == "sentiment_analysis")
            await asyncio.to_thread(first.stop if way == "a signal" else first.process.kill)
            await before.ended()
    assert before.of("named_entity_recognition") == []
    (held / "names").unlink()
    with serving(tmp_path / "data") as second:
        async with connected(moved(opened, second)) as after:
            await after.send(STOP)
            assert await after.ended() == 1000
        result = second.result(opened.session_id)["result"]
    messages = [json.loads(text) for text in result["messages"]]
    check(messages)
    finals = sorted(message["data"]["id"] for message in messages if is_final(message))
    for feature in ("named_entity_recognition", "sentiment_analysis"):
        assert keys_of(messages, feature) == finals
        assert keys_of(once(before.messages + after.messages), feature) == finals
        assert result[feature]["success"] is True
    names = [said["words"][0]["word"].strip() for said in result["transcription"]["utterances"]]
    assert [entity["text"] for entity in result["named_entity_recognition"]["results"]] == names


@pytest.mark.parametrize("way", ["a kill", pytest.param("a signal", marks=pytest.mark.slow)])
async def test_an_interrupted_summary_is_made_again(tmp_path, held, way):
    """A process that ends in post-processing leaves it to the next, and no message is said twice."""
    (held / "summary").touch()
    with serving(tmp_path / "data", exit_code=0 if way == "a signal" else -signal.SIGKILL) as first:
        opened = open_session(first, **FEATURES)
        async with connected(opened) as before:
            await before.send(SPEECH, STOP)
            await before.until(lambda message: message["type"] == "post_transcript")
            await asyncio.to_thread(first.stop if way == "a signal" else first.process.kill)
            await before.ended()
    assert "post_final_transcript" not in before.types
    (held / "summary").unlink()
    with serving(tmp_path / "data") as second:
        shown = await until_status(second, opened.session_id, "done")
    messages = [json.loads(text) for text in shown["result"]["messages"]]
    check(messages)
    types = [message["type"] for message in messages]
    for once_only in ("end_recording", "post_transcript", "post_summarization", "post_final_transcript"):
        assert types.count(once_only) == 1
    count = len(shown["result"]["transcription"]["utterances"])
    assert shown["result"]["summarization"]["results"] == f"{count} utterances."
