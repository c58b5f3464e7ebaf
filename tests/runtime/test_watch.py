"""Whoever watches a session sees every numbered message once and in order, and never holds the session up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vivavoce.errors import CapacityError
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
)
from vivavoce.model import Kind, Utterance, now
from vivavoce.runtime.watch import MAX_WAITING, MAX_WAITING_CHARS, PAGE, Shown, Watchers, follow

AT = now()


def utterance(name: str) -> Utterance:
    return Utterance(id=name, channel=0, start=0, end=1, confidence=1, language="en", words=())


def partial(name: str, text: str) -> Message:
    return Message(event=Partial(utterance=utterance(name)), text=text)


@dataclass
class Talk:
    """A session that says things, and the store that keeps them."""

    kept: list[StoredMessage] = field(default_factory=list)
    asked_for_partials: list[bool] = field(default_factory=list)
    reads: int = 0
    most: int = 3
    told: int = -1
    first: int = 0
    watchers: Watchers = field(init=False)

    def __post_init__(self) -> None:
        self.watchers = Watchers(told=self.told, most=self.most, partials=self.asked_for_partials.append)

    def keep(self, text: str = "") -> Message:
        seq = self.first + len(self.kept)
        event = Final(utterance=utterance(str(seq)))
        text = text or str(seq)
        self.kept.append(StoredMessage(seq=seq, key=text, at=0, kind=Kind.FINAL, created_at=AT, text=text))
        return Message(event=event, text=text)

    def say(self, count: int = 1, text: str = "") -> None:
        for _ in range(count):
            message = self.keep(text)
            self.watchers.put(message, self.kept[-1].seq)

    def end(self) -> None:
        self.kept.append(
            StoredMessage(seq=len(self.kept), key="", at=0, kind=Kind.LIFECYCLE, created_at=AT, text="end")
        )
        self.watchers.put(Message(event=SessionEnded(), text="end"), len(self.kept) - 1)

    def page(self, start: int, limit: int) -> list[StoredMessage]:
        return [message for message in self.kept if message.seq >= start][:limit]

    async def messages(self, _session_id: str, *, start: int, limit: int) -> list[StoredMessage]:
        self.reads += 1
        page = self.page(start, limit)
        await asyncio.sleep(0)
        return page

    def watch(self, start: int = 0, *, partials: bool = True):
        return follow(self, "s", self.watchers, self.watchers.open(start, partials=partials))


async def next_of(messages) -> str:
    shown = await anext(messages)
    assert shown is not None
    return shown.text


async def all_of(messages) -> list[str]:
    return [shown.text async for shown in messages if shown is not None]


async def test_what_is_stored_comes_first_and_then_what_is_said() -> None:
    """At the seam nothing is lost and nothing comes twice."""
    talk = Talk()
    talk.say(PAGE + 3)
    messages = talk.watch()
    seen = [await next_of(messages) for _ in range(PAGE + 3)]
    talk.say(2)
    talk.watchers.put(partial("a", "partial"))
    talk.say(1)
    seen += [await next_of(messages) for _ in range(4)]
    talk.end()
    seen += await all_of(messages)
    expected = [str(seq) for seq in range(PAGE + 6)]
    assert seen == [*expected[:-1], "partial", expected[-1], "end"]


async def test_a_watcher_begins_where_it_wants_to() -> None:
    """Whoever comes back with the last number it saw gets what follows, once."""
    talk = Talk()
    talk.say(5)
    messages = talk.watch(3)
    assert [await next_of(messages), await next_of(messages)] == ["3", "4"]
    later = talk.watch(6)
    reading = asyncio.create_task(next_of(later))
    await asyncio.sleep(0)
    talk.say(2)
    assert await next_of(messages) == "5"
    assert await reading == "6"


@pytest.mark.parametrize("told", [-1, 7])
async def test_what_is_said_while_an_empty_page_is_on_its_way_is_shown(told: int) -> None:
    """The page knows nothing of it, whether or not what was told before is lost."""
    talk = Talk(told=told, first=told + 1)
    messages = talk.watch()
    waiting = asyncio.create_task(next_of(messages))
    await asyncio.sleep(0)
    assert talk.reads == 1
    talk.say(2)
    assert [await waiting, await next_of(messages)] == [str(told + 1), str(told + 2)]


async def test_what_is_committed_last_while_an_empty_page_is_on_its_way_is_shown() -> None:
    """The end sends a watcher that is reading to the store once more, too."""
    talk = Talk()
    rest = asyncio.create_task(all_of(talk.watch()))
    await asyncio.sleep(0)
    talk.keep()
    talk.watchers.close(over=False)
    assert await rest == ["0"]


async def test_what_is_kept_but_not_told_yet_is_shown_once() -> None:
    """The store may be ahead of what was told; telling it then repeats nothing."""
    talk = Talk()
    talk.say(1)
    early = talk.keep()
    messages = talk.watch()
    assert [await next_of(messages), await next_of(messages)] == ["0", "1"]
    waiting = asyncio.create_task(next_of(messages))
    await asyncio.sleep(0)
    talk.watchers.put(early, 1)
    talk.say(1)
    assert await waiting == "2"


@dataclass
class Play:
    """A talk and one watcher of it, moved step by step."""

    start: int
    talk: Talk = field(default_factory=Talk)
    untold: list[tuple[Message, int]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watcher = self.talk.watchers.open(self.start, partials=True)

    def keep(self) -> None:
        self.untold.append((self.talk.keep(), len(self.talk.kept) - 1))

    def tell(self) -> None:
        for message, seq in self.untold:
            self.talk.watchers.put(message, seq)
        self.untold.clear()

    def say(self) -> None:
        self.keep()
        self.tell()

    def flood(self) -> None:
        self.tell()
        self.talk.say(MAX_WAITING + 1)

    def partial(self) -> None:
        self.talk.watchers.put(partial("a", "partial"))

    def take(self) -> None:
        shown = self.watcher.take()
        self.seen += [shown.seq] if shown is not None and shown.seq is not None else []

    def read(self, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        for _ in range(MAX_WAITING):
            self.take()
        if self.watcher.behind:
            told = self.talk.watchers.told
            page = self.talk.page(self.watcher.next, PAGE)
            meanwhile()
            self.watcher.found(page, told, self.talk.watchers.told)
            self.seen += [message.seq for message in page]

    def read_while_more_is_said(self) -> None:
        self.read(meanwhile=self.say)


STEPS = [Play.say, Play.say, Play.keep, Play.tell, Play.partial, Play.take, Play.take, Play.read, Play.flood]
STEPS += [Play.read_while_more_is_said]


@example([Play.read_while_more_is_said, Play.say], 0)
@given(st.lists(st.sampled_from(STEPS), max_size=60), st.integers(0, 6))
def test_numbered_messages_come_once_and_in_order_whatever_happens_when(steps, start) -> None:
    """Replaying, live, flooded, or told late: a watcher's numbers have neither gaps nor repeats."""
    play = Play(start)
    for step in steps:
        step(play)
    play.tell()
    play.talk.watchers.close(over=True)
    while play.watcher.behind:
        play.read()
    assert play.seen == [message.seq for message in play.talk.kept if message.seq >= start]


