"""Who watches a session: its messages from any number on, those that are stored first, and then as they are said.

A `Watcher` is in one of two states. *Behind*, it reads from the store, page by page from `next` on, and nothing that is
said is kept for it: what is durable is in the store before anybody is told. Once the store had all that anybody was
told, also while it was read, it is *even*: what is said waits in its queue, and `next` is the number behind that.
Finding out that it is even and queueing are one step of the event loop, so nothing falls between them, and a message
that the store showed before it was told is not queued a second time. Where the queue grows beyond its bounds, it is
dropped as a whole and the watcher is behind again; partials are lost that way, numbered messages never. The session
itself waits for nobody.

At the end everybody is sent to the store once more, since what was committed last may never have been told.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from vivavoce.errors import CapacityError
from vivavoce.events import Event, Message, Partial, SessionEnded, StoredMessage, TurnContinued, TurnEndLikely
from vivavoce.plugins import Store

MAX_WAITING, MAX_WAITING_CHARS = 256, 1 << 20
"""What may wait for one watcher; more is read from the store again."""

PAGE = 32
"""Messages read at once; the longest three of a session have 1 MB each."""

KEPT_FOR_OWNER = 4
"""One of so many places is kept for those with the owner's key: a token may have been passed to anybody."""

_ALL = sys.maxsize


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as a watcher gets it; what is only said and never stored has no `seq`."""

    text: str
    seq: int | None = None
    partial_of: str | None = None


class Watcher:
    """One watcher's place in a session's messages; `some` is set when there may be more to give."""

    def __init__(self, start: int, *, partials: bool, guest: bool = False) -> None:
        self.next = start
        self.guest = guest
        self.behind = True
        self.partials = partials
        self.some = asyncio.Event()
        self._waiting: deque[Shown] = deque()
        self._chars = 0

    def put(self, message: Message, seq: int | None) -> None:
        """Queue what was said, unless the store is to be read first."""
        event = message.event
        unwanted = isinstance(event, Partial) and not self.partials
        if self.behind or unwanted or (seq is not None and seq < self.next):
            return
        shown = Shown(message.text, seq, event.utterance.id if isinstance(event, Partial) else None)
        if shown.partial_of is not None:
            self._drop_partial(shown.partial_of)
        self._waiting.append(shown)
        self._chars += len(shown.text)
        if len(self._waiting) > MAX_WAITING or self._chars > MAX_WAITING_CHARS:
            self._fall_behind()
        elif seq is not None:
            self.next = seq + 1
        self.some.set()

    def take(self) -> Shown | None:
        """Give what waits first."""
        if not self._waiting:
            return None
        shown = self._waiting.popleft()
        self._chars -= len(shown.text)
        return shown

    def found(self, page: Sequence[StoredMessage], asked: int, told: int) -> None:
        """Take note of what the store has from `next` on, to be shown now.

        Numbers up to `asked` were told before it was asked, and those up to `told` by now.
        """
        # Where the store has nothing although more was told before, that is lost and not to be waited for.
        self.next = page[-1].seq + 1 if page else max(self.next, asked + 1)
        self.behind = told >= self.next

    def look_again(self) -> None:
        """Read the store once more behind what waits."""
        self.behind = True
        self.some.set()

    def _fall_behind(self) -> None:
        self.next = next((shown.seq for shown in self._waiting if shown.seq is not None), self.next)
        self._waiting.clear()
        self._chars = 0
        self.behind = True

    def _drop_partial(self, utterance: str) -> None:
        older = next((shown for shown in self._waiting if shown.partial_of == utterance), None)
        if older is not None:
            self._waiting.remove(older)
            self._chars -= len(older.text)


class Watchers:
    """Those who watch one session now; `over` says, once `closed`, that nothing will ever follow."""

    def __init__(self, *, told: int = -1, most: int, partials: Callable[[bool], None]) -> None:
        """Begin where messages up to `told` were said; `partials` hears whether anybody wants to see any."""
        self.closed = self.over = False
        self._told, self._most = told, most
        self._partials = partials
        self._present: list[Watcher] = []

    @classmethod
    def of_past(cls, *, over: bool) -> Watchers:
        """Give those of a session that nobody runs here, for what is stored of it."""
        past = cls(most=1, partials=lambda _: None)
        past.close(over=over)
        return past

    def __len__(self) -> int:
        return len(self._present)

    @property
    def told(self) -> int:
        """The last number that was told; after the end, all that there can be."""
        return _ALL if self.closed else self._told

    def sees(self, event: Event) -> bool:
        """Say whether an event that is not stored would be shown to anybody: only what is said of speech may be."""
        if isinstance(event, Partial):
            return any(watcher.partials for watcher in self._present)
        return isinstance(event, TurnEndLikely | TurnContinued) and bool(self._present)

    def open(self, start: int, *, partials: bool, guest: bool = False) -> Watcher:
        """Let somebody watch from a number on; raises `CapacityError` where too many do.

        A guest comes without the owner's key, and one of `KEPT_FOR_OWNER` places is not for guests.
        """
        present, most = len(self._present), self._most
        if guest:
            present = sum(watcher.guest for watcher in self._present)
            most -= most // KEPT_FOR_OWNER
        if len(self._present) >= self._most or present >= most:
            raise CapacityError(f"this session is watched by {present} already, and may be by {most}")
        watcher = Watcher(start, partials=partials, guest=guest)
        self._present.append(watcher)
        self._ask_for_partials()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Forget a watcher; one that is gone already is fine."""
        if watcher in self._present:
            self._present.remove(watcher)
            self._ask_for_partials()

    def put(self, message: Message, seq: int | None = None) -> None:
        """Show everybody what was said; what has a number is stored."""
        if seq is None and not self.sees(message.event):
            return
        if seq is not None:
            self._told = seq
        for watcher in self._present:
            watcher.put(message, seq)
        if isinstance(message.event, SessionEnded):
            self.close(over=True)

    def close(self, *, over: bool) -> None:
        """Let everybody go once they have what is stored."""
        self.over = self.over or over
        if not self.closed:
            self.closed = True
            for watcher in self._present:
                watcher.look_again()

    def _ask_for_partials(self) -> None:
        self._partials(any(watcher.partials for watcher in self._present))


async def follow(
    store: Store, session_id: str, watchers: Watchers, watcher: Watcher, *, quiet_s: float | None = None
) -> AsyncGenerator[Shown | None]:
    """Give a watcher's messages in order until no more come; None whenever there was nothing for `quiet_s`.

    Raises `StoreError`.
    """
    while True:
        while (shown := watcher.take()) is not None:
            yield shown
        if watcher.behind:
            asked = watchers.told
            page = await store.messages(session_id, start=watcher.next, limit=PAGE)
            watcher.found(page, asked, watchers.told)
            for stored in page:
                yield Shown(stored.text, stored.seq)
        elif watchers.closed:
            return
        else:
            watcher.some.clear()
            try:
                async with asyncio.timeout(quiet_s):
                    await watcher.some.wait()
            except TimeoutError:
                yield None
