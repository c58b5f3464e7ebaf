"""A server that is killed and started again in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from faults.run import SERVER_OPTIONS
from server import Server, start


class Machine:
    """One data directory and one port, and the processes that serve them one after the other."""

    def __init__(self, data_dir: Path) -> None:
        self.server = start(data_dir, *SERVER_OPTIONS)
        self._port = urlsplit(self.server.url).port

    def kill(self) -> None:
        """Kill the process; one that is gone is fine."""
        self.server.http.close()
        self.server.process.kill()
        self.server.process.wait()
        if self.server.process.stdout is not None:
            self.server.process.stdout.close()

    async def restart(self) -> Server:
        """Kill the process if it lives, and give the next one once it accepts connections."""
        self.kill()
        self.server = await asyncio.to_thread(start, self.server.data_dir, *SERVER_OPTIONS, "--port", str(self._port))
        return self.server
