"""Asterisk 22 calls: a real 8 kHz recording, played to a channel and heard over each of its ways out."""

from __future__ import annotations

import asyncio
import io
import re
import socket
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

import asterisk
from asterisk import Asterisk, calling, free_port, write_sound
from calls import PATIENCE_S, assert_heard_as_directly, heard_in, session_of
from live import Json, until_status
from recordings import TRANSCRIPTS
from server import Server, serving
from sound import g711, pcm, recording_at, share_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(asterisk.MISSING is not None, reason=str(asterisk.MISSING)),
]

BYTES_PER_S = 16_000
SPEECH = recording_at("two_cities", 8000)[: 8 * 8000]
SAID = " ".join(TRANSCRIPTS["two_cities"].split()[:24])
PLAIN = {"audio": pcm(SPEECH), "encoding": "wav/pcm", "sample_rate": 8000}
ULAW = {"audio": g711(SPEECH, "mulaw"), "encoding": "wav/ulaw", "bit_depth": 8, "sample_rate": 8000}

DOORS = ["--audiosocket-listen", "127.0.0.1:0", "--rtp-listen", "127.0.0.1:0", "--sip-listen", "127.0.0.1:0"]
LANGUAGE = ["--bridge-parameters", "language=en"]
PASSWORD = ["--sip-users", "alice:secret"]
RTP_FORMATS = ("ulaw", "alaw", "slin", "slin16")
SLIN_BY_ASTERISK = ["--rtp-types", "10=L16/8000,118=L16/16000,101=telephone-event"]

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
exten => sip,1,Answer()
 same => n,Dial(PJSIP/desk@vivavoce,,b(english^s^1(sip)))
exten => sip-alaw,1,Answer()
 same => n,Dial(PJSIP/desk@alaw,,b(english^s^1(sip-alaw)))

[english]
exten => s,1,Set(PJSIP_HEADER(add,X-Vivavoce-Language)=en)
 same => n,Set(PJSIP_HEADER(add,X-Vivavoce-Metadata.Way)=${{ARG1}})
 same => n,Return()

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
TRUNK = """
[udp]
type=transport
protocol=udp
bind=127.0.0.1:{port}

[vivavoce]
type=endpoint
context=from-vivavoce
disallow=all
allow=ulaw,alaw
aors=vivavoce
outbound_auth=vivavoce

[vivavoce]
type=aor
contact=sip:{sip}
qualify_frequency=5

[vivavoce]
type=auth
auth_type=userpass
username=alice
password=secret

[alaw]
type=endpoint
context=from-vivavoce
disallow=all
allow=alaw
aors=vivavoce
outbound_auth=vivavoce
"""


def address_of(server: Server, what: str) -> str:
    """Give the address that a server takes calls of one kind at."""
    found = re.findall(rf"listening for {what}.*?(?:port=|127\.0\.0\.1:)(\d+)", server.log)
    return f"127.0.0.1:{found[-1]}"


def files(server: Server, sound, **names: str) -> dict[str, str]:
    """Give the configuration of an Asterisk that calls a server."""
    plan = DIALPLAN.format(sound=sound, audiosocket=address_of(server, "AudioSocket"), **names)
    trunk = TRUNK.format(port=free_port(socket.SOCK_DGRAM), sip=address_of(server, "SIP"))
    client = CLIENT.format(url=server.url.replace("http", "ws"))
    return {"extensions.conf": plan, "websocket_client.conf": client, "pjsip.conf": trunk}


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    """The AudioSocket UUIDs of the calls that the dialplan places."""
    return {name: str(uuid4()) for name in ("app", "channel", "tap")}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server with every door open to this machine."""
    data = tmp_path_factory.mktemp("doors") / "data"
    with serving(data, *DOORS, *LANGUAGE, *PASSWORD, *SLIN_BY_ASTERISK) as running:
        yield running


@pytest.fixture(scope="module")
def peer(server, names, tmp_path_factory) -> Iterator[Asterisk]:
    """An Asterisk that knows the server."""
    place = tmp_path_factory.mktemp("peer")
    sound = write_sound(place, "speech", pcm(SPEECH))
    with calling(place / "asterisk", files(server, sound, **names)) as running:
        yield running


async def assert_sent_is_heard(server: Server, shown: Json) -> None:
    """Check the text of RTP against that of what Asterisk sent, and against what was said.

    Where the machine is busy Asterisk is late, and its timestamps leap by as much: the pauses are part of what it sent.
    """
    with wave.open(io.BytesIO(server.file(shown["id"]))) as sent:
        rate, audio = sent.getframerate(), sent.readframes(sent.getnframes())
    assert 7.9 < len(audio) / 2 / rate < 12
    await assert_heard_as_directly(server, shown, audio, encoding="wav/pcm", sample_rate=rate)
    assert share_of(SAID, heard_in(shown)) > 0.7


async def grown(audio, seconds):
    """Wait until a session's audio is longer by so much."""
    before = audio.stat().st_size if audio.exists() else 0
    async with asyncio.timeout(PATIENCE_S):
        while not audio.exists() or audio.stat().st_size < before + seconds * BYTES_PER_S:
            await asyncio.sleep(0.1)


async def logged(server, text, count=1):
    """Wait until a server's log says something so often."""
    async with asyncio.timeout(PATIENCE_S):
        while server.log.count(text) < count:
            await asyncio.sleep(0.1)


