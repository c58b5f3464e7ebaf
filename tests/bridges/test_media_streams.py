"""The socket of a media stream: half-open, malformed and endless ones end cleanly, and are logged without audio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.websockets import WebSocket
from structlog.testing import capture_logs

import streams
from vivavoce.bridges import media_streams
from vivavoce.bridges.calls import Call
from vivavoce.bridges.media_streams import MAX_FRAME_BYTES, MAX_UNREADABLE, MediaStreamsBridge
from vivavoce.config import Settings
from vivavoce.errors import InvalidConfig, NotAllowed, SetupError, VivavoceError
from vivavoce.reception.access import Caller
from vivavoce.runtime.mailbox import Ending

SPEECH = bytes(range(1, 255)) * 10


class Leg:
    """A leg that keeps what it is fed."""

    session_id = "one"

    def __init__(self) -> None:
        self.audio = b""
        self.ends: list[str] = []
        self.talkative = False
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    async def feed(self, data: bytes) -> None:
        self.audio += data

    async def hang_up(self) -> None:
        self.ends.append("hung up")
        if not self.talkative:
            self.ended.set_result(Ending.FINISHED)

    def drop(self) -> None:
        self.ends.append("dropped")


class Calls:
    """Calls that are admitted unless `refusal` says otherwise, and answered with one leg."""

    def __init__(self, refusal: VivavoceError | None = None, *, at_the_door: bool = True) -> None:
        self.leg = Leg()
        self.answered: list[Call] = []
        self.keys: list[str | None] = []
        self._refusal, self._at_the_door = refusal, at_the_door

    async def admit(self, connection: WebSocket, *, key: str | None = None, signed: bool = False) -> Caller:
        self.keys.append(key)
        if self._refusal is not None and self._at_the_door:
            raise self._refusal
        return Caller(owner="local")

    async def answer(self, call: Call) -> Leg:
        if self._refusal is not None:
            raise self._refusal
        self.answered.append(call)
        return self.leg


async def served(
    calls: Any,
    path: str,
    frames: streams.Frames,
    *,
    close: int | None = None,
    query: str = "",
    headers: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Give what the server sends on a socket that brings these frames and is then closed with a code, or silent."""
    sent: list[dict[str, Any]] = []
    coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    coming.put_nowait({"type": "websocket.connect"})
    for frame in frames:
        kind = "text" if isinstance(frame, str) else "bytes"
        coming.put_nowait({"type": "websocket.receive", kind: frame})
    if close is not None:
        coming.put_nowait({"type": "websocket.disconnect", "code": close})

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    name, _, key = path.removeprefix("/bridges/").partition("/")
    scope = {
        "type": "websocket", "path": path, "headers": [(b"host", b"speech.example.net"), *encoded], "scheme": "ws",
        "query_string": query.encode(), "client": ("192.0.2.1", 4000), "path_params": {"key": key} if key else {},
    }  # fmt: skip
    bridge = MediaStreamsBridge(calls, settings or Settings())
    async with asyncio.timeout(60):
        await bridge.sockets[f"/bridges/{name}"](WebSocket(scope, coming.get, send))
    await bridge.close()
    return sent


def codes(sent: list[dict[str, Any]]) -> list[int]:
    return [message["code"] for message in sent if message["type"] == "websocket.close"]


