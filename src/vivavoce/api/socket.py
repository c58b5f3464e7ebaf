"""The live socket: frames to the session, the session's mailbox to the client, and a close code for every end.

Behind the durable messages a receipt is asked for (see `connections`), which tells the session what has arrived.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vivavoce.api.connections import ANY_FIRST, JOINED, RECEIPTS
from vivavoce.events import AudioRefused, Problem
from vivavoce.reception.endings import CLOSE_CODES
from vivavoce.runtime import metrics
from vivavoce.runtime.mailbox import Ending
from vivavoce.runtime.parts import Connection
from vivavoce.runtime.session import Session
from vivavoce.wire.live import AudioChunk, BadChunk, BadMessage, CloseCode, StopRecording, receive

log = structlog.get_logger()


async def live_socket(websocket: WebSocket) -> None:
    """Serve one socket of the session that the token in the URL opens; any number may follow one another."""
    session: Session | None = websocket.app.state.hub.find(websocket.query_params.get("token", ""))
    if session is not None and ANY_FIRST in (extensions := websocket.scope.get("extensions", {})):
        extensions[ANY_FIRST]["lift"]()  # a client that comes back sends all that it holds in one message
        extensions[JOINED]["join"]()
    # Accepted even if unknown: clients retry a refused handshake, but stop at a 44xx.
    await websocket.accept()
    if session is None:
        metrics.SOCKETS_CLOSED.labels("unknown").inc()
        await websocket.close(CloseCode.UNKNOWN_SESSION, "no running session has this token")
        return
    ordered: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def order(ending: Ending) -> None:
        if not ordered.done():
            ordered.set_result(ending)

    connection = await session.connect(order)
    log.info("socket opened", session=session.id)
    reader = asyncio.create_task(_read(websocket, session, connection), name=f"read-{session.id}")
    writer = asyncio.create_task(_write(websocket, session, connection), name=f"write-{session.id}")
    ends: set[asyncio.Future[Any]] = {reader, writer, ordered}
    code, by_client = int(CloseCode.RESTART), False
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if reader.done():
            code, by_client = reader.result(), True
        else:
            ending = ordered.result() if ordered.done() else writer.result()
            metrics.SOCKETS_CLOSED.labels(ending.name.lower()).inc()
            writer.cancel()  # what it still holds must not come after the close
            code = await _close(websocket, ending)
    finally:
        reader.cancel()
        writer.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
        session.disconnect(connection, code if by_client else None)
        log.info("socket closed", session=session.id, code=code)


async def _read(websocket: WebSocket, session: Session, connection: Connection) -> int:
    """Hand every frame to the session; give the code the client closed with."""
    while True:
        frame = await websocket.receive()
        if frame["type"] == "websocket.disconnect":
            return int(frame.get("code") or CloseCode.RESTART)
        data = frame.get("bytes")
        match receive(frame["text"] if data is None else data):
            case AudioChunk(data=audio):
                await session.feed(connection, audio)
            case StopRecording():
                await session.stop(connection)
            case BadChunk(reason=reason):
                await session.refuse(connection, AudioRefused(reason=reason))
            case BadMessage(code=code, reason=reason):
                await session.refuse(connection, Problem(code=code, message=reason))


async def _write(websocket: WebSocket, session: Session, connection: Connection) -> Ending:
    """Send what the session says until it wants the socket closed, and let it know what has arrived."""
    ask_receipt = websocket.scope.get("extensions", {}).get(RECEIPTS, {}).get("ask", lambda _: None)
    while True:
        item = await session.mailbox.take(connection)
        if isinstance(item, Ending):
            return item
        try:
            await websocket.send_text(item)
        except (WebSocketDisconnect, RuntimeError):
            # The reader hears of the lost socket too, and ends this.
            await asyncio.Event().wait()
        if (mark := session.mailbox.receipt_due()) is not None:
            ask_receipt(partial(session.delivered, mark))


async def _close(websocket: WebSocket, ending: Ending) -> int:
    code = CLOSE_CODES[ending]
    if websocket.application_state is WebSocketState.CONNECTED:
        with suppress(WebSocketDisconnect, RuntimeError):
            await websocket.close(code, ending.value)
    return code
