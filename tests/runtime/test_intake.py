"""How far back a client may go on: as far as it has not shown to have heard, within bounds."""

from __future__ import annotations

from typing import cast

from vivavoce.errors import StoreError
from vivavoce.plugins import AudioFiles
from vivavoce.runtime.intake import MOST_REMEMBERED_ACKS, MOST_STORED_ACKS, REMEMBERED_ACKS, STORED_ACKS, Intake
from vivavoce.runtime.journal import Journal, Take, Then

PIECE = 4


class Memory:
    """A journal and its audio files that are always there."""

    def __init__(self) -> None:
        self.audio = bytearray()
        self.stored: tuple[int, ...] = ()
        self.full = self.slow = False
        self.waiting: list[tuple[Take, Then]] = []

    def append_audio(self, session_id: str, take: Take, then: Then) -> None:
        if self.slow:
            self.waiting.append((take, then))
            return
        write, audio = take()
        if self.full:
            then(StoreError("the disk is full"))
            return
        self.audio += audio
        assert write.ack_ends is not None
        self.stored = write.ack_ends
        then(None)

    def fail(self) -> None:
        """End the rounds that wait."""
        for take, then in self.waiting:
            take()
            then(StoreError("the disk is full"))

    async def settle(self, session_id: str) -> None:
        pass

    def read(self, session_id: str, offset: int, size: int) -> bytes:
        return bytes(self.audio[offset : offset + size])


def make(memory: Memory, lost: list[StoreError] | None = None) -> Intake:
    return Intake(
        "s",
        cast("Journal", memory),
        cast("AudioFiles", memory),
        epoch=0,
        header_size=lambda _: 0,
        kept=lambda *_: None,
        resumed=lambda _: None,
        failed=[].append if lost is None else lost.append,
    )


def piece(number: int) -> bytes:
    return number.to_bytes(PIECE)


async def fill(intake: Intake, count: int) -> None:
    for number in range(count):
        await intake.feed(piece(number))


async def test_a_client_that_heard_nothing_for_minutes_goes_on_exactly() -> None:
    """However many acknowledgments it missed, what it sends again is taken once."""
    memory, missed = Memory(), 3 * REMEMBERED_ACKS
    intake = make(memory)
    await fill(intake, 10 + missed)
    intake.acknowledged(10 * PIECE)
    await intake.reopen()
    await intake.feed(b"".join(piece(number) for number in range(10, 10 + missed + 5)))
    assert bytes(memory.audio) == b"".join(piece(number) for number in range(10 + missed + 5))


async def test_nothing_is_taken_behind_what_was_lost() -> None:
    """After a failed write the socket's bytes are dropped until its client comes back, and told of once."""
    memory, lost = Memory(), list[StoreError]()
    intake = make(memory, lost)
    await intake.feed(piece(1))
    memory.full = True
    assert await intake.feed(piece(2))
    memory.full = False
    assert not await intake.feed(piece(3))
    assert len(lost) == 1
    await intake.reopen()
    await intake.feed(piece(2) + piece(3))
    assert bytes(memory.audio) == piece(1) + piece(2) + piece(3)


async def test_a_header_that_was_lost_is_read_again() -> None:
    """Where audio begins is known from what was kept."""
    memory = Memory()
    intake = make(memory)
    memory.full = True
    await intake.feed(piece(1))
    assert intake.audio_start is None
    memory.full = False
    await intake.reopen()
    await intake.feed(piece(1))
    assert intake.audio_start == 0


async def test_a_stream_that_ended_before_its_audio_was_lost_is_over() -> None:
    """Nothing follows from which its beginning could be told."""
    memory, lost = Memory(), list[StoreError]()
    intake = make(memory, lost)
    memory.slow = True
    await intake.feed(piece(1))
    intake.end()
    memory.fail()
    assert len(lost) == 1
    assert (intake.size, intake.audio_start) == (0, 0)


async def test_what_is_remembered_is_bounded() -> None:
    """A client that shows what it has costs little, however long it talks, and one that does not, a bounded amount."""
    intake = make(Memory())
    for number in range(2 * REMEMBERED_ACKS):
        await intake.feed(piece(number))
        intake.acknowledged(number * PIECE)
    assert REMEMBERED_ACKS <= len(intake._ack_ends) < 2 * REMEMBERED_ACKS
    silent = make(Memory())
    await fill(silent, MOST_REMEMBERED_ACKS + 100)
    assert MOST_REMEMBERED_ACKS <= len(silent._ack_ends) < MOST_REMEMBERED_ACKS + REMEMBERED_ACKS


async def test_a_crash_keeps_what_a_deaf_client_may_go_on_from() -> None:
    """The ends stored with the audio are few where the client is known to hear, and reach back to what it has else."""
    memory = Memory()
    intake = make(memory)
    await fill(intake, 500)
    assert memory.stored[0] == 0
    assert len(memory.stored) == 501
    intake.acknowledged(500 * PIECE)
    await intake.feed(piece(500))
    assert memory.stored == tuple(end * PIECE for end in range(502 - STORED_ACKS, 502))
    await fill(intake, 2 * MOST_STORED_ACKS)
    assert len(memory.stored) == MOST_STORED_ACKS
    assert memory.stored[-1] == len(memory.audio)
