"""What a session says is published in order and stored in order, however the store behaves."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from vivavoce.errors import StoreError
from vivavoce.events import StoredMessage
from vivavoce.model import Kind, SessionRecord, Status, now
from vivavoce.plugins import Write
from vivavoce.runtime import journal as journal_module
from vivavoce.runtime import sayings as sayings_module
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.sayings import MAX_WAITING, Sayings
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore


class Failing(SqlStore):
    """The real store; the commits that are planned to fail do, `held` ones wait."""

    plan: Sequence[bool] = ()
    tried: list[list[int]]
    held: asyncio.Event | None = None

    async def commit(self, writes: Sequence[Write]) -> None:
        self.tried.append([message.seq for write in writes for message in write.messages])
        if self.held is not None:
            await self.held.wait()
        fails, self.plan = (self.plan[0], self.plan[1:]) if self.plan else (False, ())
        if fails:
            raise StoreError("broken for the test")
        await super().commit(writes)


class Speaker:
    """One session's sayings over a real store."""

    def __init__(self, session_id: str, store: Failing, audio: LocalAudio) -> None:
        self.session_id, self.store = session_id, store
        self.journal = Journal(store, audio)
        self.published: list[int | str] = []
        self.given_up: list[StoreError] = []
        self.sayings = Sayings(self.journal, given_up=self.given_up.append)

    def say(self, seq: int) -> None:
        message = StoredMessage(seq=seq, key=str(seq), at=0, kind=Kind.FINAL, created_at=now(), text="")
        write = Write(session_id=self.session_id, messages=(message,))
        self.sayings.add(write, partial(self.published.append, seq))

    async def stored(self) -> list[int]:
        return [message.seq for message in await self.store.messages(self.session_id)]


@pytest.fixture
async def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Speaker]:
    """A session whose journal gives up each round at once."""
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(journal_module, "RETRY_S", 0.0)
    store = await Failing.open(f"sqlite:///{tmp_path}/journal.sqlite3")
    store.tried = []
    audio = LocalAudio(tmp_path / "audio")
    name = str(uuid.uuid4())
    record = SessionRecord(id=name, owner="o", token_hash=name, status=Status.QUEUED, created_at=now(), request={})
    await store.add_session(record)
    made = Speaker(name, store, audio)
    yield made
    await made.journal.close()
    audio.close()
    await store.close()


@pytest.mark.parametrize("failures", [1, 2, 3, 5, 8, 11])
async def test_an_outage_changes_no_order(speaker: Speaker, failures: int) -> None:
    """Whatever is said while the store fails, and whenever it comes back, is published in the order it was said."""
    speaker.store.plan = [True] * failures
    for seq in range(12):
        speaker.say(seq)
        await asyncio.sleep(0)
    await speaker.sayings.settle()
    assert speaker.published == list(range(12))
    assert await speaker.stored() == list(range(12))


async def test_nothing_is_stored_ahead_of_what_failed(speaker: Speaker) -> None:
    """The store never holds a message without those said before it, as a crash then would lose them."""
    speaker.store.plan, speaker.store.held = [True, True], asyncio.Event()
    speaker.say(0)
    while not speaker.store.tried:
        await asyncio.sleep(0)
    speaker.say(1)
    speaker.store.held.set()
    await speaker.sayings.settle()
    assert speaker.store.tried == [[0], [0], [0, 1]]
    assert speaker.published == [0, 1]


async def test_settling_waits_for_what_is_tried_again(speaker: Speaker) -> None:
    """Results that are gathered after it have every final."""
    speaker.store.plan = [True] * 6
    speaker.say(0)
    await speaker.sayings.settle()
    assert await speaker.stored() == [0]
    await speaker.sayings.settle()


async def test_what_is_aside_keeps_nobody_waiting(speaker: Speaker) -> None:
    """Deliveries of passing messages are stored in their turn, but the socket need not wait for them."""
    speaker.sayings.add(Write(session_id=speaker.session_id), partial(speaker.published.append, "owed"), aside=True)
    assert not speaker.sayings.pending
    speaker.say(0)
    assert speaker.sayings.pending
    await speaker.sayings.settle()
    assert speaker.published == ["owed", 0]
    assert not speaker.sayings.pending


async def test_a_store_that_stays_away_ends_it(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last try all that waits is given up, once, and what is said later is published again."""
    monkeypatch.setattr(sayings_module, "TRIES", 2)
    speaker.store.plan = [True] * 4
    speaker.say(0)
    speaker.say(1)
    await speaker.sayings.settle()
    assert len(speaker.given_up) == 1
    speaker.say(2)
    await speaker.sayings.settle()
    assert speaker.published == [2]
    assert await speaker.stored() == [2]


async def test_a_flood_waits_for_room(speaker: Speaker) -> None:
    """Whoever says more than a session does by itself, while the store is away, waits until some of it is out."""
    for _ in range(MAX_WAITING):
        speaker.sayings.add(Write(session_id=speaker.session_id))
    await speaker.sayings.room()
    speaker.say(0)
    assert speaker.published == []
    await speaker.sayings.room()
    assert speaker.published == [0]
