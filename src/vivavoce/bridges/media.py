"""RTP media on its way to a session: packets in as they arrive, settled audio out to the leg of a call.

The plain RTP door and the SIP door share this. `hear` is called from a socket's callback and only puts a packet into
the jitter buffer; `pour` takes what is settled every `TICK_S` and feeds it. While the leg waits for the disk, packets
stay in the buffer, up to its bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vivavoce.wire.jitter import Counts, JitterBuffer

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Leg
    from vivavoce.wire.rtp import PayloadFormat, RtpPacket

ENCODING = "wav/pcm"
"""What `pour` feeds, in 16 bits: every payload is decoded, so a sender may change between types of one rate."""

TICK_S = 0.04
"""How long settled audio may wait for more before it is fed."""

FINISH_S = 60.0
"""How long the last finals of a call may take before its leg lets go of the session."""


class Media:
    """The audio of one RTP stream; times are the event loop's."""

    def __init__(self, formats: Mapping[int, PayloadFormat | None], sample_rate: int, *, delay_s: float) -> None:
        self._buffer = JitterBuffer(formats, sample_rate, delay_s=delay_s)
        self._clock = asyncio.get_running_loop().time
        self._over = asyncio.Event()
        self.heard_at = self._clock()

    @property
    def counts(self) -> Counts:
        """What became of the packets so far."""
        return self._buffer.counts

    def hear(self, packet: RtpPacket) -> None:
        """Take a packet that arrives now."""
        self.heard_at = self._clock()
        self._buffer.feed(packet, self.heard_at)

    def finish(self) -> None:
        """Say that no more will come: what is held is fed, and `pour` returns."""
        self._over.set()

    async def pour(self, leg: Leg, *, silent_s: Callable[[], float] | float) -> bool:
        """Feed the leg until the media is over, its session ends, or nothing came for `silent_s`.

        Tells whether the call is over, rather than the session.
        """
        over = asyncio.create_task(self._over.wait())
        try:
            while not leg.ended.done() and not over.done():
                await asyncio.wait({over, leg.ended}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
                if audio := self._buffer.take(self._clock()):
                    await leg.feed(audio)
                limit_s = silent_s() if callable(silent_s) else silent_s
                if self._clock() - self.heard_at > limit_s:
                    break
            if leg.ended.done():
                return False
            if audio := self._buffer.flush():
                await leg.feed(audio)
            return True
        finally:
            over.cancel()


async def end_call(leg: Leg) -> None:
    """Hang up, and let the session say its last words."""
    await leg.hang_up()
    await asyncio.wait({leg.ended}, timeout=FINISH_S)
