"""SIP: calls that the server answers itself, for telephones and exchanges that know no other way.

aiosipua's user agent answers INVITE, re-INVITE, ACK, BYE, CANCEL, OPTIONS and UPDATE; `SipPort` below it keeps the
transactions. Each call has a session and a UDP port of its own for its audio, which is PCMU or PCMA, in the caller's
order of preference; nothing is sent, so every answer says `recvonly`. Audio is taken from the host that the caller's
messages or its SDP name, and goes through the same jitter buffer as plain RTP.

A new call must come with the password of one of `sip_users`, or from an address in `bridge_allow`, or from this machine
while neither users nor keys exist. The session ends with the call: at BYE, when no audio has come for `sip_timeout`
(unless the call is on hold), or when 200 OK is never acknowledged. If the caller did not end the call, the server says
BYE. A call cannot outlive the server; its session is stopped with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from aiosipua.dialog import DialogState, dialog_matches
from aiosipua.uas import SipUAS

from vivavoce import __version__
from vivavoce.bridges.calls import Call, parameters_of
from vivavoce.bridges.refusals import Refusals, reason_of
from vivavoce.bridges.rtp_media import ENCODING, RtpMedia, open_port
from vivavoce.bridges.sip_digest import Digest
from vivavoce.bridges.sip_port import Address, SipPort
from vivavoce.config import option_names
from vivavoce.config.values import users_in
from vivavoce.errors import CapacityError, NotAllowed, RequestError, SetupError, Unsupported, VivavoceError
from vivavoce.reception.origin import is_in, is_loopback
from vivavoce.runtime import metrics
from vivavoce.wire.call import request_of
from vivavoce.wire.rtp import STATIC_FORMATS, Goodbye, RtpPacket, read
from vivavoce.wire.sdp import SAMPLE_RATE, Terms, answer_to, first_offer, offer_again, sdp_of, terms_of

if TYPE_CHECKING:
    from aiosipua.incoming_call import IncomingCall
    from aiosipua.message import SipRequest
    from aiosipua.sdp import SdpMessage

    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings
    from vivavoce.reception.access import Caller

log = structlog.get_logger()

NAME = "sip"
PARAMETER_HEADER = "x-vivavoce-"
"""Headers that begin like this are the call's parameters: `X-Vivavoce-Language: en`."""

MAX_NAME_CHARS = 256
"""Of an address or a Call-ID, what is kept as metadata, which has a bound of its own."""

MAX_WARNING_CHARS = 200
"""Of the reason that a refused caller is told."""

_PORT_TRIES = 50


