"""Deadlines and bounds of connections, against uvicorn on real sockets with peers that behave badly."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from typing import Any

import pytest
import uvicorn
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from vivavoce.api import connections
from vivavoce.api.connections import ANY_FIRST, JOINED, MAX_FIRST_BYTES, RECEIPTS, HttpConnection, SocketConnection

App = Callable[[Any, Any, Any], Awaitable[None]]

PATIENCE_S = 60.0
LARGE = b"x" * (8 << 20)


def on_uvloop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on the loop that the program runs on: its transports are not asyncio's."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(**fixtures))

    return run


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch):
    """Make minutes into moments."""
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(connections, "STALLED_S", 0.3)
    monkeypatch.setattr(connections, "CLOSE_S", 0.3)


async def respond(send, body: bytes = b"ok") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def quick(scope, receive, send) -> None:
    """Answer without reading the body."""
    await respond(send)


class Served:
    """A port with `app` behind it, and the connections that are open there."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    @property
    def open(self) -> int:
        """How many connections the server holds."""
        return len(self._server.server_state.connections)

    async def until_open(self, count: int) -> None:
        """Wait until the server holds that many connections."""
        async with asyncio.timeout(PATIENCE_S):
            while self.open != count:
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def connect(self, receive_buffer: int | None = None) -> AsyncIterator[tuple[Any, Any]]:
        """Connect with a plain socket."""
        plain = socket.socket()
        if receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.port))
        # With a limit of nothing, what is not asked for stays in the system's buffers.
        limit = 65536 if receive_buffer is None else 1
        reader, writer = await asyncio.open_connection(sock=plain, limit=limit)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def upgrade(self) -> AsyncIterator[tuple[Any, Any]]:
        """Open a WebSocket by hand, and read nothing after the handshake."""
        async with self.connect(receive_buffer=4096) as (reader, writer):
            key = base64.b64encode(os.urandom(16)).decode()
            writer.write(
                f"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n".encode()
            )
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await reader.readexactly(1)
            assert b" 101 " in head
            reader._transport.pause_reading()
            yield reader, writer


@asynccontextmanager
async def serving(app: App, **options: Any) -> AsyncIterator[Served]:
    """Serve `app` on a free port for the block."""
    config = uvicorn.Config(
        app, http=HttpConnection, ws=SocketConnection, lifespan="off", log_config=None, port=0, **options
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield Served(server)
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for task in list(server.server_state.tasks):
            task.cancel()
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
        for each in server.servers:
            each.close()
        listener.close()


async def read_all(reader: Any) -> bytes:
    """Read until the server ends the connection, gently or not."""
    got = b""
    with suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE_S):
            while piece := await reader.read(65536):
                got += piece
    return got


async def drip(writer: Any, piece: bytes) -> None:
    """Send a little, for as long as the server takes it."""
    with suppress(ConnectionError):
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "start", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n"], ids=["nothing", "headers", "blank lines"]
)
@on_uvloop
async def test_a_head_that_drips_is_cut_off(start):
    """Sending something now and then does not keep a connection."""
    async with serving(quick) as served, served.connect() as (reader, writer):
        dripping = asyncio.create_task(drip(writer, b"a: b\r\n" if b"host" in start else b"\r\n"))
        writer.write(start)
        assert b" 408 " in await read_all(reader)
        await served.until_open(0)
        dripping.cancel()


@on_uvloop
async def test_what_follows_a_response_has_a_deadline_too():
    """The server library's own wait for the next request ends with the first byte of it."""
    async with serving(quick) as served, served.connect() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"ok" in await reader.readuntil(b"ok")
        dripping = asyncio.create_task(drip(writer, b"\r\n"))
        assert await read_all(reader) == b""
        await served.until_open(0)
        dripping.cancel()


@on_uvloop
async def test_a_connection_serves_many_requests_in_turn(monkeypatch):
    """Deadlines count from the end of the last response, so a busy connection lives on; pipelined requests too."""
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    async with serving(quick) as served, served.connect() as (reader, writer):
        ends_at = time.monotonic() + 2 * connections.HEAD_S
        while time.monotonic() < ends_at:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
            for _ in range(2):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.05)


