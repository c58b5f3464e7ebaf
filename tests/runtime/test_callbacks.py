"""The courier against real receivers and a real store: order, repetition, independence, and the end of patience."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from receiver import OK, Receiver, receiving, status
from vivavoce.config import Settings
from vivavoce.errors import StoreError
from vivavoce.model import Delivery, DeliveryState, Lane, SessionRecord, Status, now
from vivavoce.plugins import Write
from vivavoce.runtime.callbacks import OLD_SECRET_VALID, SERVER_OWNER, Courier, new_secret
from vivavoce.stores.sql import SqlStore

WAITING, DELIVERED, DEAD = DeliveryState.WAITING, DeliveryState.DELIVERED, DeliveryState.DEAD


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[SqlStore]:
    """Give an empty store."""
    opened = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    yield opened
    await opened.close()


@asynccontextmanager
async def couriering(store: SqlStore, **settings) -> AsyncIterator[Courier]:
    """Run a courier for the block, on what is in the outbox already."""
    courier = Courier(store, Settings(**{"allow_private_callbacks": True, "callback_timeout": 1, **settings}))
    await courier.open()
    try:
        yield courier
    finally:
        await courier.close()


async def new_session(store: SqlStore, owner: str = "local") -> str:
    """Keep a session and give its id."""
    record = SessionRecord(
        id=str(uuid4()), owner=owner, token_hash=uuid4().hex, status=Status.DONE, created_at=now(), request={}
    )
    await store.add_session(record)
    return record.id


async def owe(
    store: SqlStore, session_id: str, url: str, bodies: list[str], *, lane: Lane = Lane.CALLBACK, age_s: float = 0
) -> tuple[Delivery, ...]:
    """Put deliveries into the outbox, as a session's commits do."""
    at = now() - timedelta(seconds=age_s)
    deliveries = tuple(
        Delivery(id=f"msg_{uuid4().hex}", lane=lane, event="live.transcript", url=url, body=body, created_at=at)
        for body in bodies
    )
    await store.commit([Write(session_id=session_id, deliveries=(each,)) for each in deliveries])
    return deliveries


async def counts(store: SqlStore, session_id: str) -> dict[DeliveryState, int]:
    """Count a session's deliveries by state."""
    found = (await store.delivery_report(session_id, 100)).counts
    return {state: sum(number for (_, each), number in found.items() if each is state) for state in DeliveryState}


async def until(check, within_s: float = 90) -> None:
    """Wait until an asynchronous question is answered yes."""
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(0.02)


def taken(receiver: Receiver, prefix: str = "") -> list[str]:
    """Give the bodies that a receiver took, each where it first came."""
    return list(dict.fromkeys(post.body for post in receiver.taken if post.body.startswith(prefix)))


async def test_every_message_arrives_in_the_order_of_its_session_while_three_in_ten_fail(store):
    """At least once and in order, whatever fails, and with the same id at each attempt."""
    chance = random.Random(27)
    async with receiving(lambda _: status(500) if chance.random() < 0.3 else OK) as receiver:
        sessions = [await new_session(store) for _ in range(8)]
        wanted = {each: [f"{each} {n}" for n in range(12)] for each in sessions}
        async with couriering(store) as courier:
            for each, bodies in wanted.items():
                courier.wake(each, await owe(store, each, receiver.url, bodies))
            await receiver.until(lambda it: len(it.taken) >= 96)
            for each, bodies in wanted.items():
                assert taken(receiver, each) == bodies
        assert len(receiver.posts) > 110
        ids = {post.body: {other.id for other in receiver.posts if other.body == post.body} for post in receiver.posts}
        assert all(len(each) == 1 for each in ids.values())
        for each in sessions:
            assert await counts(store, each) == {WAITING: 0, DELIVERED: 12, DEAD: 0}


