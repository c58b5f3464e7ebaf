"""Contract checks of a store's outbox and signing secrets; part of `check_store`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from vivavoce.model import DeadLetter, Delivery, DeliveryState, Lane, Outcome
from vivavoce.plugins import Write

if TYPE_CHECKING:
    from vivavoce.model import SessionRecord
    from vivavoce.plugins import Store

_MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123_000, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_CALLBACK, _WEBHOOK = Lane.CALLBACK, Lane.WEBHOOK

Require = Callable[[bool, str], None]


def _delivery(lane: Lane = _CALLBACK) -> Delivery:
    return Delivery(
        id=f"msg_{uuid4().hex}",
        lane=lane,
        event="live.transcript",
        url="https://receiver.example/hook?ž=1",
        body='{"text": "🐎"}',
        created_at=_MOMENT,
    )


async def check_outbox(store: Store, record: SessionRecord, require: Require) -> None:
    """Check what the store promises of deliveries; `record` is not in the store yet."""
    opening, first, other, second = _delivery(), _delivery(), _delivery(_WEBHOOK), _delivery()
    await store.add_session(record, [opening])
    await store.commit(
        [
            Write(session_id=record.id, deliveries=(first, other)),
            Write(session_id=record.id, deliveries=(second,)),
        ]
    )

    async def waiting(lane: Lane, limit: int = 100) -> list[Delivery]:
        return await store.waiting_deliveries(record.id, lane, limit)

    require(await waiting(_CALLBACK) == [opening, first, second], "deliveries wait whole, as they were committed")
    require(await waiting(_CALLBACK, 1) == [opening], "a page of deliveries has at most its limit")
    require(await waiting(_WEBHOOK) == [other], "lanes do not share deliveries")
    lanes = {(record.id, _CALLBACK), (record.id, _WEBHOOK)}
    require(lanes <= set(await store.waiting_lanes()), "lanes with waiting deliveries are listed")
    later = _MOMENT + _SECOND
    failed = Outcome(delivery_id=first.id, state=DeliveryState.WAITING, attempts=3, next_at=later, reason="HTTP 500")
    done = [Outcome(delivery_id=each.id, state=DeliveryState.DELIVERED, attempts=1) for each in (opening, other)]
    await store.record_outcomes([*done, failed])
    kept = (await waiting(_CALLBACK))[0]
    require((kept.id, kept.attempts, kept.next_at) == (first.id, 3, later), "attempts and the next one are kept")
    require(
        set(await store.waiting_lanes()) & lanes == {(record.id, _CALLBACK)}, "a lane that owes nothing is not listed"
    )
    dead = Outcome(delivery_id=first.id, state=DeliveryState.DEAD, attempts=4, reason="HTTP 502")
    await store.record_outcomes([dead])
    await store.record_outcomes([failed, Outcome(delivery_id="unknown", state=DeliveryState.DEAD, attempts=1)])
    require(await waiting(_CALLBACK) == [second], "what does not wait any more never waits again")
    report = await store.delivery_report(record.id, 10)
    letter = DeadLetter(
        id=first.id, lane=_CALLBACK, event=first.event, created_at=_MOMENT, attempts=4, reason="HTTP 502"
    )
    require(report.dead == (letter,), "dead letters are reported with their reasons")
    counts = {
        (_CALLBACK, DeliveryState.DELIVERED): 1,
        (_CALLBACK, DeliveryState.DEAD): 1,
        (_CALLBACK, DeliveryState.WAITING): 1,
        (_WEBHOOK, DeliveryState.DELIVERED): 1,
    }
    require(report.counts == counts, "deliveries are counted by lane and state")
    require((await store.delivery_report(record.id, 0)).dead == (), "a report holds no more letters than its limit")
    await store.delete_session(record.id)
    require(await waiting(_CALLBACK) == [], "a deleted session owes nothing")
    require((await store.delivery_report(record.id, 10)).counts == {}, "nothing is left of its deliveries")
    require(not set(await store.waiting_lanes()) & lanes, "and none of its lanes is listed")


async def check_secrets(store: Store, require: Require) -> None:
    """Check what the store promises of signing secrets."""
    owner, other = f"owner-{uuid4()}", f"owner-{uuid4()}"
    old, young = (f"whsec_{uuid4().hex}" for _ in range(2))
    require(await store.signing_secrets(owner, _MOMENT) == [], "an owner begins without a secret")
    await store.rotate_secret(owner, old, _MOMENT, _MOMENT)
    require(await store.signing_secrets(owner, _MOMENT) == [old], "a secret is kept")
    require(await store.signing_secrets(other, _MOMENT) == [], "owners do not share secrets")
    await store.rotate_secret(owner, young, _MOMENT + _SECOND, _MOMENT + 5 * _SECOND)
    both = await store.signing_secrets(owner, _MOMENT + 4 * _SECOND)
    require(both == [young, old], "an old secret stays valid for a while, behind the new one")
    require(await store.signing_secrets(owner, _MOMENT + 5 * _SECOND) == [young], "and then expires")
