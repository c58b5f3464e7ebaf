"""A live session on a bare WebSocket: every frame under the test's control, every message kept."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

import laws
from server import Server

PATIENCE_S = 60.0
MAX_FRAME_BYTES = 1 << 20
"""The largest frame that official clients take; what is larger fails the test as it would fail them."""

Json = dict[str, Any]

FLAGS = (
    "receive_partial_transcripts",
    "receive_final_transcripts",
    "receive_speech_events",
    "receive_pre_processing_events",
    "receive_realtime_processing_events",
    "receive_post_processing_events",
    "receive_acknowledgments",
    "receive_errors",
    "receive_lifecycle_events",
)
EVERYTHING = dict.fromkeys(FLAGS, True)
STOP = '{"type": "stop_recording"}'

CRUMB_BYTES = 32
CRUMB_EVERY_S = 0.05

RECEIPT_BYTES = 8
"""The length of what pings carry that ask whether messages arrived; those that keep the socket alive have another."""


def base64_chunk(data: bytes) -> str:
    """Give audio as the text frame that some clients send."""
    return json.dumps({"type": "audio_chunk", "data": {"chunk": b64encode(data).decode()}})


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut bytes every `size`."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def mid_speech(data: bytes, at: int, came: Callable[[], object], chunk: int = 3200) -> Iterator[tuple[bytes, float]]:
    """Give speech to send, and for how long to wait after each piece: up to byte `at`, amid an utterance, then hardly
    anything until something `came`, then the rest.

    Partials are made of what the rest leaves of a machine, and not at all once there is the final. The crumbs keep the
    utterance open for as long as that takes, where a socket that sends nothing would close it after a second.
    """
    yield from ((piece, 0.0) for piece in pieces(data[:at], chunk))
    deadline = time.monotonic() + PATIENCE_S
    while not came():
        assert time.monotonic() < deadline, f"nothing came for what was said up to byte {at}"
        yield data[at : at + CRUMB_BYTES], CRUMB_EVERY_S
        at += CRUMB_BYTES
    yield from ((piece, 0.0) for piece in pieces(data[at:], chunk))


def once(messages: Iterable[Json]) -> list[Json]:
    """Give the messages of several sockets without repeats to the letter.

    After a drop the server repeats what it does not know to have arrived: that of one round trip.
    """
    return [json.loads(text) for text in dict.fromkeys(json.dumps(message) for message in messages)]


def is_final(message: Json) -> bool:
    """Tell whether a message is a final transcript."""
    return message["type"] == "transcript" and message["data"]["is_final"] is True


def is_partial(message: Json) -> bool:
    """Tell whether a message is a transcript that is not final."""
    return message["type"] == "transcript" and message["data"]["is_final"] is False


def is_ack(message: Json) -> bool:
    """Tell whether a message acknowledges audio."""
    return message["type"] == "audio_chunk" and message["acknowledged"] is True


def is_durable(message: Json) -> bool:
    """Tell whether a message is one that the server repeats until it knows that it arrived."""
    passing = {"audio_chunk", "turn_end_likely", "turn_continued"}
    return message["type"] not in passing and (message["type"] != "transcript" or is_final(message))


@dataclass
class Heard:
    """What one or more sockets of a session brought."""

    session_id: str
    messages: list[Json] = field(default_factory=list)
    code: int | None = None

    @property
    def types(self) -> list[str]:
        """The messages' types, in order."""
        return [message["type"] for message in self.messages]

    @property
    def finals(self) -> list[Json]:
        """The finals' `data`, in order."""
        return [message["data"] for message in self.messages if is_final(message)]

    @property
    def partials(self) -> list[Json]:
        """The partials' `data`, in order."""
        return [message["data"] for message in self.messages if is_partial(message)]

    @property
    def durable(self) -> list[Json]:
        """The messages that the server repeats until it knows that they arrived, in order."""
        return [message for message in self.messages if is_durable(message)]

    @property
    def transcripts(self) -> list[Json]:
        """The `data` of partials and finals, in order."""
        return [message["data"] for message in self.messages if message["type"] == "transcript"]

    @property
    def utterances(self) -> list[Json]:
        """The finals' utterances, in order."""
        return [final["utterance"] for final in self.finals]

    @property
    def words(self) -> list[Json]:
        """The words of all finals, in order."""
        return [word for utterance in self.utterances for word in utterance["words"]]

    @property
    def acked(self) -> list[tuple[int, int]]:
        """The byte ranges of positive acknowledgments, in order."""
        return [tuple(message["data"]["byte_range"]) for message in self.messages if is_ack(message)]

    def of(self, kind: str) -> list[Json]:
        """Give the messages of one type."""
        return [message for message in self.messages if message["type"] == kind]

    def text(self, channel: int = 0) -> str:
        """Give what was said on one channel."""
        said = [utterance["text"] for utterance in self.utterances if utterance["channel"] == channel]
        return "".join(said).strip()