async def test_what_is_not_delivered_when_the_courier_dies_is_delivered_by_the_next(store):
    """The outbox is rows and nothing else: whoever opens the store goes on, in order."""
    session_id = await new_session(store)
    bodies = [str(n) for n in range(40)]
    async with receiving() as receiver:
        await owe(store, session_id, receiver.url, bodies)
        courier = Courier(store, Settings(allow_private_callbacks=True))
        await courier.open()
        await receiver.until(lambda it: len(it.taken) >= 3)
        for task in [*courier._tasks.values(), courier._notes._task]:
            task.cancel()
        first = len(receiver.taken)
        assert first < 40
        async with couriering(store):
            await until(lambda: none_waits(store, session_id))
        assert taken(receiver) == bodies
        assert await counts(store, session_id) == {WAITING: 0, DELIVERED: 40, DEAD: 0}


async def none_waits(store: SqlStore, session_id: str) -> bool:
    return (await counts(store, session_id))[WAITING] == 0


async def test_attempts_and_the_next_one_outlive_a_restart(store):
    """A restart does not hammer a receiver that was being left alone."""
    session_id = await new_session(store)
    async with receiving(lambda _: status(503)) as receiver:
        await owe(store, session_id, receiver.url, ["x"])
        async with couriering(store):
            await receiver.until(lambda it: len(it.posts) >= 3)
        (kept,) = await store.waiting_deliveries(session_id, Lane.CALLBACK, 5)
        assert kept.attempts >= 3
        assert kept.next_at is not None
        seen = len(receiver.posts)
        async with couriering(store):
            await receiver.until(lambda it: len(it.posts) > seen)
            assert now() >= kept.next_at
        (later,) = await store.waiting_deliveries(session_id, Lane.CALLBACK, 5)
        assert later.attempts > kept.attempts


async def test_a_hanging_receiver_delays_nobody_else(store):
    """Many sessions of a receiver that never answers, and one of another that does."""

    async def never(_):
        await asyncio.Event().wait()

    options = {"callback_timeout": 60}
    async with receiving(never) as hanging, receiving() as good, couriering(store, **options) as courier:
        for _ in range(40):
            stuck = await new_session(store)
            courier.wake(stuck, await owe(store, stuck, hanging.url, ["a", "b"]))
        await hanging.until(lambda it: it.open_now >= 10)
        session_id = await new_session(store)
        courier.wake(session_id, await owe(store, session_id, good.url, [str(n) for n in range(50)]))
        await good.until(lambda it: len(it.taken) >= 50)
        assert hanging.open_now >= 10, "it was given up meanwhile"


async def test_many_sessions_share_one_receiver_without_a_failed_attempt(store):
    """They wait for one another's connections outside the time that a receiver has, and never starve."""
    sessions = [await new_session(store) for _ in range(96)]
    async with receiving() as receiver:
        for each in sessions:
            await owe(store, each, receiver.url, ["a", "b", "c", "d", "e"])
        async with couriering(store, callback_timeout=5):
            await receiver.until(lambda it: len(it.taken) >= 480)
        assert len(receiver.posts) == 480
        assert receiver.most_open <= 16


async def test_after_the_deadline_a_message_is_dead_and_the_next_one_goes_on(store):
    """The dead letter says why; the others arrive in order."""
    session_id = await new_session(store)
    async with receiving(lambda post: status(500) if post.body == "poison" else OK) as receiver:
        async with couriering(store, callback_deadline=3) as courier:
            courier.wake(session_id, await owe(store, session_id, receiver.url, ["a"], age_s=-60))
            courier.wake(session_id, await owe(store, session_id, receiver.url, ["poison"]))
            courier.wake(session_id, await owe(store, session_id, receiver.url, ["b", "c"], age_s=-60))
            await receiver.until(lambda it: len(it.taken) >= 3)
        assert taken(receiver) == ["a", "b", "c"]
        report = await store.delivery_report(session_id, 100)
        (letter,) = report.dead
        assert letter.reason == "the receiver answered 500"
        assert letter.attempts == len([post for post in receiver.posts if post.body == "poison"]) > 1
        assert await counts(store, session_id) == {WAITING: 0, DELIVERED: 3, DEAD: 1}


