"""What waits to be written on a session's socket: one queue per session, over all its sockets.

It is bounded by what may be left out: of the partials of one utterance only the newest waits, acknowledgments that wait
side by side become one, and while nobody is connected neither partials nor errors are kept. Finals and lifecycle
messages always wait; `crowded` says that a reader is too slow for what must not be dropped, by count or by size. A
reader that comes back to a long queue is measured by how much longer the queue gets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum

from vivavoce.events import AudioAccepted, Message, Partial
from vivavoce.model import Kind

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


class Mailbox:
    """Messages in order; read by at most one socket at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._ending: Ending | None = None
        self._chars = 0
        self._found = self._found_chars = 0
        self._some = asyncio.Event()
        self.connected = False

    @property
    def crowded(self) -> bool:
        """Whether more waits than a reader that keeps up would ever leave."""
        return len(self._waiting) > self._found + MAX_WAITING or self._chars > self._found_chars + MAX_WAITING_CHARS

    @property
    def closed(self) -> bool:
        """Whether nothing more will be put in."""
        return self._ending is not None

    def expect_reader(self) -> None:
        """Measure a new reader by what it finds."""
        self._found, self._found_chars = len(self._waiting), self._chars

    @property
    def empty(self) -> bool:
        """Whether everything was taken."""
        return not self._waiting

    def put(self, message: Message) -> None:
        """Queue a message, in the place of the one it makes obsolete."""
        event = message.event
        if not self.connected and event.kind in (Kind.PARTIAL, Kind.ERROR):
            return
        if isinstance(event, Partial):
            self._drop_partials_of(event.utterance.id)
        elif isinstance(event, AudioAccepted) and self._waiting and isinstance(self._waiting[-1].event, AudioAccepted):
            self._chars -= len(self._waiting.pop().text)
        self._waiting.append(message)
        self._chars += len(message.text)
        self._some.set()

    def close(self, ending: Ending) -> None:
        """Let the reader close its socket once it has taken what waits."""
        self._ending = ending
        self._some.set()

    async def take(self) -> Message | Ending:
        """Give the next message, or how to close when all are taken."""
        while not self._waiting and self._ending is None:
            self._some.clear()
            await self._some.wait()
        if self._waiting:
            message = self._waiting.popleft()
            self._chars -= len(message.text)
            return message
        assert self._ending is not None
        return self._ending

    def put_back(self, message: Message) -> None:
        """Give back what could not be sent."""
        self._waiting.appendleft(message)
        self._chars += len(message.text)

    def _drop_partials_of(self, utterance: str) -> None:
        for i, waiting in enumerate(self._waiting):
            if isinstance(waiting.event, Partial) and waiting.event.utterance.id == utterance:
                self._chars -= len(waiting.text)
                del self._waiting[i]
                return
