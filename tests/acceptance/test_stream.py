"""The simple stream and V1 live through the real program: real speech in, their own messages out, and every mistake."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidHandshake

from dialogue import TURNS, dialogue, turn_at
from live import mid_speech, pieces, transcribe, until_status
from packed import opus_packets, pack, packed
from recordings import TRANSCRIPTS, wheel_recording
from server import Server, new_key, serving
from sound import g711, pcm, recording_at, share_of, silence, with_wav_header
from talk import END, STREAM, TERMINATE, V1, talk, talking
from vivavoce.model import SAMPLE_RATE

SPEECH = pcm(wheel_recording("beckett"))
SPOKEN = TRANSCRIPTS["beckett"]
ULAW = g711(recording_at("beckett", 8000), "mulaw")
CLONE_TEST = "I do I think that America could do it very well"
CONFIG = {"type": "config", "language": "en", "sample_rate": 16_000, "encoding": "pcm_s16le"}


def frames_of(data: bytes) -> list[str]:
    """Give audio in V1's base64, 20 ms of µ-law each."""
    return [json.dumps({"frames": b64encode(piece).decode()}) for piece in pieces(data, 160)]


def by_call(server: Server, call_id: str) -> dict:
    """Give the session that a call's id is kept with."""
    (item,) = server.get("/v2/live", custom_metadata=json.dumps({"call_id": call_id}))["items"]
    return item


async def test_the_simple_stream_says_what_v2_says(server):
    """The same texts and times for the same µ-law, in six fields each; the call's id stays with the session."""
    config = {**CONFIG, "encoding": "mulaw", "sample_rate": 8000, "call_id": "desk-3-0412"}
    heard, plain = await asyncio.gather(
        talk(server, STREAM, [config, *pieces(ULAW, 160), END]),
        transcribe(server, pieces(ULAW, 160), encoding="wav/ulaw", sample_rate=8000),
    )
    assert (heard.code, heard.errors) == (1000, [])
    assert heard.messages == [
        {
            "type": "transcript",
            "text": said["text"].strip(),
            "is_final": True,
            "start_time": said["start"],
            "end_time": said["end"],
            "speaker": None,
        }
        for said in plain.utterances
    ]
    assert share_of(SPOKEN, heard.text) > 0.75
    shown = await until_status(server, by_call(server, "desk-3-0412")["id"], "done")
    assert shown["custom_metadata"] == {"call_id": "desk-3-0412"}
    assert server.file(shown["id"]).endswith(ULAW)


async def test_the_documented_program_prints_what_was_said(server, tmp_path):
    """The shortest example of the how-to page, as printed but for the address."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "simple-stream.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    (tmp_path / "example.py").write_text(program.replace("127.0.0.1:8080", urlsplit(server.url).netloc))
    (tmp_path / "talk.wav").write_bytes(with_wav_header(SPEECH))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "example.py", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert "try again" in out.decode().lower()


async def test_partials_come_before_their_final_where_they_are_wanted(server):
    """With the times as known, and no speaker."""
    async with talking(server, STREAM) as heard:
        await heard.send({**CONFIG, "enable_partials": True})
        reading = asyncio.create_task(heard.ended())
        speech = pcm(wheel_recording("clone-test"))
        for piece, pause_s in mid_speech(speech, 64_000, lambda: heard.messages, chunk=640):
            await heard.send(piece)
            await asyncio.sleep(pause_s)
        await heard.send(END)
        assert await reading == 1000
    partials = [each for each in heard.messages if not each["is_final"]]
    assert partials
    assert heard.messages[-1]["is_final"]
    assert all(each["speaker"] is None and each["start_time"] < each["end_time"] for each in partials)
    assert share_of(CLONE_TEST, heard.text) > 0.85


async def test_speakers_are_told_apart_live(server):
    """Two people in turn on one channel are 0 and 1."""
    heard = await talk(server, STREAM, [{**CONFIG, "diarization": True}, *pieces(pcm(dialogue()), 3200), END])
    assert {turn_at(final["start_time"]) for final in heard.finals} == set(range(len(TURNS)))
    assert all(final["speaker"] == turn_at(final["start_time"]) % 2 for final in heard.finals)


@pytest.mark.parametrize("rate", [16_000, 48_000])
async def test_packets_of_opus(server, rate):
    """One in each frame, with junk between, which is told and harms nothing."""
    packets = opus_packets("clone-test")
    frames = [
        {**CONFIG, "encoding": "opus", "sample_rate": rate},
        *packets[:100],
        b"\xff\xff\xff\0",
        *packets[100:],
        END,
    ]
    heard = await talk(server, STREAM, frames)
    assert (heard.code, heard.errors) == (1000, ["invalid_audio_format"])
    assert share_of(CLONE_TEST, heard.text) > 0.85


async def test_ogg_pages(server):
    """What a browser's recorder makes, cut anywhere."""
    heard = await talk(
        server, STREAM, [{**CONFIG, "encoding": "opus"}, *pieces(packed("clone-test", "ogg"), 1000), END]
    )
    assert (heard.code, heard.errors) == (1000, [])
    assert share_of(CLONE_TEST, heard.text) > 0.85


