"""Finding where a client's stream goes on after a dropped socket; pure.

The protocol has no offset: a client that reconnects sends again everything after the last acknowledgment it received,
then what is new. Its stream therefore starts at the end of one of the acknowledgments sent before, and its first bytes
equal what the journal holds from there on. `Overlap` compares the bytes with every such start at once. A start drops
out at the first difference; the earliest start whose whole tail has come again wins, since that is the longest match.
Until then the bytes are held back, so at most as many as the journal holds after the earliest start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Overlap:
    """Decides how many of a new socket's first bytes the journal already has."""

    def __init__(self, starts: Iterable[int], stop: int, read: Callable[[int, int], bytes]) -> None:
        """Compare with the journal from any of `starts` to its end `stop`; `read(offset, size)` gives its bytes."""
        self._starts = sorted({start for start in starts if start < stop})
        self._stop = stop
        self._read = read
        self._held = b""
        self.start: int | None = stop if not self._starts else None
        self.ambiguous = False
        """Whether the bytes that decided would have fitted elsewhere too."""

    def feed(self, data: bytes) -> bytes:
        """Take what came and give what is new; nothing while it is undecided."""
        if self.start is not None:
            return data
        compared = len(self._held)
        self._held += data
        self._starts = [start for start in self._starts if self._agrees(start, compared)]
        earliest = self._starts[0] if self._starts else self._stop
        if self._stop - earliest > len(self._held):
            return b""
        return self._decide(earliest)

    def flush(self) -> bytes:
        """Decide with what there is: the earliest start that agrees with every byte so far."""
        if self.start is not None:
            return b""
        return self._decide(self._starts[0] if self._held and self._starts else self._stop)

    def _agrees(self, start: int, compared: int) -> bool:
        fresh = self._held[compared : max(self._stop - start, compared)]
        return not fresh or self._read(start + compared, len(fresh)) == fresh

    def _decide(self, start: int) -> bytes:
        self.start = start
        self.ambiguous = bool(self._held) and len(self._starts) > 1
        held, self._held = self._held, b""
        return held[self._stop - start :]
