"""Callbacks and webhooks: what sessions say, posted from the store's outbox to whoever asked for it.

A session's messages are put in the outbox in the transaction that makes them durable, each as a `Delivery` in its lane:
the session's callback, or the server's webhook. The courier runs one task for each lane that owes something. The task
reads the outbox, posts the deliveries one after the other and goes when nothing waits, so lanes are in order and
independent of each other, and a lane survives crashes because it is nothing but rows. What was posted is noted in
groups for all lanes together; a crash in between repeats the last few with the same ids.

A delivery that fails is tried again, with growing pauses, until its deadline, which counts from its message. Then it is
dead, and so are those behind it whose deadlines have passed as well; the next one is tried.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar
from uuid import uuid4

import stamina
import structlog
from standardwebhooks import Webhook

from vivavoce import __version__
from vivavoce.config import Settings
from vivavoce.errors import DeliveryError, StoreError
from vivavoce.events import Message
from vivavoce.model import Delivery, DeliveryState, Lane, Outcome, SessionOptions, now
from vivavoce.plugins import Store
from vivavoce.runtime import metrics
from vivavoce.runtime.outbound import MAX_REDIRECTS, Outbound

log = structlog.get_logger()

_T = TypeVar("_T")

FIRST_WAIT_S, LONGEST_WAIT_S, JITTER_S = 0.25, 60.0, 0.5
"""Pauses between attempts double from the first to the longest, and a random part of the jitter is added."""

PAGE = 16
"""Deliveries of one lane that are in memory at once."""

READERS = 2
"""Reads of the outbox at once, so that many lanes leave the store's connections to the sessions."""

FLUSH_S = 2.0
"""How long the end of the server waits for what is being posted; the rest is posted after the next start."""

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets of the Standard Webhooks scheme begin with
SECRETS_KEPT_S = 5.0
SERVER_OWNER = "local"
"""Whose secret signs webhooks, and the callbacks of sessions that were made while no key existed."""

OLD_SECRET_VALID = timedelta(days=1)


def new_secret() -> str:
    """Make a signing secret (192 random bits), as the Standard Webhooks scheme writes it."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(24)).decode("ascii")


class Envelopes(Protocol):
    """What the courier needs of the clients' protocol: an event's name and the body to post, None for no post."""

    def callback(self, session_id: str, message: Message) -> tuple[str, str] | None:
        """Wrap a message for a session's callback."""

    def webhook(self, session_id: str, message: Message) -> tuple[str, str] | None:
        """Wrap a message for the server's webhook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """To whom one session's messages are posted."""

    session_id: str
    options: SessionOptions
    webhook_url: str | None
    envelopes: Envelopes

    def deliveries(self, message: Message, at: datetime) -> tuple[Delivery, ...]:
        """Give what is owed for a message that was said at a moment."""
        found = []
        options = self.options
        if options.callback_url is not None and message.event.kind in options.callback_wanted:
            wrapped = self.envelopes.callback(self.session_id, message)
            found.append((Lane.CALLBACK, options.callback_url, wrapped))
        if self.webhook_url is not None:
            found.append((Lane.WEBHOOK, self.webhook_url, self.envelopes.webhook(self.session_id, message)))
        return tuple(
            Delivery(id=f"msg_{uuid4().hex}", lane=lane, event=wrapped[0], url=url, body=wrapped[1], created_at=at)
            for lane, url, wrapped in found
            if wrapped is not None
        )


class _Deleted(Exception):
    """The session whose messages were being posted is gone."""


_Key = tuple[str, Lane]


