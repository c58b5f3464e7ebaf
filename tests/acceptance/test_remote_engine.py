"""A server whose engine is another process loses nothing when that is killed and started again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import recordings
from live import STOP, connected, open_session, pieces
from server import STOP_S, environment, program, serving
from vivavoce.cli.recognize import READY

SPEECH = recordings.pcm16(recordings.wheel_recording("beckett"))


@contextmanager
def recognizing(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the program on a port; give its URL, and the process, which the block may kill."""
    command = [program(), "recognize", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(READY)
        yield line.removeprefix(READY).strip(), process
        process.terminate()
        assert process.wait(STOP_S) in {0, -9}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_finals_survive_a_recogniser_that_is_killed_and_started_again(tmp_path):
    with recognizing() as (url, process), serving(tmp_path / "data", "--engine", "remote", "--model", url) as server:
        async with connected(open_session(server)) as socket:
            await socket.send(*pieces(SPEECH, 3200))
            await socket.until(lambda message: message["type"] == "transcript")
            process.kill()
            process.wait()
            await socket.send(STOP)
            with recognizing(int(url.rpartition(":")[2])):
                assert await socket.ended() == 1000
    assert not socket.of("error")
    text = socket.text().lower()
    assert "ever tried" in text
    assert text.endswith("better.")
