"""A server for one command: on a free port, with a temporary data directory, gone when the command is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO

from vivavoce.cli.serve import READY
from vivavoce.config import ENV_PREFIX
from vivavoce.errors import SetupError

STOP_S = 20.0
"""How long a server may take to stop by itself."""

_READY_LINE = re.compile(re.escape(READY) + r"(?P<url>https?://\S+) · data in (?P<directory>.+)")


NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A running server: its base URL, its process and its data directory."""

    url: str
    pid: int
    directory: str


@contextmanager
def embedded_server() -> Iterator[str]:
    """Run a server for the block and give its base URL, as `embedded_process` does."""
    with embedded_process() as server:
        yield server.url


@contextmanager
def embedded_process(settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[Embedded]:
    """Run a server for the block; nothing of it is left afterwards, however the block ends.

    `settings` are names and values of `Settings`.

    It is a process of its own, so that a crash there is one clear error here, and out of the terminal's process group,
    so that Ctrl-C reaches this process only. It stops, and removes its data, when its standard input closes; that
    happens even if this process is killed. Raises `SetupError` where it does not start.
    """
    variables = {f"{ENV_PREFIX}{name.upper()}": value for name, value in settings.items()}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vivavoce", "serve", "--ephemeral", "--log-level", "warning"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            env=os.environ | {"PYTHONIOENCODING": "utf-8"} | variables,
            start_new_session=True,
        )
        directory: str | None = None
        try:
            url, directory = _wait_until_ready(server, log)
            yield Embedded(url=url, pid=server.pid, directory=directory)
        finally:
            _stop(server)
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


def _wait_until_ready(server: subprocess.Popen[str], log: IO[str]) -> tuple[str, str]:
    assert server.stdout is not None
    for line in server.stdout:
        if found := _READY_LINE.match(line):
            # A full pipe would block the server, should it ever write more.
            threading.Thread(target=_drain, args=(server.stdout,), name="server-output", daemon=True).start()
            return found["url"], found["directory"].strip()
    server.wait()
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    reason = lines[-1].removeprefix("vivavoce: ") if lines else f"it ended with code {server.returncode}"
    raise SetupError(f"the embedded server did not start: {reason}")


def _drain(stream: IO[str]) -> None:
    with suppress(ValueError, OSError):
        for _ in stream:
            pass


def _stop(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    with suppress(OSError):
        server.stdin.close()
    for harder in (server.terminate, server.kill):
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            harder()
    server.wait()
