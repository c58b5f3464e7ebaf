"""A recogniser in another process answers as its engine would here, and may come and go."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from pydantic import SecretStr
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import recordings
from vivavoce.engines import remote
from vivavoce.engines.moonshine import MoonshineEngine
from vivavoce.engines.remote import RemoteEngine
from vivavoce.engines.remote_protocol import ANSWER, pack, unpack
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import SAMPLE_RATE, Clip
from vivavoce.plugins import Engine, EngineSettings
from vivavoce.recognizer import Recognizer
from vivavoce.testing.engines import ScriptedEngine, check_engine

KEY = SecretStr("between-us")


@contextmanager
def recognizing(engine: Engine, *, port: int = 0, key: SecretStr | None = None) -> Iterator[str]:
    """Give the URL of a recogniser that runs in a thread until the block ends."""
    ready: list[str] = []
    started = threading.Event()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        task = asyncio.create_task(
            Recognizer(engine, threads=2, key=key).serve("127.0.0.1", port, on_ready=ready.append)
        )
        while not ready:
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        started.set()
        await asyncio.wait([task])

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(60)
        yield ready[0]
    finally:
        stop[0]()
        thread.join()


def clip(key: str = "one", *, final: bool = True, seconds: float = 0.5) -> Clip:
    samples = np.linspace(-1, 1, round(seconds * 16_000), dtype=np.float32)
    return Clip(key=key, samples=samples, final=final, languages=("en",), hints=("Westeros",))


def engine_at(url: str, **fields: object) -> RemoteEngine:
    return RemoteEngine(EngineSettings(model=url, **fields))  # type: ignore[arg-type] - fields by their own names


def test_a_request_keeps_every_sample_and_word():
    """What is read is what was written, to the bit."""
    clips = [clip("a"), clip("b", final=False, seconds=0), clip("c", seconds=0.1)]
    read, release = unpack(pack(clips, ["gone"]))
    assert release == ("gone",)
    for before, after in zip(clips, read, strict=True):
        assert np.array_equal(before.samples, after.samples)
        assert (before.key, before.final, before.languages, before.hints) == (
            after.key,
            after.final,
            after.languages,
            after.hints,
        )


@pytest.mark.parametrize(
    "frame", [b"", b"\xff\xff\xff\xff{}", pack([clip()])[:-4], pack([clip()]) + bytes(4), b"\x02\0\0\0{}xyz"]
)
def test_a_frame_that_is_no_request_is_refused(frame):
    with pytest.raises(EngineError):
        unpack(frame)


def test_the_real_engine_gives_the_same_words_there_and_here():
    engine = MoonshineEngine()
    speech = Clip(key="one", samples=recordings.wheel_recording("clone-test"), final=True)
    expected = engine.transcribe([speech])
    with recognizing(engine) as url:
        there = engine_at(url)
        assert there.info == engine.info
        assert there.transcribe([speech]) == expected
        there.close()


def test_it_keeps_the_engines_contract():
    """Every promise of `Engine` holds over a socket as it does here."""
    speech = recordings.wheel_recording("two_cities")[: 2 * SAMPLE_RATE]
    with recognizing(MoonshineEngine()) as url:
        check_engine(lambda: engine_at(url), speech)


def test_keys_are_released_with_the_next_request_and_when_their_server_leaves():
    engine = ScriptedEngine()
    with recognizing(engine) as url:
        there = engine_at(url)
        there.transcribe([clip("one", final=False)])
        there.release("one")
        there.transcribe([clip("two", final=False)])
        assert engine.released == ["one"]
        there.close()
        while "two" not in engine.released:
            pass  # the recogniser hears of it in its own time; the test's time limit is the bound
    assert engine.released == ["one", "two"]


class Contended(deque[str]):
    """Keys of which another thread takes the last one, just before it is taken here."""

    def popleft(self) -> str:
        if len(self) == 1:
            super().popleft()
        return super().popleft()


def test_a_key_that_another_thread_takes_along_costs_no_request():
    """Several threads decode, and each takes along what it finds."""
    engine = ScriptedEngine()
    with recognizing(engine) as url:
        there = engine_at(url)
        there._released = Contended()
        there.release("one")
        there.release("two")
        assert len(there.transcribe([clip()])) == 1
        assert engine.released == ["one"]
        there.close()


def test_a_key_that_is_released_before_its_final_stays_released():
    """A final keeps nothing, so that there is nothing to release once it is answered."""
    engine = ScriptedEngine()
    with recognizing(engine) as url:
        there = engine_at(url)
        there.transcribe([clip("one", final=False)])
        there.release("one")
        there.transcribe([clip("one")])
        there.transcribe([clip("two", final=False)])
        there.close()
        while "two" not in engine.released:
            pass  # as above
    assert engine.released == ["one", "two"]


def test_a_failure_there_is_a_failure_here_and_the_next_request_is_served():
    engine = ScriptedEngine(lambda clip: None if clip.key == "bad" else "fine")
    with recognizing(engine) as url:
        there = engine_at(url)
        with pytest.raises(EngineError, match="the script says so"):
            there.transcribe([clip("bad")])
        assert there.transcribe([clip("good")])[0].words[0].text == "fine"
        with pytest.raises(EngineError, match="more than 4 clips"):
            there.transcribe([clip(str(i)) for i in range(5)])
        there.close()


def test_finals_wait_for_a_recogniser_that_is_away_and_partials_do_not(monkeypatch):
    monkeypatch.setattr(remote, "PARTIAL_PATIENCE_S", 0.2)
    with recognizing(ScriptedEngine(lambda _: "before")) as url:
        there = engine_at(url)
        assert there.transcribe([clip()])[0].words[0].text == "before"
    with pytest.raises(EngineError, match="does not answer"):
        there.transcribe([clip(final=False)])
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(there.transcribe([clip()])[0].words[0].text))
    waiting.start()
    with recognizing(ScriptedEngine(lambda _: "after"), port=int(url.rpartition(":")[2])):
        waiting.join(60)
        there.close()
    assert answers == ["after"]


def test_a_recogniser_that_comes_back_with_another_model_is_noticed():
    """Its answers would not be what sessions were promised; the former one is taken again."""
    french = ScriptedEngine()
    french.info = replace(french.info, name="french", languages=frozenset({"fr"}))
    with recognizing(ScriptedEngine()) as url:
        there = engine_at(url)
    port = int(url.rpartition(":")[2])
    with recognizing(french, port=port), pytest.raises(EngineError, match=r"runs french now.*scripted before: restart"):
        there.transcribe([clip()])
    assert french.calls == []
    with recognizing(ScriptedEngine(), port=port):
        assert len(there.transcribe([clip()])) == 1
        there.close()


def test_a_recogniser_that_comes_back_in_another_version_is_an_engine_that_fails(monkeypatch):
    with recognizing(ScriptedEngine()) as url:
        there = engine_at(url)
    monkeypatch.setattr(remote, "VERSION", 2)
    with (
        recognizing(ScriptedEngine(), port=int(url.rpartition(":")[2])),
        pytest.raises(EngineError, match="another version"),
    ):
        there.transcribe([clip()])
    there.close()


def test_strangers_are_refused_and_told_what_is_missing():
    with recognizing(ScriptedEngine(), key=KEY) as url:
        with pytest.raises(SetupError, match="--engine-key"):
            engine_at(url)
        with pytest.raises(SetupError, match="--engine-key"):
            engine_at(url, engine_key=SecretStr("guessed"))
        for shown in (KEY.get_secret_value(), f"Basic {KEY.get_secret_value()}", "Bearer", "Bearer \xff"):
            with (
                pytest.raises(InvalidStatus, match="401"),
                connect(url, additional_headers={"authorization": shown}),
            ):
                pass
        with connect(url, additional_headers={"authorization": f"bearer  {KEY.get_secret_value()}"}) as connection:
            connection.recv()
        there = engine_at(url, engine_key=KEY)
        assert there.info.name == "scripted"
        there.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [(None, "--model"), ("http://127.0.0.1:1", "ws://"), ("ws://127.0.0.1:1", "vivavoce recognize")],
)
def test_a_recogniser_that_is_not_there_is_told_in_one_line(url, says):
    with pytest.raises(SetupError, match=says):
        RemoteEngine(EngineSettings(model=url))


def test_nonsense_is_answered_and_the_connection_stays():
    with recognizing(ScriptedEngine()) as url, connect(url) as connection:
        connection.recv()
        for nonsense in ("hello", b"\0\0"):
            connection.send(nonsense)
            assert ANSWER.validate_json(connection.recv()).error
        connection.send(pack([clip()]))
        assert ANSWER.validate_json(connection.recv()).error is None
