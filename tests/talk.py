"""A connection in a protocol whose first frame opens the session: frames out, messages in, and the close code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from live import PATIENCE_S, Json
from server import Server

STREAM = "/audio/stream"
V1 = "/audio/text/audio-transcription"
END = json.dumps({"type": "end_of_stream"})
TERMINATE = json.dumps({"event": "terminate"})


@dataclass
class Talk:
    """One connection and all that came over it."""

    connection: ClientConnection
    messages: list[Json] = field(default_factory=list)
    code: int | None = None
    reason: str = ""

    async def send(self, *frames: bytes | str | Mapping[str, Any]) -> None:
        """Send frames; objects as their JSON."""
        for frame in frames:
            await self.connection.send(frame if isinstance(frame, bytes | str) else json.dumps(frame))

    async def next(self) -> Json:
        """Wait for one more message."""
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.connection.recv()
        assert isinstance(frame, str), "a binary frame"
        self.messages.append(json.loads(frame))
        return self.messages[-1]

    async def ended(self) -> int:
        """Read until the server closes; give its code."""
        try:
            while True:
                await self.next()
        except ConnectionClosed:
            self.code, self.reason = self.connection.close_code or 1006, self.connection.close_reason or ""
        return self.code

    def drop(self) -> None:
        """Lose the connection without a word."""
        self.connection.transport.abort()

    def of(self, kind: str) -> list[Json]:
        """Give the messages of one type."""
        return [each for each in self.messages if each.get("type") == kind]

    @property
    def finals(self) -> list[Json]:
        """The final transcripts of either protocol."""
        return [each for each in self.messages if each.get("is_final") is True or each.get("type") == "final"]

    @property
    def errors(self) -> list[str]:
        """The codes of the errors."""
        return [each["code"] for each in self.messages if "error" in (each.get("type"), each.get("event"))]

    @property
    def text(self) -> str:
        """What the finals say."""
        return " ".join(final["text"] if "text" in final else final["transcription"] for final in self.finals)


@asynccontextmanager
async def talking(server: Server, path: str, **extra: Any) -> AsyncIterator[Talk]:
    """Connect for the block; `extra` goes to the handshake."""
    extra = {"open_timeout": PATIENCE_S, **extra}
    async with connect(
        f"ws{server.url.removeprefix('http')}{path}", proxy=None, max_size=1 << 20, **extra
    ) as connection:
        yield Talk(connection)


async def talk(server: Server, path: str, frames: Iterable[bytes | str | Mapping[str, Any]], **extra: Any) -> Talk:
    """Send frames at wire speed, and read until the server closes."""
    async with talking(server, path, **extra) as each:
        reading = asyncio.create_task(each.ended())
        with suppress(ConnectionClosed):  # the code tells
            await each.send(*frames)
        await reading
        return each