@on_uvloop
async def test_a_head_may_not_be_endless():
    """Not even when it comes fast, as one header or as many."""
    for piece in (b"a" * 65536, b"a: b\r\n" * 10_000):
        async with serving(quick) as served, served.connect() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ")
            for _ in range(4):
                writer.write(piece)
            assert b" 431 " in await read_all(reader)


@on_uvloop
async def test_a_handshake_that_cannot_be_read_is_refused():
    """Longer lines than the library takes, in the address or in a header."""
    for path, header in (("/" + "a" * 9000, ""), ("/", "long: " + "a" * 9000 + "\r\n")):
        async with serving(quick) as served, served.connect() as (reader, writer):
            writer.write(
                f"GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n{header}"
                "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n".encode()
            )
            assert b" 431 " in await read_all(reader)
            await served.until_open(0)


@on_uvloop
async def test_a_request_may_not_be_endless():
    """A body that nobody reads is not taken for ever."""
    read: list[int] = []

    async def swallow(scope, receive, send) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            read.append(len(message["body"]))

    async with serving(swallow) as served, served.connect() as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
        await served.until_open(0)
        assert sum(read) <= connections.MAX_REQUEST_BYTES + (1 << 20)


@on_uvloop
async def test_a_response_that_nobody_reads_is_cut_off():
    """The file that a vanished client asked for does not stay in memory."""

    async def large(scope, receive, send) -> None:
        await respond(send, LARGE)

    async with serving(large) as served, served.connect(receive_buffer=4096) as (reader, writer):
        reader._transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await served.until_open(1)
        await served.until_open(0)


async def accept_only(scope, receive, send) -> None:
    """Accept a socket and wait for its end."""
    if scope["type"] == "http":
        await respond(send)
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


@on_uvloop
async def test_connections_beyond_the_limit_are_refused_sockets_counted(monkeypatch):
    """At once, with a 503, and room is made as soon as one leaves."""
    monkeypatch.setattr(HttpConnection, "max_connections", 3)
    async with serving(accept_only) as served, served.upgrade(), served.upgrade():
        async with served.connect():
            await served.until_open(3)
            async with served.connect() as (reader, _):
                assert b" 503 " in await read_all(reader)
        await served.until_open(2)
        async with served.connect() as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"ok" in await reader.readuntil(b"ok")


