"""Every door for calls, after calls with all its mistakes: each ends cleanly, and the log tells of it without content.

The log is that of a server at its most talkative. What must not be in it: what was said, audio in any spelling, keys,
secrets and signatures, right or wrong, and anything that a peer wrote.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import jwt
import pytest
from plivo.utils.signature_v3 import construct_get_url, get_signature_v3
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

import streams
from calls import PATIENCE_S
from live import Json, pieces
from phone import OFFER, Phone, authorization, status
from server import Server, new_key, serving
from sound import g711, pcm, recording_at
from talk import END, STREAM, TERMINATE, V1
from vivavoce.bench.words import words
from vivavoce.model import now

SPEECH = recording_at("two_cities", 8000)[8000 : round(4.9 * 8000)]
"""It was the best of times, it was the worst of times."""

ULAW, LINEAR = g711(SPEECH, "mulaw"), pcm(SPEECH)
WIDE = pcm(recording_at("two_cities", 16_000)[16_000 : round(4.9 * 16_000)])
SAID = {"best", "worst"}
WRITTEN, FORGED = "Zq7marker", "forged-secret-of-thirty-two-bytes-"
TWILIO, PLIVO, VONAGE, PASSWORD = (
    "twilio-auth-token",
    "plivo-auth-token",
    "vonage-secret-of-thirty-two-bytes",
    "sip-word",
)
FRIEND, STRANGER = "127.0.0.3", "127.0.0.1"
"""Addresses of this machine: one that may call without a key, and one that may not."""

FLOOD = 300
MOST_LINES = 60
"""Lines of the log about one door's calls, its stranger and its flood; what is flooded is five times as much."""

Frames = Sequence[str | bytes]


@dataclass
class House:
    """The server, its doors, and what is not to be read in its log."""

    server: Server
    key: str
    secrets: list[str] = field(default_factory=lambda: [FORGED, TWILIO, PLIVO, VONAGE, PASSWORD])

    def address(self, path: str) -> str:
        """Give a WebSocket's address."""
        return self.server.url.replace("http", "ws", 1) + path

    def port(self, what: str) -> tuple[str, int]:
        """Give where the server says that it listens."""
        found = re.search(rf"listening for {what}.*(?:port=|127\.0\.0\.1:)(\d+)", self.server.log)
        assert found is not None, self.server.log
        return "127.0.0.1", int(found[1])


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    """A server with all doors open to those who are known, and a log of everything."""
    data = tmp_path_factory.mktemp("doors") / "data"
    key, owner = new_key(data)
    options = {
        "log-level": "debug",
        "drain-timeout": "0",
        "bridge-owner": owner,
        "bridge-allow": FRIEND,
        "twilio-auth-token": TWILIO,
        "plivo-auth-token": PLIVO,
        "vonage-signature-secret": VONAGE,
        "audiosocket-listen": "127.0.0.1:0",
        "rtp-listen": "127.0.0.1:0",
        "rtp-timeout": "1",
        "sip-listen": "127.0.0.1:0",
        "sip-users": f"alice:{PASSWORD}",
        "sip-timeout": "1",
    }
    with serving(data, *(part for name, value in options.items() for part in (f"--{name}", value))) as running:
        running.http.headers["x-gladia-key"] = key
        opened = House(running, key)
        opened.secrets.append(key)
        yield opened
    assert_nothing_is_told(opened)


def assert_nothing_is_told(house: House) -> None:
    """Check that the log has nothing of what was said, sent or shown in proof."""
    log = house.server.log
    assert not SAID & set(re.findall(r"\w+", log.lower()))
    assert WRITTEN.lower() not in log.lower()
    assert [secret for secret in house.secrets if secret in log] == []
    for audio in (ULAW, LINEAR, WIDE):
        for piece in pieces(audio, 480)[5:-1:5]:  # three bytes are four letters of base64, wherever a frame begins
            spelt = (b64encode(piece).decode()[8:24], piece.hex()[8:24], repr(piece)[2:18])
            assert [each for each in spelt if each in log] == []


@dataclass(frozen=True)
class Web:
    """How a peer of one WebSocket door behaves: `path` and `headers`, and the `frames` of a whole call.

    `opening` of its frames begin the call, and the server closes after the last where it `stops`. `forged` are path,
    headers and first frame of one who pretends; `junk` is what breaks the protocol.
    """

    path: str
    headers: dict[str, str]
    frames: Frames
    forged: tuple[str, dict[str, str], str]
    opening: int = 1
    stops: bool = True
    junk: Frames = (
        WRITTEN,
        "{",
        '{"event": "media", "media": {"payload": "%' + WRITTEN + '"}}',
        "[]",
        f'{{"event": "{WRITTEN}',
    )