@pytest.mark.parametrize(
    ("frames", "code", "close"),
    [
        ([b"\0\0"], "config_expected", 4400),
        ([END], "config_expected", 4400),
        (["?"], "malformed_message", 4400),
        ([{**CONFIG, "sample_rate": 7000}], "bad_config", 4400),
        ([{**CONFIG, "encoding": "g729"}], "bad_config", 4400),
        ([{**CONFIG, "language": "nl"}], "unsupported", 4400),
        (["x" * 100_000], "bad_config", 4400),
        ([{**CONFIG, "encoding": "mulaw", "sample_rate": 8000}, bytes(8000 * 190)], "chunk_too_long", 4400),
    ],
)
async def test_what_cannot_go_on_is_told_and_closed(server, frames, code, close):
    """With a code that clients do not come back after."""
    heard = await talk(server, STREAM, frames)
    assert (heard.errors, heard.code, heard.reason) == ([code], close, code)
    assert all(set(each) == {"type", "code", "message"} for each in heard.messages)
    assert "language_config" not in heard.messages[-1]["message"]


@pytest.mark.parametrize("path", [STREAM, V1])
async def test_without_keys_pages_from_elsewhere_get_no_socket(server, path):
    """Otherwise any page that its user visits could use this machine's server."""
    with pytest.raises(InvalidHandshake):
        await talk(server, path, [CONFIG], origin="https://evil.example.com")


async def test_a_flood_of_bad_frames_harms_nothing(server):
    """Whoever does not read what is complained of is still heard, and the complaints do not pile up."""
    async with talking(server, STREAM) as heard:
        await heard.send(CONFIG, SPEECH, *["{}"] * 5000, END)
        assert await heard.ended() == 1000
    assert share_of(SPOKEN, heard.text) > 0.75
    assert set(heard.errors) == {"malformed_message"}


async def test_what_was_said_before_the_line_broke_is_kept(server):
    """A lost connection ends the call: the session is done, long before the grace period of those that can return."""
    async with talking(server, STREAM) as heard:
        await heard.send({**CONFIG, "call_id": "cut-off"}, *pieces(SPEECH, 3200))
        await heard.next()
        heard.drop()
    shown = await until_status(server, by_call(server, "cut-off")["id"], "done")
    assert share_of(SPOKEN, shown["result"]["transcription"]["full_transcript"]) > 0.5


async def test_v1_says_what_v2_says(server):
    """The first message of Gladia's Twilio sample, its frames, and all fields of the answers."""
    config = {"x_gladia_key": "any", "language_behaviour": "automatic multiple languages", "sample_rate": 8000,
              "encoding": "wav/ulaw", "bit_depth": 16, "word_timestamps": True, "model_type": "accurate"}  # fmt: skip
    heard, plain = await asyncio.gather(
        talk(server, V1, [config, *frames_of(ULAW), TERMINATE]),
        transcribe(server, pieces(ULAW, 160), encoding="wav/ulaw", sample_rate=8000, endpointing=0.3,
                   maximum_duration_without_endpointing=30),
    )  # fmt: skip
    assert heard.code == 1000
    connected, *transcripts = heard.messages
    assert set(connected) == {"event", "request_id"}
    assert connected["event"] == "connected"
    assert len(transcripts) == len(heard.finals) == len(plain.finals)
    for number, (told, said) in enumerate(zip(transcripts, plain.utterances, strict=True)):
        assert (told["event"], told["type"], told["request_id"]) == ("transcript", "final", connected["request_id"])
        assert told["transcription"] == said["text"].strip()
        assert (told["time_begin"], told["time_end"]) == (said["start"], said["end"])
        assert (told["language"], told["confidence"]) == ("en", said["confidence"])
        assert [word["word"] for word in told["words"]] == said["text"].split()
        assert told["inference_time"] > 0
        assert told["time_end"] <= told["duration"] <= len(ULAW) / 8000 + 0.001
        (utterance,) = told["utterances"]
        assert (utterance["id"], utterance["stable"]) == (number, True)
    (found,) = [
        item for item in server.get("/v2/live", limit=100)["items"] if item["request_id"] == connected["request_id"]
    ]
    assert found["status"] == "done"


