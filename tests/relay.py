"""A bad line: passes bytes to a server and back, and cuts connections when told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Relay:
    """What a client connects to in place of the server."""

    url: str
    drop_after: list[int]
    """After so many bytes of all clients together the connection that brought the last of them is cut."""
    drops: int = 0
    _passed: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def pass_on(self, count: int) -> bool:
        """Count bytes towards the server; tell whether the line breaks now."""
        self._passed += count
        if not self.drop_after or self._passed < self.drop_after[0]:
            return False
        self.drop_after.pop(0)
        self.drops += 1
        return True


@asynccontextmanager
async def bad_line(server_url: str, drop_after: Sequence[int]) -> AsyncIterator[Relay]:
    """Relay to a server for the block, cutting the line after each of these totals of bytes sent by clients."""
    target = urlsplit(server_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(target.hostname, target.port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
            while data := await source.read(65_536):
                if counted and relay.pass_on(len(data)):
                    break
                sink.write(data)
                await sink.drain()

        ways = [
            asyncio.create_task(copy(reader, downstream, counted=True)),
            asyncio.create_task(copy(upstream, writer, counted=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            downstream.transport.abort()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    relay = Relay(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", list(drop_after))
    async with listener:
        yield relay
