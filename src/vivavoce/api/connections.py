"""uvicorn's connections with deadlines and bounds, so that no peer can hold one for nothing or make it grow.

uvicorn trusts whoever is connected: headers may drip for ever and be of any size, its limit on concurrency leaves out
WebSockets, and a close waits for all that was written before, so for ever where the peer does not read. Here

* a connection beyond the limit is refused as soon as it is made;
* the head of each request must be complete in `HEAD_S` and `MAX_HEAD_BYTES`, a whole request in `MAX_REQUEST_BYTES`
  (how long a body may take is the routes' own affair);
* a response must be read at no less than a buffer in `STALLED_S`;
* a socket may be closed whatever waits in front of the close frame; its peer has `CLOSE_S` at a time to read on, and
  `CLOSE_AT_MOST_S` in all, until the connection is cut;
* a peer that answers no ping is cut off at once, one that floods us with pings or fragments likewise;
* a WebSocket's first message may have `MAX_FIRST_BYTES`, and no more than that is read before the application asks for
  a second one: several protocols bring their key in the first, so until then nobody knows whose memory it is. An
  application that knows it earlier lifts that with `scope["extensions"][ANY_FIRST]["lift"]()` before it accepts.

A WebSocket also gives receipts, as an extension of its ASGI scope: `scope["extensions"][RECEIPTS]["ask"](told)` calls
`told` once the peer has everything that was sent before.
"""
# ruff: noqa: D102 - overrides keep what uvicorn promises

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

from vivavoce.runtime import metrics

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

log = structlog.get_logger()

HEAD_S = 10.0
STALLED_S = 60.0
CLOSE_S = 10.0
CLOSE_AT_MOST_S = 60.0
MAX_HEAD_BYTES = 64 << 10
MAX_REQUEST_BYTES = 16 << 20
"""Routes take bodies of a megabyte at most; the rest is room for chunked encoding."""
MAX_FRAGMENTS = 65_536
SOCKET_BUFFER_BYTES = 256 << 10
"""What the system may hold for a client that does not read; left alone, it would take megabytes. A route that joins
messages may have as many waiting before no more is read."""
MESSAGE_BYTES, PIECE_BYTES = 512, 64
"""What a message that waits takes beside its bytes, and each frame of it: empty ones are not free."""
MAX_FIRST_BYTES = 256 << 10
"""The longest configuration that is read, 64 Ki characters, may have as much."""

RECEIPTS, ANY_FIRST, JOINED = "vivavoce.receipts", "vivavoce.any_first", "vivavoce.joined"

