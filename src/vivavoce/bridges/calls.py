"""Calls: one session per leg, kept for the whole call, whatever becomes of the transport that carries its audio.

A bridge turns its peer's protocol into `Calls.admit`, `Calls.answer` and `Leg.feed`; nothing behind knows which door
it was. A leg whose transport is lost (`Leg.drop`) has the grace period to come back: the next `answer` with the same
owner, bridge and id, be it of the next process, goes on with the same session, after silence for the time it was away.
Unlike a client of the live socket, a call never repeats what it sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

import structlog

from vivavoce.config import option_names
from vivavoce.errors import InvalidConfig, NotAllowed, SetupError, UnknownSession, Unsupported
from vivavoce.reception.access import KEY_HEADER, Access, Caller
from vivavoce.reception.origin import is_in, is_loopback, is_loopback_origin, may_be_elsewhere, peer_of
from vivavoce.reception.sessions import create
from vivavoce.runtime import metrics
from vivavoce.runtime.mailbox import Ending
from vivavoce.wire.call import PARAMETERS, request_of
from vivavoce.wire.live import CloseCode
from vivavoce.wire.schema import InitRequest, audio_format

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from vivavoce.config import Settings
    from vivavoce.runtime.hub import Hub
    from vivavoce.runtime.parts import Connection
    from vivavoce.runtime.session import Session

log = structlog.get_logger()

SILENCE_AT_ONCE_S = 1.0
"""Silence for a leg that was away is fed in pieces of this length."""

QUIET_S = 1.0
"""After this long without audio a call is on hold, or as good as that."""

LONGEST_AWAY_S = 600.0
"""A leg that returns after longer, to a server that was down, is a new call: so much silence is none of its time."""

SHORT_S = 0.1
"""A gap that is no longer than this is the network's, and not filled."""

WAYS = "an API key, a signature, or an address in --bridge-allow"
"""What a call may be admitted by, as a stranger is told."""