@pytest.mark.parametrize(("encoding", "kind"), [("MP3", "mp3"), ("flac", "flac"), ("OPUS", "ogg"), ("amr-nb", "amr")])
async def test_v1_reads_compressed_files(server, encoding, kind):
    """Cut as the examples of V1 cut a file: every 20 000 letters of its base64."""
    text = b64encode(packed("beckett", kind)).decode()
    parts = [json.dumps({"frames": text[at : at + 20_000]}) for at in range(0, len(text), 20_000)]
    heard = await talk(server, V1, [{"encoding": encoding, "language": "english"}, *parts, TERMINATE])
    assert (heard.code, heard.errors) == (1000, [])
    assert share_of(SPOKEN, heard.text) > 0.7


async def test_v1_reads_a_wav_file_by_default(server):
    """As base64 or as bytes, and says partials unless the accurate model is asked for."""
    file = with_wav_header(pcm(wheel_recording("clone-test")))
    async with talking(server, V1) as heard:
        await heard.send({"frames_format": "bytes"})
        reading = asyncio.create_task(heard.ended())
        for piece, pause_s in mid_speech(file, 64_000, lambda: heard.of("partial"), chunk=1280):
            await heard.send(piece)
            await asyncio.sleep(pause_s)
        await heard.send(TERMINATE)
        assert await reading == 1000
    assert share_of(CLONE_TEST, heard.text) > 0.85
    partials = heard.of("partial")
    assert partials
    assert {each["utterances"][0]["stable"] for each in partials} == {False}


@pytest.mark.parametrize(
    ("frames", "code", "close"),
    [
        ([b"\0\0"], "config_expected", 4400),
        (['{"frames": "AAAA"}'], "config_expected", 4400),
        ([{"encoding": "SPHERE"}], "bad_config", 4400),
        ([{"bit_depth": 64}], "bad_config", 4400),
        ([{"sample_rate": "16000"}], "bad_config", 4400),
        ([{"nonsense": 1}], "bad_config", 4400),
        ([{"language": "dutch"}], "unsupported", 4400),
        ([{"sample_rate": 8000}, bytes(16_000 * 125)], "chunk_too_long", 4400),
        ([{"encoding": "mp3"}, pack(silence(130), "mp3")], "chunk_too_long", 4400),
    ],
)
async def test_v1_tells_and_closes(server, frames, code, close):
    """Clients of V1 find `error` in the message, look at the reason, and do not come back."""
    heard = await talk(server, V1, frames)
    assert heard.messages[-1]["event"] == "error"
    assert heard.messages[-1]["error"]
    assert (heard.errors, heard.code) == ([code], close)


async def test_keys_and_the_end_of_the_server(tmp_path):
    """With keys, one is needed: in a header, in the query, or in the first message; a restart is told with 1012."""
    secret = new_key(tmp_path / "data")[0]
    assert secret.startswith("vv_")
    with serving(tmp_path / "data", "--drain-timeout", "1") as server:
        server.http.headers["x-gladia-key"] = secret
        for path, wrong in [
            (STREAM, CONFIG),
            (STREAM, {**CONFIG, "api_key": "vv_wrong"}),
            (f"{STREAM}?token=vv_wrong", CONFIG),
            (V1, {}),
            (V1, {"x_gladia_key": "vv_wrong"}),
        ]:
            heard = await talk(server, path, [wrong, SPEECH])
            assert (heard.errors, heard.code) == (["unauthorized"], 4401)
            assert "vv_" not in json.dumps(heard.messages)
        assert server.get("/v2/live")["items"] == []
        for path, config, extra in [
            (STREAM, CONFIG, {"additional_headers": {"X-Gladia-Key": secret}}),
            (STREAM, {**CONFIG, "x_gladia_key": secret}, {}),
            (f"{STREAM}?token={secret}", CONFIG, {}),
            (V1, {"x_gladia_key": secret}, {}),
        ]:
            last = TERMINATE if path == V1 else END
            heard = await talk(server, path, [config, SPEECH[: 3 * SAMPLE_RATE], last], **extra)
            assert (heard.errors, heard.code) == ([], 1000)
        assert len(server.get("/v2/live")["items"]) == 4
        async with talking(server, STREAM, additional_headers={"x-gladia-key": secret}) as heard:
            await heard.send(CONFIG, SPEECH)
            await heard.next()
            await asyncio.to_thread(server.stop)
            assert await heard.ended() == 1012
        assert secret not in server.log
        assert "ever tried" not in server.log.lower()
