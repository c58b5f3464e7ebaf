"""Entities and redaction through the real program: what is to be hidden is in nothing that leaves or stays.

Nobody says an address in the recordings at hand, so a spelling puts one where a word was said. That comes before
entities and redaction, so to these it is what was heard.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from typing import Any

import numpy as np
import pytest

from live import STOP, connected, is_final, moved, open_session, transcribe
from recordings import wheel_recording
from server import Server, serving
from sound import interleave, pcm
from vivavoce.model import SAMPLE_RATE

SPEECH = wheel_recording("two_cities")[: 6 * SAMPLE_RATE]
ADDRESS = "john@example.com"
SPOKEN = {"custom_spelling": True, "custom_spelling_config": {"spelling_dictionary": {ADDRESS: ["worst"]}}}


def redacting(**config: Any) -> dict[str, Any]:
    return {**SPOKEN, "pii_redaction": True, "pii_redaction_config": {"entity_types": ["EMAIL_ADDRESS"], **config}}


def stored_texts(server: Server, session_id: str) -> str:
    """Give everything of a session that the database holds, but for its request."""
    database = sqlite3.connect(server.data_dir / "vivavoce.sqlite3")
    try:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = [
            row
            for table in tables - {"sessions"}
            if any(column[1] == "session_id" for column in database.execute(f'PRAGMA table_info("{table}")'))
            for row in database.execute(f'SELECT * FROM "{table}" WHERE session_id = ?', (session_id,))
        ]
    finally:
        database.close()
    assert rows
    return repr(rows)


async def test_entities_follow_their_final_with_times_of_the_words(server):
    """An address is found where it was said."""
    heard = await transcribe(server, [pcm(SPEECH)], realtime_processing={**SPOKEN, "named_entity_recognition": True})
    found = [result for message in heard.of("named_entity_recognition") for result in message["data"]["results"]]
    (word,) = [word for word in heard.words if ADDRESS in word["word"]]
    (entity,) = [result for result in found if result["entity_type"] == "EMAIL_ADDRESS"]
    assert entity == {
        "entity_type": "EMAIL_ADDRESS", "text": ADDRESS, "start": word["start"], "end": word["end"]
    }  # fmt: skip
    assert server.result(heard.session_id)["result"]["named_entity_recognition"]["results"] == found


@pytest.mark.parametrize(("style", "shown"), [("MARKER", "[EMAIL_ADDRESS_1]"), ("MASK", "####")])
async def test_what_is_redacted_is_nowhere(server, style, shown):
    """Not in partials, finals, add-ons, summaries, REST or the database; everything else of the text is."""
    opened = open_session(
        server,
        realtime_processing={
            **redacting(processed_text_type=style),
            "named_entity_recognition": True,
            "sentiment_analysis": True,
        },
        post_processing={"summarization": True},
    )
    async with connected(opened) as socket:
        await socket.speak(pcm(SPEECH), at=3 * 2 * SAMPLE_RATE)
        await socket.send(STOP)
        assert await socket.ended() == 1000
    assert socket.partials
    assert f"it was the {shown} of times" in socket.text()
    whole = server.result(opened.session_id)
    assert ADDRESS in json.dumps(whole.pop("request_params"))
    for text in (*socket.frames, json.dumps(whole), stored_texts(server, opened.session_id), server.log):
        assert ADDRESS not in text
        assert "example.com" not in text


async def test_what_is_redacted_is_silent_in_the_stored_audio(server):
    """On its channel, for the time of its words and a little more; the other channel and the rest are as sent."""
    sent = pcm(interleave([SPEECH, SPEECH[::-1] * 0.1]))
    heard = await transcribe(server, [sent], channels=2, realtime_processing=redacting(redact_audio=True))
    (word,) = [word for word in heard.words if "EMAIL_ADDRESS" in word["word"]]
    kept = np.frombuffer(server.file(heard.session_id)[44:], "<i2").reshape(-1, 2)
    raw = np.frombuffer(sent, "<i2").reshape(-1, 2)
    first, last = (round(word[edge] * SAMPLE_RATE) for edge in ("start", "end"))
    assert not kept[first:last, 0].any()
    assert raw[first:last, 0].any()
    assert (kept[:, 1] == raw[:, 1]).all()
    margin = round(0.15 * SAMPLE_RATE)
    assert (kept[: first - margin] == raw[: first - margin]).all()
    assert (kept[last + margin :] == raw[last + margin :]).all()
    stored = (server.data_dir / "audio" / f"{heard.session_id}.raw").read_bytes()
    assert stored == kept.tobytes()


async def test_audio_is_kept_where_only_text_is_to_be_redacted(server):
    """Silence is something to ask for."""
    heard = await transcribe(server, [pcm(SPEECH)], realtime_processing=redacting())
    assert "EMAIL_ADDRESS" in heard.text()
    assert server.file(heard.session_id)[44:] == pcm(SPEECH)


def test_types_that_nobody_can_find_are_refused(server):
    """400 with the field's path."""
    body = {"realtime_processing": redacting(entity_types=["SHOE_SIZE"])}
    answer = server.http.post("/v2/live", json=body)
    assert answer.status_code == 400
    (problem,) = answer.json()["validation_errors"]
    assert problem.startswith("realtime_processing.pii_redaction_config.entity_types must")
    assert "SHOE_SIZE" in problem


async def test_a_crash_does_not_keep_the_audio(tmp_path):
    """What a process hid before it was killed is silenced by the next one, which hears nothing of it again."""
    with serving(tmp_path / "data", exit_code=-signal.SIGKILL) as first:
        opened = open_session(first, realtime_processing=redacting(redact_audio=True))
        async with connected(opened) as before:
            await before.send(pcm(SPEECH))
            await before.acked_up_to(2 * len(SPEECH))
            await before.until(lambda message: is_final(message) and "EMAIL_ADDRESS" in json.dumps(message))
            first.process.kill()
            await before.ended()
    with serving(tmp_path / "data") as second:
        async with connected(moved(opened, second)) as after:
            await after.send(STOP)
            assert await after.ended() == 1000
        (word,) = [word for word in before.words if "EMAIL_ADDRESS" in word["word"]]
        kept = np.frombuffer(second.file(opened.session_id)[44:], "<i2")
    assert len(kept) == len(SPEECH)
    first_sample, last_sample = (round(word[edge] * SAMPLE_RATE) for edge in ("start", "end"))
    assert not kept[first_sample:last_sample].any()
    assert kept[:first_sample].any()
