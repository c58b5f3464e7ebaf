"""A session from its init request to its end, in this process, with an engine that does what the test says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stamina
from numpy.typing import NDArray

from scripted import PLUGINS, bursts, create, ended, hub_of, installed, speak
from vivavoce.errors import StoreError
from vivavoce.model import SAMPLE_RATE, Clip, Control, Status
from vivavoce.plugins import Write
from vivavoce.runtime.hub import Hub
from vivavoce.stores.objects import LocalAudio
from vivavoce.testing.engines import ScriptedEngine
from vivavoce.wire import protocol

__all__ = ["installed"]
pytestmark = pytest.mark.usefixtures("installed")

REDACTED = {"realtime_processing": {"pii_redaction": True, "pii_redaction_config": {"redact_audio": True}}}
SPEECH = bursts(".s.s.s.")


class Words:
    """Has a text ready for each final, None for one that cannot be decoded."""

    def __init__(self, *texts: str | None) -> None:
        self._texts = dict(enumerate(texts))
        self._seen: dict[str, int] = {}

    def __call__(self, clip: Clip) -> str | None:
        if not clip.final:
            return ""
        return self._texts.get(self._seen.setdefault(clip.key, len(self._seen)), "and so on")


def seconds(data: bytes) -> NDArray[np.bool_]:
    """Tell which seconds of 16-bit PCM have sound in them, but for a quarter on either side."""
    samples = np.frombuffer(data, "<i2")[: len(data) // 2 // SAMPLE_RATE * SAMPLE_RATE].reshape(-1, SAMPLE_RATE)
    return samples[:, SAMPLE_RATE // 4 : -SAMPLE_RATE // 4].any(1)


def kept(hub: Hub, session_id: str) -> bytes:
    """Give what is left of a session's audio."""
    return hub.audio.read(session_id, 0, 1 << 30)


@pytest.mark.parametrize("missing", [None, ""], ids=["not decoded", "without words"])
async def test_speech_that_nobody_read_is_silent_in_redacted_audio(tmp_path: Path, missing: str | None) -> None:
    """A clip that could not be decoded, or of which the engine made nothing, may hold anything; the rest stays."""
    engine = ScriptedEngine(Words("well then", missing, "so it is"))
    async with hub_of(tmp_path / "data", engine) as hub:
        redacted, plain = await create(hub, **REDACTED), await create(hub)
        await speak(redacted, SPEECH)
        assert await ended(hub, redacted.id) is Status.DONE
        assert [final.text for final in await hub.store.finals(redacted.id)] == ["well then", "so it is"]
        audio = kept(hub, redacted.id)
        assert len(audio) == len(SPEECH)
        assert seconds(audio).tolist() == [True, True, True, False, True, True, True]
        await speak(plain, SPEECH)
        assert await ended(hub, plain.id) is Status.DONE
        assert kept(hub, plain.id) == SPEECH


async def test_a_session_that_fails_keeps_no_audio_but_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take more audio, or hear answers that are on their way, once it is being silenced."""
    async with hub_of(tmp_path / "data", ScriptedEngine(Words("well then"))) as hub:
        session = await create(hub, **REDACTED)
        connection = await session.connect(lambda _: None)
        await session.feed(connection, bursts(".s.s."))
        while len(await hub.store.finals(session.id)) < 2:
            await asyncio.sleep(0.01)

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(session._listener, "hear", broken)
        await session.feed(connection, bursts("s."))
        session.disconnect(connection, 1000)
        assert await ended(hub, session.id) is Status.ERROR
        finals = await hub.store.finals(session.id)
        audio = np.frombuffer(kept(hub, session.id), "<i2")
        covered = np.zeros(len(audio), bool)
        for final in finals:
            covered[int(final.start * SAMPLE_RATE) : int(final.end * SAMPLE_RATE) + 1] = True
        assert len(audio) == len(bursts(".s.s.s.")) // 2
        assert not audio[~covered].any()
        assert audio[covered].any()


class UnreadableOnce:
    """The real protocol, which fails to read requests of an earlier process."""

    def __getattr__(self, name: str) -> Any:
        return getattr(protocol, name)

    def options_of(self, _request: Any) -> Any:
        raise ValueError("an older version wrote this")


async def test_a_session_that_cannot_be_taken_up_keeps_no_audio_that_was_to_be_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its past can be read, what finals cover stays; where its request cannot, the audio goes. Others keep it."""
    data_dir = tmp_path / "data"
    async with hub_of(data_dir, ScriptedEngine(Words("well then"))) as hub:
        sessions = [await create(hub, **REDACTED), await create(hub)]
        for session in sessions:
            await speak(session, bursts(".s.s"), stop=False)
            while not await hub.store.finals(session.id):
                await asyncio.sleep(0.01)
    redacted, plain = (session.id for session in sessions)
    monkeypatch.setattr("vivavoce.runtime.hub.Past", None)
    async with hub_of(data_dir, ScriptedEngine()) as hub:
        assert await ended(hub, redacted) is Status.ERROR
        assert await ended(hub, plain) is Status.ERROR
        assert seconds(kept(hub, redacted)).tolist() == [False, True, False, False]
        assert kept(hub, plain) == bursts(".s.s")


async def test_audio_of_a_request_that_cannot_be_read_is_deleted_where_it_asks_for_silence(tmp_path: Path) -> None:
    """Nobody can tell what was to be hidden, so all of it is."""
    data_dir = tmp_path / "data"
    async with hub_of(data_dir, ScriptedEngine(Words("well then"))) as hub:
        sessions = [await create(hub, **REDACTED), await create(hub)]
        for session in sessions:
            await speak(session, bursts(".s"), stop=False)
            await hub._parts.journal.settle(session.id)
    redacted, plain = (session.id for session in sessions)
    async with hub_of(data_dir, ScriptedEngine(), wire=UnreadableOnce()) as hub:
        assert await ended(hub, redacted) is Status.ERROR
        assert await ended(hub, plain) is Status.ERROR
        assert kept(hub, redacted) == b""
        assert kept(hub, plain) == bursts(".s")


