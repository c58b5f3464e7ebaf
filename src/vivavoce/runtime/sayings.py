"""What a session says: made durable, then published, strictly in the order it was said.

Each saying is a write and what is to happen once it is durable (mail it, wake the courier). All of them wait in one
line, and only its head is published, so that a message whose write failed and is tried again holds up what was said
after it. The journal keeps the same order: what it was given behind a failed write fails with it. So the store never
holds a final without the ones before it, whenever the process dies.

Unlike audio, what a session said cannot be sent again by its client; hence the patience. When it ends, all that waits
is given up together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vivavoce.errors import StoreError
from vivavoce.plugins import Write
from vivavoce.runtime.journal import Journal

TRIES = 30
"""How often the journal is asked to keep what a session said; it tries for ten seconds each time."""

MAX_WAITING = 4096
"""More than a session says in all that time by itself; a client that floods it with nonsense is read no further."""


@dataclass(slots=True, eq=False)
class _Saying:
    write: Write
    publish: Callable[[], None]
    aside: bool
    durable: bool = False
    tried: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Sayings:
    """One session's line of what is said and not published yet; belongs to the event loop."""

    def __init__(self, journal: Journal, *, given_up: Callable[[StoreError], None]) -> None:
        """Call `given_up` when what waits was tried for too long and is dropped."""
        self._journal = journal
        self._given_up = given_up
        self._line: deque[_Saying] = deque()
        self._aside = 0

    @property
    def pending(self) -> bool:
        """Whether anything waits that others must wait behind."""
        return len(self._line) > self._aside

    def add(self, write: Write, publish: Callable[[], None] = lambda: None, *, aside: bool = False) -> None:
        """Make a write durable and then call `publish`, in its turn; others need not wait behind what is `aside`."""
        saying = _Saying(write, publish, aside)
        self._line.append(saying)
        self._aside += aside
        self._submit(saying)

    async def room(self) -> None:
        """Return when no more waits than a session says by itself."""
        while len(self._line) > MAX_WAITING:
            await self._line[0].over.wait()

    async def settle(self) -> None:
        """Return when all that was said before is published or given up."""
        if self._line:
            await self._line[-1].over.wait()

    def _submit(self, saying: _Saying) -> None:
        saying.tried += 1
        self._journal.append(saying.write, lambda error: self._on_written(saying, error))

    def _on_written(self, saying: _Saying, error: StoreError | None) -> None:
        if saying.over.is_set():
            return
        if error is None:
            saying.durable = True
            self._publish()
        elif saying.tried < TRIES:
            self._submit(saying)
        else:
            while self._line:
                self._leave()
            self._given_up(error)

    def _publish(self) -> None:
        while self._line and self._line[0].durable:
            self._leave().publish()

    def _leave(self) -> _Saying:
        saying = self._line.popleft()
        self._aside -= saying.aside
        saying.over.set()
        return saying
