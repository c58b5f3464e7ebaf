"""The live socket under clients of every kind: how audio is taken and acknowledged, and in which order all is said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from laws import check
from live import (
    EVERYTHING,
    FLAGS,
    STOP,
    Json,
    base64_chunk,
    connected,
    is_final,
    open_session,
    pieces,
    transcribe,
    until_status,
)
from recordings import wheel_recording
from sound import bare, pcm, share_of, silence, with_wav_header
from vivavoce.model import SAMPLE_RATE

CHUNK = 3200
PHRASE = wheel_recording("beckett")[round(0.1 * SAMPLE_RATE) : round(1.5 * SAMPLE_RATE)]
SPEECH = wheel_recording("two_cities")[: round(4.8 * SAMPLE_RATE)]
SPOKEN = "It was the best of times, it was the worst of times"


def payload(server, session_id: str) -> bytes:
    """Give the samples of a session's file, its header checked by what wrote it: 44 bytes of plain PCM."""
    file = server.file(session_id)
    assert file[:4] == b"RIFF"
    assert file[36:40] == b"data"
    assert int.from_bytes(file[40:44], "little") == len(file) - 44
    return file[44:]


async def test_acknowledgments_cover_every_byte_once(server):
    """Ranges are session-absolute, end-exclusive and contiguous; their times are those of the bytes."""
    data = pcm(SPEECH)
    async with connected(open_session(server)) as socket:
        for chunk in pieces(data, 10_000):
            await socket.send(chunk)
        await socket.acked_up_to(len(data))
        await socket.send(STOP)
        assert await socket.ended() == 1000

    check(socket.messages)
    at = 0
    for start, stop in socket.acked:
        assert start == at
        at = stop
    assert at == len(data)
    for ack in socket.of("audio_chunk"):
        begin, end = ack["data"]["byte_range"]
        assert ack["data"]["time_range"] == pytest.approx([begin / 32_000, end / 32_000], abs=0.001)


async def test_every_chunk_of_a_live_stream_is_acknowledged_at_once(server):
    """At a microphone's pace each chunk has its acknowledgment before the next one is due."""
    async with connected(open_session(server)) as socket:
        for i, chunk in enumerate(pieces(pcm(PHRASE), CHUNK)):
            await socket.send(chunk)
            stop = i * CHUNK + len(chunk)
            await socket.until(lambda message, stop=stop: message.get("data", {}).get("byte_range", [0, 0])[1] == stop)
        assert socket.acked == [(at, min(at + CHUNK, len(PHRASE) * 2)) for at in range(0, len(PHRASE) * 2, CHUNK)]


async def test_empty_chunks_count_for_nothing(server):
    """Chunks without bytes, binary and base64, at the start and between, move no acknowledgment and harm no audio."""
    data = pcm(PHRASE)
    frames: list[bytes | str] = [b"", base64_chunk(b"")]
    for chunk in pieces(data, CHUNK):
        frames += [chunk, b"", base64_chunk(b"")]
    heard = await transcribe(server, frames)

    assert bare(heard.text()) == ["ever", "tried"]
    assert heard.acked[-1][1] == len(data)
    assert not [each for each in heard.of("audio_chunk") if not each["acknowledged"]]
    assert payload(server, heard.session_id) == data


async def test_chunks_may_end_in_the_middle_of_a_sample(server):
    """Single bytes, odd sizes, and 24-bit audio cut every 524 288 bytes, as SDKs cut it, lose nothing."""
    data = pcm(SPEECH)
    odd = [data[at : at + 1] for at in range(3000)] + pieces(data[3000:], 997)
    stereo = pcm(np.stack([wheel_recording("two_cities")[: 12 * SAMPLE_RATE]] * 2, axis=1).reshape(-1), 24)

    one, two = await asyncio.gather(
        transcribe(server, odd), transcribe(server, pieces(stereo, 524_288), bit_depth=24, channels=2)
    )

    assert share_of(SPOKEN, one.text()) > 0.85
    assert payload(server, one.session_id) == data
    assert len(stereo) % 524_288
    assert two.text(0) == two.text(1) != ""
    assert payload(server, two.session_id) == stereo


