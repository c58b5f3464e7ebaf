"""What waits to be written on a session's socket: one queue per session, over all its sockets.

It is bounded by what may be left out: of the partials of one utterance only the newest waits, acknowledgments that wait
side by side become one, and while nobody is connected neither partials nor errors are kept. Finals and lifecycle
messages always wait; `crowded` says that a reader is too slow for what must not be dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum

from vivavoce.events import AudioAccepted, Message, Partial
from vivavoce.model import Kind

MAX_WAITING = 4096


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
        self._some = asyncio.Event()
        self.connected = False

    @property
    def crowded(self) -> bool:
        """Whether more waits than a reader that keeps up would ever leave."""
        return len(self._waiting) > MAX_WAITING

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
            self._waiting.pop()
        self._waiting.append(message)
        self._some.set()

    def drop_acknowledgments(self) -> None:
        """Leave out what an older socket's bytes were acknowledged with: a new one is told where its own stream stands.

        Pipecat's client takes the first acknowledgment on a socket for one of all that it has sent again there.
        """
        self._waiting = deque(each for each in self._waiting if not isinstance(each.event, AudioAccepted))

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
            return self._waiting.popleft()
        assert self._ending is not None
        return self._ending

    def put_back(self, message: Message) -> None:
        """Give back what could not be sent."""
        self._waiting.appendleft(message)

    def _drop_partials_of(self, utterance: str) -> None:
        for i, waiting in enumerate(self._waiting):
            if isinstance(waiting.event, Partial) and waiting.event.utterance.id == utterance:
                del self._waiting[i]
                return
