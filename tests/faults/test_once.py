"""Durable messages come once: a client that has shown to have one never gets it again, and one that has not, does."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from faults.clients import SDK_WARNINGS
from faults.machine import Machine
from faults.schedules import speech
from live import EVERYTHING, STOP, Json, Opened, Socket, connected, is_durable, is_final, open_session, pieces

pytestmark = [SDK_WARNINGS, pytest.mark.timeout(600)]

CHUNK = 3200
NO_ACKS = EVERYTHING | {"receive_acknowledgments": False}


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    """A server that tests may kill and start again."""
    started = Machine(tmp_path / "data")
    yield started
    started.kill()


async def end(opened: Opened) -> list[Json]:
    """Come back, stop and stay to the end; give what was said there."""
    async with connected(opened) as socket:
        await socket.send(STOP)
        assert await socket.ended() == 1000
    return socket.durable


async def hear(socket: Socket, audio: bytes) -> None:
    """Send audio at once and wait for a final, and until the session has nothing more to say about it."""
    await socket.send(*pieces(audio, CHUNK))
    await socket.until(is_final)


@pytest.mark.parametrize("flags", [EVERYTHING, NO_ACKS], ids=["acknowledged", "unacknowledged"])
async def test_what_was_answered_never_comes_again(machine: Machine, flags: Json) -> None:
    """A drop right after the pong behind a message repeats none of what came before it, over any number of drops."""
    opened = open_session(machine.server, messages_config=flags)
    audio, seen = speech(0), []
    for start, stop in ((0, 2), (2, 3), (3, 4)):
        async with connected(opened) as socket:
            await socket.send(*pieces(audio[len(audio) * start // 4 : len(audio) * stop // 4], CHUNK))
            await socket.until(is_durable)
            await socket.receipted()
            sure = socket.durable
            await socket.drop()
        assert not [message for message in sure if message in seen]
        seen += sure
    assert not [message for message in await end(opened) if message in seen]


@pytest.mark.parametrize("flags", [EVERYTHING, NO_ACKS], ids=["acknowledged", "unacknowledged"])
async def test_what_was_not_answered_comes_again_to_the_letter(machine: Machine, flags: Json) -> None:
    """A drop before the pong repeats all that was written, in its order and before anything new."""
    opened = open_session(machine.server, messages_config=flags)
    async with connected(opened) as socket:
        socket.answers = False
        await hear(socket, speech(0))
        await socket.drop()
    again = await end(opened)
    assert again[: len(socket.durable)] == socket.durable


async def test_a_client_that_repeats_audio_shows_what_it_has(machine: Machine) -> None:
    """Without any pong, messages said before the acknowledgment that a client goes on from are not repeated."""
    opened = open_session(machine.server)
    audio = speech(0)
    async with connected(opened) as socket:
        socket.answers = False
        await hear(socket, audio[: len(audio) // 2])
        seen = socket.durable
        for piece in pieces(audio[len(audio) // 2 :], CHUNK):
            # Sent together they might be acknowledged together.
            await socket.send(piece)
            await socket.acked_up_to(socket.acked[-1][1] + len(piece))
        await socket.drop()
    ends = [stop for _, stop in socket.acked if stop < len(audio)]
    async with connected(opened) as after:
        await after.send(audio[ends[-1] :], STOP)
        assert await after.ended() == 1000
    assert not [message for message in after.durable if message in seen]


async def test_the_last_messages_come_to_who_returns_for_them(machine: Machine) -> None:
    """A client cut off just as the session ends gets its last messages on the next socket."""
    opened = open_session(machine.server)
    async with connected(opened) as socket:
        await hear(socket, speech(0))
        await socket.receipted()
        socket.answers = False
        await socket.send(STOP)
        await socket.until(lambda message: message["type"] == "end_session")
        await socket.drop()
    async with connected(opened) as again:
        assert await again.ended() == 1000
    assert [message["type"] for message in again.durable][-2:] == ["post_final_transcript", "end_session"]
    assert all(message in socket.durable for message in again.durable)


async def test_what_was_not_answered_survives_a_crash(machine: Machine) -> None:
    """After `kill -9` all that the client did not show to have comes again, to the letter."""
    opened = open_session(machine.server, messages_config=NO_ACKS)
    async with connected(opened) as socket:
        socket.answers = False
        await hear(socket, speech(0))
        await machine.restart()
        await socket.ended()
    assert (await end(opened))[: len(socket.durable)] == socket.durable


async def test_nothing_comes_twice_over_a_drained_process(machine: Machine) -> None:
    """A server that is told to stop waits a moment for what is under way, so the next one repeats nothing."""
    opened = open_session(machine.server)
    async with connected(opened) as socket:
        await hear(socket, speech(0))
        machine.server.process.send_signal(signal.SIGTERM)
        assert await socket.ended() == 1012
    await machine.restart()
    assert not [message for message in await end(opened) if message in socket.durable]
