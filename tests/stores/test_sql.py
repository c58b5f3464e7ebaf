import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from vivavoce.errors import StoreError
from vivavoce.events import StoredMessage
from vivavoce.model import Control, Kind, SessionRecord, Status, Utterance, Word
from vivavoce.plugins import Write
from vivavoce.stores.sql import SqlStore, contains_metadata
from vivavoce.testing.stores import check_store

MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def session(**changes: Any) -> SessionRecord:
    record = SessionRecord(
        id=str(uuid4()),
        owner="somebody",
        token_hash=uuid4().hex,
        status=Status.QUEUED,
        created_at=MOMENT,
        request={"model": "solaria-1"},
    )
    return replace(record, **changes)


def message(seq: int, content: str = "{}") -> StoredMessage:
    return StoredMessage(seq=seq, key="k", at=0, kind=Kind.FINAL, created_at=MOMENT, text=content)


def final(start: float, *words: str) -> Utterance:
    return Utterance(
        id=f"00_{round(start * 1000):08}",
        channel=0,
        start=start,
        end=start + 1,
        confidence=0.5,
        language="en",
        words=tuple(Word(text=word, start=start, end=start + 1, confidence=0.5) for word in words),
    )


async def test_keeps_every_promise_of_the_protocol(url: str) -> None:
    """The shipped contract checker finds nothing, on every database there is."""
    await check_store(lambda: SqlStore.open(url))


