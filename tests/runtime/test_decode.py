"""The decode pool: order, replacement, batches, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest

from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, Voice
from vivavoce.runtime.decode import DecodePool, Request
from vivavoce.runtime.isolated import IsolatedDiarizer
from vivavoce.testing.engines import ScriptedEngine


class Asker:
    """Collects answers by key."""

    def __init__(self, pool: DecodePool) -> None:
        self.pool = pool
        self.answers: list[tuple[str, Hypothesis | None]] = []
        self._some = asyncio.Event()

    def ask(self, key: str, *, final: bool) -> Request:
        def answer(hypothesis: Hypothesis | None, _spent_s: float) -> None:
            self.answers.append((key, hypothesis))
            self._some.set()

        request = Request(clip=Clip(key=key, samples=np.zeros(1600, np.float32), final=final), answer=answer)
        self.pool.submit(request)
        return request

    async def got(self, count: int) -> list[str]:
        while len(self.answers) < count:
            self._some.clear()
            await self._some.wait()
        return [key for key, _ in self.answers]


@asynccontextmanager
async def pool(engine: ScriptedEngine, threads: int = 1, diarizer: FakeDiarizer | None = None) -> AsyncIterator[Asker]:
    made = DecodePool(engine, None, cast("IsolatedDiarizer | None", diarizer), threads=threads)
    try:
        yield Asker(made)
    finally:
        await made.close()


async def busy(asker: Asker, engine: ScriptedEngine) -> None:
    """Give the only worker something to wait at."""
    asker.ask("first", final=True)
    while not engine.calls:
        await asyncio.sleep(0)


async def test_finals_wait_for_no_partial_and_go_alone() -> None:
    """What a caller waits for comes oldest first, and never in a batch that could change it."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        await busy(asker, engine)
        asker.ask("p", final=False)
        asker.ask("a", final=True)
        asker.ask("b", final=True)
        gate.release(9)
        assert [key for key in await asker.got(4) if key != "p"] == ["first", "a", "b"]
    assert [batch for batch in engine.calls if batch != ["p"]] == [["first!"], ["a!"], ["b!"]]


async def test_an_engine_with_exact_batches_gets_finals_together() -> None:
    """Where neighbours change nothing, finals that wait share a batch."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate, exact_batches=True)
    async with pool(engine) as asker:
        await busy(asker, engine)
        for key in "abcde":
            asker.ask(key, final=True)
        gate.release(9)
        await asker.got(6)
    assert engine.calls == [["first!"], ["a!", "b!", "c!", "d!"], ["e!"]]


async def test_waiting_partials_are_replaced_and_batched() -> None:
    """Of an utterance only the newest partial waits; those of several share a batch."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        await busy(asker, engine)
        for key in ("a", "b", "a", "c"):
            asker.ask(key, final=False)
        gate.release(9)
        answered = await asker.got(4)
    # The first one has a thread of its own, which may tell of it before or after.
    assert [key for key in answered if key != "first"] == ["a", "b", "c"]
    assert engine.calls == [["first!"], ["a", "b", "c"]]


async def test_finals_have_threads_of_their_own() -> None:
    """However many partials wait and are being decoded, a final that comes finds a thread."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        for number in range(3 * engine.info.batch_size):
            asker.ask(f"p{number}", final=False)
        while not engine.calls:
            await asyncio.sleep(0)
        asker.ask("final", final=True)
        while ["final!"] not in engine.calls:
            await asyncio.sleep(0)
        gate.release(99)


async def test_a_final_takes_the_place_of_its_partial() -> None:
    """No time is spent on a partial of an utterance whose final is asked for."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        await busy(asker, engine)
        asker.ask("a", final=False)
        asker.ask("a", final=True)
        gate.release(9)
        await asker.got(2)
    assert engine.calls == [["first!"], ["a!"]]


async def test_a_withdrawn_request_is_never_decoded() -> None:
    """What is no longer wanted leaves the queue."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        await busy(asker, engine)
        final, partial = asker.ask("a", final=True), asker.ask("b", final=False)
        asker.pool.withdraw(final)
        asker.pool.withdraw(partial)
        asker.ask("c", final=True)
        gate.release(9)
        assert await asker.got(2) == ["first", "c"]


async def test_a_failure_is_answered_and_the_pool_goes_on() -> None:
    """A clip the engine fails on gives None; the next one is decoded."""
    engine = ScriptedEngine(lambda clip: None if clip.key == "bad" else "fine")
    async with pool(engine) as asker:
        asker.ask("bad", final=True)
        asker.ask("good", final=True)
        await asker.got(2)
    (bad, nothing), (good, hypothesis) = asker.answers
    assert (bad, nothing, good) == ("bad", None, "good")
    assert hypothesis is not None
    assert [word.text for word in hypothesis.words] == ["fine"]


class FakeDiarizer:
    """Stands in for the workers; each call waits until the test lets it have its turn."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)
        self.told = 0
        self.oldest_s = 0.0

    async def voices(self, samples: Samples, wanted: Callable[[], bool], *, late: bool = False) -> tuple[Voice, ...]:
        del late
        await self.turns.acquire()
        if not wanted():
            return ()
        self.told += 1
        return (Voice(spans=((0.0, len(samples) / SAMPLE_RATE),), alone_s=0.1, embedding=(1.0,)),)


def with_voices(asker: Asker, key: str, *, late: bool = False) -> tuple[Request, asyncio.Future[Hypothesis | None]]:
    """Ask for a final with who is heard in it."""
    answered: asyncio.Future[Hypothesis | None] = asyncio.get_running_loop().create_future()
    clip = Clip(key=key, samples=np.zeros(1600, np.float32), final=True)
    request = Request(
        clip=clip, answer=lambda hypothesis, _: answered.set_result(hypothesis), late=late, with_voices=True
    )
    asker.pool.submit(request)
    return request, answered


@pytest.mark.parametrize("late", [False, True])
async def test_a_final_is_answered_with_its_voices(late: bool) -> None:
    """When both the words and the voices are there, and only where they were asked for."""
    diarizer = FakeDiarizer()
    async with pool(ScriptedEngine(), diarizer=diarizer) as asker:
        _, answered = with_voices(asker, "a", late=late)
        asker.ask("plain", final=True)
        assert await asker.got(1) == ["plain"]
        assert not answered.done()
        diarizer.turns.release()
        hypothesis = await answered
        assert hypothesis is not None
        assert len(hypothesis.voices) == 1
        assert [each.voices for _, each in asker.answers if each] == [()]


async def test_voices_of_a_withdrawn_final_are_not_told_apart() -> None:
    """Its turn goes to the next one, so that guesses at a final's end cost little."""
    gate = threading.Semaphore(0)
    engine, diarizer = ScriptedEngine(gate=gate), FakeDiarizer()
    async with pool(engine, diarizer=diarizer) as asker:
        await busy(asker, engine)
        guess, _ = with_voices(asker, "guess")
        _, answered = with_voices(asker, "final")
        asker.pool.withdraw(guess)
        diarizer.turns.release()
        diarizer.turns.release()
        gate.release(9)
        assert await answered is not None
        assert diarizer.told == 1
