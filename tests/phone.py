"""A telephone for tests of SIP, message by message; sipp and baresip are the real ones."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from typing import Any

from aiosipua import SipDigestAuth, build_credentials, parse_auth, stringify_auth

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 45000 RTP/AVP 9 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)


class Phone:
    """A telephone on a socket of its own that sends what the test says and keeps what it gets."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.number = self.socket.getsockname()[1]
        self.tag = ""

    def message(
        self,
        method: str,
        sequence: int,
        *,
        body: str = "",
        branch: str | int | None = None,
        call: str = "one",
        headers: Sequence[str] = (),
    ) -> bytes:
        """Give a request; `branch` names its transaction, which is else that of its method, number and call."""
        lines = [
            f"{method} sip:desk@127.0.0.1 SIP/2.0",
            f"Via: SIP/2.0/UDP 10.9.8.7:{self.number};branch=z9hG4bK{branch or f'{method}{sequence}{call}'};rport",
            "From: <sip:alice@example.net>;tag=a1",
            f"To: <sip:desk@example.net>{f';tag={self.tag}' if self.tag else ''}",
            f"Call-ID: {call}",
            f"CSeq: {sequence} {method}",
            f"Contact: <sip:alice@127.0.0.1:{self.number}>",
            "Max-Forwards: 70",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    async def say(self, method: str, sequence: int, **options: Any) -> None:
        """Send a request, as `message` makes it."""
        await asyncio.get_running_loop().sock_sendto(self.socket, self.message(method, sequence, **options), self.to)

    async def hear(self) -> str:
        """Give the next message, a provisional one aside."""
        while True:
            async with asyncio.timeout(60):
                text = (await asyncio.get_running_loop().sock_recv(self.socket, 9000)).decode()
            if not text.startswith("SIP/2.0 100"):
                if text.startswith("SIP/2.0 200") and (tag := re.search(r"^To:.*tag=(\w+)", text, re.MULTILINE)):
                    self.tag = tag[1]
                return text

    async def call(self, **options: Any) -> str:
        """Call and acknowledge; give the answer."""
        await self.say("INVITE", 1, body=OFFER, **options)
        answer = await self.hear()
        await self.say("ACK", 1, branch="ack", call=options.get("call", "one"))
        return answer


def status(message: str) -> int:
    """Give the status of an answer."""
    return int(message.split()[1])


def authorization(answer: str, password: str) -> str:
    """Give the header that answers a challenge of an INVITE as a telephone does."""
    found = re.search(r"^WWW-Authenticate: (.*)\r$", answer, re.MULTILINE)
    assert found is not None, answer
    proof = build_credentials(SipDigestAuth("alice", password), parse_auth(found[1]), "INVITE", "sip:desk@127.0.0.1")
    assert proof is not None
    return f"Authorization: {stringify_auth(proof)}"
