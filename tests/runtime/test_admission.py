"""Who gets a session, on a real decode pool and a real journal that are made to lag."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from vivavoce.config import Settings
from vivavoce.errors import CapacityError, Unavailable
from vivavoce.model import AudioFormat, Clip, Diarization, Hypothesis, SessionOptions
from vivavoce.plugins import EngineInfo, Write
from vivavoce.runtime.admission import Admission, Load, weight
from vivavoce.runtime.decode import DecodePool, Request
from vivavoce.runtime.journal import Journal
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore

PATIENCE_S = 60.0


class StuckEngine:
    """Answers nothing before it is released."""

    info = EngineInfo(name="stuck", languages=frozenset(), word_times=True, exact_batches=True, batch_size=1)

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def transcribe(self, clips: list[Clip]) -> list[Hypothesis]:
        self.go_on.wait(PATIENCE_S)
        return [Hypothesis(words=(), language="en") for _ in clips]

    def release(self, key: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class Site:
    """The parts that load is measured on."""

    engine: StuckEngine
    pool: DecodePool
    store: SqlStore
    journal: Journal
    ears: ThreadPoolExecutor
    load: Load

    def admission(self, **settings: object) -> Admission:
        return Admission(Settings(**settings), self.load)

    async def until(self, part: str, *, refused: bool) -> None:
        """Wait until sessions are refused because of a part of the road, or admitted again."""
        admission = self.admission(overload_delay=0.05)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    admission.admit("a", None)
                except Unavailable as error:
                    if refused and part in str(error):
                        return
                else:
                    if not refused:
                        return
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path) -> AsyncIterator[Site]:
    engine, ears = StuckEngine(), ThreadPoolExecutor(1)
    pool = DecodePool(engine, None, threads=1)
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    audio = LocalAudio(tmp_path / "audio")
    journal = Journal(store, audio)
    site = Site(engine, pool, store, journal, ears, Load(lambda: [pool], journal, ears))
    yield site
    engine.go_on.set()
    await site.load.close()
    await journal.close()
    await pool.close()
    await store.close()
    ears.shutdown()


async def test_sessions_are_counted_by_owner_and_together(site: Site) -> None:
    """The refused one counts for nothing, and one that leaves makes room."""
    admission = site.admission(max_sessions=3)
    admission.admit("a", 2)
    admission.admit("a", 2)
    with pytest.raises(CapacityError, match="may have 2"):
        admission.admit("a", 2)
    admission.admit("b", None)
    with pytest.raises(CapacityError, match="all 3"):
        admission.admit("b", None)
    admission.leave("a")
    admission.admit("b", 2)


async def test_heavier_sessions_take_more_room(site: Site) -> None:
    """On the server, not of their owner's number, until they leave."""
    admission = site.admission(max_sessions=3)
    heavy = weight(SessionOptions(diarization=Diarization()))
    assert heavy == 2
    admission.admit("a", 2, heavy)
    with pytest.raises(CapacityError, match="counts as 2"):
        admission.admit("a", 2, heavy)
    admission.admit("a", 2)
    admission.leave("a", heavy)
    admission.admit("a", 2, heavy)


def test_only_listening_for_speakers_weighs() -> None:
    """Once for each channel that is listened to; where the channel is the speaker there is nothing to do."""
    stereo = AudioFormat(channels=2)
    assert weight(SessionOptions(audio=stereo)) == 1
    assert weight(SessionOptions(audio=stereo, diarization=Diarization(by_channel=True))) == 1
    assert weight(SessionOptions(audio=stereo, diarization=Diarization())) == 3


async def test_finals_that_wait_too_long_keep_new_sessions_out(site: Site) -> None:
    """Only as long as they wait."""
    for key in ("s/one", "s/two"):
        clip = Clip(key=key, samples=np.zeros(160, np.float32), final=True)
        site.pool.submit(Request(clip=clip, answer=lambda *_: None))
    await site.until("decode", refused=True)
    site.engine.go_on.set()
    await site.until("decode", refused=False)


async def test_partials_that_nobody_sees_keep_new_sessions_out(site: Site) -> None:
    """However often a newer one takes the place of the one that waits."""

    def ask(key: str) -> None:
        clip = Clip(key=key, samples=np.zeros(160, np.float32), final=False)
        site.pool.submit(Request(clip=clip, answer=lambda *_: None))

    ask("s/first")
    while site.pool.waiting["partial"]:
        await asyncio.sleep(0)
    ask("s/one")
    await asyncio.sleep(0)
    before = site.load.delays_s["partials"]
    ask("s/one")
    assert site.load.delays_s["partials"] >= before
    await site.until("partials", refused=True)
    site.engine.go_on.set()
    await site.until("partials", refused=False)


async def test_finals_of_sessions_that_catch_up_keep_nobody_out(site: Site) -> None:
    """After a crash they wait for all that is live, so that their waiting says nothing about the load."""
    for key in ("s/one", "s/two"):
        clip = Clip(key=key, samples=np.zeros(160, np.float32), final=True)
        site.pool.submit(Request(clip=clip, answer=lambda *_: None, late=True))
    async with asyncio.timeout(PATIENCE_S):
        while site.pool.waiting != {"final": 0, "partial": 0, "late": 1}:
            await asyncio.sleep(0.01)
    assert site.load.delays_s["decode"] == 0


async def test_load_is_known_before_the_models_are_loaded(site: Site) -> None:
    """Nothing waits to be decoded while there is nothing that decodes."""
    load = Load(list, site.journal, site.ears)
    assert load.delays_s["decode"] == 0
    await load.close()


async def test_writes_that_wait_too_long_keep_new_sessions_out(site: Site) -> None:
    """A store that is stuck is noticed by what waits for it."""
    go_on = threading.Event()
    stuck = asyncio.get_running_loop().run_in_executor(site.store._writing, go_on.wait, PATIENCE_S)
    site.journal.append(Write(session_id="x", audio_start=1), lambda _: None)
    await site.until("journal", refused=True)
    go_on.set()
    await stuck


async def test_busy_ears_keep_new_sessions_out(site: Site) -> None:
    """Threads that hear and never rest are found by a probe."""
    stuck = asyncio.get_running_loop().run_in_executor(site.ears, site.engine.go_on.wait, PATIENCE_S)
    await site.until("hearing", refused=True)
    site.engine.go_on.set()
    await stuck
    await site.until("hearing", refused=False)
