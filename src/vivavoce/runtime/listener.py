"""A session's way through: bytes of the journal → frames → voice activity → channels → decode pool → text
rules → events.

Reading bytes, resampling and voice activity run on a thread of the `ears`; the channels' state machines and the answers
of the pool run on the event loop, so they never meet. `hear` goes on only when the last piece is through, and a session
with many finals still out is not heard further: that, and the journal behind it, is all the backlog there is.

Each final comes with a snapshot of its channel. A listener that is given the last one of every channel goes back to the
earliest sample that any of them needs; each channel's voice activity and decisions begin again where its own says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from vivavoce.config import Settings
from vivavoce.errors import EngineError
from vivavoce.events import Event, Final, Partial, Problem, SpeechEnded, TurnContinued, TurnEndLikely
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Kind, SessionOptions, Snapshot
from vivavoce.plugins import Vad
from vivavoce.runtime import metrics, tracing
from vivavoce.runtime.addons import Addons
from vivavoce.runtime.catalogue import Catalogue
from vivavoce.runtime.decode import DecodePool, Request
from vivavoce.runtime.isolated import IsolatedAligner, IsolatedDiarizer
from vivavoce.runtime.rules import TextRules
from vivavoce.speech.audio import FRAME, AudioDecoder
from vivavoce.speech.channel import Ask, Channel, ChannelState, Outcome, Settled, Step, Withdraw
from vivavoce.speech.endpoint import Endpointer
from vivavoce.speech.speakers import Speakers

log = structlog.get_logger()

MAX_FINALS_OUT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What hears: voice activity, and the engines; and what makes something of the text.

    The aligner and the diarizer start when somebody first needs them.
    """

    catalogue: Catalogue
    vad: Vad
    aligner: IsolatedAligner
    addons: Addons
    diarizer: IsolatedDiarizer | None = None

    async def close(self) -> None:
        """Stop decoding and free the models."""
        await self.catalogue.close()
        for isolated in (self.aligner, self.diarizer):
            if isolated is not None:
                await isolated.close()
        await self.addons.close()


