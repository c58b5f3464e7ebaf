"""The store on a relational database: SQLite by default, PostgreSQL by URL.

One thread with one connection writes and a few others read, each call as one piece of work: going back to the event
loop between statements would cost it more than the statements cost the database. With one writer, a transaction is
never refused because of another one of this process; SQLite's write-ahead log (WAL) and PostgreSQL's row versions let
reads go on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from vivavoce.errors import StoreError
from vivavoce.events import StoredMessage
from vivavoce.model import ApiKey, Control, Kind, Lane, SessionRecord, Snapshot, Status, Utterance, Word
from vivavoce.stores import findings as found
from vivavoce.stores import outbox as owed
from vivavoce.stores.database import READERS, empty_log, failing_as, make_engines, setup_failing
from vivavoce.stores.migrations import upgrade
from vivavoce.stores.progress import hold, note, slices
from vivavoce.stores.schema import api_keys, controls, finals, findings, messages, outbox, progress, sessions, snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Executable

    from vivavoce.model import Delivery, DeliveryReport, Finding, Outcome
    from vivavoce.plugins import Write

_T = TypeVar("_T")

_SCAN_ROWS = 500
_EMPTY_AGAIN_S = 1.0
_LARGEST = 2**63 - 1
_PROGRESS_COLUMNS = ("audio_bytes", "audio_start", "transcription_s", "ack_ends", "delivered_to")
_SESSION_COLUMNS = ("status", "completed_at", "error_code")
_NEWEST_FIRST = (sessions.c.created_at.desc(), sessions.c.id.desc())


class SqlStore:
    """`vivavoce.plugins.Store` on a relational database; belongs to the event loop that opened it."""

    def __init__(self, writer: Engine, reader: Engine) -> None:
        self._writer = writer
        self._reader = reader
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reading = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = self._emptying = False

    @classmethod
    async def open(cls, url: str, *, durable: bool = False) -> SqlStore:
        """Open the database at an SQLAlchemy URL and bring its tables up to date.

        SQLite files are made where they are missing, for this user's eyes only. What was committed survives the death
        of the process; with `durable`, SQLite waits for the disk so that it survives a power cut too (PostgreSQL does
        so by its own settings). Raises `SetupError` where the database cannot be opened or is newer than this program.
        """
        with setup_failing(url):
            store = cls(*make_engines(url, durable=durable))
            try:
                # A process that died may have left in the log what was deleted since.
                await asyncio.get_running_loop().run_in_executor(store._writing, store._prepare)
            except BaseException:
                await store.close()
                raise
            return store

    async def close(self) -> None:
        """Close the database when the calls that have begun are done; later ones raise `StoreError`."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        for engine, threads in ((self._reader, self._reading), (self._writer, self._writing)):
            await asyncio.get_running_loop().run_in_executor(threads, engine.dispose)
            threads.shutdown()

    def _prepare(self) -> None:
        with self._writer.begin() as connection:
            upgrade(connection)
        empty_log(self._writer)

    async def add_session(self, record: SessionRecord, deliveries: Sequence[Delivery] = ()) -> None:
        """Keep a new session, with what it owes from the start; its id and token hash must be new."""
        values = {column.name: getattr(record, column.name) for column in sessions.columns}
        values |= {name: dict(values[name]) for name in ("request", "post_session_metadata")}
        if record.custom_metadata is not None:
            values["custom_metadata"] = dict(record.custom_metadata)
        moving = {name: getattr(record, name) for name in _PROGRESS_COLUMNS}
        await self._change(
            "keep a session",
            insert(sessions).values(values),
            insert(progress).values(session_id=record.id, **moving),
            *(insert(outbox).values(owed.delivery_row(record.id, each)) for each in deliveries),
        )

    async def session(self, session_id: str) -> SessionRecord | None:
        """Give one session."""
        rows = await self._rows("read a session", _records().where(sessions.c.id == session_id))
        return _record(rows[0]) if rows else None

    async def session_by_token(self, token_hash: str) -> SessionRecord | None:
        """Give the session that a socket token opens."""
        rows = await self._rows("read a session", _records().where(sessions.c.token_hash == token_hash))
        return _record(rows[0]) if rows else None

    async def unfinished_sessions(self) -> list[SessionRecord]:
        """Give the sessions that are neither done nor in error, the oldest first."""
        query = _records().where(sessions.c.status.in_([Status.QUEUED, Status.PROCESSING]))
        rows = await self._rows("list sessions", query.order_by(sessions.c.created_at, sessions.c.id))
        return [_record(row) for row in rows]

    async def list_sessions(
        self,
        *,
        owner: str | None,
        offset: int,
        limit: int,
        statuses: Sequence[Status] = (),
        since: datetime | None = None,
        before: datetime | None = None,
        custom_metadata: Mapping[str, Any] | None = None,
    ) -> list[SessionRecord]:
        """Give sessions newest first, those of one moment by descending id.

        Metadata matches as `contains_metadata` says, row by row in this process: the time that takes grows with the
        sessions that the other filters let through.
        """
        filters: list[ColumnElement[bool]] = []
        if owner is not None:
            filters.append(sessions.c.owner == owner)
        if statuses:
            filters.append(sessions.c.status.in_(list(statuses)))
        if since is not None:
            filters.append(sessions.c.created_at >= since)
        if before is not None:
            filters.append(sessions.c.created_at < before)
        chosen = select(sessions.c.id).where(*filters).order_by(*_NEWEST_FIRST)
        offset, limit = min(offset, _LARGEST), min(limit, _LARGEST)

        def read(connection: Connection) -> list[SessionRecord]:
            if not custom_metadata:
                return _records_of(connection, chosen.offset(offset).limit(limit))
            found = _matching_ids(connection, chosen, dict(custom_metadata), offset, limit)
            parts = [_records_of(connection, ids) for ids in slices(found)]
            return [record for part in parts for record in part]

        return await self._read("list sessions", read)

    async def set_post_session_metadata(self, session_id: str, metadata: Mapping[str, Any]) -> None:
        """Replace the client's debug data; raises `StoreError` where there is no such session."""
        change = update(sessions).where(sessions.c.id == session_id).values(post_session_metadata=dict(metadata))
        if await self._change("keep metadata", change) == 0:
            raise StoreError("cannot keep metadata: there is no such session")

    async def delete_session(self, session_id: str) -> None:
        """Remove a session with its messages, finals, findings, controls and deliveries; none is fine."""
        await self.delete_sessions([session_id])

    async def delete_sessions(self, session_ids: Sequence[str]) -> None:
        """Remove several sessions at once; none is fine.

        SQLite overwrites what it deletes, and its log is emptied: now, or as soon as no reader holds it any more.
        """

        def remove() -> bool:
            with self._writer.begin() as connection:
                for some in slices(session_ids):
                    connection.execute(delete(sessions).where(sessions.c.id.in_(some)))
            return empty_log(self._writer)

        if not await self._apart("delete sessions", self._writing, remove) and not self._emptying:
            self._emptying = True
            task = asyncio.create_task(self._empty_log(), name="store: empty the log")
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _empty_log(self) -> None:
        """Try until the log is empty; closing the database empties it too."""
        try:
            while not self._closed:
                await asyncio.sleep(_EMPTY_AGAIN_S)
                if await asyncio.get_running_loop().run_in_executor(self._writing, empty_log, self._writer):
                    return
        except (SQLAlchemyError, OSError, ValueError):
            # The next deletion tries again, as does the next start.
            return
        finally:
            self._emptying = False

    async def expired_sessions(self, before: datetime, *, offset: int, limit: int) -> list[str]:
        """Give the ids of sessions that ended before a moment, those created first first."""
        ended = sessions.c.status.in_([Status.DONE, Status.ERROR])
        # A session is created before it ends: with that said, the database need not look at younger ones.
        due = ended & (sessions.c.created_at < before) & (sessions.c.completed_at < before)
        query = select(sessions.c.id).where(due).order_by(sessions.c.created_at, sessions.c.id)
        return [row["id"] for row in await self._rows("list old sessions", query.offset(offset).limit(limit))]

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply all writes in one transaction, in order, or none of them, even where the caller is cancelled.

        Raises `StoreError` for a session that is not there or has another epoch, and for a message, final or
        finding that is there already.
        """
        if not writes:
            return

        def apply(connection: Connection) -> None:
            _lock_sessions(connection, writes)
            note(connection, _changes(writes, _PROGRESS_COLUMNS))
            for statement, rows in _statements(writes):
                connection.execute(statement, rows)

        await self._write("commit", apply)

    async def take_over(self, session_id: str) -> int:
        """Make this process the session's only writer and give the session's new epoch."""

        def change(connection: Connection) -> int:
            own = sessions.c.id == session_id
            connection.execute(update(sessions).where(own).values(epoch=sessions.c.epoch + 1))
            return int(connection.execute(select(sessions.c.epoch).where(own)).scalar_one())

        return await self._write("take over a session", change)

    async def snapshots(self, session_id: str) -> list[Snapshot]:
        """Give the last snapshot of each channel, by channel."""
        query = select(snapshots.c.channel, snapshots.c.state).where(snapshots.c.session_id == session_id)
        return [Snapshot(**row) for row in await self._rows("read snapshots", query.order_by(snapshots.c.channel))]

    async def controls(self, session_id: str) -> list[Control]:
        """Give the journal's control entries in the order they were written."""
        query = select(controls.c.at, controls.c.kind).where(controls.c.session_id == session_id)
        rows = await self._rows("read controls", query.order_by(controls.c.position))
        return [Control(**row) for row in rows]

    async def messages(self, session_id: str, *, start: int = 0, limit: int | None = None) -> list[StoredMessage]:
        """Give the durable messages by `seq`: those from `start` on, the first `limit` of them."""
        columns = [column for column in messages.columns if column is not messages.c.session_id]
        query = select(*columns).where(messages.c.session_id == session_id, messages.c.seq >= start)
        rows = await self._rows("read messages", query.order_by(messages.c.seq).limit(limit))
        return [StoredMessage(**{**row, "kind": Kind(row["kind"])}) for row in rows]

    async def finals(self, session_id: str) -> list[Utterance]:
        """Give the finals by start, then channel."""
        columns = [column for column in finals.columns if column is not finals.c.session_id]
        query = select(*columns).where(finals.c.session_id == session_id)
        rows = await self._rows("read finals", query.order_by(finals.c.start, finals.c.channel, finals.c.id))
        return [_utterance(row) for row in rows]

    async def findings(self, session_id: str) -> list[Finding]:
        """Give what add-ons said, by feature, utterance and target."""
        return [found.finding(row) for row in await self._rows("read findings", found.findings_of(session_id))]

    async def waiting_lanes(self) -> list[tuple[str, Lane]]:
        """Give the sessions and lanes that owe deliveries, those that have owed for longest first."""
        rows = await self._rows("read the outbox", owed.waiting_lanes())
        return [(row["session_id"], Lane(row["lane"])) for row in rows]

    async def waiting_deliveries(self, session_id: str, lane: Lane, limit: int) -> list[Delivery]:
        """Give the first `limit` deliveries of a lane that wait, in the order they were committed."""
        rows = await self._rows("read the outbox", owed.waiting_deliveries(session_id, lane, limit))
        return [owed.delivery(row) for row in rows]

    async def record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Note how deliveries went; those that do not wait (any more) are passed over."""
        if not outcomes:
            return

        def note(connection: Connection) -> None:
            connection.execute(*owed.note_outcomes(outcomes))

        await self._write("note deliveries", note)

    async def delivery_report(self, session_id: str, limit: int) -> DeliveryReport:
        """Count a session's deliveries and give the first `limit` dead ones."""
        counts = await self._rows("count deliveries", owed.count_states(session_id))
        return owed.report(counts, await self._rows("read dead letters", owed.dead_letters(session_id, limit)))

    async def signing_secrets(self, owner: str, at: datetime) -> list[str]:
        """Give the secrets that sign an owner's deliveries at this moment, the newest first."""
        return [row["secret"] for row in await self._rows("read secrets", owed.valid_secrets(owner, at))]

    async def rotate_secret(self, owner: str, secret: str, at: datetime, old_until: datetime) -> None:
        """Add a secret that is valid from `at`; those before it are valid until `old_until` at most."""
        await self._change("keep a secret", *owed.rotation(owner, secret, at, old_until))

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key; its id and hash must be new."""
        await self._change("keep a key", insert(api_keys).values(asdict(key)))

    async def keys(self) -> list[ApiKey]:
        """Give all keys, revoked ones included, the oldest first."""
        rows = await self._rows("read keys", select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
        return [ApiKey(**row) for row in rows]

    async def key_by_hash(self, key_hash: str) -> ApiKey | None:
        """Give the key with this hash, unless it is revoked."""
        query = select(api_keys).where(api_keys.c.key_hash == key_hash, api_keys.c.revoked_at.is_(None))
        rows = await self._rows("read a key", query)
        return ApiKey(**rows[0]) if rows else None

    async def revoke_key(self, key_id: str, at: datetime) -> bool:
        """Revoke a key by id; False where there is none or it was revoked before."""
        change = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        return await self._change("revoke a key", change.values(revoked_at=at)) == 1

    async def _rows(self, action: str, query: Select[Any]) -> Sequence[RowMapping]:
        def read(connection: Connection) -> Sequence[RowMapping]:
            rows: Sequence[RowMapping] = connection.execute(query).mappings().all()
            return rows

        return await self._read(action, read)

    async def _change(self, action: str, *statements: Executable) -> int:
        """Run statements in one transaction and count the rows that the last one touched."""

        def change(connection: Connection) -> int:
            return [connection.execute(statement).rowcount for statement in statements][-1]

        return await self._write(action, change)

    async def _read(self, action: str, work: Callable[[Connection], _T]) -> _T:
        def read() -> _T:
            with self._reader.connect() as connection:
                return work(connection)

        return await self._apart(action, self._reading, read)

    async def _write(self, action: str, work: Callable[[Connection], _T]) -> _T:
        def write() -> _T:
            with self._writer.begin() as connection:
                return work(connection)

        return await self._apart(action, self._writing, write)

    async def _apart(self, action: str, threads: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        """Work on a thread, to the end even when the caller is cancelled."""
        if self._closed:
            raise StoreError("the store is closed")
        working = asyncio.get_running_loop().run_in_executor(threads, work)
        self._running.add(working)
        working.add_done_callback(self._running.discard)
        with failing_as(action):
            return await asyncio.shield(working)


def contains_metadata(stored: Any, wanted: Any) -> bool:
    """Say whether `wanted` is found in `stored`: objects key by key, lists item by item, other values by equality.

    As queries know only strings, a wanted string also finds the number, boolean or null that JSON writes like it.
    """
    if isinstance(wanted, dict):
        return isinstance(stored, dict) and all(
            key in stored and contains_metadata(stored[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(wanted)
            and all(contains_metadata(*pair) for pair in zip(stored, wanted, strict=True))
        )
    if isinstance(wanted, str):
        return bool(stored == wanted) or (not isinstance(stored, (str, dict, list)) and json.dumps(stored) == wanted)
    # Python takes True for 1; JSON does not.
    return isinstance(stored, bool) == isinstance(wanted, bool) and bool(stored == wanted)


def _records() -> Select[Any]:
    moving = [progress.c[name] for name in _PROGRESS_COLUMNS]
    return select(sessions, *moving).join(progress, progress.c.session_id == sessions.c.id)


def _record(row: RowMapping) -> SessionRecord:
    return SessionRecord(**{**row, "status": Status(row["status"]), "ack_ends": tuple(row["ack_ends"])})


def _utterance(row: RowMapping) -> Utterance:
    return Utterance(**{**row, "words": tuple(_word(*values) for values in row["words"])})


def _word(text: str, start: float, end: float, confidence: float, speaker: int | None = None) -> Word:
    return Word(text=text, start=start, end=end, confidence=confidence, speaker=speaker)


def _records_of(connection: Connection, ids: Select[Any] | Sequence[str]) -> list[SessionRecord]:
    query = _records().where(sessions.c.id.in_(ids)).order_by(*_NEWEST_FIRST)
    return [_record(row) for row in connection.execute(query).mappings()]


def _matching_ids(
    connection: Connection, chosen: Select[Any], wanted: dict[str, Any], offset: int, limit: int
) -> list[str]:
    found: list[str] = []
    if limit == 0:
        return found
    scan = chosen.add_columns(sessions.c.custom_metadata).execution_options(yield_per=_SCAN_ROWS)
    with connection.execute(scan) as rows:
        for row in rows:
            if not contains_metadata(row.custom_metadata, wanted):
                continue
            if offset > 0:
                offset -= 1
                continue
            found.append(row.id)
            if len(found) == limit:
                break
    return found


def _lock_sessions(connection: Connection, writes: Sequence[Write]) -> None:
    """Hold the sessions' rows for the transaction, and check that they are there and still this process's."""
    epochs = hold(connection, {write.session_id for write in writes})
    for write in writes:
        if write.session_id not in epochs:
            raise StoreError("cannot commit: there is no such session")
        if write.epoch is not None and write.epoch != epochs[write.session_id]:
            raise StoreError("cannot commit: another process has taken the session over")


def _statements(writes: Sequence[Write]) -> Iterator[tuple[Executable, list[dict[str, Any]]]]:
    """Give the statements of a commit but for the progress, each with the rows of all sessions."""
    for names, rows in _changes(writes, _SESSION_COLUMNS).items():
        yield update(sessions).where(sessions.c.id == bindparam("key")).values(_bound(names)), rows
    if rows := [_message_row(write.session_id, message) for write in writes for message in write.messages]:
        yield insert(messages), rows
    if rows := [_final_row(write.session_id, final) for write in writes for final in write.finals]:
        yield insert(finals), rows
    if rows := [found.finding_row(write.session_id, each) for write in writes for each in write.findings]:
        yield insert(findings), rows
    if rows := [_snapshot_row(write.session_id, write.snapshot) for write in writes if write.snapshot]:
        # Of several snapshots of a channel only the last one counts.
        last = {(row["session_id"], row["channel"]): row for row in rows}
        named = [{"key": session_id, "number": channel} for session_id, channel in last]
        own = (snapshots.c.session_id == bindparam("key")) & (snapshots.c.channel == bindparam("number"))
        yield delete(snapshots).where(own), named
        yield insert(snapshots), list(last.values())
    if rows := [_control_row(write.session_id, control) for write in writes for control in write.controls]:
        yield insert(controls), rows
    if rows := [owed.delivery_row(write.session_id, each) for write in writes for each in write.deliveries]:
        yield insert(outbox), rows


def _changes(writes: Sequence[Write], names: Sequence[str]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Give the last value of each field that a write sets, one row a session, grouped by the fields."""
    last: dict[str, dict[str, Any]] = {}
    for write in writes:
        given = {name: value for name in names if (value := getattr(write, name)) is not None}
        last.setdefault(write.session_id, {}).update(given)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for session_id, values in last.items():
        if values:
            groups.setdefault(tuple(sorted(values)), []).append({"key": session_id, **values})
    return groups


def _bound(names: Sequence[str]) -> dict[str, Any]:
    return {name: bindparam(name) for name in names}


def _message_row(session_id: str, message: StoredMessage) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "seq": message.seq,
        "kind": message.kind,
        "key": message.key,
        "at": message.at,
        "sent": message.sent,
        "created_at": message.created_at,
        "text": message.text,
    }


def _final_row(session_id: str, final: Utterance) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "id": final.id,
        "channel": final.channel,
        "start": final.start,
        "end": final.end,
        "confidence": final.confidence,
        "language": final.language,
        "speaker": final.speaker,
        "words": [_word_values(word) for word in final.words],
    }


def _word_values(word: Word) -> list[Any]:
    values = [word.text, word.start, word.end, word.confidence]
    return values if word.speaker is None else [*values, word.speaker]


def _snapshot_row(session_id: str, snapshot: Snapshot) -> dict[str, Any]:
    return {"session_id": session_id, "channel": snapshot.channel, "state": dict(snapshot.state)}


def _control_row(session_id: str, control: Control) -> dict[str, Any]:
    return {"session_id": session_id, "at": control.at, "kind": control.kind}
