"""The real program as a user starts it: a process of its own, a free port, a data directory, and a signal to end it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

READY = "vivavoce listens on "
START_S = 200
STOP_S = 60


@dataclass(eq=False)
class Server:
    """A running `vivavoce serve`."""

    url: str
    data_dir: Path
    log_path: Path
    process: subprocess.Popen[str]
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    @property
    def log(self) -> str:
        """All that the program has logged so far."""
        return self.log_path.read_text(encoding="utf-8")

    def get(self, path: str, **params: Any) -> Any:
        """Give the JSON of a GET that must succeed."""
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def result(self, session_id: str) -> Any:
        """Give a session as REST shows it."""
        return self.get(f"/v2/live/{session_id}")

    def file(self, session_id: str) -> bytes:
        """Give a session's audio file."""
        response = self.http.get(f"/v2/live/{session_id}/file")
        assert response.status_code == 200, response.text
        return response.content

    def stop(self) -> int:
        """Send SIGTERM, if that is still to be done, and give the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_S)


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `vivavoce` command to its end."""
    return subprocess.run(
        [program(), *arguments], env=environment(), capture_output=True, text=True, timeout=START_S, check=False
    )


def new_key(data_dir: Path) -> tuple[str, str]:
    """Create a key in a data directory with the command; give the key and its id, which is its sessions' owner."""
    created = run_cli("keys", "create", "--data-dir", str(data_dir))
    return created.stdout.strip(), created.stderr.split("key ", 1)[1].split()[0]


def start(data_dir: Path, *options: str) -> Server:
    """Start a server on a free port and wait until it accepts connections."""
    data_dir.mkdir(parents=True, exist_ok=True)
    log_path = data_dir.with_suffix(".log")
    with log_path.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [program(), "serve", "--port", "0", "--data-dir", str(data_dir), *options],
            stdout=subprocess.PIPE, stderr=log, env=environment(), cwd=data_dir.parent, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    late = threading.Timer(START_S, process.kill)
    late.start()
    try:
        line = process.stdout.readline()
    finally:
        late.cancel()
    if not line.startswith(READY):
        process.kill()
        process.wait()
        raise AssertionError(f"no server: {line!r}, and in its log:\n{log_path.read_text(encoding='utf-8')}")
    return Server(line.removeprefix(READY).split()[0], data_dir, log_path, process)


@contextmanager
def serving(data_dir: Path, *options: str, exit_code: int = 0) -> Iterator[Server]:
    """Serve for the block; the program must then end with `exit_code` and have logged nothing that is a bug."""
    server = start(data_dir, *options)
    try:
        yield server
        ended = server.stop()
    finally:
        server.process.kill()
        server.process.wait()
        server.http.close()
        assert server.process.stdout is not None
        server.process.stdout.close()
    assert ended == exit_code, server.log
    assert "Traceback" not in server.log, server.log


def program() -> str:
    """Give the path of the `vivavoce` command."""
    return str(Path(sys.executable).with_name("vivavoce"))


def environment() -> dict[str, str]:
    """Give the environment without what sets up vivavoce or its clients."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("VIVAVOCE_", "GLADIA_"))}
