"""What may be left out of a mailbox is left out, and nothing else."""

from __future__ import annotations

import asyncio

from vivavoce.events import AudioAccepted, Event, Final, Message, Partial, Problem, SessionEnded, StoredMessage
from vivavoce.model import Kind, Utterance, now
from vivavoce.runtime.mailbox import MAX_WAITING, MAX_WAITING_CHARS, Ending, Mailbox


def utterance(name: str) -> Utterance:
    return Utterance(id=name, channel=0, start=0, end=1, confidence=1, language="en", words=())


def message(event: Event, text: str = "") -> Message:
    return Message(event=event, text=text)


def ack(stop: int) -> Message:
    return message(AudioAccepted(start_byte=0, stop_byte=stop, start_s=0, stop_s=0), str(stop))


async def taken(mailbox: Mailbox) -> list[str]:
    mailbox.close(Ending.FINISHED)
    texts = []
    while not isinstance(item := await mailbox.take(), Ending):
        texts.append(item)
    return texts


async def test_only_the_newest_partial_waits() -> None:
    """A partial takes the place of the one before it of the same utterance, and of no other message."""
    mailbox = Mailbox()
    mailbox.connected = True
    for text, name in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        mailbox.put(message(Partial(utterance=utterance(name)), text))
    mailbox.put(message(Final(utterance=utterance("a")), "a!"))
    assert await taken(mailbox) == ["b1", "a2", "a!"]


async def test_acknowledgments_side_by_side_become_one() -> None:
    """The newest acknowledgment says all that the ones before it said."""
    mailbox = Mailbox()
    mailbox.connected = True
    for each in (ack(1), ack(2), message(SessionEnded(), "end"), ack(3), ack(4)):
        mailbox.put(each)
    assert await taken(mailbox) == ["2", "end", "4"]


async def test_nobody_connected() -> None:
    """All but partials wait for the next socket."""
    mailbox = Mailbox()
    mailbox.put(message(Partial(utterance=utterance("a")), "partial"))
    mailbox.put(message(Problem(code="x", message="y"), "error"))
    mailbox.put(message(Final(utterance=utterance("a")), "final"))
    mailbox.put(message(SessionEnded(), "end"))
    assert await taken(mailbox) == ["error", "final", "end"]


async def test_what_was_not_written_comes_first_again() -> None:
    """A message whose socket was lost keeps its place; one that was followed by another take was written."""
    mailbox = Mailbox()
    for seq, name in enumerate("abc"):
        mailbox.put(message(Final(utterance=utterance(name)), name), seq)
    assert [await mailbox.take(), await mailbox.take()] == ["a", "b"]
    mailbox.release()
    assert mailbox.written_to == 0
    assert await taken(mailbox) == ["b", "c"]
    assert mailbox.written_to == 2
    assert mailbox.empty


async def test_a_held_mailbox_waits_for_what_is_repeated() -> None:
    """After a reconnect nothing newer leaves before what the client may have missed."""
    mailbox = Mailbox(written_to=7)
    mailbox.put(message(Final(utterance=utterance("c")), "c"), 8)
    mailbox.held = True
    reader = asyncio.create_task(taken(mailbox))
    await asyncio.sleep(0)
    stored = [
        StoredMessage(seq=seq, key=text, at=0, kind=Kind.FINAL, created_at=now(), text=text)
        for seq, text in ((6, "a"), (7, "b"))
    ]
    mailbox.repeat(stored)
    assert await reader == ["a", "b", "c"]


async def test_taking_waits_for_a_message() -> None:
    """A reader sleeps until there is something."""
    mailbox = Mailbox()
    reader = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    assert not reader.done()
    mailbox.put(message(SessionEnded(), "end"))
    assert await reader == "end"


async def test_a_slow_reader_is_noticed() -> None:
    """More finals than a reader that keeps up would leave make the mailbox crowded; none is dropped."""
    mailbox = Mailbox()
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    assert mailbox.crowded
    assert len(await taken(mailbox)) == MAX_WAITING + 1


async def test_a_new_socket_hears_no_old_acknowledgments() -> None:
    """What an older socket's bytes were acknowledged with is left out, and nothing else."""
    mailbox = Mailbox()
    mailbox.put(ack(5))
    mailbox.put(message(Final(utterance=utterance("a")), "final"))
    mailbox.put(ack(9))
    mailbox.drop_acknowledgments()
    assert await taken(mailbox) == ["final"]


async def test_a_mailbox_is_crowded_by_size_too() -> None:
    """A few long messages weigh as much as many short ones; what is taken or replaced weighs nothing any more."""
    mailbox = Mailbox()
    mailbox.connected = True
    long = "x" * (MAX_WAITING_CHARS // 2)
    for _ in range(10):
        mailbox.put(message(Partial(utterance=utterance("a")), long))
        mailbox.put(message(Final(utterance=utterance("a")), "!"))
        mailbox.put(message(AudioAccepted(start_byte=0, stop_byte=1, start_s=0, stop_s=0), long[1000:]))
        assert not mailbox.crowded
        assert isinstance(await mailbox.take(), str)
        assert isinstance(await mailbox.take(), str)
        assert isinstance(await mailbox.take(), str)
    for _ in range(3):
        mailbox.put(message(Final(utterance=utterance("a")), long))
    assert mailbox.crowded


async def test_a_reader_that_comes_back_is_not_blamed_for_what_it_finds() -> None:
    """Otherwise it would be closed again before it could read; it is once it makes no headway either."""
    mailbox = Mailbox()
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    mailbox.expect_reader()
    assert not mailbox.crowded
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    assert mailbox.crowded


async def test_what_is_repeated_is_not_blamed_on_the_reader_either() -> None:
    """What the session sends again after a reconnect is part of what the reader finds, by count and by size."""
    mailbox = Mailbox()
    mailbox.expect_reader()
    mailbox.held = True
    text = "x" * (2 * MAX_WAITING_CHARS // MAX_WAITING)
    mailbox.repeat(
        StoredMessage(seq=seq, key=str(seq), at=0, kind=Kind.FINAL, created_at=now(), text=text)
        for seq in range(MAX_WAITING + 1)
    )
    assert not mailbox.crowded
    assert await mailbox.take() == text
    mailbox.release()
    for _ in range(2):
        assert not mailbox.crowded
        mailbox.put(message(Final(utterance=utterance("a")), "x" * (MAX_WAITING_CHARS // 2 + 1)))
    assert mailbox.crowded
