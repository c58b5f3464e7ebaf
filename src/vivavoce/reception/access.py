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

from vivavoce.errors import NotAllowed, RateExceeded, SetupError, Unauthorized
from vivavoce.model import ApiKey, now
from vivavoce.reception.origin import host_of, is_loopback, is_loopback_origin
from vivavoce.runtime import metrics
from vivavoce.runtime.callbacks import SERVER_OWNER
from vivavoce.runtime.hub import hash_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        return self._caller(found)

    async def caller_with_id(self, key_id: str | None) -> Caller:
        """Give the caller whose key has this id, for whom nobody shows the key; raises `NotAllowed`.

        Without any keys that is the one on this machine, whatever the id.
        """
        if not await self.keys_exist():
            return Caller(owner=LOCAL_OWNER)
        found = next((key for key in await self._store.keys() if key.id == key_id and key.revoked_at is None), None)
        if found is None:
            raise NotAllowed(f"there is no API key with the id {key_id!r}; see vivavoce keys list and --bridge-owner")
        return self._caller(found)

    def _caller(self, found: ApiKey) -> Caller:
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

    async def check_reach(self, headers: Mapping[str, str]) -> None:
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
