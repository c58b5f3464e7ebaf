"""What a bridge under test is given instead of sessions: calls that are answered or refused, and legs that remember."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from vivavoce.errors import NotAllowed, RateExceeded
from vivavoce.runtime.mailbox import Ending


class Leg:
    """A leg that keeps what it is fed."""

    session_id = "session"

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.fed, self.hung_up, self.dropped = b"", False, asyncio.Event()

    async def feed(self, data):
        self.fed += data

    async def hang_up(self):
        self.hung_up = True
        self.ended.set_result(Ending.FINISHED)

    def drop(self):
        self.dropped.set()


class Calls:
    """Calls that are answered with a `Leg`, or refused with `error`."""

    def __init__(self, error=None):
        self.legs, self.calls, self.error = [], [], error
        self.news, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def admit_peer(self, address, *, signed=False):
        self.news.set()
        if isinstance(self.error, NotAllowed | RateExceeded) and not signed:
            raise self.error
        return SimpleNamespace(owner="owner", address=address)

    async def answer(self, call):
        await self.may_answer.wait()
        if self.error:
            raise self.error
        self.calls.append(call)
        self.legs.append(Leg())
        return self.legs[-1]
