"""AudioSocket: Asterisk connects to a TCP port, names the call by a UUID and sends its audio.

The protocol carries no session options, so those of all such calls are `bridge_parameters`. The session is made with
the first audio, whose frame says its rate. A connection that ends between two frames is a hang-up, as the protocol has
it and Asterisk does it; one that is cut off is a lost transport, and a new connection with the same UUID goes on with
its session. Nothing is said to a call. While its peer is quiet it is sent a little silence, without which Asterisk's
application gives up. At its end it is sent a hang-up frame, after which Asterisk's dialplan goes on, or an error frame
for what is no AudioSocket or has a rate that no session can have, at which Asterisk ends the call. A connection that is
let go because the server restarts just ends, so the dialplan may come back with the same UUID.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import structlog

from vivavoce.bridges.calls import Call, parameters_of
from vivavoce.bridges.carrying import FIRST_MESSAGE_S, carry
from vivavoce.config import option_names
from vivavoce.errors import MalformedMessage, NotAllowed, SetupError, UnsupportedAudio, VivavoceError, reason_of
from vivavoce.reception.origin import is_loopback
from vivavoce.runtime import metrics
from vivavoce.runtime.mailbox import Ending
from vivavoce.wire.audiosocket import (
    HANG_UP,
    Audio,
    AudioSocket,
    Digit,
    Event,
    Failed,
    Fault,
    HungUp,
    Identified,
    Malformed,
    error_frame,
    silence_frame,
)
from vivavoce.wire.call import NAMES, request_of

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls, Leg
    from vivavoce.config import Settings

log = structlog.get_logger()

NAME = "audiosocket"
MAX_RATE = 48_000
"""Highest rate that a session can have, in Hz."""

TELEPHONE_RATE = 8_000
"""Rate of Asterisk's application, in Hz; what a peer that has not sent audio yet is sent."""

QUIET_S = 0.5
"""A peer that sends nothing for so long is sent silence; Asterisk's application gives up after 2 s."""

_READ_BYTES = 65_536


class AudioSocketBridge:
    """Listens on `audiosocket_listen`, where that is set."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self.sockets: Mapping[str, Callable[[Any], Awaitable[None]]] = {}
        self._calls, self._settings = calls, settings
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._parameters = parameters_of(settings)

    async def open(self) -> None:
        """Listen; raises `SetupError` for an address that cannot be had or must not be open."""
        settings, option = self._settings, option_names("audiosocket_listen")
        if settings.audiosocket_listen is None:
            return
        host, port = settings.audiosocket_listen
        if not is_loopback(host) and not settings.bridge_allow:
            raise SetupError(
                f"{option}: {host} is open to other machines, and AudioSocket knows no keys; "
                "name those that may call with --bridge-allow"
            )
        try:
            self._server = await asyncio.start_server(self._accept, host, port)
        except OSError as error:
            raise SetupError(f"{option}: cannot listen on {host}:{port}: {error.strerror or error}") from error
        shown = self._server.sockets[0].getsockname()
        log.info("listening for AudioSocket", host=shown[0], port=shown[1])

    async def close(self) -> None:
        """Stop listening and let every connection go."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if writer.get_extra_info("peername") is None:  # gone again, as scanners are
            writer.transport.abort()
            return
        if len(self._open) >= self._settings.max_connections:
            metrics.REFUSALS.labels("connections").inc()
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await _Connection(self._calls, self._settings, self._parameters, reader, writer).serve()
        except asyncio.CancelledError:
            # asyncio's streams would log a cancelled handler as an error.
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()