class Jammed(LocalAudio):
    """Refuses to write over anything, so many times."""

    def __init__(self, directory: Path, refusals: int) -> None:
        super().__init__(directory)
        self.refusals = refusals

    def overwrite(self, session_id: str, offset: int, data: bytes) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreError("cannot overwrite audio: the disk is jammed")
        super().overwrite(session_id, offset, data)


@pytest.mark.parametrize(("refusals", "is_over"), [(2, True), (100, False)])
async def test_a_silencing_that_fails_is_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refusals: int, is_over: bool
) -> None:
    """Several times in this process, then by the next one; the log says so, and nobody is given the audio before."""
    data_dir = tmp_path / "data"
    jammed = Jammed(data_dir / "audio", refusals)
    with stamina.set_testing(True, attempts=4):
        async with hub_of(data_dir, ScriptedEngine(Words(None)), audio=jammed) as hub:
            session = await create(hub, **REDACTED)
            await speak(session, bursts(".s."))
            await session.resting.wait()
            assert session.over is is_over
            record = await hub.store.session(session.id)
            assert record is not None
            assert (record.status is Status.DONE) is is_over
        logged = capsys.readouterr()
        assert (logged.out + logged.err).count("audio could not be silenced") == min(refusals, 4)
        assert ("the next process tries again" in logged.out + logged.err) is not is_over
    async with hub_of(data_dir, ScriptedEngine(Words(None))) as hub:
        assert await ended(hub, session.id) is Status.DONE
        assert seconds(kept(hub, session.id)).tolist() == [True, False, True]


async def test_a_session_that_was_stopped_before_it_brought_audio_ends_after_a_crash(tmp_path: Path) -> None:
    """The next process finds its stop, and nothing before it."""
    data_dir = tmp_path / "data"
    async with hub_of(data_dir, ScriptedEngine(Words("well then"))) as hub:
        session = await create(hub)
        await hub.store.commit([Write(session_id=session.id, controls=(Control(at=0, kind="stop"),))])
    async with hub_of(data_dir, ScriptedEngine()) as hub:
        assert await ended(hub, session.id) is Status.DONE


class Hinted:
    """An engine's ear that writes what it was told to expect, and keeps what it was told."""

    def __init__(self) -> None:
        self.hints: dict[tuple[str, bool], tuple[str, ...]] = {}

    def __call__(self, clip: Clip) -> str:
        self.hints[clip.key, clip.final] = clip.hints
        return " ".join(["we", "use", *(hint for hint in clip.hints if "Kit" in hint), "here"])


async def test_an_engine_that_takes_hints_gets_the_vocabulary_of_each_session(tmp_path: Path) -> None:
    """The entries of its init request as they are written, with every clip, after a restart too; others get none."""
    data_dir, ear = tmp_path / "data", Hinted()
    vocabulary = ["LiveKit", {"value": "Nebula Grid", "intensity": 0.9, "pronunciations": ["nebula crit"]}]
    asked = {"custom_vocabulary": True, "custom_vocabulary_config": {"vocabulary": vocabulary}}
    async with hub_of(data_dir, ScriptedEngine(ear)) as hub:
        session = await create(hub, realtime_processing=asked, messages_config={"receive_partial_transcripts": True})
        plain = await create(hub)
        for each in (session, plain):
            await speak(each, bursts(".s.s"), stop=False)
            while not await hub.store.finals(each.id):
                await asyncio.sleep(0.01)
        # Partials take their time: what was asked for is decoded, even where its final was quicker.
        while {final for key, final in list(ear.hints) if key.startswith(session.id)} != {True, False}:
            await asyncio.sleep(0.01)
        assert {final.text for final in await hub.store.finals(session.id)} == {"we use LiveKit here"}
        assert {final.text for final in await hub.store.finals(plain.id)} == {"we use here"}
    told = {(key.partition("/")[0], final): hints for (key, final), hints in ear.hints.items()}
    expected = ("LiveKit", "Nebula Grid")
    assert {final: hints for (name, final), hints in told.items() if name == session.id} == {
        True: expected, False: expected
    }  # fmt: skip
    assert {hints for (name, _), hints in told.items() if name == plain.id} == {()}
    again = Hinted()
    async with hub_of(data_dir, ScriptedEngine(again), grace=0.1) as hub:
        assert await ended(hub, session.id) is Status.DONE
        assert len(await hub.store.finals(session.id)) == 2
    assert {hints for (key, _), hints in again.hints.items() if key.startswith(session.id)} == {expected}


async def test_a_session_ends_though_its_summary_never_comes(tmp_path: Path, installed: Path) -> None:
    """It waits for the closing deadline and says in its result that the summary was not done."""
    points = installed / "scripted-1.0.dist-info" / "entry_points.txt"
    await asyncio.to_thread(points.write_text, f"{PLUGINS}[vivavoce.addons]\nsummarization = scripted:Stuck\n")
    async with hub_of(tmp_path / "data", ScriptedEngine(Words("well then")), closing_deadline=0.3) as hub:
        session = await create(hub, post_processing={"summarization": True})
        await speak(session, bursts(".s."))
        assert await ended(hub, session.id) is Status.DONE
        (finding,) = await hub.store.findings(session.id)
        assert finding.found is None
        assert finding.error in {
            "summarization was not done when the session ended", "summarization took longer than 0.3 s"
        }  # fmt: skip