async def test_messages_overdue_behind_a_dead_one_share_its_fate(store):
    """A long queue for a dead receiver does not take one timeout for each of its messages."""
    session_id = await new_session(store)
    async with receiving(lambda _: status(500)) as receiver:
        await owe(store, session_id, receiver.url, [str(n) for n in range(200)], age_s=100)
        async with couriering(store, callback_deadline=50):
            await until(lambda: none_waits(store, session_id))
        assert len(receiver.posts) == 1
        assert await counts(store, session_id) == {WAITING: 0, DELIVERED: 0, DEAD: 200}


async def test_a_message_that_was_never_tried_is_tried_even_if_its_deadline_has_passed(store):
    """A server that was off for long still delivers what it owes."""
    session_id = await new_session(store)
    async with receiving() as receiver:
        await owe(store, session_id, receiver.url, ["a", "b"], age_s=1000)
        async with couriering(store, callback_deadline=1):
            await receiver.until(lambda it: len(it.taken) == 2)


@pytest.mark.parametrize(
    ("answer", "private", "reason"),
    [(status(410), True, "the receiver answered 410"), (OK, False, "the address is not a public one")],
)
async def test_what_no_repetition_would_mend_is_dead_at_once(store, answer, private, reason):
    """A receiver that is gone, and an address that must not be posted to."""
    session_id = await new_session(store)
    async with receiving(lambda _: answer) as receiver:
        await owe(store, session_id, receiver.url, ["a"])
        async with couriering(store, allow_private_callbacks=private):
            await until(lambda: none_waits(store, session_id))
        (letter,) = (await store.delivery_report(session_id, 100)).dead
        assert letter.reason.startswith(reason)
        assert letter.attempts == 1
        assert len(receiver.posts) == (1 if private else 0)


async def test_the_webhook_is_a_lane_of_its_own_and_may_be_private(store):
    """A session's dead callback holds up no webhook, and the operator's own address needs no permission."""
    session_id = await new_session(store)
    async with receiving(lambda _: status(500)) as callback, receiving() as webhook:
        await owe(store, session_id, callback.url, ["a", "b"])
        await owe(store, session_id, webhook.url, ["x", "y"], lane=Lane.WEBHOOK)
        async with couriering(store, allow_private_callbacks=False):
            await webhook.until(lambda it: len(it.taken) == 2)
        assert taken(webhook) == ["x", "y"]
        assert callback.posts == []


async def test_a_webhook_is_not_led_elsewhere(store):
    """The operator named one address; what it redirects to was named by nobody."""
    session_id = await new_session(store)
    async with receiving() as other:
        answer = f"HTTP/1.1 307 X\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with receiving(lambda _: answer) as webhook, couriering(store) as courier:
            courier.wake(session_id, await owe(store, session_id, webhook.url, ["x"], lane=Lane.WEBHOOK))
            await webhook.until(lambda it: len(it.posts) >= 2)
        assert other.posts == []


async def test_deleting_a_session_ends_its_deliveries(store):
    """What is deleted is not posted any more."""
    session_id = await new_session(store)
    async with receiving(lambda _: status(500)) as receiver, couriering(store) as courier:
        courier.wake(session_id, await owe(store, session_id, receiver.url, ["a", "b"]))
        await receiver.until(lambda it: len(it.posts) >= 2)
        await store.delete_session(session_id)

        async def idle() -> bool:
            return not courier._tasks

        await until(idle)
        assert {post.body for post in receiver.posts} == {"a"}


def signed_with(secret: str, post) -> bool:
    """Check a signature as the how-to shows it, without any library."""
    key = b64decode(secret.removeprefix("whsec_"))
    content = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.{post.body}".encode()
    wanted = "v1," + b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return any(hmac.compare_digest(wanted, given) for given in post.headers["webhook-signature"].split())


