"""What is old is forgotten, on the real store and real files, and nothing else is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import pytest

from vivavoce.model import SessionRecord, Status, now
from vivavoce.runtime import retention
from vivavoce.runtime.retention import Retention
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore


@dataclass
class Kept:
    """A store, its audio, and the sessions that somebody still needs."""

    store: SqlStore
    audio: LocalAudio
    needed: set[str] = field(default_factory=set)

    async def may_forget(self, session_id: str) -> bool:
        return session_id not in self.needed

    async def add(self, *, ended_days_ago: float | None, created_days_ago: float = 100) -> str:
        record = SessionRecord(
            id=str(uuid4()),
            owner="local",
            token_hash=uuid4().hex,
            status=Status.PROCESSING if ended_days_ago is None else Status.DONE,
            created_at=now() - timedelta(days=created_days_ago),
            completed_at=None if ended_days_ago is None else now() - timedelta(days=ended_days_ago),
            request={},
        )
        await self.store.add_session(record)
        self.audio.append(record.id, b"sound")
        return record.id

    async def has(self, session_id: str) -> bool:
        stored = await self.store.session(session_id) is not None
        assert stored == bool(self.audio.size(session_id)), "result and audio go together"
        return stored

    async def sweep(self, days: float) -> int:
        swept = Retention(days, self.store, self.audio, may_forget=self.may_forget)
        try:
            return await swept.sweep()
        finally:
            await swept.close()


@pytest.fixture
async def kept(tmp_path, monkeypatch) -> AsyncIterator[Kept]:
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    # The task of its own would take turns with the sweep under test.
    monkeypatch.setattr(Retention, "_run", lambda _: _nothing())
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    audio = LocalAudio(tmp_path / "audio")
    yield Kept(store, audio)
    await store.close()
    audio.close()


async def _nothing() -> None:
    """Do not sweep."""


async def test_sessions_go_when_their_time_since_the_end_is_over(kept: Kept) -> None:
    """The age counts from the end, not the beginning, and what has not ended never goes."""
    old = await kept.add(ended_days_ago=31)
    young = await kept.add(ended_days_ago=29)
    unfinished = await kept.add(ended_days_ago=None)
    assert await kept.sweep(30) == 1
    assert [await kept.has(each) for each in (old, young, unfinished)] == [False, True, True]


async def test_what_is_still_needed_stays_and_holds_up_nobody(kept: Kept) -> None:
    """More of them than a batch: those behind go all the same, and they themselves once they may."""
    kept.needed = {await kept.add(ended_days_ago=9, created_days_ago=99) for _ in range(retention.BATCH + 3)}
    free = [await kept.add(ended_days_ago=9, created_days_ago=50) for _ in range(retention.BATCH + 3)]
    assert await kept.sweep(1) == len(free)
    assert not any([await kept.has(each) for each in free])
    assert all([await kept.has(each) for each in kept.needed])
    waited, kept.needed = kept.needed, set()
    assert await kept.sweep(0) == len(waited)
