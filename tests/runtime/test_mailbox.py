"""What may be left out of a mailbox is left out, and nothing else."""

from __future__ import annotations

import asyncio

from vivavoce.events import (
    AudioAccepted,
    Event,
    Final,
    Message,
    Partial,
    Problem,
    SessionEnded,
    StoredMessage,
    TurnContinued,
    TurnEndLikely,
)
from vivavoce.model import Kind, Utterance, now
from vivavoce.runtime.mailbox import ACKS_PER_RECEIPT, MAX_WAITING, MAX_WAITING_CHARS, Ending, Mailbox, Mark

READER = object()


def utterance(name: str) -> Utterance:
    return Utterance(id=name, channel=0, start=0, end=1, confidence=1, language="en", words=())


def message(event: Event, text: str = "") -> Message:
    return Message(event=event, text=text)


def ack(stop: int) -> Message:
    return message(AudioAccepted(start_byte=0, stop_byte=stop, start_s=0, stop_s=0), str(stop))


def stored(seq: int, *, at: int = 0, sent: bool = True) -> StoredMessage:
    return StoredMessage(seq=seq, key=str(seq), at=at, kind=Kind.FINAL, created_at=now(), text=str(seq), sent=sent)


def say(mailbox: Mailbox, *seqs: int, at: int = 0) -> None:
    for seq in seqs:
        mailbox.put(message(Final(utterance=utterance(str(seq))), str(seq)), seq, at)


def make() -> Mailbox:
    mailbox = Mailbox()
    mailbox.expect_reader(READER)
    return mailbox


async def taken(mailbox: Mailbox) -> list[str]:
    mailbox.close(Ending.FINISHED)
    texts = []
    while not isinstance(item := await mailbox.take(READER), Ending):
        texts.append(item)
    return texts


async def test_only_the_newest_partial_waits() -> None:
    """A partial takes the place of the one before it of the same utterance, and of no other message."""
    mailbox = make()
    mailbox.connected = True
    for text, name in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        mailbox.put(message(Partial(utterance=utterance(name)), text))
    mailbox.put(message(Final(utterance=utterance("a")), "a!"))
    assert await taken(mailbox) == ["b1", "a2", "a!"]


async def test_hints_at_the_end_of_a_turn_hold_on_one_socket() -> None:
    """All of them go to the socket that is there, and none to the next one, in hand or not."""
    mailbox = make()
    hint = TurnEndLikely(utterance=utterance("a"), at_s=1.0, silence_s=0.1)
    mailbox.put(message(hint, "nobody is there"))
    mailbox.connected = True
    mailbox.put(message(hint, "hint"))
    mailbox.put(message(TurnContinued(utterance_id="a", channel=0), "withdrawn"))
    assert await mailbox.take(READER) == "hint"
    mailbox.release()
    mailbox.drop_acknowledgments()
    assert await taken(mailbox) == []


async def test_acknowledgments_side_by_side_become_one() -> None:
    """The newest acknowledgment says all that the ones before it said."""
    mailbox = make()
    mailbox.connected = True
    for each in (ack(1), ack(2), message(SessionEnded(), "end"), ack(3), ack(4)):
        mailbox.put(each)
    assert await taken(mailbox) == ["2", "end", "4"]


async def test_nobody_connected() -> None:
    """All but partials wait for the next socket."""
    mailbox = make()
    mailbox.put(message(Partial(utterance=utterance("a")), "partial"))
    mailbox.put(message(Problem(code="x", message="y"), "error"))
    mailbox.put(message(Final(utterance=utterance("a")), "final"))
    mailbox.put(message(SessionEnded(), "end"))
    assert await taken(mailbox) == ["error", "final", "end"]