async def test_asterisk_s_calls_are_heard_as_well_as_directly(server, peer, names):
    """AudioSocket as an application, as a channel, and on a tapped call; the WebSocket channel in both forms."""
    before = {text: server.log.count(text) for text in ("call over", "hung up")}
    for callee in ("app", "channel", "ulaw", "json", "bridged"):
        await asyncio.to_thread(peer.call, "caller", callee)
    shown = {name: await session_of(server, "uuid", uuid) for name, uuid in names.items()}
    shown |= {way: await session_of(server, "way", way) for way in ("ulaw", "json")}
    assert [each["file"]["audio_duration"] for each in shown.values()] == [pytest.approx(8, abs=0.8)] * 5
    assert shown["channel"]["request_params"]["sample_rate"] == 16000
    assert shown["ulaw"]["request_params"]["encoding"] == "wav/ulaw"
    for name in ("app", "channel", "json", "tap"):
        await assert_heard_as_directly(server, shown[name], **PLAIN)
    await assert_heard_as_directly(server, shown["ulaw"], **ULAW)
    assert {text: server.log.count(text) - count for text, count in before.items()} == {"call over": 5, "hung up": 5}


def external_media(audiosocket: str, uuid: str) -> dict[str, dict[str, str]]:
    """Give what ARI is to be asked for to have media out over AudioSocket and over the WebSocket channel."""
    return {
        "audiosocket": {
            "external_host": audiosocket,
            "encapsulation": "audiosocket",
            "transport": "tcp",
            "data": uuid,
            "format": "slin16",
        },
        "websocket": {
            "external_host": "vivavoce",
            "encapsulation": "none",
            "transport": "websocket",
            "format": "slin16",
            "transport_data": "v(language=en,metadata.way=ari)",
        },
    }


async def test_external_media_of_ari_is_heard_as_well_as_directly(server, peer):
    """RTP in four formats, AudioSocket and the WebSocket channel, each bridged to a caller."""
    uuid = str(uuid4())
    ways = {form: {"external_host": address_of(server, "RTP"), "format": form} for form in RTP_FORMATS}
    ways |= external_media(address_of(server, "AudioSocket"), uuid)
    async with peer.application("vivavoce") as ari:
        outs = {way: await ari.channel("/channels/externalMedia", **asked) for way, asked in ways.items()}
        callers = [await ari.channel("/channels", endpoint="Local/caller@test/n") for _ in outs]
        await ari.until("StasisStart", *outs.values(), *callers)
        for pair in zip(outs.values(), callers, strict=True):
            bridge = await ari.ask("POST", "/bridges", type="mixing")
            await ari.ask("POST", f"/bridges/{bridge['id']}/addChannel", channel=",".join(pair))
        ports = {way: await ari.variable(outs[way], "UNICASTRTP_LOCAL_PORT") for way in RTP_FORMATS}
        await ari.until("StasisEnd", *callers)
        for out in outs.values():
            await ari.ask("DELETE", f"/channels/{out}")
    for port in ports.values():
        await assert_sent_is_heard(server, await session_of(server, "rtp_source", f"127.0.0.1:{port}"))
    for entry in (("uuid", uuid), ("way", "ari")):
        await assert_heard_as_directly(server, await session_of(server, *entry), **PLAIN)


async def test_a_call_by_sip_trunk_is_heard_as_well_as_directly(server, peer):
    """With a password, a header of the call's own, and each G.711 law; Asterisk hangs up."""
    before = server.log.count("SIP call over")
    for way in ("sip", "sip-alaw"):
        await asyncio.to_thread(peer.call, "caller", way)
    for way in ("sip", "sip-alaw"):
        await assert_sent_is_heard(server, await session_of(server, "way", way))
    await logged(server, "SIP call over", before + 2)
    assert "Avail" in await asyncio.to_thread(peer.command, "pjsip show contacts")


async def test_a_call_that_outlives_the_server_goes_on_with_its_session(tmp_path, names):
    """The dialplan comes back with the same UUID after a restart; a SIP call gets BYE, and its session is stopped."""
    with ExitStack() as stack:
        with serving(tmp_path / "data", *DOORS, *PASSWORD) as first:
            address, sound = address_of(first, "AudioSocket"), write_sound(tmp_path, "speech", pcm(SPEECH))
            peer = stack.enter_context(calling(tmp_path / "asterisk", files(first, sound, **names)))
            await asyncio.to_thread(peer.call, "talker", "bridged")
            await asyncio.to_thread(peer.call, "talker", "sip")
            session = (await session_of(first, "uuid", names["tap"], "processing"))["id"]
            dialled = (await session_of(first, "way", "sip", "processing"))["id"]
            audio = first.data_dir / "audio" / f"{session}.raw"
            await grown(audio, 10)
            assert "PJSIP/vivavoce" in await asyncio.to_thread(peer.command, "core show channels")
        with serving(tmp_path / "data", "--audiosocket-listen", address) as second:
            assert "PJSIP/vivavoce" not in await asyncio.to_thread(peer.command, "core show channels")
            await logged(second, "call answered", 2)
            await grown(audio, 12)
            await asyncio.to_thread(peer.command, "channel request hangup all")
            shown = await session_of(second, "uuid", names["tap"])
            assert "age of wisdom" in heard_in(await until_status(second, dialled, "done")).lower()
    assert shown["id"] == session
    assert heard_in(shown).lower().count("age of wisdom") >= 2
