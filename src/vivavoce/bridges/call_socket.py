"""WebSockets whose binary frames are a call's audio, as those of Asterisk and FreeSWITCH are.

Whatever goes wrong is one line in the log and a close code: a refused handshake for a stranger, 1008 for what breaks
the protocol or cannot be met, 1013 where there is no room, and the live socket's own codes where the session ends. A
peer that closes with 1000, 1001 or no code has hung up. Any other end is a lost transport, and the session waits.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from starlette.websockets import WebSocketDisconnect, WebSocketState

from vivavoce.bridges.carrying import FIRST_MESSAGE_S, carry
from vivavoce.errors import MalformedMessage, VivavoceError, reason_of
from vivavoce.reception.endings import CLOSE_CODES
from vivavoce.reception.origin import peer_of
from vivavoce.runtime import metrics
from vivavoce.wire.call import NAMES
from vivavoce.wire.live import CloseCode

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from vivavoce.bridges.calls import Leg
    from vivavoce.config import Settings
    from vivavoce.runtime.mailbox import Ending

log = structlog.get_logger()

MAX_FRAME_BYTES = 1 << 20
"""Longest frame; both exchanges send tens of milliseconds at a time."""

POLICY, TRY_LATER = 1008, 1013

HUNG_UP = frozenset({1000, 1001, 1005})
"""Closes that end a call, for its peer meant them: in good order, as it leaves, and without a code."""

_MAX_REASON_BYTES = 120


class CallSocket:
    """One WebSocket of a call."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def accept(self, preferred: str | None = None) -> None:
        """Accept the handshake, with the `preferred` sub-protocol among those that the peer offers, or else the first.

        Some clients drop a connection on which none of theirs was chosen.
        """
        offered: list[str] = self._websocket.scope.get("subprotocols", [])
        chosen = preferred if preferred in offered else next(iter(offered), None)
        await self._websocket.accept(chosen)

    async def first(self) -> str | bytes:
        """Give the first frame; raises `MalformedMessage` where none comes in time."""
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                return await self._receive()
        except TimeoutError:
            raise MalformedMessage(f"no message in the first {FIRST_MESSAGE_S:g} s") from None

    async def carry(self, leg: Leg, on_text: Callable[[str], None], first: bytes | None = None) -> str:
        """Feed a leg, beginning with what is already there, until the call is over; give how it ended, for the log."""
        return await carry(leg, self._feed(leg, on_text, first), self.end)

    async def _feed(self, leg: Leg, on_text: Callable[[str], None], first: bytes | None) -> bool:
        if first:
            await leg.feed(first)
        try:
            while True:
                frame = await self._receive()
                if isinstance(frame, str):
                    on_text(frame)
                elif frame:
                    await leg.feed(frame)
        except WebSocketDisconnect as end:
            return end.code in HUNG_UP

    async def _receive(self) -> str | bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1006, message.get("reason"))
        data: bytes | None = message.get("bytes")
        frame: str | bytes = message["text"] if data is None else data
        if len(frame) > MAX_FRAME_BYTES:
            raise MalformedMessage(f"a frame of {len(frame)}; the most is {MAX_FRAME_BYTES}")
        return frame

    async def end(self, ending: Ending | None) -> None:
        """Close the socket as the session wants it, or, with None, because the call is over."""
        if ending is None:
            await self.close(CloseCode.NORMAL, "the call is over")
        else:
            await self.close(CLOSE_CODES[ending], ending.value)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, or refuse its handshake, unless it is closed already."""
        websocket = self._websocket
        closed = WebSocketState.DISCONNECTED
        if closed not in {websocket.application_state, websocket.client_state}:
            with suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(code, reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"))


@asynccontextmanager
async def call_socket(websocket: WebSocket, bridge: str, settings: Settings) -> AsyncIterator[CallSocket]:
    """Give a socket for the block, whose errors close it; the log names the peer behind the trusted proxies."""
    socket = CallSocket(websocket)
    peer = peer_of(websocket, settings)
    try:
        yield socket
    except WebSocketDisconnect:
        log.info("call without audio", bridge=bridge, peer=peer)
    except VivavoceError as error:
        metrics.CALLS.labels(bridge, "refused").inc()
        reason = reason_of(error, NAMES)
        log.warning("call refused", bridge=bridge, peer=peer, reason=reason)
        await socket.close(TRY_LATER if error.retryable else POLICY, reason)


def key_of(websocket: WebSocket) -> str | None:
    """Give the API key in the socket's path, or in its authorization: a bearer token, or a password as in URLs."""
    key: str | None = websocket.path_params.get("key")
    scheme, _, text = websocket.headers.get("authorization", "").partition(" ")
    if key is None and scheme.lower() == "bearer":
        key = text.strip() or None
    elif key is None and scheme.lower() == "basic":
        with suppress(ValueError):
            name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
            key = password or name or None
    return key