async def test_what_is_not_proven_comes_again() -> None:
    """After a lost socket all that it was given comes first again, in order, and what was proven does not."""
    mailbox = make()
    say(mailbox, 0, 1, 2, 3)
    assert [await mailbox.take(READER) for _ in range(3)] == ["0", "1", "2"]
    assert mailbox.receipt_due() == Mark(seq=2)
    assert mailbox.receipt_due() is None
    assert mailbox.prove(0)
    mailbox.release()
    mailbox.repeat()
    assert await taken(mailbox) == ["1", "2", "3"]
    assert not mailbox.empty
    assert mailbox.prove(3)
    assert mailbox.empty


async def test_a_late_proof_counts() -> None:
    """What an older socket proves when its messages wait for a newer one already, is not sent there."""
    mailbox = make()
    say(mailbox, 0, 1, 2, 3)
    assert [await mailbox.take(READER) for _ in range(3)] == ["0", "1", "2"]
    mailbox.repeat()
    assert mailbox.prove(1)
    assert await taken(mailbox) == ["2", "3"]


async def test_proofs_only_go_forward() -> None:
    """An older proof, or the same once more, is no news and brings nothing back."""
    mailbox = make()
    say(mailbox, 0, 1)
    assert [await mailbox.take(READER), await mailbox.take(READER)] == ["0", "1"]
    assert mailbox.prove(1)
    assert not mailbox.prove(1)
    assert not mailbox.prove(0)
    assert mailbox.delivered_to == 1
    assert not mailbox.doubtful


async def test_an_acknowledgment_that_arrived_proves_what_was_said_before() -> None:
    """Messages said before the byte that a client knows to be acknowledged are told from those after it."""
    mailbox = make()
    say(mailbox, 0, 1, at=10)
    say(mailbox, 2, at=20)
    for _ in range(3):
        await mailbox.take(READER)
    assert [mailbox.last_before(end) for end in (0, 10, 11, 20, 21)] == [-1, -1, 1, 1, 2]


async def test_an_earlier_process_leaves_what_is_in_doubt() -> None:
    """What it delivered and what was never for the socket is left out; the rest is repeated before what is new."""
    mailbox = Mailbox(delivered_to=2, earlier=[stored(seq, sent=seq != 4) for seq in range(6)])
    mailbox.expect_reader(READER)
    assert mailbox.doubtful
    say(mailbox, 6)
    mailbox.repeat()
    assert await taken(mailbox) == ["3", "5", "6"]


async def test_a_passing_message_in_hand_comes_again_and_no_acknowledgment_does() -> None:
    """A refusal whose socket was lost is for the next one too."""
    mailbox = make()
    mailbox.put(message(Problem(code="x", message="y"), "error"))
    mailbox.put(ack(1))
    for expected in ("error", "1"):
        assert await mailbox.take(READER) == expected
        mailbox.release()
        if expected == "error":
            assert await mailbox.take(READER) == "error"
    assert await taken(mailbox) == []


async def test_an_older_socket_gets_nothing_any_more() -> None:
    """A reader that was replaced waits for ever, and takes nothing from the newer one."""
    mailbox = make()
    older = asyncio.create_task(mailbox.take(READER))
    newer = object()
    await asyncio.sleep(0)
    mailbox.expect_reader(newer)
    say(mailbox, 0)
    assert await mailbox.take(newer) == "0"
    say(mailbox, 1)
    assert await mailbox.take(newer) == "1"
    assert not older.done()
    older.cancel()


async def test_a_held_mailbox_waits_for_what_is_repeated() -> None:
    """After a reconnect nothing newer leaves before what the client may have missed."""
    mailbox = make()
    say(mailbox, 0, 1)
    assert [await mailbox.take(READER), await mailbox.take(READER)] == ["0", "1"]
    mailbox.held = True
    say(mailbox, 2)
    reader = asyncio.create_task(taken(mailbox))
    await asyncio.sleep(0)
    assert not reader.done()
    mailbox.repeat()
    assert await reader == ["0", "1", "2"]


async def test_taking_waits_for_a_message() -> None:
    """A reader sleeps until there is something."""
    mailbox = make()
    reader = asyncio.create_task(mailbox.take(READER))
    await asyncio.sleep(0)
    assert not reader.done()
    mailbox.put(message(SessionEnded(), "end"))
    assert await reader == "end"


