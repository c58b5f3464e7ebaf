"""What happens to the process and the machine: paused, told to stop, out of disk, locked out of its store, set back."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from faults.clients import CLIENTS, SDK_WARNINGS, Pace
from faults.oracle import check, quiet_run
from faults.proxy import Link
from faults.run import SERVER_OPTIONS
from faults.schedules import BYTES_PER_S, speech
from live import PATIENCE_S, connected, open_session, pieces
from server import STOP_S, Server, serving

pytestmark = SDK_WARNINGS

CHUNK = 3200
PACE = Pace(chunk=CHUNK, chunks_per_s=50)
RETRYABLE = {1006, 1011, 1012}
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


async def _session(server: Server, audio: bytes, happening, pace: Pace = PACE) -> None:
    """Run a session, let `happening` take place in the middle, and compare everything with an undisturbed run."""
    quiet = await quiet_run(server, audio)
    async with Link(server.url) as link, asyncio.TaskGroup() as group:
        disturbed = group.create_task(_in_the_middle(link, len(audio), happening))
        report = await CLIENTS["async"](link.url, audio, pace)
        await disturbed
        await asyncio.to_thread(check, server, link, report, audio, quiet)


async def _in_the_middle(link: Link, size: int, happening) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(socket.audio) for socket in link.sockets) < size / 3:
            await asyncio.sleep(0.01)
    await happening()


async def test_a_paused_process_goes_on(tmp_path) -> None:
    """SIGSTOP for two seconds and SIGCONT lose and double nothing."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:

        async def pause() -> None:
            server.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2)
            server.process.send_signal(signal.SIGCONT)

        await _session(server, speech(0), pause)


async def test_a_store_locked_for_a_while_only_delays(tmp_path) -> None:
    """While another process holds the database nothing is acknowledged; afterwards everything is, once."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:

        async def lock() -> None:
            with _locked(server.data_dir):
                await asyncio.sleep(2.5)

        await _session(server, speech(0), lock)


async def test_nothing_is_acknowledged_that_a_locked_store_does_not_hold(tmp_path) -> None:
    """The acknowledgment waits for the store, and the socket meanwhile answers pings and takes audio."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:
        async with connected(open_session(server)) as socket:
            await socket.send(bytes(CHUNK))
            await socket.acked_up_to(CHUNK)
            with _locked(server.data_dir):
                await socket.send(*[os.urandom(CHUNK)] * 100)
                await socket.ping(PATIENCE_S)
                assert server.http.get("/openapi.json").status_code == 200
                assert max(end for _, end in socket.acked) == CHUNK
            await socket.acked_up_to(101 * CHUNK)


@pytest.mark.slow
async def test_a_store_locked_for_long_closes_retryably_and_goes_on_afterwards(tmp_path) -> None:
    """After ten seconds without the store the client is told, its socket closes retryably, and all goes on later."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:

        async def lock() -> None:
            with _locked(server.data_dir):
                await asyncio.sleep(25)

        await _session(server, speech(0), lock, Pace(chunk=CHUNK, chunks_per_s=20))


@pytest.mark.slow
async def test_a_locked_store_is_told_within_its_patience(tmp_path) -> None:
    """A live client hears an error and a retryable close, a little over ten seconds after its audio could be kept."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:
        opened = open_session(server)
        async with connected(opened) as socket:
            await socket.send(bytes(CHUNK))
            await socket.acked_up_to(CHUNK)
            with _locked(server.data_dir):
                since = time.monotonic()
                await socket.send(bytes(CHUNK))
                code = await socket.ended()
                waited = time.monotonic() - since
        assert code in RETRYABLE
        assert "error" in socket.types
        assert max(end for _, end in socket.acked) == CHUNK
        assert waited < 30


@pytest.mark.slow
async def test_a_full_disk_costs_nothing_but_time(tmp_path) -> None:
    """With the disk full no audio is acknowledged that is not kept; with room again the session goes on, whole."""
    with _small_disk(tmp_path / "disk", 16 << 20) as disk, serving(disk / "data", *SERVER_OPTIONS) as server:
        filler = disk / "filler"

        async def fill() -> None:
            _fill(filler)
            await asyncio.sleep(4)
            filler.unlink()

        await _session(server, speech(0) + speech(1), fill)


