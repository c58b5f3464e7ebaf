"""A live session: audio in by `feed`, messages out through its mailbox, over any number of sockets.

The intake makes bytes durable and the listener transcribes what is durable; the session stands between them. Its one
task (`run`) hears piece after piece, looks at the clock while there is nothing to hear, and ends the session when a
stop is reached and every final is out. What happens to the stream beside its bytes (a stop, a cut because the client
fell silent) is a `Control` at a byte offset, journaled like audio and acted on when the listener gets there.

Every event leaves by the publisher, which makes it durable if it is to be, and then puts it in the mailbox in order.

A session that an earlier process left unfinished is made again from its `Past`: the listener goes back to the snapshots
stored with the last finals and hears the journal again from there, controls included; what was said before is not said
again. The same happens after a drain, which only stops at a convenient moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Literal

import structlog

from vivavoce.errors import SetupError, StoreError, Unavailable
from vivavoce.events import (
    AudioAccepted,
    AudioRefused,
    Event,
    Final,
    Problem,
    RecordingEnded,
    RecordingStarted,
    ResultReady,
    StopAccepted,
    TranscriptReady,
    key_of,
)
from vivavoce.model import (
    Control,
    Delivery,
    Result,
    SessionOptions,
    SessionRecord,
    Snapshot,
    Status,
    Transcript,
    now,
)
from vivavoce.runtime import metrics
from vivavoce.runtime.catalogue import Catalogue, Lease
from vivavoce.runtime.clock import SessionClock
from vivavoce.runtime.examiner import Examiner
from vivavoce.runtime.intake import Intake
from vivavoce.runtime.listener import Listener
from vivavoce.runtime.mailbox import Ending, Mark
from vivavoce.runtime.opened import Opened
from vivavoce.runtime.parts import Connection, Parts, Past
from vivavoce.runtime.publisher import PROOF_S, Publisher
from vivavoce.runtime.rules import TextRules
from vivavoce.runtime.silencing import asks_for_silence, silence_session

log = structlog.get_logger()

HEARD_AT_ONCE_S = 2.0
STATES = ("queued", "live", "away", "finishing", "over")
IDLE_LOOK_S, SHORTEST_REST_S = 60.0, 0.05

CLOSE_NORMAL, CLOSE_GOING_AWAY = 1000, 1001


class Session:
    """One live session; every method runs on the event loop."""

    def __init__(
        self,
        record: SessionRecord,
        options: SessionOptions,
        parts: Parts,
        past: Past | None = None,
        *,
        opened: Opened | None = None,
        lease: Lease | None = None,
    ) -> None:
        """Make a new session, or with a `past` one that goes on; its add-ons may be `opened` and its model taken.

        `run` gives the lease back.
        """
        self.id = record.id
        self.resting = asyncio.Event()
        self._options, self._parts = options, parts
        self._past, self._opened, self._lease = past or Past(), opened, lease
        self._log = log.bind(session=record.id)
        self._wake = asyncio.Event()
        self._intake = Intake(
            record.id,
            parts.journal,
            parts.audio,
            epoch=record.epoch,
            header_size=self._header_size,
            kept=self._on_kept,
            resumed=self._on_resumed,
            failed=self._on_lost,
        )
        self._listener = Listener(
            record.id, options, parts.settings, ears=parts.ears, say=self._on_heard, woken=self._wake.set
        )
        self._publisher = Publisher(
            record,
            options,
            parts,
            self._past,
            self._intake,
            partials=self._listener.show_partials,
            woken=self._wake.set,
        )
        self.mailbox, self.watchers = self._publisher.mailbox, self._publisher.watchers
        self._examiner = Examiner(said=self._publisher.said, say=self._publisher.say, woken=self._wake.set)
        controls = self._past.controls
        self._controls = deque(control for control in controls if control.kind != "connect")
        self._started = record.status is not Status.QUEUED
        self._stopped = any(control.kind == "stop" for control in controls)
        self._flushed = self._draining = False
        self._post_processing = True
        self._outcome = Status.DONE
        self._error_code: int | None = None
        self._left_normally = False
        self._clock = SessionClock(
            parts.settings,
            stall_s=max(options.endpointing_s, parts.settings.idle_cut),
            at=time.monotonic(),
            ever_connected=bool(controls),
        )
        self._go_on(record)

    def _go_on(self, record: SessionRecord) -> None:
        """Begin where an earlier process left the session, at nothing where there was none."""
        if record.audio_bytes:
            self._intake.restore(record.audio_bytes, record.ack_ends)
        if self._stopped:
            self._intake.end()
        self._heard, self._late_until = 0, record.audio_bytes
        self._decoded_before_s, self._created_at = record.transcription_s, record.created_at
        # When the audio began. Where that was in an earlier process, it is not known better than this.
        age_s = (now() - record.created_at).total_seconds()
        self._zero_at = time.monotonic() - age_s if record.audio_bytes else None

    def opening(self, at: datetime) -> tuple[Delivery, ...]:
        """Give what the session owes from the moment it exists; no socket is told that it does."""
        return self._publisher.opening(at)

    # What the hub counts.

    @property
    def over(self) -> bool:
        """Whether it has said its last word."""
        return self._publisher.over

    @property
    def state(self) -> str:
        """One of `STATES`: away is without a socket, finishing is after the stop, over is while the rest is read."""
        if self.over:
            return "over"
        if self._stopped:
            return "finishing"
        if self._publisher.reader is not None:
            return "live"
        return "away" if self._clock.ever_connected else "queued"

    @property
    def stopped(self) -> bool:
        """Whether its recording was stopped, so that no more audio is taken."""
        return self._stopped

    @property
    def missed_s(self) -> float:
        """How much of the time since the first audio is not in it: what a call did not send while away or on hold."""
        if self._zero_at is None:
            return 0.0
        return max(time.monotonic() - self._zero_at - self._seconds(self._intake.size), 0.0)

    @property
    def options(self) -> SessionOptions:
        """What its client asked for."""
        return self._options

    @property
    def speakers(self) -> int:
        """On how many channels somebody speaks."""
        return self._listener.speakers

    @property
    def unheard_s(self) -> float:
        """How much audio is durable and not heard yet."""
        return self._options.audio.duration_s(max(self._intake.durable - self._heard, 0))

    # What sockets do.

    async def connect(self, close: Callable[[Ending], None], *, repeats: bool = True) -> Connection:
        """Take a new socket in the place of any older one; the client's first bytes show where its stream goes on.

        A telephone call never `repeats` what it sent: its first bytes are new, whatever they look like.
        """
        connection, again = Connection(close=close), self._clock.ever_connected
        metrics.RESUMES.inc(again)
        self._publisher.connect(connection, again=again, shows=not self._stopped)
        self._post_processing = True
        self._clock.on_connect(time.monotonic())
        await self._intake.reopen(repeats=repeats)
        self.mailbox.drop_acknowledgments()
        self._publisher.keep(controls=(Control(at=self._intake.size, kind="connect"),))
        self._wake.set()
        return connection

    def delivered(self, mark: Mark) -> None:
        """Take note that the client has everything up to `mark`; a socket that is gone may still prove it."""
        self._publisher.delivered(mark)

    def disconnect(self, connection: Connection, code: int | None) -> None:
        """Take note that a socket is gone, by the client's `code`, None where this side closed it.

        1000 is a stop, anything else may be followed by another socket.
        """
        if connection is not self._publisher.reader:
            return
        self._publisher.disconnect()
        self._clock.on_disconnect(time.monotonic())
        self._left_normally = code in (CLOSE_NORMAL, CLOSE_GOING_AWAY)
        self._post_processing = code != CLOSE_GOING_AWAY
        if code == CLOSE_NORMAL:
            self._stop()
        self._wake.set()

    async def feed(self, connection: Connection, data: bytes) -> None:
        """Take audio as it came, nothing included, which only shows that the client lives."""
        if connection is not self._publisher.reader:
            return
        self._clock.on_input(time.monotonic())
        if not data:
            return
        if self._stopped:
            reason = "the recording was stopped, so this audio is not transcribed"
            await self.refuse(connection, AudioRefused(reason=reason))
            return
        if not self._started:
            self._started, self._zero_at = True, time.monotonic()
            self._publisher.say(RecordingStarted(), status=Status.PROCESSING)
        before = self._intake.size
        if await self._intake.feed(data):
            self._clock.on_audio(time.monotonic())
            metrics.AUDIO_RECEIVED.inc(self._options.audio.duration_s(max(self._intake.size - before, 0)))

    async def stop(self, connection: Connection) -> None:
        """End the recording after the bytes taken so far; asking again only repeats the acknowledgment.

        Waits only while the client floods the session with stops.
        """
        if connection is not self._publisher.reader:
            return
        self._clock.on_input(time.monotonic())
        self._stop()
        recorded_s, heard_s = self._seconds(self._intake.size), self._seconds(self._heard)
        self._publisher.say(StopAccepted(recorded_s=recorded_s, left_s=max(recorded_s - heard_s, 0.0)))
        await self._publisher.room()

    async def refuse(self, connection: Connection, event: AudioRefused | Problem) -> None:
        """Tell the client of input that could not be taken; the session goes on. Waits only while it is flooded."""
        if connection is self._publisher.reader:
            self._clock.on_input(time.monotonic())
            self._publisher.say(event)
            await self._publisher.room()

    def drain(self) -> None:
        """Rest at the next utterance boundary; another process will go on."""
        self._draining = True
        self._wake.set()

    # The session's own task.

    async def run(self) -> None:
        """Live until the session is over and its client has its messages, or rests; never raises."""
        try:
            await self._begin_hearing()
            while not (self._flushed and self._listener.settled and self._examiner.settled):
                self._wake.clear()
                self._publisher.check()
                if self._flushed and self._listener.settled:
                    self._examiner.hurry()
                if self._draining and self._listener.settled:
                    await self._await_receipts()
                    return
                if not await self._step():
                    await self._rest()
            await self._finish()
        except SetupError:
            # The server stops for want of models; the session is for the next one.
            return
        except Exception:  # noqa: BLE001 - whatever broke, the client is to hear of it and the store to know
            self._log.exception("session failed")
            self._outcome, self._error_code = Status.ERROR, 500
            self._publisher.say(Problem(code="internal_error", message="internal error"))
            await self._conclude(Ending.FAILED)
        finally:
            self.resting.set()
            self._listener.close()
            self._examiner.close()
            if self._lease is not None:
                self._lease.give_back()
        await self._linger()

    async def _begin_hearing(self) -> None:
        """Wait for the models and go to where hearing begins: the start, or the last snapshots."""
        models = await asyncio.shield(self._parts.models)
        opened = self._opened or await models.addons.open(self._options, taken_up=True)
        rules = TextRules(self.id, opened, self._publisher.say)
        self._lease = lease = self._lease or await self._take_model(models.catalogue)
        snapshots = self._past.snapshots
        self._heard = await self._listener.begin(models, lease.pool, rules, snapshots, hints=opened.hints)
        self._examiner.begin(models.addons, opened, self._past.finals)
        if self._heard:
            self._heard += self._intake.audio_start or 0
        while self._controls and self._controls[0].at < self._heard:
            self._controls.popleft()

    async def _take_model(self, catalogue: Catalogue) -> Lease:
        """Take the model that the session began with, or the default one where that is gone: audio is never left."""
        try:
            return await catalogue.take(self._options.model, patience_s=None)
        except Unavailable as error:
            self._log.error("the default model goes on with a session", error=str(error))
            problem = Problem(code="engine_error", message="the session's model is gone: the default one goes on")
            self._publisher.say(problem)
            return await catalogue.take("")

    async def _step(self) -> bool:
        """Hear a piece of the stream or act on a control; False if there is nothing to do now."""
        if self._listener.crowded or self._intake.audio_start is None:
            return False
        if self._examiner.crowded and self._seconds(self._heard) > (now() - self._created_at).total_seconds():
            # Only where more was heard than can have been said since the session began.
            return False
        self._heard = max(self._heard, self._intake.audio_start)
        self._listener.late = self._heard < self._late_until
        control = self._controls[0] if self._controls else None
        # A control may stand beyond bytes that were lost with the disk.
        control_at = self._intake.size if control is None else min(control.at, self._intake.size)
        stop = min(control_at, self._intake.durable)
        if self._heard < stop:
            audio = self._options.audio
            size = min(stop - self._heard, round(HEARD_AT_ONCE_S * audio.sample_rate) * audio.frame_bytes)
            latest = self._intake.latest(self._heard, size)
            await self._listener.hear(partial(self._intake.read, self._heard, size), latest)
            self._heard += size
            return True
        if control is None or control_at > self._heard or self._flushed:
            return False
        self._controls.popleft()
        if control.kind == "cut":
            self._listener.cut()
        else:
            await self._listener.flush()
            self._flushed = True
        return True

    async def _rest(self) -> None:
        """Wait for something to do, and look at the clock."""
        clock, utterance_open = self._clock, self._listener.open
        due_at = time.monotonic() + IDLE_LOOK_S if self._stopped else clock.next(utterance_open=utterance_open)
        try:
            async with asyncio.timeout(max(due_at - time.monotonic(), SHORTEST_REST_S)):
                await self._wake.wait()
        except TimeoutError:
            if not self._stopped:
                self._look_at_clock()

    def _look_at_clock(self) -> None:
        """Cut or end what has waited too long."""
        overdue = self._clock.overdue(time.monotonic())
        if overdue is not None:
            self._log.info("expired", reason=overdue)
            self._publisher.say(Problem(code="session_timeout", message=overdue))
            if not self._clock.ever_connected:
                self._outcome, self._error_code = Status.ERROR, 408
            self._stop()
        elif self._listener.open and self._clock.stalled(time.monotonic()) and self._heard == self._intake.size:
            self._control("cut")

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._intake.end()
            self._control("stop")

    def _control(self, kind: Literal["cut", "stop"]) -> None:
        control = Control(at=self._intake.size, kind=kind)
        self._publisher.keep(controls=(control,))
        self._controls.append(control)
        self._wake.set()

    # The end.

    async def _finish(self) -> None:
        """Report the results in the contract's order and close."""
        recorded_s = self._seconds(self._intake.size)
        self._publisher.say(RecordingEnded(recorded_s=recorded_s))
        if self._post_processing:
            await self._publisher.settle()
            self._publisher.check()
            transcript = Transcript(utterances=tuple(await self._parts.store.finals(self.id)))
            self._publisher.say(TranscriptReady(transcript=transcript))
            if not await self._examine(transcript):
                return
            result = Result(
                transcript=transcript,
                audio_s=recorded_s,
                channels=self._options.audio.channels,
                transcription_s=self._decoding_s,
                features=self._options.features,
                findings=tuple(await self._parts.store.findings(self.id)),
            )
            self._publisher.say(ResultReady(result=result))
        await self._conclude(Ending.FINISHED)

    async def _examine(self, transcript: Transcript) -> bool:
        """Ask add-ons about the whole transcript; False where the server stops before they have answered."""
        self._examiner.read(transcript)
        self._examiner.hurry()
        while not self._examiner.settled:
            if self._draining:
                await self._await_receipts()
                return False
            self._wake.clear()
            await self._wake.wait()
            self._publisher.check()
        await self._publisher.settle()
        self._publisher.check()
        return True

    async def _conclude(self, ending: Ending) -> None:
        if not await self._silence():
            # Unfinished: its audio is shown to nobody, and the next process tries again.
            self.mailbox.close(ending)
            return
        metrics.SESSIONS_ENDED.labels(self._outcome).inc()
        self._publisher.end(
            status=self._outcome,
            completed_at=now(),
            error_code=self._error_code,
            transcription_s=self._decoding_s,
        )
        await self._parts.journal.settle(self.id)
        await self._publisher.settle()
        await asyncio.to_thread(self._parts.audio.release, self.id)
        self.mailbox.close(ending if self._publisher.failure is None else Ending.FAILED)

    async def _silence(self) -> bool:
        """Silence in the stored audio what is to be, where that was asked for; False where it cannot be done."""
        if not asks_for_silence(self._options):
            return True
        failed = self._outcome is Status.ERROR
        if failed:
            # What came behind the silence would stay: no audio and no answer is taken any more.
            self._stopped = True
            self._listener.close()
            self._examiner.close()
        await self._publisher.settle()
        await self._parts.journal.settle(self.id)
        return await silence_session(self._parts.store, self._parts.audio, self.id, self._options, failed=failed)

    @property
    def _decoding_s(self) -> float:
        return self._decoded_before_s + self._listener.decoding_s

    async def _await_receipts(self) -> None:
        """Let a client that is there show what it has: the next process repeats the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROOF_S):
                await self._publisher.settle()
                while self._publisher.reader is not None and self.mailbox.owes:
                    self._wake.clear()
                    await self._wake.wait()
                await self._parts.journal.settle(self.id)

    async def _linger(self) -> None:
        """Wait until the client has everything, also one that was cut off and comes back for it."""
        give_up = time.monotonic() + self._parts.settings.grace
        while self._clock.ever_connected and not self.mailbox.empty:
            if self._draining or (self._publisher.reader is None and self._left_normally):
                return
            self._wake.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + give_up - time.monotonic()):
                    await self._wake.wait()
            except TimeoutError:
                return

    # What its parts report.

    def _on_heard(self, event: Event, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            self._publisher.say(event)
        else:
            self._publisher.say(event, snapshot=snapshot, transcription_s=self._decoding_s)
        if isinstance(event, Final) and key_of(event) not in self._publisher.said:
            self._examiner.examine(event.utterance)

    def _on_kept(self, start: int, stop: int) -> None:
        seconds = self._seconds
        accepted = AudioAccepted(start_byte=start, stop_byte=stop, start_s=seconds(start), stop_s=seconds(stop))
        self._publisher.say(accepted)
        # A muted line is heard seconds at a time, or with what comes after it; after a stop nothing comes.
        unheard_s = self._options.audio.duration_s(stop - self._heard)
        if (
            self._stopped
            or unheard_s >= HEARD_AT_ONCE_S
            or not self._listener.is_muted(self._intake.latest(start, stop - start))
        ):
            self._wake.set()

    def _on_resumed(self, end: int) -> None:
        self._publisher.resumed(end)

    def _on_lost(self, error: StoreError) -> None:
        # Not by the journal, which has just failed.
        problem = Problem(code=error.code, message="audio could not be stored; it is not acknowledged")
        self._publisher.interrupt(problem, Ending.LOST)

    def _header_size(self, head: bytes) -> int | None:
        """Give the length of a WAV header, and tell the client if it contradicts what the session was opened with."""
        size = self._parts.wire.audio_start(head)
        if size and (mismatch := self._parts.wire.header_mismatch(head, self._options.audio)):
            self._publisher.say(Problem(code="invalid_audio_format", message=mismatch))
        return size

    def _seconds(self, at: int) -> float:
        """Turn a position in the session's bytes into seconds of its audio."""
        return self._options.audio.duration_s(max(at - (self._intake.audio_start or 0), 0))
