"""The journal: group commit over the real store and real files, and what it does when they fail."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from vivavoce.errors import StoreError
from vivavoce.model import Control, SessionRecord, Status, now
from vivavoce.plugins import Write
from vivavoce.runtime import journal as journal_module
from vivavoce.runtime.journal import Journal
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore


class Flaky(SqlStore):
    """The real store, with commits that fail while `broken`, or for one session always."""

    broken = False
    poisoned = ""
    commits = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        if self.broken or any(write.session_id == self.poisoned for write in writes):
            raise StoreError("broken for the test")
        await super().commit(writes)


class Desk:
    """A journal with its store and files, and sessions in them."""

    def __init__(self, store: Flaky, audio: LocalAudio) -> None:
        self.store, self.audio = store, audio
        self.journal = Journal(store, audio)
        self.sizes: dict[str, int] = {}

    async def session(self) -> str:
        name = str(uuid.uuid4())
        record = SessionRecord(id=name, owner="o", token_hash=name, status=Status.QUEUED, created_at=now(), request={})
        await self.store.add_session(record)
        self.sizes[name] = 0
        return name

    def append(self, session: str, data: bytes) -> asyncio.Future[StoreError | None]:
        done: asyncio.Future[StoreError | None] = asyncio.get_running_loop().create_future()
        self.sizes[session] += len(data)
        write = Write(session_id=session, audio_bytes=self.sizes[session])
        self.journal.append_audio(session, lambda: (write, data), done.set_result)
        return done

    async def kept(self, session: str) -> bytes:
        record = await self.store.session(session)
        assert record is not None
        assert record.audio_bytes == self.audio.size(session)
        return self.audio.read(session, 0, 1 << 20)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    store = await Flaky.open(f"sqlite:///{tmp_path}/db.sqlite3")
    assert isinstance(store, Flaky)
    audio = LocalAudio(tmp_path / "audio")
    made = Desk(store, audio)
    yield made
    await made.journal.close()
    audio.close()
    await store.close()


async def test_what_is_told_is_stored(desk: Desk) -> None:
    """When a writer hears of success, the file and the committed offset both have its audio, in order."""
    session = await desk.session()
    for i in range(20):
        assert await desk.append(session, bytes([i]) * 10) is None
    assert await desk.kept(session) == b"".join(bytes([i]) * 10 for i in range(20))


async def test_audio_grows_until_its_round_begins(desk: Desk) -> None:
    """What comes while a round runs is one piece of the next one, with one answer."""
    session = await desk.session()
    waiting: list[bytes] = [b"first"]

    def take() -> tuple[Write, bytes]:
        audio = b"".join(waiting)
        waiting.clear()
        return Write(session_id=session, audio_bytes=len(audio)), audio

    answers: list[StoreError | None] = []
    desk.journal.append_audio(session, take, answers.append)
    waiting.append(b"second")
    await desk.journal.settle(session)
    assert answers == [None]
    assert await desk.kept(session) == b"firstsecond"


async def test_many_writers_share_a_transaction(desk: Desk) -> None:
    """What waits at the same time costs one commit."""
    sessions = [await desk.session() for _ in range(20)]
    await asyncio.gather(*(desk.append(session, b"x" * 100) for session in sessions))
    assert desk.store.commits == 1


async def test_a_store_that_comes_back_loses_nothing(desk: Desk) -> None:
    """A failing store is tried again; nobody is told anything before it worked."""
    session = await desk.session()
    desk.store.broken = True
    done = desk.append(session, b"abc")
    while desk.store.commits < 3:
        await asyncio.sleep(0.01)
    assert not done.done()
    desk.store.broken = False
    assert await done is None
    assert await desk.kept(session) == b"abc"


async def test_a_store_that_stays_away_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience the journal says so, cuts the audio off again, and refuses what was queued behind the hole."""
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.0)
    session = await desk.session()
    await desk.append(session, b"abc")
    desk.store.broken = True
    lost = desk.append(session, b"lost")
    while desk.store.commits < 2:
        await asyncio.sleep(0)
    behind = desk.append(session, b"behind")
    assert isinstance(await lost, StoreError)
    desk.store.broken = False
    assert isinstance(await behind, StoreError)
    assert await desk.kept(session) == b"abc"
    desk.sizes[session] = 3
    assert await desk.append(session, b"def") is None
    assert await desk.kept(session) == b"abcdef"


async def test_one_bad_session_does_not_harm_the_others(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose writes the store refuses fails alone."""
    monkeypatch.setattr(journal_module, "PATIENCE_S", 0.0)
    good, bad = await desk.session(), await desk.session()
    desk.store.poisoned = bad
    fine, failed = desk.append(good, b"good"), desk.append(bad, b"bad")
    assert await fine is None
    assert isinstance(await failed, StoreError)
    assert await desk.kept(good) == b"good"
    assert desk.audio.size(bad) == 0


async def test_settle_waits_for_what_was_queued(desk: Desk) -> None:
    """Controls count too, and settling an idle journal returns."""
    session = await desk.session()
    desk.journal.append(Write(session_id=session, controls=(Control(at=0, kind="stop"),)), lambda _: None)
    await desk.journal.settle(session)
    assert await desk.store.controls(session) == [Control(at=0, kind="stop")]
    await desk.journal.settle(session)
