"""Watching a session: its messages over a WebSocket or as server-sent events, for its owner or by a read-only token.

Browsers can set headers on neither, so they come with a token in the query. A token names its end and carries a
signature over that and the session, made with what is stored of the session's own token; so it opens this one session,
for reading, and dies with it, and nobody can turn it into the token of the socket.

Both forms carry the same text: the session's message with its `seq` in front, where it has one. An event stream ends
with the session, upon which browsers ask again and get a 204, which tells them to stop.
"""
# ruff: noqa: FAST003 - `own_session` takes the path's session_id, which ruff does not see through an alias.

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Header, Query, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from vivavoce.api.requests import Session, SessionId, documented_errors, find_session, json_body, parse_json, read_body
from vivavoce.errors import INVALID, CapacityError, InvalidConfig, StoreError, Unauthorized, UnknownSession
from vivavoce.model import SessionRecord
from vivavoce.plugins import Store
from vivavoce.reception.access import KEY_HEADER, Access
from vivavoce.reception.origin import public_origin
from vivavoce.runtime.watch import Shown, Watcher, Watchers, follow
from vivavoce.wire.bodies import WatchToken
from vivavoce.wire.live import CloseCode, numbered
from vivavoce.wire.result import timestamp

log = structlog.get_logger()

TOKEN_S, LONGEST_TOKEN_S = 3600, 86_400
KEEPALIVE_S = 15.0
MAX_BODY_BYTES = 1 << 10
MAX_SEQ = 2**53
"""Numbers beyond this are not whole ones to a browser."""

_REASON_BYTES = 120
_UNTIL_DIGITS = 12
_CODES: dict[type[Exception], CloseCode] = {
    InvalidConfig: CloseCode.BAD_REQUEST,
    Unauthorized: CloseCode.UNAUTHORIZED,
    UnknownSession: CloseCode.UNKNOWN_SESSION,
}

router = APIRouter(redirect_slashes=False)


def new_watch_token(record: SessionRecord, until: int) -> str:
    """Make a token that lets its bearer watch one session until a moment, in seconds since 1970."""
    signed = hmac.digest(record.token_hash.encode(), f"watch {record.id} {until}".encode(), hashlib.sha256)
    return f"{until}.{signed.hex()}"


def check_watch_token(record: SessionRecord, token: str) -> None:
    """Raise `Unauthorized` unless the token opens this session now."""
    until = token.partition(".")[0]
    if until.isascii() and until.isdecimal() and len(until) <= _UNTIL_DIGITS:
        genuine = hmac.compare_digest(new_watch_token(record, int(until)).encode(), token.encode("utf-8", "replace"))
        if genuine and time.time() < int(until):
            return
    raise Unauthorized("this token does not open this session, or not any more: mint another one with its owner's key")


class TokenRequest(BaseModel):
    """What is asked of a token."""

    model_config = {"extra": "forbid", "strict": True}

    expires_in: int = Field(
        TOKEN_S, ge=1, le=LONGEST_TOKEN_S, description="Seconds that the token is good for; reconnecting needs it too."
    )


@router.post(
    "/v2/live/{session_id}/events/token",
    status_code=201,
    summary="Let a browser watch a session",
    responses={201: {"model": WatchToken}, **documented_errors(400, 401, 404, 413)},
    openapi_extra=json_body(TokenRequest.model_json_schema()),
)
async def mint_token(request: Request, record: Session) -> JSONResponse:
    """Give a read-only token for this one session's messages, and where to watch with it; not part of Gladia's API."""
    raw = await read_body(request, MAX_BODY_BYTES)
    try:
        asked = TokenRequest.model_validate(parse_json(raw) if raw else {})
    except ValidationError:
        problem = f"expires_in must be a whole number of seconds between 1 and {LONGEST_TOKEN_S}, and nothing beside it"
        raise InvalidConfig(INVALID, [problem]) from None
    until = int(time.time()) + asked.expires_in
    token = new_watch_token(record, until)
    path = f"/v2/live/{record.id}/events?{urlencode({'token': token})}"
    origin = public_origin(request, request.app.state.settings)
    minted = WatchToken(
        token=token,
        url=f"{origin}{path}",
        socket_url=f"ws{origin.removeprefix('http')}{path}",
        expires_at=timestamp(datetime.fromtimestamp(until, UTC)),
    )
    return JSONResponse(minted.model_dump(), 201, headers={"cache-control": "no-store"})


class WatchQuery(BaseModel):
    """From where on a session is watched, and by whom."""

    token: str | None = Field(None, description="A token made for watching; not needed where a key is sent.")
    start: int = Field(0, ge=0, le=MAX_SEQ, alias="from", description="The `seq` of the first message wanted.")
    partials: bool = Field(default=True, description="Whether partial transcripts are shown.")


