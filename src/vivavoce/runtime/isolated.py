"""Plugins in processes of their own: an aligner holds the GIL while it works, a diarizer keeps a core busy.

Each worker is one spawned process (never forked: the server has threads by then) that loads the plugin once and does
one call at a time. A worker that dies is replaced while others go on, and the call at hand is tried once more; a second
death costs it its answer.

A call that takes too long goes without its answer at that moment, while its worker may go on for a good deal longer: on
a machine that is short of processor time, or was asleep, it is healthy, and another one would only be slower. Calls
wait for workers that work however long that takes, since they come to their turn. For workers that are overdue or being
replaced they wait `grace_s` together, and then go without until one is back. So no worker can stall who asks.

A worker ends with its parent, however that ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

import structlog

from vivavoce.errors import EngineError
from vivavoce.model import SAMPLE_RATE, Samples, Voice
from vivavoce.plugins import Aligner, Diarizer

Times = list[tuple[float, float]]

START_S = 60.0
"""Time for a worker to load its plugin."""
RETRY_S = 10.0
"""Pause after an attempt to replace a worker that did not start."""
CLOSE_S = 2.0
"""Time for a worker's last call before it is killed."""
TRIES = 2
"""Workers that one call may lose: chance takes one now and then, and a clip that takes two would take them all."""
ALIGNER_PACE = 0.1
"""What alignment may take of a clip's length; it takes a sixtieth where the processor is free."""
OVERDUE = 4
"""How many times a call's deadline must go by before its worker is taken for hung and killed."""

_log = structlog.get_logger(__name__)


class Isolated:
    """A plugin in `processes` workers; calls beyond that wait their turn, in order.

    `factory` makes the plugin inside the worker, so it must be importable there by name; `role` names it in the log. A
    call may take `grace_s` and `pace` times the length of its clip; waiting for workers that work is not counted, so
    load never costs a final its answer.
    """

    def __init__(
        self,
        factory: Callable[[], object],
        *,
        role: str,
        processes: int = 1,
        grace_s: float = 5.0,
        pace: float = 1.0,
    ) -> None:
        self._role = role
        self._grace_s, self._pace = grace_s, pace
        self._workers = [_Worker(factory) for _ in range(processes)]
        self._turns = _Turns(processes, patience_s=grace_s)
        self._mending: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The workers' process ids, of those that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    @property
    def oldest_s(self) -> float:
        """How long the call that has waited longest for a worker has waited, late ones aside."""
        return self._turns.oldest_s

    async def start(self) -> None:
        """Start the workers, unless they were; raises `EngineError` where the plugin cannot be loaded."""
        if self._starting is None or (self._starting.done() and not self._started):
            self._starting = asyncio.create_task(self._start(), name=f"start {self._role}")
        await asyncio.shield(self._starting)

    async def call(
        self,
        method: str,
        samples: Samples,
        *arguments: object,
        wanted: Callable[[], bool] = lambda: True,
        late: bool = False,
    ) -> Any:
        """Give what the plugin's method says of a clip, or None where that fails, takes too long or never started.

        A call that is not `wanted` any more when it is its turn gets None too. A `late` one waits for all others.
        """
        if not self._started:
            return None
        for _ in range(TRIES):
            worker = await self._turns.take(late=late)
            if worker is None:
                return None
            if not worker.running or not wanted():
                self._give_back(worker, lost=not worker.running)
                return None
            answer, lost = await self._call_on(worker, method, samples, *arguments)
            if not lost or self._closed:
                return answer
        return None

    async def _call_on(self, worker: _Worker, method: str, samples: Samples, *arguments: object) -> tuple[Any, bool]:
        """Try on one worker; give the answer, and whether the worker died."""
        audio_s = len(samples) / SAMPLE_RATE
        deadline_s = self._grace_s + self._pace * audio_s
        calling = asyncio.create_task(worker.call(method, samples, *arguments), name=f"call {self._role}")
        try:
            await asyncio.wait([calling], timeout=deadline_s)
        except asyncio.CancelledError:
            if calling.done():
                self._outcome(worker, calling, audio_s)
            raise
        finally:
            if not calling.done():
                # Also where the caller's own end comes first: the worker is at this call until it is through.
                calling.add_done_callback(_error_of)
                self._turns.miss(worker)
                self._mend(self._await_overdue(worker, calling, (OVERDUE - 1) * deadline_s))
        if not calling.done():
            _log.warning(f"{self._role}_overdue", audio_s=audio_s)
            return None, False
        return self._outcome(worker, calling, audio_s)

    def _outcome(self, worker: _Worker, calling: asyncio.Task[Any], audio_s: float) -> tuple[Any, bool]:
        """Free the worker of a call that is through; give the answer, and whether the worker died."""
        error = _error_of(calling)
        lost = isinstance(error, BrokenProcessPool)
        if lost:
            worker.discard(kill=False)
            _log.warning(f"{self._role}_lost", reason=type(error).__name__, audio_s=audio_s)
        elif error is not None:
            # A plugin may raise anything, and a final goes out all the same.
            _log.warning(f"{self._role}_failed", reason=type(error).__name__, audio_s=audio_s)
        self._give_back(worker, lost=lost)
        return (calling.result() if error is None else None), lost

    async def _await_overdue(self, worker: _Worker, calling: asyncio.Task[Any], patience_s: float) -> None:
        """Put a worker to use again once its overdue call is through; kill and replace one that hangs."""
        await asyncio.wait([calling], timeout=patience_s)
        hung = not calling.done()
        if self._closed or not (hung or isinstance(_error_of(calling), BrokenProcessPool)):
            self._turns.put(worker)
            return
        _log.warning(f"{self._role}_lost", reason="hung" if hung else "BrokenProcessPool")
        worker.discard(kill=hung)
        await self._replace(worker)

    async def close(self) -> None:
        """End the workers, their calls within `CLOSE_S`; calls still waiting get None. May be called twice."""
        self._closed = True
        self._turns.close()
        for task in self._mending:
            task.cancel()
        await asyncio.gather(*self._mending, return_exceptions=True)
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers))

    @property
    def _started(self) -> bool:
        task = self._starting
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    async def _start(self) -> None:
        try:
            await asyncio.gather(*(worker.open() for worker in self._workers))
        except Exception as error:
            await asyncio.gather(*(worker.close() for worker in self._workers))
            raise EngineError(f"the {self._role} could not be started") from error
        for worker in self._workers:
            self._turns.put(worker)

    def _give_back(self, worker: _Worker, *, lost: bool) -> None:
        if lost and not self._closed and worker.may_reopen():
            self._turns.miss(worker)
            self._mend(self._replace(worker))
        else:
            self._turns.put(worker)

    def _mend(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"mend {self._role}")
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _replace(self, worker: _Worker) -> None:
        """Open a lost worker again, now or later while others work; where none does, who waits gets None at once."""
        try:
            while True:
                try:
                    await worker.open()
                except Exception as error:  # noqa: BLE001 - the factory is a plugin
                    _log.warning(f"{self._role}_not_replaced", reason=type(error).__name__)
                else:
                    return
                if self._turns.all_away:
                    return
                await asyncio.sleep(RETRY_S)
        finally:
            self._turns.put(worker)


