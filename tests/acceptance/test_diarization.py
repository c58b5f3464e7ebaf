"""Who speaks, through the real program: two readers in turn on one channel, or one on each."""

from __future__ import annotations

import json

import gladiaio_sdk as sdk

from dialogue import TURNS, dialogue, turn_at
from live import transcribe
from recordings import wheel_recording
from sound import interleave, pcm
from vivavoce.model import SAMPLE_RATE


def speakers_of(utterance):
    """Give who speaks an utterance's words, without repeats."""
    return list(dict.fromkeys(word["speaker"] for word in utterance["words"]))


async def test_every_turn_of_a_dialogue_has_its_speaker(server):
    """Numbered from 0 as they appear, on words and utterances, and over REST as over the socket."""
    heard = await transcribe(server, [pcm(dialogue())], realtime_processing={"diarization": True})
    finals = [final["utterance"] for final in heard.finals]
    assert {turn_at(final["start"]) for final in finals} == set(range(len(TURNS)))
    for final in finals:
        assert speakers_of(final) == [final["speaker"]] == [turn_at(final["start"]) % 2], final
    stored = server.result(heard.session_id)["result"]["transcription"]["utterances"]
    assert stored == finals
    assert all("speaker" not in shown["utterance"] for shown in heard.transcripts if not shown["is_final"])


async def test_the_official_sdk_reads_speakers(server):
    """As a field of the utterance, and of each word though its type has none."""
    heard = await transcribe(server, [pcm(dialogue())], realtime_processing={"diarization": True})
    finals = [message for message in heard.messages if message["type"] == "transcript" and message["data"]["is_final"]]
    for message in finals:
        typed = sdk.create_live_v2_web_socket_message_from_json(json.dumps(message))
        assert typed.data.utterance.speaker == message["data"]["utterance"]["speaker"]
        assert {word.speaker for word in typed.data.utterance.words} <= {0, 1}


async def test_sessions_that_do_not_ask_have_no_speakers(server):
    """Neither utterances nor words say anything."""
    heard = await transcribe(server, [pcm(dialogue()[: 4 * SAMPLE_RATE])])
    assert heard.finals
    assert '"speaker"' not in json.dumps(heard.messages)


async def test_the_channel_is_the_speaker(server):
    """With several channels, unless numbers of speakers ask for more."""
    sound = pcm(interleave([wheel_recording("clone-test"), dialogue()]))
    plain = await transcribe(server, [sound], channels=2, realtime_processing={"diarization": True})
    assert {(final["utterance"]["channel"], final["utterance"]["speaker"]) for final in plain.finals} == {
        (0, 0),
        (1, 1),
    }
    asked = {"diarization": True, "diarization_config": {"max_speakers": 2}}
    told = await transcribe(server, [sound], channels=2, realtime_processing=asked)
    finals = [final["utterance"] for final in told.finals]
    assert {final["speaker"] for final in finals if final["channel"] == 0} == {0}
    assert {final["speaker"] for final in finals if final["channel"] == 1} == {1, 3}


async def test_numbers_of_speakers_are_honoured(server):
    """One speaker stays one, whoever speaks."""
    asked = {"diarization": True, "diarization_config": {"number_of_speakers": 1}}
    heard = await transcribe(server, [pcm(dialogue())], realtime_processing=asked)
    assert {final["utterance"]["speaker"] for final in heard.finals} == {0}
