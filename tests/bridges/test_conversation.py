"""A connection that opens a session by its first frame, and what becomes of it; no network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.websockets import WebSocket

from vivavoce.bridges import conversation
from vivavoce.bridges.conversation import door
from vivavoce.errors import CapacityError, NotAllowed, Unavailable
from vivavoce.reception.access import Caller
from vivavoce.runtime.mailbox import Ending
from vivavoce.wire.stream import NAMES, SimpleStream

CONFIG = json.dumps({"type": "config"})


class Peer:
    """The other end of a socket: what it sends one by one, then silence; what it got."""

    def __init__(self, *frames: str | bytes | None, reads: bool = True) -> None:
        self._frames = list(frames)
        self.reads = reads
        self.got: list[Any] = []
        self.code: int | None = None
        self.taken = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Give the next frame; None is a lost connection."""
        if not self._frames:
            self.taken.set()
            await asyncio.Event().wait()
        frame = self._frames.pop(0)
        if frame is None:
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.receive", "text" if isinstance(frame, str) else "bytes": frame}

    async def send(self, message: dict[str, Any]) -> None:
        """Take a message, unless the peer does not read."""
        if message["type"] == "websocket.close":
            self.code = message["code"]
        elif message["type"] == "websocket.send":
            if not self.reads:
                await asyncio.Event().wait()
            self.got.append(json.loads(message["text"]))

    def socket(self) -> WebSocket:
        """Give the server's end, already accepted by the peer."""
        frames = self._frames
        frames.insert(0, "")
        scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "client": ("127.0.0.1", 1)}

        async def receive() -> dict[str, Any]:
            if frames and frames[0] == "":
                frames.pop(0)
                return {"type": "websocket.connect"}
            return await self.receive()

        return WebSocket(scope, receive, self.send)


class Leg:
    """A session of no substance, which tells what was done to it."""

    session_id = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"

    def __init__(self) -> None:
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.audio = b""
        self.deeds: list[str] = []

    async def feed(self, data: bytes) -> None:
        self.audio += data

    async def take(self) -> str | Ending:
        return await asyncio.shield(self.ended)

    async def hang_up(self) -> None:
        self.deeds.append("hang up")

    def drop(self) -> None:
        self.deeds.append("drop")


class Calls:
    """Answers every call with one leg, or with an error."""

    def __init__(self, answer: Leg | Exception) -> None:
        self._answer = answer

    async def admit(self, *_: Any, **__: Any) -> Caller:
        return Caller(owner="local")

    async def answer(self, *_: Any, **__: Any) -> Leg:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def serve(peer: Peer, answer: Leg | Exception) -> asyncio.Task[None]:
    """Serve a peer."""
    handler = door(Calls(answer), "stream", SimpleStream, NAMES)  # type: ignore[arg-type] - stands in for the calls
    return asyncio.create_task(handler(peer.socket()))


async def test_who_says_nothing_is_sent_away(monkeypatch):
    """A half-open connection costs nothing for long."""
    monkeypatch.setattr(conversation, "FIRST_MESSAGE_S", 0.01)
    peer = Peer()
    await serve(peer, Leg())
    assert [each["code"] for each in peer.got] == ["config_timeout"]
    assert peer.code == 4408


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [(CapacityError("full"), "capacity", 4429), (Unavailable("the server is stopping"), "unavailable", 4429)],
)
async def test_no_room_is_told(error, code, close):
    """With a close after which clients do not come back at once."""
    peer = Peer(CONFIG)
    await serve(peer, error)
    assert [each["code"] for each in peer.got] == [code]
    assert peer.code == close


async def test_who_has_no_key_is_told_where_it_goes():
    """What another door would take is not spoken of."""

    class Shut(Calls):
        async def admit(self, *_: Any, ways: str, **__: Any) -> Caller:
            raise NotAllowed(f"this call needs {ways}")

    peer = Peer(CONFIG)
    handler = door(Shut(Leg()), "stream", SimpleStream, NAMES)  # type: ignore[arg-type] - stands in for the calls
    await handler(peer.socket())
    assert (peer.got[0]["code"], peer.code) == ("unauthorized", 4401)
    assert peer.got[0]["message"] == (
        "this call needs an API key in the header x-gladia-key, in the first message as api_key, or in the query as "
        "token, or an address in --bridge-allow"
    )


async def test_a_lost_connection_hangs_up():
    """What was taken is kept, and the session does not wait for anybody."""
    leg = Leg()
    await serve(Peer(CONFIG, b"\1\2", b"\3\4", None), leg)
    assert leg.audio == b"\1\2\3\4"
    assert leg.deeds == ["hang up", "drop"]


@pytest.mark.parametrize(
    ("ending", "code", "deeds"),
    [
        (Ending.FINISHED, 1000, ["drop"]),
        (Ending.RESTARTING, 1012, ["hang up", "drop"]),
        (Ending.SLOW, 1012, ["hang up", "drop"]),
        (Ending.LOST, 1012, ["hang up", "drop"]),
        (Ending.FAILED, 4450, ["drop"]),
    ],
)
async def test_every_end_of_a_session_closes_the_socket(ending, code, deeds):
    """With its code; a session that would go on without its client is stopped."""
    leg, peer = Leg(), Peer(CONFIG)
    task = serve(peer, leg)
    await peer.taken.wait()
    leg.ended.set_result(ending)
    await task
    assert peer.code == code
    assert leg.deeds == deeds


async def test_the_socket_is_read_whether_or_not_its_peer_reads():
    """Complaints that nobody takes keep no audio waiting, and do not pile up."""
    leg, peer = Leg(), Peer(CONFIG, *["?"] * 1000, b"\1\2", reads=False)
    task = serve(peer, leg)
    await peer.taken.wait()
    assert leg.audio == b"\1\2"
    leg.ended.set_result(Ending.SLOW)
    await task
    assert peer.code == 1012