class _Watching:
    """One admitted watcher, until `leave`."""

    def __init__(self, store: Store, session_id: str, watchers: Watchers, query: WatchQuery) -> None:
        self.start, self.watchers = query.start, watchers
        self._store, self._session_id = store, session_id
        self._watcher: Watcher = watchers.open(query.start, partials=query.partials, guest=query.token is not None)
        log.info("watcher came", session=session_id)

    async def saw_all(self) -> bool:
        """Say whether nothing is left to see, for good."""
        return self.watchers.over and not await self._store.messages(self._session_id, start=self.start, limit=1)

    def messages(self, quiet_s: float | None = None) -> AsyncGenerator[Shown | None]:
        """Give the messages as `follow` does."""
        return follow(self._store, self._session_id, self.watchers, self._watcher, quiet_s=quiet_s)

    def leave(self) -> None:
        """Make room for another one."""
        self.watchers.leave(self._watcher)
        log.info("watcher left", session=self._session_id)


async def _admit(connection: HTTPConnection, session_id: str, query: WatchQuery) -> _Watching:
    """Let somebody watch; raises `Unauthorized`, `UnknownSession`, `CapacityError`."""
    hub, access = connection.app.state.hub, connection.app.state.access
    assert isinstance(access, Access)
    if query.token is not None:
        record = await find_session(hub, session_id)
        check_watch_token(record, query.token)
    else:
        caller = await access.caller_of(connection.headers.get(KEY_HEADER))
        await access.count_request(caller)
        record = await find_session(hub, session_id, caller.owner)
    return _Watching(hub.store, record.id, await hub.watchers(record.id), query)


class _EventStream(EventSourceResponse):
    """An event stream that says when it is through with its watcher, however it ends."""

    def __init__(self, lines: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        # Proxies must neither keep what passes nor wait for more of it.
        super().__init__(lines, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


@router.get(
    "/v2/live/{session_id}/events",
    summary="Watch a session",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Server-sent events"},
        204: {"description": "The session is over, and there is nothing beyond what was asked for"},
        **documented_errors(400, 401, 404, 429),
    },
)
async def watch_events(
    request: Request,
    session_id: SessionId,
    query: Annotated[WatchQuery, Query()],
    last_seen: Annotated[
        int | None, Header(alias="last-event-id", ge=0, lt=MAX_SEQ, description="Go on behind this `seq`.")
    ] = None,
) -> Response:
    """Give the session's messages as server-sent events: what is stored from `from` on, then what is said.

    Each event's id is the message's `seq`; partial transcripts have none. The same path takes WebSockets. Not part of
    Gladia's API.
    """
    if last_seen is not None:
        query = query.model_copy(update={"start": last_seen + 1})
    watching = await _admit(request, session_id, query)
    try:
        if await watching.saw_all():
            watching.leave()
            return Response(status_code=204)
    except BaseException:
        watching.leave()
        raise
    return _EventStream(_lines(watching), watching.leave)


async def _lines(watching: _Watching) -> AsyncIterator[bytes]:
    async with aclosing(watching.messages(KEEPALIVE_S)) as messages:
        with suppress(StoreError):
            # The stream just ends where the store cannot be read: browsers come back by themselves.
            async for shown in messages:
                if shown is None:
                    yield KEEPALIVE_COMMENT
                else:
                    number = None if shown.seq is None else str(shown.seq)
                    yield format_sse_event(data_str=numbered(shown.text, shown.seq), id=number)


async def watch_socket(websocket: WebSocket, session_id: str) -> None:
    """Send a session's messages, and close with 1000 behind the last one; what comes in is ignored."""
    # Accepted even where nothing is to be seen: a refused handshake tells a browser nothing.
    await websocket.accept()
    try:
        watching = await _admit(websocket, session_id, _query_of(websocket))
    except Exception as error:
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), CloseCode.TRY_LATER)
        known = isinstance(error, CapacityError) or code is not CloseCode.TRY_LATER
        if not (known or isinstance(error, StoreError)):
            log.exception("a watcher could not be admitted")
        reason = str(error) if known else "temporarily unavailable"
        await websocket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
        return
    gone = asyncio.create_task(_until_gone(websocket), name=f"watcher-gone-{session_id}")
    sender = asyncio.create_task(_send_all(websocket, watching), name=f"watcher-{session_id}")
    try:
        await asyncio.wait({gone, sender}, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            code = sender.result()
            with suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(code)
    finally:
        gone.cancel()
        sender.cancel()
        await asyncio.gather(gone, sender, return_exceptions=True)
        watching.leave()


def _query_of(websocket: WebSocket) -> WatchQuery:
    try:
        return WatchQuery.model_validate(dict(websocket.query_params))
    except ValidationError:
        raise InvalidConfig("from must be a whole number, and partials true or false") from None


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _send_all(websocket: WebSocket, watching: _Watching) -> CloseCode:
    """Send what there is to see; give how to close behind it."""
    try:
        async for shown in watching.messages():
            if shown is not None:
                await websocket.send_text(numbered(shown.text, shown.seq))
    except StoreError:
        return CloseCode.RESTART
    except (WebSocketDisconnect, RuntimeError):
        # The other task hears of the lost socket too, and ends this.
        await asyncio.Event().wait()
    return CloseCode.NORMAL if watching.watchers.over else CloseCode.RESTART
