"""What the WebSockets of exchanges have in common: handshake, patience, bounds, and how each end is told."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect
from structlog.testing import capture_logs

from legs import Leg
from vivavoce.bridges import call_socket as module
from vivavoce.bridges.call_socket import MAX_FRAME_BYTES, POLICY, TRY_LATER, call_socket, key_of
from vivavoce.config import Settings
from vivavoce.errors import CapacityError, InvalidConfig, MalformedMessage, NotAllowed

SETTINGS = Settings(trusted_proxies="192.0.2.1")


class Line:
    """The peer's side of a socket: frames to come, and what was sent to it; after the frames it is quiet."""

    def __init__(self, *frames: dict[str, Any], **scope: Any) -> None:
        self.frames = [{"type": "websocket.connect"}, *frames]
        self.sent: list[dict[str, Any]] = []
        base = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "client": ("192.0.2.1", 4000)}
        self.socket = WebSocket({**base, **scope}, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self.frames:
            return self.frames.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))


def heard(text: str | None = None, data: bytes | None = None) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text, "bytes": data}


@pytest.mark.parametrize(
    ("offered", "chosen"), [([], None), (["media"], "media"), (["a", "media"], "media"), (["a", "b"], "a")]
)
async def test_a_sub_protocol_that_the_peer_offers_is_taken_up(offered, chosen):
    """The known one where it is among them, or else the first: some clients leave without."""
    line = Line(subprotocols=offered)
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept("media")
    assert line.sent[0]["subprotocol"] == chosen


async def test_a_peer_that_says_nothing_is_closed_in_time(monkeypatch):
    """A half-open call holds nothing."""
    monkeypatch.setattr(module, "FIRST_MESSAGE_S", 0.05)
    line = Line()
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        await socket.first()
    assert line.sent[-1]["type"] == "websocket.close"
    assert line.sent[-1]["code"] == POLICY


@pytest.mark.parametrize("frame", [heard(text="x" * (MAX_FRAME_BYTES + 1)), heard(data=bytes(MAX_FRAME_BYTES + 1))])
async def test_frames_are_bounded(frame):
    """Both exchanges send a few hundred bytes at a time."""
    line = Line(frame)
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        await socket.first()
    assert line.sent[-1]["code"] == POLICY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotAllowed("who?"), POLICY),
        (MalformedMessage("what?"), POLICY),
        (InvalidConfig("wrong", ["ü" * 200]), POLICY),
        (CapacityError("full"), TRY_LATER),
    ],
)
async def test_an_error_closes_the_socket_with_its_code_and_a_reason_that_fits(error, code):
    """A close frame has room for 123 bytes of reason."""
    line = Line()
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        raise error
    assert line.sent[-1]["code"] == code
    assert 0 < len(line.sent[-1]["reason"].encode()) <= 123


async def test_the_log_names_the_peer_that_was_judged():
    """The one behind a trusted proxy: that of the proxy would be the same for all."""
    line = Line(headers=[(b"x-forwarded-for", b"127.0.0.1, 203.0.113.9")])
    with capture_logs() as logged:
        async with call_socket(line.socket, "test", SETTINGS):
            raise NotAllowed("who?")
    assert [entry["peer"] for entry in logged] == ["203.0.113.9"]


async def test_the_reason_of_a_close_begins_with_what_is_wrong():
    """There is no room for more, and the peer knows its parameters only."""
    line = Line()
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        raise InvalidConfig("not valid", ["language_config.languages.0 must be spoken"])
    assert line.sent[-1]["reason"] == "language must be spoken"


async def test_a_peer_that_leaves_before_its_first_message_is_not_written_to():
    """Its socket is closed already."""
    line = Line({"type": "websocket.disconnect", "code": 1006})
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        with pytest.raises(WebSocketDisconnect):
            await socket.first()
        await socket.close(POLICY, "too late")
    assert [message["type"] for message in line.sent] == ["websocket.accept"]


@pytest.mark.parametrize(("code", "ends"), [(1000, True), (1001, True), (1005, True), (1006, False), (1011, False)])
async def test_a_peer_that_closes_has_hung_up_and_one_that_is_cut_off_has_not(code, ends):
    """Also where it gives no code."""
    line = Line(heard(data=b"\x01\x02"), {"type": "websocket.disconnect", "code": code})
    leg = Leg()
    async with call_socket(line.socket, "test", SETTINGS) as socket:
        await socket.accept()
        await socket.carry(leg, lambda _: None)
    assert (leg.fed, leg.hung_up, leg.dropped.is_set()) == (b"\x01\x02", ends, True)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (b"Basic " + base64.b64encode(b"any:vv_key"), "vv_key"),
        (b"basic " + base64.b64encode(b"any:with:colon"), "with:colon"),
        (b"Basic " + base64.b64encode(b"vv_key:"), "vv_key"),
        (b"Basic " + base64.b64encode(b":"), None),
        (b"Basic " + base64.b64encode(b"\xff\xfe"), None),
        (b"Basic %%%", None),
        (b"Bearer vv_key", "vv_key"),
        (b"Digest vv_key", None),
        (b"", None),
    ],
)
def test_a_key_may_be_a_bearer_token_or_stand_in_basic_authorization(header, key):
    """As Asterisk sends the password of its WebSocket client, and URLs of media streams carry one."""
    assert key_of(Line(headers=[(b"authorization", header)]).socket) == key


def test_a_key_in_the_path_goes_before_a_password():
    """The path is what the operator wrote for this server."""
    header = (b"authorization", b"Basic " + base64.b64encode(b"any:other"))
    assert key_of(Line(headers=[header], path_params={"key": "vv_key"}).socket) == "vv_key"