async def test_commits_survive_kill_9(sqlite_file: Path) -> None:
    """What `commit` returned from is there after the process dies without a chance to close."""
    record = session()
    store = await SqlStore.open(f"sqlite:///{sqlite_file}")
    await store.add_session(record)
    await store.close()
    program = f"""
import asyncio, os, signal
from vivavoce.plugins import Write
from vivavoce.stores.sql import SqlStore
async def main():
    store = await SqlStore.open("sqlite:///{sqlite_file}")
    for size in range(1, 51):
        await store.commit([Write(session_id="{record.id}", audio_bytes=size)])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    store = await SqlStore.open(f"sqlite:///{sqlite_file}")
    assert await store.session(record.id) == replace(record, audio_bytes=50)
    await store.close()


async def test_many_writes_cost_few_statements(store: SqlStore) -> None:
    """A commit of 200 writes with one of everything sends as many statements as a commit of one."""
    records = [session() for _ in range(200)]
    for record in records:
        await store.add_session(record)
    sent: list[str] = []
    event.listen(store._writer, "before_cursor_execute", lambda *given: sent.append(given[2]))
    counts = []
    for seq, some in enumerate((records[:1], records)):
        sent.clear()
        await store.commit(
            [
                Write(
                    session_id=record.id,
                    audio_bytes=seq,
                    status=Status.PROCESSING,
                    messages=(message(seq),),
                    finals=(final(seq, "word"),),
                    controls=(Control(at=seq, kind="cut"),),
                )
                for record in some
            ]
        )
        counts.append(len(sent))
    assert counts[0] == counts[1] <= 7


async def test_more_sessions_than_a_statement_may_name(store: SqlStore) -> None:
    """A commit and a filtered list of more sessions than one slice of ids lose none and repeat none."""
    records = [session(custom_metadata={"desk": 1}, created_at=MOMENT + timedelta(seconds=age)) for age in range(501)]
    for record in records:
        await store.add_session(record)
    await store.commit([Write(session_id=record.id, audio_bytes=7) for record in records])
    found = await store.list_sessions(owner="somebody", offset=0, limit=2000, custom_metadata={"desk": 1})
    assert found == [replace(record, audio_bytes=7) for record in reversed(records)]


async def test_reads_do_not_wait_for_a_write(store: SqlStore) -> None:
    """While a write transaction is open, reads answer with the state before it."""
    record = session()
    await store.add_session(record)
    with store._writer.begin() as connection:
        connection.execute(text("UPDATE progress SET audio_bytes = 5"))
        async with asyncio.timeout(60):
            assert await store.session(record.id) == record
            assert await store.list_sessions(owner=None, offset=0, limit=5, custom_metadata={"a": 1}) == []
    assert await store.session(record.id) == replace(record, audio_bytes=5)


async def test_writes_at_once_all_arrive(store: SqlStore) -> None:
    """Commits from many tasks take turns, and none is refused or lost."""
    record = session()
    await store.add_session(record)
    await asyncio.gather(
        *(store.commit([Write(session_id=record.id, messages=(message(seq),))]) for seq in range(40)),
        *(store.messages(record.id) for _ in range(40)),
    )
    assert await store.messages(record.id) == [message(seq) for seq in range(40)]


async def test_two_programs_may_write(url: str) -> None:
    """A second store on the same database, like a command beside the server, writes without being refused."""
    one, two = await asyncio.gather(SqlStore.open(url), SqlStore.open(url))
    record = session()
    await one.add_session(record)
    await asyncio.gather(
        *(
            store.commit([Write(session_id=record.id, messages=(message(2 * seq + side),))])
            for seq in range(20)
            for side, store in enumerate((one, two))
        )
    )
    assert [stored.seq for stored in await two.messages(record.id)] == list(range(40))
    await one.close()
    await two.close()


def test_two_programs_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    """SQLite refuses to change the mode of a new file where somebody is about to write; it is tried again."""
    path = tmp_path / "new.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE other (x)")
    other.execute("BEGIN IMMEDIATE")
    leaving = threading.Timer(0.3, other.execute, ["COMMIT"])
    leaving.start()
    asyncio.run(opened_and_closed(f"sqlite:///{path}"))
    leaving.join()
    other.close()


async def opened_and_closed(url: str) -> None:
    store = await SqlStore.open(url)
    await store.close()


async def cancelled_after(turns: int, work: Coroutine[Any, Any, Any]) -> None:
    """Cancel work when the event loop has turned so many times."""
    task = asyncio.create_task(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_a_cancelled_commit_is_whole(store: SqlStore) -> None:
    """A commit whose caller is cancelled at any await is applied whole or not at all, and the next commit works."""
    record = session()
    await store.add_session(record)
    for turns in range(60):
        seq = 1 + 2 * turns
        writes = [Write(session_id=record.id, messages=(message(seq),)), Write(session_id=record.id, audio_bytes=seq)]
        await cancelled_after(turns, store.commit(writes))
        await store.commit([Write(session_id=record.id, messages=(message(seq + 1),))])
        found = await store.session(record.id)
        assert found is not None
        assert (message(seq) in await store.messages(record.id)) == (found.audio_bytes == seq)


async def test_cancelled_reads_use_nothing_up(store: SqlStore) -> None:
    """Reads cancelled at any await, more of them than there are connections, leave the store readable and writable."""
    record = session()
    await store.add_session(record)
    for turns in range(40):
        await cancelled_after(turns, store.session(record.id))
    async with asyncio.timeout(60):
        await store.commit([Write(session_id=record.id, audio_bytes=5)])
        found = await asyncio.gather(*(store.session(record.id) for _ in range(8)))
    assert found == [replace(record, audio_bytes=5)] * 8


async def test_closing_waits_for_calls_that_have_begun(url: str) -> None:
    """A commit that was given before `close` is kept."""
    store = await SqlStore.open(url)
    record = session()
    await store.add_session(record)
    commits = [
        asyncio.create_task(store.commit([Write(session_id=record.id, messages=(message(seq),))])) for seq in range(5)
    ]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*commits)
    store = await SqlStore.open(url)
    assert len(await store.messages(record.id)) == 5
    await store.close()


async def test_errors_tell_no_values(store: SqlStore) -> None:
    """Neither the message nor the causes of a refused write repeat a transcript."""
    record = session()
    await store.add_session(record)
    write = Write(session_id=record.id, messages=(message(1, '"swordfish"'),), finals=(final(1.0, "swordfish"),))
    await store.commit([write])
    with pytest.raises(StoreError, match=r"cannot commit: [A-Z0-9]") as caught:
        await store.commit([write])
    assert caught.value.__cause__ is not None
    told = "".join(traceback.format_exception(caught.value))
    assert "swordfish" not in told
    assert record.id not in str(caught.value)


@pytest.mark.parametrize(
    "write",
    [
        {"messages": (replace(message(1), created_at=MOMENT.replace(tzinfo=None)),)},
        {"audio_bytes": 2**70},
        {"finals": (final(1.0, "a"), replace(final(2.0, "b"), confidence=None))},
        {"finals": (replace(final(1.0), words=(Word(text="a", start=float("nan"), end=1.0, confidence=1.0),)),)},
        {"messages": (message(1, "\ud800"),)},
    ],
    ids=["naive moment", "huge number", "missing number", "no number", "broken text"],
)
async def test_values_that_cannot_be_kept_are_refused(store: SqlStore, write: dict[str, Any]) -> None:
    """A value the database has no place for is a `StoreError`, and nothing of its commit is kept."""
    record = session()
    await store.add_session(record)
    with pytest.raises(StoreError):
        await store.commit([Write(session_id=record.id, audio_start=44), Write(session_id=record.id, **write)])
    assert await store.session(record.id) == record


async def test_moments_keep_their_instant(store: SqlStore) -> None:
    """A moment from any zone comes back as the same instant in UTC, to the microsecond."""
    zone = timezone(timedelta(hours=5, minutes=45))
    record = session(created_at=MOMENT.astimezone(zone))
    await store.add_session(record)
    found = await store.session(record.id)
    assert found is not None
    assert found.created_at == MOMENT
    assert found.created_at.tzinfo is UTC
    assert await store.list_sessions(owner=None, offset=0, limit=9, since=MOMENT.astimezone(zone)) == [found]
    assert await store.list_sessions(owner=None, offset=0, limit=9, before=MOMENT.astimezone(zone)) == []


async def test_no_filter_is_too_large(store: SqlStore) -> None:
    """Numbers and moments at the edge of what a caller can write are filters like others."""
    record = session()
    await store.add_session(record)
    east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    first, last = datetime.min.replace(tzinfo=east), datetime.max.replace(tzinfo=west)
    huge = 10**30
    assert await store.list_sessions(owner=None, offset=0, limit=huge, since=first, before=last) == [record]
    assert await store.list_sessions(owner=None, offset=huge, limit=huge) == []
    assert await store.list_sessions(owner=None, offset=huge, limit=huge, custom_metadata={"a": "b"}) == []


async def test_odd_text_comes_back(store: SqlStore) -> None:
    """Metadata and words keep every character that JSON can write."""
    odd = "naïve 🐎 \u202e \x00 \ud800 ' \" \\ ; --"
    record = session(custom_metadata={odd: [odd]}, post_session_metadata={odd: odd})
    await store.add_session(record)
    assert await store.session(record.id) == record
    await store.commit([Write(session_id=record.id, finals=(final(1.0, odd),))])
    assert await store.finals(record.id) == [final(1.0, odd)]


async def test_metadata_of_an_unknown_session_is_refused(store: SqlStore) -> None:
    """Debug data for a session that is not there does not vanish silently."""
    with pytest.raises(StoreError):
        await store.set_post_session_metadata(str(uuid4()), {})


async def test_a_closed_store_says_so(url: str) -> None:
    """After `close`, calls raise `StoreError` instead of opening the database again; closing twice is fine."""
    store = await SqlStore.open(url)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.keys()
    with pytest.raises(StoreError, match="closed"):
        await store.delete_session(str(uuid4()))


async def test_deleted_words_leave_the_files(sqlite_file: Path) -> None:
    """After a session is deleted, nothing it said is left in the database's files while they are open."""
    store = await SqlStore.open(f"sqlite:///{sqlite_file}")
    record = session()
    await store.add_session(record)
    await store.commit([Write(session_id=record.id, messages=(message(1, "swordfish " * 500),))])
    files = [sqlite_file, sqlite_file.with_name(f"{sqlite_file.name}-wal")]
    assert any(b"swordfish" in file.read_bytes() for file in files)
    await store.delete_session(record.id)
    assert not any(b"swordfish" in file.read_bytes() for file in files)
    await store.close()


