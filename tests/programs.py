"""Programs that tests run to their end, and what those in JavaScript need."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

JS = Path(__file__).parent / "conformance" / "js"
INSTALL_S = 240


def require_node(package: str) -> None:
    """Install what the lock file pins unless `package` is there; without node and npm there is nothing to test."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: install Debian's nodejs and npm to test with JavaScript")
    if not (JS / "node_modules" / package).is_dir():
        command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=INSTALL_S, check=False)
        assert done.returncode == 0, done.stderr


async def run_to_end(
    *command: str | Path, cwd: Path, within_s: float, environment: Mapping[str, str] | None = None
) -> tuple[bytes, bytes]:
    """Run a program, which must end well; give what it wrote on standard output and on standard error."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(within_s):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return out, errors
