"""Calls that telephone networks stream come out as text: what is said, on which side, and when, whoever may call."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import jwt
import numpy as np
import pytest
from plivo.utils.signature_v3 import construct_get_url, get_signature_v3
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import streams
from live import transcribe, until_status
from server import Server, new_key, serving
from sound import g711, pcm, recording_at, silence
from vivavoce.bench.words import errors, words
from vivavoce.model import now

TOKEN, PLIVO_TOKEN, VONAGE_SECRET = "twilio-auth-token", "plivo-auth-token", "vonage-signature-secret-of-32-bytes"
POINTS = 0.03
"""How many of a call's words may differ from those of the same audio given directly, which bounds its error rate."""

BECKETT = g711(recording_at("beckett", 8000), "mulaw")
CLONE = g711(recording_at("clone-test", 8000), "mulaw")
ULAW = {"encoding": "wav/ulaw", "sample_rate": 8000}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server with a key, whose owner the signed calls belong to."""
    data = tmp_path_factory.mktemp("streams") / "data"
    key, owner = new_key(data)
    options = {
        "bridge-owner": owner,
        "twilio-auth-token": TOKEN,
        "plivo-auth-token": PLIVO_TOKEN,
        "vonage-signature-secret": VONAGE_SECRET,
    }
    with serving(data, *(part for name, value in options.items() for part in (f"--{name}", value))) as running:
        running.http.headers["x-gladia-key"] = key
        yield running


def address(server: Server, path: str) -> str:
    return server.url.replace("http", "ws", 1) + path


def signed(server: Server, path: str = "/bridges/twilio", token: str = TOKEN) -> dict[str, str]:
    """Give the header by which Twilio shows that a handshake is its own: it signs the address it was told to call."""
    url = address(server, path).replace("ws:", "wss:", 1)
    return {"X-Twilio-Signature": RequestValidator(token).compute_signature(url, {})}


@asynccontextmanager
async def opened(server: Server, path: str, headers: dict[str, str]) -> Any:
    async with connect(address(server, path), proxy=None, additional_headers=headers) as connection:
        yield connection


async def play(server: Server, path: str, headers: dict[str, str], frames: streams.Frames) -> int | None:
    """Play a call as fast as it is taken, close as the network does, and give the code the socket was closed with."""
    async with opened(server, path, headers) as connection:
        for frame in frames:
            await connection.send(frame)
        if '"stop"' in str(frames[-1]):
            with suppress(ConnectionClosed):
                await asyncio.wait_for(connection.recv(), 60)
    return connection.close_code


async def result_of(server: Server, name: str, call: str) -> Any:
    """Give the finished session of a call, found by what the network calls it."""
    found = await asyncio.to_thread(server.get, "/v2/live", custom_metadata=f'{{"{name}": "{call}"}}')
    assert len(found["items"]) == 1
    return await until_status(server, found["items"][0]["id"], "done")


def said(result: Any, channel: int = 0) -> str:
    utterances = result["result"]["transcription"]["utterances"]
    return " ".join(each["text"].strip() for each in utterances if each["channel"] == channel)


def difference(called: str, given: str) -> float:
    """Give the share of words in which a call differs from the same audio given directly."""
    assert words(given)
    return errors(words(given), words(called)) / len(words(given))


async def test_a_twilio_call_comes_out_as_the_same_audio_given_directly(server):
    """Options, ids and metadata arrive with the call; digits that were pressed arrive nowhere."""
    frames = streams.twilio("CA-one", {"inbound": BECKETT}, language="en", endpointing="0.5", metadata__desk="7")
    code, heard = await asyncio.gather(
        play(server, "/bridges/twilio", signed(server), frames),
        transcribe(server, [BECKETT], **ULAW, endpointing=0.5, language_config={"languages": ["en"]}),
    )
    assert code == 1000
    result = await result_of(server, "callSid", "CA-one")
    assert result["custom_metadata"] == {"callSid": "CA-one", "streamSid": "MZCA-one", "desk": "7"}
    assert result["request_params"]["endpointing"] == 0.5
    assert result["request_params"]["language_config"]["languages"] == ["en"]
    assert difference(said(result), heard.text()) <= POINTS
    assert result["file"]["audio_duration"] == pytest.approx(len(BECKETT) / 8000, abs=0.03)
    assert '"4"' not in str(result)
    assert said(result).split(".")[0] not in server.log


async def test_both_tracks_are_the_caller_and_the_callee_at_the_times_they_spoke(server):
    """The callee, announced first and silent at first, is the second channel, on the clock of the call."""
    late = g711(silence(3, 8000), "mulaw") + CLONE
    both = np.full((max(len(BECKETT), len(late)), 2), 0xFF, np.uint8)
    both[: len(BECKETT), 0] = np.frombuffer(BECKETT, np.uint8)
    both[: len(late), 1] = np.frombuffer(late, np.uint8)
    _, heard = await asyncio.gather(
        play(
            server,
            "/bridges/twilio",
            signed(server),
            streams.twilio("CA-both", {"outbound": late, "inbound": BECKETT}),
        ),
        transcribe(server, [both.tobytes()], **ULAW, channels=2),
    )
    result = await result_of(server, "callSid", "CA-both")
    assert result["file"]["number_of_channels"] == 2
    for channel in range(2):
        assert difference(said(result, channel), heard.text(channel)) <= POINTS
    first = {each["channel"]: each["start"] for each in reversed(result["result"]["transcription"]["utterances"])}
    expected = {each["channel"]: each["start"] for each in reversed(heard.utterances)}
    assert first == pytest.approx(expected, abs=0.1)
    assert first[1] >= 3


async def test_a_call_whose_socket_is_lost_goes_on_in_the_next_one(server):
    """A new stream of the same call and tracks, numbered and stamped anew, finds the session of the first."""
    middle = len(BECKETT) // 2
    async with opened(server, "/bridges/twilio", signed(server)) as connection:
        for frame in streams.twilio("CA-back", {"inbound": BECKETT[:middle]}, stop=False):
            await connection.send(frame)
        await (await connection.ping())
        connection.transport.abort()
    rest = streams.twilio("CA-back", {"inbound": BECKETT[middle:]})
    assert await play(server, "/bridges/twilio", signed(server), rest) == 1000
    result = await result_of(server, "callSid", "CA-back")
    heard = await transcribe(server, [BECKETT], **ULAW)
    assert difference(said(result), heard.text()) <= POINTS


def plivo_headers(server: Server) -> dict[str, str]:
    url = address(server, "/bridges/plivo").replace("ws:", "https:", 1)
    signature = get_signature_v3(PLIVO_TOKEN.encode(), construct_get_url(url, {}).decode(), "12345")
    return {"X-Plivo-Signature-V3": signature.decode(), "X-Plivo-Signature-V3-Nonce": "12345"}


def vonage_headers(age_s: float = 0.0, secret: str = VONAGE_SECRET) -> dict[str, str]:
    claims = {"iss": "Vonage", "iat": int(now().timestamp() - age_s), "jti": "1"}
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}


async def test_the_other_networks_bring_the_same_words(server):
    """Telnyx by a key in the path, Exotel by a key as password, Plivo and Vonage by their signatures."""
    key = server.http.headers["x-gladia-key"]
    narrow, wide = (pcm(recording_at("clone-test", rate)) for rate in (8_000, 16_000))
    basic = {"Authorization": f"Basic {b64encode(f'calls:{key}'.encode()).decode()}"}
    calls = {
        "call_control_id": (f"/bridges/telnyx/{key}", {}, streams.telnyx("1", CLONE), CLONE, ULAW),
        "callId": ("/bridges/plivo", plivo_headers(server), streams.plivo("1", CLONE), CLONE, ULAW),
        "uuid": ("/bridges/vonage", vonage_headers(), streams.vonage("1", wide), wide, {}),
        "call_sid": ("/bridges/exotel", basic, streams.exotel("1", narrow), narrow, {"sample_rate": 8000}),
    }
    await asyncio.gather(*(play(server, *call[:3]) for call in calls.values()))
    for name, (*_, audio, options) in calls.items():
        result = await result_of(server, name, "1")
        assert difference(said(result), (await transcribe(server, [audio], **options)).text()) <= POINTS


async def test_strangers_are_refused_before_anything_is_accepted(server):
    """A wrong signature, one for another address, none, an old token, and a wrong key are all a refused handshake."""
    strangers = [
        ("/bridges/twilio", signed(server, token="another")),
        ("/bridges/twilio", signed(server, "/bridges/twilio/other")),
        ("/bridges/twilio", {}),
        (f"/bridges/twilio/{server.http.headers['x-gladia-key']}", {}),
        ("/bridges/plivo", {**plivo_headers(server), "X-Plivo-Signature-V3-Nonce": "54321"}),
        ("/bridges/vonage", vonage_headers(age_s=600)),
        ("/bridges/vonage", vonage_headers(secret="another-secret-of-thirty-two-bytes")),
        ("/bridges/telnyx/wrong", {}),
        ("/bridges/exotel", {}),
    ]
    before = server.log.count("call refused")
    for path, headers in strangers:
        with pytest.raises(InvalidStatus):
            async with opened(server, path, headers):
                pass
    assert server.log.count("call refused") == before + len(strangers)
    assert "/wrong" not in server.log
