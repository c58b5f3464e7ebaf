"""Running schedules: many sessions at once against one server, each checked when it is over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from faults.clients import CLIENTS
from faults.oracle import Stored, check, quiet_run
from faults.proxy import Link
from faults.schedules import Schedule, schedule, speech
from server import Server

SERVER_OPTIONS = ("--idle-cut", "3600", "--log-level", "warning")
"""No cut by the clock: where a stall falls would decide where utterances end."""

AT_ONCE = 6
LIMIT_S = 180.0


@dataclass(kw_only=True)
class Tally:
    """How runs went: which faults struck how often, and what failed."""

    runs: int = 0
    sockets: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)


class Runner:
    """Runs schedules against one server; undisturbed runs are made once for each recording."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._quiet: dict[int, Stored] = {}
        self.tally = Tally()

    async def run(self, wanted: Schedule) -> Link:
        """Run one schedule and check it; raises `AssertionError` with the schedule and what was seen."""
        audio, quiet = speech(wanted.speech), await self.quiet(wanted.speech)
        async with Link(self.server.url, wanted.plans) as link:
            try:
                async with asyncio.timeout(LIMIT_S):
                    report = await CLIENTS[wanted.client](link.url, audio, wanted.pace)
                await asyncio.to_thread(check, self.server, link, report, audio, quiet)
            except (Exception, BaseExceptionGroup) as error:
                raise AssertionError(f"{error!r}\n{wanted}\n{_told(link)}") from error
            finally:
                self.tally.runs += 1
                self.tally.sockets += len(link.sockets)
                self.tally.struck.update(fault.kind for fault in link.struck)
        return link

    async def run_all(self, seeds: Iterable[int], told: Callable[[str], None] = lambda _: None) -> Tally:
        """Run the schedules of many seeds, several at once, and give how it went."""
        room, started = asyncio.Semaphore(AT_ONCE), time.monotonic()
        wanted = [schedule(seed) for seed in seeds]
        for number in sorted({each.speech for each in wanted}):
            await self.quiet(number)

        async def one(each: Schedule) -> None:
            async with room:
                try:
                    await self.run(each)
                except AssertionError as error:
                    self.tally.failures[each.seed] = str(error)
                    told(f"FAILED, again with: python -m faults --seed {each.seed}\n{error}")
            if self.tally.runs % 50 == 0:
                told(f"{self.tally.runs} runs, {time.monotonic() - started:.0f} s, {len(self.tally.failures)} failed")

        async with asyncio.TaskGroup() as group:
            for each in wanted:
                group.create_task(one(each))
        return self.tally

    async def quiet(self, number: int) -> Stored:
        """Give what an undisturbed session yields for a recording."""
        if number not in self._quiet:
            self._quiet[number] = await quiet_run(self.server, speech(number))
        return self._quiet[number]


def _told(link: Link) -> str:
    """Tell what happened on each socket."""
    return "\n".join(
        f"  seen on socket {number}: {len(socket.audio)} bytes left; acknowledged {socket.acks[-3:]};"
        f" struck {[fault.kind.value for fault in socket.struck]}"
        for number, socket in enumerate(link.sockets)
    )
