"""The UDP port of the SIP bridge: transactions under aiosipua's user agent, which has none for requests.

A request that comes again, because our answer or theirs was lost, gets the last answer again and nobody hears of it
(RFC 3261, 17.2). An INVITE that is refused gets its answer until it is acknowledged, and a BYE of ours goes out until
it is answered. A call that goes through proxies takes their Record-Route back to the caller (12.1.1). A new INVITE is
shown to `screen` before the user agent sees it, and an ACK to `acknowledged`, for it may bring SDP, which the user
agent does not look at. What requires an extension that we do not know is refused (8.2.2.3). Answers go to the address
that the request came from (RFC 3581), so nobody can have them sent elsewhere.

What is kept for a request is dropped after `TIMER_H`, or earlier beyond `MAX_TRANSACTIONS`. Datagrams that cannot be
read are let go.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiosipua.dialog import create_dialog_from_request
from aiosipua.headers import parse_via, stringify_via
from aiosipua.message import SipMessage, SipRequest, SipResponse, missing_required_headers
from aiosipua.transaction import T1, T2, TIMER_H
from aiosipua.transport import SipTransport

from vivavoce.bridges.rtp_media import open_port

log = structlog.get_logger()

MAX_TRANSACTIONS = 4096
MAX_SCREENED = 256
DEFAULT_PORT = 5060
EXTENSIONS = {"100rel", "timer"}
"""What a request may require. Answers that are not final are never sent, so none of them needs to be reliable; and a
call that is answered without an expiry does not expire (RFC 4028)."""

_FINAL, _REFUSAL = 200, 300

Address = tuple[str, int]
Key = tuple[str, str, str]
"""Address, branch and method of a request."""


@dataclass(slots=True)
class _Transaction:
    at: float
    record_route: list[str]
    answer: bytes = b""
    to: Address = ("", 0)


@dataclass(slots=True)
class _Repeat:
    """A message that goes out again and again."""

    data: bytes
    to: Address
    until: float
    timer: asyncio.TimerHandle | None = field(default=None)


class SipPort(SipTransport):
    """A transport for `aiosipua.SipUAS`.

    `screen` tells whether a new INVITE is for the user agent, `knows` whether a call of this name is under way.
    """

    def __init__(
        self,
        address: Address,
        screen: Callable[[SipRequest, Address], Awaitable[bool]],
        knows: Callable[[str], bool],
        acknowledged: Callable[[SipRequest], None],
    ) -> None:
        super().__init__(local_addr=address)
        self._screen, self._knows, self._acknowledged = screen, knows, acknowledged
        self._seen: OrderedDict[Key, _Transaction] = OrderedDict()
        self._repeats: dict[Key, _Repeat] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Bind; raises `OSError`."""
        port = open_port(*self.local_addr)
        self.local_addr = port.getsockname()[:2]
        self._loop = asyncio.get_running_loop()
        self._udp, _ = await self._loop.create_datagram_endpoint(lambda: _Receiver(self), sock=port)

    async def stop(self) -> None:
        """Close the port and forget what was under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for key in list(self._repeats):
            self._settle(key)
        if self._udp is not None:
            self._udp.close()

    def send(self, message: SipRequest | SipResponse, addr: Address) -> None:
        """Send a message; a BYE goes out until it is answered."""
        data = bytes(message)
        self._write(data, addr)
        if isinstance(message, SipRequest) and message.method == "BYE" and message.via:
            self._repeat((addr[0], message.via[0].branch or "", "BYE"), data, addr)

    def send_reply(self, response: SipResponse) -> None:
        """Answer a request, and remember the answer for when the request comes again."""
        via, cseq = response.via[0], response.cseq
        host = via.received or via.host
        rport = via.rport or ""
        to = host, int(rport) if rport.isdecimal() else via.port or DEFAULT_PORT
        key = host, via.branch or "", cseq.method if cseq else ""
        known = self._seen.get(key)
        if known is not None and key[2] == "INVITE" and response.status_code < _REFUSAL:
            for route in known.record_route if not response.headers.get("record-route") else ():
                response.headers.append("Record-Route", route)
        name, _, tags = (response.get_header("to") or "").partition(";tag=")
        if ";tag=" in tags:  # aiosipua marks every answer of its own, also within a call
            response.headers.set_single("To", f"{name};tag={tags.partition(';')[0]}")
        data = bytes(response)
        if known is not None:
            known.answer, known.to = data, to
        self._write(data, to)
        if key[2] == "INVITE" and response.status_code >= _REFUSAL:
            self._repeat(key, data, to)

    def refuse(self, request: SipRequest, status: int, reason: str, **headers: str) -> None:
        """Answer a request that the user agent is not to see."""
        response = create_dialog_from_request(request).create_response(request, status, reason)
        for name, value in headers.items():
            response.headers.set_single(name.replace("_", "-"), value)
        self.send_reply(response)

    def take(self, data: bytes, addr: Address) -> None:
        """Take one datagram."""
        message = _read(data, addr)
        if isinstance(message, SipRequest):
            self._request(message, addr)
        elif isinstance(message, SipResponse) and message.via and message.status_code >= _FINAL:
            cseq = message.cseq
            self._settle((addr[0], message.via[0].branch or "", cseq.method if cseq else ""))

    def _request(self, request: SipRequest, addr: Address) -> None:
        method, branch = request.method.upper(), request.via[0].branch or ""
        if method == "ACK":
            self._settle((addr[0], branch, "INVITE"))
            self._hand_over(request, addr)
            return
        key = addr[0], branch, method
        if known := self._seen.get(key):
            if known.answer:
                self._write(known.answer, known.to)
            return
        self._remember(key, request)
        if method != "CANCEL" and (unknown := _unknown_extensions(request)):
            self.refuse(request, 420, "Bad Extension", Unsupported=", ".join(unknown))
        elif method != "INVITE":
            self._hand_over(request, addr)
        elif request.to_addr and request.to_addr.tag:
            if self._knows(request.call_id or ""):
                self._hand_over(request, addr)
            else:
                # The user agent would keep it for ever.
                self.refuse(request, 481, "Call/Transaction Does Not Exist")
        elif len(self._tasks) < MAX_SCREENED:
            task = self._loop.create_task(self._screened(request, addr), name="sip-screen")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.refuse(request, 503, "Service Unavailable", Retry_After="5")

    async def _screened(self, request: SipRequest, addr: Address) -> None:
        try:
            passed = await self._screen(request, addr)
        except Exception as error:  # noqa: BLE001 - see below
            _log_failure(request, addr, error)
            with suppress(ValueError):
                self.refuse(request, 500, "Server Internal Error")
        else:
            if passed:
                self._hand_over(request, addr)

    def _hand_over(self, request: SipRequest, addr: Address) -> None:
        if self.on_message is None:
            return
        try:
            if request.method.upper() == "ACK":
                self._acknowledged(request)
            self.on_message(request, addr)
        except Exception as error:  # noqa: BLE001 - a message of a stranger must not end anything
            _log_failure(request, addr, error)
            if request.method != "ACK":
                with suppress(ValueError):
                    self.refuse(request, 400, "Bad Request")

    def _remember(self, key: Key, request: SipRequest) -> None:
        now = self._loop.time()
        while self._seen:
            oldest = next(iter(self._seen.values()))
            if now - oldest.at < TIMER_H and len(self._seen) < MAX_TRANSACTIONS:
                break
            self._seen.popitem(last=False)
        self._seen[key] = _Transaction(now, request.headers.get("record-route"))

    def _repeat(self, key: Key, data: bytes, to: Address) -> None:
        self._settle(key)
        if len(self._repeats) < MAX_TRANSACTIONS:
            repeat = self._repeats[key] = _Repeat(data, to, self._loop.time() + TIMER_H)
            repeat.timer = self._loop.call_later(T1, self._again, key, T1)

    def _again(self, key: Key, waited_s: float) -> None:
        repeat = self._repeats[key]
        if self._loop.time() >= repeat.until:
            del self._repeats[key]
            return
        self._write(repeat.data, repeat.to)
        waited_s = min(2 * waited_s, T2)
        repeat.timer = self._loop.call_later(waited_s, self._again, key, waited_s)

    def _settle(self, key: Key) -> None:
        if (repeat := self._repeats.pop(key, None)) and repeat.timer:
            repeat.timer.cancel()

    def _write(self, data: bytes, to: Address) -> None:
        if self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(data, to)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, port: SipPort) -> None:
        self._port = port

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._port.take(data, (str(addr[0]), addr[1]))


def _unknown_extensions(request: SipRequest) -> list[str]:
    required = ",".join(request.get_header_values("require")).split(",")
    return [name.strip() for name in required if name.strip() and name.strip().lower() not in EXTENSIONS]


def _log_failure(request: SipRequest, addr: Address, error: Exception) -> None:
    log.warning("SIP request failed", method=request.method[:16], source=addr[0], error=type(error).__name__)


def _read(data: bytes, addr: Address) -> SipRequest | SipResponse | None:
    """Read a message, and note in a request's Via where it came from; None for anything that is none."""
    try:
        message = SipMessage.parse(data)
        if isinstance(message, SipRequest):
            if missing_required_headers(message):
                return None
            first, *rest = message.headers.get("via")
            via = parse_via(first)
            if not via.branch or message.cseq is None or message.from_addr is None:
                return None
            # What the sender says of this would direct answers at somebody else.
            via.params.pop("received", None)
            if via.host != addr[0]:
                via.params["received"] = addr[0]
            if "rport" in via.params:
                via.params["rport"] = str(addr[1])
            message.headers.remove("Via")
            for value in [stringify_via(via), *rest]:
                message.headers.append("Via", value)
    except Exception:  # noqa: BLE001 - whatever a parser makes of a stranger's bytes
        return None
    return message
