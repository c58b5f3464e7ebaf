"""What waits to be written on a session's socket: one queue per session, over all its sockets.

It is bounded by what may be left out: of the partials of one utterance only the newest waits, acknowledgments that wait
side by side become one, and while nobody is connected neither partials nor hints at the end of a turn are kept.
Everything else always waits; `crowded` says that a reader is too slow for what must not be dropped, by count or by
size. A reader that comes back to a long queue is measured by how much longer the queue gets.

What was written may still be lost on its way. So a durable message stays in doubt from `take` until `prove` says that
the client has it, and `repeat` queues what is in doubt again for the next socket. The mailbox may be `held` until then,
so that newer messages come after it. What is in doubt is bounded by the session's durable messages; it is those of one
round trip where the client answers. A message without a number is in hand until the next `take`, and `release` puts it
back if its socket was lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from vivavoce.events import AudioAccepted, Message, Partial, StoredMessage, TurnContinued, TurnEndLikely

ACKS_PER_RECEIPT = 32
"""Acknowledgments of audio after which it is worth a ping to know that they arrive."""

MAX_WAITING = 4096
MAX_WAITING_CHARS = 8 << 20
"""Room for the two long messages at a session's end, 1 MB each, and then some."""


class Ending(Enum):
    """Why a session closes a socket; the wire has a code for each."""

    FINISHED = "the session is finished"
    REPLACED = "a newer socket took over the session"
    LOST = "audio could not be stored; connect again and send what was not acknowledged"
    SLOW = "messages are not read fast enough; connect again for the rest"
    FAILED = "internal error"
    RESTARTING = "the server restarts; connect again"


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message; a partial names its utterance, an acknowledgment what it says, a durable one its number and place."""

    text: str
    seq: int | None = None
    at: int = 0
    partial_of: str | None = None
    ack: AudioAccepted | None = None
    hint: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a reader has got: the last durable message it took, and where the last acknowledgment ended."""

    seq: int = -1
    acked: int = 0