class _Connection:
    """One TCP connection, from its first byte to its last."""

    def __init__(
        self,
        calls: Calls,
        settings: Settings,
        parameters: Mapping[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._calls, self._settings, self._parameters = calls, settings, parameters
        self._reader, self._writer = reader, writer
        self._peer: str = writer.get_extra_info("peername")[0]
        self._digits = self._rate = 0

    async def serve(self) -> None:
        """Carry a call; whatever is wrong with it ends here, in one line of the log."""
        try:
            await self._call()
        except VivavoceError as error:
            metrics.CALLS.labels(NAME, "refused").inc()
            reason = reason_of(error, NAMES)
            log.warning("call refused", bridge=NAME, peer=self._peer, reason=reason)
            await self._send(_farewell(error))
        except (OSError, TimeoutError) as error:
            log.info("call lost", bridge=NAME, peer=self._peer, reason=type(error).__name__)

    async def _call(self) -> None:
        caller = await self._calls.admit_peer(self._peer)
        async with aclosing(self._events()) as events:
            opening = await _opening(events)
            if opening is None:
                log.info("call without audio", bridge=NAME, peer=self._peer)
                return
            name, first = opening
            if first.rate > MAX_RATE:
                raise UnsupportedAudio(
                    f"audio at {first.rate} Hz; a session takes {MAX_RATE} Hz at most, as in c(slin48)"
                )
            request = request_of(self._parameters, encoding="wav/pcm", sample_rate=first.rate, metadata={"uuid": name})
            leg = await self._calls.answer(Call(bridge=NAME, id=name, caller=caller, request=request))
            how = await carry(leg, self._feed(leg, first, events), self._close)
        log.info("call over", bridge=NAME, session=leg.session_id, how=how, digits=self._digits)

    async def _feed(self, leg: Leg, first: Audio, events: AsyncGenerator[Event]) -> bool:
        """Feed a leg from its first audio on; give whether the call was hung up."""
        await leg.feed(first.data)
        async for event in events:
            match event:
                case Audio(rate=first.rate, data=data):
                    await leg.feed(data)
                case Audio(rate=rate):
                    raise UnsupportedAudio(f"audio changed from {first.rate} to {rate} Hz")
                case HungUp():
                    return True
                case Failed(code=code):
                    log.warning("call failed at its peer", bridge=NAME, session=leg.session_id, code=code)
                    return False
        return True

    async def _events(self) -> AsyncGenerator[Event]:
        """Give what the peer says until it ends the connection; raises where that is lost or no AudioSocket."""
        codec, clock = AudioSocket(), asyncio.get_running_loop().time
        # Of all reads together, so that nothing is held open by a few bytes now and then.
        deadline: float | None = clock() + FIRST_MESSAGE_S
        while True:
            async with asyncio.timeout_at(deadline):
                data = await self._read()
            if not data and codec.in_frame:
                raise ConnectionAbortedError
            if not data:
                return
            for event in codec.feed(data):
                match event:
                    case Malformed(reason=reason):
                        raise MalformedMessage(reason)
                    case Identified():
                        deadline, self._rate = clock() + self._settings.idle_timeout, TELEPHONE_RATE
                    case Audio(rate=rate):
                        # From here on the session has a time limit of its own.
                        deadline, self._rate = None, rate
                    case Digit():
                        self._digits += 1
                yield event

    async def _read(self) -> bytes:
        """Give the next bytes; keeps a peer that has named its call and is quiet from giving up."""
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    return await self._reader.read(_READ_BYTES)
            except TimeoutError:
                if self._rate and not self._writer.transport.get_write_buffer_size():
                    self._writer.write(silence_frame(self._rate))

    async def _close(self, ending: Ending | None) -> None:
        """End the connection; once it is closed, Asterisk has no use for its call any more."""
        if ending is not None and ending is not Ending.RESTARTING:
            await self._send(HANG_UP)
        self._writer.close()

    async def _send(self, frame: bytes) -> None:
        if frame:
            self._writer.write(frame)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.drain()
        self._writer.close()


async def _opening(events: AsyncGenerator[Event]) -> tuple[str, Audio] | None:
    """Give a call's name and its first audio; None where it ends before."""
    name = ""
    async for event in events:
        match event:
            case Identified(uuid=uuid):
                name = str(uuid)
            case Audio():
                return name, event
            case HungUp() | Failed():
                return None
    return None


def _farewell(error: VivavoceError) -> bytes:
    """Give the frame to refuse a call with; a stranger is told nothing."""
    match error:
        case MalformedMessage():
            return error_frame(Fault.MALFORMED)
        case UnsupportedAudio():
            return error_frame(Fault.RATE)
        case NotAllowed():
            return b""
        case _:
            return HANG_UP
