"""AudioSocket's listener: where it may listen, and what it does with those who only connect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from vivavoce.bridges import audiosocket
from vivavoce.bridges.audiosocket import AudioSocketBridge
from vivavoce.bridges.calls import Calls
from vivavoce.config import Settings, load_settings
from vivavoce.errors import SetupError
from vivavoce.reception.access import Access, new_key
from vivavoce.stores.sql import SqlStore
from vivavoce.wire.audiosocket import silence_frame

NAMED = b"\x01\x00\x10" + bytes(16)
PATIENCE_S = 60.0


@asynccontextmanager
async def bridged(directory: Path, *, with_key: bool = False, **fields: Any) -> AsyncIterator[AudioSocketBridge]:
    """Give an open bridge that can admit calls, but has nothing to answer them with."""
    settings = Settings(data_dir=directory, **fields)
    store = await SqlStore.open(settings.store_url)
    if with_key:
        await store.add_key(new_key("calls")[0])
    bridge = AudioSocketBridge(Calls(None, Access(store, settings), settings), settings)  # type: ignore[arg-type] - as said
    try:
        await bridge.open()
        yield bridge
    finally:
        await bridge.close()
        await store.close()


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def farewell(port: int, sent: bytes) -> bytes:
    """Send bytes and give all that comes back until the server closes the connection."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


async def test_nothing_listens_until_an_address_is_set(tmp_path):
    """The door is shut by default."""
    async with bridged(tmp_path) as bridge:
        assert bridge._server is None
        assert bridge.sockets == {}


async def test_off_loopback_an_allow_list_is_needed(tmp_path):
    """One line says which setting is missing."""
    with pytest.raises(SetupError, match="--bridge-allow"):
        async with bridged(tmp_path, audiosocket_listen="0.0.0.0:0"):
            pass
    async with bridged(tmp_path, audiosocket_listen="0.0.0.0:0", bridge_allow="10.0.0.0/8"):
        pass


async def test_a_taken_port_is_one_clear_line(tmp_path):
    """It names the setting and the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SetupError, match=f"--audiosocket-listen.*{address}"):
            async with bridged(tmp_path, audiosocket_listen=address):
                pass


@pytest.mark.parametrize(
    "options", ["tongue=en", "endpointing=soon", "endpointing=99", "language=klingon", "metadata={"]
)
async def test_options_that_no_call_could_have_stop_the_start(tmp_path, options):
    """Rather than every call."""
    with pytest.raises(SetupError, match="--bridge-parameters"):
        async with bridged(tmp_path, bridge_parameters=options):
            pass


@pytest.mark.parametrize("address", ["9092", "127.0.0.1", "127.0.0.1:70000", "a b:1"])
def test_an_address_needs_a_host_and_a_port(address):
    """Settings say so before anything starts."""
    with pytest.raises(SetupError, match="--audiosocket-listen"):
        load_settings(audiosocket_listen=address)


@pytest.mark.parametrize("sent", [b"", NAMED[:10], NAMED])
async def test_half_open_connections_are_let_go(tmp_path, monkeypatch, sent):
    """Those that do not say in time which call they bring, and those that never send its audio."""
    monkeypatch.setattr(audiosocket, "FIRST_MESSAGE_S", 0.1)
    port = free_port()
    async with bridged(tmp_path, audiosocket_listen=f"127.0.0.1:{port}", idle_timeout=0.1):
        assert await farewell(port, sent) == b""


@pytest.mark.parametrize(("sent", "drops"), [(b"", NAMED[:-1]), (NAMED, b"\x03\x00\x011" * 5)], ids=["name", "digits"])
async def test_a_connection_that_drips_is_let_go_as_well(tmp_path, monkeypatch, sent, drops):
    """The name is in time, and so is the first audio; a byte now and then does not put that off."""
    monkeypatch.setattr(audiosocket, "FIRST_MESSAGE_S", 0.3)
    port = free_port()
    async with bridged(tmp_path, audiosocket_listen=f"127.0.0.1:{port}", idle_timeout=0.3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        over = asyncio.create_task(reader.read())
        for drop in drops:
            writer.write(bytes([drop]))
            await asyncio.wait({over}, timeout=0.1)
            if over.done():
                break
        writer.close()
        assert over.done()
        with suppress(ConnectionResetError):
            await over


async def test_a_quiet_peer_is_kept_from_giving_up(tmp_path, monkeypatch):
    """Once it has named its call, it gets silence until it is given up itself; before, nothing."""
    monkeypatch.setattr(audiosocket, "QUIET_S", 0.05)
    monkeypatch.setattr(audiosocket, "FIRST_MESSAGE_S", 0.2)
    port = free_port()
    async with bridged(tmp_path, audiosocket_listen=f"127.0.0.1:{port}", idle_timeout=0.3):
        assert await farewell(port, b"") == b""
        kept = await farewell(port, NAMED)
    assert kept.startswith(silence_frame(8000))
    assert not kept.replace(silence_frame(8000), b"")


async def test_strangers_are_told_nothing(tmp_path):
    """Once there is a key, this machine's own calls need to be in the allow-list too."""
    port = free_port()
    async with bridged(tmp_path, with_key=True, audiosocket_listen=f"127.0.0.1:{port}"):
        assert await farewell(port, NAMED + b"\xff") == b""


async def test_connections_are_bounded(tmp_path):
    """A flood holds as many as the server may have, and the next one is dropped at once."""
    port = free_port()
    async with bridged(tmp_path, audiosocket_listen=f"127.0.0.1:{port}", max_connections=1) as bridge:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            while not bridge._open:
                await asyncio.sleep(0.01)
        with suppress(ConnectionResetError):
            assert await farewell(port, NAMED) == b""
        assert len(bridge._open) == 1
        await bridge.close()
        assert await reader.read() == b""
        writer.close()