def twilio(house: House) -> Web:
    sign = RequestValidator(TWILIO).compute_signature
    signature = sign(house.address("/bridges/twilio").replace("ws:", "wss:", 1), {})
    house.secrets.append(signature)
    frames = streams.twilio("CA1", {"inbound": ULAW}, language="en", metadata__desk=WRITTEN)
    forged = RequestValidator(FORGED).compute_signature("wss://elsewhere/", {})
    house.secrets.append(forged)
    headers = {"X-Twilio-Signature": signature}
    return Web("/bridges/twilio", headers, frames, ("/bridges/twilio", {"X-Twilio-Signature": forged}, frames[0]), 2)


def telnyx(house: House) -> Web:
    frames = streams.telnyx("1", ULAW)
    return Web(f"/bridges/telnyx/{house.key}", {}, frames, (f"/bridges/telnyx/{FORGED}", {}, str(frames[0])), 2)


def plivo(house: House) -> Web:
    url = construct_get_url(house.address("/bridges/plivo").replace("ws:", "https:", 1), {}).decode()
    headers = [
        {"X-Plivo-Signature-V3": get_signature_v3(secret.encode(), url, "12345").decode(), **nonce}
        for secret in (PLIVO, FORGED)
        for nonce in [{"X-Plivo-Signature-V3-Nonce": "12345"}]
    ]
    house.secrets += [each["X-Plivo-Signature-V3"] for each in headers]
    frames = streams.plivo("1", ULAW)
    return Web("/bridges/plivo", headers[0], frames, ("/bridges/plivo", headers[1], str(frames[0])), stops=False)


def vonage(house: House) -> Web:
    tokens = [jwt.encode({"iat": int(now().timestamp())}, secret, algorithm="HS256") for secret in (VONAGE, FORGED)]
    house.secrets += tokens
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in tokens)
    frames = streams.vonage("1", WIDE)
    return Web("/bridges/vonage", right, frames, ("/bridges/vonage", wrong, str(frames[0])), stops=False)


def exotel(house: House) -> Web:
    given = [b64encode(f"calls:{key}".encode()).decode() for key in (house.key, FORGED)]
    house.secrets += given
    right, wrong = ({"Authorization": f"Basic {each}"} for each in given)
    frames = streams.exotel("1", LINEAR)
    return Web("/bridges/exotel", right, frames, ("/bridges/exotel", wrong, str(frames[0])), 2)


def asterisk(house: House) -> Web:
    start = f"MEDIA_START connection_id:{WRITTEN} channel:WebSocket/{WRITTEN}/0x1 channel_id:{uuid4()} format:ulaw"
    forged = (f"/bridges/asterisk/{FORGED}", {}, start)
    return Web(f"/bridges/asterisk/{house.key}", {}, [start, *pieces(ULAW, 160)], forged, stops=False)


def freeswitch(house: House) -> Web:
    said = {"uuid": str(uuid4()), "language": "en", "caller": WRITTEN}
    first, forged = (json.dumps({**said, "api_key": key}) for key in (house.key, FORGED))
    at = "/bridges/freeswitch"
    # Any text is metadata, so what breaks the protocol here are options that nobody has.
    junk = (json.dumps({"api_key": house.key, "rate": WRITTEN}), WRITTEN)
    return Web(at, {}, [first, *pieces(LINEAR, 320)], (at, {}, forged), stops=False, junk=junk)


def stream(house: House) -> Web:
    said = {"type": "config", "language": "en", "sample_rate": 8000, "encoding": "mulaw", "call_id": WRITTEN}
    first, forged = (json.dumps({**said, "api_key": key}) for key in (house.key, FORGED))
    return Web(STREAM, {}, [first, *pieces(ULAW, 160), END], (STREAM, {}, forged))


def v1(house: House) -> Web:
    said = {"sample_rate": 8000, "encoding": "wav/ulaw", "language_behaviour": "automatic multiple languages"}
    first, forged = (json.dumps({**said, "x_gladia_key": key}) for key in (house.key, FORGED))
    frames = [json.dumps({"frames": b64encode(piece).decode()}) for piece in pieces(ULAW, 160)]
    return Web(V1, {}, [first, *frames, TERMINATE], (V1, {}, forged))


WEB: dict[str, Callable[[House], Web]] = {
    each.__name__: each for each in (twilio, telnyx, plivo, vonage, exotel, asterisk, freeswitch, stream, v1)
}


@asynccontextmanager
async def knocking(house: House, path: str, headers: dict[str, str]) -> AsyncIterator[ClientConnection]:
    """Open a socket for the block."""
    async with connect(house.address(path), proxy=None, additional_headers=headers, max_queue=None) as opened:
        yield opened