async def test_a_full_disk_is_told_to_the_client(tmp_path) -> None:
    """A live client gets an error and a retryable close; the process lives on and answers."""
    with _small_disk(tmp_path / "disk", 16 << 20) as disk, serving(disk / "data", *SERVER_OPTIONS) as server:
        opened = open_session(server)
        async with connected(opened) as socket:
            await socket.send(bytes(CHUNK))
            await socket.acked_up_to(CHUNK)
            filler = disk / "filler"
            _fill(filler)
            with suppress(Exception):
                for _ in range(400):
                    await socket.send(os.urandom(CHUNK))
            assert await socket.ended() in RETRYABLE
            assert "error" in socket.types
        kept = max(end for _, end in socket.acked)
        assert server.http.get("/health/live").status_code in {200, 404}
        filler.unlink()
        async with connected(opened) as again:
            await again.send(os.urandom(CHUNK), '{"type": "stop_recording"}')
            assert await again.ended() == 1000
        assert len(server.file(opened.session_id)) >= kept


@pytest.mark.slow
@pytest.mark.parametrize("jump", ["-3600s", "+3600s"])
@pytest.mark.skipif(not FAKETIME.exists(), reason="faketime is not installed: `make clients`")
async def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, jump: str) -> None:
    """Sessions live on a clock that only goes forward: an hour's jump of the wall clock ends and cuts nothing."""
    offset = tmp_path / "offset"
    offset.write_text("+0s")
    for name, value in {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with serving(tmp_path / "data", *SERVER_OPTIONS, "--idle-timeout", "30", "--grace", "30") as server:
        for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE"):
            monkeypatch.delenv(name)

        async def set_clock() -> None:
            offset.write_text(jump)
            await asyncio.sleep(0.5)

        await _session(server, speech(0), set_clock)
        created = server.get("/v2/live")["items"][0]["created_at"]
        response = server.http.post("/v2/live", json={})
        shift = _epoch_s(response.json()["created_at"]) - _epoch_s(created)
        assert abs(shift - int(jump[:-1])) < 120, "the server's clock did not jump"


def _epoch_s(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def test_sigterm_closes_with_a_code_that_clients_come_back_for(tmp_path) -> None:
    """A server that is told to stop ends what it has or lets clients return; none is left without a close frame."""
    with serving(tmp_path / "data", *SERVER_OPTIONS) as server:
        async with connected(open_session(server)) as socket:
            await socket.send(*pieces(speech(0), CHUNK))
            await socket.acked_up_to(len(speech(0)))
            server.process.send_signal(signal.SIGTERM)
            assert await socket.ended() in {1000, 1012}
        assert server.process.wait(STOP_S) == 0


async def test_a_server_that_stops_takes_no_new_sessions(tmp_path) -> None:
    """While somebody speaks, SIGTERM leaves the listener open: the session goes on, and new ones get a 503."""
    with serving(tmp_path / "data", *SERVER_OPTIONS, "--drain-timeout", "60") as server:
        async with connected(open_session(server)) as socket:
            done = asyncio.Event()
            speaking = asyncio.create_task(socket.speak(speech(0), at=BYTES_PER_S // 2, came=done.is_set))
            await socket.until(lambda message: message["type"] == "speech_start")
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                while (refused := await asyncio.to_thread(_create, server)).status_code == 201:
                    await asyncio.sleep(0.05)
            assert (refused.status_code, refused.json()["statusCode"]) == (503, 503)
            assert "retry-after" in refused.headers
            assert socket.code is None
            done.set()
            await speaking
            await socket.send(bytes(3 * BYTES_PER_S))
            assert await socket.ended() == 1012
        assert server.process.wait(STOP_S) == 0


def _create(server: Server) -> httpx.Response:
    return server.http.post("/v2/live", json={})


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the database exclusively, as another program can."""
    with closing(sqlite3.connect(data_dir / "vivavoce.sqlite3", isolation_level=None, timeout=PATIENCE_S)) as database:
        database.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            database.execute("ROLLBACK")


def _fill(path: Path) -> None:
    """Write until the disk is full to the last page."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@contextmanager
def _small_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mount a file system in memory of `size` bytes; skips where that is not allowed."""
    directory.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)