async def test_a_slow_watcher_loses_partials_and_reads_the_rest_again() -> None:
    """Its queue is bounded by count and by size, and everybody else goes on as before."""
    talk = Talk()
    slow, quick = talk.watch(), talk.watchers.open(0, partials=True)
    talk.say(1)
    assert await next_of(slow) == "0"
    waiting = asyncio.create_task(next_of(slow))
    await asyncio.sleep(0)
    quick.found(talk.page(0, PAGE), 0, 0)
    talk.say(1)
    assert await waiting == "1"
    before = talk.reads
    talk.watchers.put(partial("a", "lost"))
    talk.say(MAX_WAITING)
    assert quick.behind
    assert quick.take() is None
    assert [await next_of(slow) for _ in range(MAX_WAITING)] == [str(seq) for seq in range(2, MAX_WAITING + 2)]
    assert talk.reads > before
    waiting = asyncio.create_task(next_of(slow))
    await asyncio.sleep(0)
    talk.watchers.put(partial("b", "seen"))
    assert await waiting == "seen"
    long = "x" * (MAX_WAITING_CHARS // 2 + 1)
    talk.say(3, long)
    assert [await next_of(slow) for _ in range(3)] == [long] * 3


async def test_only_the_newest_partial_of_an_utterance_waits() -> None:
    """A watcher that is busy for a moment skips what is out of date."""
    talk = Talk()
    watcher = talk.watchers.open(0, partials=True)
    watcher.found([], -1, -1)
    for text, name in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        talk.watchers.put(partial(name, text))
    assert [watcher.take(), watcher.take(), watcher.take()] == [
        Shown("b1", None, "b"),
        Shown("a2", None, "a"),
        None,
    ]


def test_only_what_is_said_of_speech_is_shown_of_what_is_not_stored() -> None:
    """Acknowledgments of audio, and problems that do not count, are between the session and its client."""
    talk = Talk()
    watcher = talk.watchers.open(0, partials=False)
    watcher.found([], -1, -1)
    ack: Event = AudioAccepted(start_byte=0, stop_byte=1, start_s=0, stop_s=1)
    for event in (ack, Problem(code="malformed_message", message="")):
        talk.watchers.put(Message(event=event, text=""))
    assert watcher.take() is None
    talk.watchers.put(Message(event=TurnContinued(utterance_id="a", channel=0), text="hint"))
    assert watcher.take() == Shown("hint")


def test_partials_are_made_while_somebody_wants_to_see_them() -> None:
    """Who says no to partials neither gets any nor has any made."""
    talk = Talk()
    plain = talk.watchers.open(0, partials=False)
    plain.found([], -1, -1)
    talk.watchers.put(partial("a", "a1"))
    curious = talk.watchers.open(0, partials=True)
    curious.found([], -1, -1)
    talk.watchers.put(partial("a", "a2"))
    talk.watchers.leave(curious)
    talk.watchers.leave(curious)
    assert talk.asked_for_partials == [False, True, False]
    assert plain.take() is None


def test_so_many_may_watch_and_no_more_until_one_leaves() -> None:
    """The bound holds for those who are there, not for those who ever were."""
    talk = Talk(most=2)
    one, _ = talk.watchers.open(0, partials=True), talk.watchers.open(0, partials=True)
    with pytest.raises(CapacityError, match="watched by 2"):
        talk.watchers.open(0, partials=True)
    talk.watchers.leave(one)
    talk.watchers.open(0, partials=True)
    assert len(talk.watchers) == 2


def test_tokens_never_take_the_places_that_are_kept_for_keys() -> None:
    """A token may be in anybody's hands; the owner finds room all the same, and may fill what tokens leave."""
    talk = Talk(most=8)
    for _ in range(6):
        talk.watchers.open(0, partials=True, guest=True)
    with pytest.raises(CapacityError, match="watched by 6 already, and may be by 6"):
        talk.watchers.open(0, partials=True, guest=True)
    for _ in range(2):
        talk.watchers.open(0, partials=True)
    with pytest.raises(CapacityError, match="watched by 8"):
        talk.watchers.open(0, partials=True)


def test_owners_may_take_every_place() -> None:
    """Nothing is kept for tokens."""
    talk = Talk(most=8)
    for _ in range(8):
        talk.watchers.open(0, partials=True)
    with pytest.raises(CapacityError):
        talk.watchers.open(0, partials=True, guest=True)


@pytest.mark.parametrize("over", [True, False])
async def test_a_session_that_nobody_runs_gives_what_is_stored(over: bool) -> None:
    """All pages of it, and then the end."""
    talk = Talk()
    talk.say(3 * PAGE)
    past = Watchers.of_past(over=over)
    seen = await all_of(follow(talk, "s", past, past.open(PAGE, partials=True)))
    assert seen == [str(seq) for seq in range(PAGE, 3 * PAGE)]
    assert past.over is over


async def test_what_was_committed_last_and_never_told_is_shown_at_the_end() -> None:
    """A session may end between the two."""
    talk = Talk()
    talk.say(1)
    messages = talk.watch()
    assert await next_of(messages) == "0"
    rest = asyncio.create_task(all_of(messages))
    await asyncio.sleep(0)
    talk.keep()
    talk.watchers.close(over=False)
    assert await rest == ["1"]
    assert not talk.watchers.over


async def test_what_the_store_lost_is_not_waited_for() -> None:
    """Numbers that were told and cannot be read leave a gap, not an endless loop."""
    talk = Talk(told=7)
    messages = talk.watch()
    waiting = asyncio.create_task(next_of(messages))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    talk.watchers.put(Message(event=Final(utterance=utterance("8")), text="8"), 8)
    assert await waiting == "8"


async def test_a_quiet_session_is_told_from_a_dead_one() -> None:
    """Every so often whoever shows the messages may say that it is still there."""
    talk = Talk()
    messages = follow(talk, "s", talk.watchers, talk.watchers.open(0, partials=True), quiet_s=0.001)
    assert await anext(messages) is None
    talk.say(1)
    talk.end()
    assert await all_of(messages) == ["0", "end"]
