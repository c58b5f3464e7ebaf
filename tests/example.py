"""The programs in `examples/`, run as their readers run them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"
LATE_S = 120


class Program:
    """A running example, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self._process = process

    async def until(self, wanted: Callable[[str], bool]) -> str:
        """Give the first line, of all so far and to come, that is wanted."""
        seen = 0
        async with asyncio.timeout(LATE_S):
            while True:
                for line in self.lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self.lines)
                assert self._process.stdout is not None
                line = (await self._process.stdout.readline()).decode()
                assert line, self.lines
                self.lines.append(line.rstrip("\n"))

    def of(self, who: str) -> list[str]:
        """Give what somebody said."""
        return [line.removeprefix(f"{who}: ") for line in self.lines if line.startswith(f"{who}: ")]


@asynccontextmanager
async def running(
    program: str, *arguments: str, python: str | Path = sys.executable, **environment: str
) -> AsyncIterator[Program]:
    """Run an example for the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GLADIA_", "OPENAI_", "TWILIO_"))}
    command = [str(python), str(EXAMPLES / program), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**kept, **environment}
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def answering(*arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """Run the scripted model for the block; give its address too."""
    async with running("scripted_model.py", "--port", "0", *arguments) as model:
        yield model, (await model.until(lambda line: line.startswith("answers on"))).split()[-1]


@asynccontextmanager
async def calling(url: str, recording: Path, quiet_s: float) -> AsyncIterator[None]:
    """Have a recording played to an agent for the block, which outlives the call."""
    arguments = [str(recording), "--url", url, "--quiet", str(quiet_s)]
    async with running("call.py", *arguments):
        yield
