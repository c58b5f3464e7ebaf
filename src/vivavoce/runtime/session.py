"""A live session: audio in by `feed`, messages out through its mailbox, over any number of sockets.

The intake makes bytes durable and the listener transcribes what is durable; the session stands between them. Its one
task (`run`) hears piece after piece, looks at the clock while there is nothing to hear, and ends the session when a
stop is reached and every final is out. What happens to the stream beside its bytes (a stop, a cut because the client
fell silent) is a `Control` at a byte offset, journaled like audio and acted on when the listener gets there.

Every event leaves by `_say`: rendered, numbered and journaled if it is durable, then put in the mailbox in order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import structlog

from vivavoce.config import Settings
from vivavoce.errors import StoreError
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
    StopAccepted,
    StoredMessage,
    TranscriptReady,
)
from vivavoce.model import AudioFormat, Control, Result, SessionOptions, SessionRecord, Status, Transcript, now
from vivavoce.plugins import AudioFiles, Store, Vad, Write
from vivavoce.runtime import metrics
from vivavoce.runtime.decode import DecodePool
from vivavoce.runtime.intake import Intake
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.listener import Listener
from vivavoce.runtime.mailbox import Ending, Mailbox

log = structlog.get_logger()

HEARD_AT_ONCE_S = 1.0
STATES = ("queued", "live", "away", "finishing", "over")
CLOSE_NORMAL, CLOSE_GOING_AWAY = 1000, 1001


class Wire(Protocol):
    """What a session needs of its client's protocol."""

    def render(self, session_id: str, event: Event, at: datetime) -> Message:
        """Write an event as a message."""

    def options_of(self, request: Mapping[str, Any]) -> SessionOptions:
        """Read a stored request."""

    def audio_start(self, head: bytes) -> int | None:
        """Give the length of a header before the audio, None while `head` is too short to tell."""

    def header_mismatch(self, head: bytes, audio: AudioFormat) -> str | None:
        """Say how a header contradicts the announced format, None where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all sessions of a process share."""

    settings: Settings
    store: Store
    audio: AudioFiles
    journal: Journal
    pool: DecodePool
    vad: Vad
    ears: Executor
    wire: Wire


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Connection:
    """One socket of a session; `close` is called when it must go before the mailbox is empty."""

    close: Callable[[Ending], None]


