"""The process dies in the middle of sessions and another carries on: same bytes, same finals, same URLs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack

import numpy as np
import pytest

from dialogue import dialogue
from faults.clients import CLIENTS, SDK_WARNINGS, Pace, available
from faults.machine import Machine
from faults.oracle import Stored, check, quiet_run, stored
from faults.proxy import Fault, Kind, Link
from faults.schedules import speech
from live import PATIENCE_S, STOP, connected, is_durable, is_final, once, open_session, pieces, transcribe
from recordings import pcm16
from server import STOP_S

pytestmark = [SDK_WARNINGS, pytest.mark.timeout(600)]

CHUNK = 3200
PACE = Pace(chunk=CHUNK, chunks_per_s=40)


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    """A server that tests may kill and start again."""
    started = Machine(tmp_path / "data")
    yield started
    started.kill()


@pytest.fixture
async def quiet(machine: Machine) -> dict[int, Stored]:
    """Undisturbed runs, by speech."""
    return {number: await quiet_run(machine.server, speech(number)) for number in (0, 1, 5, 9)}


SELDOM = pytest.mark.slow


@pytest.mark.parametrize("share", [pytest.param(0.1, marks=SELDOM), 0.5, pytest.param(0.9, marks=SELDOM)])
async def test_killed_and_restarted_nothing_is_lost_or_doubled(machine: Machine, quiet, share: float) -> None:
    """Every client goes on over `kill -9`, its bytes and finals are those of a quiet run, and none comes twice."""
    clients = [name for name in CLIENTS if available(name)]
    speeches = dict(zip(clients, quiet, strict=False))
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        links = {name: await stack.enter_async_context(Link(machine.server.url)) for name in clients}
        runs = {}
        # SDKs create no session on a server that is gone, and the one in a program of its own takes long to begin.
        for name in reversed(clients):
            runs[name] = group.create_task(CLIENTS[name](links[name].url, speech(speeches[name]), PACE))
            if name == "js":
                await _until_sent(links[name], 1)
        for name in clients:
            await _until_sent(links[name], 1)
        await _until_sent(links["async"], int(len(speech(speeches["async"])) * share))
        second = await machine.restart()
        for name in clients:
            number = speeches[name]
            report = await runs[name]
            await asyncio.to_thread(check, second, links[name], report, speech(number), quiet[number], crashed=True)


async def test_old_urls_are_accepted_soon_after_a_restart(machine: Machine) -> None:
    """The next process lets all clients in as they knock, before any session is over, with all that was kept."""
    opened = [open_session(machine.server) for _ in range(5)]
    audio = speech(0)
    for each in opened:
        async with connected(each) as socket:
            await socket.send(*pieces(audio, CHUNK))
            await socket.acked_up_to(len(audio))
            await socket.drop()
    second = await machine.restart()
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(connected(each)) for each in opened]
        await asyncio.gather(*(socket.ping(PATIENCE_S) for socket in sockets))
        assert [second.result(each.session_id)["status"] for each in opened] == ["processing"] * len(opened)
        for socket in sockets:
            await socket.send(STOP)
        assert [await socket.ended() for socket in sockets] == [1000] * len(opened)
    assert [stored(second, each.session_id).audio == audio for each in opened] == [True] * len(opened)


async def test_finals_keep_their_ids_and_come_once(machine: Machine, quiet) -> None:
    """Over three crashes no message comes twice that the client had shown to have and the store knew of, what is
    repeated is the same to the letter, and what comes after goes on on the same clock.
    """
    audio, sure, told = speech(0), [], []
    opened = open_session(machine.server)
    acked = 0
    for share in (2, 3, 4):
        goal = len(audio) * share // 5
        async with connected(opened) as socket:
            await socket.send(*pieces(audio[acked:goal], CHUNK))
            await socket.until(is_durable)
            await socket.receipted()
            known = socket.durable
            # The server had the pong before these bytes; when they are acknowledged, the store has both.
            await socket.send(audio[goal : goal + CHUNK])
            await socket.acked_up_to(goal + CHUNK)
            machine.kill()
            await socket.ended()
        assert not [message for message in socket.messages if message in sure]
        sure += known
        told += socket.messages
        acked = max(stop for _, stop in socket.acked)
        await machine.restart()
    async with connected(opened) as last:
        await last.send(*pieces(audio[acked:], CHUNK), STOP)
        assert await last.ended() == 1000
    assert not [message for message in last.messages if message in sure]
    finals = [message["data"]["id"] for message in once(told + last.messages) if is_final(message)]
    kept = stored(machine.server, opened.session_id)
    assert finals == [final_id for final_id, _ in kept.finals]
    assert (kept.audio, kept.finals) == (audio, quiet[0].finals)


@pytest.mark.slow
async def test_speakers_keep_their_numbers(machine: Machine) -> None:
    """Who was known before a crash is known after it, and everybody's number is that of a quiet run."""
    # Not the same bytes twice: what repeats itself to the bit may be taken for a repetition after a restart.
    audio, asked = pcm16(np.concatenate([dialogue(), 0.8 * dialogue()])), {"diarization": True}
    whole = await transcribe(machine.server, [audio], realtime_processing=asked)
    quiet = machine.server.result(whole.session_id)["result"]["transcription"]
    opened = open_session(machine.server, realtime_processing=asked)
    async with connected(opened) as before:
        await before.send(*pieces(audio[: len(audio) * 3 // 4], CHUNK))
        await before.until(lambda message: is_final(message) and message["data"]["utterance"]["speaker"] == 1)
        machine.kill()
        await before.ended()
    second = await machine.restart()
    async with connected(opened) as after:
        await after.send(*pieces(audio[before.acked[-1][1] :], CHUNK), STOP)
        assert await after.ended() == 1000
    kept = second.result(opened.session_id)["result"]["transcription"]
    assert kept == quiet
    assert {utterance["speaker"] for utterance in kept["utterances"]} == {0, 1}


async def test_a_stop_survives_a_crash(machine: Machine, quiet) -> None:
    """A session that was stopped is finished by the next process, whether or not its client returns."""
    audio = speech(0)
    opened = open_session(machine.server)
    async with connected(opened) as socket:
        await socket.send(*pieces(audio, CHUNK), STOP)
        await socket.until(lambda message: message["type"] == "stop_recording")
        machine.kill()
        await socket.ended()
    second = await machine.restart()
    async with asyncio.timeout(PATIENCE_S):
        while second.result(opened.session_id)["status"] != "done":
            await asyncio.sleep(0.1)
    kept = stored(second, opened.session_id)
    assert (kept.audio, kept.finals) == (audio, quiet[0].finals)


@pytest.mark.slow
async def test_killed_again_and_again(machine: Machine, quiet) -> None:
    """Three crashes and dropped sockets in one session leave it as if nothing had happened."""
    audio = speech(5)
    plans = ((Fault(kind=Kind.DEAF, at=20_000, lasts_s=0.3),), (), (Fault(kind=Kind.RESET, at=9_000),))
    async with Link(machine.server.url, plans) as link:
        run = asyncio.create_task(CLIENTS["async"](link.url, audio, PACE))
        for share in (0.2, 0.5, 0.8):
            await _until_sent(link, int(len(audio) * share))
            server = await machine.restart()
        report = await run
        await asyncio.to_thread(check, server, link, report, audio, quiet[5], crashed=True)


async def test_a_drained_process_hands_over(machine: Machine, quiet) -> None:
    """SIGTERM ends the process with 0 and its sockets with 1012; the clients go on with the next one, whole."""
    audio = speech(0)
    async with Link(machine.server.url) as link:
        run = asyncio.create_task(CLIENTS["async"](link.url, audio, PACE))
        await _until_sent(link, len(audio) // 2)
        machine.server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(machine.server.process.wait, STOP_S) == 0
        second = await machine.restart()
        report = await run
        await asyncio.to_thread(check, second, link, report, audio, quiet[0])


async def _until_sent(link: Link, size: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(socket.audio) for socket in link.sockets) < size:
            await asyncio.sleep(0.01)