async def test_deliveries_are_signed_with_the_secret_of_the_session_s_owner(store):
    """By the Standard Webhooks scheme; webhooks with the server's own secret."""
    secrets = {owner: new_secret() for owner in ("key-one", "key-two", SERVER_OWNER)}
    for owner, secret in secrets.items():
        await store.rotate_secret(owner, secret, now(), now())
    async with receiving() as receiver, couriering(store) as courier:
        for owner in ("key-one", "key-two"):
            session_id = await new_session(store, owner)
            courier.wake(session_id, await owe(store, session_id, receiver.url, [json.dumps({"ž": owner})]))
            courier.wake(session_id, await owe(store, session_id, receiver.url, ["{}"], lane=Lane.WEBHOOK))
        await receiver.until(lambda it: len(it.taken) == 4)
    for post in receiver.taken:
        owner = post.json.get("ž", SERVER_OWNER)
        assert {each for each, secret in secrets.items() if signed_with(secret, post)} == {owner}
        assert Webhook(secrets[owner]).verify(post.body, post.headers) == post.json
        assert abs(int(post.headers["webhook-timestamp"]) - time.time()) < 30


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_while(store):
    """Receivers change over without losing a message."""
    old, new, session_id = new_secret(), new_secret(), await new_session(store)
    at = now()
    await store.rotate_secret(SERVER_OWNER, old, at - timedelta(days=3), at)
    await store.rotate_secret(SERVER_OWNER, new, at, at + OLD_SECRET_VALID)
    async with receiving() as receiver:
        await owe(store, session_id, receiver.url, ["{}"])
        async with couriering(store):
            await receiver.until(lambda it: len(it.taken) == 1)
        assert signed_with(old, receiver.taken[0])
        assert signed_with(new, receiver.taken[0])
    assert await store.signing_secrets(SERVER_OWNER, at + OLD_SECRET_VALID) == [new]


async def test_an_owner_without_a_secret_gets_one_that_stays(store):
    """Nothing is posted without a signature, also of keys from before there were secrets."""
    session_id = await new_session(store, "old-key")
    async with receiving() as receiver:
        await owe(store, session_id, receiver.url, ["{}", "[]"])
        async with couriering(store):
            await receiver.until(lambda it: len(it.taken) == 2)
        (secret,) = await store.signing_secrets("old-key", now())
        assert all(signed_with(secret, post) for post in receiver.taken)


async def test_a_store_that_fails_for_a_while_loses_nothing(store, monkeypatch):
    """Outcomes wait for it, and so does the lane."""
    session_id = await new_session(store)
    record, failures = store.record_outcomes, [StoreError("disk full")] * 2

    async def failing(outcomes):
        if failures:
            raise failures.pop()
        await record(outcomes)

    monkeypatch.setattr(store, "record_outcomes", failing)
    async with receiving() as receiver, couriering(store) as courier:
        courier.wake(session_id, await owe(store, session_id, receiver.url, [str(n) for n in range(20)]))
        await until(lambda: none_waits(store, session_id))
        assert [post.body for post in receiver.taken] == [str(n) for n in range(20)]


async def test_logs_hold_neither_what_was_said_nor_where_it_went(store, capsys):
    """A receiver's URL is a secret as often as not."""
    session_id = await new_session(store)
    async with receiving(lambda _: status(500)) as receiver:
        await owe(store, session_id, f"{receiver.url}/s3cret?token=t0ken", ["the quick brown fox"], age_s=100)
        async with couriering(store, callback_deadline=1):
            await until(lambda: none_waits(store, session_id))
    logged = "".join(capsys.readouterr())
    assert "given up" in logged
    assert session_id in logged
    for secret in ("fox", "s3cret", "t0ken", "whsec_"):
        assert secret not in logged