class IsolatedAligner(Isolated):
    """Word times from aligners in workers."""

    def __init__(self, factory: Callable[[], Aligner], *, processes: int = 1, grace_s: float = 5.0) -> None:
        super().__init__(factory, role="aligner", processes=processes, grace_s=grace_s, pace=ALIGNER_PACE)
        # A factory is the aligner's class, if anything; without a word on languages it is asked about all.
        self._languages: frozenset[str] | None = getattr(factory, "languages", None)

    def knows(self, language: str) -> bool:
        """Whether words of a language can be aligned."""
        return self._languages is None or language in self._languages

    async def align(self, samples: Samples, words: Sequence[str], *, late: bool = False) -> Times | None:
        """Give each word's start and end in seconds from the clip's start, or None where that fails for any reason."""
        times: Times | None = await self.call("align", samples, list(words), late=late)
        return times


class IsolatedDiarizer(Isolated):
    """Who is heard, from diarizers in workers; unlike word times nothing stands in for it, so it may take longer."""

    def __init__(self, factory: Callable[[], Diarizer], *, processes: int = 1, grace_s: float = 20.0) -> None:
        super().__init__(factory, role="diarizer", processes=processes, grace_s=grace_s)

    async def voices(self, samples: Samples, wanted: Callable[[], bool], *, late: bool = False) -> tuple[Voice, ...]:
        """Give who is heard in a clip; nobody where that fails for any reason or is not `wanted` at its turn."""
        voices: tuple[Voice, ...] | None = await self.call("voices", samples, wanted=wanted, late=late)
        return voices or ()


def _error_of(calling: asyncio.Task[Any]) -> BaseException | None:
    """Say why a call has no answer; closing cancels what a worker has not begun."""
    return asyncio.CancelledError() if calling.cancelled() else calling.exception()