async def test_an_odd_tail_at_the_very_end_is_left_out(server):
    """Bytes that make no whole sample are acknowledged but no part of the file."""
    data = pcm(PHRASE)
    heard = await transcribe(server, [data, b"\x01"])

    assert heard.acked[-1][1] == len(data) + 1
    assert payload(server, heard.session_id) == data


@pytest.mark.parametrize("first", [1, 3, 11, 43, 44, 45])
async def test_a_wav_header_may_come_in_pieces(server, first):
    """Header bytes count in acknowledgments and not in the audio, wherever the first chunks end."""
    data = pcm(PHRASE)
    headed = with_wav_header(data)
    heard = await transcribe(server, [headed[:first], headed[first : 2 * first], *pieces(headed[2 * first :], CHUNK)])
    raw = await transcribe(server, pieces(data, CHUNK))

    assert heard.acked[-1][1] == len(headed)
    assert heard.finals == raw.finals
    assert payload(server, heard.session_id) == data
    assert [each["data"]["recording_duration"] for each in heard.of("end_recording")] == [1.4]


async def test_a_stop_before_the_header_is_whole(server):
    """What only began like a WAV header is audio, if nothing follows; nobody waits for the rest."""
    heard = await transcribe(server, [b"RIFF", b"\0\0"])

    assert payload(server, heard.session_id) == b"RIFF\0\0"


async def test_a_header_that_contradicts_the_session_is_pointed_out(server):
    """The client hears what the header says and the session does not; its audio is taken as announced."""
    data = pcm(PHRASE)
    heard = await transcribe(server, [with_wav_header(data, rate=8000)])

    assert [error["data"]["code"] for error in heard.of("error")] == ["invalid_audio_format"]
    assert "8000" in heard.of("error")[0]["data"]["message"]
    assert bare(heard.text()) == ["ever", "tried"]


async def test_a_frame_in_fragments_is_one_chunk(server):
    """Fragmentation by the client's library or a proxy changes nothing."""
    data = pcm(PHRASE)
    async with connected(open_session(server)) as socket:
        await socket.send(pieces(data, 7001), STOP)
        assert await socket.ended() == 1000

    assert socket.acked == [(0, len(data))]
    assert payload(server, socket.session_id) == data


REFUSED_MESSAGES = [
    "",
    "{",
    "null",
    "[]",
    "7",
    '"stop_recording"',
    "{}",
    '{"type": null}',
    '{"type": 7}',
    '{"type": {"type": "stop_recording"}}',
    '{"type": "stop"}',
    '{"type": "STOP_RECORDING"}',
    '{"type": "\\ud800"}',
    '{"type": "\\u0000' + "x" * 100_000 + '"}',
    '{"type": ' + "9" * 20_000 + "}",
    '{"type": 1e999}',
    '{"type": NaN}',
    "[" * 100_000,
    '{"a":' * 50_000,
    '{"type": "audio_chunk", "data": ' + "[" * 5000 + "]" * 5000 + "}",
]
REFUSED_CHUNKS: list[Any] = [
    {"type": "audio_chunk"},
    {"type": "audio_chunk", "data": None},
    {"type": "audio_chunk", "data": "AAAA"},
    {"type": "audio_chunk", "data": ["AAAA"]},
    {"type": "audio_chunk", "data": {}},
    {"type": "audio_chunk", "data": {"chunk": None}},
    {"type": "audio_chunk", "data": {"chunk": 7}},
    {"type": "audio_chunk", "data": {"chunk": [0, 1]}},
    {"type": "audio_chunk", "data": {"chunk": "not base64!"}},
    {"type": "audio_chunk", "data": {"chunk": "AAA*"}},
    {"type": "audio_chunk", "data": {"chunk": "A"}},
    {"type": "audio_chunk", "data": {"chunk": "AA=A"}},
    {"type": "audio_chunk", "data": {"chunk": "AAAA\n"}},
    {"type": "audio_chunk", "data": {"chunk": "é" * 8}},
    {"type": "audio_chunk", "data": {"chunk": "_-_-"}},
]


