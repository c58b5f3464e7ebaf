"""Calls from Asterisk and FreeSWITCH through the real program: real speech, in the formats that their pages describe.

Asterisk itself is the peer in test_asterisk.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Literal
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from calls import PATIENCE_S, assert_heard_as_directly, heard_in, session_of
from live import Json, pieces
from server import Server, run_cli, serving
from sound import g711, interleave, pcm, recording_at
from vivavoce.bench.words import words

HANG_UP = b"\x00\x00\x00"
AT_8K = recording_at("two_cities", 8000)[: 8 * 8000]
AT_16K = recording_at("two_cities", 16000)[: 8 * 16000]
BEST, WORST = (recording_at("two_cities", 8000)[round(8000 * a) : round(8000 * b)] for a, b in ((1.0, 2.7), (2.7, 4.9)))
AWAY_S = 0.6
"""For so long a leg is away at least, beyond what it was ahead of the clock."""
OTHER_16K = recording_at("beckett", 16000)


@pytest.fixture(scope="module")
def pbx(tmp_path_factory) -> Iterator[Server]:
    """A server that also takes AudioSocket calls."""
    options = ["--audiosocket-listen", "127.0.0.1:0", "--bridge-parameters", "language=en&metadata.team=blue"]
    options += ["--drain-timeout", "0"]  # some calls are left for a return that does not come
    with serving(tmp_path_factory.mktemp("pbx") / "data", *options) as running:
        yield running


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def framed(kind: int, audio: bytes, size: int) -> list[bytes]:
    """Give audio as Asterisk sends it: 20 ms a frame."""
    return [frame(kind, piece) for piece in pieces(audio, size)]


@asynccontextmanager
async def dialled(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the server's AudioSocket for the block; all that was written is sent before the connection ends."""
    found = re.search(r"listening for AudioSocket.*port=(\d+)", server.log)
    assert found is not None, server.log
    reader, writer = await asyncio.open_connection("127.0.0.1", int(found[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def answer_to(server: Server, *sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and give all that comes back until the server closes it."""
    async with dialled(server) as (reader, writer), asyncio.timeout(PATIENCE_S):
        writer.write(b"".join(sent))
        return await reader.read()


@pytest.mark.parametrize(("kind", "speech", "rate"), [(0x10, AT_8K, 8000), (0x12, AT_16K, 16000)])
async def test_an_audiosocket_call_is_heard_as_well_as_directly(pbx, kind, speech, rate):
    """The UUID, audio of the rate that its frames say, a digit and the end of the connection, as Asterisk has it."""
    uuid, audio = uuid4(), pcm(speech)
    async with dialled(pbx) as (_, writer):
        writer.writelines([frame(0x01, uuid.bytes), *framed(kind, audio, rate // 25), frame(0x03, b"5")])
    shown = await session_of(pbx, "uuid", str(uuid))
    assert shown["custom_metadata"] == {"team": "blue", "uuid": str(uuid)}
    assert shown["file"]["audio_duration"] == pytest.approx(8, abs=0.01)
    await assert_heard_as_directly(pbx, shown, audio, encoding="wav/pcm", sample_rate=rate)


async def test_a_connection_that_is_cut_off_comes_back_to_its_session(pbx):
    """The same UUID on a new connection goes on; a hang-up frame then ends the call, and the peer is let go."""
    uuid, parts = uuid4(), framed(0x10, pcm(AT_8K), 320)
    async with dialled(pbx) as (_, writer):
        writer.writelines([frame(0x01, uuid.bytes), *parts[:200], parts[200][:100]])
    async with asyncio.timeout(PATIENCE_S):
        while "ConnectionAbortedError" not in pbx.log:
            await asyncio.sleep(0.05)
    assert await answer_to(pbx, frame(0x01, uuid.bytes), *parts[200:], HANG_UP) == b""
    shown = await session_of(pbx, "uuid", str(uuid))
    assert shown["file"]["audio_duration"] >= 8
    assert words(heard_in(shown)).count("best") == 1


async def test_an_error_of_asterisk_leaves_the_session_for_the_leg_s_return(pbx):
    """What it sent is kept, and a connection that takes over hangs up."""
    uuid, parts = uuid4(), framed(0x10, pcm(AT_8K[:24000]), 320)
    assert await answer_to(pbx, frame(0x01, uuid.bytes), *parts, frame(0xFF, b"\x02")) == b""
    assert await answer_to(pbx, frame(0x01, uuid.bytes), parts[0], HANG_UP) == b""
    shown = await session_of(pbx, "uuid", str(uuid))
    assert "best" in words(heard_in(shown))


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], b"\xff\x00\x01\x10"),
        ([frame(0x10, bytes(320))], b"\xff\x00\x01\x10"),
        ([frame(0x01, bytes(16)), frame(0x10, bytes(3))], b"\xff\x00\x01\x10"),
        ([frame(0x01, bytes(16)), frame(0x17, bytes(64))], b"\xff\x00\x01\x11"),
        ([frame(0x01, bytes(16)), HANG_UP], b""),
    ],
    ids=["a browser", "no name", "half a sample", "96 kHz", "no audio"],
)
async def test_what_is_no_call_is_refused_without_a_session(pbx, sent, answer):
    """The protocol's error frame, one line in the log, and nothing else."""
    before = pbx.get("/v2/live")["items"]
    assert await answer_to(pbx, *sent) == answer
    assert pbx.get("/v2/live")["items"] == before


async def test_a_rate_that_changes_ends_the_call_and_keeps_what_was_heard(pbx):
    """No session can follow that; the error frame says so."""
    uuid = uuid4()
    sent = [frame(0x01, uuid.bytes), *framed(0x10, pcm(AT_8K[:24000]), 320), frame(0x12, bytes(640))]
    assert await answer_to(pbx, *sent) == b"\xff\x00\x01\x11"
    assert (await session_of(pbx, "uuid", str(uuid), "processing"))["custom_metadata"]["uuid"] == str(uuid)


MEDIA_START = "MEDIA_START connection_id:vivavoce channel:WebSocket/vivavoce/0x{0} channel_id:{0} format:ulaw ptime:20"


def words_of(shown: Json) -> list[Json]:
    """Give the words of a finished session, in order."""
    return [word for said in shown["result"]["transcription"]["utterances"] for word in said["words"]]


def ws(server: Server, path: str, **options):
    return connect(server.url.replace("http", "ws") + path, proxy=None, open_timeout=PATIENCE_S, **options)


async def test_an_asterisk_websocket_call_in_the_plain_form(pbx):
    """µ-law with control messages between; the sub-protocol is taken up, and closing is a hang-up."""
    channel, audio = str(uuid4()), g711(AT_8K, "mulaw")
    async with ws(pbx, "/bridges/asterisk?language=en&metadata.agent=7", subprotocols=["media"]) as socket:
        assert socket.subprotocol == "media"
        await socket.send(MEDIA_START.format(channel))
        for i, piece in enumerate(pieces(audio, 160)):
            await socket.send(piece)
            if i % 100 == 0:
                await socket.send(f"DTMF_END digit:{i % 10} channel_id:{channel}")
                await socket.send("nonsense")
    shown = await session_of(pbx, "channel_id", channel)
    assert shown["custom_metadata"]["agent"] == "7"
    assert shown["request_params"]["language_config"]["languages"] == ["en"]
    await assert_heard_as_directly(pbx, shown, audio, encoding="wav/ulaw", bit_depth=8, sample_rate=8000)


async def test_an_asterisk_websocket_call_in_json_with_options_in_variables(pbx):
    """Channel variables are session options; a lost socket comes back under the name that the query gives."""
    call, audio = str(uuid4()), pieces(pcm(AT_16K), 640)
    start = {
        "event": "MEDIA_START",
        "connection_id": "vivavoce",
        "channel": "WebSocket/vivavoce/0x1",
        "channel_id": call,
        "format": "slin16",
        "optimal_frame_size": 640,
        "ptime": 20,
        "channel_variables": {"VIVAVOCE_LANGUAGE": "en", "VIVAVOCE_ENDPOINTING": "0.4"},
    }
    for part, lost in ((audio[:200], True), (audio[200:], False)):
        async with ws(pbx, f"/bridges/asterisk?call={call}") as socket:
            await socket.send(json.dumps(start))
            for piece in part:
                await socket.send(piece)
            if lost:
                await session_of(pbx, "channel_id", call, "processing")
                await (await socket.ping())
                socket.transport.abort()
    shown = await session_of(pbx, "channel_id", call)
    assert shown["request_params"]["endpointing"] == 0.4
    assert words(heard_in(shown)).count("best") == 1
    assert words(heard_in(shown)).count("worst") == 1


async def test_a_freeswitch_call_with_metadata_in_its_first_frame(pbx):
    """One channel at 8 kHz, which goes without saying; the metadata names the call, its language and what to keep."""
    call, audio = str(uuid4()), pcm(AT_8K)
    async with ws(pbx, "/bridges/freeswitch", subprotocols=["audio.drachtio.org"]) as socket:
        assert socket.subprotocol == "audio.drachtio.org"
        await socket.send(json.dumps({"uuid": call, "language": "en", "caller": "100"}))
        for piece in pieces(audio, 320):
            await socket.send(piece)
        await socket.send('{"digit": "5"}')
    shown = await session_of(pbx, "call", call)
    assert shown["custom_metadata"] == {"caller": "100", "call": call}
    await assert_heard_as_directly(pbx, shown, audio, encoding="wav/pcm", sample_rate=8000)


async def test_a_freeswitch_call_in_stereo_that_the_url_describes(pbx):
    """Caller and callee on two channels at 16 kHz, from the first frame on, and nothing is sent back."""
    call, audio = str(uuid4()), pcm(interleave([AT_16K, OTHER_16K]))
    async with ws(pbx, f"/bridges/freeswitch?rate=16k&mix=stereo&language=en&call={call}") as socket:
        for piece in pieces(audio, 1280):
            await socket.send(piece)
        await socket.close()
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    shown = await session_of(pbx, "call", call)
    assert shown["file"]["number_of_channels"] == 2
    await assert_heard_as_directly(pbx, shown, audio, encoding="wav/pcm", sample_rate=16000, channels=2)


async def test_media_sockets_that_are_lost_come_back_on_the_clock_of_their_calls(pbx):
    """By the name in the query, in FreeSWITCH's metadata, or on Asterisk's next channel, whose own name is another."""
    await asyncio.gather(
        lost_and_back(pbx, "/bridges/freeswitch?call={0}", "call", None, None),
        lost_and_back(pbx, "/bridges/freeswitch", "call", '{{"uuid": "{0}"}}', None),
        lost_and_back(
            pbx, "/bridges/asterisk?call={0}&metadata.leg={0}", "leg", MEDIA_START.replace("{0}", "{1}"), "mulaw"
        ),
    )


async def lost_and_back(pbx: Server, path: str, name: str, opening: str | None, law: Literal["mulaw"] | None) -> None:
    """Check that one session has both parts of a call: what was away is silence, to the sample, and words are later."""
    call = str(uuid4())
    before, after = (g711(part, law) if law else pcm(part) for part in (BEST, WORST))
    silent, bytes_per_s = (b"\xff", 8000) if law else (b"\0\0", 16_000)

    @asynccontextmanager
    async def leg() -> AsyncIterator[ClientConnection]:
        async with ws(pbx, path.format(call)) as socket:
            if opening:
                await socket.send(opening.format(call, uuid4()))
            yield socket

    async with leg() as socket:
        begun = time.monotonic()
        for piece in pieces(before, bytes_per_s // 50):
            await socket.send(piece)
        session = (await session_of(pbx, name, call, "processing"))["id"]
        known = time.monotonic()
        await (await socket.ping())
        socket.transport.abort()
    async with asyncio.timeout(PATIENCE_S):
        while not any("how=lost" in line and session in line for line in pbx.log.splitlines()):
            await asyncio.sleep(0.05)
        while time.monotonic() < begun + len(before) / bytes_per_s + AWAY_S:
            await asyncio.sleep(0.05)
    back = time.monotonic()
    async with leg() as socket:
        for piece in pieces(after, bytes_per_s // 50):
            await socket.send(piece)
    shown = await session_of(pbx, name, call)
    over = time.monotonic()

    assert shown["id"] == session
    _, found, rest = pbx.file(session).partition(before)
    assert found
    assert rest.endswith(after)
    away = rest.removesuffix(after)
    assert away == silent * (len(away) // len(silent))
    returned_s = (len(before) + len(away)) / bytes_per_s
    assert back - known - 0.01 <= returned_s <= over - begun
    heard = {word["word"].strip(" ,.").lower(): word["start"] for word in words_of(shown)}
    assert heard["best"] < len(before) / bytes_per_s < returned_s < heard["worst"]


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/bridges/asterisk", b"\0" * 160),
        ("/bridges/asterisk", "MEDIA_START connection_id:a channel:b format:opus"),
        ("/bridges/asterisk", "MEDIA_XOFF"),
        ("/bridges/asterisk?endpointing=soon", MEDIA_START.format("x")),
        ("/bridges/freeswitch", json.dumps({"rate": "fast"})),
        ("/bridges/freeswitch?rate=64000", b"\0" * 320),
        ("/bridges/freeswitch?callback_url=http://127.0.0.1/", b"\0" * 320),
    ],
)
async def test_a_socket_that_no_session_can_follow_is_closed_with_a_reason(pbx, path, first):
    """1008 and why, in one line of the log too."""
    async with ws(pbx, path) as socket:
        await socket.send(first)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), PATIENCE_S)
        assert socket.close_code == 1008
        assert socket.close_reason


async def test_once_there_are_keys_only_their_calls_are_taken(pbx):
    """The last test, since it locks the server: strangers on this machine are refused at every door, keys let in."""
    made = run_cli("keys", "create", "--data-dir", str(pbx.data_dir))
    found = re.search(r"vv_\S+", made.stdout)
    assert found is not None, made
    key = found[0]
    assert await answer_to(pbx, frame(0x01, uuid4().bytes)) == b""
    with pytest.raises(InvalidStatus, match="403"):
        await ws(pbx, "/bridges/asterisk").__aenter__()
    async with ws(pbx, "/bridges/freeswitch") as socket:
        await socket.send("{}")
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(socket.recv(), PATIENCE_S)
        assert socket.close_code == 1008
    by_path, by_first_message = str(uuid4()), str(uuid4())
    async with ws(pbx, f"/bridges/asterisk/{key}") as socket:
        await socket.send(MEDIA_START.format(by_path))
        await socket.send(bytes([255]) * 8000)
    async with ws(pbx, "/bridges/freeswitch") as socket:
        await socket.send(json.dumps({"uuid": by_first_message, "api_key": key}))
        await socket.send(bytes(16000))
    pbx.http.headers["x-gladia-key"] = key
    await session_of(pbx, "channel_id", by_path)
    shown = await session_of(pbx, "call", by_first_message)
    assert shown["custom_metadata"] == {"call": by_first_message}
    assert key not in pbx.log
