"""The process dies in the middle of sessions and another carries on: same bytes, same finals, same URLs."""

from __future__ import annotations

import asyncio
import signal
import time
from urllib.parse import urlsplit

import pytest

from faults.clients import CLIENTS, SDK_WARNINGS, Pace, available
from faults.oracle import Stored, check, quiet_run, stored
from faults.proxy import Fault, Kind, Link
from faults.run import SERVER_OPTIONS
from faults.schedules import speech
from live import PATIENCE_S, STOP, connected, is_final, open_session, pieces
from server import STOP_S, Server, start

pytestmark = [SDK_WARNINGS, pytest.mark.timeout(240)]

CHUNK = 3200
PACE = Pace(chunk=CHUNK, chunks_per_s=40)
ACCEPTED_WITHIN_S = 3.0


@pytest.fixture
def first(tmp_path):
    """A server that tests may kill; whatever runs in its place is killed at the end."""
    running = start(tmp_path / "data", *SERVER_OPTIONS)
    yield running
    running.http.close()
    _kill(running)


def _kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()
    if server.process.stdout is not None:
        server.process.stdout.close()


def _again(server: Server) -> Server:
    """Start the next process on the same data and port."""
    return start(server.data_dir, *SERVER_OPTIONS, "--port", str(urlsplit(server.url).port))


@pytest.fixture
async def quiet(first: Server) -> dict[int, Stored]:
    """Undisturbed runs, by speech."""
    return {number: await quiet_run(first, speech(number)) for number in (0, 1, 5, 9)}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_killed_and_restarted_nothing_is_lost_or_doubled(first: Server, quiet, share: float) -> None:
    """Every client goes on over `kill -9`, its bytes and finals are those of a quiet run, and none comes twice."""
    clients = [name for name in CLIENTS if available(name)]
    speeches = dict(zip(clients, quiet, strict=False))
    links = {name: Link(first.url) for name in clients}
    async with asyncio.TaskGroup() as group:
        for link in links.values():
            await link.__aenter__()
        runs = {
            name: group.create_task(CLIENTS[name](links[name].url, speech(speeches[name]), PACE)) for name in clients
        }
        await _until_sent(links["async"], int(len(speech(speeches["async"])) * share))
        _kill(first)
        second = await asyncio.to_thread(_again, first)
    try:
        for name in clients:
            number = speeches[name]
            await asyncio.to_thread(check, second, links[name], await runs[name], speech(number), quiet[number])
    finally:
        for link in links.values():
            await link.__aexit__()
        second.http.close()
        _kill(second)


async def test_old_urls_are_accepted_soon_after_a_restart(first: Server) -> None:
    """A client that knocks while the next process starts gets in within three seconds of its being ready."""
    opened = [open_session(first) for _ in range(5)]
    audio = speech(0)
    for each in opened:
        async with connected(each) as socket:
            await socket.send(*pieces(audio, CHUNK))
            await socket.acked_up_to(len(audio))
            await socket.drop()
    _kill(first)
    second = await asyncio.to_thread(_again, first)
    try:
        since = time.monotonic()
        for each in opened:
            async with connected(each) as socket:
                assert time.monotonic() - since < ACCEPTED_WITHIN_S
                await socket.send(STOP)
                assert await socket.ended() == 1000
                assert stored(second, each.session_id).audio == audio
    finally:
        second.http.close()
        _kill(second)


async def test_finals_keep_their_ids_and_come_once(first: Server, quiet) -> None:
    """What was told before the crash is not told again, and what comes after goes on on the same clock."""
    audio = speech(0)
    opened = open_session(first)
    async with connected(opened) as socket:
        await socket.send(*pieces(audio, CHUNK))
        await socket.until(is_final)
        before = [final["id"] for final in socket.finals]
        _kill(first)
        await socket.ended()
    second = await asyncio.to_thread(_again, first)
    try:
        async with connected(opened) as socket:
            acked = socket.acked[-1][1] if socket.acked else 0
            await socket.send(*pieces(audio[acked:], CHUNK), STOP)
            assert await socket.ended() == 1000
        after = [final["id"] for final in socket.finals]
        assert not set(before) & set(after)
        kept = stored(second, opened.session_id)
        assert kept.finals == quiet[0].finals
    finally:
        second.http.close()
        _kill(second)


async def test_a_stop_survives_a_crash(first: Server, quiet) -> None:
    """A session that was stopped is finished by the next process, whether or not its client returns."""
    audio = speech(0)
    opened = open_session(first)
    async with connected(opened) as socket:
        await socket.send(*pieces(audio, CHUNK), STOP)
        await socket.until(lambda message: message["type"] == "stop_recording")
        _kill(first)
        await socket.ended()
    second = await asyncio.to_thread(_again, first)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while second.result(opened.session_id)["status"] != "done":
                await asyncio.sleep(0.1)
        kept = stored(second, opened.session_id)
        assert (kept.audio, kept.finals) == (audio, quiet[0].finals)
    finally:
        second.http.close()
        _kill(second)


async def test_killed_again_and_again(first: Server, quiet) -> None:
    """Three crashes and dropped sockets in one session leave it as if nothing had happened."""
    audio = speech(5)
    plans = ((Fault(kind=Kind.DEAF, at=20_000, lasts_s=0.3),), (), (Fault(kind=Kind.RESET, at=9_000),))
    server = first
    async with Link(first.url, plans) as link:
        run = asyncio.create_task(CLIENTS["async"](link.url, audio, PACE))
        for share in (0.2, 0.5, 0.8):
            await _until_sent(link, int(len(audio) * share))
            server.http.close()
            _kill(server)
            server = await asyncio.to_thread(_again, first)
        try:
            report = await run
            await asyncio.to_thread(check, server, link, report, audio, quiet[5])
        finally:
            server.http.close()
            _kill(server)


async def test_a_drained_process_hands_over(first: Server, quiet) -> None:
    """SIGTERM ends the process with 0 and its sockets with 1012; the clients go on with the next one, whole."""
    audio = speech(0)
    async with Link(first.url) as link:
        run = asyncio.create_task(CLIENTS["async"](link.url, audio, PACE))
        await _until_sent(link, len(audio) // 2)
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.process.wait, STOP_S) == 0
        second = await asyncio.to_thread(_again, first)
        try:
            report = await run
            await asyncio.to_thread(check, second, link, report, audio, quiet[0])
        finally:
            second.http.close()
            _kill(second)


async def _until_sent(link: Link, size: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(socket.audio) for socket in link.sockets) < size:
            await asyncio.sleep(0.01)
