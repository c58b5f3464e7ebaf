"""Media streams of telephone networks: a WebSocket that Twilio, Telnyx, Plivo, Vonage or Exotel opens for a call.

`wire.media_streams` reads the frames and `wire.tracks` puts what each side says in its place; this is the socket around
them. A stream becomes a leg as soon as it is known which tracks come: with `start`, or with the first audio where the
network does not say. An orderly end hangs up. A socket that is lost leaves the leg to the grace period, in which a
stream of the same call and the same tracks finds it again. Nothing is sent back to the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog

from vivavoce.bridges.call_socket import HUNG_UP, call_socket, key_of
from vivavoce.bridges.calls import Call, Calls, Leg
from vivavoce.bridges.carrying import FIRST_MESSAGE_S, WebBridge, carry
from vivavoce.bridges.signatures import checks
from vivavoce.errors import INVALID, InvalidConfig, MalformedMessage, NotAllowed
from vivavoce.model import AudioFormat
from vivavoce.wire.call import request_of
from vivavoce.wire.media_streams import (
    DIALECTS,
    Dialect,
    Ignored,
    Started,
    Stopped,
    StreamEvent,
    Unreadable,
    read,
)
from vivavoce.wire.tracks import TRACKS, Media, Tracks

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from vivavoce.config import Settings
    from vivavoce.reception.access import Caller

log = structlog.get_logger()

QUIET_S = 1.0
"""After this long without a frame, what a track still waits for is given up."""

AHEAD_S = 0.1
"""By so much may one track be ahead of the other in a pause, without silence for the other, as frames take turns."""

MAX_FRAME_BYTES = 64 * 1024
"""Longer frames are not read; 20 ms of audio take a few hundred bytes."""

MAX_UNREADABLE = 100
"""Frames of a stream that may be unreadable; the next one ends it."""

_CHOICES = {**{track: (track,) for track in TRACKS}, "both": TRACKS}


@dataclass(frozen=True, slots=True)
class _Quiet:
    """Nothing has come for a while."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """The socket was closed, and the call may go on."""


_Event = StreamEvent | _Quiet | _Lost


class MediaStreamsBridge(WebBridge):
    """The bridge of all networks that stream calls over WebSockets, two paths for each: without and with a key."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls, self._settings = calls, settings
        self._checks = checks(settings)
        self.sockets = {
            f"/bridges/{dialect.name}{key}": partial(self._serve, dialect)
            for dialect in DIALECTS
            for key in ("", "/{key}")
        }

    async def _serve(self, dialect: Dialect, websocket: WebSocket) -> None:
        """Serve one socket from its handshake to its end."""
        async with call_socket(websocket, dialect.name, self._settings) as socket:
            caller = await self._admit(dialect, websocket)
            await socket.accept()
            stream = _Stream(dialect, websocket)
            leg = await self._calls.answer(await stream.call(caller))
            how = await carry(leg, stream.play(leg), socket.end, stamped=True)
            log.info("call over", bridge=dialect.name, session=leg.session_id, how=how)

    async def _admit(self, dialect: Dialect, websocket: WebSocket) -> Caller:
        """Give whose call this is, before anything is accepted; raises `NotAllowed` and the like."""
        check = self._checks.get(dialect.name)
        if check is not None and not check(websocket):
            raise NotAllowed(f"the handshake is not signed by {dialect.name} for the address that it came to")
        # Where a network signs its requests, what else it authorizes itself by is not for us.
        key = websocket.path_params.get("key") if check is not None else key_of(websocket)
        return await self._calls.admit(websocket, key=key, signed=check is not None)