async def test_a_call_that_stops_is_hung_up():
    """All audio reaches the leg, which is named by the call and its tracks, and then the socket is closed."""
    calls = Calls()
    sent = await served(calls, "/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH}))
    assert calls.leg.audio == SPEECH
    assert calls.leg.ends == ["hung up", "dropped"]
    assert calls.answered[0].id == "CA1/inbound"
    assert codes(sent) == [1000]


async def test_a_call_that_was_hung_up_needs_no_socket_for_its_last_words():
    """The socket is closed at once; a server that stops meanwhile lets go of the leg."""
    calls = Calls()
    calls.leg.talkative = True
    sent = await served(calls, "/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH}))
    assert codes(sent) == [1000]
    assert calls.leg.ends == ["hung up", "dropped"]


@pytest.mark.parametrize(
    ("path", "frames", "close", "ends"),
    [
        ("/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH}, stop=False), 1000, ["dropped"]),
        ("/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH}, stop=False), 1006, ["dropped"]),
        ("/bridges/plivo", streams.plivo("P1", SPEECH), 1000, ["hung up", "dropped"]),
        ("/bridges/plivo", streams.plivo("P1", SPEECH), 1006, ["dropped"]),
        ("/bridges/vonage", streams.vonage("V1", SPEECH), 1005, ["hung up", "dropped"]),
        ("/bridges/vonage", streams.vonage("V1", SPEECH), 1011, ["dropped"]),
    ],
)
async def test_a_socket_that_is_lost_leaves_the_call_to_the_grace_period(path, frames, close, ends):
    """Only where a network has no message for it, a socket closed in good order is the end of the call."""
    calls = Calls()
    await served(calls, path, frames, close=close)
    assert calls.leg.audio == SPEECH
    assert calls.leg.ends == ends


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize(("ending", "code"), [(Ending.RESTARTING, 1012), (Ending.REPLACED, 4409)])
async def test_a_session_that_ends_first_closes_the_socket(ending, code, stop):
    """What the session says of its end is said to the network; a stream that was replaced does not end the call."""
    calls = Calls()
    calls.leg.ended.set_result(ending)
    sent = await served(calls, "/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH}, stop=stop))
    assert codes(sent) == [code]
    assert calls.leg.ends == ["dropped"]


async def test_a_network_that_does_not_say_which_tracks_come_is_taken_by_its_first_audio_or_by_its_word():
    """Telnyx's tracks are those that the address asks for, or else the one that comes first."""
    for query, leg in (
        ("", "T1/inbound"),
        ("tracks=", "T1/inbound"),
        ("tracks=both", "T1/inbound+outbound"),
        ("tracks=both_tracks", "T1/inbound+outbound"),
        ("tracks=outbound", "T1/outbound"),
        ("tracks=Outbound_Track", "T1/outbound"),
    ):
        calls = Calls()
        await served(calls, "/bridges/telnyx", streams.telnyx("T1", SPEECH), query=query)
        assert calls.answered[0].id == leg
        assert calls.answered[0].request["channels"] == leg.count("+") + 1


async def test_tracks_that_there_are_not_are_refused():
    """Rather than one channel where two were meant."""
    calls = Calls()
    sent = await served(calls, "/bridges/telnyx", streams.telnyx("T1", SPEECH), query="tracks=all")
    assert codes(sent) == [1008]
    assert sent[-1]["reason"] == "tracks must be one of the following values: inbound, outbound, both"
    assert calls.answered == []


async def test_options_may_stand_in_the_address_or_in_the_stream():
    """Networks whose streams carry no parameters take a query."""
    calls = Calls()
    await served(
        calls, "/bridges/telnyx", streams.telnyx("T1", SPEECH), query="language=en&endpointing=0.5&metadata.desk=7"
    )
    request = calls.answered[0].request
    assert request["language_config"] == {"languages": ["en"]}
    assert request["endpointing"] == 0.5
    assert request["custom_metadata"] == {"desk": "7", "call_control_id": "T1", "stream_id": "s-T1"}


async def test_keys_come_in_the_path_or_the_authorization_header():
    """Bearer tokens and passwords are keys; what is neither is none."""
    found = []
    paths = [("/bridges/exotel/vv_1", "")] + [
        ("/bridges/exotel", value)
        for value in ("Bearer vv_2", "Basic Y2FsbHM6dnZfMw==", "Basic dnZfNA==", "Basic !", "Digest x")
    ]
    for path, value in paths:
        calls = Calls()
        await served(calls, path, streams.exotel("E1", SPEECH), headers={"Authorization": value})
        found += calls.keys
    assert found == ["vv_1", "vv_2", "vv_3", "vv_4", None, None]


async def test_strangers_are_refused_before_the_socket_is_accepted():
    """A refused handshake brings nothing in, and says why in the log only."""
    with capture_logs() as logs:
        sent = await served(Calls(NotAllowed("no")), "/bridges/twilio/vv_secret", [])
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert [entry["event"] for entry in logs] == ["call refused"]
    assert "vv_secret" not in str(logs)


async def test_a_request_that_cannot_be_met_ends_the_call_and_says_why():
    """The problems are logged, since nobody else would hear of them."""
    refusal = InvalidConfig("not valid", ["endpointing must not be greater than 10"])
    with capture_logs() as logs:
        sent = await served(
            Calls(refusal, at_the_door=False), "/bridges/twilio", streams.twilio("CA1", {"inbound": SPEECH})
        )
    assert codes(sent) == [1008]
    assert "endpointing must not be greater than 10" in logs[0]["reason"]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        ['{"event": "connected"}'],
        ['{"event": "media", "media": {"payload": "AAAA"}}'] * 50,
        [*streams.telnyx("T1", SPEECH)[:2]],
    ],
)
async def test_a_socket_on_which_no_stream_begins_is_closed(frames, monkeypatch):
    """Half-open calls are let go after a while, and audio before the start is passed over."""
    monkeypatch.setattr(media_streams, "FIRST_MESSAGE_S", 0.05)
    calls = Calls()
    with capture_logs() as logs:
        sent = await served(calls, "/bridges/telnyx", frames)
    assert codes(sent) == [1008]
    assert calls.answered == []
    assert logs[-1]["reason"].startswith("no stream was begun within")
    assert len(logs) <= 2


@pytest.mark.parametrize("frame", ["no json", b"\x00", "x" * (MAX_FRAME_BYTES + 1), '{"event": "stop"}'])
async def test_a_stream_that_begins_with_something_else_is_closed(frame):
    """What is no stream ends at its first frame, and the log says so."""
    with capture_logs() as logs:
        sent = await served(Calls(), "/bridges/twilio", [frame])
    assert codes(sent) == [1008]
    assert [entry["event"] for entry in logs] == ["call refused"]


async def test_bad_frames_are_passed_over_and_a_flood_of_them_ends_the_stream():
    """Audio around a bad frame counts; each reason is logged once; too many end the socket but not the call."""
    start, *media = streams.twilio("CA1", {"inbound": SPEECH}, stop=False)[1:]
    bad = ["nonsense", b"\x01", "x" * (MAX_FRAME_BYTES + 1)]
    other = json.dumps({"event": "media", "media": {"track": "outbound", "payload": "AAAA"}})
    calls = Calls()
    with capture_logs() as logs:
        await served(calls, "/bridges/twilio", [start, media[0], *bad, *bad, other, other, *media[1:]], close=1006)
    assert calls.leg.audio == SPEECH
    assert [entry["event"] for entry in logs].count("frames passed over") == 4
    flooded = Calls()
    sent = await served(flooded, "/bridges/twilio", [start, *media, *["nonsense"] * (MAX_UNREADABLE + 1)])
    assert codes(sent) == [1008]
    assert (flooded.leg.audio, flooded.leg.ends) == (SPEECH, ["dropped"])


async def test_a_second_stream_on_one_socket_is_not_mixed_in():
    """The socket is closed with the reason, and the first call may come back; its own start again is nothing."""
    calls, one = Calls(), streams.twilio("CA1", {"inbound": SPEECH}, stop=False)
    other = streams.twilio("CA2", {"inbound": SPEECH}, stop=False)
    with capture_logs() as logs:
        sent = await served(calls, "/bridges/twilio", [*one[:2], one[1], *one[2:], *other])
    assert codes(sent) == [1008]
    assert "another stream" in sent[-1]["reason"]
    assert "another stream" in logs[-1]["reason"]
    assert (calls.leg.audio, calls.leg.ends) == (SPEECH, ["dropped"])


async def test_what_a_silent_track_holds_back_is_given_when_nothing_comes(monkeypatch):
    """A stream that pauses leaves nothing unheard."""
    monkeypatch.setattr(media_streams, "QUIET_S", 0.01)
    calls = Calls()
    frames = streams.twilio("CA1", {"inbound": SPEECH[:960], "outbound": b""}, stop=False)
    serving = asyncio.create_task(served(calls, "/bridges/twilio", frames))
    async with asyncio.timeout(60):
        while not calls.leg.audio:
            await asyncio.sleep(0.01)
    assert calls.leg.audio[::2] == SPEECH[:960]
    assert set(calls.leg.audio[1::2]) == {0xFF}
    calls.leg.ended.set_result(Ending.FAILED)
    assert codes(await serving) == [4450]


@pytest.mark.parametrize(
    ("setting", "package"),
    [("twilio_auth_token", "twilio"), ("plivo_auth_token", "plivo"), ("vonage_signature_secret", "vonage")],
)
def test_a_secret_whose_package_is_missing_is_one_clear_line(setting, package, monkeypatch):
    """The way out is the extra to install."""

    def missing(_: str) -> Any:
        raise ImportError

    monkeypatch.setattr("vivavoce.bridges.signatures.import_module", missing)
    with pytest.raises(SetupError, match=rf"vivavoce\[{package}\]"):
        MediaStreamsBridge(Calls.__new__(Calls), Settings(**{setting: "secret"}))
