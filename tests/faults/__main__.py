"""`python -m faults`: run seeded fault schedules against the real program."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.run import SERVER_OPTIONS, Runner
from faults.schedules import schedule
from server import serving


def main() -> int:
    """Run the schedules and say which failed; the exit code is 1 if any did."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules, counted from --first")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="run this one only, and print its schedule")
    options = parser.parse_args()
    # The SDK leaves exceptions of its tasks to the event loop.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    if options.seed is not None:
        _say(str(schedule(options.seed)))
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory) / "data", *SERVER_OPTIONS) as server:
        tally = asyncio.run(_run(Runner(server), seeds))
    struck = ", ".join(f"{count} x {kind}" for kind, count in sorted(tally.struck.items()))
    _say(f"{tally.runs} runs over {tally.sockets} sockets; {struck or 'nothing struck'}")
    _say(f"failed: {', '.join(map(str, tally.failures)) or 'none'}")
    return 1 if tally.failures else 0


async def _run(runner: Runner, seeds):
    return await runner.run_all(seeds, _say)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