_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)  # fmt: skip
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _Timer:
    """One pending call at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, after_s: float, call: Any, *arguments: Any) -> None:
        self.stop()
        self._handle = self._loop.call_later(after_s, call, *arguments)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class HttpConnection(HttpToolsProtocol):
    """An HTTP connection that ends when its peer stalls; `max_connections` counts sockets too."""

    max_connections = 4096

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer, self._stall_timer = _Timer(self.loop), _Timer(self.loop)
        self._taken = 0
        self._in_head = True
        if len(self.connections) > self.max_connections:
            self._refuse("connections", _TOO_MANY)
            return
        self._head_timer.start(HEAD_S, self._refuse, "slow_request", _TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.stop()
        self._stall_timer.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._taken += len(data)
        super().data_received(data)
        if self._in_head and self._taken > MAX_HEAD_BYTES:
            self._refuse("request_size", _TOO_LARGE)
        elif self._taken > MAX_REQUEST_BYTES:
            self._refuse("request_size", b"")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_timer.stop()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:
            # What is left of this request, and the head of the next one.
            self._taken, self._in_head = 0, True
            self._head_timer.start(HEAD_S, self._refuse, "slow_request", b"")

    def handle_websocket_upgrade(self) -> None:
        self._head_timer.stop()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer.start(STALLED_S, self._refuse, "slow_reader", b"")

    def resume_writing(self) -> None:
        self._stall_timer.stop()
        super().resume_writing()

    def _refuse(self, limit: str, answer: bytes) -> None:
        """Cut the connection, with an answer where nobody has begun one."""
        if self.transport.is_closing():
            return
        metrics.REFUSALS.labels(limit).inc()
        log.info("connection refused", limit=limit)
        if not answer:
            self.transport.abort()
            return
        self.transport.write(answer)
        self.transport.close()


class SocketConnection(WebSocketsSansIOProtocol):
    """A WebSocket that can always be closed, and never holds much for a client that does not read.

    A receipt is a ping behind the messages, of which one is under way at a time, and its pong. It goes beside the pings
    that keep the connection alive; as a peer may answer only the last of several pings (RFC 6455, 5.5.3), an answer to
    the later one counts for both. A peer that echoes our close has everything too.

    Where its route says that binary messages are a stream, those that came together are given as one: the busier the
    server, the fewer there are.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._cut_timer = _Timer(self.loop)
        self._told: Callable[[], None] | None = None
        self._told_next: Callable[[], None] | None = None
        self._receipt = b""
        self._receipts = 0
        self._receipt_is_last_ping = False
        self._first_came = self._first_given = self._admitted = False
        self._joins = False
        self._untaken: list[bytes] | None = None
        self._untaken_bytes = 0
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cut_timer.stop()
        if self.conn.close_rcvd is None:
            # Ahead of uvicorn's own, by which a lost connection looks like a peer that closed without a code.
            lost: Any = {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE}
            self.queue.put_nowait(lost)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._admitted and self._unfinished() > MAX_FIRST_BYTES and not self.transport.is_closing():
            self._hold_back()
        if self.conn.handshake_exc is not None and not self.handshake_complete and not self.transport.is_closing():
            # A handshake that the library cannot read: uvicorn would neither answer nor end it.
            metrics.REFUSALS.labels("request_size").inc()
            log.info("connection refused", limit="request_size")
            self.close_sent = True
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _unread(self) -> int:
        """Give the bytes written that the peer's machine has not confirmed."""
        waiting = self.transport.get_write_buffer_size()
        if sys.platform == "linux":
            buffered = bytearray(4)
            ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, buffered)
            waiting += int.from_bytes(buffered, sys.byteorder)
        return waiting

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["extensions"][RECEIPTS] = {"ask": self.ask_receipt}
            self.scope["extensions"][ANY_FIRST] = {"lift": self._admit}
            self.scope["extensions"][JOINED] = {"join": self._join}

    def ask_receipt(self, told: Callable[[], None]) -> None:
        """Call `told` once the peer has all that was sent until now, unless a later request is told the same then."""
        self._told_next = told
        if self._told is None:
            self._ping_for_receipt()

    async def receive(self) -> Any:
        if self._first_given:
            self._admit()
        message: Any = await super().receive()
        self._first_given = self._first_given or message["type"] == "websocket.receive"
        if isinstance(pieces := message.get("bytes"), list):
            self._untaken = None if pieces is self._untaken else self._untaken
            message["bytes"] = b"".join(pieces)
        if self.queue.empty():
            self._untaken_bytes = 0
        return message

    def send_receive_event_to_app(self) -> None:
        self._first_came = True
        if not self._joins or self.close_sent:
            super().send_receive_event_to_app()
            return
        self._untaken_bytes += MESSAGE_BYTES + sum(len(each) + PIECE_BYTES for each in self.frames)
        if self.curr_msg_data_type == "text":
            self._untaken = None
            # Left to itself, uvicorn stops reading at every message, and begins again when that is taken.
            paused, self.read_paused = self.read_paused, True
            super().send_receive_event_to_app()
            self.read_paused = paused
        else:
            pieces, self.frames = self.frames, []
            self._take_audio(pieces)
        if self._untaken_bytes > SOCKET_BUFFER_BYTES and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _take_audio(self, pieces: list[bytes]) -> None:
        """Queue a binary message, with the one before it where that was not taken."""
        if self._untaken is None:
            self._untaken = pieces
            queued: Any = {"type": "websocket.receive", "bytes": pieces}
            self.queue.put_nowait(queued)
        else:
            self._untaken += filter(None, pieces)

    def _join(self) -> None:
        self._joins = True

    def _admit(self) -> None:
        if not self._admitted:
            self._admitted = True
            if self.read_paused and self.queue.empty():
                self.read_paused = False
                self.transport.resume_reading()

    def _unfinished(self) -> int:
        """Give the bytes held of a message that is not whole."""
        return len(self.conn.reader.buffer) + (self.conn.current_size or 0)

    def _hold_back(self) -> None:
        """Read no more of a peer that is not admitted: wait until it is, or tell it that there is too much."""
        if self._first_came and not self.close_sent:
            self.read_paused = True
            self.transport.pause_reading()
            return
        told = self.close_sent
        self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"the first message may have {MAX_FIRST_BYTES} bytes")
        self.transport.write(b"".join(self.conn.data_to_send()))
        # What still comes is read and let go: a connection that is closed before that loses the close frame.
        self.transport.write_eof()
        if not told:
            metrics.REFUSALS.labels("first_message").inc()
            log.info("connection refused", limit="first_message")
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.MESSAGE_TOO_BIG})
            self.close_timer = self.loop.call_later(CLOSE_S, self.transport.close)
            self._expect_end()

    def _ping_for_receipt(self) -> None:
        if self._told_next is None or self.conn.state is not State.OPEN or self.transport.is_closing():
            return
        self._told, self._told_next = self._told_next, None
        # Unlike the four random bytes of a ping that keeps the connection alive.
        self._receipts += 1
        self._receipt, self._receipt_is_last_ping = self._receipts.to_bytes(8), True
        self.conn.send_ping(self._receipt)
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _on_receipt(self) -> None:
        told, self._told = self._told, None
        if told is not None:
            told()
        self._ping_for_receipt()

    def send_keepalive_ping(self) -> None:
        self._receipt_is_last_ping = False
        super().send_keepalive_ping()

    def handle_pong(self, event: Frame) -> None:
        answer, alive = bytes(event.data), self.pending_ping_payload
        if self._told is not None and answer == self._receipt:
            if alive is not None and self._receipt_is_last_ping:
                super().handle_pong(replace(event, data=alive))
            self._on_receipt()
            return
        super().handle_pong(event)
        if self._told is not None and answer == alive and not self._receipt_is_last_ping:
            self._on_receipt()

    def handle_ping(self) -> None:
        super().handle_ping()
        if self.transport.get_write_buffer_size() > SOCKET_BUFFER_BYTES:
            self._cut("pings")

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(self.frames) > MAX_FRAGMENTS:
            self._cut("fragments")

    def handle_close(self, event: Frame) -> None:
        if self.close_sent and (told := self._told_next or self._told) is not None:
            self._told = self._told_next = None
            told()
        super().handle_close(event)
        self._expect_end()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._expect_end()

    def keepalive_timeout(self) -> None:
        self._cut("silent_peer")

    async def send(self, message: Any) -> None:
        closing = message["type"] == "websocket.close" and self.handshake_complete
        if closing:
            # The frame takes its turn in the buffer; whoever does not read must not keep us from writing it.
            self.writable.set()
        await super().send(message)
        if closing:
            self._expect_end()

    def _expect_end(self) -> None:
        if not self.disconnected:
            self._cut_timer.start(CLOSE_S, self._cut_unless_reading, self._unread(), self.loop.time() + CLOSE_AT_MOST_S)

    def _cut_unless_reading(self, before: int, at_most: float) -> None:
        left = self._unread()
        if left < before and self.loop.time() < at_most:
            self._cut_timer.start(CLOSE_S, self._cut_unless_reading, left, at_most)
        else:
            self._cut("slow_reader")

    def _cut(self, limit: str) -> None:
        """Drop the connection, whatever waits in its buffers; the application hears of a lost client."""
        if self.disconnected:
            return
        metrics.REFUSALS.labels(limit).inc()
        log.info("socket cut off", limit=limit)
        self.transport.abort()
