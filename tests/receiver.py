"""A receiver of callbacks on loopback: a real HTTP server whose answers the test decides."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Post:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        """The delivery's id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def status(code: int) -> bytes:
    """Give an answer without a body."""
    return f"HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n".encode()


def redirect(location: str, code: int = 307) -> bytes:
    """Give an answer that sends the client elsewhere."""
    return f"HTTP/1.1 {code} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


Answer = Callable[[Post], bytes | Awaitable[bytes | None] | None]
"""Gives the raw answer to a request, or None to hang up without one."""


@dataclass(eq=False)
class Receiver:
    """A running receiver; made by `receiving`."""

    answer: Answer
    url: str = ""
    posts: list[Post] = field(default_factory=list)
    taken: list[Post] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, wanted: Callable[[Receiver], bool], within_s: float = 90) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(within_s):
            while not wanted(self):
                self._news.clear()
                await self._news.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            # A test that ends cancels whoever still waits here.
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self.open_now -= 1
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.tasks.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = (await reader.readexactly(int(headers["content-length"]))).decode()
        post = Post(head[0].split()[1], headers, body)
        self.posts.append(post)
        self._news.set()
        answer = self.answer(post)
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer is None:
            return False
        if answer.startswith(b"HTTP/1.1 2"):
            self.taken.append(post)
        writer.write(answer)
        await writer.drain()
        self._news.set()
        return answer.startswith(b"HTTP/1.1 ") and b"content-length" in answer


@asynccontextmanager
async def receiving(
    answer: Answer = lambda _: OK, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Receive on a free port for the block."""
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, host, port, ssl=tls)
    taken = server.sockets[0].getsockname()[1]
    receiver.url = f"{'https' if tls else 'http'}://{'localhost' if tls else host}:{taken}/hook"
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.tasks:
            task.cancel()
        await asyncio.gather(*receiver.tasks, return_exceptions=True)