class Courier:
    """Posts what the outbox holds; belongs to the event loop."""

    def __init__(self, store: Store, settings: Settings) -> None:
        connections, timeout_s = settings.callback_connections, settings.callback_timeout
        self._store = store
        self._deadline = timedelta(seconds=settings.callback_deadline)
        self._outbound = {
            Lane.CALLBACK: Outbound(
                connections=connections,
                timeout_s=timeout_s,
                allow_private=settings.allow_private_callbacks,
                max_redirects=MAX_REDIRECTS,
            ),
            # The operator's own address may well be a private one; where it redirects to is not his word any more.
            Lane.WEBHOOK: Outbound(connections=connections, timeout_s=timeout_s, allow_private=True, max_redirects=0),
        }
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._woken: set[_Key] = set()
        self._reading = asyncio.Semaphore(READERS)
        self._notes = _Notes(store)
        self._signers = _Signers(store)
        self.on_settled: Callable[[str], None] = lambda _: None
        """Called with the id of a session of which a lane owes nothing any more."""
        self._closing = False

    async def open(self) -> None:
        """Go on with what an earlier process left."""
        for session_id, lane in await self._store.waiting_lanes():
            self._wake((session_id, lane))

    def wake(self, session_id: str, deliveries: Sequence[Delivery]) -> None:
        """Take note that deliveries of a session are in the outbox now."""
        for lane in {each.lane for each in deliveries}:
            self._wake((session_id, lane))

    async def close(self) -> None:
        """Stop, after a short while for what is being posted."""
        self._closing = True
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=FLUSH_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._notes.close()
        for outbound in self._outbound.values():
            await outbound.close()

    def _wake(self, key: _Key) -> None:
        self._woken.add(key)
        if key not in self._tasks and not self._closing:
            self._tasks[key] = asyncio.create_task(self._drain(key), name=f"{key[1]}-{key[0]}")

    async def _drain(self, key: _Key) -> None:
        """Post what a lane owes until nothing waits."""
        structlog.contextvars.bind_contextvars(session=key[0], lane=key[1])
        try:
            while key in self._woken:
                self._woken.discard(key)
                with suppress(_Deleted):
                    await self._post_all(key)
        except Exception:
            log.exception("a lane of deliveries broke")
        finally:
            del self._tasks[key]
            self.on_settled(key[0])

    async def _post_all(self, key: _Key) -> None:
        owner, overdue = await self._owner(key), False
        while page := await self._read(key, PAGE):
            for delivery in page:
                if overdue and self._left_s(delivery) <= 0:
                    self._give_up(delivery, delivery.attempts, "its deadline passed behind a message that failed")
                    continue
                overdue = not await self._deliver(key, owner, delivery) and self._left_s(delivery) <= 0
            # What is not noted yet would be read again.
            await self._notes.settle()

    async def _read(self, key: _Key, limit: int) -> list[Delivery]:
        async with self._reading:
            return await _when_up(partial(self._store.waiting_deliveries, *key, limit))

    async def _owner(self, key: _Key) -> str:
        """Give whose secret signs a lane."""
        if key[1] is Lane.WEBHOOK:
            return SERVER_OWNER
        record = await _when_up(partial(self._store.session, key[0]))
        if record is None:
            raise _Deleted
        return record.owner

    async def _deliver(self, key: _Key, owner: str, delivery: Delivery) -> bool:
        """Post until it succeeds (True) or is given up; raises `_Deleted` where the session is gone meanwhile."""
        if delivery.next_at is not None:
            pause_s = (delivery.next_at - now()).total_seconds()
            await asyncio.sleep(min(max(pause_s, 0.0), LONGEST_WAIT_S))
        attempts = delivery.attempts
        try:
            async for attempt in self._attempts(delivery):
                if attempt.num > 1 and not await self._read(key, 1):
                    raise _Deleted
                with attempt:
                    attempts += 1
                    await self._try(delivery, owner, attempts, attempt.next_wait)
        except DeliveryError as error:
            self._give_up(delivery, attempts, str(error))
            return False
        metrics.CALLBACKS.labels("delivered").inc()
        self._notes.add(Outcome(delivery_id=delivery.id, state=DeliveryState.DELIVERED, attempts=attempts))
        return True

    def _attempts(self, delivery: Delivery) -> AsyncIterator[stamina.Attempt]:
        first_s = min(FIRST_WAIT_S * 2.0 ** min(delivery.attempts, 30), LONGEST_WAIT_S)
        retries = stamina.retry_context(
            on=lambda error: isinstance(error, DeliveryError) and error.retryable,
            attempts=None,
            timeout=max(self._left_s(delivery), 0.001),
            wait_initial=first_s,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=JITTER_S,
        )
        return aiter(retries)

    async def _try(self, delivery: Delivery, owner: str, attempts: int, next_wait_s: float) -> None:
        try:
            await self._post(delivery, owner)
        except DeliveryError as error:
            metrics.CALLBACKS.labels("failed").inc()
            self._notes.add(
                Outcome(
                    delivery_id=delivery.id,
                    state=DeliveryState.WAITING,
                    attempts=attempts,
                    next_at=now() + timedelta(seconds=next_wait_s),
                    reason=str(error),
                )
            )
            raise

    async def _post(self, delivery: Delivery, owner: str) -> None:
        at = now()
        signed = [each.sign(delivery.id, at, delivery.body) for each in await self._signers.of(owner)]
        headers = {
            "user-agent": f"vivavoce/{__version__}",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signed),
        }
        try:
            await self._outbound[delivery.lane].post(delivery.url, delivery.body.encode(), headers)
        except DeliveryError:
            raise
        except Exception as error:
            # Told as a failed attempt: a bug in one delivery must not keep its lane from going on some day.
            log.exception("a delivery broke", event_name=delivery.event)
            raise DeliveryError("internal error") from error

    def _give_up(self, delivery: Delivery, attempts: int, reason: str) -> None:
        log.warning("a delivery was given up", event_name=delivery.event, attempts=attempts, reason=reason)
        self._notes.add(Outcome(delivery_id=delivery.id, state=DeliveryState.DEAD, attempts=attempts, reason=reason))

    def _left_s(self, delivery: Delivery) -> float:
        return (delivery.created_at + self._deadline - now()).total_seconds()