class Listener:
    """Transcribes one session's stream; `say` hears every event, `woken` is called when an answer has come."""

    _pool: DecodePool
    _vad: Vad
    _rules: TextRules
    _hints: tuple[str, ...]

    def __init__(
        self,
        session_id: str,
        options: SessionOptions,
        settings: Settings,
        *,
        ears: Executor,
        say: Callable[[Event, Snapshot | None], None],
        woken: Callable[[], None],
    ) -> None:
        self._session_id, self._options = session_id, options
        self._ears = ears
        self._partial_every = round(settings.partial_interval * SAMPLE_RATE)
        self._say, self._woken = say, woken
        self._decoder = AudioDecoder(options.audio)
        # Each channel's voice activity, and the first sample that it has not heard.
        self._vads: list[tuple[int, Any]] = []
        self._channels = [open_channel(i, options, settings) for i in range(options.audio.channels)]
        self._asked: dict[tuple[int, int], Request] = {}
        self._drafted: dict[int, str] = {}
        self._hinted: set[str] = set()
        self.late = False
        self.decoding_s = 0.0
        self.show_partials(watched=False)

    async def begin(
        self,
        models: Models,
        pool: DecodePool,
        rules: TextRules,
        snapshots: Iterable[Snapshot],
        *,
        hints: tuple[str, ...] = (),
    ) -> int:
        """Go to where the snapshots were taken, and give the byte of the audio to hear from.

        The `pool` is that of the session's model, `rules` mend the texts, and engines that can be told are given the
        `hints`.
        """
        self._pool, self._vad, self._rules = pool, models.vad, rules
        self._hints = hints
        if self._wants_voices:
            await self._start_diarizer(models.diarizer)
        self._vads = [(0, self._vad.open()) for _ in self._channels]
        for snapshot in snapshots:
            self._restore(snapshot)
        needed = [min(channel.at, heard) for channel, (heard, _) in zip(self._channels, self._vads, strict=True)]
        return self._decoder.seek(min(needed))

    def show_partials(self, watched: bool) -> None:
        """Make partials while the session's client wants any, or somebody who watches."""
        wanted = watched or Kind.PARTIAL in self._options.wanted | self._options.callback_wanted
        for channel in self._channels:
            channel.partial_every = self._partial_every if wanted else None

    @property
    def _wants_voices(self) -> bool:
        asked = self._options.diarization
        return asked is not None and not asked.by_channel

    async def _start_diarizer(self, diarizer: IsolatedDiarizer | None) -> None:
        """Have the diarizer run; a session goes without where it does not, and says so."""
        cause: object = "there is none"
        if diarizer is not None:
            try:
                await diarizer.start()
            except EngineError as error:
                cause = error.__cause__
            else:
                return
        log.error("speakers are not told apart", session=self._session_id, error=str(cause))
        self._say(Problem(code="engine_error", message="speakers are not told apart: no diarizer started"), None)

    def _restore(self, snapshot: Snapshot) -> None:
        saved = snapshot.state
        state = ChannelState(
            kept_from=saved["kept_from"],
            free_from=saved["free_from"],
            endpointer=saved["endpointer"],
            origin=(saved["vad_at"], self._vad.load(saved["vad"])),
            speakers=saved.get("speakers", ()),
            language=saved.get("language"),
        )
        self._channels[snapshot.channel].restore(state)
        self._vads[snapshot.channel] = state.origin

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

    def is_muted(self, latest: bytes | None) -> bool:
        """Whether these next bytes change nothing for anybody: digital silence while nobody speaks."""
        return latest is not None and latest.count(latest[:1]) == len(latest) and self.settled

    async def hear(self, read: Callable[[], bytes], latest: bytes | None = None) -> None:
        """Transcribe the next bytes of the stream, header excluded: `latest`, or what `read` gives, which may block."""
        await self._hear(lambda: self._decoder.feed(read() if latest is None else latest))

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
        for key in self._drafted.values():
            self._pool.engine.release(key)
        self._drafted.clear()

    async def _hear(self, decode: Callable[[], NDArray[np.float32]]) -> None:
        loop = asyncio.get_running_loop()
        start = self._decoder.at
        before = list(self._vads)
        samples, probabilities = await loop.run_in_executor(self._ears, self._perceive, start, decode)
        metrics.AUDIO_HEARD.inc(samples.size / SAMPLE_RATE)
        for i, channel in enumerate(self._channels):
            # A channel that was restored further on has no use for what comes before.
            skip = min(max(channel.at - start, 0), samples.shape[1])
            speech = probabilities[i][skip // FRAME :]
            self._follow(channel.feed(samples[i, skip:], speech, origin=before[i]))

    def _perceive(
        self, start: int, decode: Callable[[], NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        samples = decode()
        probabilities = []
        for i, track in enumerate(samples):
            heard, state = self._vads[i]
            skip = min(max(heard - start, 0), len(track)) // FRAME
            speech, state = self._vad.probabilities(track.reshape(-1, FRAME)[skip:], state)
            self._vads[i] = (max(start + len(track), heard), state)
            probabilities.append(np.concatenate([np.zeros(skip, np.float32), speech]))
        return samples, probabilities

    def _follow(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Ask():
                    self._ask(step)
                case Withdraw(channel=channel, number=number):
                    request = self._asked.get((channel, number))
                    if request is not None and (self._pool.withdraw(request) or not request.clip.final):
                        del self._asked[channel, number]
                case _:
                    self._tell(step)

    def _ask(self, ask: Ask) -> None:
        clip = Clip(
            key=f"{self._session_id}/{ask.utterance}",
            samples=ask.samples,
            final=ask.final,
            languages=ask.languages,
            hints=self._hints,
            mend=self._rules.mend if ask.final else None,
        )
        if not ask.again:
            self._drafted[ask.channel] = clip.key
        request = Request(
            clip=clip,
            answer=partial(self._on_answer, ask),
            late=self.late,
            with_voices=ask.final and self._wants_voices,
        )
        self._asked[ask.channel, ask.number] = request
        if (replaced := self._pool.submit(request)) is not None:
            self._asked = {number: each for number, each in self._asked.items() if each is not replaced}

    def _on_answer(self, ask: Ask, hypothesis: Hypothesis | None, spent_s: float) -> None:
        self.decoding_s += spent_s
        key = f"{self._session_id}/{ask.utterance}"
        if not ask.final and self._drafted.get(ask.channel) != key:
            # Its utterance ended while it was on its way.
            self._pool.engine.release(key)
        request = self._asked.pop((ask.channel, ask.number), None)
        if request is None:
            return
        metrics.ANSWER_SECONDS.labels(request.kind).observe(time.monotonic() - request.asked_at)
        if request.clip.final:
            metrics.SPEECH_TRANSCRIBED.inc(request.clip.duration_s)
            tracing.utterance(self._session_id, ask.utterance, ask.channel, request, failed=hypothesis is None)
        if hypothesis is None and ask.final:
            problem = Problem(code="engine_error", message=f"utterance {ask.utterance} could not be transcribed")
            self._say(problem, None)
        self._follow(self._channels[ask.channel].resolve(ask.number, hypothesis))
        self._woken()

    def _tell(self, outcome: Outcome) -> None:
        match outcome:
            case Settled(final=Final(utterance=heard), state=state):
                self._hinted.discard(heard.id)
                self._say(self._rules.final(heard), self._snapshot(heard.channel, state))
            case Partial(utterance=heard):
                if (shown := self._rules.partial(heard)) is not None:
                    self._say(shown, None)
            case TurnEndLikely(utterance=heard):
                # As a partial: what may yet become something to be hidden is not shown.
                if (shown := self._rules.partial(heard)) is not None:
                    self._hinted.add(heard.id)
                    self._say(replace(outcome, utterance=shown.utterance), None)
            case TurnContinued(utterance_id=name):
                if name in self._hinted:
                    self._hinted.discard(name)
                    self._say(outcome, None)
            case SpeechEnded(channel=channel):
                # Its partials are withdrawn and its final needs no draft.
                self._pool.engine.release(self._drafted.pop(channel))
                self._say(outcome, None)
            case _:
                self._say(outcome, None)

    def _snapshot(self, channel: int, state: ChannelState) -> Snapshot:
        vad_at, vad_state = state.origin
        saved: dict[str, Any] = {
            "kept_from": state.kept_from,
            "free_from": state.free_from,
            "endpointer": state.endpointer,
            "vad_at": vad_at,
            "vad": self._vad.save(vad_state),
        }
        if state.speakers:
            saved["speakers"] = state.speakers
        if state.language is not None:
            saved["language"] = state.language
        return Snapshot(channel=channel, state=saved)


def open_channel(index: int, options: SessionOptions, settings: Settings) -> Channel:
    """Give a session's channel from its first sample; it asks for no partials yet."""
    endpointer = Endpointer(
        threshold=options.speech_threshold,
        silence=round(max(options.endpointing_s, settings.min_silence) * SAMPLE_RATE),
        maximum=round(options.maximum_utterance_s * SAMPLE_RATE),
    )
    asked = options.diarization
    speakers = Speakers(asked, index=index, channels=options.audio.channels) if asked is not None else None
    wait_s = options.turn_silence_s
    return Channel(
        index,
        endpointer,
        partial_every=None,
        speakers=speakers,
        turn_silence=None if wait_s is None else round(wait_s * SAMPLE_RATE),
        languages=options.languages,
        code_switching=options.code_switching,
    )
