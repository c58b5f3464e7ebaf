"""A TCP proxy between a client and the server that fails on demand and knows what passed.

One `Link` stands before the server for one client. Requests pass untouched; as the server names the `Host` of the
request in the session's URL, the sockets come through the link too. The n-th socket suffers the n-th plan: faults, each
after so many bytes of the client's since the handshake, so that a cut may fall anywhere, in the middle of a frame too.

What is recorded of a socket is what left the client, delivered or not, and which acknowledgments reached it before it
was opened. Compression is struck out of the handshake, so that frames can be read.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.frames import Opcode

from faults.frames import Frames, audio_of, message_of
from live import RECEIPT_BYTES

READ_BYTES = 1 << 16
SUCCESSOR_S = 10.0
"""How long the server's side of a dead connection is kept for the client's next one."""

RESTART_S = 60.0
POLL_S = 0.05

_EXTENSIONS = re.compile(rb"\r\nSec-WebSocket-Extensions:[^\r]*", re.IGNORECASE)


class Kind(StrEnum):
    """What happens to a connection."""

    RESET = "reset"
    """Both sides get a RST."""
    CLOSE = "close"
    """Both sides get a FIN, without a close frame."""
    HALF_OPEN = "half-open"
    """Nothing passes; later the client's side is reset, and the server learns nothing until the next socket."""
    LATE = "late"
    """As half-open, and what the client sent meanwhile reaches the server when the next socket is already open."""
    DEAF = "deaf"
    """What the client sends passes, the answers do not; later both sides are reset."""
    STALL = "stall"
    """Nothing passes for a while."""
    SLOW = "slow"
    """`size` bytes a second pass for a while."""
    TINY = "tiny"
    """The client's bytes arrive `size` by `size` for a while."""


ENDING = frozenset({Kind.RESET, Kind.CLOSE, Kind.HALF_OPEN, Kind.LATE, Kind.DEAF})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Strikes after `at` bytes of the client's and takes `lasts_s`."""

    kind: Kind
    at: int
    lasts_s: float = 0.0
    size: int = 0


@dataclass(eq=False)
class Socket:
    """What passed on one socket: `audio` left the client, `messages` reached it."""

    acks_before: frozenset[int]
    audio: bytearray = field(default_factory=bytearray)
    messages: list[dict[str, Any]] = field(default_factory=list)
    receipts: list[int] = field(default_factory=list)
    """Behind how many messages the server asked whether they had arrived, each time."""
    struck: list[Fault] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def proven(self) -> list[dict[str, Any]]:
        """The messages that the server knew to have arrived: it asks for one receipt after the other."""
        return self.messages[: self.receipts[-2]] if len(self.receipts) > 1 else []

    @property
    def acks(self) -> list[int]:
        """The ends of the acknowledgments that reached the client here."""
        return [
            message["data"]["byte_range"][1]
            for message in self.messages
            if message["type"] == "audio_chunk" and message["acknowledged"]
        ]


