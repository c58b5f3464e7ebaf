"""A session's way out: events → messages → the store, then the mailbox, the watchers and the outbox.

`say` renders and names an event. What is durable gets the next number and is committed before anybody sees it; the rest
is only shown, in its turn behind what is on its way to the store. One line (`Sayings`) keeps that order, also for what
is stored and not said (`keep`), so the store never holds a change without the words before it. What was said before, by
this process or an earlier one, is known by its name and not said again.

One socket at a time reads the mailbox. What was written to it may be lost on its way, so a socket that comes after it
gets again what the client has not shown to have: by a pong (`delivered`), or by audio that goes on at an acknowledgment
behind it (`resumed`). A client that came back gets `PROOF_S` to show it before all that is in doubt is repeated. How
far it has got is stored for the next process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from vivavoce.errors import StoreError
from vivavoce.events import (
    AudioAccepted,
    Event,
    Final,
    Message,
    Problem,
    SessionEnded,
    SessionStarted,
    StoredMessage,
    key_of,
)
from vivavoce.model import Delivery, Kind, SessionOptions, SessionRecord, now
from vivavoce.plugins import Write
from vivavoce.runtime.callbacks import Mailing
from vivavoce.runtime.intake import Intake
from vivavoce.runtime.mailbox import Ending, Mailbox, Mark
from vivavoce.runtime.parts import Connection, Parts, Past
from vivavoce.runtime.sayings import Sayings
from vivavoce.runtime.silencing import findings_in
from vivavoce.runtime.watch import Watchers

log = structlog.get_logger()

PROOF_S = 1.0
"""How long a client that came back has to show by its audio what it has, before all that is in doubt is repeated."""

MAX_STORED_UNNAMED = 100
"""A client that sends nothing but nonsense, or stop after stop, is answered each time, but does not fill the store."""


class Publisher:
    """Says what a session has to say; belongs to the event loop.

    `said` names what an earlier process reported, `reader` is the socket that reads now, and `over` tells that the last
    word was said.
    """

    def __init__(
        self,
        record: SessionRecord,
        options: SessionOptions,
        parts: Parts,
        past: Past,
        intake: Intake,
        *,
        partials: Callable[[bool], None],
        woken: Callable[[], None],
    ) -> None:
        """Go on behind what was said in the `past`; `intake` knows how much audio is behind a word.

        `partials` hears whether a watcher wants any. `woken` is called when there is news of what the client has, and
        when the store was given up (see `check`).
        """
        self._id, self._epoch = record.id, record.epoch
        self._options, self._parts, self._intake, self._woken = options, parts, intake, woken
        self._log = log.bind(session=record.id)
        self.said = past.said
        self._seq = max((message.seq for message in past.messages), default=-1) + 1
        self._unnamed = 0
        self._mailing = Mailing(
            session_id=record.id, options=options, webhook_url=parts.settings.webhook_url, envelopes=parts.wire
        )
        self._calls_back_acks = options.callback_url is not None and Kind.ACK in options.callback_wanted
        self.mailbox = Mailbox(delivered_to=record.delivered_to, earlier=past.messages)
        self.watchers = Watchers(told=self._seq - 1, most=parts.settings.max_watchers, partials=partials)
        self._sayings = Sayings(parts.journal, given_up=self._on_given_up)
        self.failure: StoreError | None = None
        self.reader: Connection | None = None
        self.over = False

    def opening(self, at: datetime) -> tuple[Delivery, ...]:
        """Give what the session owes from the moment it exists; no socket is told that it does."""
        return self._mailing.deliveries(self._parts.wire.render(self._id, SessionStarted(), at), at)

    # What is said.

    def say(self, event: Event, **changes: Any) -> None:
        """Send an event, once it is durable if it is to be; nothing happens where its name was `said` before.

        `changes` are fields of `Write` that become durable with it.
        """
        at, key = now(), key_of(event)
        if event.durable and key and key in self.said:
            return
        if isinstance(event, AudioAccepted) and not self._calls_back_acks:
            self._acknowledge(event)
            return
        message = self._parts.wire.render(self._id, event, at)
        deliveries = self._mailing.deliveries(message, at)
        self._unnamed += event.durable and not key
        if event.durable and (key or self._unnamed <= MAX_STORED_UNNAMED):
            self._store(message, key, at, deliveries, changes)
        else:
            self._pass_on(message, deliveries)

    def keep(self, **changes: Any) -> None:
        """Make changes durable that nobody is told of, in their turn."""
        self._sayings.add(self._write(**changes))

    def interrupt(self, problem: Problem, ending: Ending) -> None:
        """Tell the client of a problem now, behind nothing and stored nowhere, and close its socket."""
        if problem.kind in self._options.wanted:
            self._send(self._parts.wire.render(self._id, problem, now()))
        if self.reader is not None:
            self.reader.close(ending)

    def end(self, **changes: Any) -> None:
        """Say the last word."""
        self.over = True
        self.say(SessionEnded(), **changes)

    async def room(self) -> None:
        """Return when no more waits for the store than a session says by itself."""
        await self._sayings.room()

    async def settle(self) -> None:
        """Return when all that was said before is published or given up."""
        await self._sayings.settle()

    def check(self) -> None:
        """Raise what the store could not do for this session: what was said is lost, and nothing more will be kept."""
        if self.failure is not None:
            raise self.failure

    # Who reads it.

    def connect(self, connection: Connection, *, again: bool, shows: bool) -> None:
        """Take a new reader in the place of any older one.

        A client that is here `again` is sent what it may lack; where it `shows` by its audio what it has, after that.
        """
        older, self.reader = self.reader, connection
        if older is not None:
            self._log.info("replaced by a newer socket")
            older.close(Ending.REPLACED)
        self.mailbox.release()
        if again:
            self._repeat_to(connection, shows=shows)
        self.mailbox.connected = True
        self.mailbox.expect_reader(connection)

    def disconnect(self) -> None:
        """Take note that the reader is gone."""
        self.reader, self.mailbox.connected = None, False
        self.mailbox.release()

    def delivered(self, mark: Mark) -> None:
        """Take note that the client has everything up to `mark`; a socket that is gone may still prove it."""
        self._intake.acknowledged(mark.acked)
        self._prove(mark.seq)

    def resumed(self, end: int) -> None:
        """The client goes on, and shows to have all that was said before the acknowledgment up to `end`."""
        if Kind.ACK in self._options.wanted:
            self._prove(self.mailbox.last_before(end))
        if self.mailbox.held:
            self.mailbox.repeat()

    def _repeat_to(self, connection: Connection, *, shows: bool) -> None:
        """Send a client that came back what it may lack, once it had the time to show what it has."""
        if self.mailbox.doubtful and shows and Kind.ACK in self._options.wanted:
            self.mailbox.held = True
            asyncio.get_running_loop().call_later(PROOF_S, self._on_no_proof, connection)
        else:
            self.mailbox.repeat()

    def _on_no_proof(self, connection: Connection) -> None:
        if self.reader is connection and self.mailbox.held:
            self.mailbox.repeat()

    def _prove(self, seq: int) -> None:
        """Forget what the client has, here and for the next process."""
        if not self.mailbox.prove(seq):
            return
        # A session that is over may be deleted any moment; should this process die, its messages come once more.
        if not self.over:
            self._parts.journal.append(self._write(delivered_to=seq), lambda _: None)
        self._woken()

    # On its way out.

    def _write(self, **changes: Any) -> Write:
        return Write(session_id=self._id, epoch=self._epoch, **changes)

    def _store(
        self, message: Message, key: str, at: datetime, deliveries: tuple[Delivery, ...], changes: dict[str, Any]
    ) -> None:
        event = message.event
        seq, self._seq = self._seq, self._seq + 1
        stored = StoredMessage(
            seq=seq,
            key=key,
            at=self._intake.durable,
            kind=event.kind,
            created_at=at,
            text=message.text,
            sent=event.kind in self._options.wanted,
        )
        write = self._write(
            messages=(stored,),
            finals=(event.utterance,) if isinstance(event, Final) else (),
            findings=findings_in(event),
            deliveries=deliveries,
            **changes,
        )
        self._sayings.add(write, partial(self._publish, message, stored, deliveries))

    def _publish(self, message: Message, stored: StoredMessage, deliveries: tuple[Delivery, ...]) -> None:
        if deliveries:
            self._parts.courier.wake(self._id, deliveries)
        self.watchers.put(message, stored.seq)
        if stored.sent:
            self._send(message, stored)

    def _pass_on(self, message: Message, deliveries: tuple[Delivery, ...]) -> None:
        """Show what is not stored in its turn: behind what is on its way to the journal."""
        wanted = message.event.kind in self._options.wanted
        if (wanted or self.watchers.sees(message.event)) and self._sayings.pending:
            self._sayings.add(self._write(), partial(self._show, message, wanted=wanted))
        else:
            self._show(message, wanted=wanted)
        if deliveries:
            # The socket's messages are not to wait for this.
            wake = partial(self._parts.courier.wake, self._id, deliveries)
            self._sayings.add(self._write(deliveries=deliveries), wake, aside=True)

    def _show(self, message: Message, *, wanted: bool) -> None:
        self.watchers.put(message)
        if wanted:
            self._send(message)

    def _send(self, message: Message, stored: StoredMessage | None = None) -> None:
        if isinstance(message.event, AudioAccepted):
            self._send_acknowledgment(message.event)
        else:
            self._post(message, stored)

    def _post(self, message: Message, stored: StoredMessage | None = None) -> None:
        if stored is None:
            self.mailbox.put(message)
        else:
            self.mailbox.put(message, stored.seq, stored.at)
        if self.mailbox.crowded and self.reader is not None:
            self._log.warning("the client reads too slowly")
            self.reader.close(Ending.SLOW)

    def _acknowledge(self, event: AudioAccepted) -> None:
        """Acknowledge audio in its turn, written only when it is sent: most of a busy server's messages are these."""
        if Kind.ACK not in self._options.wanted:
            return
        if self._sayings.pending:
            self._sayings.add(self._write(), partial(self._send_acknowledgment, event))
        else:
            self._send_acknowledgment(event)

    def _send_acknowledgment(self, event: AudioAccepted) -> None:
        """Send an acknowledgment, one for all that wait; none while it is open where the socket's stream goes on."""
        if self._intake.resuming:
            return
        if (waiting := self.mailbox.last_acknowledgment) is not None:
            event = replace(event, start_byte=waiting.start_byte, start_s=waiting.start_s)
        self._post(self._parts.wire.render(self._id, event, now()))

    def _on_given_up(self, error: StoreError) -> None:
        """The store was away for so long that what was said is lost, and the session with it."""
        self.failure = error
        self._woken()
