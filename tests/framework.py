"""Agent frameworks, each installed into an environment of its own, and the programs that run in there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
INSTALL_S = 280
NOTHING: Mapping[str, str] = {}
RUN_S = 90


def python_of(name: str) -> Path:
    """Give the Python of a framework's environment, which is as its lock file says; install it where it is not."""
    command = [str(ROOT / "scripts" / "agent-frameworks"), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / ".venvs" / name / "bin" / "python"


async def run(python: Path, program: Path, names: Mapping[str, str] = NOTHING, **task: Any) -> Any:
    """Run a program with a task as JSON, and give its last line, parsed; it must end well.

    `names` are added to its environment.
    """
    command = [python, program, json.dumps(task)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=program.parent, env={**os.environ, **names}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(RUN_S):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return json.loads(out.splitlines()[-1])
