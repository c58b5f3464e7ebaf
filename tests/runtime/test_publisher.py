"""What a session says is stored before it is shown, once and in order, and repeated only where it may be lacking."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from vivavoce.errors import StoreError
from vivavoce.events import (
    AudioRefused,
    Event,
    Message,
    Problem,
    RecordingEnded,
    RecordingStarted,
    SpeechStarted,
    StopAccepted,
    StoredMessage,
)
from vivavoce.model import AudioFormat, Control, Kind, SessionOptions, SessionRecord, Status, now
from vivavoce.plugins import Write
from vivavoce.runtime.journal import Then
from vivavoce.runtime.mailbox import Ending, Mark
from vivavoce.runtime.parts import Connection, Past
from vivavoce.runtime.publisher import MAX_STORED_UNNAMED, Publisher
from vivavoce.runtime.sayings import TRIES

SPEECH = SpeechStarted(channel=0, at_s=1.0)
STOP = StopAccepted(recorded_s=1.0, left_s=0.0)


def stored(seq: int, *, at: int = 0) -> StoredMessage:
    """Give a message of an earlier process, said when `at` bytes were durable."""
    return StoredMessage(seq=seq, key=str(seq), at=at, kind=Kind.FINAL, created_at=now(), text=f"old {seq}")


class Desk:
    """A publisher between a journal that commits when it is told to and a wire that writes an event's class."""

    def __init__(self, *, past: Past | None = None) -> None:
        self.waiting: list[tuple[Write, Then]] = []
        self.committed: list[Write] = []
        self.closed: list[Ending] = []
        self.intake = SimpleNamespace(durable=7, resuming=False, acknowledged=lambda _: None)
        parts: Any = SimpleNamespace(
            settings=SimpleNamespace(webhook_url=None, max_watchers=1), journal=self, wire=self, courier=None
        )
        record = SessionRecord(
            id="s", owner="o", token_hash="t", status=Status.QUEUED, created_at=now(), request={}, epoch=3
        )
        options = SessionOptions(audio=AudioFormat(encoding="pcm", sample_rate=16_000), wanted=frozenset(Kind))
        intake: Any = self.intake
        self.publisher = Publisher(
            record, options, parts, past or Past(), intake, partials=lambda _: None, woken=lambda: None
        )
        self.reader = self.come(again=False)

    def append(self, write: Write, then: Then) -> None:
        """Take a write as the journal does."""
        self.waiting.append((write, then))

    def render(self, _session_id: str, event: Event, _at: object) -> Message:
        """Write an event as the wire does."""
        return Message(event=event, text=type(event).__name__)

    def come(self, *, again: bool = True, shows: bool = True) -> Connection:
        """Connect a socket."""
        self.reader = Connection(close=self.closed.append)
        self.publisher.connect(self.reader, again=again, shows=shows)
        return self.reader

    def commit(self, error: StoreError | None = None) -> None:
        """Let the journal commit what waits, or fail to."""
        waiting, self.waiting = self.waiting, []
        for write, then in waiting:
            if error is None:
                self.committed.append(write)
            then(error)

    async def read(self) -> list[str | Ending]:
        """Give what the socket can read now."""
        read: list[str | Ending] = []
        while True:
            try:
                async with asyncio.timeout(0):
                    read.append(await self.publisher.mailbox.take(self.reader))
            except TimeoutError:
                return read


async def test_nothing_durable_is_read_before_it_is_stored() -> None:
    """And what is only shown comes in its turn behind it."""
    desk = Desk()
    desk.publisher.say(RecordingStarted(), status=Status.PROCESSING)
    desk.publisher.say(AudioRefused(reason="too long"))
    assert await desk.read() == []
    desk.commit()
    assert await desk.read() == ["RecordingStarted", "AudioRefused"]
    write = desk.committed[0]
    assert (write.status, write.epoch, [message.seq for message in write.messages]) == (Status.PROCESSING, 3, [0])


