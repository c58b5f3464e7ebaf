"""REST fuzzed from its own OpenAPI document: whatever is sent, nothing breaks."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from server import serving

ST = Path(sysconfig.get_path("scripts")) / "st"
EXAMPLES = 100


@pytest.mark.timeout(1500)
@pytest.mark.slow
def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    """Generated requests, valid and broken, in sequences too, never get a 5xx."""
    with serving(tmp_path / "data", "--max-sessions", "100000", "--connect-timeout", "5") as server:
        command = [str(ST), "run", f"{server.url}/openapi.json", "--checks", "not_a_server_error", "--no-color"]
        run = subprocess.run(
            # Watching a live session lasts as long as the session.
            [
                *command,
                "--exclude-path",
                "/v2/live/{session_id}/events",
                "--max-examples",
                str(EXAMPLES),
                "--generation-database",
                "none",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=1400,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "passed" in run.stdout
