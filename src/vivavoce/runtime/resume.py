"""Finding where a client's stream goes on after a dropped socket; pure.

The protocol has no offset: a client that reconnects sends again everything after the last acknowledgment it received,
then what is new. Its stream therefore starts at the end of one of the acknowledgments sent before, and its first bytes
equal what the journal holds from there on. `Overlap` compares the bytes with every such start. A start drops out at the
first difference; the earliest start whose whole tail has come again wins, since that is the longest match. Until then
the bytes are held back, so at most as many as the journal holds after the earliest start.

Digital silence is one value over and over, and says nothing about where it belongs: new silence agrees with every start
in old silence. Of the starts after which the journal is nothing but silence only the last counts, because usually one
acknowledgment is lost with a socket, if any; so the choice is off by no more than that one where at most two were lost.
Starts with more than silence after them still win by the longest match, but are not waited for longer than
`MAX_HELD_SILENCE` while nothing but silence comes: a muted microphone must not keep its acknowledgments waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

MAX_HELD_SILENCE = 256 << 10

_GLANCE = 64
_BLOCK = 64 << 10


class Overlap:
    """Decides how many of a new socket's first bytes the journal already has.

    `start` is where the stream goes on, None while that is open; `guessed` tells that it was chosen in digital silence,
    where another could be right.
    """

    def __init__(self, starts: Iterable[int], stop: int, read: Callable[[int, int], bytes]) -> None:
        """Compare with the journal from any of `starts` to its end `stop`; `read(offset, size)` gives its bytes."""
        self._starts = deque(sorted({start for start in starts if start < stop}))
        self._stop = stop
        self._read = read
        self._held = bytearray()
        self._agreed = 0
        self._block, self._block_at = b"", 0
        self._silent_start: int | None = None
        self.start: int | None = stop if not self._starts else None
        self.guessed = False

    def feed(self, data: bytes) -> bytes:
        """Take what came and give what is new; nothing while it is undecided."""
        if self.start is not None:
            return data
        if self._silent_start is None:
            self._set_silence_apart()
        self._held += data
        start = self._choose()
        return b"" if start is None else self._decide(start)

    def flush(self) -> bytes:
        """Decide with what there is: the earliest start that agrees with every byte so far.

        Silence that says no more than that is new as far as it can be: a client repeats all of a tail before it stops.
        """
        if self.start is not None:
            return b""
        start = self._starts[0] if self._starts else self._silent_start
        if start is None or not self._held:
            start = self._stop
        elif self._is_silence() and (sure := self._in_silence()) is not None:
            start = sure
        return self._decide(start)

    def _choose(self) -> int | None:
        """Give the start that is certain now; `_starts` begins with one that agrees afterwards."""
        while self._starts and not self._first_agrees():
            self._starts.popleft()
            self._agreed = 0
        if self._starts and self._stop - self._starts[0] <= len(self._held):
            return self._starts[0]
        if self._starts and not (len(self._held) > MAX_HELD_SILENCE and self._is_silence()):
            return None
        return self._in_silence()

    def _in_silence(self) -> int | None:
        """Give the last start in the journal's last silence, or its end if that differs; None while both can be."""
        silent = self._silent_start
        assert silent is not None
        tail = self._stop - silent
        if not self._journal_equals(silent, 0, min(tail, len(self._held))):
            return self._stop
        return silent if tail <= len(self._held) else None

    def _set_silence_apart(self) -> None:
        """Keep of the starts in the journal's last silence the last one only, or the journal's end for none."""
        at, level = self._stop, self._read(self._stop - 1, 1)
        while at > self._starts[0]:
            size = min(_BLOCK, at - self._starts[0])
            loud = self._read(at - size, size).rstrip(level)
            at -= size - len(loud)
            if loud:
                break
        silent = 0
        self._silent_start = self._stop
        while self._starts and self._starts[-1] >= at:
            silent += 1
            start = self._starts.pop()
            if silent == 1:
                self._silent_start = start
        self.guessed = silent > 0

    def _first_agrees(self) -> bool:
        """Compare the first start with what was not compared yet; a glance tells for nearly all of them."""
        start = self._starts[0]
        stop = min(self._stop - start, len(self._held))
        while self._agreed < stop:
            size = min(stop - self._agreed, _BLOCK if self._agreed else _GLANCE)
            if not self._journal_equals(start, self._agreed, size):
                return False
            self._agreed += size
        return True

    def _journal_equals(self, start: int, offset: int, size: int) -> bool:
        """Tell whether `size` held bytes from `offset` on are the journal's after `start`."""
        return self._journal(start + offset, size) == self._held[offset : offset + size]

    def _journal(self, at: int, size: int) -> bytes:
        """Give bytes of the journal; starts lie close together, so one read serves a glance at many."""
        if size > _GLANCE:
            return self._read(at, size)
        if not self._block_at <= at <= at + size <= self._block_at + len(self._block):
            self._block, self._block_at = self._read(at, min(_BLOCK, self._stop - at)), at
        return self._block[at - self._block_at :][:size]

    def _is_silence(self) -> bool:
        return not self._held.strip(self._held[:1])

    def _decide(self, start: int) -> bytes:
        self.start = start
        self.guessed = self.guessed and start == self._silent_start
        held, self._held = bytes(self._held[self._stop - start :]), bytearray()
        self._block = b""
        return held
