"""Who may call: API keys, and what keeps a server without any key private to its machine.

While no key was ever created, everybody on this machine is the one owner `local`. A web page elsewhere could still
reach a loopback port through the user's browser, by rebinding its own name to 127.0.0.1 or by asking across origins;
so such a server answers only requests that name it by a loopback host, and none that come from a foreign origin. From
the first key on, a key is needed (also when all are revoked), and any origin may call, as the original service allows.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiolimiter import AsyncLimiter
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from vivavoce.api.errors import REQUEST_ID, Unauthorized, error_response
from vivavoce.api.origin import host_of, is_loopback, is_loopback_origin
from vivavoce.errors import NotAllowed, RateExceeded, SetupError
from vivavoce.model import ApiKey, now
from vivavoce.runtime import metrics
from vivavoce.runtime.callbacks import SERVER_OWNER
from vivavoce.runtime.hub import hash_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from vivavoce.config import Settings
    from vivavoce.plugins import Store

log = structlog.get_logger()

KEY_HEADER = "x-gladia-key"
LOCAL_OWNER = SERVER_OWNER
"""Owner of the sessions that were made while no key existed."""


BURST_S = 10.0
"""A caller that was quiet may spend the requests of this many seconds at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, and how much of the server is theirs; None is any amount."""

    owner: str
    max_sessions: int | None = None
    rate: float | None = None


def new_key(name: str, *, max_sessions: int | None = None, rate: float | None = None) -> tuple[ApiKey, str]:
    """Make an API key: the record to store, and the key itself (256 random bits), which is never seen again."""
    secret = f"vv_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=secrets.token_hex(6),
        name=name,
        key_hash=hash_of(secret),
        created_at=now(),
        max_sessions=max_sessions,
        rate=rate,
    )
    return key, secret


def require_safe_bind(settings: Settings, *, keys_exist: bool) -> None:
    """Raise `SetupError` where other machines could reach a server that asks nobody for a key."""
    if not keys_exist and not is_loopback(settings.host):
        raise SetupError(
            f"--host {settings.host} is open to other machines, and there is no API key yet; "
            "create one with: vivavoce keys create"
        )


class Access:
    """Decides who a caller is; sees keys that another process creates or revokes at once."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._keys_exist = False
        self._limiters: dict[str, AsyncLimiter] = {}

    async def keys_exist(self) -> bool:
        """Tell whether a key was ever created; keys are revoked but never removed, so yes is for good."""
        if not self._keys_exist:
            self._keys_exist = bool(await self._store.keys())
        return self._keys_exist

    async def owner_of(self, key: str | None) -> str:
        """Give the owner of what a caller makes and sees; raises `Unauthorized` (401)."""
        return (await self.caller_of(key)).owner

    async def caller_of(self, key: str | None) -> Caller:
        """Give the caller with this key; without any keys, the one on this machine, who may do as the machine can."""
        if not await self.keys_exist():
            return Caller(owner=LOCAL_OWNER)
        if not key:
            raise Unauthorized("no gladia key provided")
        found = await self._store.key_by_hash(hash_of(key))
        if found is None:
            raise Unauthorized("gladia key not found")
        most, rate = found.max_sessions, found.rate
        return Caller(
            owner=found.id,
            max_sessions=self._settings.key_max_sessions if most is None else most,
            rate=self._settings.key_rate if rate is None else rate,
        )

    async def count_request(self, caller: Caller) -> None:
        """Count a request against its caller's rate; raises `RateExceeded` at once where there have been too many."""
        if caller.rate is None:
            return
        limiter = self._limiters.get(caller.owner)
        if limiter is None:
            burst = max(caller.rate * BURST_S, 1.0)
            limiter = self._limiters[caller.owner] = AsyncLimiter(burst, burst / caller.rate)
        if not limiter.has_capacity():
            metrics.REFUSALS.labels("key_rate").inc()
            raise RateExceeded(f"this key may make {caller.rate:g} requests a second")
        await limiter.acquire()

    async def check_reach(self, headers: Headers) -> None:
        """Raise `NotAllowed` where, without keys, a request did not clearly start on this machine."""
        if await self.keys_exist():
            return
        host = host_of(headers.get("host", ""))
        if not is_loopback(self._settings.host) or not (is_loopback(host) or host in self._settings.allowed_hosts):
            raise NotAllowed(
                f"without API keys only loopback hosts are answered, not {host!r}; see vivavoce keys create "
                "and --allowed-hosts"
            )
        origin = headers.get("origin")
        if origin is not None and not is_loopback_origin(origin):
            raise NotAllowed("without API keys only pages of this machine may call; see vivavoce keys create")


class AccessMiddleware:
    """ASGI middleware that refuses what `Access.check_reach` refuses, and lets browsers read the rest (CORS)."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._access = access
        self._inner = _Cors(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"],
            allow_headers=[KEY_HEADER, "content-type", "last-event-id", "x-gladia-version"],
            expose_headers=[REQUEST_ID],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in {"http", "websocket"}:
            try:
                await self._access.check_reach(Headers(scope=scope))
            except Exception as error:  # noqa: BLE001 - the routes' own boundary lies further in
                await _refuse(scope, receive, send, error)
                return
        await self._inner(scope, receive, send)


class _Cors(CORSMiddleware):
    """Starlette's CORS with the preflight answer of the original service: 204, always; the browser decides."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        kept = {name: value for name, value in answer.headers.items() if name.startswith(("access-control", "vary"))}
        return Response(status_code=204, headers=kept)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Answer with the error, or refuse a socket's handshake, which clients see as a 403."""
    if scope["type"] == "http":
        await error_response(scope, error)(scope, receive, send)
        return
    log.warning("socket refused", kind=type(error).__name__, reason=str(error))
    await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
