"""A client's socket as cheap as can be, since it shares the machine with the server under test.

Frames of audio are made before the run, with a mask of zeros (which changes nothing and is as good as any other to a
server), and written to the transport as they are. `websockets` does the handshake and reads what comes.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

BINARY, TEXT = 0x2, 0x1

HANDSHAKE_S = 30.0
"""How long a server may take to answer the upgrade."""

_SHORT, _MEDIUM = 125, 65_535
_MOST_MESSAGE_BYTES = 1 << 20


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """Write one whole client frame."""
    size = len(payload)
    if size <= _SHORT:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size <= _MEDIUM:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + bytes(4) + payload


class Socket(asyncio.Protocol):
    """A connection; `on_message` gets each text message with the moment it came, on `time.monotonic`'s clock."""

    def __init__(self, url: str, on_message: Callable[[float, bytes], None]) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=_MOST_MESSAGE_BYTES)
        self.on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._pieces = bytearray()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = asyncio.Event()

    @classmethod
    async def connect(cls, url: str, on_message: Callable[[float, bytes], None]) -> Socket:
        """Connect and shake hands; raises `OSError` (as `TimeoutError`) or `InvalidHandshake` where that fails."""
        parts = urlsplit(url)
        context = ssl.create_default_context() if parts.scheme == "wss" else None
        port = parts.port or (443 if context else 80)
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: cls(url, on_message), parts.hostname or "", port, ssl=context)
        await asyncio.wait_for(socket.opened, HANDSHAKE_S)
        return socket

    @property
    def close_code(self) -> int | None:
        """The code that the connection was closed with."""
        return self._protocol.close_code

    def write(self, data: bytes) -> None:
        """Send a frame that `frame` wrote; what a closed connection gets is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        at = time.monotonic()
        self._protocol.receive_data(data)
        self._take(at)

    def eof_received(self) -> None:
        """Take the other side's end for the connection's."""
        self._protocol.receive_eof()
        self._take(time.monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._protocol.receive_eof()
        self.closed.set()
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def _take(self, at: float) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._open()
            elif isinstance(event, Frame) and event.opcode in {Opcode.TEXT, Opcode.CONT}:
                self._pieces += event.data
                if event.fin:
                    self.on_message(at, bytes(self._pieces))
                    self._pieces.clear()
        self._flush()
        if self._protocol.close_expected() and self._transport is not None:
            self._transport.close()

    def _open(self) -> None:
        refused = self._protocol.handshake_exc
        if refused is None:
            self.opened.set_result(None)
        elif isinstance(refused, InvalidHandshake | OSError):
            self.opened.set_exception(refused)
        else:
            self.opened.set_exception(ConnectionError(str(refused)))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.write(data)