async def test_deleting_does_not_wait_for_readers(store: SqlStore) -> None:
    """A reader that holds an old state keeps it, and holds up neither a deletion nor the writes after it."""
    record, other = session(), session()
    await store.add_session(record)
    await store.add_session(other)
    with store._reader.connect() as connection:
        # SQLite fixes what a transaction sees by its first read.
        connection.execute(text("SELECT count(*) FROM sessions"))
        async with asyncio.timeout(60):
            await store.delete_session(record.id)
            await store.commit([Write(session_id=other.id, audio_bytes=1)])
    assert await store.session(record.id) is None


async def test_files_are_for_this_user_only(sqlite_file: Path) -> None:
    """The database and its log can be read by nobody else, whatever the umask."""
    before = os.umask(0)
    try:
        store = await SqlStore.open(f"sqlite:///{sqlite_file}")
        await store.add_session(session())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sqlite_file.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert f"{sqlite_file.name}-wal" in modes


@pytest.mark.parametrize(("durable", "synchronous"), [(False, 1), (True, 2)])
async def test_sqlite_is_set_up(sqlite_file: Path, *, durable: bool, synchronous: int) -> None:
    """Every connection has the settings that the promises rest on; readers cannot write."""
    store = await SqlStore.open(f"sqlite:///{sqlite_file}", durable=durable)
    expected = {
        "journal_mode": "wal",
        "synchronous": synchronous,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "secure_delete": 1,
    }
    for engine, query_only in ((store._writer, 0), (store._reader, 1)):
        with engine.connect() as connection:
            for name, value in {**expected, "query_only": query_only}.items():
                assert connection.execute(text(f"PRAGMA {name}")).scalar() == value, name
    await store.close()