async def closed(socket: ClientConnection) -> int | None:
    """Read until the server closes; give the code."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await socket.recv()
    return socket.close_code


async def speak(socket: ClientConnection, frames: Frames) -> None:
    """Send frames until they are all sent or the server has enough."""
    with suppress(ConnectionClosed):
        for frame in frames:
            await socket.send(frame)


async def web_mistakes(house: House, web: Web) -> None:
    """Pretend to be another, ask for what there is not, begin with nonsense, break off, and flood."""
    path, headers, first = web.forged
    with suppress(InvalidHandshake):
        async with knocking(house, path, headers) as pretender:
            await speak(pretender, [first])
            assert await closed(pretender) in {1008, 4401}
    wanted = f"{web.path}?endpointing={WRITTEN}&language={WRITTEN}&metadata={WRITTEN}"
    with suppress(InvalidHandshake):  # where the address is signed too
        async with knocking(house, wanted, web.headers) as asking:
            await speak(asking, web.frames[:3])
    for first in (web.junk[0], b"\0" + WRITTEN.encode()):
        async with knocking(house, web.path, web.headers) as muddled:
            await speak(muddled, [first])
    async with knocking(house, web.path, web.headers) as broken:
        broken.transport.abort()
    async with knocking(house, web.path, web.headers) as flooding:
        await speak(flooding, [*web.frames[: web.opening], *web.junk * (FLOOD // len(web.junk))])


async def web_call(house: House, web: Web) -> None:
    """Speak, with some nonsense in between."""
    async with knocking(house, web.path, web.headers) as caller:
        half = len(web.frames) // 2
        frames = [*web.frames[:half], *web.junk, *web.frames[half:]]
        if web.stops:
            _, code = await asyncio.gather(speak(caller, frames), closed(caller))
            assert code == 1000
        else:
            await speak(caller, frames)


def rtp_packets(kind: int = 0) -> list[bytes]:
    """Give the speech as 20 ms packets."""
    return [
        struct.pack("!BBHII", 0x80, kind, number, number * 160, 1) + piece
        for number, piece in enumerate(pieces(ULAW, 160))
    ]


async def play(packets: Sequence[bytes], to: tuple[str, int], source: str) -> None:
    """Send packets from an address, ten times as fast as they are spoken, and the goodbye of RTCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for packet in packets:
            sender.sendto(packet, to)
            await asyncio.sleep(0.002)
        sender.sendto(struct.pack("!BBHI", 0x81, 203, 1, 1), to)


