"""A live session: audio in by `feed`, messages out through its mailbox, over any number of sockets.

The intake makes bytes durable and the listener transcribes what is durable; the session stands between them. Its one
task (`run`) hears piece after piece, looks at the clock while there is nothing to hear, and ends the session when a
stop is reached and every final is out. What happens to the stream beside its bytes (a stop, a cut because the client
fell silent) is a `Control` at a byte offset, journaled like audio and acted on when the listener gets there.

Every event leaves by `_say`: rendered, numbered and made durable if it is to be, then put in the mailbox in order.

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
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

import structlog

from vivavoce.errors import SetupError, StoreError, Unavailable
from vivavoce.events import (
    AudioAccepted,
    AudioRefused,
    Event,
    Final,
    Message,
    Problem,
    RecordingEnded,
    RecordingStarted,
    ResultReady,
    SessionEnded,
    SessionStarted,
    StopAccepted,
    StoredMessage,
    TranscriptReady,
    key_of,
)
from vivavoce.model import (
    Control,
    Delivery,
    Kind,
    Result,
    SessionOptions,
    SessionRecord,
    Snapshot,
    Status,
    Transcript,
    now,
)
from vivavoce.plugins import Write
from vivavoce.runtime import metrics
from vivavoce.runtime.callbacks import Mailing
from vivavoce.runtime.catalogue import Catalogue, Lease
from vivavoce.runtime.clock import SessionClock
from vivavoce.runtime.examiner import Examiner
from vivavoce.runtime.intake import Intake
from vivavoce.runtime.listener import Listener
from vivavoce.runtime.mailbox import Ending, Mailbox, Mark
from vivavoce.runtime.opened import Opened
from vivavoce.runtime.parts import Connection, Parts, Past
from vivavoce.runtime.rules import TextRules
from vivavoce.runtime.sayings import Sayings
from vivavoce.runtime.silencing import asks_for_silence, findings_in, silence_session
from vivavoce.runtime.watch import Watchers

log = structlog.get_logger()

HEARD_AT_ONCE_S = 2.0
STATES = ("queued", "live", "away", "finishing", "over")
IDLE_LOOK_S, SHORTEST_REST_S = 60.0, 0.05

PROOF_S = 1.0
"""How long a client that came back has to show by its audio what it has, before all that is in doubt is repeated."""

MAX_STORED_UNNAMED = 100
"""A client that sends nothing but nonsense, or stop after stop, is answered each time, but does not fill the store."""

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
        self.over = False
        self._epoch = record.epoch
        self._options, self._parts = options, parts
        self._log = log.bind(session=record.id)
        self._mailing = Mailing(
            session_id=record.id, options=options, webhook_url=parts.settings.webhook_url, envelopes=parts.wire
        )
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
        past = past or Past()
        self._said, self._controls = past.said, deque(control for control in past.controls if control.kind != "connect")
        self._seq = max((message.seq for message in past.messages), default=-1) + 1
        self.mailbox = Mailbox(delivered_to=record.delivered_to, earlier=past.messages)
        self.watchers = Watchers(
            told=self._seq - 1, most=parts.settings.max_watchers, partials=self._listener.show_partials
        )
        self._sayings = Sayings(parts.journal, given_up=self._on_given_up)
        self._unnamed = 0
        self._failure: StoreError | None = None
        self._started = record.status is not Status.QUEUED
        self._stopped = any(control.kind == "stop" for control in past.controls)
        self._flushed = self._draining = False
        self._post_processing = True
        self._outcome = Status.DONE
        self._error_code: int | None = None
        self._connection: Connection | None = None
        self._left_normally = False
        self._clock = SessionClock(
            parts.settings,
            stall_s=max(options.endpointing_s, parts.settings.idle_cut),
            at=time.monotonic(),
            ever_connected=bool(past.controls),
        )
        if record.audio_bytes:
            self._intake.restore(record.audio_bytes, record.ack_ends)
        self._heard, self._late_until = 0, record.audio_bytes
        self._decoded_before_s = record.transcription_s
        self._created_at, self._past, self._opened, self._lease = record.created_at, past, opened, lease
        # When the audio began. Where that was in an earlier process, it is not known better than this.
        age_s = (now() - record.created_at).total_seconds()
        self._zero_at = time.monotonic() - age_s if record.audio_bytes else None
        self._examiner = Examiner(said=self._said, say=self._say, woken=self._wake.set)

    def opening(self, at: datetime) -> tuple[Delivery, ...]:
        """Give what the session owes from the moment it exists; no socket is told that it does."""
        return self._mailing.deliveries(self._parts.wire.render(self.id, SessionStarted(), at), at)

    # What the hub counts.

    @property
    def state(self) -> str:
        """One of `STATES`: away is without a socket, finishing is after the stop, over is while the rest is read."""
        if self.over:
            return "over"
        if self._stopped:
            return "finishing"
        if self._connection is not None:
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
        older, connection = self._connection, Connection(close=close)
        self._connection = connection
        if older is not None:
            self._log.info("replaced by a newer socket")
            older.close(Ending.REPLACED)
        self.mailbox.release()
        if self._clock.ever_connected:
            metrics.RESUMES.inc()
            self._repeat_to(connection)
        self.mailbox.connected = self._post_processing = True
        self.mailbox.expect_reader(connection)
        self._clock.on_connect(time.monotonic())
        await self._intake.reopen(repeats=repeats)
        self.mailbox.drop_acknowledgments()
        self._sayings.add(self._write(controls=(Control(at=self._intake.size, kind="connect"),)))
        self._wake.set()
        return connection

    def delivered(self, mark: Mark) -> None:
        """Take note that the client has everything up to `mark`; a socket that is gone may still prove it."""
        self._intake.acknowledged(mark.acked)
        self._prove(mark.seq)

    def disconnect(self, connection: Connection, code: int | None) -> None:
        """Take note that a socket is gone, by the client's `code`, None where this side closed it.

        1000 is a stop, anything else may be followed by another socket.
        """
        if connection is not self._connection:
            return
        self._connection, self.mailbox.connected = None, False
        self.mailbox.release()
        self._clock.on_disconnect(time.monotonic())
        self._left_normally = code in (CLOSE_NORMAL, CLOSE_GOING_AWAY)
        self._post_processing = code != CLOSE_GOING_AWAY
        if code == CLOSE_NORMAL:
            self._stop()
        self._wake.set()

    async def feed(self, connection: Connection, data: bytes) -> None:
        """Take audio as it came, nothing included, which only shows that the client lives."""
        if connection is not self._connection:
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
            self._say(RecordingStarted(), self._write(status=Status.PROCESSING))
        before = self._intake.size
        if await self._intake.feed(data):
            self._clock.on_audio(time.monotonic())
            metrics.AUDIO_RECEIVED.inc(self._options.audio.duration_s(max(self._intake.size - before, 0)))

    async def stop(self, connection: Connection) -> None:
        """End the recording after the bytes taken so far; asking again only repeats the acknowledgment.

        Waits only while the client floods the session with stops.
        """
        if connection is not self._connection:
            return
        self._clock.on_input(time.monotonic())
        self._stop()
        recorded_s, heard_s = self._seconds(self._intake.size), self._seconds(self._heard)
        self._say(StopAccepted(recorded_s=recorded_s, left_s=max(recorded_s - heard_s, 0.0)))
        await self._sayings.room()

    async def refuse(self, connection: Connection, event: AudioRefused | Problem) -> None:
        """Tell the client of input that could not be taken; the session goes on. Waits only while it is flooded."""
        if connection is self._connection:
            self._clock.on_input(time.monotonic())
            self._say(event)
            await self._sayings.room()

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
                self._check()
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
            self._say(Problem(code="internal_error", message="internal error"))
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
        rules = TextRules(self.id, opened, self._say)
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
            self._say(Problem(code="engine_error", message="the session's model is gone: the default one goes on"))
            return await catalogue.take("")

    def _check(self) -> None:
        """Raise what the journal could not do for this session."""
        if self._failure is not None:
            raise self._failure

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
            self._say(Problem(code="session_timeout", message=overdue))
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
        self._sayings.add(self._write(controls=(control,)))
        self._controls.append(control)
        self._wake.set()

    # The end.

    async def _finish(self) -> None:
        """Report the results in the contract's order and close."""
        recorded_s = self._seconds(self._intake.size)
        self._say(RecordingEnded(recorded_s=recorded_s))
        if self._post_processing:
            await self._sayings.settle()
            self._check()
            transcript = Transcript(utterances=tuple(await self._parts.store.finals(self.id)))
            self._say(TranscriptReady(transcript=transcript))
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
            self._say(ResultReady(result=result))
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
            self._check()
        await self._sayings.settle()
        self._check()
        return True

    async def _conclude(self, ending: Ending) -> None:
        if not await self._silence():
            # Unfinished: its audio is shown to nobody, and the next process tries again.
            self.mailbox.close(ending)
            return
        write = self._write(
            status=self._outcome,
            completed_at=now(),
            error_code=self._error_code,
            transcription_s=self._decoding_s,
        )
        metrics.SESSIONS_ENDED.labels(self._outcome).inc()
        self.over = True
        self._say(SessionEnded(), write)
        await self._parts.journal.settle(self.id)
        await self._sayings.settle()
        await asyncio.to_thread(self._parts.audio.release, self.id)
        self.mailbox.close(ending if self._failure is None else Ending.FAILED)

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
        await self._sayings.settle()
        await self._parts.journal.settle(self.id)
        return await silence_session(self._parts.store, self._parts.audio, self.id, self._options, failed=failed)

    @property
    def _decoding_s(self) -> float:
        return self._decoded_before_s + self._listener.decoding_s

    async def _await_receipts(self) -> None:
        """Let a client that is there show what it has: the next process repeats the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PROOF_S):
                await self._sayings.settle()
                while self._connection is not None and self.mailbox.owes:
                    self._wake.clear()
                    await self._wake.wait()
                await self._parts.journal.settle(self.id)

    async def _linger(self) -> None:
        """Wait until the client has everything, also one that was cut off and comes back for it."""
        give_up = time.monotonic() + self._parts.settings.grace
        while self._clock.ever_connected and not self.mailbox.empty:
            if self._draining or (self._connection is None and self._left_normally):
                return
            self._wake.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + give_up - time.monotonic()):
                    await self._wake.wait()
            except TimeoutError:
                return

    # Out.

    def _write(self, **changes: Any) -> Write:
        return Write(session_id=self.id, epoch=self._epoch, **changes)

    def _on_heard(self, event: Event, snapshot: Snapshot | None) -> None:
        write = None if snapshot is None else self._write(snapshot=snapshot, transcription_s=self._decoding_s)
        self._say(event, write)
        if isinstance(event, Final) and key_of(event) not in self._said:
            self._examiner.examine(event.utterance)

    def _say(self, event: Event, change: Write | None = None) -> None:
        """Send an event, once it is durable if it is to be; `change` becomes durable with it."""
        at, key = now(), key_of(event)
        if event.durable and key and key in self._said:
            return
        message = self._parts.wire.render(self.id, event, at)
        wanted = event.kind in self._options.wanted
        deliveries = self._mailing.deliveries(message, at)
        self._unnamed += event.durable and not key
        if not event.durable or (not key and self._unnamed > MAX_STORED_UNNAMED):
            # In its turn: behind what is on its way to the journal.
            if (wanted or self.watchers.sees(event)) and self._sayings.pending:
                self._sayings.add(self._write(), partial(self._show, message, wanted=wanted))
            else:
                self._show(message, wanted=wanted)
            if deliveries:
                # The socket's messages are not to wait for this.
                wake = partial(self._parts.courier.wake, self.id, deliveries)
                self._sayings.add(self._write(deliveries=deliveries), wake, aside=True)
            return
        seq, self._seq = self._seq, self._seq + 1
        stored = StoredMessage(
            seq=seq,
            key=key,
            at=self._intake.durable,
            kind=event.kind,
            created_at=at,
            text=message.text,
            sent=wanted,
        )
        write = replace(
            change or self._write(),
            messages=(stored,),
            finals=(event.utterance,) if isinstance(event, Final) else (),
            findings=findings_in(event),
            deliveries=deliveries,
        )
        self._sayings.add(write, partial(self._publish, message, stored, deliveries))

    def _show(self, message: Message, *, wanted: bool) -> None:
        self.watchers.put(message)
        if wanted:
            self._send(message)

    def _publish(self, message: Message, stored: StoredMessage, deliveries: tuple[Delivery, ...]) -> None:
        if deliveries:
            self._parts.courier.wake(self.id, deliveries)
        self.watchers.put(message, stored.seq)
        if stored.sent:
            self._send(message, stored)

    def _send(self, message: Message, stored: StoredMessage | None = None) -> None:
        if isinstance(message.event, AudioAccepted):
            if self._intake.resuming:
                return
            if (waiting := self.mailbox.last_acknowledgment) is not None:
                joined = replace(message.event, start_byte=waiting.start_byte, start_s=waiting.start_s)
                message = self._parts.wire.render(self.id, joined, now())
        if stored is None:
            self.mailbox.put(message)
        else:
            self.mailbox.put(message, stored.seq, stored.at)
        if self.mailbox.crowded and self._connection is not None:
            self._log.warning("the client reads too slowly")
            self._connection.close(Ending.SLOW)

    def _repeat_to(self, connection: Connection) -> None:
        """Send a client that came back what it may lack, once it had the time to show what it has."""
        if self.mailbox.doubtful and not self._stopped and Kind.ACK in self._options.wanted:
            self.mailbox.held = True
            asyncio.get_running_loop().call_later(PROOF_S, self._on_no_proof, connection)
        else:
            self.mailbox.repeat()

    def _on_no_proof(self, connection: Connection) -> None:
        if self._connection is connection and self.mailbox.held:
            self.mailbox.repeat()

    def _on_resumed(self, end: int) -> None:
        """The client goes on, and shows to have all that was said before the acknowledgment up to `end`."""
        if Kind.ACK in self._options.wanted:
            self._prove(self.mailbox.last_before(end))
        if self.mailbox.held:
            self.mailbox.repeat()

    def _prove(self, seq: int) -> None:
        """Forget what the client has, here and for the next process."""
        if not self.mailbox.prove(seq):
            return
        # A session that is over may be deleted any moment; should this process die, its messages come once more.
        if not self.over:
            self._parts.journal.append(self._write(delivered_to=seq), b"", lambda _: None)
        self._wake.set()

    def _on_given_up(self, error: StoreError) -> None:
        """The store was away for so long that what was said is lost, and the session with it."""
        self._failure = error
        self._wake.set()

    def _on_kept(self, start: int, stop: int) -> None:
        seconds = self._seconds
        accepted = AudioAccepted(start_byte=start, stop_byte=stop, start_s=seconds(start), stop_s=seconds(stop))
        self._say(accepted)
        # A muted line is heard a second at a time, or with what comes after it; after a stop nothing comes.
        unheard_s = self._options.audio.duration_s(stop - self._heard)
        if (
            self._stopped
            or unheard_s >= HEARD_AT_ONCE_S
            or not self._listener.is_muted(self._intake.latest(start, stop - start))
        ):
            self._wake.set()

    def _on_lost(self, error: StoreError) -> None:
        problem = Problem(code=error.code, message="audio could not be stored; it is not acknowledged")
        if problem.kind in self._options.wanted:
            # Not by the journal, which has just failed.
            self._send(self._parts.wire.render(self.id, problem, now()))
        if self._connection is not None:
            self._connection.close(Ending.LOST)

    def _header_size(self, head: bytes) -> int | None:
        """Give the length of a WAV header, and tell the client if it contradicts what the session was opened with."""
        size = self._parts.wire.audio_start(head)
        if size and (mismatch := self._parts.wire.header_mismatch(head, self._options.audio)):
            self._say(Problem(code="invalid_audio_format", message=mismatch))
        return size

    def _seconds(self, at: int) -> float:
        """Turn a position in the session's bytes into seconds of its audio."""
        return self._options.audio.duration_s(max(at - (self._intake.audio_start or 0), 0))
