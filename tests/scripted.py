"""A hub in the test's own process, over a real store and real files, with an engine that does what the test says.

The engine and the voice activity come in by the door for plugins: the entry points that `installed` makes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sound import pcm
from vivavoce.config import load_settings
from vivavoce.model import SAMPLE_RATE, Status, Transcript
from vivavoce.plugins import AddonParts, AddonSettings, Engine, EngineSettings
from vivavoce.runtime.hub import Hub
from vivavoce.runtime.session import Session
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore
from vivavoce.wire import protocol
from vivavoce.wire.schema import Capabilities, parse_request

PLUGINS = "[vivavoce.engines]\nscripted = scripted:Plugins.make_engine\n[vivavoce.vads]\nloud = scripted:LoudVad\n"


class LoudVad:
    """Takes for speech what is loud; implements `plugins.Vad`."""

    frame = 512

    def open(self) -> None:
        """Give no state."""

    def probabilities(self, frames: NDArray[np.float32], state: None) -> tuple[NDArray[np.float32], None]:
        """Give 1 for frames that are loud, 0 for others."""
        return (np.abs(frames).max(1, initial=0.0) > 0.05).astype(np.float32), state

    def save(self, state: None) -> str:
        """Give nothing."""
        return ""

    def load(self, saved: str) -> None:
        """Give no state."""


class Plugins:
    """The engine of the next hub."""

    engine: Engine

    @staticmethod
    def make_engine(settings: EngineSettings) -> Engine:
        """Give it; what the entry point names."""
        return Plugins.engine


class Stuck:
    """A summarizer that never answers; implements `plugins.Addon`."""

    threads = 1

    def __init__(self, settings: AddonSettings) -> None:
        """Take no settings."""

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        """Give itself."""
        return AddonParts(transcript=self)

    def look(self, transcript: Transcript) -> str:
        """Wait for what never comes."""
        threading.Event().wait(60)
        return transcript.text

    def close(self) -> None:
        """Leave its thread to itself."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the plugins `scripted` and `loud` for the test; gives the directory."""
    site = tmp_path / "site"
    about = site / "scripted-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(site))
    return site


def bursts(*kinds: str) -> bytes:
    """Give a second of noise for each letter of "s", and a second of all but silence for each dot, as 16-bit PCM."""
    random = np.random.default_rng(5)
    loud = {"s": 0.3, ".": 0.001}
    parts = [loud[kind] * random.uniform(-1, 1, SAMPLE_RATE) for each in kinds for kind in each]
    return pcm(np.concatenate(parts).astype(np.float32))


@asynccontextmanager
async def hub_of(
    data_dir: Path, engine: Engine, *, audio: Any = None, wire: Any = protocol, **settings: Any
) -> AsyncIterator[Hub]:
    """Open a hub over a directory; what is given takes the place of the real files and the real protocol."""
    Plugins.engine = engine
    await asyncio.to_thread(data_dir.mkdir, exist_ok=True)
    told = load_settings(data_dir=data_dir, engine="scripted", vad="loud", **settings)
    store = await SqlStore.open(told.store_url)
    files = audio or LocalAudio(data_dir / "audio")
    try:
        hub = await Hub.open(told, store=store, audio=files, wire=wire)
        loading = asyncio.create_task(hub.ready())
        try:
            yield hub
        finally:
            await asyncio.gather(loading, return_exceptions=True)
            await hub.close()
    finally:
        await store.close()


async def create(hub: Hub, **body: Any) -> Session:
    """Make a session as a POST with this body does."""
    await hub.ready()
    engine = await hub.engine_info(str(body.get("model", "")))
    known = Capabilities(languages=engine.languages, features=hub.features, remedies=hub.remedies)
    parsed = parse_request(body, known)
    _, token = await hub.create("owner", parsed.request, None, parsed.options)
    session = hub.find(token)
    assert session is not None
    return session


async def speak(session: Session, audio: bytes, *, stop: bool = True) -> None:
    """Send audio and leave, for good or as if cut off."""
    connection = await session.connect(lambda _: None)
    await session.feed(connection, audio)
    if stop:
        await session.stop(connection)
    session.disconnect(connection, 1000 if stop else None)


async def ended(hub: Hub, session_id: str) -> Status:
    """Wait until a session is over, and give how it went."""
    while True:
        record = await hub.store.session(session_id)
        assert record is not None
        if record.status in {Status.DONE, Status.ERROR} and not hub.is_running(session_id):
            return record.status
        await asyncio.sleep(0.01)