_FORMAT_FIELDS = ("encoding", "bit_depth", "sample_rate", "channels")
_DEFAULT_FORMAT = {name: InitRequest.model_fields[name].default for name in _FORMAT_FIELDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A leg of a call that wants a session: whose it is, and the init request as `POST /v2/live` takes it.

    `id` is what the peer names the leg by, unique on its `bridge`.
    """

    bridge: str
    id: str
    caller: Caller
    request: Mapping[str, Any]


class Calls:
    """Admits and answers the calls of this process."""

    def __init__(self, hub: Hub, access: Access, settings: Settings) -> None:
        self._hub, self._access, self._settings = hub, access, settings
        self._answering: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def admit(
        self, connection: HTTPConnection, *, key: str | None = None, signed: bool = False, ways: str = WAYS
    ) -> Caller:
        """Give whose call a socket brings: by `key`, from its path, its headers or its query; or by `admit_peer`.

        Raises `NotAllowed` (`Unauthorized` for a key that does not exist; `ways` is what it says a call needs) and
        `RateExceeded`.
        """
        query = connection.query_params
        key = key or connection.headers.get(KEY_HEADER) or query.get(KEY_HEADER) or query.get("api_key")
        if not key or not await self._access.keys_exist():
            if not signed and not _is_from_here(connection):
                raise NotAllowed("a web page needs an API key to call")
            peer = peer_of(connection, self._settings)
            if not signed and is_in(peer, self._settings.bridge_allow) and may_be_elsewhere(connection, self._settings):
                raise NotAllowed(
                    "a proxy on this machine brings this call, and its address in --bridge-allow lets nobody else in; "
                    "the call needs an API key, or the proxy a place in --trusted-proxies"
                )
            return await self.admit_peer(peer, signed=signed, ways=ways)
        return await self._counted(await self._access.caller_of(key))

    async def admit_peer(self, address: str, *, signed: bool = False, ways: str = WAYS) -> Caller:
        """Give whose call this IP address brings without a key: that of `bridge_owner`.

        Raises `NotAllowed` unless it is `signed`, the address is in `bridge_allow`, or it is this machine's own while
        no key exists, and `RateExceeded`.
        """
        settings = self._settings
        known = signed or is_in(address, settings.bridge_allow)
        if not known and (not is_loopback(address) or await self._access.keys_exist()):
            raise NotAllowed(f"this call needs {ways}")
        return await self._counted(await self._access.caller_with_id(settings.bridge_owner))

    async def _counted(self, caller: Caller) -> Caller:
        await self._access.count_request(caller)
        return caller

    async def answer(self, call: Call, *, listens: bool = False) -> Leg:
        """Give the leg on the session that waits for it, or on a new one; a door that `listens` takes the messages.

        Raises `RequestError` for a request that cannot be met, `CapacityError` where there is no room.
        """
        if call.request.get("callback") and not self._settings.bridge_callbacks:
            raise Unsupported("calls may not name a callback address here; see --bridge-callbacks")
        name = f"{call.bridge}/{call.id}"
        lock = self._answering.setdefault((call.caller.owner, name), asyncio.Lock())
        async with lock:
            session = self._hub.find_leg(call.caller.owner, name)
            returns = session is not None and self._fits(session, call)
            if session is None or not returns:
                _, token = await create(self._hub, self._settings, call.caller, call.request, leg=name)
                session = self._hub.find(token)
            if session is None:
                raise UnknownSession("the session ended before the call was answered")
            leg = Leg(session, idle_s=self._settings.idle_timeout)
            await leg.open(listens=listens)
        metrics.CALLS.labels(call.bridge, "returned" if returns else "answered").inc()
        log.info("call answered", bridge=call.bridge, session=session.id, away_s=round(leg.away_s, 1))
        return leg

    def _fits(self, session: Session, call: Call) -> bool:
        """Tell whether a session can go on with a leg: it still listens, in the same format, to the same call."""
        over = session.stopped or session.over or session.missed_s > LONGEST_AWAY_S
        return not over and session.options.audio == audio_format({**_DEFAULT_FORMAT, **call.request})


def _is_from_here(connection: HTTPConnection) -> bool:
    """Tell whether a request is no web page's, or one of a page that this machine serves.

    A browser in an allowed network could be made to call by any page it shows.
    """
    origin = connection.headers.get("origin")
    return origin is None or is_loopback_origin(origin)


class Leg:
    """One transport of a call's leg: audio in, and a session that outlives it.

    `ended` says how the session wants the transport to end; `away_s` is how long the leg was away before, 0.0 for a new
    one. `idle_s` without audio ends the call; see `keep_time`.
    """

    def __init__(self, session: Session, *, idle_s: float) -> None:
        self._session, self._idle_s = session, idle_s
        self.session_id = session.id
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.away_s = 0.0
        self._connection: Connection | None = None
        self._listens = self._lost = self._began = False
        self._fed_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None

    async def open(self, *, listens: bool) -> None:
        """Connect to the session, and bring it up to the present where the leg was away."""
        self._listens = listens
        await self._connect(missed=self._session.state != "queued")

    async def feed(self, data: bytes) -> None:
        """Take audio in the session's encoding, channels interleaved; waits while the disk is behind."""
        if self._lost:
            # What could not be stored is gone, as on any telephone line; what follows keeps its time.
            self._leave(None)
            await self._connect(missed=True)
        if self._connection is not None:
            if data:
                self._fed_at, self._began = time.monotonic(), True
            await self._session.feed(self._connection, data)

    async def keep_time(self, *, fill: bool) -> None:
        """Say that the call stands although it brings no audio now, as on hold.

        With `fill` the audio that is missing becomes silence, for as long as a session may be idle, and then the call
        is hung up. A network that stamps its audio with its time sends nothing while nothing is said, and its call
        lasts as long as its transport; but its first audio has to come within that time.
        """
        quiet_s = time.monotonic() - self._fed_at
        if self._connection is None or quiet_s < QUIET_S or self._session.stopped:
            return
        if quiet_s >= self._idle_s and (fill or not self._began):
            log.info("call without audio ended", session=self.session_id, after_s=self._idle_s)
            await self.hang_up()
        elif fill:
            await self._feed_silence(self._connection)
        else:
            await self._session.feed(self._connection, b"")

    async def take(self) -> str | Ending:
        """Give the session's next message as JSON text, or how it wants the transport to end.

        Only for a door that listens, which waits for `ended` beside this. Taking a message tells the session that the
        one before has arrived.
        """
        mailbox, connection = self._session.mailbox, self._connection
        if (mark := mailbox.receipt_due()) is not None:
            self._session.delivered(mark)
        item = await mailbox.take(connection)
        if isinstance(item, Ending):
            self._end(item)
        return item

    async def hang_up(self) -> None:
        """End the recording: the last finals follow, then `ended` is `FINISHED`."""
        if self._connection is not None:
            await self._session.stop(self._connection)

    def drop(self) -> None:
        """Let go of the transport: it is lost, and the session waits for the leg, or everything is said."""
        if self._reading is not None:
            self._reading.cancel()
        # A leg that hung up does not come back for what it has not heard.
        self._leave(CloseCode.NORMAL if self._session.stopped else None)

    def _leave(self, code: CloseCode | None) -> None:
        if self._connection is not None:
            self._session.disconnect(self._connection, code)
            self._connection = None

    async def _connect(self, *, missed: bool) -> None:
        self._lost = False
        if self._reading is not None:
            self._reading.cancel()
        self._connection = await self._session.connect(self._end, repeats=False)
        if not self._listens:
            self._reading = asyncio.create_task(self._read_off(), name=f"leg-{self.session_id}")
        self._fed_at = time.monotonic()
        if missed:
            await self._feed_silence(self._connection)

    async def _feed_silence(self, connection: Connection) -> None:
        """Bring the session's audio up to the present."""
        missed_s = self._session.missed_s
        if missed_s <= SHORT_S:
            return
        self.away_s, audio = missed_s, self._session.options.audio
        while missed_s > 0:
            frames = round(min(missed_s, SILENCE_AT_ONCE_S) * audio.sample_rate)
            await self._session.feed(connection, audio.silent_sample * audio.channels * frames)
            await asyncio.sleep(0)
            missed_s -= SILENCE_AT_ONCE_S

    async def _read_off(self) -> None:
        """Take messages nobody on the line reads; they are stored, watched and called back."""
        while not isinstance(await self.take(), Ending):
            pass

    def _end(self, ending: Ending) -> None:
        if ending is Ending.LOST and not self._listens:
            self._lost = True
        elif not self.ended.done():
            self.ended.set_result(ending)


def parameters_of(settings: Settings) -> dict[str, str]:
    """Give the session options of calls that cannot bring their own; raises `SetupError` for what none could have."""
    option = option_names("bridge_parameters")
    parameters = dict(parse_qsl(settings.bridge_parameters, keep_blank_values=True))
    try:
        request = request_of(parameters, encoding="wav/pcm", sample_rate=8_000, metadata={})
    except InvalidConfig as error:
        raise SetupError(f"{option}: {'; '.join(error.problems)}") from None
    if request.get("callback") and not settings.bridge_callbacks:
        raise SetupError(f"{option}: callback_url needs --bridge-callbacks")
    for name in parameters:
        if name not in PARAMETERS and not name.startswith("metadata."):
            raise SetupError(f"{option}: there is no parameter {name!r}; there are {', '.join(PARAMETERS)}")
    return parameters
