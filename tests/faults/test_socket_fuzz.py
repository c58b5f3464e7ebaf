"""The socket fuzzed: whatever frames come in whatever order, there is an answer or a documented close, and no harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from live import EVERYTHING, MAX_FRAME_BYTES, STOP, base64_chunk, open_session, transcribe
from server import Server, serving
from vivavoce.wire.live import CloseCode

OWN_CODES = {code.value for code in CloseCode} | {1002, 1003, 1007, 1009, 1011}
"""Those of the protocol, and those with which a WebSocket library ends a connection that breaks its rules."""

TYPES = {
    "audio_chunk", "stop_recording", "speech_start", "speech_end", "transcript", "start_recording", "end_recording",
    "post_transcript", "post_final_transcript", "end_session", "error",
}  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
near_misses = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["audio_chunk", "stop_recording", "x", 1, None]), "data": json_values}
)
frames = st.one_of(
    st.binary(max_size=300).map(lambda data: ("send", data)),
    st.text(max_size=60).map(lambda text: ("send", text)),
    json_values.map(lambda value: ("send", json.dumps(value))),
    near_misses.map(lambda value: ("send", json.dumps(value))),
    st.binary(max_size=200).map(lambda data: ("send", base64_chunk(data))),
    st.text(max_size=40).map(lambda text: ("send", json.dumps({"type": "audio_chunk", "data": {"chunk": text}}))),
    st.sampled_from([STOP, "", "{}", "[", b""]).map(lambda frame: ("send", frame)),
    st.binary(max_size=125).map(lambda data: ("ping", data)),
    st.binary(min_size=1, max_size=40).map(lambda data: ("raw", data)),
    st.sampled_from([1000, 1001, 1003, 1007, 1008, 1011, 3000, 4000, 4403, 4999]).map(lambda code: ("close", code)),
    st.just(("drop", None)),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Iterator[Server]:
    """A server that has room for the sessions of all examples and does not keep them long."""
    with serving(tmp_path_factory.mktemp("fuzz") / "data", "--max-sessions", "10000", "--grace", "2") as running:
        yield running


@pytest.fixture(scope="module")
def event_loop_of_its_own():
    """One event loop for all examples of a test: they are not coroutines to Hypothesis."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("examples", [40, pytest.param(1500, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_any_frames_get_an_answer_or_a_documented_close(
    fuzzed: Server, event_loop_of_its_own: asyncio.Runner, examples: int
) -> None:
    """Accepted, refused or closed with a documented code; the process lives and the next session works."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(sockets=st.lists(st.lists(frames, max_size=8), min_size=1, max_size=3))
    def fuzz(sockets: list[list[tuple[str, Any]]]) -> None:
        event_loop_of_its_own.run(_play(fuzzed, sockets))

    fuzz()
    heard = event_loop_of_its_own.run(transcribe(fuzzed, [bytes(3200)], messages_config=EVERYTHING))
    assert heard.acked == [(0, 3200)]
    assert fuzzed.process.poll() is None


async def _play(server: Server, sockets: list[list[tuple[str, Any]]]) -> None:
    """Open one socket of a session after the other and do to each what was drawn."""
    opened = open_session(server, encoding="wav/pcm")
    for actions in sockets:
        async with connect(opened.url, proxy=None, max_size=MAX_FRAME_BYTES) as socket:
            reader = asyncio.create_task(_read(socket))
            # This client itself refuses a second ping with the same bytes, and what follows the stream's end.
            with suppress(ConnectionClosed, ConcurrencyError, RuntimeError):
                for what, value in actions:
                    await _act(socket, what, value)
                if any(what == "raw" for what, _ in actions):
                    # Perhaps the beginning of a frame, the rest of which the server may wait for.
                    socket.transport.abort()
                # An answer to this shows that all before it was read.
                async with asyncio.timeout(60):
                    await (await socket.ping())
            await socket.close(1001)
            await reader
            assert socket.protocol.close_rcvd is None or socket.protocol.close_rcvd.code in OWN_CODES | _sent(actions)


async def _act(socket: ClientConnection, what: str, value: Any) -> None:
    match what:
        case "send":
            await socket.send(value)
        case "ping":
            await socket.ping(value)
        case "raw":
            socket.transport.write(value)
        case "close":
            await socket.close(value)
        case "drop":
            socket.transport.abort()


def _sent(actions: list[tuple[str, Any]]) -> set[int]:
    """Give the codes that the client closed with, which come back to it."""
    return {1001} | {value for what, value in actions if what == "close"}


async def _read(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        while True:
            message = json.loads(await socket.recv())
            assert message["type"] in TYPES
            assert isinstance(message["session_id"], str)
            if message["type"] in {"audio_chunk", "stop_recording"}:
                assert isinstance(message["acknowledged"], bool)
                assert (message["error"] is None) == message["acknowledged"]