@on_uvloop
async def test_a_lost_connection_is_told_from_a_peer_that_closed_without_a_code():
    """1006 and 1005: after the one a client may come back, the other has hung up."""
    codes: list[int] = []

    async def note(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        codes.append((await receive())["code"])

    async with serving(note) as served:
        async with served.upgrade() as (_, writer):
            writer.transport.abort()
        await served.until_open(0)
        async with served.upgrade() as (_, writer):
            writer.write(frame(8, b""))
            await writer.drain()
            await served.until_open(0)
    assert codes == [1006, 1005]


@on_uvloop
async def test_a_socket_is_closed_though_its_client_does_not_read():
    """Neither the close frame nor the end of the connection waits for a reader that has gone."""
    closed = asyncio.Event()

    async def talkative(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        talking = asyncio.create_task(_talk(send))
        await asyncio.sleep(0.2)
        talking.cancel()
        await send({"type": "websocket.close", "code": 1012})
        closed.set()

    async def _talk(send) -> None:
        while True:
            await send({"type": "websocket.send", "text": "x" * 10_000})

    async with serving(talkative, ws_ping_interval=None) as served, served.upgrade():
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()
        await served.until_open(0)


@on_uvloop
async def test_a_slow_client_that_reads_on_gets_everything_and_the_close(monkeypatch):
    """Cutting off waits as long as there is progress."""
    monkeypatch.setattr(connections, "CLOSE_S", 1.0)
    count = 600

    async def talkative(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(count):
            await send({"type": "websocket.send", "text": "x" * 1000})
        await send({"type": "websocket.close", "code": 1012})

    async with serving(talkative, ws_ping_interval=None) as served, served.upgrade() as (reader, _):
        reader._transport.resume_reading()
        size = count * (1000 + 4)
        got = b""
        while len(got) < size:
            # Slower than the deadline alone would allow, in several of its periods.
            await asyncio.sleep(0.05)
            got += await reader.readexactly(min(size - len(got), 12_000))
        close = await reader.readexactly(4)
        assert (close[0] & 0x0F, struct.unpack("!H", close[2:4])[0]) == (8, 1012)
        assert got.count(b"x") == count * 1000


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Write a client's frame; a mask of zeros leaves the payload as it is."""
    assert len(payload) < 126
    return bytes([opcode | (0x80 if final else 0), 0x80 | len(payload), 0, 0, 0, 0]) + payload


class Door:
    """An application that admits a peer, or refuses it, by its first message."""

    def __init__(self, *, knows: bool = False) -> None:
        self.knows, self.admits = knows, asyncio.Event()
        self.sizes: asyncio.Queue[int | None] = asyncio.Queue()
        self.refuses = False

    async def app(self, scope, receive, send) -> None:
        await receive()
        if self.knows:
            scope["extensions"][ANY_FIRST]["lift"]()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            self.sizes.put_nowait(len(message["bytes"]) if message["type"] == "websocket.receive" else None)
            if message["type"] == "websocket.disconnect":
                return
            await self.admits.wait()
            if self.refuses:
                await send({"type": "websocket.close", "code": 4401})

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[ClientConnection]:
        """Give a client whose connection is the only one."""
        options = {"interface": "asgi3", "ws_ping_interval": None, "ws_max_size": 4 * len(LARGE)}
        async with serving(self.app, **options) as self.served:
            url = f"ws://127.0.0.1:{self.served.port}"
            async with connect(url, proxy=None, ping_interval=None, compression=None, max_size=None) as client:
                yield client

    async def size(self) -> int | None:
        async with asyncio.timeout(PATIENCE_S):
            return await self.sizes.get()

    @property
    def held(self) -> int:
        """What the server holds of messages that are not whole."""
        return sum(each._unfinished() for each in self.served._server.server_state.connections)


@pytest.mark.parametrize("parts", [1, 64])
@on_uvloop
async def test_a_first_message_that_is_too_long_is_told_so(parts):
    """Nobody knows yet whose it is, so it is not kept; in one frame or many, the sender hears 1009."""
    door = Door()
    async with door.serve() as client:
        with suppress(ConnectionClosed):
            await client.send([LARGE[::parts]] * parts if parts > 1 else LARGE)
        await client.wait_closed()
        assert client.close_code == 1009
        assert await door.size() is None
        await door.served.until_open(0)


@on_uvloop
async def test_what_follows_a_first_message_waits_until_its_sender_is_admitted():
    """It may be as long as any message then, also if it was sent before; nothing of it is lost."""
    door = Door()
    async with door.serve() as client:
        await client.send(b"x" * MAX_FIRST_BYTES)
        sent = asyncio.create_task(client.send(2 * LARGE))
        assert await door.size() == MAX_FIRST_BYTES
        while door.held <= MAX_FIRST_BYTES:
            await asyncio.sleep(0.01)
        assert not sent.done()
        assert door.held <= 3 * MAX_FIRST_BYTES
        door.admits.set()
        assert await door.size() == 2 * len(LARGE)
        await sent


@on_uvloop
async def test_one_that_is_refused_by_its_first_message_hears_why_whatever_it_sent_behind():
    """The close code arrives, and what was sent is let go."""
    door = Door()
    door.refuses = True
    async with door.serve() as client:
        await client.send(b"key")
        sent = asyncio.create_task(client.send(2 * LARGE))
        assert await door.size() == 3
        while door.held <= MAX_FIRST_BYTES:
            await asyncio.sleep(0.01)
        door.admits.set()
        await client.wait_closed()
        assert client.close_code == 4401
        assert door.held <= 3 * MAX_FIRST_BYTES
        await asyncio.gather(sent, return_exceptions=True)
        await door.served.until_open(0)


@on_uvloop
async def test_who_is_known_before_may_begin_with_a_long_message():
    door = Door(knows=True)
    async with door.serve() as client:
        await client.send(LARGE)
        assert await door.size() == len(LARGE)


@pytest.mark.parametrize("joins", [True, False])
@on_uvloop
async def test_a_stream_of_binary_messages_is_given_in_as_few_as_came_together(joins):
    """Frames that are read at once are one message, up to the next text; elsewhere every message is its own."""
    given: asyncio.Queue[Any] = asyncio.Queue()

    async def app(scope, receive, send) -> None:
        await receive()
        if joins:
            scope["extensions"][JOINED]["join"]()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            given.put_nowait(message.get("bytes") or message["text"])

    async with serving(app, interface="asgi3", ws_ping_interval=None) as served:
        host, port = "127.0.0.1", served.port
        async with connect(f"ws://{host}:{port}", proxy=None, ping_interval=None, compression=None) as client:
            # Written at once, so that they are read at once.
            frames = [
                frame(2, b"a"),
                frame(2, b"bc"),
                frame(1, b"text"),
                frame(2, b"d"),
                frame(2, b"e", final=False) + frame(0, b"f"),
                frame(2, b"g"),
            ]
            client.transport.write(b"".join(frames))
            expected = [b"abc", "text", b"defg"] if joins else [b"a", b"bc", "text", b"d", b"ef", b"g"]
            async with asyncio.timeout(PATIENCE_S):
                assert [await given.get() for _ in expected] == expected
            await client.send(b"later")
            async with asyncio.timeout(PATIENCE_S):
                assert await given.get() == b"later"


@pytest.mark.parametrize("opcode", [1, 2])
@on_uvloop
async def test_no_more_is_read_while_many_empty_messages_wait(opcode):
    """Messages without a byte take memory too: reading stops, and goes on when they are taken."""
    taking, taken = asyncio.Event(), 0

    async def app(scope, receive, send) -> None:
        nonlocal taken
        await receive()
        scope["extensions"][JOINED]["join"]()
        await send({"type": "websocket.accept"})
        await taking.wait()
        while (message := await receive()).get("text") != "end":
            assert message["type"] == "websocket.receive"
            taken += 1

    async with serving(app, interface="asgi3", ws_ping_interval=None) as served:
        url = f"ws://127.0.0.1:{served.port}"
        async with connect(url, proxy=None, ping_interval=None, compression=None) as client:
            sent = 100_000
            client.transport.write(frame(opcode, b"") * sent + frame(1, b"end"))
            (connection,) = served._server.server_state.connections
            async with asyncio.timeout(PATIENCE_S):
                while not connection.read_paused:
                    await asyncio.sleep(0.01)
            assert connection.queue.qsize() < sent
            taking.set()
            await client.wait_closed()
            assert taken == sent if opcode == 1 else 0 < taken < sent


@pytest.mark.parametrize("flood", ["pings", "fragments"])
@on_uvloop
async def test_a_flood_that_would_grow_memory_is_cut_off(flood):
    """Pings answered to nobody, and a message in empty pieces without end, both stay within a bound."""
    pieces = {"pings": frame(9, b"x" * 100) * 1000, "fragments": frame(0, b"", final=False) * 1000}
    async with serving(accept_only, ws_ping_interval=None) as served, served.upgrade() as (_, writer):
        writer.write(frame(2, b"", final=False) if flood == "fragments" else b"")
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while served.open:
                    writer.write(pieces[flood])
                    await writer.drain()
                    await asyncio.sleep(0)
        assert served.open == 0


@on_uvloop
async def test_a_peer_that_answers_no_ping_is_cut_off():
    """A half-open connection ends, and the application hears of it."""
    heard = asyncio.Event()

    async def listening(scope, receive, send) -> None:
        await accept_only(scope, receive, send)
        heard.set()

    async with serving(listening, ws_ping_interval=0.2, ws_ping_timeout=0.2) as served, served.upgrade():
        async with asyncio.timeout(PATIENCE_S):
            await heard.wait()
        await served.until_open(0)


class Peer:
    """A client that does by hand what it is told to: server frames are read one by one."""

    def __init__(self, reader: Any, writer: Any) -> None:
        reader._transport.resume_reading()
        self._reader, self._writer = reader, writer

    async def read(self) -> tuple[int, bytes]:
        """Give the next frame's opcode and payload."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readexactly(2)
            return head[0] & 0x0F, await self._reader.readexactly(head[1])

    async def texts(self, count: int) -> bytes:
        """Read so many text frames and the ping that must follow; give what the ping carries."""
        for _ in range(count):
            assert (await self.read())[0] == 1
        opcode, payload = await self.read()
        assert opcode == 9
        return payload

    async def answer(self, payload: bytes, opcode: int = 10) -> None:
        """Send a pong, or another frame."""
        self._writer.write(frame(opcode, payload))
        await self._writer.drain()

    async def settle(self) -> None:
        """Wait until the server has taken all that was sent."""
        await self.answer(b"?", opcode=9)
        assert await self.read() == (10, b"?")


class Teller:
    """An application that sends what it is given and notes the receipts."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.orders: asyncio.Queue[str] = asyncio.Queue()

    async def app(self, scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while order := await self.orders.get():
            await send({"type": "websocket.send", "text": order})
            scope["extensions"][RECEIPTS]["ask"](partial(self.told.append, order))
        await send({"type": "websocket.close", "code": 1000})

    def say(self, *texts: str) -> None:
        for text in texts:
            self.orders.put_nowait(text)


@asynccontextmanager
async def telling(**options: Any) -> AsyncIterator[tuple[Teller, Peer]]:
    """Serve a `Teller` to a `Peer`."""
    teller = Teller()
    options = {"interface": "asgi3", "ws_ping_interval": None, "ws_per_message_deflate": False} | options
    async with serving(teller.app, **options) as served, served.upgrade() as (reader, writer):
        yield teller, Peer(reader, writer)


@on_uvloop
async def test_a_receipt_comes_with_the_pong():
    """What was sent is known to have arrived when the ping behind it is answered, and no sooner."""
    async with telling() as (teller, peer):
        teller.say("a")
        ping = await peer.texts(1)
        await peer.settle()
        assert teller.told == []
        await peer.answer(ping)
        await peer.settle()
        assert teller.told == ["a"]


@on_uvloop
async def test_one_ping_asks_for_receipts_at_a_time():
    """What is sent while an answer is under way is asked for together after it."""
    async with telling() as (teller, peer):
        teller.say("a", "b", "c")
        ping = await peer.texts(1)
        assert [await peer.read(), await peer.read()] == [(1, b"b"), (1, b"c")]
        await peer.settle()
        await peer.answer(ping)
        ping = await peer.texts(0)
        assert teller.told == ["a"]
        await peer.answer(ping)
        await peer.settle()
        assert teller.told == ["a", "c"]


@on_uvloop
async def test_pongs_to_nothing_prove_nothing():
    """A flood of pongs that nobody asked for, and one that comes twice, are passed over."""
    async with telling() as (teller, peer):
        teller.say("a")
        ping = await peer.texts(1)
        for payload in [b"", b"x" * 8, ping[:-1], ping + b"x"] * 500:
            await peer.answer(payload)
        await peer.settle()
        assert teller.told == []
        await peer.answer(ping)
        await peer.answer(ping)
        await peer.settle()
        assert teller.told == ["a"]


@pytest.mark.parametrize("receipt_first", [True, False])
@on_uvloop
async def test_an_answer_to_the_later_ping_counts_for_both(receipt_first):
    """A peer may answer only the last of several pings: the other kind is answered with it, and the socket lives."""
    async with telling(ws_ping_interval=0.3, ws_ping_timeout=0.6) as (teller, peer):
        if receipt_first:
            teller.say("a")
            await peer.texts(1)
            later = await peer.texts(0)
        else:
            await peer.texts(0)
            teller.say("a")
            later = await peer.texts(1)
        await peer.answer(later)
        # The next one is due only if the one before counts as answered, and comes after it would have been too late.
        for _ in range(3):
            await peer.answer(await peer.texts(0))
        assert teller.told == ["a"]


@on_uvloop
async def test_an_answer_to_the_earlier_ping_says_nothing_of_what_came_after_it():
    """A pong to an older ping of the other kind is no receipt."""
    async with telling(ws_ping_interval=0.2, ws_ping_timeout=PATIENCE_S) as (teller, peer):
        earlier = await peer.texts(0)
        teller.say("a")
        ping = await peer.texts(1)
        await peer.answer(earlier)
        await peer.settle()
        assert teller.told == []
        await peer.answer(ping)
        await peer.settle()
        assert teller.told == ["a"]


@on_uvloop
async def test_who_echoes_the_close_has_everything():
    """Nothing can be asked behind a close frame, but its echo says as much."""
    async with telling() as (teller, peer):
        teller.say("a", "b", "")
        await peer.texts(1)
        assert [await peer.read(), await peer.read()] == [(1, b"b"), (8, b"\x03\xe8")]
        await peer.answer(b"\x03\xe8", opcode=8)
        async with asyncio.timeout(PATIENCE_S):
            while not teller.told:
                await asyncio.sleep(0)
        assert teller.told == ["b"]
