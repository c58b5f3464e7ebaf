"""How much memory the server takes over many sessions and over a long one: `python -m faults.memory`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.run import SERVER_OPTIONS
from faults.schedules import BYTES_PER_S, speech
from live import STOP, connected, is_final, open_session, pieces, transcribe
from server import Server, serving

FLAT = 0.10
"""How far the memory may move after the warm-up, as a share."""

CHUNK = 32_000
AHEAD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Resident memory in MB of the server and its children, after the warm-up and at the end, and at the most."""

    warm: float
    end: float
    most: float

    @property
    def growth(self) -> float:
        """How much more the end takes, as a share of what was taken when warm."""
        return self.end / self.warm - 1


async def sequential(server: Server, sessions: int = 200, warm_up: int = 60) -> Figures:
    """Run sessions one after the other, a few seconds of speech each."""
    taken = []
    for number in range(sessions):
        await transcribe(server, pieces(speech(number % 4), CHUNK))
        taken.append(resident_mb(server.process.pid))
    return Figures(warm=taken[warm_up], end=taken[-1], most=max(taken))


async def long_session(server: Server, minutes: float = 30, warm_up_minutes: float = 8) -> Figures:
    """Run one session, at most `AHEAD_S` ahead of what the server has transcribed."""
    audio = b"".join(speech(number) for number in range(12))
    total = int(minutes * 60 * BYTES_PER_S)
    taken: list[tuple[int, float]] = []
    async with connected(open_session(server)) as socket:
        for at in range(0, total, CHUNK):
            start = at % len(audio)
            await socket.send((audio + audio)[start : start + min(CHUNK, total - at)])
            heard_s = socket.utterances[-1]["end"] if socket.utterances else 0.0
            if at / BYTES_PER_S > heard_s + AHEAD_S:
                del socket.messages[:], socket.frames[:]
                await socket.until(is_final)
            taken.append((at, resident_mb(server.process.pid)))
        await socket.send(STOP)
        assert await socket.ended(600) == 1000
        assert max(end for _, end in socket.acked) == total
    warm = next(mb for at, mb in taken if at >= warm_up_minutes * 60 * BYTES_PER_S)
    return Figures(warm=warm, end=taken[-1][1], most=max(mb for _, mb in taken))


def resident_mb(pid: int) -> float:
    """Give the resident memory of a process and its descendants."""
    pages = 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        try:
            status = Path(f"/proc/{each}/status").read_text(encoding="ascii")
            children = [path.read_text(encoding="ascii") for path in Path(f"/proc/{each}/task").glob("*/children")]
        except FileNotFoundError:
            continue
        pages += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        waiting += [int(child) for line in children for child in line.split()]
    return pages / 1024


def main() -> int:
    """Measure both and print the figures; the exit code is 1 if memory grew."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory) / "data", *SERVER_OPTIONS) as server:
        many, one = asyncio.run(sequential(server)), asyncio.run(long_session(server))
    for name, figures in (("200 sessions", many), ("30 minutes", one)):
        sys.stdout.write(
            f"{name}: {figures.warm:.0f} MB when warm, {figures.end:.0f} MB at the end ({figures.growth:+.1%}),"
            f" {figures.most:.0f} MB at most\n"
        )
    return int(max(many.growth, one.growth) > FLAT)


if __name__ == "__main__":
    sys.exit(main())
