"""The frames that are made beforehand are what any WebSocket server reads."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from vivavoce.bench.lags import Pace
from vivavoce.bench.load import Pacing, Run, send  # the loop that keeps the pace
from vivavoce.bench.socket import TEXT, Socket, frame


@given(st.sampled_from([0, 1, 125, 126, 640, 3200, 65_535, 65_536]), st.booleans())
def test_a_frame_is_read_as_it_was_written(size, is_text):
    """Every way to write a length is understood, and the mask of zeros leaves the payload alone."""
    payload = b"x" * size
    reader = Protocol(side=Side.SERVER, state=State.OPEN, max_size=None)
    reader.receive_data(frame(payload, TEXT) if is_text else frame(payload))
    (event,) = reader.events_received()
    assert isinstance(event, Frame)
    assert (event.opcode, bytes(event.data), event.fin) == (Opcode.TEXT if is_text else Opcode.BINARY, payload, True)


async def test_a_socket_brings_every_message_with_its_moment_and_the_close_code():
    """What a server says arrives whole and in order, fragments included, and so does how it closed."""
    heard: list[bytes] = []
    moments: list[float] = []

    async def answer(connection):
        assert await connection.recv() == b"abc"
        await connection.send("one")
        await connection.send(["tw", "o"])
        await connection.close(4409)

    def take(at: float, text: bytes) -> None:
        moments.append(at)
        heard.append(text)

    async with serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        socket = await Socket.connect(f"ws://127.0.0.1:{port}/live?token=1", take)
        socket.write(frame(b"abc"))
        await asyncio.wait_for(socket.closed.wait(), 10)
    assert heard == [b"one", b"two"]
    assert all(earlier <= later for earlier, later in pairwise(moments))
    assert socket.close_code == 4409


async def test_a_refused_upgrade_is_an_error():
    """Who is turned away knows it at once."""
    async with serve(lambda _: None, "127.0.0.1", 0, process_request=lambda c, _: c.respond(503, "full")) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InvalidStatus):
            await Socket.connect(f"ws://127.0.0.1:{port}/", lambda *_: None)


class _Recorder:
    """Stands for a socket and notes what is written."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)


async def test_what_is_overdue_is_sent_at_once_and_in_order():
    """A pace that began in the past is caught up with without any waiting; how late each chunk was is known."""
    recorder, run = _Recorder(), Run()
    began = time.monotonic()
    await send(recorder, Pace(start=began - 10, chunk_s=0.1), [b"1", b"2", b"3"], run)
    assert recorder.sent == [b"1", b"2", b"3"]
    assert all(late_s >= 10 - 0.1 * chunk for chunk, late_s in enumerate(run.late_s))


def test_a_chunk_has_the_size_of_its_time():
    """100 ms at 16 kHz are 3200 bytes."""
    assert Pacing().chunk_bytes == 3200
