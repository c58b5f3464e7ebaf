"""The one decode pool: every session's clips, the best order, a few threads.

Finals have their own threads, and take the oldest first, what catches up after a crash last. Partials have as many
others, which only run on what the rest of the server leaves of the cores: under load they take all of that, and keep
nobody waiting. Finals are decoded alone unless the engine's batches are exact; partials that wait share a batch. A
newer partial of the same utterance takes the place in the queue of one that waits, so at most one per channel waits and
none is put off for ever; finals wait as long as they must, and a session that has many out stops listening (see
`Listener`). Each request is answered at most once, by a call on the event loop; a failure is answered with None.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from vivavoce.errors import EngineError
from vivavoce.model import Clip, Hypothesis, Voice, Word
from vivavoce.plugins import Engine
from vivavoce.runtime import metrics
from vivavoce.runtime.isolated import IsolatedAligner, IsolatedDiarizer

log = structlog.get_logger()

FINALS_NICE, PARTIALS_NICE = 2, 10
"""How much lower than the event loop's the priority of decoding is, where the system has priorities of threads."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A clip and who wants its hypothesis: `answer(hypothesis or None, seconds spent decoding)`.

    A `late` one is of a session that catches up after a crash; it waits for all that is live. A final `with_voices` is
    answered with who is heard in it.
    """

    clip: Clip
    answer: Callable[[Hypothesis | None, float], None]
    late: bool = False
    with_voices: bool = False
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> str:
        """What the clip is decoded for, as metrics and traces name it."""
        return "final" if self.clip.final else "partial"


class DecodePool:
    """Owns the threads that decode; everything else of it lives on the event loop."""

    def __init__(
        self,
        engine: Engine,
        aligner: IsolatedAligner | None,
        diarizer: IsolatedDiarizer | None = None,
        *,
        threads: int,
    ) -> None:
        self.engine = engine
        self._diarizer = diarizer
        self._aligner = None if engine.info.word_times else aligner
        self._final_threads = polite_threads("finals", threads, FINALS_NICE)
        self._partial_threads = polite_threads("partials", threads, PARTIALS_NICE)
        self._finals: dict[Request, None] = {}
        self._late: dict[Request, None] = {}
        self._partials: dict[str, Request] = {}
        self._unseen_since: dict[str, float] = {}
        self._voices: dict[Request, asyncio.Task[tuple[Voice, ...]]] = {}
        self._some_finals, self._some_partials = asyncio.Event(), asyncio.Event()
        self._resting = threads
        self._tasks: set[asyncio.Task[Any]] = {
            *(asyncio.create_task(self._decode_finals(), name=f"finals-{i}") for i in range(threads)),
            *(asyncio.create_task(self._decode_partials(), name=f"partials-{i}") for i in range(threads)),
        }

    @property
    def waiting(self) -> dict[str, float]:
        """How many requests wait, by kind."""
        return {"final": len(self._finals), "partial": len(self._partials), "late": len(self._late)}

    @property
    def oldest_s(self) -> float:
        """How long a live final has been waiting to be decoded, or for word times; late requests wait by design."""
        oldest = next(iter(self._finals), None)
        decoding_s = time.monotonic() - oldest.asked_at if oldest is not None else 0.0
        return max(decoding_s, self._aligner.oldest_s if self._aligner is not None else 0.0)

    @property
    def unseen_s(self) -> float:
        """How long the utterance at the head of the queue has been waiting for a partial, however often replaced."""
        oldest = next(iter(self._partials), None)
        return time.monotonic() - self._unseen_since[oldest] if oldest is not None else 0.0

    @property
    def speakers_s(self) -> float:
        """How long the oldest clip that waits to have its speakers told apart has been waiting."""
        return self._diarizer.oldest_s if self._diarizer is not None else 0.0

    async def close(self) -> None:
        """Stop decoding; what waits is never answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for threads in (self._final_threads, self._partial_threads):
            await asyncio.to_thread(threads.shutdown)

    def submit(self, request: Request) -> Request | None:
        """Queue a clip; a partial of the same utterance that still waits is never answered: it is given back."""
        replaced = self._partials.get(request.clip.key)
        if not request.clip.final and not request.late:
            self._partials[request.clip.key] = request
            self._unseen_since.setdefault(request.clip.key, request.asked_at)
            self._some_partials.set()
            return replaced
        self._drop_partial(request.clip.key)
        if request.late:
            self._late[request] = None
        else:
            self._finals[request] = None
            # Telling voices apart takes longer than decoding and runs beside it.
            self._listen(request)
        self._some_finals.set()
        return replaced

    def withdraw(self, request: Request) -> bool:
        """Forget a request, and say whether it still waited; one that is being decoded is answered all the same."""
        self._voices.pop(request, None)
        for queue in (self._finals, self._late):
            if request in queue:
                del queue[request]
                return True
        if self._partials.get(request.clip.key) is not request:
            return False
        self._drop_partial(request.clip.key)
        return True

    def _drop_partial(self, key: str) -> Request | None:
        self._unseen_since.pop(key, None)
        return self._partials.pop(key, None)

    async def _decode_finals(self) -> None:
        size = self.engine.info.batch_size if self.engine.info.exact_batches else 1
        while True:
            queue = self._finals or self._late
            if not queue:
                self._some_finals.clear()
                await self._some_finals.wait()
                continue
            batch = list(queue)[:size]
            for request in batch:
                del queue[request]
            await self._decode(batch, self._final_threads)

    async def _decode_partials(self) -> None:
        while True:
            if not self._partials:
                self._some_partials.clear()
                await self._some_partials.wait()
                continue
            size = min(self.engine.info.batch_size, -(-len(self._partials) // self._resting))
            batch = [each for key in list(self._partials)[:size] if (each := self._drop_partial(key))]
            self._resting -= 1
            await self._decode(batch, self._partial_threads)
            self._resting += 1

    async def _decode(self, batch: list[Request], threads: ThreadPoolExecutor) -> None:
        started = time.perf_counter()
        try:
            clips = [request.clip for request in batch]
            hypotheses = await asyncio.get_running_loop().run_in_executor(threads, self.engine.transcribe, clips)
            answers = list(zip(batch, hypotheses, strict=True))
        except Exception as error:
            known = isinstance(error, EngineError)
            sessions = sorted({request.clip.key.partition("/")[0] for request in batch})
            reason = {"reason": str(error)} if known else {}
            log.error("decoding failed", sessions=sessions, error=type(error).__name__, **reason, exc_info=not known)
            metrics.DECODE_FAILURES.inc()
            for request in batch:
                self._voices.pop(request, None)
                _answer(request, None, 0.0)
            return
        spent_s = (time.perf_counter() - started) / len(batch)
        metrics.DECODE_SECONDS.labels(batch[0].kind).observe(spent_s * len(batch))
        metrics.DECODE_BATCH.labels(batch[0].kind).observe(len(batch))
        for request, hypothesis in answers:
            if request.clip.final and hypothesis.words and (self._aligner is not None or request.with_voices):
                task = asyncio.create_task(self._complete(request, hypothesis, spent_s), name="complete")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._voices.pop(request, None)
                _answer(request, hypothesis, spent_s)

    async def _complete(self, request: Request, hypothesis: Hypothesis, spent_s: float) -> None:
        """Answer with measured word times and with who is heard, as far as that is known."""
        started = time.perf_counter()
        words, voices = await asyncio.gather(self._aligned(request, hypothesis), self._told(request))
        self._voices.pop(request, None)
        answer = replace(hypothesis, words=words, voices=voices)
        _answer(request, answer, spent_s + time.perf_counter() - started)

    async def _aligned(self, request: Request, hypothesis: Hypothesis) -> tuple[Word, ...]:
        """Give the words with measured times, or with the engine's own where alignment fails."""
        if self._aligner is None or not self._aligner.knows(hypothesis.language):
            return hypothesis.words
        texts = [word.text for word in hypothesis.words]
        times = await self._aligner.align(request.clip.samples, texts, late=request.late)
        if times is None:
            return hypothesis.words
        pairs = zip(hypothesis.words, times, strict=True)
        return tuple(replace(word, start=start, end=end) for word, (start, end) in pairs)

    def _listen(self, request: Request) -> None:
        """Begin to tell the voices of a clip apart, unless that is withdrawn before its turn comes."""
        if self._diarizer is None or not request.with_voices or request in self._voices:
            return
        clip, late = request.clip, request.late
        told = self._diarizer.voices(clip.samples, wanted=lambda: request in self._voices, late=late)
        task = self._voices[request] = asyncio.create_task(told, name="voices")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _told(self, request: Request) -> tuple[Voice, ...]:
        """Give who is heard; nobody where nobody asked, or where the request was withdrawn."""
        if request.late:
            self._listen(request)
        task = self._voices.get(request)
        return await task if task is not None else ()


def _answer(request: Request, hypothesis: Hypothesis | None, spent_s: float) -> None:
    try:
        request.answer(hypothesis, spent_s)
    except Exception:
        # One session's mistake must not end a thread that all share.
        log.exception("an answer was not taken", session=request.clip.key.partition("/")[0])


def polite_threads(name: str, count: int, nice: int) -> ThreadPoolExecutor:
    """Give threads whose priority is lower by `nice`, and that of threads which they start too."""
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=_give_way, initargs=(nice,))


def _give_way(nice: int) -> None:
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
