"""The models without a server around them as a system under test: what the machine could do at best.

Every stream's audio is there already, as floats. Each chunk, when it is due, goes through voice activity and the same
state machine as a server's, and what that asks for through the same decode pool and aligner. There are no sockets,
formats, journal, messages or database, and no load beside it. What a server reaches cannot be better than this.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.lags import Heard, Pace, Shown
from vivavoce.bench.load import AHEAD_S, Pacing, Run, Watch, finish
from vivavoce.bench.words import words
from vivavoce.config import Settings, load_settings
from vivavoce.events import Final, Partial, SpeechEnded
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, SessionOptions, Utterance
from vivavoce.plugins import EngineSettings, Vad, plugin
from vivavoce.runtime.decode import DecodePool, Request
from vivavoce.runtime.isolated import IsolatedAligner
from vivavoce.runtime.listener import open_channel
from vivavoce.speech.audio import FRAME
from vivavoce.speech.channel import Ask, Channel, Settled, Step, Withdraw


def channel(settings: Settings, pacing: Pacing, *, partials: bool) -> Channel:
    """Give a channel as a server with these settings makes it for a client's options."""
    plain, asked = SessionOptions(), pacing.options
    options = replace(
        plain,
        endpointing_s=float(asked.get("endpointing", plain.endpointing_s)),
        maximum_utterance_s=float(asked.get("maximum_duration_without_endpointing", plain.maximum_utterance_s)),
    )
    made = open_channel(0, options, settings)
    if partials:
        made.partial_every = round(settings.partial_interval * SAMPLE_RATE)
    return made


def whole_frames(samples: Samples) -> NDArray[np.float32]:
    """Give samples as frames `[n, FRAME]`, the last one filled up with silence."""
    return np.concatenate([samples, np.zeros(-len(samples) % FRAME, np.float32)]).reshape(-1, FRAME)


class Models:
    """Plays conversations to the models in this process; a `load.System`. `chosen` are a server's settings."""

    def __init__(self, chosen: Mapping[str, str]) -> None:
        self._settings = load_settings(**dict(chosen))
        self._vad: Vad = plugin("vads", self._settings.vad)()
        self._engine: Any = plugin("engines", self._settings.engine)(EngineSettings.of(self._settings))

    def close(self) -> None:
        """Free the models."""
        self._engine.close()

    def __call__(
        self,
        talks: Sequence[Conversation],
        pacing: Pacing,
        *,
        progress: Callable[[float], None] = lambda _: None,
        hopeless: Callable[[Sequence[Heard]], bool] = lambda _: False,
    ) -> Run:
        """Play one stream for each conversation, and give what they brought."""
        return finish(lambda: self._play(talks, pacing, progress, hopeless))

    async def _play(
        self,
        talks: Sequence[Conversation],
        pacing: Pacing,
        progress: Callable[[float], None],
        hopeless: Callable[[Sequence[Heard]], bool],
    ) -> Run:
        run = Run()
        aligner = IsolatedAligner(plugin("aligners", self._settings.aligner))
        await aligner.start()
        pool = DecodePool(self._engine, aligner, threads=self._settings.decode_threads)
        with ThreadPoolExecutor(os.cpu_count() or 1) as ears:
            parts = _Parts(self._vad, ears, pool)
            begin = time.monotonic() + AHEAD_S
            streams = []
            for nth, (talk, start) in enumerate(zip(talks, pacing.starts(begin, len(talks)), strict=True)):
                pace = Pace(start=start, chunk_s=pacing.chunk_s)
                run.heard.append(Heard(played=talk, pace=pace))
                made = channel(self._settings, pacing, partials=True)
                streams.append(_Stream(str(nth), run.heard[-1], made, parts))
            everyone = asyncio.gather(*(stream.play(run) for stream in streams))
            steady = (begin + pacing.stagger_s, begin + min(talk.duration_s for talk in talks))
            watch = Watch(pid=os.getpid(), begin=begin, steady=steady, progress=progress, hopeless=hopeless)
            try:
                await watch.attend(everyone, run)
            finally:
                await pool.close()
                await aligner.close()
        return run


@dataclass(frozen=True, slots=True)
class _Parts:
    """What all streams share."""

    vad: Vad
    ears: Executor
    pool: DecodePool


class _Stream:
    """One stream's way through the models."""

    def __init__(self, name: str, heard: Heard, heard_by: Channel, parts: _Parts) -> None:
        self._name, self._heard, self._channel = name, heard, heard_by
        self._parts, self._pool = parts, parts.pool
        self._asked: dict[int, Request] = {}
        self._closed: dict[str, float] = {}
        self._open = ""
        self._idle = asyncio.Event()

    async def play(self, run: Run) -> None:
        """Hear each chunk when it is due, and end when every answer is there."""
        loop, vad = asyncio.get_running_loop(), self._parts.vad
        state = vad.open()
        frames = whole_frames(self._heard.played.samples)
        at, chunk = 0, 0
        while at < len(frames) and not run.given_up:
            due = self._heard.pace.due(chunk)
            await asyncio.sleep(max(due - time.monotonic(), 0))
            run.late_s.append(time.monotonic() - due)
            chunk += 1
            stop = min(round(chunk * self._heard.pace.chunk_s * SAMPLE_RATE) // FRAME, len(frames))
            if stop > at:
                piece, at = frames[at:stop], stop
                speech, state = await loop.run_in_executor(self._parts.ears, vad.probabilities, piece, state)
                self._follow(self._channel.feed(piece.reshape(-1), speech))
        self._follow(self._channel.cut())
        while self._channel.busy and not run.given_up:
            self._idle.clear()
            await self._idle.wait()
        for request in self._asked.values():
            self._pool.withdraw(request)

    def _follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Ask():
                    self._ask(step)
                case Withdraw(number=number):
                    if (request := self._asked.pop(number, None)) is not None:
                        self._pool.withdraw(request)
                case SpeechEnded():
                    self._closed[self._open] = time.monotonic()
                    self._pool.engine.release(f"{self._name}/{self._open}")
                case Partial(utterance=said):
                    self._show(said, final=False)
                case Settled(final=Final(utterance=said)):
                    self._show(said, final=True)
                    self._heard.decision_lags.append(time.monotonic() - self._closed.pop(said.id))

    def _ask(self, ask: Ask) -> None:
        self._open = ask.utterance
        clip = Clip(key=f"{self._name}/{ask.utterance}", samples=ask.samples, final=ask.final)
        self._asked[ask.number] = request = Request(clip=clip, answer=partial(self._take, ask))
        self._pool.submit(request)

    def _take(self, ask: Ask, answer: Hypothesis | None, spent_s: float) -> None:
        del spent_s
        self._asked.pop(ask.number, None)
        self._follow(self._channel.resolve(ask.number, answer))
        self._idle.set()

    def _show(self, said: Utterance, *, final: bool) -> None:
        heard = tuple(words(" ".join(word.text for word in said.words)))
        shown = Shown(at=time.monotonic(), utterance=said.id, words=heard, start=said.start, end=said.end, final=final)
        self._heard.shown.append(shown)
