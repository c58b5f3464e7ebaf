"""RTP media on its way to a session: packets in as they arrive, settled audio out to the leg of a call.

The bridges for plain RTP and for SIP share this. `hear` is called from a socket's callback and only puts a packet into
the jitter buffer; `pour` takes what is settled every `TICK_S` and feeds it. While the leg waits for the disk, packets
stay in the buffer, up to its bound.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vivavoce.wire.jitter import Counts, JitterBuffer

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Leg
    from vivavoce.wire.rtp import PayloadFormat, RtpPacket

ENCODING = "wav/pcm"
"""What `pour` feeds, in 16 bits: every payload is decoded, so a sender may change between types of one rate."""

TICK_S = 0.04
"""How long settled audio may wait for more before it is fed."""

ALIVE_S = 10.0
"""After this long without audio the session is told that the call still stands, as on hold."""

RECEIVE_BUFFER_BYTES = 4 << 20
"""Two seconds of 256 streams; the system may give less."""


class RtpMedia:
    """The audio of one RTP stream; `silent_s` without a packet ends it, None never does."""

    def __init__(
        self,
        formats: Mapping[int, PayloadFormat | None],
        sample_rate: int,
        *,
        delay_s: float,
        silent_s: float | None,
    ) -> None:
        self._silent_s = silent_s
        self._buffer = JitterBuffer(formats, sample_rate, delay_s=delay_s)
        self._clock = asyncio.get_running_loop().time
        self._over = asyncio.Event()
        self._heard_at = self._clock()

    @property
    def counts(self) -> Counts:
        """What became of the packets so far."""
        return self._buffer.counts

    def hear(self, packet: RtpPacket) -> None:
        """Take a packet that arrives now."""
        self._heard_at = self._clock()
        self._buffer.feed(packet, self._heard_at)

    def allow_silence(self, silent_s: float | None) -> None:
        """Let `silent_s` without a packet end the stream, None never; a pause for which there was no end begins now."""
        if self._silent_s is None:
            self._heard_at = self._clock()
        self._silent_s = silent_s

    def finish(self) -> None:
        """Say that no more will come: what is held is fed, and `pour` returns."""
        self._over.set()

    async def pour(self, leg: Leg) -> bool:
        """Feed the leg until the media is over, its session ends, or nothing came for `silent_s`.

        Tells whether it is the call that is over, rather than the session.
        """
        over = asyncio.create_task(self._over.wait())
        ends: set[asyncio.Future[Any]] = {over, leg.ended}
        fed_at = self._clock()
        try:
            while not await _any_done(ends, TICK_S):
                now = self._clock()
                if self._silent_s is not None and now - self._heard_at > self._silent_s:
                    break
                audio = self._buffer.take(now)
                if audio or now - fed_at > ALIVE_S:
                    await leg.feed(audio)
                    fed_at = now
        finally:
            over.cancel()
        if leg.ended.done():
            return False
        if audio := self._buffer.flush():
            await leg.feed(audio)
        return True


async def _any_done(futures: set[asyncio.Future[Any]], timeout_s: float) -> bool:
    done, _ = await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


def open_port(host: str, port: int) -> socket.socket:
    """Give a UDP socket that is bound and has room for what arrives while the event loop is busy; raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        opened.setblocking(False)
        opened.bind((host, port))
    except BaseException:
        opened.close()
        raise
    return opened
