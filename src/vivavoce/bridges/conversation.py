"""The I/O of both protocols that open a session by their first frame and get text back on the same socket.

The socket is always read: audio goes to the session at wire speed, and what is complained of waits in a short queue of
its own, so a client that does not read cannot keep its pings unanswered. Neither protocol has a way back to a session.
So a socket that is lost ends the audio at once, as if the client had said so, also where this server stops and the next
process finishes the session. The results are kept and can be read over REST.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from vivavoce.bridges.calls import Call
from vivavoce.bridges.carrying import FIRST_MESSAGE_S
from vivavoce.errors import UnsupportedAudio, VivavoceError
from vivavoce.reception.endings import CLOSE_CODES
from vivavoce.runtime import metrics
from vivavoce.runtime.mailbox import Ending
from vivavoce.wire.live import CloseCode
from vivavoce.wire.opening import MAX_CHUNK_S, Audio, Complaint, Dialect, End, Opening, Refusal, refusal_of
from vivavoce.wire.schema import audio_format
from vivavoce.wire.wav import MAX_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vivavoce.bridges.calls import Calls, Leg
    from vivavoce.bridges.unpacking import Unpacker
    from vivavoce.wire.opening import Compression

log = structlog.get_logger()

SEND_S = 10.0
"""A client has so long to read the reason for the close that follows it."""

MAX_COMPLAINTS = 32
"""Complaints that may wait for a client that does not read; more are left out."""

_TOO_LATE = Refusal("config_timeout", f"the first frame did not come within {FIRST_MESSAGE_S:g} s", CloseCode.TOO_LATE)
_TOO_LONG = Refusal("chunk_too_long", f"a frame must not hold more than {MAX_CHUNK_S:g} s of audio")

_CUT_OFF = (None, Ending.LOST, Ending.SLOW, Ending.RESTARTING)
"""Ends of the socket, the client's own among them, that leave a session which would take more audio."""


def door(
    calls: Calls, bridge: str, dialect: Callable[[], Dialect], names: Mapping[str, str]
) -> Callable[[WebSocket], Any]:
    """Give what serves the sockets of a protocol; `names` are its own for fields of v2."""

    async def serve(websocket: WebSocket) -> None:
        await _Conversation(websocket, calls, bridge, dialect(), names).hold()

    return serve