class Link:
    """A way to the server at `url`; used as an asynchronous context."""

    def __init__(self, upstream: str, plans: Sequence[Sequence[Fault]] = ()) -> None:
        address = urlsplit(upstream)
        assert address.hostname
        assert address.port
        self.upstream: tuple[str, int] = (address.hostname, address.port)
        self.sockets: list[Socket] = []
        self._plans = plans
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where clients reach the server through this link."""
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    @property
    def struck(self) -> list[Fault]:
        """The faults that came to pass, in order."""
        return [fault for each in self.sockets for fault in each.struck]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=READ_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def followed(self, older: Socket) -> None:
        """Wait until a later socket is open."""
        async with self._news:
            await self._news.wait_for(lambda: any(each.opened.is_set() for each in self._after(older)))

    async def announce(self, opened: Socket) -> None:
        """Take note that the server accepted a socket."""
        opened.opened.set()
        async with self._news:
            self._news.notify_all()

    def _after(self, older: Socket) -> list[Socket]:
        return self.sockets[self.sockets.index(older) + 1 :]

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._hold(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await self._relay(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            await _gone(writer)

    async def _relay(self, reader: StreamReader, writer: StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        upstream_reader, upstream_writer = await self._dial()
        try:
            if b"upgrade: websocket" not in head.lower():
                upstream_writer.write(head)
                await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
                return
            number = len(self.sockets)
            record = Socket(frozenset(ack for each in self.sockets for ack in each.acks))
            self.sockets.append(record)
            upstream_writer.write(_EXTENSIONS.sub(b"", head))
            plan = self._plans[number] if number < len(self._plans) else ()
            await _Relay(self, record, plan, (reader, writer), (upstream_reader, upstream_writer)).run()
        finally:
            await _gone(upstream_writer)

    async def _dial(self) -> tuple[StreamReader, StreamWriter]:
        """Connect to the server, once it is there: one that restarts is a slow one to the client."""
        async with asyncio.timeout(RESTART_S):
            while True:
                with suppress(ConnectionError):
                    return await asyncio.open_connection(*self.upstream, limit=READ_BYTES)
                await asyncio.sleep(POLL_S)


class _Relay:
    """One socket on its way through."""

    def __init__(
        self,
        link: Link,
        record: Socket,
        plan: Sequence[Fault],
        client: tuple[StreamReader, StreamWriter],
        server: tuple[StreamReader, StreamWriter],
    ) -> None:
        self._link, self._record = link, record
        self._plan = sorted(plan, key=lambda fault: fault.at)
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._passed = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._muted = False
        self._rate = self._segment = 0
        self._left = Frames(masked=True)

    async def run(self) -> None:
        """Pass bytes both ways until a side or a fault ends it."""
        up, down = asyncio.create_task(self._up()), asyncio.create_task(self._down())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not up.exception() and up.result() is not None:
                await self._end(up.result())
            elif down.done() and not self._muted:
                self._to_client.close()
                with suppress(OSError):
                    await self._to_client.wait_closed()
            elif up.done():
                # The client closed its half; the server may still have something to say, to nobody.
                self._to_server.close()
                with suppress(OSError):
                    await self._to_server.wait_closed()
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self) -> Fault | None:
        """Pass what the client sends; give the fault that ends it, None where the client ends it."""
        while True:
            data = await self._from_client.read(READ_BYTES)
            if not data:
                return None
            self._note(data)
            while data:
                if self._plan and self._passed >= self._plan[0].at:
                    fault = self._plan.pop(0)
                    self._record.struck.append(fault)
                    if fault.kind is Kind.LATE:
                        self._overdue = data
                    if await self._strike(fault):
                        return fault
                    continue
                size = self._plan[0].at - self._passed if self._plan else len(data)
                now, data = data[:size], data[size:]
                await self._deliver(now)
                self._passed += len(now)

    async def _strike(self, fault: Fault) -> bool:
        """Let a fault happen; True if the connection ends by it."""
        match fault.kind:
            case Kind.STALL:
                self._flowing.clear()
                await asyncio.sleep(fault.lasts_s)
                self._flowing.set()
            case Kind.SLOW:
                self._rate = fault.size
                asyncio.get_running_loop().call_later(fault.lasts_s, setattr, self, "_rate", 0)
            case Kind.TINY:
                self._segment = fault.size
                asyncio.get_running_loop().call_later(fault.lasts_s, setattr, self, "_segment", 0)
            case Kind.DEAF:
                self._muted = True
                asyncio.get_running_loop().call_later(fault.lasts_s, self._reset)
            case _:
                return True
        return False

    async def _end(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.CLOSE:
                self._to_client.close()
                self._to_server.close()
                with suppress(OSError):
                    await asyncio.gather(self._to_client.wait_closed(), self._to_server.wait_closed())
            case Kind.HALF_OPEN | Kind.LATE:
                await self._go_half_open(fault)
            case _:
                self._reset()

    async def _go_half_open(self, fault: Fault) -> None:
        self._muted = True
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(fault.lasts_s):
                while data := await self._from_client.read(READ_BYTES):
                    self._note(data)
                    if fault.kind is Kind.LATE:
                        self._overdue += data
        _abort(self._to_client)
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(SUCCESSOR_S):
                await self._link.followed(self._record)
                if fault.kind is Kind.LATE:
                    self._to_server.write(self._overdue)
                    await self._to_server.drain()
        _abort(self._to_server)

    async def _deliver(self, data: bytes) -> None:
        while data:
            await self._flowing.wait()
            size = self._segment or (max(self._rate // 50, 1) if self._rate else len(data))
            now, data = data[:size], data[size:]
            self._to_server.write(now)
            await self._to_server.drain()
            await asyncio.sleep(size / self._rate if self._rate else 0)

    async def _down(self) -> None:
        """Pass what the server sends and note which messages reached the client."""
        head = await self._from_server.readuntil(b"\r\n\r\n")
        self._to_client.write(head)
        await self._link.announce(self._record)
        frames = Frames(masked=False)
        while data := await self._from_server.read(READ_BYTES):
            await self._flowing.wait()
            if self._muted:
                continue
            self._to_client.write(data)
            await self._to_client.drain()
            for frame in frames.feed(data):
                self._record.messages += [message] if (message := message_of(frame)) else []
                if frame.opcode is Opcode.PING and len(frame.data) == RECEIPT_BYTES:
                    self._record.receipts.append(len(self._record.messages))

    def _note(self, data: bytes) -> None:
        for frame in self._left.feed(data):
            self._record.audio += audio_of(frame)

    def _reset(self) -> None:
        _abort(self._to_client)
        _abort(self._to_server)


async def _copy(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _gone(writer: StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _abort(writer: StreamWriter) -> None:
    """Reset a connection: RST instead of FIN, and nothing of what waits is sent."""
    end: socket.socket | None = writer.get_extra_info("socket")
    if end is not None and not writer.transport.is_closing():
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