class _Stream:
    """One stream over one socket: `call` says whose audio it brings and how, `play` feeds that to a leg."""

    def __init__(self, dialect: Dialect, websocket: WebSocket) -> None:
        self.dialect, self.websocket = dialect, websocket
        self._tracks: Tracks | None = None
        self._names: tuple[str, ...] = ()
        self._ids: Mapping[str, str] = {}
        self._first: Media | None = None
        self._noted: set[str] = set()

    async def call(self, caller: Caller) -> Call:
        """Read up to where the call, its format and its tracks are known.

        Raises `MalformedMessage` for a stream that breaks the format or is not begun in time, `InvalidConfig` for
        parameters that cannot be read.
        """
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                started = await self._start()
                self._ids = started.metadata
                parameters = {**self.websocket.query_params, **started.parameters}
                self._names = started.tracks or _chosen(parameters)
                while not self._names:
                    await self._first_track()
        except TimeoutError:
            raise MalformedMessage(f"no stream was begun within {FIRST_MESSAGE_S:g} s") from None
        audio = AudioFormat(encoding=started.encoding, sample_rate=started.sample_rate)
        self._tracks = Tracks(self._names, sample_rate=audio.sample_rate, sample=audio.silent_sample)
        request = request_of(
            parameters,
            encoding=f"wav/{audio.encoding}",
            sample_rate=audio.sample_rate,
            channels=len(self._names),
            metadata=started.metadata,
        )
        leg = f"{started.call_id or uuid4().hex}/{'+'.join(self._names)}"
        return Call(bridge=self.dialect.name, id=leg, caller=caller, request=request)

    async def play(self, leg: Leg) -> bool:
        """Feed the leg until the stream ends; tells whether the call is over, or only its transport lost."""
        assert self._tracks is not None
        unreadable, clock = 0, asyncio.get_running_loop().time
        event: _Event = self._first or Ignored()
        while not isinstance(event, Stopped | _Lost):
            match event:
                case Media() if event.track in self._names:
                    await _feed(leg, self._tracks.place(event, clock()))
                case Media():
                    self._note("audio of a track that was not announced; ask for both with the parameter tracks=both")
                case Unreadable():
                    unreadable += 1
                    self._note(event.reason)
                    if unreadable > MAX_UNREADABLE:
                        raise MalformedMessage(f"more than {MAX_UNREADABLE} frames cannot be read")
                case Started() if event.metadata != self._ids:
                    # Its audio would be heard as this stream's.
                    await _feed(leg, [self._tracks.settle()])
                    raise MalformedMessage("another stream began on this socket; each needs a socket of its own")
                case _Quiet():
                    await _feed(leg, [self._tracks.settle(ahead_s=AHEAD_S)])
            event = await self._next()
        await _feed(leg, [self._tracks.settle()])
        return isinstance(event, Stopped)

    async def _start(self) -> Started:
        while True:
            match self._event(await self.websocket.receive()):
                case Started() as started:
                    return started
                case Unreadable(reason=reason):
                    raise MalformedMessage(reason)
                case Stopped() | _Lost():
                    raise MalformedMessage("the socket was closed before a stream began")
                case Media():
                    self._note("audio before the start of the stream")

    async def _first_track(self) -> None:
        """Take a stream that does not say which tracks come by its first audio."""
        match self._event(await self.websocket.receive()):
            case Media() as media:
                self._first, self._names = media, (media.track,)
            case Unreadable(reason=reason):
                raise MalformedMessage(reason)
            case Stopped() | _Lost():
                raise MalformedMessage("the stream ended before it brought any audio")

    async def _next(self) -> _Event:
        try:
            async with asyncio.timeout(QUIET_S):
                return self._event(await self.websocket.receive())
        except TimeoutError:
            return _Quiet()

    def _event(self, frame: Mapping[str, Any]) -> StreamEvent | _Lost:
        if frame["type"] == "websocket.disconnect":
            return Stopped() if frame.get("code") in HUNG_UP and not self.dialect.stops else _Lost()
        data = frame.get("bytes")
        content: str | bytes = frame["text"] if data is None else data
        if len(content) > MAX_FRAME_BYTES:
            return Unreadable(f"a frame longer than {MAX_FRAME_BYTES} bytes")
        return read(self.dialect, content)

    def _note(self, reason: str) -> None:
        """Log why frames are passed over, once in a stream for each reason."""
        if reason not in self._noted:
            self._noted.add(reason)
            log.warning("frames passed over", bridge=self.dialect.name, reason=reason)


def _chosen(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Give the tracks that a call asks for, none where it leaves that open; raises `InvalidConfig`."""
    asked = parameters.get("tracks", "")
    name = asked.strip().lower().removesuffix("_track").removesuffix("_tracks")
    if name and name not in _CHOICES:
        raise InvalidConfig(INVALID, [f"tracks must be one of the following values: {', '.join(_CHOICES)}"])
    return _CHOICES.get(name, ())


async def _feed(leg: Leg, pieces: Iterable[bytes]) -> None:
    """Feed what a frame brought; a long pause is many pieces, and other calls have their turn between them."""
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(0)
        if piece:
            await leg.feed(piece)