class Session:
    """One live session; every method runs on the event loop."""

    def __init__(self, record: SessionRecord, options: SessionOptions, parts: Parts) -> None:
        self.id = record.id
        self.mailbox = Mailbox()
        self._options, self._parts = options, parts
        self._log = log.bind(session=record.id)
        self._wake = asyncio.Event()
        self._intake = Intake(
            record.id,
            parts.journal,
            parts.audio,
            header_size=self._header_size,
            kept=self._on_kept,
            failed=self._on_lost,
        )
        self._listener = Listener(
            record.id,
            options,
            parts.settings,
            vad=parts.vad,
            ears=parts.ears,
            pool=parts.pool,
            say=self._say,
            woken=self._wake.set,
        )
        self._seq = self._unsaid = 0
        self._failure: StoreError | None = None
        self._heard = 0
        self._controls: deque[Control] = deque()
        self._started = self._stopped = self._flushed = False
        self._post_processing = True
        self._outcome = Status.DONE
        self._error_code: int | None = None
        self._connection: Connection | None = None
        self._left_normally = False
        self._born_at = self._audio_at = self._input_at = self._left_at = time.monotonic()
        self._ever_connected = False

    # What the hub counts.

    @property
    def state(self) -> str:
        """One of `STATES`: away is without a socket, finishing is after the stop, over is while the rest is read."""
        if self.mailbox.closed:
            return "over"
        if self._stopped:
            return "finishing"
        if self._connection is not None:
            return "live"
        return "away" if self._ever_connected else "queued"

    @property
    def speakers(self) -> int:
        """On how many channels somebody speaks."""
        return self._listener.speakers

    @property
    def unheard_s(self) -> float:
        """How much audio is durable and not heard yet."""
        return self._options.audio.duration_s(max(self._intake.durable - self._heard, 0))

    # What sockets do.

    async def connect(self, close: Callable[[Ending], None]) -> Connection:
        """Take a new socket in the place of any older one; the client's first bytes show where its stream goes on."""
        older, connection = self._connection, Connection(close=close)
        self._connection = connection
        if older is not None:
            self._log.info("replaced by a newer socket")
            older.close(Ending.REPLACED)
        metrics.RESUMES.inc(self._ever_connected)
        self._ever_connected = self.mailbox.connected = self._post_processing = True
        self.mailbox.expect_reader()
        self._audio_at = self._input_at = time.monotonic()
        await self._intake.reopen()
        self._journal(Write(session_id=self.id, controls=(Control(at=self._intake.size, kind="connect"),)))
        self._wake.set()
        return connection

    def disconnect(self, connection: Connection, code: int) -> None:
        """Take note that a socket is gone: 1000 is a stop, anything else may be followed by another socket."""
        if connection is not self._connection:
            return
        self._connection, self.mailbox.connected = None, False
        self._left_at = time.monotonic()
        self._left_normally = code in (CLOSE_NORMAL, CLOSE_GOING_AWAY)
        self._post_processing = code != CLOSE_GOING_AWAY
        if code == CLOSE_NORMAL:
            self._stop()
        self._wake.set()

    async def feed(self, connection: Connection, data: bytes) -> None:
        """Take audio as it came, nothing included, which only shows that the client lives."""
        if connection is not self._connection:
            return
        self._input_at = time.monotonic()
        if not data:
            return
        if self._stopped:
            self._say(AudioRefused(reason="the recording was stopped, so this audio is not transcribed"))
            return
        if not self._started:
            self._started = True
            self._say(RecordingStarted(), Write(session_id=self.id, status=Status.PROCESSING))
        before = self._intake.size
        if await self._intake.feed(data):
            self._audio_at = time.monotonic()
            metrics.AUDIO_RECEIVED.inc(self._options.audio.duration_s(max(self._intake.size - before, 0)))

    def stop(self, connection: Connection) -> None:
        """End the recording after the bytes taken so far; asking again only repeats the acknowledgment."""
        if connection is not self._connection:
            return
        self._input_at = time.monotonic()
        self._stop()
        recorded_s, heard_s = self._seconds(self._intake.size), self._seconds(self._heard)
        self._say(StopAccepted(recorded_s=recorded_s, left_s=max(recorded_s - heard_s, 0.0)))

    def refuse(self, connection: Connection, event: AudioRefused | Problem) -> None:
        """Tell the client of input that could not be taken; the session goes on."""
        if connection is self._connection:
            self._input_at = time.monotonic()
            self._say(event)

    def shut_down(self) -> None:
        """End the recording where it stands: the server stops."""
        self._stop()

    # The session's own task.

    async def run(self) -> None:
        """Live until the session is over and its messages are read; never raises."""
        try:
            while not (self._flushed and self._listener.settled):
                self._wake.clear()
                self._check()
                if not await self._step():
                    await self._rest()
            await self._finish()
        except Exception:  # noqa: BLE001 - whatever broke, the client is to hear of it and the store to know
            self._log.exception("session failed")
            self._outcome, self._error_code = Status.ERROR, 500
            self._say(Problem(code="internal_error", message="internal error"))
            await self._conclude(Ending.FAILED)
        finally:
            self._listener.close()
        await self._linger()

    def _check(self) -> None:
        """Raise what the journal could not do for this session."""
        if self._failure is not None:
            raise self._failure

    async def _step(self) -> bool:
        """Hear a piece of the stream or act on a control; False if there is nothing to do now."""
        if self._listener.crowded or self._intake.audio_start is None:
            return False
        self._heard = max(self._heard, self._intake.audio_start)
        control = self._controls[0] if self._controls else None
        # A control may stand beyond bytes that were lost with the disk.
        control_at = self._intake.size if control is None else min(control.at, self._intake.size)
        stop = min(control_at, self._intake.durable)
        if self._heard < stop:
            audio = self._options.audio
            size = min(stop - self._heard, round(HEARD_AT_ONCE_S * audio.sample_rate) * audio.frame_bytes)
            await self._listener.hear(partial(self._intake.read, self._heard, size))
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
        try:
            async with asyncio.timeout(max(self._next_look() - time.monotonic(), 0.01)):
                await self._wake.wait()
        except TimeoutError:
            self._look_at_clock()

    def _next_look(self) -> float:
        settings = self._parts.settings
        if self._stopped:
            return time.monotonic() + settings.grace
        if self._connection is None:
            patience = settings.grace if self._ever_connected else settings.connect_timeout
            return min(self._left_at + patience, self._born_at + settings.max_session)
        looks = [self._input_at + settings.idle_timeout, self._born_at + settings.max_session]
        if self._listener.open:
            looks.append(self._audio_at + self._idle_cut_s)
        return min(looks)

    @property
    def _idle_cut_s(self) -> float:
        return max(self._options.endpointing_s, self._parts.settings.idle_cut)

    def _look_at_clock(self) -> None:
        """Cut or end what has waited too long."""
        settings, at = self._parts.settings, time.monotonic()
        if self._stopped:
            return
        if at >= self._born_at + settings.max_session:
            self._expire("session_timeout", f"the session reached its maximum of {settings.max_session:g} s")
        elif self._connection is None:
            patience = settings.grace if self._ever_connected else settings.connect_timeout
            if at >= self._left_at + patience:
                self._expire("session_timeout", f"nobody was connected for {patience:g} s")
        elif at >= self._input_at + settings.idle_timeout:
            self._expire("session_timeout", f"nothing was received for {settings.idle_timeout:g} s")
        elif self._listener.open and at >= self._audio_at + self._idle_cut_s and self._heard == self._intake.size:
            self._control("cut")

    def _expire(self, code: str, message: str) -> None:
        self._log.info("expired", reason=message)
        self._say(Problem(code=code, message=message))
        if not self._ever_connected:
            self._outcome, self._error_code = Status.ERROR, 408
        self._stop()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._intake.end()
            self._control("stop")

    def _control(self, kind: str) -> None:
        control = Control(at=self._intake.size, kind="stop" if kind == "stop" else "cut")
        self._journal(Write(session_id=self.id, controls=(control,)))
        self._controls.append(control)
        self._wake.set()

    # The end.

    async def _finish(self) -> None:
        """Report the results in the contract's order and close."""
        recorded_s = self._seconds(self._intake.size)
        self._say(RecordingEnded(recorded_s=recorded_s))
        if self._post_processing:
            await self._parts.journal.settle(self.id)
            transcript = Transcript(utterances=tuple(await self._parts.store.finals(self.id)))
            self._say(TranscriptReady(transcript=transcript))
            channels, spent_s = self._options.audio.channels, self._listener.decoding_s
            result = Result(transcript=transcript, audio_s=recorded_s, channels=channels, transcription_s=spent_s)
            self._say(ResultReady(result=result))
        await self._conclude(Ending.FINISHED)

    async def _conclude(self, ending: Ending) -> None:
        write = Write(
            session_id=self.id,
            status=self._outcome,
            completed_at=now(),
            error_code=self._error_code,
            transcription_s=self._listener.decoding_s,
        )
        metrics.SESSIONS_ENDED.labels(self._outcome).inc()
        self._say(SessionEnded(), write)
        await self._parts.journal.settle(self.id)
        await asyncio.to_thread(self._parts.audio.release, self.id)
        self.mailbox.close(ending)

    async def _linger(self) -> None:
        """Wait for the mailbox to be read, also by a client that was cut off and comes back for it."""
        give_up = time.monotonic() + self._parts.settings.grace
        while self._ever_connected and not self.mailbox.empty:
            if self._connection is None and self._left_normally:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + give_up - time.monotonic()):
                    await self._wake.wait()
            except TimeoutError:
                return

    # Out.

    def _say(self, event: Event, change: Write | None = None) -> None:
        """Send an event, once it is durable if it is to be; `change` becomes durable with it."""
        at = now()
        message = self._parts.wire.render(self.id, event, at)
        send = partial(self._send, message) if event.kind in self._options.wanted else None
        if not event.durable:
            # In its turn: behind what is on its way to the journal.
            if send is not None and self._unsaid:
                self._journal(Write(session_id=self.id), send)
            elif send is not None:
                send()
            return
        stored = StoredMessage(seq=self._seq, kind=event.kind, created_at=at, text=message.text)
        self._seq += 1
        write = replace(
            change or Write(session_id=self.id),
            messages=(stored,) if send is not None else (),
            finals=(event.utterance,) if isinstance(event, Final) else (),
        )
        self._journal(write, send)

    def _send(self, message: Message) -> None:
        self.mailbox.put(message)
        if self.mailbox.crowded and self._connection is not None:
            self._log.warning("the client reads too slowly")
            self._connection.close(Ending.SLOW)

    def _journal(self, write: Write, then: Callable[[], None] | None = None) -> None:
        self._unsaid += 1
        self._parts.journal.append(write, b"", partial(self._on_journaled, then))

    def _on_journaled(self, then: Callable[[], None] | None, error: StoreError | None) -> None:
        self._unsaid -= 1
        if error is not None:
            self._failure = error
            self._wake.set()
        elif then is not None:
            then()

    def _on_kept(self, start: int, stop: int) -> None:
        seconds = self._seconds
        accepted = AudioAccepted(start_byte=start, stop_byte=stop, start_s=seconds(start), stop_s=seconds(stop))
        self._say(accepted)
        self._wake.set()

    def _on_lost(self, error: StoreError) -> None:
        self._say(Problem(code=error.code, message="audio could not be stored; it is not acknowledged"))
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