async def test_what_is_stored_and_not_said_keeps_its_place() -> None:
    """A stop, say, is in the store before what is said of it."""
    desk = Desk()
    desk.publisher.say(SPEECH)
    desk.publisher.keep(controls=(Control(at=7, kind="stop"),))
    desk.publisher.say(STOP)
    desk.commit()
    assert [(len(write.controls), len(write.messages)) for write in desk.committed] == [(0, 1), (1, 0), (0, 1)]
    assert await desk.read() == ["SpeechStarted", "StopAccepted"]


async def test_what_was_reported_before_is_not_said_again() -> None:
    """A journal that is heard again after a crash reports nothing twice; numbers go on behind the last one."""
    reported = StoredMessage(
        seq=4, key="RecordingStarted", at=0, kind=Kind.LIFECYCLE, created_at=now(), text="old", sent=False
    )
    desk = Desk(past=Past(messages=(reported,)))
    desk.publisher.say(RecordingStarted())
    desk.publisher.say(SPEECH)
    desk.commit()
    assert await desk.read() == ["SpeechStarted"]
    assert [message.seq for write in desk.committed for message in write.messages] == [5]


async def test_nonsense_is_answered_without_end_but_not_stored_without_end() -> None:
    desk = Desk()
    for _ in range(MAX_STORED_UNNAMED + 5):
        desk.publisher.say(STOP)
        desk.commit()
    desk.publisher.say(SPEECH)
    desk.commit()
    assert len(await desk.read()) == MAX_STORED_UNNAMED + 6
    assert sum(len(write.messages) for write in desk.committed) == MAX_STORED_UNNAMED + 1


async def test_a_client_that_comes_back_is_repeated_what_its_audio_does_not_show_to_be_there() -> None:
    """Until its audio has shown that, newer messages wait."""
    desk = Desk(past=Past(messages=(stored(0, at=10), stored(1, at=20))))
    desk.come()
    desk.publisher.say(SPEECH)
    desk.commit()
    assert await desk.read() == []
    desk.publisher.resumed(15)
    assert await desk.read() == ["old 1", "SpeechStarted"]


async def test_a_client_that_will_show_nothing_is_repeated_all_at_once() -> None:
    desk = Desk(past=Past(messages=(stored(0), stored(1))))
    desk.come(shows=False)
    assert await desk.read() == ["old 0", "old 1"]


async def test_how_far_the_client_has_got_is_stored_until_the_last_word() -> None:
    """A session that is over may be deleted any moment, and is not written to."""
    desk = Desk()
    desk.publisher.say(SPEECH)
    desk.commit()
    await desk.read()
    desk.publisher.delivered(Mark(0))
    desk.publisher.delivered(Mark(0))
    assert [write.delivered_to for write, _ in desk.waiting] == [0]
    desk.publisher.end(status=Status.DONE)
    desk.commit()
    assert await desk.read() == ["SessionEnded"]
    desk.publisher.delivered(Mark(1))
    assert desk.waiting == []


async def test_a_newer_socket_takes_the_place_of_an_older_one() -> None:
    desk = Desk()
    older = desk.reader
    newer = desk.come()
    assert desk.closed == [Ending.REPLACED]
    assert desk.publisher.reader is newer is not older


async def test_an_interruption_waits_for_no_store() -> None:
    """The client hears of a disk that takes nothing, although nothing can be stored."""
    desk = Desk()
    desk.publisher.say(SPEECH)
    desk.publisher.interrupt(Problem(code="store_error", message="the disk is full"), Ending.LOST)
    assert await desk.read() == ["Problem"]
    assert desk.closed == [Ending.LOST]


async def test_a_store_that_stays_away_fails_the_session() -> None:
    """Nothing that could not be stored is shown."""
    desk = Desk()
    desk.publisher.check()
    desk.publisher.say(RecordingEnded(recorded_s=1.0))
    for _ in range(TRIES):
        desk.commit(StoreError("away"))
    await desk.publisher.settle()
    assert await desk.read() == []
    with pytest.raises(StoreError, match="away"):
        desk.publisher.check()
