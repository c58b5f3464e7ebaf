"""The sessions of this process: made, taken up from an earlier one, found by their tokens, and left to the next one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog

from vivavoce.config import Settings
from vivavoce.errors import StoreError, Unavailable
from vivavoce.model import DeliveryState, Lane, SessionOptions, SessionRecord, Status, now
from vivavoce.plugins import AudioFiles, EngineInfo, Store, Vad, Write, plugin
from vivavoce.runtime import metrics
from vivavoce.runtime.addons import Addons
from vivavoce.runtime.admission import Admission, Load, weight
from vivavoce.runtime.callbacks import Courier
from vivavoce.runtime.catalogue import Catalogue, Listed
from vivavoce.runtime.decode import DecodePool
from vivavoce.runtime.isolated import IsolatedAligner, IsolatedDiarizer
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.listener import Models
from vivavoce.runtime.parts import Parts, Past, Wire
from vivavoce.runtime.retention import Retention
from vivavoce.runtime.session import STATES, Session
from vivavoce.runtime.silencing import asks_for_silence, names_silence, silence_session
from vivavoce.runtime.watch import Watchers

log = structlog.get_logger()

EARS = 2
"""Threads for reading, resampling and voice activity: short work that must not wait behind decoding."""

STORE_ANSWERS_S = 2.0


def hash_of(secret: str) -> str:
    """Give what is stored of a key or token; fast on purpose, as both are random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Hub:
    """Owns the engine, the journal and one task per live session; made by `open`."""

    def __init__(self, parts: Parts, models_wanted: asyncio.Event) -> None:
        self._parts = parts
        self._models_wanted = models_wanted
        self._sessions: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        self._by_leg: dict[tuple[str, str], Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._load = Load(self._pools, parts.journal, parts.ears)
        self._admission = Admission(parts.settings, self._load)
        days = parts.settings.retention_days
        self._retention = (
            None if days is None else Retention(days, parts.store, parts.audio, may_forget=self.may_forget)
        )
        self._unwatch = metrics.watch(self._gauges)

    @classmethod
    async def open(cls, settings: Settings, *, store: Store, audio: AudioFiles, wire: Wire) -> Hub:
        """Take up what an earlier process left; sessions take audio at once, and are heard when the models are there.

        Nothing is loaded before `ready` is called, so that the server listens first: loading takes the processor from
        whatever else starts.
        """
        wanted = asyncio.Event()
        models = asyncio.create_task(_load(settings, wanted), name="models")
        parts = Parts(
            settings=settings,
            store=store,
            audio=audio,
            journal=Journal(store, audio),
            courier=Courier(store, settings),
            models=models,
            ears=ThreadPoolExecutor(EARS, thread_name_prefix="ears"),
            wire=wire,
        )
        hub = cls(parts, wanted)
        await hub._reopen()
        parts.courier.on_settled = hub._left
        await parts.courier.open()
        return hub

    async def ready(self) -> None:
        """Load the models; raises `SetupError` where a plugin is missing or cannot be loaded."""
        self._models_wanted.set()
        await asyncio.shield(self._parts.models)

    @property
    def store(self) -> Store:
        """Where sessions are kept."""
        return self._parts.store

    @property
    def audio(self) -> AudioFiles:
        """Where their audio is kept."""
        return self._parts.audio

    async def engine_info(self, model: str) -> EngineInfo:
        """Say what the model of this name can do, or the default; raises `Unavailable` where it cannot be loaded."""
        return await self._parts.models.result().catalogue.info(model)

    async def models(self, *, fetchable: bool = True) -> list[Listed]:
        """Give the models that sessions may name, and those that are `fetchable`; once `ready` has returned."""
        return await self._parts.models.result().catalogue.models(fetchable=fetchable)

    @property
    def features(self) -> frozenset[str]:
        """Names of the features that this installation's add-ons provide; known once `ready` has returned."""
        return frozenset(self._parts.models.result().addons.features)

    @property
    def remedies(self) -> Mapping[str, str]:
        """What would provide those that lack something, by their names."""
        return {feature.value: remedy for feature, remedy in self._parts.models.result().addons.missing.items()}

    def is_running(self, session_id: str) -> bool:
        """Whether a session of this process still writes: results, messages or audio."""
        session = self._sessions.get(session_id)
        return session is not None and not session.over

    async def watchers(self, session_id: str) -> Watchers:
        """Give those who watch a session; of one that is not running here, only what is stored can be watched."""
        session = self._sessions.get(session_id)
        if session is not None:
            return session.watchers
        record = await self.store.session(session_id)
        return Watchers.of_past(over=record is None or record.status in {Status.DONE, Status.ERROR})

    async def may_forget(self, session_id: str) -> bool:
        """Say whether nobody needs what is stored of a session that is over."""
        if session_id in self._sessions:
            return False
        report = await self.store.delivery_report(session_id, 0)
        return not any(report.counts.get((lane, DeliveryState.WAITING)) for lane in Lane)

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
        leg: str | None = None,
    ) -> tuple[SessionRecord, str]:
        """Make a session and its socket token; raises `CapacityError` when there is no room.

        Raises `RequestError` where an add-on cannot do what it is asked for, and `Unavailable` where the model cannot
        be loaded. An owner may have `most` sessions at once, any number where that is None. `leg` is the leg of a call
        that `find_leg` finds the session by.
        """
        if self._closing:
            raise Unavailable("the server is stopping")
        self._admission.admit(owner, most, weight(options))
        token = secrets.token_urlsafe(32)
        record = SessionRecord(
            id=str(uuid.uuid4()),
            owner=owner,
            token_hash=hash_of(token),
            status=Status.QUEUED,
            created_at=now(),
            request=request,
            custom_metadata=custom_metadata,
            leg=leg,
        )
        try:
            models = await asyncio.shield(self._parts.models)
            lease = await models.catalogue.take(options.model)
            try:
                opened = await models.addons.open(options)
                session = Session(record, options, self._parts, opened=opened, lease=lease)
                opening = session.opening(record.created_at)
                await self.store.add_session(record, opening)
            except BaseException:
                lease.give_back()
                raise
        except BaseException:
            self._admission.leave(owner, weight(options))
            raise
        self._begin(record, session)
        self._parts.courier.wake(record.id, opening)
        log.info("session created", session=record.id)
        return record, token

    def find(self, token: str) -> Session | None:
        """Give the live session that a socket token opens."""
        return self._by_token.get(hash_of(token))

    def find_leg(self, owner: str, leg: str) -> Session | None:
        """Give the live session of a call's leg; it still takes audio unless it was stopped."""
        return self._by_leg.get((owner, leg))

    async def drain(self) -> None:
        """Take no new sessions, and let those there are rest at an utterance boundary, or where the time is over."""
        self._closing = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.drain()
        waiting = [asyncio.create_task(session.resting.wait()) for session in sessions]
        if not waiting:
            return
        rested, late = await asyncio.wait(waiting, timeout=self._parts.settings.drain_timeout)
        for task in late:
            task.cancel()
        log.info("drained", at_a_boundary=len(rested), in_speech=len(late))

    async def close(self) -> None:
        """Leave the sessions to the next process, and stop the engine and the journal."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._unwatch()
        if self._retention is not None:
            await self._retention.close()
        await self._load.close()
        await self._parts.journal.close()
        await self._parts.courier.close()
        if not self._models_wanted.is_set():
            self._parts.models.cancel()
        (models,) = await asyncio.gather(self._parts.models, return_exceptions=True)
        if isinstance(models, Models):
            await models.close()
        self._parts.ears.shutdown()

    def _begin(self, record: SessionRecord, session: Session) -> None:
        self._sessions[record.id] = self._by_token[record.token_hash] = session
        if record.leg is not None:
            self._by_leg[record.owner, record.leg] = session
        self._tasks[record.id] = asyncio.create_task(self._live(record, session), name=f"session-{record.id}")

    async def _live(self, record: SessionRecord, session: Session) -> None:
        try:
            await session.run()
        finally:
            session.watchers.close(over=session.over)
            # While the server stops, a resting session still takes its client's audio for the next process.
            if not self._closing:
                del self._sessions[record.id], self._by_token[record.token_hash], self._tasks[record.id]
                if record.leg is not None and self._by_leg.get((record.owner, record.leg)) is session:
                    del self._by_leg[record.owner, record.leg]
                self._admission.leave(record.owner, weight(session.options))
                self._left(record.id)
            log.info("session over" if session.over else "session left", session=record.id)

    def _left(self, session_id: str) -> None:
        """Take note that somebody is done with a session."""
        if self._retention is not None and session_id not in self._sessions:
            self._retention.look()

    def _pools(self) -> list[DecodePool]:
        """Give the pools of the models that are loaded."""
        models = self._parts.models
        loaded = models.done() and not models.cancelled() and models.exception() is None
        return models.result().catalogue.pools if loaded else []

    def _gauges(self) -> Iterator[metrics.Gauge]:
        sessions = list(self._sessions.values())
        states = Counter(dict.fromkeys(STATES, 0))
        states.update(session.state for session in sessions)
        yield metrics.Gauge(name="sessions", text="Sessions by state.", values=dict(states), label="state")
        speakers = sum(session.speakers for session in sessions)
        yield metrics.Gauge(name="active_speakers", text="Channels with speech now.", values={"": speakers})
        watchers = sum(len(session.watchers) for session in sessions)
        yield metrics.Gauge(name="watchers", text="Who watches sessions.", values={"": watchers})
        unheard_s = sum(session.unheard_s for session in sessions)
        yield metrics.Gauge(
            name="audio_unheard_seconds", text="Audio that is durable and waits to be heard.", values={"": unheard_s}
        )
        waiting = Counter[str]()
        for pool in self._pools():
            waiting.update(pool.waiting)
        waiting["journal"] = self._parts.journal.waiting
        yield metrics.Gauge(
            name="queue_length",
            text="What waits: clips to decode, by kind, and writes.",
            values=dict(waiting),
            label="queue",
        )
        yield metrics.Gauge(
            name="delay_seconds",
            text="How long the oldest of it has waited, and how long hearing takes to begin.",
            values=self._load.delays_s,
            label="part",
        )

    async def _reopen(self) -> None:
        """Take up the sessions that an earlier process left unfinished; their clients may come back at once."""
        for record in await self.store.unfinished_sessions():
            try:
                await self._reopen_one(record)
            except Exception:
                # One session that cannot be taken up must not keep the others away.
                log.exception("session cannot be taken up", session=record.id)
                self._tasks[record.id] = asyncio.create_task(self._give_up(record), name=f"give-up-{record.id}")

    async def _give_up(self, record: SessionRecord) -> None:
        """End a session that cannot be taken up, when nothing is left in its audio that was to be silenced."""
        try:
            if await self._silence(record):
                ended = Write(session_id=record.id, status=Status.ERROR, error_code=500, completed_at=now())
                await self.store.commit([ended])
        except StoreError as error:
            log.error("session is not ended: the next process tries again", session=record.id, error=str(error))
        finally:
            if not self._closing:
                del self._tasks[record.id]

    async def _silence(self, record: SessionRecord) -> bool:
        try:
            options = self._parts.wire.options_of(record.request)
        except Exception:
            if not names_silence(record.request):
                return True
            log.exception("nobody can tell what to silence: audio is deleted", session=record.id)
            await asyncio.to_thread(self.audio.delete, record.id)
            return True
        if not asks_for_silence(options):
            return True
        return await silence_session(self.store, self.audio, record.id, options, failed=True)

    async def _reopen_one(self, record: SessionRecord) -> None:
        store, audio = self.store, self.audio
        epoch = await store.take_over(record.id)
        await asyncio.to_thread(audio.truncate, record.id, record.audio_bytes)
        kept = await asyncio.to_thread(audio.size, record.id)
        if kept < record.audio_bytes:
            log.error("audio is missing", session=record.id, bytes=record.audio_bytes - kept)
        record = replace(record, epoch=epoch, audio_bytes=kept)
        past = Past(
            messages=await store.messages(record.id),
            finals=await store.finals(record.id),
            controls=await store.controls(record.id),
            snapshots=await store.snapshots(record.id),
        )
        session = Session(record, self._parts.wire.options_of(record.request), self._parts, past)
        self._admission.enter(record.owner, weight(session.options))
        self._begin(record, session)
        log.info("session taken up", session=record.id)


async def _load(settings: Settings, wanted: asyncio.Event) -> Models:
    def load_vad() -> Vad:
        vad: Vad = plugin("vads", settings.vad)()
        return vad

    await wanted.wait()
    aligner = IsolatedAligner(plugin("aligners", settings.aligner))
    diarizer = IsolatedDiarizer(plugin("diarizers", settings.diarizer), processes=settings.diarizer_processes)
    catalogue, vad, addons = await asyncio.gather(
        Catalogue.open(settings, aligner=aligner, diarizer=diarizer),
        asyncio.to_thread(load_vad),
        Addons.load(settings),
    )
    return Models(catalogue=catalogue, vad=vad, aligner=aligner, addons=addons, diarizer=diarizer)
