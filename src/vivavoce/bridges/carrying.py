"""What transports of calls have in common: they carry audio until the peer ends them, or the session does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from vivavoce.bridges.calls import QUIET_S

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Leg
    from vivavoce.runtime.mailbox import Ending

FIRST_MESSAGE_S = 10.0
"""How long a peer may take to say which call it brings."""


class WebBridge:
    """A bridge whose `sockets` come through the web server, which opens and closes them."""

    sockets: Mapping[str, Callable[[Any], Awaitable[None]]]

    async def open(self) -> None:
        """Do nothing: there is nothing of its own to listen on."""

    async def close(self) -> None:
        """Do nothing: the web server has closed the sockets before this."""


async def carry(
    leg: Leg,
    reading: Coroutine[Any, Any, bool],
    close: Callable[[Ending | None], Awaitable[None]],
    *,
    stamped: bool = False,
) -> str:
    """Let `reading` feed a leg until the call is over or the transport is lost; give which of these, for the log.

    `reading` gives whether the peer hung up. Where it did not, or raises, the session waits for the leg to return.
    `close` ends the transport, as the session wants it or, with None, because there is no more to carry. A call that
    brings nothing for a while is kept, and its time filled with silence unless the audio is `stamped` with its own.
    """
    reader = asyncio.create_task(reading, name=f"call-{leg.session_id}")
    keeper = asyncio.create_task(_keep_time(leg, fill=not stamped), name=f"keep-{leg.session_id}")
    ends: set[asyncio.Future[Any]] = {reader, leg.ended}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if leg.ended.done():
            await close(leg.ended.result())
            return leg.ended.result().name.lower()
        if not reader.result():
            await close(None)
            return "lost"
        await leg.hang_up()
        await close(None)
        return "hung up"
    finally:
        for task in (reader, keeper):
            task.cancel()
        await asyncio.gather(reader, keeper, return_exceptions=True)
        leg.drop()


async def _keep_time(leg: Leg, *, fill: bool) -> None:
    while True:
        await asyncio.sleep(QUIET_S)
        await leg.keep_time(fill=fill)
