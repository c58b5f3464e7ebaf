"""Hints at the end of a turn, on real speech: given in a pause, withdrawn when somebody goes on, true otherwise."""

from __future__ import annotations

from live import STOP, Json, connected, is_final, open_session, transcribe
from recordings import wheel_recording
from sound import pcm, silence
from vivavoce.model import SAMPLE_RATE

PHRASE = pcm(wheel_recording("beckett")[round(0.1 * SAMPLE_RATE) : round(1.5 * SAMPLE_RATE)])
PAUSE = pcm(silence(0.4))
SECOND_S = 1.8
ADDRESS = "john@example.com"
HIDDEN = {
    "custom_spelling": True,
    "custom_spelling_config": {"spelling_dictionary": {ADDRESS: ["tried"]}},
    "pii_redaction": True,
    "pii_redaction_config": {"entity_types": ["EMAIL_ADDRESS"]},
}
PATIENT = {"endpointing": 10, "maximum_duration_without_endpointing": 60}
"""No silence of these tests closes an utterance, so what is said of it does not depend on how fast it is decoded."""


def is_hint(message: Json) -> bool:
    return message["type"] == "turn_end_likely"


def is_second_hint(message: Json) -> bool:
    return is_hint(message) and message["data"]["time"] > SECOND_S


async def test_a_hint_comes_in_the_pause_and_is_withdrawn_when_speech_goes_on(server):
    """The second one is not withdrawn, and is the final to the letter; who asks for no hints gets the same final."""
    async with connected(open_session(server, realtime_processing={"turn_hints": True}, **PATIENT)) as socket:
        await socket.send(PHRASE, PAUSE)
        hint = await socket.until(is_hint)
        await socket.send(PHRASE)
        withdrawn = await socket.until(lambda message: message["type"] == "turn_continued")
        await socket.send(PAUSE)
        second = await socket.until(is_second_hint)
        assert not any(is_final(message) for message in socket.messages)
        await socket.send(STOP)
        assert await socket.ended() == 1000
    (final,) = socket.finals
    assert "tried" in hint["data"]["utterance"]["text"].lower()
    assert hint["data"]["silence"] >= 0.1
    assert 1.0 < hint["data"]["time"] < 1.4
    assert withdrawn["data"] == {"id": hint["data"]["id"], "channel": 0}
    assert second["data"]["id"] == final["id"]
    assert second["data"]["utterance"] == final["utterance"]
    plain = await transcribe(server, [PHRASE, PAUSE, PHRASE, PAUSE], **PATIENT)
    assert plain.finals == socket.finals
    assert not {"turn_end_likely", "turn_continued"} & set(plain.types)


async def test_a_hint_shows_nothing_that_is_or_may_be_hidden(server):
    """It says what a partial would: the last word might yet become an address."""
    asked = {"turn_hints": True, **HIDDEN}
    async with connected(open_session(server, realtime_processing=asked, **PATIENT)) as socket:
        await socket.send(PHRASE, PAUSE)
        hint = await socket.until(is_hint)
        await socket.send(STOP)
        assert await socket.ended() == 1000
    assert hint["data"]["utterance"]["text"] == " Ever"
    assert socket.text().startswith("Ever [EMAIL_ADDRESS_1]")
    assert not any(ADDRESS in frame for frame in socket.frames)
