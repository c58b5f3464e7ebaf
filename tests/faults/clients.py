"""Clients that come back after a dropped socket: the official SDKs, unmodified, and one that resumes as Pipecat does.

Each sends a recording through a link, at `Pace`, waits until all of it is acknowledged, stops, and stays until the
session is over. None of them looks at the link: what they lose or double would be lost or doubled for any user.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gladiaio_sdk import GladiaClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from live import MAX_FRAME_BYTES, STOP, base64_chunk, is_ack, is_final, pieces

Json = dict[str, Any]

TESTS = Path(__file__).parent.parent
JS_SDK = TESTS / "conformance" / "js" / "node_modules" / "@gladiaio" / "sdk"
STOP_AGAIN_S = 2.0
RETRY_S = 0.1

LIMIT_S = 150.0
"""How long a client tries; also for a handshake, so that a server may be restarted meanwhile."""


SDK_WARNINGS = pytest.mark.filterwarnings(
    "ignore:connect.. must be used as a context manager:DeprecationWarning",
    "ignore:unclosed:ResourceWarning",
)
"""What the Python SDK does and pytest would take for our mistake: it never closes its HTTP client, for one."""


class GaveUp(AssertionError):
    """A client ended its session in another way than after a stop with code 1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Chunks of `chunk` bytes, `chunks_per_s` of them a second; `config` is the session's.

    After a resume in digital silence the server may count a little less than was sent: with `patience_s` the recording
    is stopped so long after the last acknowledgment all the same.
    """

    chunk: int
    chunks_per_s: float
    config: Json = field(default_factory=dict)
    patience_s: float = 120.0

    @property
    def request(self) -> Json:
        """The body of the request for the session."""
        flags = {"receive_acknowledgments": True, **self.config.get("messages_config", {})}
        return {**self.config, "messages_config": flags}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a client saw: `finals` are the `data` of final transcripts in the order of their arrival."""

    session_id: str
    finals: list[Json]
    code: int


Client = Callable[[str, bytes, Pace], Awaitable[Report]]


async def async_sdk(url: str, audio: bytes, pace: Pace) -> Report:
    """Run a session with the Python SDK's asynchronous client."""
    session = GladiaClient(api_url=url, api_key="none", ws_timeout=LIMIT_S).live_v2_async().start_session(pace.request)
    heard = _Heard()
    ended = asyncio.Event()
    session.on("message", lambda message: heard.take(json.loads(message.to_json())))
    session.on("ended", lambda message: (heard.end(message.code), ended.set()))
    session.on("error", heard.problems.append)
    session_id = await session.get_session_id()
    for chunk in pieces(audio, pace.chunk):
        # Between two sockets the SDK buffers the chunk and then complains that it has no socket.
        with suppress(RuntimeError):
            session.send_audio(chunk)
        await asyncio.sleep(1 / pace.chunks_per_s)
    while not ended.is_set():
        # A stop that is lost with its socket is not repeated by the SDK.
        settled = heard.settled(len(audio), pace.patience_s)
        if settled and session.status == "connected":
            session.stop_recording()
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), STOP_AGAIN_S if settled else 0.05)
    return heard.report(session_id)


async def sync_sdk(url: str, audio: bytes, pace: Pace) -> Report:
    """Run a session with the Python SDK's blocking client, in a thread."""
    return await asyncio.to_thread(_run_sync_sdk, url, audio, pace)


def _run_sync_sdk(url: str, audio: bytes, pace: Pace) -> Report:
    session = GladiaClient(api_url=url, api_key="none", ws_timeout=LIMIT_S).live_v2().start_session(pace.request)
    heard = _Heard()
    ended, connected = threading.Event(), threading.Event()
    # A chunk handed over in the very moment the socket opens is sent twice by this SDK, so none is.
    session.on("connecting", lambda _: connected.clear())
    session.on("connected", lambda _: connected.set())
    session.on("message", lambda message: heard.take(json.loads(message.to_json())))
    session.on("ended", lambda message: (heard.end(message.code), ended.set(), connected.set()))
    session.on("error", heard.problems.append)
    give_up = time.monotonic() + LIMIT_S
    for chunk in pieces(audio, pace.chunk):
        connected.wait(give_up - time.monotonic())
        session.send_audio(chunk)
        time.sleep(1 / pace.chunks_per_s)
    while not ended.is_set() and time.monotonic() < give_up:
        settled = heard.settled(len(audio), pace.patience_s)
        if settled and session.status == "connected":
            session.stop_recording()
        ended.wait(STOP_AGAIN_S if settled else 0.05)
    assert session.session_id
    return heard.report(session.session_id)