class _Notes:
    """Outcomes on their way to the store, in one transaction for whatever has gathered."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Outcome] = []
        self._some = asyncio.Event()
        self._settlers: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run(), name="delivery-notes")

    def add(self, outcome: Outcome) -> None:
        """Queue an outcome; of one delivery the last one counts."""
        self._waiting.append(outcome)
        self._some.set()

    async def settle(self) -> None:
        """Return when all that was queued before is noted."""
        noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settlers.append(noted)
        self._some.set()
        await noted

    async def close(self) -> None:
        """Note what waits, if the store is there, and stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self.settle()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            batch, self._waiting = self._waiting, []
            settlers, self._settlers = self._settlers, []
            await _when_up(partial(self._store.record_outcomes, batch))
            for each in settlers:
                if not each.done():
                    each.set_result(None)


class _Signers:
    """The secrets of owners, as signers; a rotated secret is used within `SECRETS_KEPT_S`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[float, list[Webhook]]] = {}
        self._making = asyncio.Lock()

    async def of(self, owner: str) -> list[Webhook]:
        """Give an owner's signers, the newest first; there is at least one, made where there was none."""
        read_at, signers = self._known.get(owner, (-SECRETS_KEPT_S, []))
        if time.monotonic() - read_at < SECRETS_KEPT_S:
            return signers
        async with self._making:
            at = now()
            found = await _when_up(partial(self._store.signing_secrets, owner, at))
            if not found:
                found = [new_secret()]
                await _when_up(partial(self._store.rotate_secret, owner, found[0], at, at))
        signers = [Webhook(secret) for secret in found]
        self._known[owner] = time.monotonic(), signers
        return signers


async def _when_up(call: Callable[[], Awaitable[_T]]) -> _T:
    """Call the store until it answers."""
    async for attempt in stamina.retry_context(on=StoreError, attempts=None, timeout=None, wait_max=LONGEST_WAIT_S):
        with attempt:
            return await call()
    raise AssertionError("retries without an end have ended")
