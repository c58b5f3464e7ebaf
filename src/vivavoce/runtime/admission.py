"""Who gets a session: each owner up to its limit, all together up to the server's, and nobody while it lags behind.

A refusal is immediate and says when to come again. Load is measured as delay, where work queues up: finals that wait
for the decode pool or for word times, writes that wait for the journal, and a probe once a second through the event
loop and the threads that hear. Partials have a limit of their own: they come last, so they wait long before anything
else does. A session that would only wait is refused, so that those there are keep their latency.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from vivavoce.config import Settings
from vivavoce.errors import CapacityError, Unavailable
from vivavoce.model import SessionOptions
from vivavoce.runtime import metrics
from vivavoce.runtime.decode import DecodePool
from vivavoce.runtime.journal import Journal

PROBE_S = 1.0


def weight(options: SessionOptions) -> int:
    """Give how many sessions a session counts for: a channel's speakers cost as much as its text."""
    asked = options.diarization
    return 1 if asked is None or asked.by_channel else 1 + options.audio.channels


class Load:
    """How far behind the process is, in seconds; `pools` are those of the models that are loaded now."""

    def __init__(self, pools: Callable[[], Sequence[DecodePool]], journal: Journal, ears: Executor) -> None:
        self._pools, self._journal, self._ears = pools, journal, ears
        self._hearing_s = 0.0
        self._due_at = time.monotonic()
        self._task = asyncio.create_task(self._probe(), name="load")

    @property
    def delays_s(self) -> dict[str, float]:
        """What waits for how long, by the part of the road."""
        late_s = time.monotonic() - self._due_at
        pools = self._pools()
        return {
            "decode": max((pool.oldest_s for pool in pools), default=0.0),
            "partials": max((pool.unseen_s for pool in pools), default=0.0),
            "speakers": max((pool.speakers_s for pool in pools), default=0.0),
            "journal": self._journal.oldest_s,
            "hearing": max(self._hearing_s, late_s),
        }

    async def close(self) -> None:
        """Stop probing."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            self._due_at = time.monotonic() + PROBE_S
            await asyncio.sleep(PROBE_S)
            await asyncio.get_running_loop().run_in_executor(self._ears, time.monotonic)
            self._hearing_s = max(time.monotonic() - self._due_at, 0.0)


class Admission:
    """Counts the sessions there are, by owner, and refuses those that are too many.

    The server's limit is on their weights, an owner's on their number.
    """

    def __init__(self, settings: Settings, load: Load) -> None:
        self._settings, self._load = settings, load
        self._owned: Counter[str] = Counter()
        self._weight = 0

    def admit(self, owner: str, most: int | None, weight: int = 1) -> None:
        """Count one more session of an owner that may have `most`; raises `CapacityError` where that cannot be."""
        usual = self._settings.overload_delay
        limits = {"partials": min(self._settings.overload_partial_delay, usual)}
        slow = [part for part, delay_s in self._load.delays_s.items() if delay_s > limits.get(part, usual)]
        if slow:
            metrics.REFUSALS.labels("load").inc()
            raise Unavailable(f"the server is overloaded ({', '.join(slow)})")
        if self._weight + weight > self._settings.max_sessions:
            metrics.REFUSALS.labels("sessions").inc()
            raise CapacityError(self._full(weight))
        if most is not None and self._owned[owner] >= most:
            metrics.REFUSALS.labels("key_sessions").inc()
            raise CapacityError(f"this key has {self._owned[owner]} sessions and may have {most}; stop one first")
        self.enter(owner, weight)

    def enter(self, owner: str, weight: int = 1) -> None:
        """Count a session that is there anyway."""
        self._owned[owner] += 1
        self._weight += weight

    def leave(self, owner: str, weight: int = 1) -> None:
        """Count a session less."""
        self._owned[owner] -= 1
        self._weight -= weight
        if not self._owned[owner]:
            del self._owned[owner]

    def _full(self, weight: int) -> str:
        taken = f"all {self._settings.max_sessions} sessions of this server are taken"
        return taken if weight == 1 else f"{taken}, or too many for one that counts as {weight}"
