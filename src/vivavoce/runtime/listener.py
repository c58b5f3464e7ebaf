"""A session's way through: bytes of the journal → frames → voice activity → channels → decode pool → events.

Reading bytes, resampling and voice activity run on a thread of the `ears`; the channels' state machines and the answers
of the pool run on the event loop, so they never meet. `hear` goes on only when the last piece is through, and a session
with many finals still out is not heard further: that, and the journal behind it, is all the backlog there is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.config import Settings
from vivavoce.events import Event, Final, Problem
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Kind, SessionOptions
from vivavoce.plugins import Vad
from vivavoce.runtime import metrics, tracing
from vivavoce.runtime.decode import DecodePool, Request
from vivavoce.speech.audio import FRAME, AudioDecoder
from vivavoce.speech.channel import Ask, Channel, Step, Withdraw
from vivavoce.speech.endpoint import Endpointer

MAX_FINALS_OUT = 8


class Listener:
    """Transcribes one session's stream; `say` hears every event, `woken` is called when an answer has come."""

    def __init__(
        self,
        session_id: str,
        options: SessionOptions,
        settings: Settings,
        *,
        vad: Vad,
        ears: Executor,
        pool: DecodePool,
        say: Callable[[Event], None],
        woken: Callable[[], None],
    ) -> None:
        self._session_id, self._options = session_id, options
        self._vad, self._ears, self._pool = vad, ears, pool
        self._say, self._woken = say, woken
        self._decoder = AudioDecoder(options.audio)
        self._states: list[Any] = [vad.open() for _ in range(options.audio.channels)]
        self._channels = [_channel(i, options, settings) for i in range(options.audio.channels)]
        self._asked: dict[tuple[int, int], Request] = {}
        self.decoding_s = 0.0

    @property
    def crowded(self) -> bool:
        """Whether so many finals are out that no more should be asked for."""
        return sum(request.clip.final for request in self._asked.values()) >= MAX_FINALS_OUT * len(self._channels)

    @property
    def open(self) -> bool:
        """Whether an utterance is open on any channel."""
        return self.speakers > 0

    @property
    def speakers(self) -> int:
        """On how many channels an utterance is open."""
        return sum(channel.open for channel in self._channels)

    @property
    def settled(self) -> bool:
        """Whether no final is out."""
        return not any(channel.busy for channel in self._channels)

    async def hear(self, read: Callable[[], bytes]) -> None:
        """Transcribe the next bytes of the stream, header excluded; `read` gives them and may block."""
        await self._hear(lambda: self._decoder.feed(read()))

    async def flush(self) -> None:
        """Transcribe what is left at the end of the stream and close every utterance."""
        await self._hear(self._decoder.flush)
        self.cut()

    def cut(self) -> None:
        """Close every open utterance where the stream stands."""
        for channel in self._channels:
            self._follow(channel.cut())

    def close(self) -> None:
        """Withdraw what was asked for."""
        for request in self._asked.values():
            self._pool.withdraw(request)
        self._asked.clear()

    async def _hear(self, decode: Callable[[], NDArray[np.float32]]) -> None:
        loop = asyncio.get_running_loop()
        samples, probabilities = await loop.run_in_executor(self._ears, self._perceive, decode)
        metrics.AUDIO_HEARD.inc(samples.size / SAMPLE_RATE)
        for channel, track, speech in zip(self._channels, samples, probabilities, strict=True):
            self._follow(channel.feed(track, speech))

    def _perceive(
        self, decode: Callable[[], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        samples = decode()
        probabilities = []
        for i, track in enumerate(samples):
            speech, self._states[i] = self._vad.probabilities(track.reshape(-1, FRAME), self._states[i])
            probabilities.append(speech)
        return samples, probabilities

    def _follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Ask():
                    self._ask(step)
                case Withdraw(channel=channel, number=number):
                    if request := self._asked.pop((channel, number), None):
                        self._pool.withdraw(request)
                case _:
                    self._tell(step)

    def _ask(self, ask: Ask) -> None:
        clip = Clip(
            key=f"{self._session_id}/{ask.utterance}",
            samples=ask.samples,
            final=ask.final,
            languages=self._options.languages,
        )
        request = Request(clip=clip, answer=partial(self._on_answer, ask))
        self._asked[ask.channel, ask.number] = request
        self._pool.submit(request)

    def _on_answer(self, ask: Ask, hypothesis: Hypothesis | None, spent_s: float) -> None:
        self.decoding_s += spent_s
        request = self._asked.pop((ask.channel, ask.number), None)
        if request is None:
            return
        metrics.ANSWER_SECONDS.labels(request.kind).observe(time.monotonic() - request.asked_at)
        if request.clip.final:
            metrics.SPEECH_TRANSCRIBED.inc(request.clip.duration_s)
            tracing.utterance(self._session_id, ask.utterance, ask.channel, request, failed=hypothesis is None)
        if hypothesis is None and ask.final:
            self._say(Problem(code="engine_error", message=f"utterance {ask.utterance} could not be transcribed"))
        for event in self._channels[ask.channel].resolve(ask.number, hypothesis):
            self._tell(event)
        self._woken()

    def _tell(self, event: Event) -> None:
        if isinstance(event, Final):
            self._pool.engine.release(f"{self._session_id}/{event.utterance.id}")
        self._say(event)


def _channel(index: int, options: SessionOptions, settings: Settings) -> Channel:
    endpointer = Endpointer(
        threshold=options.speech_threshold,
        silence=round(max(options.endpointing_s, settings.min_silence) * SAMPLE_RATE),
        maximum=round(options.maximum_utterance_s * SAMPLE_RATE),
    )
    partial_every = round(settings.partial_interval * SAMPLE_RATE) if Kind.PARTIAL in options.wanted else None
    return Channel(index, endpointer, partial_every=partial_every)