async def js_sdk(url: str, audio: bytes, pace: Pace) -> Report:
    """Run a session with the JavaScript SDK, in a process of its own."""
    node = shutil.which("node")
    assert node
    with tempfile.NamedTemporaryFile() as file:
        file.write(audio)
        file.flush()
        order = {"sdk": str(JS_SDK), "url": url, "audio": file.name, "request": pace.request}
        order |= {"chunk": pace.chunk, "everyMs": 1000 / pace.chunks_per_s, "timeoutMs": LIMIT_S * 1000}
        process = await asyncio.create_subprocess_exec(
            node, str(TESTS / "faults" / "client.mjs"), json.dumps(order), stdout=asyncio.subprocess.PIPE
        )
        try:
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, "the JavaScript client failed"
    seen = json.loads(out)
    heard = _Heard()
    for message in seen["messages"]:
        heard.take(message)
    heard.end(seen["code"])
    return heard.report(seen["id"])


async def pipecat(url: str, audio: bytes, pace: Pace) -> Report:
    """Run a session as Pipecat's service does: base64 frames, and after a drop all that is left in one frame.

    Its counter starts at 0 again with each socket, so that the first acknowledgment there empties its buffer whatever
    is in it. Sent audio waits for that acknowledgment here, or this client would lose some of its own at the next drop.
    """
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LIMIT_S) as http:
        opened = (await http.post("/v2/live", json=pace.request)).raise_for_status().json()
    client = _Pipecat(audio, pace)
    async with asyncio.TaskGroup() as group:
        microphone = group.create_task(client.speak())
        while client.heard.code is None:
            try:
                async with connect(opened["url"], proxy=None, max_size=MAX_FRAME_BYTES) as socket:
                    await client.live(socket)
            except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError):
                await asyncio.sleep(RETRY_S)
        microphone.cancel()
    return client.heard.report(opened["id"])


class _Pipecat:
    def __init__(self, audio: bytes, pace: Pace) -> None:
        self.heard = _Heard()
        self._audio, self._pace = audio, pace
        self._buffer = b""
        self._spoken = self._counter = 0
        self._socket: ClientConnection | None = None

    async def speak(self) -> None:
        for chunk in pieces(self._audio, self._pace.chunk):
            self._buffer += chunk
            self._spoken += len(chunk)
            if self._socket is not None:
                with suppress(ConnectionClosed):
                    await self._socket.send(base64_chunk(chunk))
            await asyncio.sleep(1 / self._pace.chunks_per_s)

    async def live(self, socket: ClientConnection) -> None:
        held = self._spoken
        if self._buffer:
            self._counter = 0
            await socket.send(base64_chunk(self._buffer))
        else:
            self._counter, self._socket = held, socket
        try:
            await self._listen(socket, held)
        finally:
            self._socket = None

    async def _listen(self, socket: ClientConnection, held: int) -> None:
        stopped = False
        while True:
            try:
                message = json.loads(await socket.recv())
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == 1000:
                    self.heard.end(1000)
                return
            self.heard.take(message)
            if is_ack(message):
                self._trim(message["data"]["byte_range"][1])
            if self._socket is None and self.heard.acked >= held:
                await self._catch_up(socket, held)
            if not stopped and self.heard.acked >= len(self._audio):
                await socket.send(STOP)
                stopped = True

    async def _catch_up(self, socket: ClientConnection, held: int) -> None:
        """Send what was spoken while the resent frame was on its way, and go on live."""
        self._buffer = self._audio[held : self._spoken]
        self._counter = held
        self._socket = socket
        if self._buffer:
            await socket.send(base64_chunk(self._buffer))

    def _trim(self, end: int) -> None:
        self._buffer = self._buffer[end - self._counter :] if end - self._counter < len(self._buffer) else b""
        self._counter = end


@dataclass
class _Heard:
    finals: list[Json] = field(default_factory=list)
    problems: list[Exception] = field(default_factory=list)
    acked: int = 0
    acked_at: float = field(default_factory=time.monotonic)
    code: int | None = None

    def take(self, message: Json) -> None:
        if is_final(message):
            self.finals.append(message["data"])
        elif is_ack(message):
            self.acked = max(self.acked, message["data"]["byte_range"][1])
            self.acked_at = time.monotonic()

    def settled(self, size: int, patience_s: float) -> bool:
        """Whether all of `size` bytes is acknowledged, or nothing has been for so long that nothing more will be."""
        return self.acked >= size or time.monotonic() > self.acked_at + patience_s

    def end(self, code: int) -> None:
        self.code = code

    def report(self, session_id: str) -> Report:
        if self.code != 1000:
            raise GaveUp(f"the client was closed with {self.code} after {self.problems[-1:]}")
        return Report(session_id=session_id, finals=self.finals, code=self.code)


CLIENTS: dict[str, Client] = {"async": async_sdk, "sync": sync_sdk, "pipecat": pipecat, "js": js_sdk}
"""All of them by name."""


def available(name: str) -> bool:
    """Whether this machine can run a client."""
    return name != "js" or (JS_SDK.exists() and shutil.which("node") is not None)
