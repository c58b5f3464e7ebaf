"""The sessions of this process: made, found by their tokens, and ended with the server."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from vivavoce.config import Settings
from vivavoce.errors import StoreError, Unavailable
from vivavoce.model import SessionOptions, SessionRecord, Status, now
from vivavoce.plugins import AudioFiles, EngineInfo, Store, Write, plugin
from vivavoce.runtime import metrics
from vivavoce.runtime.admission import Admission, Load
from vivavoce.runtime.decode import DecodePool
from vivavoce.runtime.isolated import IsolatedAligner
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.retention import Retention
from vivavoce.runtime.session import STATES, Parts, Session, Wire

log = structlog.get_logger()

EARS = 2
"""Threads for reading, resampling and voice activity: short work that must not wait behind decoding."""

SHUT_DOWN_S = 10.0
STORE_ANSWERS_S = 2.0


def hash_of(secret: str) -> str:
    """Give what is stored of a key or token; fast on purpose, as both are random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Hub:
    """Owns the engine, the journal and one task per live session; made by `open`."""

    def __init__(self, parts: Parts, aligner: IsolatedAligner | None) -> None:
        self._parts = parts
        self._aligner = aligner
        self._sessions: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._load = Load(parts.pool, parts.journal, parts.ears)
        self._admission = Admission(parts.settings, self._load)
        days = parts.settings.retention_days
        self._retention = (
            None if days is None else Retention(days, parts.store, parts.audio, may_forget=self.may_forget)
        )
        self._unwatch = metrics.watch(self._gauges)

    @classmethod
    async def open(cls, settings: Settings, *, store: Store, audio: AudioFiles, wire: Wire) -> Hub:
        """Load the models and start; raises `SetupError` where a plugin is missing or cannot be loaded."""
        engine = await asyncio.to_thread(plugin("engines", settings.engine))
        vad = await asyncio.to_thread(plugin("vads", settings.vad))
        aligner = None
        if not engine.info.word_times:
            aligner = IsolatedAligner(plugin("aligners", settings.aligner))
            await aligner.start()
        parts = Parts(
            settings=settings,
            store=store,
            audio=audio,
            journal=Journal(store, audio),
            pool=DecodePool(engine, aligner, threads=settings.decode_threads),
            vad=vad,
            ears=ThreadPoolExecutor(EARS, thread_name_prefix="ears"),
            wire=wire,
        )
        hub = cls(parts, aligner)
        await hub._end_orphans()
        return hub

    @property
    def store(self) -> Store:
        """Where sessions are kept."""
        return self._parts.store

    @property
    def audio(self) -> AudioFiles:
        """Where their audio is kept."""
        return self._parts.audio

    @property
    def engine_info(self) -> EngineInfo:
        """What this installation's engine can do."""
        return self._parts.pool.engine.info

    def is_running(self, session_id: str) -> bool:
        """Whether a session of this process is not over yet."""
        return session_id in self._sessions

    async def may_forget(self, session_id: str) -> bool:
        """Say whether nobody needs what is stored of a session that is over."""
        return not self.is_running(session_id)

    async def obstacles(self) -> list[str]:
        """Say why no sessions should be sent here now; nothing where they may.

        Load is not among the reasons: sockets of sessions that are here must still find their way.
        """
        settings = self._parts.settings
        found = ["the server is stopping"] if self._closing else []
        if (await asyncio.to_thread(shutil.disk_usage, settings.data_dir)).free < settings.min_free_disk << 20:
            found.append("the disk is nearly full")
        try:
            async with asyncio.timeout(STORE_ANSWERS_S):
                await self.store.session("")
        except (StoreError, TimeoutError):
            found.append("the store does not answer")
        if self._parts.journal.oldest_s > settings.overload_delay:
            found.append("the store takes no writes")
        return found

    async def create(
        self,
        owner: str,
        request: Mapping[str, Any],
        custom_metadata: Mapping[str, Any] | None,
        options: SessionOptions,
        *,
        most: int | None = None,
    ) -> tuple[SessionRecord, str]:
        """Make a session and its socket token; raises `CapacityError` when there is no room.

        An owner may have `most` sessions at once, any number where that is None.
        """
        if self._closing:
            raise Unavailable("the server is stopping")
        self._admission.admit(owner, most)
        token = secrets.token_urlsafe(32)
        record = SessionRecord(
            id=str(uuid.uuid4()),
            owner=owner,
            token_hash=hash_of(token),
            status=Status.QUEUED,
            created_at=now(),
            request=request,
            custom_metadata=custom_metadata,
        )
        session = self._sessions[record.id] = Session(record, options, self._parts)
        try:
            await self.store.add_session(record)
        except BaseException:
            del self._sessions[record.id]
            self._admission.leave(owner)
            raise
        self._by_token[record.token_hash] = session
        task = asyncio.create_task(self._live(record, session), name=f"session-{record.id}")
        self._tasks[record.id] = task
        log.info("session created", session=record.id)
        return record, token

    def find(self, token: str) -> Session | None:
        """Give the live session that a socket token opens."""
        return self._by_token.get(hash_of(token))

    async def close(self) -> None:
        """End every session with what it has, then stop the engine and the journal."""
        self._closing = True
        for session in self._sessions.values():
            session.shut_down()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=SHUT_DOWN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._unwatch()
        if self._retention is not None:
            await self._retention.close()
        await self._load.close()
        await self._parts.journal.close()
        await self._parts.pool.close()
        if self._aligner is not None:
            await self._aligner.close()
        self._parts.ears.shutdown()
        self._parts.pool.engine.close()

    async def _live(self, record: SessionRecord, session: Session) -> None:
        try:
            await session.run()
        finally:
            del self._sessions[record.id], self._by_token[record.token_hash], self._tasks[record.id]
            self._admission.leave(record.owner)
            if self._retention is not None:
                self._retention.look()
            log.info("session over", session=record.id)

    def _gauges(self) -> Iterator[metrics.Gauge]:
        sessions = list(self._sessions.values())
        states = Counter(dict.fromkeys(STATES, 0))
        states.update(session.state for session in sessions)
        yield metrics.Gauge(name="sessions", text="Sessions by state.", values=dict(states), label="state")
        speakers = sum(session.speakers for session in sessions)
        yield metrics.Gauge(name="active_speakers", text="Channels with speech now.", values={"": speakers})
        unheard_s = sum(session.unheard_s for session in sessions)
        yield metrics.Gauge(
            name="audio_unheard_seconds", text="Audio that is durable and waits to be heard.", values={"": unheard_s}
        )
        waiting = {**self._parts.pool.waiting, "journal": self._parts.journal.waiting}
        yield metrics.Gauge(
            name="queue_length", text="What waits: clips to decode, by kind, and writes.", values=waiting, label="queue"
        )
        yield metrics.Gauge(
            name="delay_seconds",
            text="How long the oldest of it has waited, and how long hearing takes to begin.",
            values=self._load.delays_s,
            label="part",
        )

    async def _end_orphans(self) -> None:
        """Close the books on sessions that a crash left unfinished: their finals and audio stay, as far as stored."""
        for record in await self.store.unfinished_sessions():
            log.warning("session was cut off by a crash", session=record.id)
            ended = Write(session_id=record.id, status=Status.ERROR, error_code=500, completed_at=now())
            await self.store.commit([ended])