class Socket(Heard):
    """One socket of a session; made by `connected`."""

    def __init__(self, session_id: str, connection: ClientConnection) -> None:
        super().__init__(session_id)
        self.frames: list[str] = []
        self.answers = True
        """Whether pings and a close are answered."""
        self._connection = connection
        self._came = self._receipted = 0
        self._parse, connection.protocol.recv_frame = connection.protocol.recv_frame, self._on_frame
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def send(self, *frames: bytes | str | Iterable[bytes]) -> None:
        """Send frames: bytes as binary ones, text as it is, several bytes in a list as one frame in fragments."""
        for frame in frames:
            await self._connection.send(frame)

    async def ping(self, within_s: float) -> None:
        """Ping the server and wait for its answer."""
        async with asyncio.timeout(within_s):
            await (await self._connection.ping())

    async def receipted(self) -> None:
        """Wait until the server knows that all messages so far have arrived."""
        durable = [i for i, message in enumerate(self.messages) if is_durable(message)]
        async with asyncio.timeout(PATIENCE_S):
            while durable and self._receipted <= durable[-1]:
                self._news.clear()
                await self._news.wait()
        await self.ping(PATIENCE_S)

    async def play(self, data: bytes, bytes_per_s: float, speed: float, chunk: int = 3200) -> None:
        """Send audio as a microphone does, at `speed` times real time."""
        started = time.monotonic()
        for at in range(0, len(data), chunk):
            await asyncio.sleep(started + at / bytes_per_s / speed - time.monotonic())
            await self.send(data[at : at + chunk])

    async def speak(self, data: bytes, at: int, came: Callable[[], object] | None = None) -> None:
        """Send speech, and wait amid the utterance at byte `at` until something `came`, a partial unless it is said."""
        for piece, pause_s in mid_speech(data, at, came or (lambda: self.partials)):
            await self.send(piece)
            await asyncio.sleep(pause_s)

    async def until(self, wanted: Callable[[Json], bool], within_s: float = PATIENCE_S) -> Json:
        """Give the first message, of all so far and to come, that is wanted."""
        deadline, seen = time.monotonic() + within_s, 0
        while True:
            for message in self.messages[seen:]:
                if wanted(message):
                    return message
            seen = len(self.messages)
            assert self.code is None, f"closed with {self.code} after {self.types[-5:]}"
            self._news.clear()
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._news.wait()

    async def acked_up_to(self, size: int) -> None:
        """Wait until the server holds the session's first `size` bytes."""
        await self.until(lambda message: is_ack(message) and message["data"]["byte_range"][1] >= size)

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Wait until the server closes the socket; give its code."""
        async with asyncio.timeout(within_s):
            await asyncio.shield(self._reader)
        assert self.code is not None
        return self.code

    async def close(self, code: int) -> None:
        """Close the socket from the client's side."""
        await self._connection.close(code)
        await self.ended()

    async def drop(self) -> None:
        """Lose the connection without a word."""
        self._connection.transport.abort()
        await self.ended()

    def _on_frame(self, frame: Frame) -> None:
        self._came += frame.opcode is Opcode.TEXT
        if frame.opcode in (Opcode.PING, Opcode.CLOSE) and not self.answers:
            return
        if frame.opcode is Opcode.PING and len(frame.data) == RECEIPT_BYTES:
            self._receipted = self._came
            self._news.set()
        self._parse(frame)

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._connection.recv()
                assert isinstance(frame, str), "a binary frame"
                self.frames.append(frame)
                self.messages.append(json.loads(frame))
                self._news.set()
        except ConnectionClosed:
            self.code = self._connection.close_code or 1006
        finally:
            self._news.set()


@dataclass(frozen=True)
class Opened:
    """A session that was created, and the URL of its socket."""

    session_id: str
    url: str


def open_session(server: Server, **options: Any) -> Opened:
    """Create a session with `POST /v2/live`, all messages switched on unless `options` say otherwise."""
    response = server.http.post("/v2/live", json={"messages_config": EVERYTHING, **options})
    assert response.status_code == 201, response.text
    return Opened(response.json()["id"], response.json()["url"])


def moved(opened: Opened, server: Server) -> Opened:
    """Give a session as its client reaches it once another process serves it, at another port."""
    return Opened(opened.session_id, urlsplit(opened.url)._replace(netloc=urlsplit(server.url).netloc).geturl())


@asynccontextmanager
async def connected(opened: Opened, **extra: Any) -> AsyncIterator[Socket]:
    """Connect to a session for the block; `extra` goes to the handshake."""
    extra = {"open_timeout": PATIENCE_S, **extra}
    async with connect(opened.url, proxy=None, max_size=MAX_FRAME_BYTES, **extra) as connection:
        socket = Socket(opened.session_id, connection)
        try:
            yield socket
        finally:
            await connection.close(1001)
            with suppress(ConnectionClosed):
                await socket.ended()


async def transcribe(server: Server, frames: Iterable[bytes | str], **options: Any) -> Heard:
    """Run a whole session at wire speed: create, send, stop, and read until the server closes with 1000."""
    async with connected(open_session(server, **options)) as socket:
        await socket.send(*frames, STOP)
        code = await socket.ended()
    assert code == 1000, (code, socket.messages[-3:])
    laws.check(socket.messages)
    return socket


async def until_status(server: Server, session_id: str, status: str, within_s: float = PATIENCE_S) -> Json:
    """Wait until REST shows a session in a status; give what it shows."""
    deadline = time.monotonic() + within_s
    while True:
        shown: Json = await asyncio.to_thread(server.result, session_id)
        if shown["status"] == status:
            return shown
        assert time.monotonic() < deadline, shown
        await asyncio.sleep(0.05)