async def test_frames_that_cannot_be_read_harm_nothing(server):
    """Each is answered with an error or a negative acknowledgment; the audio around it is heard as if it were not."""
    refused = [*REFUSED_MESSAGES, *(json.dumps(chunk) for chunk in REFUSED_CHUNKS)]
    data = pcm(SPEECH)
    chunks = pieces(data, CHUNK)
    mixed: list[bytes | str] = []
    for i, chunk in enumerate(chunks):
        mixed += [chunk, *refused[i : i + 1]]
    assert len(refused) <= len(chunks)
    heard, plain = await asyncio.gather(transcribe(server, mixed), transcribe(server, chunks))

    nacks = [each for each in heard.of("audio_chunk") if not each["acknowledged"]]
    assert len(heard.of("error")) + len(nacks) == len(refused)
    assert len(nacks) >= len(REFUSED_CHUNKS)
    for error in heard.of("error"):
        assert set(error["data"]) == {"code", "message"}
        assert len(error["data"]["message"]) < 1000
    assert heard.finals == plain.finals
    assert payload(server, heard.session_id) == data


async def test_audio_after_stop_is_refused(server):
    """It is answered with a negative acknowledgment and is in neither the file nor the transcript."""
    data = pcm(PHRASE)
    async with connected(open_session(server)) as socket:
        await socket.send(*pieces(data, CHUNK), STOP, data, base64_chunk(data), STOP)
        assert await socket.ended() == 1000

    assert len([each for each in socket.of("audio_chunk") if not each["acknowledged"]]) == 2
    assert socket.acked[-1][1] == len(data)
    assert payload(server, socket.session_id) == data
    assert bare(socket.text()) == ["ever", "tried"]
    assert socket.types.count("end_session") == 1


async def test_close_with_1000_is_a_stop(server):
    """The session is finished and its whole result stored, without a stop message and without anybody listening."""
    async with connected(open_session(server)) as socket:
        await socket.send(*pieces(pcm(SPEECH), CHUNK))
        await socket.close(1000)

    result = await until_status(server, socket.session_id, "done")

    assert share_of(SPOKEN, result["result"]["transcription"]["full_transcript"]) > 0.85
    stored = [json.loads(message)["type"] for message in result["result"]["messages"]]
    assert stored[-4:] == ["end_recording", "post_transcript", "post_final_transcript", "end_session"]
    assert server.file(socket.session_id).endswith(pcm(SPEECH))


def _important(messages: list[Json]) -> list[str]:
    """Give the types without what may come anywhere: acknowledgments of audio, and partials."""
    return [
        message["type"]
        for message in messages
        if message["type"] != "audio_chunk" and (message["type"] != "transcript" or is_final(message))
    ]


