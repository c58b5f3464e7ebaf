"""What waits to be written on a session's socket: one queue per session, over all its sockets.

It is bounded by what may be left out: of the partials of one utterance only the newest waits, acknowledgments that wait
side by side become one, and while nobody is connected no partials are kept. Everything else always waits; `crowded`
says that a reader is too slow for what must not be dropped, by count or by size. A reader that comes back to a long
queue is measured by how much longer the queue gets.

A message is in hand from `take` until the next `take`, which says that it was written; `release` puts back one whose
socket was lost. What was written may still be lost on its way, so after a reconnect the session looks up what the
client has not shown to have, and calls `repeat`; the mailbox is `held` meanwhile, so that newer messages come after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from vivavoce.events import AudioAccepted, Message, Partial, StoredMessage

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
    """A message; a partial names its utterance, an acknowledgment what it says."""

    text: str
    seq: int | None
    partial_of: str | None = None
    ack: AudioAccepted | None = None


class Mailbox:
    """Messages in order; read by at most one socket at a time."""

    def __init__(self, *, written_to: int = -1) -> None:
        """Start empty; messages up to seq `written_to` were written by an earlier process."""
        self._waiting: deque[_Letter] = deque()
        self._in_hand: _Letter | None = None
        self._ending: Ending | None = None
        self._chars = 0
        self._found = self._found_chars = 0
        self._some = asyncio.Event()
        self.written_to = written_to
        self.connected = False
        self.held = False

    @property
    def crowded(self) -> bool:
        """Whether more waits than a reader that keeps up would ever leave."""
        return len(self._waiting) > self._found + MAX_WAITING or self._chars > self._found_chars + MAX_WAITING_CHARS

    def expect_reader(self) -> None:
        """Measure a new reader by what it finds."""
        self._found, self._found_chars = len(self._waiting), self._chars

    @property
    def empty(self) -> bool:
        """Whether everything was written."""
        return not self._waiting and self._in_hand is None

    @property
    def last_acknowledgment(self) -> AudioAccepted | None:
        """The acknowledgment that waits at the end, which a newer one should cover and takes the place of."""
        return self._waiting[-1].ack if self._waiting else None

    def put(self, message: Message, seq: int | None = None) -> None:
        """Queue a message, in the place of the one it makes obsolete; durable ones have a `seq`."""
        event = message.event
        if not self.connected and isinstance(event, Partial):
            return
        letter = _Letter(message.text, seq)
        if isinstance(event, Partial):
            self._drop_partial(event.utterance.id)
            letter = _Letter(message.text, seq, partial_of=event.utterance.id)
        elif isinstance(event, AudioAccepted):
            if self.last_acknowledgment is not None:
                self._chars -= len(self._waiting.pop().text)
            letter = _Letter(message.text, seq, ack=event)
        self._waiting.append(letter)
        self._chars += len(letter.text)
        self._some.set()

    def repeat(self, messages: Iterable[StoredMessage]) -> None:
        """Queue messages that were written before, ahead of what waits, and hold nothing back any more."""
        letters = [_Letter(message.text, message.seq) for message in messages]
        self._waiting.extendleft(reversed(letters))
        self._chars += sum(len(letter.text) for letter in letters)
        self.held = False
        self.expect_reader()
        self._some.set()

    def drop_acknowledgments(self) -> None:
        """Leave out what an older socket's bytes were acknowledged with: a new one is told where its own stream stands.

        Pipecat's client takes the first acknowledgment on a socket for one of all that it has sent again there.
        """
        self._waiting = deque(letter for letter in self._waiting if letter.ack is None)
        self._chars = sum(len(letter.text) for letter in self._waiting)

    def close(self, ending: Ending) -> None:
        """Let the reader close its socket once it has taken what waits."""
        self._ending = ending
        self._some.set()

    async def take(self) -> str | Ending:
        """Give the next message's text, or how to close when all are written."""
        if self._in_hand is not None and self._in_hand.seq is not None:
            self.written_to = max(self.written_to, self._in_hand.seq)
        self._in_hand = None
        while self.held or not (self._waiting or self._ending):
            self._some.clear()
            await self._some.wait()
        if not self._waiting:
            assert self._ending is not None
            return self._ending
        self._in_hand = self._waiting.popleft()
        self._chars -= len(self._in_hand.text)
        return self._in_hand.text

    def release(self) -> None:
        """Put back what was in hand when its socket was lost, unless it is not worth it."""
        letter = self._in_hand
        if letter is not None and letter.partial_of is None and letter.ack is None:
            self._waiting.appendleft(letter)
            self._chars += len(letter.text)
        self._in_hand = None

    def _drop_partial(self, utterance: str) -> None:
        for i, letter in enumerate(self._waiting):
            if letter.partial_of == utterance:
                self._chars -= len(letter.text)
                del self._waiting[i]
                return