OWNERS = ("ada", "bob")
METADATA = (None, {}, {"desk": "3"}, {"desk": 3, "open": True}, {"desk": {"no": 3, "room": "x"}}, {"desk": {"no": 4}})
AGES = st.integers(min_value=0, max_value=12)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[SessionRecord]]:
    """Make 90 sessions with everything that a list filters by; moments repeat."""
    url = f"sqlite:///{tmp_path_factory.mktemp('library')}/vivavoce.sqlite3"
    statuses = list(Status)
    records = [
        session(
            id=str(UUID(int=number * 7919 % 997)),
            owner=OWNERS[number % 2],
            status=statuses[number * number % 4],
            created_at=MOMENT + timedelta(milliseconds=number * 5 % 13),
            custom_metadata=METADATA[number % 6],
        )
        for number in range(90)
    ]

    async def fill() -> None:
        store = await SqlStore.open(url)
        for record in records:
            await store.add_session(record)
        await store.close()

    asyncio.run(fill())
    return url, records


@settings(max_examples=60, deadline=None)
@given(
    owner=st.sampled_from((None, *OWNERS)),
    statuses=st.lists(st.sampled_from(Status), max_size=3),
    ages=st.tuples(st.none() | AGES, st.none() | AGES),
    wanted=st.sampled_from((None, {}, {"desk": "3"}, {"desk": {"no": 3}}, {"open": "true"}, {"desk": {}})),
    limit=st.integers(min_value=1, max_value=40),
)
def test_pages_together_are_the_list(  # noqa: PLR0917 (Hypothesis gives them by name)
    library: tuple[str, list[SessionRecord]],
    owner: str | None,
    statuses: list[Status],
    ages: tuple[int | None, int | None],
    wanted: dict[str, Any] | None,
    limit: int,
) -> None:
    """Pages of any size, one after the other, give each session that matches once, newest first."""
    url, records = library
    since, before = (None if age is None else MOMENT + timedelta(milliseconds=age) for age in ages)

    async def pages() -> list[SessionRecord]:
        store = await SqlStore.open(url)
        found: list[SessionRecord] = []
        while page := await store.list_sessions(
            owner=owner,
            offset=len(found),
            limit=limit,
            statuses=statuses,
            since=since,
            before=before,
            custom_metadata=wanted,
        ):
            assert len(page) <= limit
            found += page
        await store.close()
        return found

    expected = [
        record
        for record in records
        if owner in (None, record.owner)
        and (not statuses or record.status in statuses)
        and (since is None or record.created_at >= since)
        and (before is None or record.created_at < before)
        and (not wanted or contains_metadata(record.custom_metadata, wanted))
    ]
    assert asyncio.run(pages()) == sorted(expected, key=lambda record: (record.created_at, record.id), reverse=True)


@pytest.mark.parametrize(
    ("stored", "wanted", "found"),
    [
        ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": 1}, {"a": {"b": 1}}, False),
        ({"a": {}}, {"a": {}}, True),
        (None, {"a": 1}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": 3}, {"a": "3"}, True),
        ({"a": 3.5}, {"a": "3.5"}, True),
        ({"a": 3}, {"a": "3.0"}, False),
        ({"a": True}, {"a": "true"}, True),
        ({"a": True}, {"a": "True"}, False),
        ({"a": None}, {"a": "null"}, True),
        ({"a": "3"}, {"a": 3}, False),
        ({"a": "x"}, {"a": '"x"'}, False),
        ({"a": [1]}, {"a": "[1]"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": [1, {"b": 2, "c": 3}]}, {"a": [1, {"b": 2}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [True]}, {"a": [1]}, False),
    ],
)
def test_metadata_matches(stored: Any, wanted: Any, *, found: bool) -> None:
    """Objects match by containment, other values by JSON equality, and strings also by how JSON writes a scalar."""
    assert contains_metadata(stored, wanted) is found
