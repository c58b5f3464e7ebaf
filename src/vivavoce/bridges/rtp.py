"""Plain RTP: a UDP port on which every stream is a call, for ARI external media and media gateways.

RTP says nothing about calls, so a stream is one: what comes from one address and port with one SSRC. It is born when
two packets with consecutive sequence numbers and a known payload type have arrived (RFC 3550, A.1); both are part of
its audio. It ends with an RTCP BYE on the same port, or when nothing has come for `rtp_timeout`, and then its session
is stopped. Another SSRC from the same address is another stream. There is nothing to sign and no place for a key, so
only addresses in `bridge_allow` are heard, and this machine's own while no key exists. Others are turned away before
anything is made for them.

Everything a stranger can make grow has a bound: `MAX_STRANGERS` addresses that are not streams yet, `rtp_streams`
calls, and what one jitter buffer holds. A stream that was refused for good, or whose session has ended, is ignored
until it has been silent for `rtp_timeout`; one that may have more luck later, for `RETRY_S`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from vivavoce.bridges.calls import Call, parameters_of
from vivavoce.bridges.refusals import Refusals, reason_of
from vivavoce.bridges.rtp_media import ENCODING, RtpMedia, open_port
from vivavoce.config import option_names
from vivavoce.errors import SetupError, VivavoceError
from vivavoce.reception.origin import is_in, is_loopback
from vivavoce.runtime import metrics
from vivavoce.wire.call import request_of
from vivavoce.wire.rtp import Goodbye, RtpPacket, payload_formats, read

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings

log = structlog.get_logger()

NAME = "rtp"
MAX_STRANGERS = 1024
RETRY_S = 5.0
"""After this long a stream that goes on is answered, if what was in the way of it has passed."""

Key = tuple[str, int, int]
"""Address, port and SSRC."""


class _Port(asyncio.DatagramProtocol):
    def __init__(self, bridge: RtpBridge) -> None:
        self._bridge = bridge

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._bridge.hear(data, str(addr[0]), addr[1])


class RtpBridge:
    """The bridge `rtp`."""

    sockets: Mapping[str, Callable[[Any], Awaitable[None]]] = {}

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls, self._settings = calls, settings
        self._formats = payload_formats(settings.rtp_types)
        self._parameters = parameters_of(settings)
        self._transport: asyncio.DatagramTransport | None = None
        self._streams: dict[Key, RtpMedia] = {}
        self._strangers: OrderedDict[Key, RtpPacket] = OrderedDict()
        self._ignored: OrderedDict[Key, tuple[float, bool]] = OrderedDict()
        """Until when, and whether a packet that comes before puts it off."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = Refusals(NAME)

    async def open(self) -> None:
        """Listen on `rtp_listen`, if it is set; raises `SetupError` for an address that nobody could call."""
        if self._settings.rtp_listen is None:
            return
        host, port = self._settings.rtp_listen
        if not is_loopback(host) and not self._settings.bridge_allow:
            raise SetupError(
                f"{option_names('rtp_listen')}: {host} is open to other machines, and RTP knows no keys; "
                "name those that may call with --bridge-allow"
            )
        try:
            listener = open_port(host, port)
        except OSError as error:
            raise SetupError(
                f"cannot listen for RTP on {host}:{port}: {error.strerror}; choose another with --rtp-listen"
            ) from error
        where = listener.getsockname()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Port(self), sock=listener)
        log.info("listening for RTP", address=f"{where[0]}:{where[1]}")

    async def close(self) -> None:
        """Stop listening and let go of the calls; a stream that goes on finds its session at the next process."""
        if self._transport is not None:
            self._transport.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hear(self, datagram: bytes, host: str, port: int) -> None:
        """Take one datagram; anything but the packets of a stream, or of one to come, is let go."""
        match read(datagram):
            case Goodbye(ssrcs=ssrcs):
                for ssrc in ssrcs:
                    if media := self._streams.get((host, port, ssrc)):
                        media.finish()
            case RtpPacket() as packet:
                key = (host, port, packet.ssrc)
                if media := self._streams.get(key):
                    media.hear(packet)
                else:
                    self._consider(key, packet)

    def _consider(self, key: Key, packet: RtpPacket) -> None:
        """Begin a stream with the second of two packets in sequence; of types that are unknown, say so."""
        known, form = packet.payload_type in self._formats, self._formats.get(packet.payload_type)
        if (known and form is None) or self._is_ignored(key):
            return
        before = self._strangers.pop(key, None)
        if before is None or not self._follows(packet, before):
            _put(self._strangers, key, packet)
            return
        if not self._may_call(key[0]):
            self._refuse(key, "a stream needs an address in --bridge-allow")
            return
        if form is None:
            _put(self._strangers, key, packet)
            reason = f"payload type {packet.payload_type} is not known; say what it means with --rtp-types"
            self._refusals.log(key[0], reason, port=key[1])
            return
        settings = self._settings
        if len(self._streams) >= settings.rtp_streams:
            metrics.REFUSALS.labels("rtp_streams").inc()
            self._refuse(key, "as many streams as --rtp-streams allows are open", retryable=True)
            return
        media = RtpMedia(self._formats, form.sample_rate, delay_s=settings.jitter_delay, silent_s=settings.rtp_timeout)
        media.hear(before)
        media.hear(packet)
        self._streams[key] = media
        task = asyncio.create_task(self._serve(key, media, form.sample_rate), name=f"rtp-{key[0]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _may_call(self, host: str) -> bool:
        return is_in(host, self._settings.bridge_allow) or is_loopback(host)

    def _follows(self, packet: RtpPacket, before: RtpPacket) -> bool:
        known = [each.payload_type in self._formats for each in (packet, before)]
        return (packet.sequence - before.sequence) % 65536 == 1 and known[0] is known[1]

    async def _serve(self, key: Key, media: RtpMedia, sample_rate: int) -> None:
        leg = None
        host, port, ssrc = key
        try:
            caller = await self._calls.admit_peer(host)
            request = request_of(
                self._parameters,
                encoding=ENCODING,
                sample_rate=sample_rate,
                channels=1,
                metadata={"rtp_source": f"{host}:{port}", "rtp_ssrc": f"{ssrc:08x}"},
            )
            call = Call(bridge=NAME, id=f"{host}:{port}/{ssrc:08x}", caller=caller, request=request)
            leg = await self._calls.answer(call)
            if await media.pour(leg):
                # The address may begin a new stream while this one says its last words.
                del self._streams[key]
                await leg.hang_up()
            else:
                self._ignore(key)
        except VivavoceError as error:
            self._refuse(key, reason_of(error), retryable=error.retryable)
        finally:
            if self._streams.get(key) is media:
                del self._streams[key]
            if leg is not None:
                leg.drop()
                counts = media.counts
                log.info(
                    "RTP stream over", session=leg.session_id, packets=counts.packets, lost=counts.lost,
                    late=counts.late, duplicate=counts.duplicate, unreadable=counts.unreadable,
                )  # fmt: skip

    def _refuse(self, key: Key, reason: str, *, retryable: bool = False) -> None:
        if retryable:
            _put(self._ignored, key, (asyncio.get_running_loop().time() + RETRY_S, False))
        else:
            self._ignore(key)
        self._refusals.count(key[0], reason, port=key[1])

    def _ignore(self, key: Key) -> None:
        """Ignore a stream until it has been silent for `rtp_timeout`."""
        until = asyncio.get_running_loop().time() + self._settings.rtp_timeout
        _put(self._ignored, key, (until, True))

    def _is_ignored(self, key: Key) -> bool:
        until, put_off = self._ignored.pop(key, (0.0, False))
        if asyncio.get_running_loop().time() > until:
            return False
        if put_off:
            self._ignore(key)
        else:
            _put(self._ignored, key, (until, False))
        return True


def _put(bounded: OrderedDict[Key, Any], key: Key, value: Any) -> None:
    bounded[key] = value
    if len(bounded) > MAX_STRANGERS:
        bounded.popitem(last=False)
