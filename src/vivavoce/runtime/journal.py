"""The journal: what sessions took and said, made durable in groups before anybody hears of it.

All sessions share one committer. It takes whatever has been written since its last round, appends the audio to the
files, commits offsets, controls, messages and finals in one transaction, and only then tells the writers, in order. So
a round costs one transaction however many sessions wait, and what was told survives the death of the process.

A store or a disk that fails is tried again for `PATIENCE_S`; what waits meanwhile is bounded by the sessions. A round
that still fails leaves nothing: its audio is cut off the files again, and its writers are told the error. Waiting also
keeps clients, which come back at once after each failure, from doing so in a tight loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from vivavoce.errors import StoreError
from vivavoce.plugins import AudioFiles, Store, Write
from vivavoce.runtime import metrics

log = structlog.get_logger()

ROUND_S, LONGEST_ROUND_S = 0.03, 0.2
"""How soon after a round began the next may begin for audio alone, so that sessions share it; what is said hurries it.

A round that takes long is followed by a pause twice as long, within bounds: hundreds of sessions leave the interpreter
free two thirds of the time.
"""

PATIENCE_S = 10.0
RETRY_S = 0.25
LOCKED_S = 1.0
"""A database that takes this long to refuse waits for somebody else."""

Then = Callable[[StoreError | None], None]
Take = Callable[[], tuple[Write, bytes]]


@dataclass(slots=True, kw_only=True)
class _Entry:
    """What waits: a write, or audio that is taken with its write when the round begins."""

    write: Write
    then: Then
    take: Take | None = None
    audio: bytes = b""
    at: float = field(default_factory=time.monotonic)


class _Hole(StoreError):
    """Audio whose beginning was not kept; trying again does not help."""


class Journal:
    """Group commit over the store and the audio files."""

    def __init__(self, store: Store, audio: AudioFiles) -> None:
        self._database = store
        self._audio = audio
        self._waiting: list[_Entry] = []
        self._committing: list[_Entry] = []
        self._some, self._urgent = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="journal")

    def append(self, write: Write, then: Then) -> None:
        """Queue a write; `then` hears on the event loop, in order, how it went.

        What is queued behind a write of the same session that fails, fails too, so that no hole is left.
        """
        self._waiting.append(_Entry(write=write, then=then))
        self._some.set()
        if write.delivered_to is None:
            self._urgent.set()

    def append_audio(self, session_id: str, take: Take, then: Then) -> None:
        """Queue a session's audio, at most one piece that was not taken yet; `then` hears as with `append`.

        `take` is called once, when its round begins, so the piece may grow until then: it gives the audio and the write
        that covers it, whose `audio_bytes` must be the length of the session's file once the audio is in it.
        """
        self._waiting.append(_Entry(write=Write(session_id=session_id), then=then, take=take))
        self._some.set()

    @property
    def waiting(self) -> int:
        """How many writes are neither durable nor failed yet."""
        return len(self._committing) + len(self._waiting)

    @property
    def oldest_s(self) -> float:
        """How long the oldest of them has been waiting."""
        oldest = next(iter(self._committing or self._waiting), None)
        return time.monotonic() - oldest.at if oldest is not None else 0.0

    async def settle(self, session_id: str) -> None:
        """Return when all that was queued before is durable or has failed."""
        done = asyncio.Event()
        self.append(Write(session_id=session_id), lambda _: done.set())
        await done.wait()

    async def close(self) -> None:
        """Commit what waits and stop."""
        await self.settle("")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        begun = took_s = 0.0
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                round_s = min(max(ROUND_S, 3 * took_s), LONGEST_ROUND_S)
                pause_s = begun + round_s - time.monotonic()
                await asyncio.wait_for(self._urgent.wait(), max(pause_s, 0.0))
            begun = time.monotonic()
            self._some.clear()
            self._urgent.clear()
            self._committing = group = self._take()
            lost: dict[str, StoreError] = {}
            try:
                lost, unstored = await self._commit(group)
            except Exception as error:
                log.exception("a journal round failed")
                failure = StoreError(f"{type(error).__name__} in the journal")
                unstored = {entry.write.session_id: failure for entry in group}
            self._committing = []
            took_s = time.monotonic() - begun
            for entry in [*group, *self._behind(unstored)]:
                session_id = entry.write.session_id
                failed = unstored.get(session_id) or (lost.get(session_id) if entry.audio else None)
                _tell(entry, failed)
                if entry.audio and failed is None:
                    metrics.ACK_SECONDS.observe(time.monotonic() - entry.at)

    def _take(self) -> list[_Entry]:
        """Take what waits, audio with all that has come of it."""
        group, self._waiting = self._waiting, []
        for entry in group:
            if entry.take is not None:
                entry.write, entry.audio = entry.take()
        return group

    def _behind(self, unstored: dict[str, StoreError]) -> list[_Entry]:
        """Take out of the queue what was given behind a write that failed: it fails too."""
        behind = [entry for entry in self._waiting if entry.write.session_id in unstored]
        if behind:
            self._waiting = [entry for entry in self._waiting if entry.write.session_id not in unstored]
        return behind

    async def _commit(self, group: list[_Entry]) -> tuple[dict[str, StoreError], dict[str, StoreError]]:
        """Make a group durable; give the sessions whose audio was not kept, and those of which nothing was."""
        lost, before = await self._append_audio(group)
        writes: dict[str, list[Write]] = {}
        for entry in group:
            # What a session said rests on audio that is durable already, not on what comes with it here.
            if not _idle(entry.write) and not (entry.audio and entry.write.session_id in lost):
                writes.setdefault(entry.write.session_id, []).append(entry.write)
        unstored = await self._store(writes)
        if unstored:
            await asyncio.to_thread(self._take_back, {each: before[each] for each in unstored if each in before})
        return lost, unstored

    async def _store(self, writes: dict[str, list[Write]]) -> dict[str, StoreError]:
        """Commit the writes of all sessions together; where that fails, of each alone, until patience ends."""
        if not writes:
            return {}
        started = time.monotonic()
        together = await self._try([write for each in writes.values() for write in each])
        failures = {} if together is None else dict.fromkeys(writes, together)
        # One session's bad write must not take the others with it; a locked database is the same for all of them.
        apart = time.monotonic() - started < LOCKED_S
        while failures and (apart or time.monotonic() < started + PATIENCE_S):
            apart = False
            tried = {session_id: await self._try(writes[session_id]) for session_id in failures}
            failures = {session_id: error for session_id, error in tried.items() if error is not None}
            if failures:
                await asyncio.sleep(RETRY_S)
        return failures

    async def _try(self, writes: list[Write]) -> StoreError | None:
        try:
            await self._database.commit(writes)
        except StoreError as error:
            log.error("the store refused a commit", writes=len(writes), error=str(error))
            return error
        return None

    async def _append_audio(self, group: list[_Entry]) -> tuple[dict[str, StoreError], dict[str, int]]:
        """Append each session's audio; give what failed and how long the other files were before."""
        pieces = {entry.write.session_id: entry for entry in group if entry.audio}
        give_up = time.monotonic() + PATIENCE_S
        failures: dict[str, StoreError] = {}
        before: dict[str, int] = {}
        told: set[str] = set()
        while pieces:
            tried = await asyncio.to_thread(self._append_pieces, pieces, before)
            for session_id, error in tried.items():
                if session_id not in told:
                    log.error("audio could not be written", session=session_id, error=str(error))
            told |= tried.keys()
            late = time.monotonic() > give_up
            failures |= {each: error for each, error in tried.items() if late or isinstance(error, _Hole)}
            pieces = {each: pieces[each] for each in tried if each not in failures}
            if pieces:
                await asyncio.sleep(RETRY_S)
        return failures, before

    def _append_pieces(self, pieces: dict[str, _Entry], before: dict[str, int]) -> dict[str, StoreError]:
        """Try each session once; note in `before` how long the files were that are longer now."""
        failures: dict[str, StoreError] = {}
        for session_id, entry in pieces.items():
            try:
                before[session_id] = self._append_to(session_id, entry)
            except StoreError as error:
                failures[session_id] = error
        return failures

    def _append_to(self, session_id: str, entry: _Entry) -> int:
        size, begin = self._audio.size(session_id), (entry.write.audio_bytes or 0) - len(entry.audio)
        if size < begin:
            raise _Hole("an earlier write of this session failed")
        if size > begin:
            # Left of a write that failed and could not be taken back.
            self._audio.truncate(session_id, begin)
        self._audio.append(session_id, entry.audio)
        return begin

    def _take_back(self, before: dict[str, int]) -> None:
        for session_id, size in before.items():
            try:
                self._audio.truncate(session_id, size)
            except StoreError as error:
                log.error("audio could not be cut back", session=session_id, error=str(error))


def _tell(entry: _Entry, failed: StoreError | None) -> None:
    try:
        entry.then(failed)
    except Exception:
        # One session's mistake must not end the journal of all.
        log.exception("a writer failed", session=entry.write.session_id)


def _idle(write: Write) -> bool:
    """Tell whether a write changes nothing and only keeps its place in the queue."""
    return write.audio_bytes is None and write == Write(session_id=write.session_id, epoch=write.epoch)
