"""Hints at the end of a turn, on real speech: given in a pause, withdrawn when somebody goes on, true otherwise."""

from __future__ import annotations

from live import STOP, Json, connected, is_final, open_session, transcribe
from recordings import wheel_recording
from sound import pcm, silence
from vivavoce.model import SAMPLE_RATE

BECKETT = wheel_recording("beckett")
FIRST, SECOND = BECKETT[round(0.1 * SAMPLE_RATE) : round(1.5 * SAMPLE_RATE)], BECKETT[round(1.5 * SAMPLE_RATE) :]
SECOND = SECOND[: round(1.5 * SAMPLE_RATE)]
PAUSE = pcm(silence(0.4))
ADDRESS = "john@example.com"
HINTS = {"turn_hints": True}
HIDDEN = {
    "custom_spelling": True,
    "custom_spelling_config": {"spelling_dictionary": {ADDRESS: ["ever", "tried", "failed"]}},
    "pii_redaction": True,
    "pii_redaction_config": {"entity_types": ["EMAIL_ADDRESS"]},
}
PATIENT = {"endpointing": 10, "maximum_duration_without_endpointing": 60}


def of(kind: str, after: int = 0):
    """Tell messages of a type, those of them after the first few."""
    seen: list[Json] = []

    def wanted(message: Json) -> bool:
        if message["type"] == kind and message not in seen:
            seen.append(message)
        return message["type"] == kind and seen.index(message) >= after

    return wanted


async def test_a_hint_comes_in_the_pause_and_is_withdrawn_when_speech_goes_on(server):
    """The second one is not withdrawn, and its text is the final's; who asks for no hints gets the same final."""
    opened = open_session(server, realtime_processing=HINTS, **PATIENT)
    async with connected(opened) as socket:
        await socket.send(pcm(FIRST), PAUSE)
        hint = await socket.until(of("turn_end_likely"))
        await socket.send(pcm(SECOND))
        withdrawn = await socket.until(of("turn_continued"))
        assert not any(is_final(message) for message in socket.messages)
        await socket.send(PAUSE)
        again = await socket.until(of("turn_end_likely", after=len(socket.of("turn_continued"))))
        await socket.send(STOP)
        assert await socket.ended() == 1000
    (final,) = socket.finals
    assert withdrawn["data"] == {"id": hint["data"]["id"], "channel": 0}
    assert "tried" in hint["data"]["utterance"]["text"].lower()
    assert hint["data"]["silence"] >= 0.1
    assert hint["data"]["utterance"]["end"] <= again["data"]["utterance"]["start"] + again["data"]["time"]
    assert again["data"]["id"] == final["id"]
    assert again["data"]["utterance"] == final["utterance"]
    plain = await transcribe(server, [pcm(FIRST), PAUSE, pcm(SECOND), PAUSE], **PATIENT)
    assert plain.finals == socket.finals
    assert not {"turn_end_likely", "turn_continued"} & set(plain.types)


async def test_hints_never_show_what_is_hidden(server):
    """They say what a partial would: nothing that is, or may become, something to be hidden."""
    opened = open_session(server, realtime_processing={**HINTS, **HIDDEN}, **PATIENT)
    async with connected(opened) as socket:
        await socket.send(pcm(FIRST), PAUSE, pcm(SECOND), PAUSE)
        await socket.acked_up_to(len(pcm(FIRST)) + len(pcm(SECOND)) + 2 * len(PAUSE))
        await socket.until(lambda message: message["type"] == "speech_start")
        await socket.send(STOP)
        assert await socket.ended() == 1000
    assert any("EMAIL" in final["utterance"]["text"] for final in socket.finals)
    assert not any(ADDRESS in frame for frame in socket.frames)
