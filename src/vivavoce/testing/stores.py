"""Contract checkers for `Store` and `AudioFiles`; built-ins and third parties run them alike.

Each breach is an `AssertionError` that names the broken promise. Every check makes sessions and keys of its own, so a
database that holds others will do, as long as nobody else writes to it meanwhile.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from vivavoce.errors import StoreError
from vivavoce.events import StoredMessage
from vivavoce.model import (
    ApiKey,
    Control,
    Entity,
    Feature,
    Finding,
    Kind,
    Sentiment,
    SessionRecord,
    Snapshot,
    Status,
    Translation,
    Utterance,
    Word,
)
from vivavoce.plugins import Write
from vivavoce.testing.outbox import check_outbox, check_secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vivavoce.plugins import AudioFiles, Store

_MOMENT = datetime(2024, 2, 29, 23, 59, 59, 123_000, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


async def check_store(open_store: Callable[[], Awaitable[Store]]) -> None:
    """Check each promise of `Store`; `open_store` opens the same storage each time, after the store before is closed.

    Raises `AssertionError` with the promise that is broken.
    """
    store = await open_store()
    try:
        for check in _CHECKS:
            await check(store)
        await check_outbox(store, _new_session(), _require)
        await check_secrets(store, _require)
        kept = await _fill(store)
    finally:
        await store.close()
    store = await open_store()
    try:
        _require(await _contents(store, kept.id) == _expected(kept), "what was committed is there after reopening")
    finally:
        await store.close()


def check_audio_files(files: AudioFiles) -> None:
    """Check each promise of `AudioFiles`; raises `AssertionError` with the promise that is broken."""
    one, other = str(uuid4()), str(uuid4())
    _require(files.read(one, 0, 10) == b"", "nothing is read where there is no file")
    _require(files.size(one) == 0, "a file that is not there has size 0")
    files.append(one, b"abc")
    files.append(other, b"xyz")
    files.append(one, b"def")
    _require(files.read(one, 0, 100) == b"abcdef", "appends follow each other, and reading ends with the file")
    _require(files.read(one, 2, 3) == b"cde", "reading starts at its offset and stops at its size")
    _require(files.read(one, 6, 1) == b"", "nothing is read from the end on")
    _require(files.read(other, 0, 100) == b"xyz", "sessions do not share audio")
    _require(files.size(one) == len(b"abcdef"), "the size counts what was appended")
    files.overwrite(one, 1, b"BC")
    _require(files.read(one, 0, 100) == b"aBCdef", "overwriting changes the bytes at its offset and no others")
    files.overwrite(one, 4, b"EFGH")
    files.overwrite(one, 9, b"!")
    _require(files.read(one, 0, 100) == b"aBCdEF", "overwriting ends with the file")
    files.overwrite(one, 1, b"bcdef")
    files.truncate(one, 4)
    files.append(one, b"!")
    _require(files.read(one, 0, 100) == b"abcd!", "appending goes on where the file was cut")
    files.release(one)
    files.release(one)
    files.append(one, b"?")
    _require(files.read(one, 0, 100) == b"abcd!?", "a released file can be appended to again")
    files.delete(one)
    files.delete(one)
    _require(files.size(one) == 0, "a deleted file is gone, and deleting it again is fine")
    _require(files.read(other, 0, 100) == b"xyz", "deleting one session's audio leaves the others'")
    files.delete(other)


def _require(kept: bool, promise: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: {promise}")


async def _require_store_error(action: Awaitable[Any], promise: str) -> None:
    try:
        await action
    except StoreError:
        return
    raise AssertionError(f"broken promise: {promise}")


def _new_session(**changes: Any) -> SessionRecord:
    record = SessionRecord(
        id=str(uuid4()),
        owner=f"owner-{uuid4()}",
        token_hash=uuid4().hex,
        status=Status.QUEUED,
        created_at=_MOMENT,
        request={"model": "solaria-1", "nested": {"list": [1, 2.5, None, True]}},
    )
    return replace(record, **changes)


def _message(seq: int, text: str = "{}") -> StoredMessage:
    return StoredMessage(
        seq=seq, key=f"key {seq}", at=seq * 10, kind=Kind.FINAL, created_at=_MOMENT + seq * _SECOND, text=text
    )


def _final(start: float, channel: int = 0) -> Utterance:
    words = (
        Word(text="Žluťoučký", start=start, end=start + 0.25, confidence=0.1 + 0.2),
        Word(text="🐎", start=start + 0.3, end=start + 0.5, confidence=1.0, speaker=channel or None),
    )
    return Utterance(
        id=f"{channel:02}_{round(start * 1000):08}",
        channel=channel,
        start=start,
        end=start + 0.5,
        confidence=0.7,
        language="cs",
        words=words,
        speaker=channel or None,
    )


async def _check_sessions(store: Store) -> None:
    record = _new_session(
        custom_metadata={"desk": "north", "ünï": [1, {"a": None}]},
        post_session_metadata={"debug": 1},
        completed_at=_MOMENT + _SECOND,
        error_code=500,
        audio_bytes=2**40,
        audio_start=44,
        transcription_s=0.1,
        ack_ends=(3, 2**40),
        delivered_to=2**40,
        epoch=7,
    )
    await store.add_session(record)
    _require(await store.session(record.id) == record, "a session comes back as it was added")
    _require(await store.session_by_token(record.token_hash) == record, "a token's hash finds its session")
    _require(await store.session(str(uuid4())) is None, "an unknown id finds nothing")
    _require(await store.session_by_token(record.id) is None, "an unknown token finds nothing")
    await _require_store_error(store.add_session(record), "a session is added once")
    twin = _new_session(token_hash=record.token_hash)
    await _require_store_error(store.add_session(twin), "a token opens one session")
    _require(await store.session(twin.id) is None, "a session that was refused is not kept")
    await store.set_post_session_metadata(record.id, {"new": {"er": "ž"}})
    changed = await store.session(record.id)
    _require(
        changed == replace(record, post_session_metadata={"new": {"er": "ž"}}),
        "debug data is replaced, and nothing else",
    )


async def _check_owners(store: Store) -> None:
    record = _new_session()
    await store.add_session(record)
    stale = await store.take_over(record.id)
    epoch = await store.take_over(record.id)
    _require(epoch > stale, "each process that takes a session over gets a later epoch")
    lost = Write(session_id=record.id, audio_bytes=5, epoch=stale)
    await _require_store_error(store.commit([lost]), "a process that lost a session cannot write to it")
    await store.commit([Write(session_id=record.id, audio_bytes=7, ack_ends=(5, 7), delivered_to=3, epoch=epoch)])
    kept = await store.session(record.id)
    _require(kept is not None and kept.audio_bytes == 7, "the owner's writes are kept")  # noqa: PLR2004
    _require(kept is not None and kept.ack_ends == (5, 7), "the ends of acknowledgments are kept")
    _require(kept is not None and kept.delivered_to == 3, "what was delivered is kept")  # noqa: PLR2004


async def _check_snapshots(store: Store) -> None:
    record = _new_session()
    await store.add_session(record)
    snapshots = [Snapshot(channel=channel, state={"at": at}) for channel, at in ((1, 1), (0, 2), (1, 3))]
    await store.commit([Write(session_id=record.id, snapshot=snapshot) for snapshot in snapshots])
    _require(await store.snapshots(record.id) == [snapshots[1], snapshots[2]], "the last snapshot of a channel counts")
    later = Snapshot(channel=0, state={"at": 9, "deep": [1.5, None]})
    await store.commit([Write(session_id=record.id, snapshot=later)])
    _require(await store.snapshots(record.id) == [later, snapshots[2]], "a snapshot takes the place of the one before")


async def _check_moments(store: Store) -> None:
    elsewhere = _MOMENT.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    record = _new_session(created_at=elsewhere)
    await store.add_session(record)
    found = await store.session(record.id)
    _require(found is not None and found.created_at.utcoffset() is not None, "moments know their time zone")
    _require(found is not None and found.created_at == _MOMENT, "moments keep at least milliseconds")


async def _check_commit(store: Store) -> None:
    record, other = _new_session(), _new_session()
    await store.add_session(record)
    await store.add_session(other)
    await store.commit([])
    await store.commit([Write(session_id=record.id)])
    _require(await store.session(record.id) == record, "an empty write changes nothing")
    late = _MOMENT + _SECOND
    await store.commit(
        [
            Write(session_id=record.id, audio_bytes=10, status=Status.PROCESSING, audio_start=44),
            Write(session_id=other.id, audio_bytes=7),
            Write(session_id=record.id, audio_bytes=20, transcription_s=0.5),
            Write(session_id=record.id, status=Status.ERROR, error_code=500, completed_at=late),
        ]
    )
    _require(
        await store.session(record.id)
        == replace(
            record,
            audio_bytes=20,
            audio_start=44,
            transcription_s=0.5,
            status=Status.ERROR,
            error_code=500,
            completed_at=late,
        ),
        "writes to one session apply in order, and fields left out keep their value",
    )
    _require(await store.session(other.id) == replace(other, audio_bytes=7), "a write changes its own session only")
    await store.commit([Write(session_id=other.id, audio_bytes=0, transcription_s=0.0)])
    _require(await store.session(other.id) == other, "zero is a value, not a field left out")


async def _check_journal(store: Store) -> None:
    record = _new_session()
    await store.add_session(record)
    connect, cut, stop = (Control(at=2**33, kind=kind) for kind in ("connect", "cut", "stop"))
    one, two, three = _final(1.0, channel=1), _final(0.5, channel=0), _final(1.0, channel=0)
    await store.commit(
        [
            Write(session_id=record.id, messages=(_message(2, '{"ž": "🐎"}'),), finals=(one,), controls=(stop, cut)),
            Write(session_id=record.id, messages=(_message(1),), finals=(two, three), controls=(connect,)),
        ]
    )
    await store.commit([Write(session_id=record.id, messages=(_message(10), _message(9)), controls=(stop,))])
    expected = [_message(1), _message(2, '{"ž": "🐎"}'), _message(9), _message(10)]
    _require(await store.messages(record.id) == expected, "messages come back whole, by seq")
    _require(
        await store.messages(record.id, start=2, limit=2) == expected[1:3],
        "messages are read from any seq on, in pages",
    )
    _require(await store.finals(record.id) == [two, three, one], "finals come back whole, by start and channel")
    _require(await store.controls(record.id) == [stop, cut, connect, stop], "controls come back as they were written")
    nobody = str(uuid4())
    nothing = (await store.messages(nobody), await store.finals(nobody), await store.controls(nobody))
    _require(nothing == ([], [], []), "an unknown session has an empty journal")


async def _check_findings(store: Store) -> None:
    record, other = _new_session(), _new_session()
    await store.add_session(record)
    await store.add_session(other)
    entity = Entity(kind="NAME", text="Žluťoučký", start=0.1 + 0.2, end=0.5, first=0, stop=1)
    sentiment = Sentiment(sentiment="mixed", emotion="joy", text="🐎", start=0.0, end=0.25, channel=3)
    speaking = replace(_final(1.0), speaker=2, language="fr")
    spoken = speaking.id
    found = [
        Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, utterance_id="00", found=()),
        Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, utterance_id=spoken, found=(entity, entity), spent_s=0.1),
        Finding(feature=Feature.SENTIMENT_ANALYSIS, utterance_id=spoken, found=(sentiment,)),
        Finding(feature=Feature.SUMMARIZATION, found=""),
        Finding(feature=Feature.TRANSLATION, utterance_id=spoken, target="de", found=None, error="too late: ž"),
        Finding(
            feature=Feature.TRANSLATION,
            utterance_id=spoken,
            target="fr",
            found=Translation(target="fr", utterance=speaking),
        ),
    ]
    await store.commit([Write(session_id=record.id, findings=tuple(found[3:]))])
    await store.commit([Write(session_id=record.id, findings=tuple(found[:3]))])
    kept = await store.findings(record.id)
    _require(kept == found, "findings come back whole, by feature, utterance and target")
    _require(await store.findings(other.id) == [], "sessions do not share findings")
    twice = Write(session_id=record.id, audio_bytes=1, findings=(replace(found[4], error="again"),))
    await _require_store_error(store.commit([twice]), "what was looked at for one thing is written once")
    await store.commit([Write(session_id=other.id, findings=tuple(found))])
    await store.delete_session(record.id)
    _require(await store.findings(record.id) == [], "a deleted session's findings are gone")
    _require(await store.findings(other.id) == found, "deleting one session leaves the findings of others")


async def _check_refused_commits(store: Store) -> None:
    record = await _fill(store)
    before = _expected(record)
    bystander = _new_session()
    await store.add_session(bystander)
    good = Write(
        session_id=bystander.id,
        audio_bytes=5,
        status=Status.DONE,
        messages=(_message(1),),
        finals=(_final(3.0),),
        controls=(Control(at=0, kind="connect"),),
    )
    refused = {
        "a seq is written once": Write(session_id=record.id, audio_bytes=9, messages=(_message(2), _message(1))),
        "a final's id is written once": Write(session_id=record.id, audio_bytes=9, finals=(_final(9.0), _final(1.0))),
        "writes to an unknown session are refused": Write(session_id=str(uuid4()), audio_bytes=1),
        "messages of an unknown session are refused": Write(session_id=str(uuid4()), messages=(_message(1),)),
    }
    for promise, bad in refused.items():
        for writes in ([good, bad], [bad, good]):
            await _require_store_error(store.commit(writes), promise)
            _require(await _contents(store, record.id) == before, f"a refused commit leaves no trace ({promise})")
            empty: _Contents = (bystander, [], [], [])
            _require(await _contents(store, bystander.id) == empty, f"all writes or none are applied ({promise})")
    await store.commit([good])
    _require(len(await store.messages(bystander.id)) == 1, "the store works on after a refused commit")


async def _check_delete(store: Store) -> None:
    record, other = await _fill(store), await _fill(store)
    await store.delete_session(record.id)
    _require(await _contents(store, record.id) == (None, [], [], []), "a deleted session is gone with its journal")
    _require(await store.session_by_token(record.token_hash) is None, "a deleted session's token opens nothing")
    _require(await _contents(store, other.id) == _expected(other), "deleting one session leaves the others")
    await store.delete_session(record.id)
    await _require_store_error(
        store.commit([Write(session_id=record.id, audio_bytes=1)]), "a deleted session cannot be written"
    )


async def _check_expired(store: Store) -> None:
    made = [
        _new_session(
            status=status, created_at=_MOMENT + age * _SECOND, completed_at=ended and _MOMENT + ended * _SECOND
        )
        for status, age, ended in (
            (Status.DONE, 0, 9),
            (Status.ERROR, -2, 3),
            (Status.DONE, -1, 4),
            (Status.PROCESSING, -9, None),
            (Status.DONE, 6, 7),
        )
    ]
    for record in made:
        await store.add_session(record)
    ids = [record.id for record in made]

    async def expired(seconds: int) -> list[str]:
        found = await store.expired_sessions(_MOMENT + seconds * _SECOND, offset=0, limit=2**31)
        return [session_id for session_id in found if session_id in ids]

    _require(await expired(3) == [], "a session that ends at the moment has not ended before it")
    _require(await expired(5) == [ids[1], ids[2]], "sessions that ended before the moment, those created first first")
    _require(await expired(99) == [ids[1], ids[2], ids[0], ids[4]], "what has not ended does not expire")
    everything = await store.expired_sessions(_MOMENT + 99 * _SECOND, offset=0, limit=2**31)
    some = await store.expired_sessions(_MOMENT + 99 * _SECOND, offset=1, limit=2)
    _require(some == everything[1:3], "offset and limit take a part")
    await store.delete_sessions(ids[1:3])
    _require(await expired(99) == [ids[0], ids[4]], "several sessions are deleted at once")
    await store.delete_sessions([])


async def _check_unfinished(store: Store) -> None:
    made = [
        _new_session(status=status, created_at=_MOMENT - age * _SECOND)
        for age, status in enumerate((Status.QUEUED, Status.DONE, Status.PROCESSING, Status.ERROR))
    ]
    for record in made:
        await store.add_session(record)
    ids = {record.id for record in made}
    found = [record for record in await store.unfinished_sessions() if record.id in ids]
    _require(found == [made[2], made[0]], "sessions neither done nor in error are unfinished, the oldest first")


async def _check_listing(store: Store) -> None:
    owner = f"owner-{uuid4()}"
    made = [
        _new_session(owner=owner, created_at=_MOMENT + age * _SECOND, status=status)
        for age, status in enumerate((Status.DONE, Status.ERROR, Status.QUEUED, Status.DONE))
    ]
    stranger = _new_session()
    for record in (made[2], made[0], stranger, made[3], made[1]):
        await store.add_session(record)
    newest_first = made[::-1]

    async def listed(**filters: Any) -> list[SessionRecord]:
        return await store.list_sessions(**{"owner": owner, "offset": 0, "limit": 100, **filters})

    _require(await listed() == newest_first, "an owner's sessions are listed newest first")
    everybody = {record.id for record in await listed(owner=None, limit=2**31)}
    _require({stranger.id, *(record.id for record in made)} <= everybody, "no owner means everybody's sessions")
    _require(await listed(offset=1, limit=2) == newest_first[1:3], "a page starts at its offset and ends at its limit")
    _require(await listed(offset=4) == [], "a page beyond the end is empty")
    _require(await listed(limit=0) == [], "a page of no sessions is empty")
    done = [made[3], made[0]]
    _require(await listed(statuses=[Status.DONE]) == done, "sessions are filtered by status")
    several = [made[3], made[1], made[0]]
    _require(await listed(statuses=[Status.DONE, Status.ERROR]) == several, "several statuses widen the filter")
    _require(await listed(since=made[2].created_at) == [made[3], made[2]], "`since` is inclusive")
    _require(await listed(before=made[2].created_at) == [made[1], made[0]], "`before` is exclusive")


async def _check_metadata_filter(store: Store) -> None:
    owner = f"owner-{uuid4()}"
    kept: tuple[dict[str, Any] | None, ...] = (
        {"a": {"b": 1, "c": "x"}, "d": "ž"},
        {"a": {"b": 2}},
        {"a": {"b": 1}},
        None,
        {},
    )
    made = [
        _new_session(owner=owner, created_at=_MOMENT - age * _SECOND, custom_metadata=metadata)
        for age, metadata in enumerate(kept)
    ]
    for record in made:
        await store.add_session(record)

    async def listed(metadata: dict[str, Any], offset: int = 0, limit: int = 100) -> list[SessionRecord]:
        return await store.list_sessions(owner=owner, offset=offset, limit=limit, custom_metadata=metadata)

    _require(await listed({"a": {"b": 1}}) == [made[0], made[2]], "nested objects match by containment")
    _require(await listed({"a": {"b": 1}, "d": "ž"}) == [made[0]], "all the given keys must match")
    _require(await listed({"a": {"b": True}}) == [], "true is not 1")
    _require(await listed({"nobody": "x"}) == [], "a key that is missing does not match")
    _require(await listed({"a": {"b": 1}}, 1, 1) == [made[2]], "offset and limit count the sessions that match")


async def _check_keys(store: Store) -> None:
    old, young = (
        ApiKey(
            id=str(uuid4()),
            name="desk ž",
            key_hash=uuid4().hex,
            created_at=_MOMENT + age * _SECOND,
            max_sessions=age or None,
            rate=age / 2 or None,
        )
        for age in range(2)
    )
    await store.add_key(young)
    await store.add_key(old)
    await _require_store_error(store.add_key(old), "a key is added once")
    await _require_store_error(store.add_key(replace(old, id=str(uuid4()))), "two keys with one hash are refused")
    late = _MOMENT + 9 * _SECOND
    _require(await store.key_by_hash(old.key_hash) == old, "a key's hash finds it")
    _require(await store.key_by_hash("unknown") is None, "an unknown hash finds no key")
    _require(await store.revoke_key(old.id, late), "a key can be revoked")
    _require(not await store.revoke_key(old.id, late + _SECOND), "a key is revoked once")
    _require(not await store.revoke_key(str(uuid4()), late), "a key that is not there cannot be revoked")
    _require(await store.key_by_hash(old.key_hash) is None, "a revoked key is not found by its hash")
    found = [key for key in await store.keys() if key.id in {old.id, young.id}]
    _require(found == [replace(old, revoked_at=late), young], "all keys are listed, revoked ones too, oldest first")


async def _fill(store: Store) -> SessionRecord:
    """Make a session with one of everything."""
    record = _new_session()
    await store.add_session(record)
    written = _expected(record)
    await store.commit(
        [
            Write(
                session_id=record.id,
                audio_bytes=3,
                messages=tuple(written[1]),
                finals=tuple(written[2]),
                controls=tuple(written[3]),
            )
        ]
    )
    return record


_Contents = tuple[SessionRecord | None, list[StoredMessage], list[Utterance], list[Control]]


def _expected(record: SessionRecord) -> _Contents:
    """Give the contents of a session that `_fill` made."""
    return replace(record, audio_bytes=3), [_message(1)], [_final(1.0)], [Control(at=0, kind="connect")]


async def _contents(store: Store, session_id: str) -> _Contents:
    return (
        await store.session(session_id),
        await store.messages(session_id),
        await store.finals(session_id),
        await store.controls(session_id),
    )


_CHECKS = (
    _check_sessions,
    _check_owners,
    _check_snapshots,
    _check_moments,
    _check_commit,
    _check_journal,
    _check_findings,
    _check_refused_commits,
    _check_delete,
    _check_expired,
    _check_unfinished,
    _check_listing,
    _check_metadata_filter,
    _check_keys,
)