class SipBridge:
    """The bridge `sip`."""

    sockets: Mapping[str, Callable[[Any], Awaitable[None]]] = {}

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls, self._settings, self._parameters = calls, settings, parameters_of(settings)
        users = settings.sip_users
        self._digest = Digest({name: word for name, _, word in users_in(users)}) if users else None
        self._address: Address = ("", 0)
        self._port: SipPort | None = None
        self._uas: SipUAS | None = None
        self._callers: dict[str, Caller | None] = {}
        """Of calls that are on their way to the user agent, by Call-ID."""
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = Refusals(NAME)

    async def open(self) -> None:
        """Listen on `sip_listen`, if it is set; raises `SetupError` for an address that nobody could call."""
        if self._settings.sip_listen is None:
            return
        host, number = self._settings.sip_listen
        if not is_loopback(host) and self._digest is None and not self._settings.bridge_allow:
            raise SetupError(
                f"{option_names('sip_listen')}: {host} is open to other machines, and SIP knows no keys; "
                "name those that may call with --sip-users or --bridge-allow"
            )
        # What strangers send is no news, and we say ourselves what becomes of calls.
        logging.getLogger("aiosipua").setLevel(logging.CRITICAL)
        port = SipPort((host, number), self._screen, self._lines.__contains__, self._on_ack)
        uas = SipUAS(port, user_agent=f"vivavoce/{__version__}")
        uas.on_invite, uas.on_reinvite, uas.on_update = self._on_invite, self._on_reinvite, self._on_update
        uas.on_bye = lambda call, _: self._on_over(call)
        uas.on_ack_timeout = self._on_unacknowledged
        try:
            await uas.start()
        except OSError as error:
            raise SetupError(
                f"cannot listen for SIP on {host}:{number}: {error.strerror}; choose another with --sip-listen"
            ) from error
        self._port, self._uas = port, uas
        self._address = port.local_addr
        log.info("listening for SIP", address=f"{self._address[0]}:{self._address[1]}")

    async def close(self) -> None:
        """Say BYE, and let go of the sessions, which are stopped."""
        for line in self._lines.values():
            line.call.hangup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._uas is not None:
            await self._uas.stop()

    async def _screen(self, request: SipRequest, addr: Address) -> bool:
        """Tell whether a new call is to be answered; otherwise it has been refused."""
        assert self._port is not None
        call_id = request.call_id or ""
        if call_id in self._lines or call_id in self._callers:
            # The same call by two ways (RFC 3261, 8.2.2.2), or one that takes another's name.
            self._port.refuse(request, 482, "Loop Detected")
            return False
        if len(self._lines) + len(self._callers) >= self._settings.sip_calls:
            metrics.REFUSALS.labels("sip_calls").inc()
            self._refusals.log(addr[0], "as many calls as --sip-calls allows are open", status=486)
            self._port.refuse(request, 486, "Busy Here")
            return False
        now = asyncio.get_running_loop().time()
        proven = self._digest is not None and self._digest.is_answered(request, addr[0], now)
        if self._digest is not None and not proven and not is_in(addr[0], self._settings.bridge_allow):
            if request.get_header("authorization"):
                self._refusals.count(addr[0], "the password is wrong, or its challenge is too old", status=401)
            challenge = self._digest.challenge(request, addr[0], now)
            self._port.refuse(request, 401, "Unauthorized", WWW_Authenticate=challenge)
            return False
        self._callers[call_id] = None  # the place is taken while we ask
        try:
            self._callers[call_id] = await self._calls.admit_peer(addr[0], signed=proven)
        except NotAllowed as error:
            self._refusals.count(addr[0], reason_of(error), status=403)
            self._port.refuse(request, 403, "Forbidden")
        except CapacityError as error:
            self._refusals.count(addr[0], reason_of(error), status=486)
            self._port.refuse(request, 486, "Busy Here")
        finally:
            if self._callers[call_id] is None:
                del self._callers[call_id]
        # The user agent gets the call next, or cannot read it; either way the place is free then.
        asyncio.get_running_loop().call_soon(self._callers.pop, call_id, None)
        return call_id in self._callers

    def _on_invite(self, call: IncomingCall) -> None:
        caller = self._callers.pop(call.call_id)
        assert caller is not None
        line = self._lines[call.call_id] = _Line(call, self._settings)
        task = asyncio.create_task(self._serve(line, caller), name="sip-call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_reinvite(self, call: IncomingCall) -> None:
        """Answer a changed offer, or make one; an offer that cannot be met leaves the call as it was."""
        try:
            call.accept(self._lines[call.call_id].reply_to(call.invite))
        except Unsupported as error:
            self._refusals.log(call.source_addr[0], reason_of(error), status=488)
            self._reject(call, 488, "Not Acceptable Here", reason_of(error))

    def _on_ack(self, request: SipRequest) -> None:
        line = self._lines.get(request.call_id or "")
        if line and dialog_matches(line.call.dialog, request):
            line.acknowledged(request)

    def _on_update(self, call: IncomingCall, request: SipRequest) -> SdpMessage | None:
        try:
            line, offer = self._lines.get(call.call_id), sdp_of(request.content_type, request.text)
            return line.answer(offer) if line and offer else None
        except Unsupported as error:
            self._refusals.log(call.source_addr[0], reason_of(error), status=488)
            return None

    def _on_over(self, call: IncomingCall) -> None:
        if line := self._lines.get(call.call_id):
            line.media.finish()

    def _on_unacknowledged(self, call: IncomingCall) -> None:
        # The caller may hear us although we do not hear him, so he is told (RFC 3261, 13.3.1.4).
        call.dialog.state = DialogState.CONFIRMED
        self._on_over(call)

    async def _serve(self, line: _Line, caller: Caller) -> None:
        call, leg = line.call, None
        try:
            host = self._host_for(call)
            call.advertised_addr = (self._settings.sip_public_address or host, self._address[1])
            await line.open(host)
            answer = line.reply_to(call.invite)
            leg = await self._calls.answer(self._call(call, caller))
            if call.dialog.state is not DialogState.TERMINATED:  # by CANCEL
                call.accept(answer)
                await line.media.pour(leg)
                call.hangup()
        except Exception as error:  # noqa: BLE001 - whatever a stranger's message does, he gets an answer
            self._fail(call, error)
        finally:
            line.close()
            if leg is not None:
                if not leg.ended.done():
                    with suppress(VivavoceError):
                        await leg.hang_up()
                leg.drop()
                line.log_end(leg.session_id)
            del self._lines[call.call_id]
            assert self._uas is not None
            # The user agent keeps calls that it has refused until they are acknowledged, which may be never.
            self._uas._calls.pop(call.call_id, None)  # noqa: SLF001

    def _fail(self, call: IncomingCall, error: Exception) -> None:
        """Refuse a call, or hang up what was answered and cannot be refused any more."""
        if call.dialog.state is DialogState.CONFIRMED:
            log.warning("SIP call failed", source=call.source_addr[0], error=type(error).__name__)
            call.hangup()
            return
        match error:
            case RequestError():
                status, reason = 488, "Not Acceptable Here"
            case CapacityError():
                status, reason = 486, "Busy Here"
            case _:
                status, reason = 500, "Server Internal Error"
        self._refusals.count(call.source_addr[0], reason_of(error), status=status)
        if call.dialog.state is not DialogState.TERMINATED:
            self._reject(call, status, reason, reason_of(error) if isinstance(error, RequestError) else "")
            call.dialog.terminate()

    def _reject(self, call: IncomingCall, status: int, reason: str, why: str) -> None:
        assert self._port is not None
        response = call.dialog.create_response(call.invite, status, reason)
        if why:
            response.headers.set_single("Warning", warning(why))
        self._port.send_reply(response)

    def _call(self, call: IncomingCall, caller: Caller) -> Call:
        headers = {name.lower(): values[0] for name, values in call.invite.headers.items() if values}
        parameters = self._parameters | {
            name.removeprefix(PARAMETER_HEADER).replace("-", "_"): value
            for name, value in headers.items()
            if name.startswith(PARAMETER_HEADER)
        }
        names = {"sip_call_id": call.call_id, "sip_from": call.caller, "sip_to": call.callee}
        metadata = {name: value[:MAX_NAME_CHARS] for name, value in names.items()}
        request = request_of(parameters, encoding=ENCODING, sample_rate=SAMPLE_RATE, channels=1, metadata=metadata)
        return Call(bridge=NAME, id=call.call_id, caller=caller, request=request)

    def _host_for(self, call: IncomingCall) -> str:
        """Give the address of this machine that the caller's network is reached by."""
        host = self._address[0]
        if host not in {"0.0.0.0", "::"}:  # noqa: S104 - asked about, not bound to
            return host
        with socket.socket(socket.AF_INET6 if ":" in call.source_addr[0] else socket.AF_INET, socket.SOCK_DGRAM) as to:
            to.connect(call.source_addr)
            return str(to.getsockname()[0])


class _Line(asyncio.DatagramProtocol):
    """One call's audio: its port, and what was agreed about it."""

    def __init__(self, call: IncomingCall, settings: Settings) -> None:
        self.call = call
        self._settings = settings
        self._formats = dict(STATIC_FORMATS)
        self.media = RtpMedia(self._formats, SAMPLE_RATE, delay_s=settings.jitter_delay, silent_s=settings.sip_timeout)
        self._hosts = {call.source_addr[0]}
        self._transport: asyncio.DatagramTransport | None = None
        self._public, self._number, self._answers = "", 0, 0
        self._ours: SdpMessage | None = None
        """The last SDP of ours."""
        self._offered: int | None = None
        """Which INVITE was answered with an offer whose answer has not come yet."""

    async def open(self, host: str) -> None:
        """Take a port of this machine's address `host` for the audio; raises `CapacityError` where none is free."""
        port = _media_port(host, self._settings.sip_media_ports)
        self._public, self._number = self._settings.sip_public_address or host, port.getsockname()[1]
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=port)

    def close(self) -> None:
        """Give the port back."""
        if self._transport is not None:
            self._transport.close()

    def log_end(self, session_id: str) -> None:
        """Write what became of the call's packets."""
        counts = self.media.counts
        log.info(
            "SIP call over", session=session_id, packets=counts.packets, lost=counts.lost, late=counts.late,
            duplicate=counts.duplicate, unreadable=counts.unreadable,
        )  # fmt: skip

    def reply_to(self, invite: SipRequest) -> SdpMessage:
        """Answer the offer of an INVITE, or make one where it has none; raises `Unsupported` as `answer` does."""
        offer = sdp_of(invite.content_type, invite.text)
        if offer is not None:
            return self.answer(offer)
        self._offered = _sequence(invite)
        return self._say(offer_again(self._ours) if self._ours else first_offer(self._public, self._number))

    def answer(self, offer: SdpMessage) -> SdpMessage:
        """Answer an offer; raises `Unsupported`, and then everything stays as it was."""
        ours = answer_to(offer, self._public, self._number)
        self._agree(terms_of(offer))
        return self._say(ours)

    def acknowledged(self, ack: SipRequest) -> None:
        """Take the answer to an offer of ours; a caller who has no audio for us ends the call himself."""
        if self._offered is None or _sequence(ack) != self._offered:
            return
        self._offered = None
        with suppress(Unsupported):
            answer = sdp_of(ack.content_type, ack.text)
            self._agree(terms_of(answer) if answer else Terms(host="", on_hold=False, formats={}))

    def _say(self, ours: SdpMessage) -> SdpMessage:
        self._answers += 1
        ours.origin.session_version = str(self._answers)
        self._ours = ours
        return ours

    def _agree(self, terms: Terms) -> None:
        self._formats.update(terms.formats)
        if terms.host:
            self._hosts = {self.call.source_addr[0], terms.host}
        self.media.allow_silence(None if terms.on_hold else self._settings.sip_timeout)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Take a packet of the call's audio; its end is told by SIP, not here."""
        if addr[0] in self._hosts:
            match read(data):
                case RtpPacket() as packet:
                    self.media.hear(packet)
                case Goodbye() | None:
                    pass


def _media_port(host: str, ports: tuple[int, int] | None) -> socket.socket:
    if ports is None:
        return open_port(host, 0)
    tried = random.sample(range(ports[0], ports[1] + 1), min(ports[1] - ports[0] + 1, _PORT_TRIES))
    for number in tried:
        with suppress(OSError):
            return open_port(host, number)
    raise CapacityError("no port of --sip-media-ports is free")


def _sequence(request: SipRequest) -> int | None:
    return request.cseq.seq if request.cseq else None


def warning(why: str) -> str:
    """Give a reason as the value of a Warning header (RFC 3261, 20.43)."""
    shown = "".join(char if char.isprintable() else " " for char in why[:MAX_WARNING_CHARS])
    return '399 vivavoce "{}"'.format(shown.replace("\\", "\\\\").replace('"', '\\"'))
