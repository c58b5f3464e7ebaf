"""A session's way in: bytes from any socket → the journal → an acknowledgment.

Two counters, in bytes from the session's start: `size` is taken, `durable` is committed and acknowledged. What comes
until the journal's next round is one write and one acknowledgment, however many messages it came in. After a socket is
replaced, the first bytes of the new one are compared with the journal until it is clear where they go on (see
`Overlap`); what the journal already has is acknowledged again but not taken twice. A WAV header at the very start is
kept and counted like audio but never heard: `audio_start` is its length once known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable

from vivavoce.errors import StoreError
from vivavoce.plugins import AudioFiles, Write
from vivavoce.runtime import metrics
from vivavoce.runtime.journal import Journal
from vivavoce.runtime.resume import Overlap

MAX_WAITING = 64 << 20
"""Bytes that may wait for the disk before a session's socket is read no further."""

REMEMBERED_ACKS, MOST_REMEMBERED_ACKS = 4096, 65_536
"""Ends of acknowledgments where a client may go on: at least so many, and so many that it has not shown to have.

Those are half an hour of unread acknowledgments at 30 ms each, in 2.5 MB; pings end a socket much sooner.
"""

STORED_ACKS, MOST_STORED_ACKS = 64, 1024
"""The same over a crash, where they are written with every piece of audio: at 30 ms each, 30 seconds unread."""

MAX_HEADER = 128 << 10

LATEST_BYTES = 64 << 10
"""How much of the end of the stream is kept in memory, in whole chunks."""