async def test_a_slow_reader_is_noticed() -> None:
    """More finals than a reader that keeps up would leave make the mailbox crowded; none is dropped."""
    mailbox = make()
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    assert mailbox.crowded
    assert len(await taken(mailbox)) == MAX_WAITING + 1


async def test_a_new_socket_hears_no_old_acknowledgments() -> None:
    """What an older socket's bytes were acknowledged with is left out, and nothing else."""
    mailbox = make()
    mailbox.put(ack(5))
    mailbox.put(message(Final(utterance=utterance("a")), "final"))
    mailbox.put(ack(9))
    mailbox.drop_acknowledgments()
    assert await taken(mailbox) == ["final"]


async def test_a_mailbox_is_crowded_by_size_too() -> None:
    """A few long messages weigh as much as many short ones; what is taken or replaced weighs nothing any more."""
    mailbox = make()
    mailbox.connected = True
    long = "x" * (MAX_WAITING_CHARS // 2)
    for _ in range(10):
        mailbox.put(message(Partial(utterance=utterance("a")), long))
        mailbox.put(message(Final(utterance=utterance("a")), "!"))
        mailbox.put(message(AudioAccepted(start_byte=0, stop_byte=1, start_s=0, stop_s=0), long[1000:]))
        assert not mailbox.crowded
        assert isinstance(await mailbox.take(READER), str)
        assert isinstance(await mailbox.take(READER), str)
        assert isinstance(await mailbox.take(READER), str)
    for _ in range(3):
        mailbox.put(message(Final(utterance=utterance("a")), long))
    assert mailbox.crowded


async def test_a_reader_that_comes_back_is_not_blamed_for_what_it_finds() -> None:
    """Otherwise it would be closed again before it could read; it is once it makes no headway either."""
    mailbox = make()
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    mailbox.expect_reader(READER)
    assert not mailbox.crowded
    for i in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(i))), str(i)))
    assert mailbox.crowded


async def test_what_is_repeated_is_not_blamed_on_the_reader_either() -> None:
    """What the session sends again after a reconnect is part of what the reader finds, by count and by size."""
    mailbox = make()
    text = "x" * (2 * MAX_WAITING_CHARS // MAX_WAITING)
    for seq in range(MAX_WAITING + 1):
        mailbox.put(message(Final(utterance=utterance(str(seq))), text), seq)
        await mailbox.take(READER)
    mailbox.expect_reader(READER)
    mailbox.repeat()
    assert not mailbox.crowded
    for _ in range(2):
        assert not mailbox.crowded
        mailbox.put(message(Final(utterance=utterance("a")), "x" * (MAX_WAITING_CHARS // 2 + 1)))
    assert mailbox.crowded


async def test_acknowledgments_are_worth_a_receipt_now_and_then() -> None:
    """After so many of them without a durable message, it is asked how far the client has got."""
    mailbox = make()
    for end in range(1, ACKS_PER_RECEIPT + 1):
        assert mailbox.receipt_due() is None
        mailbox.put(ack(end))
        await mailbox.take(READER)
    assert mailbox.receipt_due() == Mark(acked=ACKS_PER_RECEIPT)
    assert mailbox.receipt_due() is None
    say(mailbox, 0)
    await mailbox.take(READER)
    assert mailbox.receipt_due() == Mark(seq=0, acked=ACKS_PER_RECEIPT)


async def test_a_new_reader_has_taken_nothing_yet() -> None:
    """What an older socket took says nothing of the newer one, also where it is told the same again."""
    mailbox = make()
    say(mailbox, 0, 1)
    assert [await mailbox.take(READER), await mailbox.take(READER)] == ["0", "1"]
    mailbox.expect_reader(READER)
    assert mailbox.receipt_due() is None
    mailbox.repeat()
    assert await mailbox.take(READER) == "0"
    assert mailbox.receipt_due() == Mark(seq=0)
