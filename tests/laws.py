"""What holds for the messages of every session, whatever was sent and said."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

CLOSING = ("end_recording", "post_transcript", "post_summarization", "post_final_transcript", "end_session")
"""The types that end a session, in the order of their appearance."""

ADDONS = ("translation", "named_entity_recognition", "sentiment_analysis")
"""The types that follow a final."""

KEYS = {
    "start_recording": set(),
    "audio_chunk": {"acknowledged", "error", "data"},
    "stop_recording": {"acknowledged", "error", "data"},
    "speech_start": {"data"},
    "speech_end": {"data"},
    "transcript": {"data"},
    "turn_end_likely": {"data"},
    "turn_continued": {"data"},
    **{name: {"error", "data"} for name in ADDONS},
    "end_recording": {"data"},
    "post_transcript": {"data"},
    "post_summarization": {"error", "data"},
    "post_final_transcript": {"data"},
    "end_session": set(),
    "error": {"data"},
}
"""What each type of message carries beside its head: no less, and nothing that SDKs have no field for."""

EPSILON_S = 0.0015
"""Times are written with three decimals."""


def check(messages: list[Json]) -> None:
    """Assert the laws on all messages of one session, in the order they came in, over all its sockets."""
    _check_heads(messages)
    _check_acks([message for message in messages if message["type"] == "audio_chunk"])
    _check_closing([message["type"] for message in messages])
    _check_addons(messages)
    for channel in {said["data"]["channel"] for said in messages if said["type"].startswith("speech_")}:
        _check_speech([said for said in messages if _channel(said) == channel], channel)


def check_utterance(utterance: Json) -> None:
    """Assert that an utterance and its words are complete, in order, and written as Gladia does."""
    fields = {"start", "end", "confidence", "channel", "words", "text", "language"}
    speaker = {"speaker"} & set(utterance)
    assert set(utterance) == fields | speaker, utterance
    assert utterance["text"] == "".join(word["word"] for word in utterance["words"])
    assert 0 <= utterance["confidence"] <= 1
    at = utterance["start"]
    for word in utterance["words"]:
        assert set(word) == {"word", "start", "end", "confidence"} | speaker, word
        assert re.fullmatch(r" \S+", word["word"]), word
        assert at <= word["start"] <= word["end"] <= utterance["end"], (word, utterance)
        assert 0 <= word["confidence"] <= 1
        at = word["end"]


def _check_heads(messages: list[Json]) -> None:
    moments = [message["created_at"] for message in messages if message["type"] != "audio_chunk"]
    assert all(MOMENT.fullmatch(moment) for moment in moments), moments
    assert len({message["session_id"] for message in messages}) <= 1
    for message in messages:
        assert set(message) == {"type", "session_id", "created_at"} | KEYS[message["type"]], message


def _check_acks(acks: list[Json]) -> None:
    """Ends never go back, and an acknowledgment carries either ranges or a reason."""
    at = 0
    for ack in acks:
        if not ack["acknowledged"]:
            assert ack["data"] is None, ack
            assert ack["error"]["message"], ack
            continue
        assert ack["error"] is None, ack
        assert set(ack["data"]) == {"byte_range", "time_range"}
        start, stop = ack["data"]["byte_range"]
        assert start <= stop, ack
        assert at <= stop, (at, ack)
        assert ack["data"]["time_range"][0] <= ack["data"]["time_range"][1]
        at = stop


def _check_closing(types: list[str]) -> None:
    ends = [kind for kind in types if kind in CLOSING]
    assert ends == [kind for kind in CLOSING if kind in ends], ends
    if "end_recording" in types:
        after = set(types[types.index("end_recording") :])
        assert after <= {*CLOSING, "audio_chunk", "error"}, after
    if "start_recording" in types:
        before = set(types[: types.index("start_recording")])
        assert before <= {"error", "audio_chunk"}, before


def _check_addons(messages: list[Json]) -> None:
    """What add-ons found follows its final, with the final's own utterance, and comes once."""
    finals: dict[str, Json] = {}
    found = []
    for message in messages:
        data = message.get("data")
        if message["type"] == "transcript" and data["is_final"]:
            finals[data["id"]] = data["utterance"]
        if message["type"] not in ADDONS:
            continue
        if data is None:
            assert message["error"]["message"], message
            continue
        assert message["error"] is None, message
        assert data["utterance"] == finals[data["utterance_id"]], message
        found.append((message["type"], data["utterance_id"], data.get("target_language")))
    assert len(found) == len(set(found)), found


def _channel(message: Json) -> int | None:
    data = message.get("data") or {}
    if message["type"] in ADDONS:
        return None
    channel: int | None = data["utterance"]["channel"] if message["type"] == "transcript" else data.get("channel")
    return channel


def _check_speech(messages: list[Json], channel: int) -> None:
    """Speech is announced and ended in turns; partials lie between, one final after; nothing overlaps."""
    open_id, announced, ended_at, final_end = None, [], 0.0, 0.0
    finals: list[str] = []
    for message in messages:
        data = message["data"]
        match message["type"]:
            case "speech_start":
                assert open_id is None, message
                assert data["time"] >= ended_at - EPSILON_S, (ended_at, message)
                open_id = f"{channel:02}_{round(data['time'] * 1000):08}"
                announced.append(open_id)
            case "speech_end":
                assert open_id is not None, message
                assert data["time"] * 1000 > int(open_id[3:]), message
                open_id, ended_at = None, data["time"]
            case "transcript":
                check_utterance(data["utterance"])
                assert data["utterance"]["text"], message
                assert data["id"] not in finals, "a message after the final"
                if not data["is_final"]:
                    assert data["id"] == open_id, (open_id, message)
                    continue
                assert data["id"] in announced, message
                assert data["id"] != open_id, "a final of open speech"
                assert data["utterance"]["start"] >= final_end, (final_end, message)
                final_end = data["utterance"]["end"]
                finals.append(data["id"])
    assert finals == [each for each in announced if each in finals], "finals out of order"