class _Conversation:
    """One socket, from its first frame to the close."""

    def __init__(
        self, websocket: WebSocket, calls: Calls, bridge: str, dialect: Dialect, names: Mapping[str, str]
    ) -> None:
        self._websocket, self._calls, self._bridge = websocket, calls, bridge
        self._dialect, self._names = dialect, names
        self._complaints: asyncio.Queue[Complaint] = asyncio.Queue(MAX_COMPLAINTS)

    async def hold(self) -> None:
        """Serve the socket until it is closed."""
        await self._websocket.accept()
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                frame = await self._frame()
        except TimeoutError:
            await self._refuse(_TOO_LATE)
            return
        if frame is None:
            return
        opening = self._dialect.open(frame)
        if isinstance(opening, Refusal):
            await self._refuse(opening)
            return
        try:
            leg = await self._answer(opening)
        except VivavoceError as error:
            await self._refuse(refusal_of(error, self._names))
            return
        await self._talk(leg, opening)

    async def _answer(self, opening: Opening) -> Leg:
        key = opening.key or self._websocket.query_params.get("token")
        ways = f"an API key {self._dialect.key_place}, or an address in --bridge-allow"
        caller = await self._calls.admit(self._websocket, key=key, ways=ways)
        call = Call(bridge=self._bridge, id=str(uuid.uuid4()), caller=caller, request=opening.request)
        return await self._calls.answer(call, listens=True)

    async def _talk(self, leg: Leg, opening: Opening) -> None:
        reader = asyncio.create_task(self._read(_Intake(leg, self._dialect, opening)), name=f"read-{leg.session_id}")
        writer = asyncio.create_task(self._write(leg), name=f"write-{leg.session_id}")
        complainer = asyncio.create_task(self._complain(), name=f"complain-{leg.session_id}")
        ends: set[asyncio.Future[Any]] = {reader, writer, leg.ended}
        ending: Ending | None = None
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                ending = leg.ended.result() if leg.ended.done() else writer.result()
            await _cancel(writer, complainer)  # what they still hold must not come after the close
            if ending is not None:
                await self._close(CLOSE_CODES[ending], ending.value)
            elif (refusal := reader.result()) is not None:
                await self._refuse(refusal)
        finally:
            await _cancel(reader, writer, complainer)
            if ending in _CUT_OFF:
                await leg.hang_up()
            leg.drop()
            log.info(
                "call over", bridge=self._bridge, session=leg.session_id, by=ending.name.lower() if ending else "peer"
            )

    async def _frame(self) -> str | bytes | None:
        """Give the next frame; None where the client is gone."""
        frame = await self._websocket.receive()
        if frame["type"] == "websocket.disconnect":
            return None
        data: bytes | None = frame.get("bytes")
        text: str = frame.get("text") or ""
        return text if data is None else data

    async def _read(self, intake: _Intake) -> Refusal | None:
        """Hand every frame to the session; give why no more is taken, None where the client is gone."""
        while (frame := await self._frame()) is not None:
            match self._dialect.receive(frame):
                case Audio(data=data):
                    said = await intake.feed(data)
                case End():
                    said = await intake.end()
                case other:
                    said = other
            if isinstance(said, Refusal):
                return said
            if said is not None:
                with suppress(asyncio.QueueFull):
                    self._complaints.put_nowait(said)
        return None

    async def _write(self, leg: Leg) -> Ending:
        """Send what the session says until it wants the socket closed."""
        for text in self._dialect.greet(leg.session_id):
            await self._send(text)
        while True:
            item = await leg.take()
            if isinstance(item, Ending):
                return item
            for text in self._dialect.render(item, time.monotonic()):
                await self._send(text)

    async def _complain(self) -> None:
        while True:
            complaint = await self._complaints.get()
            await self._send(self._dialect.error(complaint.code, complaint.message))

    async def _send(self, text: str) -> None:
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            # The reader hears of the lost socket too, and ends this.
            await asyncio.Event().wait()

    async def _refuse(self, refusal: Refusal) -> None:
        """Say why, and close."""
        metrics.CALLS.labels(self._bridge, "refused").inc()
        log.info("call refused", bridge=self._bridge, code=refusal.code)
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(SEND_S):
                await self._websocket.send_text(self._dialect.error(refusal.code, refusal.message))
        await self._close(refusal.close, refusal.code)

    async def _close(self, code: CloseCode, reason: str) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(code, reason)


class _Intake:
    """Audio on its way to the session, unpacked where it is compressed."""

    def __init__(self, leg: Leg, dialect: Dialect, opening: Opening) -> None:
        self._leg, self._dialect = leg, dialect
        audio = audio_format(opening.request)
        self._most_bytes = round(MAX_CHUNK_S * audio.sample_rate) * audio.frame_bytes
        self._unpacker = opening.compression and _unpacker(opening.compression, audio.sample_rate)

    async def feed(self, data: bytes) -> Complaint | Refusal | None:
        """Take a frame; waits while the disk is behind."""
        if self._unpacker is not None:
            return await self._take(self._unpacker.feed(data))
        # A header in front may make a WAV file a little longer than its audio.
        if len(data) > self._most_bytes + MAX_HEADER_BYTES:
            return _TOO_LONG
        await self._keep(data)
        return None

    async def end(self) -> Complaint | Refusal | None:
        """Take what is left, and stop."""
        said = await self._take(self._unpacker.flush()) if self._unpacker is not None else None
        await self._leg.hang_up()
        return said

    async def _take(self, pieces: Iterator[bytes]) -> Complaint | Refusal | None:
        taken = 0
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                taken += len(piece)
                if taken > self._most_bytes:
                    return _TOO_LONG
                await self._keep(piece)
        except UnsupportedAudio as error:
            return Complaint(error.code, str(error))
        return None

    async def _keep(self, data: bytes) -> None:
        await self._leg.feed(data)
        self._dialect.took(len(data), time.monotonic())


def _unpacker(compression: Compression, sample_rate: int) -> Unpacker:
    """Make what unpacks audio; PyAV takes a tenth of a second to import, and few calls need it."""
    from vivavoce.bridges.unpacking import unpacker  # noqa: PLC0415

    return unpacker(compression, sample_rate)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
