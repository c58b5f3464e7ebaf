"""The decode pool: order, replacement, batches, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from vivavoce.model import Clip, Hypothesis
from vivavoce.runtime.decode import DecodePool, Request
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
async def pool(engine: ScriptedEngine, threads: int = 1) -> AsyncIterator[Asker]:
    made = DecodePool(engine, None, threads=threads)
    try:
        yield Asker(made)
    finally:
        await made.close()


async def busy(asker: Asker, engine: ScriptedEngine) -> None:
    """Give the only worker something to wait at."""
    asker.ask("first", final=True)
    while not engine.calls:
        await asyncio.sleep(0)


async def test_finals_go_before_partials_and_alone() -> None:
    """What a caller waits for comes first, oldest first, and never in a batch that could change it."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine) as asker:
        await busy(asker, engine)
        asker.ask("p", final=False)
        asker.ask("a", final=True)
        asker.ask("b", final=True)
        gate.release(9)
        assert await asker.got(4) == ["first", "a", "b", "p"]
    assert engine.calls == [["first!"], ["a!"], ["b!"], ["p"]]


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
        assert await asker.got(4) == ["first", "a", "b", "c"]
    assert engine.calls == [["first!"], ["a", "b", "c"]]


async def test_partials_leave_a_thread_to_the_finals() -> None:
    """However many partials wait, a final that comes finds a worker, where there are two."""
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(gate=gate)
    async with pool(engine, threads=2) as asker:
        for number in range(3 * engine.info.batch_size):
            asker.ask(f"p{number}", final=False)
        while not engine.calls:
            await asyncio.sleep(0)
        asker.ask("final", final=True)
        while len(engine.calls) < 2:
            await asyncio.sleep(0)
        assert [key for batch in engine.calls for key in batch if key.endswith("!")] == ["final!"]
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
