"""Agent frameworks, each installed into an environment of its own, and the programs that run in there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from programs import run_to_end

ROOT = Path(__file__).parent.parent
INSTALL_S = 280
NOTHING: Mapping[str, str] = {}
RUN_S = 150


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
    command = (python, program, json.dumps(task))
    out, _ = await run_to_end(*command, cwd=program.parent, environment={**os.environ, **names}, within_s=RUN_S)
    return json.loads(out.splitlines()[-1])