class Mailbox:
    """Messages in order; read by at most one socket at a time."""

    def __init__(self, *, delivered_to: int = -1, earlier: Iterable[StoredMessage] = ()) -> None:
        """Start with what an earlier process left: `earlier` messages behind `delivered_to` are in doubt."""
        self._waiting: deque[_Letter] = deque()
        self._in_doubt = deque(
            _Letter(message.text, message.seq, message.at)
            for message in earlier
            if message.sent and message.seq > delivered_to
        )
        self._repeated_to = -1
        self._reader: object = None
        self._in_hand: _Letter | None = None
        self._ending: Ending | None = None
        self._chars = 0
        self._found = self._found_chars = 0
        self._some = asyncio.Event()
        self.delivered_to = delivered_to
        self._taken = self._asked = Mark()
        self._acks_taken = 0
        self.connected = False
        self.held = False

    @property
    def crowded(self) -> bool:
        """Whether more waits than a reader that keeps up would ever leave."""
        return len(self._waiting) > self._found + MAX_WAITING or self._chars > self._found_chars + MAX_WAITING_CHARS

    def expect_reader(self, reader: object) -> None:
        """Give messages to this reader only from now on, and measure it by what it finds."""
        self._reader, self._taken, self._asked = reader, Mark(), Mark()
        self._measure()

    def _measure(self) -> None:
        self._found, self._found_chars = len(self._waiting), self._chars

    @property
    def doubtful(self) -> bool:
        """Whether anything durable was written that the client has not shown to have."""
        return bool(self._in_doubt)

    @property
    def owes(self) -> bool:
        """Whether the client lacks a durable message, as far as that can be known."""
        return self.doubtful or any(letter.seq is not None for letter in self._waiting)

    @property
    def empty(self) -> bool:
        """Whether the client has everything, as far as that can be known."""
        return not self._waiting and not self._in_doubt and self._in_hand is None

    @property
    def last_acknowledgment(self) -> AudioAccepted | None:
        """The acknowledgment that waits at the end, which a newer one should cover and takes the place of."""
        return self._waiting[-1].ack if self._waiting else None

    def put(self, message: Message, seq: int | None = None, at: int = 0) -> None:
        """Queue a message, in the place of the one it makes obsolete; durable ones have a `seq`, said `at` a byte."""
        event = message.event
        hint = isinstance(event, TurnEndLikely | TurnContinued)
        if not self.connected and (hint or isinstance(event, Partial)):
            return
        letter = _Letter(message.text, seq, at, hint=hint)
        if isinstance(event, Partial):
            self._drop_partial(event.utterance.id)
            letter = _Letter(message.text, partial_of=event.utterance.id)
        elif isinstance(event, AudioAccepted):
            if self.last_acknowledgment is not None:
                self._chars -= len(self._waiting.pop().text)
            letter = _Letter(message.text, ack=event)
        self._waiting.append(letter)
        self._chars += len(letter.text)
        self._some.set()

    def repeat(self) -> None:
        """Queue what is in doubt again, ahead of what waits, and hold nothing back any more."""
        self._waiting.extendleft(reversed(self._in_doubt))
        self._chars += sum(len(letter.text) for letter in self._in_doubt)
        for letter in self._in_doubt:
            self._repeated_to = max(self._repeated_to, letter.seq or 0)
        self._in_doubt.clear()
        self.held = False
        self._measure()
        self._some.set()

    def prove(self, seq: int) -> bool:
        """Take note that the client has every message up to `seq`, on whatever socket; say whether that is news."""
        if seq <= self.delivered_to:
            return False
        if self.delivered_to < self._repeated_to:
            self._waiting = deque(letter for letter in self._waiting if letter.seq is None or letter.seq > seq)
            self._chars = sum(len(letter.text) for letter in self._waiting)
        while self._in_doubt and (self._in_doubt[0].seq or 0) <= seq:
            self._in_doubt.popleft()
        self.delivered_to = seq
        return True

    def last_before(self, end: int) -> int:
        """Give the last message in doubt that was said before the byte `end`; whoever heard of `end` has it."""
        return max((letter.seq or 0 for letter in self._in_doubt if letter.at < end), default=-1)

    def drop_acknowledgments(self) -> None:
        """Leave out what an older socket's bytes were acknowledged with: a new one is told where its own stream stands.

        Pipecat's client takes the first acknowledgment on a socket for one of all that it has sent again there. Hints
        hold on their own socket only, so they go too.
        """
        self._waiting = deque(letter for letter in self._waiting if letter.ack is None and not letter.hint)
        self._chars = sum(len(letter.text) for letter in self._waiting)

    def close(self, ending: Ending) -> None:
        """Let the reader close its socket once it has taken what waits."""
        self._ending = ending
        self._some.set()

    async def take(self, reader: object) -> str | Ending:
        """Give the reader the next message's text, or how to close when all are written.

        One that is not expected any more waits for ever.
        """
        if reader is self._reader:
            self._in_hand = None
        while reader is not self._reader or self.held or not (self._waiting or self._ending):
            self._some.clear()
            await self._some.wait()
        if not self._waiting:
            assert self._ending is not None
            return self._ending
        letter = self._in_hand = self._waiting.popleft()
        self._chars -= len(letter.text)
        if letter.seq is not None:
            self._taken = Mark(letter.seq, self._taken.acked)
            self._in_doubt.append(letter)
        elif letter.ack is not None:
            self._taken = Mark(self._taken.seq, letter.ack.stop_byte)
            self._acks_taken += 1
        return letter.text

    def receipt_due(self) -> Mark | None:
        """Say how far the reader has got if that is worth knowing to have arrived, and was not said before."""
        if self._taken.seq == self._asked.seq and self._acks_taken < ACKS_PER_RECEIPT:
            return None
        self._asked, self._acks_taken = self._taken, 0
        return self._taken

    def release(self) -> None:
        """Put back what was in hand when its socket was lost, unless it is not worth it or in doubt anyway."""
        letter = self._in_hand
        worth = letter is not None and letter.partial_of is None and letter.ack is None and not letter.hint
        if letter is not None and worth and letter.seq is None:
            self._waiting.appendleft(letter)
            self._chars += len(letter.text)
        self._in_hand = None

    def _drop_partial(self, utterance: str) -> None:
        for i, letter in enumerate(self._waiting):
            if letter.partial_of == utterance:
                self._chars -= len(letter.text)
                del self._waiting[i]
                return