_Line = dict[asyncio.Future["_Worker | None"], float]
"""Those that wait, in order, and since when."""


class _Turns:
    """Which call gets which worker: the first that came gets the first that is free, `late` ones after all others.

    A worker is away from `miss` to `put`. Where all `processes` are for `patience_s`, who waits gets None, and who asks
    gets it at once.
    """

    def __init__(self, processes: int, *, patience_s: float) -> None:
        self._processes, self._patience_s = processes, patience_s
        self._free: deque[_Worker] = deque()
        self._away: set[_Worker] = set()
        self._waiting: _Line = {}
        self._late: _Line = {}
        self._timer: asyncio.TimerHandle | None = None
        self._hopeless = self._closed = False

    @property
    def oldest_s(self) -> float:
        since = next(iter(self._waiting.values()), None)
        return time.monotonic() - since if since is not None else 0.0

    @property
    def all_away(self) -> bool:
        return len(self._away) == self._processes

    async def take(self, *, late: bool) -> _Worker | None:
        if self._free:
            return self._free.popleft()
        if self._hopeless:
            return None
        turn: asyncio.Future[_Worker | None] = asyncio.get_running_loop().create_future()
        line = self._late if late else self._waiting
        line[turn] = time.monotonic()
        try:
            return await turn
        except asyncio.CancelledError:
            if line.pop(turn, None) is None and not turn.cancelled() and (worker := turn.result()) is not None:
                self.put(worker)
            raise

    def miss(self, worker: _Worker) -> None:
        self._away.add(worker)
        if self.all_away and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._give_up)

    def put(self, worker: _Worker) -> None:
        self._away.discard(worker)
        self._hopeless = self._closed
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while line := self._waiting or self._late:
            turn = next(iter(line))
            del line[turn]
            if not turn.done():
                turn.set_result(worker)
                return
        self._free.append(worker)

    def close(self) -> None:
        self._closed = True
        self._free.clear()
        self._give_up()

    def _give_up(self) -> None:
        self._hopeless = True
        for turn in [*self._waiting, *self._late]:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()
        self._late.clear()


class _Worker:
    """One process; closed until `open`, and again after `discard` or `close`."""

    def __init__(self, factory: Callable[[], object]) -> None:
        self._factory = factory
        self._pool: ProcessPoolExecutor | None = None
        self._not_before = 0.0
        self.pid: int | None = None

    @property
    def running(self) -> bool:
        return self._pool is not None

    def may_reopen(self) -> bool:
        return asyncio.get_running_loop().time() >= self._not_before

    async def open(self) -> None:
        """Start the process and load the plugin; raises what the factory raised."""
        loop = asyncio.get_running_loop()
        spawn = multiprocessing.get_context("spawn")
        pool = self._pool = ProcessPoolExecutor(max_workers=1, mp_context=spawn, initializer=_settle)
        try:
            async with asyncio.timeout(START_S):
                with _unseen_main():
                    born = loop.run_in_executor(pool, os.getpid)
                self.pid = await born
                await loop.run_in_executor(pool, _load, self._factory)
        except BaseException:
            self._not_before = loop.time() + RETRY_S
            self.discard(kill=True)
            raise

    async def call(self, method: str, *arguments: object) -> Any:
        if self._pool is None:
            raise BrokenProcessPool("the worker was closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, _call, method, arguments)

    def discard(self, *, kill: bool) -> None:
        """Let the process go without waiting; `kill` where it may still run."""
        pool, self._pool = self._pool, None
        if kill:
            self._kill()
        self.pid = None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        ended = asyncio.create_task(asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True))
        if not (await asyncio.wait([ended], timeout=CLOSE_S))[0]:
            self._kill()
        await ended
        self.pid = None

    def _kill(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                # A worker ignores SIGTERM; Windows has no other name for it.
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


@contextlib.contextmanager
def _unseen_main() -> Iterator[None]:
    """Hide the program's main module while a process is spawned.

    A spawned process imports its parent's main module first; here that is the whole server, for nothing.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_loaded: list[object] = []


def _settle() -> None:
    """Leave the end of this process to its parent: deaf to the terminal's and the init system's signals."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a spawned process only"
    wait([parent.sentinel])
    os._exit(1)


def _load(factory: Callable[[], object]) -> None:
    _loaded[:] = [factory()]


def _call(method: str, arguments: tuple[object, ...]) -> Any:
    return getattr(_loaded[0], method)(*arguments)