async def rtp_mistakes(house: House) -> None:
    """Call from where nobody may, and send noise."""
    to = house.port("RTP")
    await play(rtp_packets()[:20], to, STRANGER)
    await play([WRITTEN.encode() * 20, b"\x80", *(WRITTEN.encode()[:n] for n in range(9))] * (FLOOD // 10), to, FRIEND)


async def rtp_call(house: House) -> None:
    """Speak, with noise in between."""
    packets = rtp_packets()
    await play([*packets[:50], WRITTEN.encode() * 20, *packets[50:]], house.port("RTP"), FRIEND)


def framed(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


async def audiosocket(house: House, source: str, *frames: bytes) -> bytes:
    """Send frames over a connection of their own; give what comes back."""
    at = house.port("AudioSocket")
    reader, writer = await asyncio.open_connection(*at, local_addr=(source, 0))
    try:
        writer.write(b"".join(frames))
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def audiosocket_mistakes(house: House) -> None:
    """Call from where nobody may, and send what is no frame, at first and late."""
    assert await audiosocket(house, STRANGER, framed(0x01, uuid4().bytes), framed(0x10, LINEAR[:320])) == b""
    for sent in (WRITTEN.encode() * 40, framed(0x10, LINEAR[:320]), framed(0x01, WRITTEN.encode())):
        assert (await audiosocket(house, FRIEND, sent))[:1] == b"\xff"
    began = framed(0x01, uuid4().bytes) + framed(0x10, LINEAR[:320])
    flood = framed(0x7F, WRITTEN.encode()) * FLOOD  # what a newer Asterisk might say, and then half a sample
    assert (await audiosocket(house, FRIEND, began, flood, framed(0x10, bytes(3))))[:1] == b"\xff"


async def audiosocket_call(house: House) -> None:
    """Speak, and hang up."""
    spoken = (framed(0x10, piece) for piece in pieces(LINEAR, 320))
    await audiosocket(house, FRIEND, framed(0x01, uuid4().bytes), *spoken, framed(0x03, b"5"), framed(0x00, b""))


async def sip_invited(house: House, phone: Phone, call: str, password: str) -> str:
    """Call with a password, as a telephone does when it is asked for it; give the last answer."""
    headers = [f"X-Vivavoce-Metadata: {json.dumps({'desk': WRITTEN})}"]
    await phone.say("INVITE", 1, body=OFFER, call=call, headers=headers)
    asked = await phone.hear()
    await phone.say("ACK", 1, call=call, branch=f"INVITE1{call}")
    proof = authorization(asked, password)
    found = re.search(r'response="?(\w+)', proof)
    assert found is not None
    house.secrets.append(found[1])
    await phone.say("INVITE", 2, body=OFFER, call=call, headers=[*headers, proof])
    while "CSeq: 2 " not in (answer := await phone.hear()):
        pass
    await phone.say("ACK", 2, call=call, branch=f"INVITE2{call}" if status(answer) != 200 else "acknowledged")
    return answer


async def sip_mistakes(house: House) -> None:
    """Guess a password, leave an answered call alone, and send noise."""
    phone = Phone(house.port("SIP"))
    assert status(await sip_invited(house, phone, f"{WRITTEN}-1", FORGED)) == 401
    assert status(await sip_invited(house, phone, f"{WRITTEN}-2", PASSWORD)) == 200
    while not (await phone.hear()).startswith("BYE "):
        pass
    loop = asyncio.get_running_loop()
    for number in range(FLOOD):
        broken = phone.message("INVITE", number, call=WRITTEN, body=OFFER)[: -number - 1]
        await loop.sock_sendto(phone.socket, broken, phone.to)
        await loop.sock_sendto(phone.socket, WRITTEN.encode() * 9, phone.to)
    phone.socket.close()


async def sip_call(house: House) -> None:
    """Speak on the port that is agreed, and hang up."""
    phone = Phone(house.port("SIP"))
    answer = await sip_invited(house, phone, f"{WRITTEN}-3", PASSWORD)
    found = re.search(r"m=audio (\d+) ", answer)
    assert found is not None
    await play([WRITTEN.encode() * 20, *rtp_packets()], ("127.0.0.1", int(found[1])), STRANGER)
    await phone.say("BYE", 3, call=f"{WRITTEN}-3")
    while "CSeq: 3 BYE" not in await phone.hear():
        pass
    phone.socket.close()


OTHERS: dict[str, tuple[Callable[[House], Awaitable[None]], Callable[[House], Awaitable[None]]]] = {
    "rtp": (rtp_mistakes, rtp_call),
    "audiosocket": (audiosocket_mistakes, audiosocket_call),
    "sip": (sip_mistakes, sip_call),
}


def sessions(house: House) -> dict[str, Json]:
    """Give all sessions, by name."""
    return {each["id"]: each for each in house.server.get("/v2/live", limit=100)["items"]}


async def heard(house: House, before: dict[str, Json]) -> Any:
    """Wait for a session that was not there before and in which all was heard."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for name, shown in (await asyncio.to_thread(sessions, house)).items():
                if name not in before and shown["status"] == "done":
                    text = house.server.result(name)["result"]["transcription"]["full_transcript"]
                    if set(words(text)) >= SAID:
                        return text
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", [*WEB, *OTHERS])
async def test_a_door_bears_every_mistake_and_still_hears(house, name):
    """A forger, nonsense, a broken line and a flood, and then a call; the log is short and tells nothing of them."""
    lines, before = house.server.log.count("\n"), sessions(house)
    if name in WEB:
        web = WEB[name](house)
        await web_mistakes(house, web)
    else:
        await OTHERS[name][0](house)
    log = house.server.log.splitlines()[lines:]
    assert any("refused" in line for line in log), log
    await (web_call(house, web) if name in WEB else OTHERS[name][1](house))
    assert await heard(house, before)
    assert house.server.log.count("\n") - lines <= MOST_LINES
    assert_nothing_is_told(house)


async def test_half_open_calls_are_let_go_at_every_door(house):
    """Who connects and says nothing is closed after a while, all at once; so is who says only what he is called."""

    async def silent(name: str) -> int | None:
        web = WEB[name](house)
        async with knocking(house, web.path, web.headers) as waiting:
            return await closed(waiting)

    lines = house.server.log.count("\n")
    *codes, answer = await asyncio.gather(*map(silent, WEB), audiosocket(house, FRIEND))
    assert dict(zip(WEB, codes, strict=True)) == dict.fromkeys(WEB, 1008) | {"stream": 4408, "v1": 4408}
    assert answer == b""
    log = "\n".join(house.server.log.splitlines()[lines:])
    assert log.count("call refused") == len(WEB)
    assert "call lost" in log