async def test_messages_come_in_the_order_of_the_contract(server):
    """From the first audio to the close with 1000, with the utterance over before the stop, and cut by it."""
    async with connected(open_session(server)) as ended_first:
        # Short enough to be heard in one step: nothing is left to process where the final is known.
        await ended_first.send(pcm(np.concatenate([PHRASE, silence(0.5)])))
        await ended_first.until(is_final)
        await ended_first.send(STOP)
        assert await ended_first.ended() == 1000
    cut = await transcribe(server, [pcm(PHRASE[: round(1.0 * SAMPLE_RATE)])])

    closing = ["end_recording", "post_transcript", "post_final_transcript", "end_session"]
    utterance = ["speech_start", "speech_end", "transcript"]
    assert _important(ended_first.messages) == ["start_recording", *utterance, "stop_recording", *closing]
    assert sorted(_important(cut.messages)) == sorted(["start_recording", *utterance, "stop_recording", *closing])
    assert [kind for kind in _important(cut.messages) if kind in utterance] == utterance
    assert _important(cut.messages).index("stop_recording") < _important(cut.messages).index("transcript")
    assert _important(cut.messages)[-4:] == closing
    check(ended_first.messages)
    ack = ended_first.of("stop_recording")[0]
    assert ack["acknowledged"] is True
    assert ack["data"]["recording_duration"] == pytest.approx(1.9)
    assert ack["data"]["recording_left_to_process"] == pytest.approx(0, abs=0.1)


async def test_stop_without_any_audio(server):
    """A session that never got audio ends as any other, with an empty result."""
    heard = await transcribe(server, [])

    assert heard.types == ["stop_recording", "end_recording", "post_transcript", "post_final_transcript", "end_session"]
    result = server.result(heard.session_id)
    assert result["status"] == "done"
    assert result["result"]["transcription"]["full_transcript"] == ""
    assert result["result"]["metadata"]["audio_duration"] == 0


OF_FLAG = {
    "receive_partial_transcripts": {"partial"},
    "receive_final_transcripts": {"final"},
    "receive_speech_events": {"speech_start", "speech_end"},
    "receive_pre_processing_events": set(),
    "receive_realtime_processing_events": set(),
    "receive_post_processing_events": {"post_transcript", "post_final_transcript"},
    "receive_acknowledgments": {"audio_chunk", "stop_recording"},
    "receive_errors": {"error"},
    "receive_lifecycle_events": {"start_recording", "end_recording", "end_session"},
}


def _kinds(messages: list[Json]) -> set[str]:
    return {
        message["type"] if message["type"] != "transcript" else "final" if is_final(message) else "partial"
        for message in messages
    }


async def _with_flags(server, flags: dict[str, bool]) -> set[str]:
    """Give the kinds of message of a session that has reason for all of them.

    Partials come as fast as the machine allows, so whoever asked for them waits for one amid the only utterance.
    """
    speech = pcm(wheel_recording("clone-test"))
    async with connected(open_session(server, messages_config=flags)) as socket:
        await socket.send("what?", '{"type": "audio_chunk", "data": {"chunk": "?"}}')
        if flags.get("receive_partial_transcripts", False):
            await socket.speak(speech, at=2 * 2 * SAMPLE_RATE)
        else:
            await socket.send(*pieces(speech, CHUNK))
        await socket.send(STOP)
        assert await socket.ended() == 1000
    return _kinds(socket.messages)


async def test_each_flag_switches_its_messages(server):
    """Each flag of `messages_config` alone brings its messages and no others; each one off takes just those away."""
    alone = [{**dict.fromkeys(FLAGS, False), flag: True} for flag in FLAGS]
    without = [{**EVERYTHING, flag: False} for flag in FLAGS]
    everything = set().union(*OF_FLAG.values())

    assert await asyncio.gather(*(_with_flags(server, flags) for flags in alone)) == [OF_FLAG[flag] for flag in FLAGS]
    assert await asyncio.gather(*(_with_flags(server, flags) for flags in without)) == [
        everything - OF_FLAG[flag] for flag in FLAGS
    ]


async def test_flags_left_out_have_the_contracts_defaults(server):
    """A configuration with one flag, or none, is merged key by key: no partials and no lifecycle, everything else."""
    defaults = set().union(*OF_FLAG.values()) - {"partial"} - OF_FLAG["receive_lifecycle_events"]

    assert await _with_flags(server, {}) == defaults
    assert await _with_flags(server, {"receive_acknowledgments": True}) == defaults
    assert await _with_flags(server, {"receive_errors": False}) == defaults - {"error"}
