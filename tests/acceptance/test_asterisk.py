"""Asterisk 22 calls: a real 8 kHz recording, played to a channel and heard over each of its ways out."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack
from uuid import uuid4

import pytest

import asterisk
from asterisk import calling, write_sound
from calls import PATIENCE_S, assert_heard_as_directly, heard_in, session_of
from server import serving
from sound import g711, pcm, recording_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(asterisk.MISSING is not None, reason=str(asterisk.MISSING)),
]

BYTES_PER_S = 16_000
SPEECH = recording_at("two_cities", 8000)[: 8 * 8000]

DIALPLAN = """
[test]
exten => caller,1,Answer()
 same => n,Wait(3)
 same => n,Playback({sound})
 same => n,SendDTMF(5)
 same => n,Hangup()
exten => talker,1,Answer()
 same => n(more),Playback({sound})
 same => n,Goto(more)
exten => app,1,Answer()
 same => n,AudioSocket({app},{audiosocket})
exten => channel,1,Answer()
 same => n,Dial(AudioSocket/{audiosocket}/{channel}/c(slin16))
exten => ulaw,1,Answer()
 same => n,Dial(WebSocket/vivavoce/c(ulaw)v(language=en,metadata.way=ulaw))
exten => json,1,Answer()
 same => n,Dial(WebSocket/vivavoce/c(slin16)f(json)v(language=en,metadata.way=json))
exten => bridged,1,Answer()
 same => n,Originate(Local/{tap}@vivavoce/n,app,ChanSpy,"${{CHANNEL}},qES",,,a)
 same => n,Dial(Local/callee@test)
exten => callee,1,Answer()
 same => n,Wait(600)

[vivavoce]
exten => _[0-9a-f].,1,Answer()
 same => n(again),TryExec(AudioSocket(${{EXTEN}},{audiosocket}))
 same => n,Wait(1)
 same => n,Goto(again)
"""
CLIENT = """
[vivavoce]
type = websocket_client
connection_type = per_call_config
uri = {url}/bridges/asterisk
protocols = media
"""


def audiosocket_of(server):
    """Give the address that a server takes AudioSocket calls at."""
    found = re.findall(r"listening for AudioSocket.*port=(\d+)", server.log)
    return f"127.0.0.1:{found[-1]}"


def files(server, sound, **names):
    plan = DIALPLAN.format(sound=sound, audiosocket=audiosocket_of(server), **names)
    return {"extensions.conf": plan, "websocket_client.conf": CLIENT.format(url=server.url.replace("http", "ws"))}


async def grown(audio, seconds):
    """Wait until a session's audio is longer by so much."""
    before = audio.stat().st_size
    async with asyncio.timeout(PATIENCE_S):
        while audio.stat().st_size < before + seconds * BYTES_PER_S:
            await asyncio.sleep(0.1)


async def test_asterisk_s_calls_are_heard_as_well_as_directly(tmp_path):
    """AudioSocket as an application, as a channel, and on a tapped call; the WebSocket channel in both forms."""
    names = {name: str(uuid4()) for name in ("app", "channel", "tap")}
    options = ["--audiosocket-listen", "127.0.0.1:0", "--bridge-parameters", "language=en"]
    with serving(tmp_path / "data", *options) as server:
        with calling(
            tmp_path / "asterisk", files(server, write_sound(tmp_path, "speech", pcm(SPEECH)), **names)
        ) as peer:
            for callee in ("app", "channel", "ulaw", "json", "bridged"):
                await asyncio.to_thread(peer.call, "caller", callee)
            shown = {name: await session_of(server, "uuid", uuid) for name, uuid in names.items()}
            shown |= {way: await session_of(server, "way", way) for way in ("ulaw", "json")}
        assert [each["file"]["audio_duration"] for each in shown.values()] == [pytest.approx(8, abs=0.8)] * 5
        assert shown["channel"]["request_params"]["sample_rate"] == 16000
        assert shown["ulaw"]["request_params"]["encoding"] == "wav/ulaw"
        plain = {"audio": pcm(SPEECH), "encoding": "wav/pcm", "sample_rate": 8000}
        for name in ("app", "channel", "json", "tap"):
            await assert_heard_as_directly(server, shown[name], **plain)
        await assert_heard_as_directly(
            server, shown["ulaw"], g711(SPEECH, "mulaw"), encoding="wav/ulaw", bit_depth=8, sample_rate=8000
        )
        assert server.log.count("call over") == 5
        assert server.log.count("hung up") == 5


async def test_a_call_that_outlives_the_server_goes_on_with_its_session(tmp_path):
    """The dialplan comes back with the same UUID after a restart, and the words before and after are one session's."""
    names = {name: str(uuid4()) for name in ("app", "channel", "tap")}
    with ExitStack() as stack:
        with serving(tmp_path / "data", "--audiosocket-listen", "127.0.0.1:0") as first:
            address, sound = audiosocket_of(first), write_sound(tmp_path, "speech", pcm(SPEECH))
            peer = stack.enter_context(calling(tmp_path / "asterisk", files(first, sound, **names)))
            await asyncio.to_thread(peer.call, "talker", "bridged")
            session = (await session_of(first, "uuid", names["tap"], "processing"))["id"]
            audio = first.data_dir / "audio" / f"{session}.raw"
            await grown(audio, 10)
        with serving(tmp_path / "data", "--audiosocket-listen", address) as second:
            async with asyncio.timeout(PATIENCE_S):
                while second.log.count("call answered") < 2:
                    await asyncio.sleep(0.1)
            await grown(audio, 12)
            await asyncio.to_thread(peer.command, "channel request hangup all")
            shown = await session_of(second, "uuid", names["tap"])
    assert shown["id"] == session
    assert heard_in(shown).lower().count("age of wisdom") >= 2