class Intake:
    """Takes a session's bytes once, in order."""

    def __init__(
        self,
        session_id: str,
        journal: Journal,
        audio: AudioFiles,
        *,
        epoch: int,
        header_size: Callable[[bytes], int | None],
        kept: Callable[[int, int], None],
        resumed: Callable[[int], None],
        failed: Callable[[StoreError], None],
    ) -> None:
        """Call `kept(start, stop)` for bytes made durable or found to be so, `failed` for bytes that were not, and
        `resumed(end)` when it is clear where a client's stream goes on: `end` is the acknowledgment that the client
        shows to have, 0 where it shows none.
        """
        self._session_id, self._journal, self._audio = session_id, journal, audio
        self._epoch = epoch
        self._header_size, self._kept, self._on_resumed, self._failed = header_size, kept, resumed, failed
        self.size = self.durable = 0
        self.audio_start: int | None = None
        self._head = b""
        self._ack_ends = [0]
        self._acked_to = 0
        self._waiting: list[bytes] = []
        self._given = 0
        self._new_start: int | None = None
        self._header_stop = 0
        self._broken = self._ended = False
        self._repeats = True
        self._latest: deque[tuple[int, bytes]] = deque()
        self._latest_bytes = 0
        self._overlap = Overlap((), 0, self.read)
        self._resumed = True

    def restore(self, size: int, ack_ends: Iterable[int]) -> None:
        """Go on after `size` bytes that an earlier process made durable and acknowledged at `ack_ends`."""
        self.size = self.durable = self._given = size
        self._ack_ends.extend(end for end in ack_ends if end <= size)
        if size:
            self.audio_start = self._header_size(self.read(0, MAX_HEADER))
        if self.audio_start is None:
            self._head = self.read(0, size)

    def acknowledged(self, end: int) -> None:
        """Take note that the acknowledgment up to `end` reached the client."""
        self._acked_to = max(self._acked_to, end)

    @property
    def resuming(self) -> bool:
        """Whether it is still open where the current socket's stream goes on."""
        return self._overlap.start is None

    def read(self, offset: int, size: int) -> bytes:
        """Give bytes that are durable; blocks."""
        return self._audio.read(self._session_id, offset, size)

    def latest(self, offset: int, size: int) -> bytes | None:
        """Give durable bytes if they are still in memory; does not block."""
        pieces: list[bytes] = []
        begin = offset + size
        for start, data in reversed(self._latest):
            if start < offset + size:
                pieces.append(data)
                begin = start
            if start <= offset:
                break
        found = b"".join(reversed(pieces))
        return found if begin == offset and len(found) == size else None

    async def reopen(self, *, repeats: bool = True) -> None:
        """Expect a new socket's stream, which may repeat what was not acknowledged to the client, where it `repeats`.

        Bytes of the older socket that are still held back are dropped: they were never acknowledged.
        """
        await self._journal.settle(self._session_id)
        self._broken = False
        self._repeats = repeats
        self._overlap = Overlap(self._ack_ends if repeats else (), self.size, self.read)
        self._resumed = False

    async def feed(self, data: bytes) -> bool:
        """Take bytes and say whether any were new; waits only while the disk is far behind.

        After bytes that could not be kept nothing is taken until `reopen`: their client sends them again first.
        """
        if self._broken:
            return False
        fresh = self._overlap.feed(data)
        if self._overlap.start is not None and not self._resumed:
            self._resume(self._overlap.start, fresh)
        else:
            self._append(fresh)
        while self.size - self.durable > MAX_WAITING:
            await self._journal.settle(self._session_id)
        return bool(fresh)

    def end(self) -> None:
        """Take what is still held back: nothing will follow to decide by."""
        if not self._resumed:
            fresh = self._overlap.flush()
            assert self._overlap.start is not None
            self._resume(self._overlap.start, fresh)
        self._ended = True
        if self.audio_start is None:
            self.audio_start = 0

    def _resume(self, start: int, fresh: bytes) -> None:
        self._resumed = True
        metrics.RESUMES_AMBIGUOUS.inc(self._overlap.guessed)
        del self._ack_ends[: bisect_left(self._ack_ends, start)]
        if not self._ack_ends:
            # The disk lost bytes, and ends with them: the journal may end between two acknowledgments.
            self._ack_ends.append(start)
        # A stream that is all new may be that of a client which never repeats anything, so it shows nothing.
        self._on_resumed(start if start < self.size and not self._overlap.guessed else 0)
        # One acknowledgment for what came again and what is new behind it: Pipecat's client takes the first one on a
        # socket for all that it has sent there.
        if fresh:
            self._append(fresh)
        elif start < self.size:
            self._kept(start, self.size)

    def _append(self, data: bytes) -> None:
        if not data:
            return
        start, self.size = self.size, self.size + len(data)
        if self.audio_start is None:
            self._head += data
            self.audio_start = self._new_start = self._header_size(self._head)
            self._header_stop = self.size
        self._latest.append((start, data))
        self._latest_bytes += len(data)
        while self._latest_bytes > LATEST_BYTES:
            self._latest_bytes -= len(self._latest.popleft()[1])
        self._waiting.append(data)
        if len(self._waiting) == 1:
            self._journal.append_audio(self._session_id, self._give, self._on_written)

    def _give(self) -> tuple[Write, bytes]:
        """Give the journal all that came since it last took something."""
        audio = b"".join(self._waiting)
        self._waiting.clear()
        self._given = self.size
        started, self._new_start = self._new_start, None
        write = Write(
            session_id=self._session_id,
            audio_bytes=self.size,
            audio_start=started,
            ack_ends=self._ends_to_store(),
            epoch=self._epoch,
        )
        return write, audio

    def _on_written(self, error: StoreError | None) -> None:
        if error is not None:
            told, self._broken = self._broken, True
            self._forget_lost()
            if not told:
                self._failed(error)
            return
        start, self.durable = self.durable, self._given
        if start == self.durable:
            # What had come behind audio that was lost.
            return
        if not self._repeats:
            self._ack_ends.clear()
        self._ack_ends.append(self.durable)
        if self.audio_start is not None and self.durable >= self._header_stop:
            self._head = b""
        if len(self._ack_ends) % REMEMBERED_ACKS == 0:
            self._ack_ends = self._last_ends(REMEMBERED_ACKS, MOST_REMEMBERED_ACKS)
        self._kept(start, self.durable)

    def _forget_lost(self) -> None:
        """Go back to what is durable."""
        self.size = self._given = self.durable
        self._latest.clear()
        self._latest_bytes = 0
        self._waiting.clear()
        self._new_start = None
        if self._header_stop > self.durable:
            self.audio_start, self._head = 0 if self._ended else None, self._head[: self.durable]

    def _ends_to_store(self) -> tuple[int, ...]:
        if not self._repeats:
            return (self.size,)
        return (*self._last_ends(STORED_ACKS - 1, MOST_STORED_ACKS - 1), self.size)

    def _last_ends(self, least: int, most: int) -> list[int]:
        """Give the last ends of acknowledgments: `least` of them, and up to `most` not known to have arrived."""
        count, unproven = len(self._ack_ends), bisect_left(self._ack_ends, self._acked_to)
        return self._ack_ends[max(min(count - least, unproven), count - most, 0) :]
