"""Forgets sessions when their time is over: a few at a time, so that live sessions hardly notice.

Time counts from a session's end. With a retention of nothing, a session goes as soon as it is over, its last message
is read and nobody needs it any more (`may_forget`, which says no while callbacks are on their way); what may not go yet
is asked about again at each round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from vivavoce.errors import StoreError
from vivavoce.model import now
from vivavoce.plugins import AudioFiles, Store
from vivavoce.runtime import metrics

log = structlog.get_logger()

ROUND_S = 60.0
BATCH = 10
PAUSE_S = 0.1


class Retention:
    """Deletes what is older than `days`; a task of its own until `close`."""

    def __init__(
        self, days: float, store: Store, audio: AudioFiles, *, may_forget: Callable[[str], Awaitable[bool]]
    ) -> None:
        self._age = timedelta(days=days)
        self._store, self._audio = store, audio
        self._may_forget = may_forget
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="retention")

    def look(self) -> None:
        """Look again soon: a session is over, or its last callback is delivered."""
        if not self._age:
            self._wake.set()

    async def close(self) -> None:
        """Stop; what is being deleted is deleted at the next start."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> int:
        """Forget all that is due, and say how many sessions that were."""
        before = now() - self._age
        kept = forgotten = 0
        while batch := await self._store.expired_sessions(before, offset=kept, limit=BATCH):
            due = [session_id for session_id in batch if await self._may_forget(session_id)]
            for session_id in due:
                await asyncio.to_thread(self._audio.delete, session_id)
            if due:
                await self._store.delete_sessions(due)
                metrics.SESSIONS_FORGOTTEN.inc(len(due))
            kept += len(batch) - len(due)
            forgotten += len(due)
            await asyncio.sleep(PAUSE_S)
        if forgotten:
            log.info("sessions forgotten", sessions=forgotten)
        return forgotten

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.sweep()
            except StoreError as error:
                log.error("sessions could not be forgotten", error=str(error))
            except Exception:
                log.exception("sessions could not be forgotten")
            try:
                async with asyncio.timeout(ROUND_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
