"""Digest authentication of callers (RFC 7616, RFC 8760), the server's side.

A nonce is the time and a mark over it, the call's id and the address that was asked, which only this process can make.
So nothing is kept for those who were asked, and an answer is good for one call, from where it was asked for, and for
`NONCE_S`: whoever overhears it cannot show it from elsewhere once the call is over. What the answer must be is worked
out by aiosipua.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from aiosipua.auth import SipDigestAuth, build_credentials
from aiosipua.headers import AuthChallenge, parse_auth, stringify_auth
from aiosipua.message import SipRequest

NONCE_S = 60.0
REALM = "vivavoce"


class Digest:
    """Asks callers for the password of one of `users`, and checks their answers."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users
        self._secret = secrets.token_bytes(32)

    def challenge(self, request: SipRequest, source: str, at: float) -> str:
        """Give the value of `WWW-Authenticate` for a request from an address; `at` is a steady clock's, in seconds."""
        nonce = self._nonce(request, source, f"{at:.0f}")
        return stringify_auth(AuthChallenge("Digest", self._offered(nonce, "MD5")))

    def is_answered(self, request: SipRequest, source: str, at: float) -> bool:
        """Tell whether a request proves that it knows a user's password."""
        header = request.get_header("authorization")
        if not header:
            return False
        with suppress(ValueError, TypeError):
            return self._is_proven(parse_auth(header, credentials=True).params, request, source, at)
        return False

    def _is_proven(self, given: Mapping[str, str], request: SipRequest, source: str, at: float) -> bool:
        nonce, password = given.get("nonce", ""), self._users.get(given.get("username", ""))
        asked_at = nonce.partition("-")[0]
        if password is None or not hmac.compare_digest(nonce, self._nonce(request, source, asked_at)):
            return False
        if not 0 <= at - float(asked_at) + 1 <= NONCE_S or given.get("qop") != "auth":
            return False
        expected = build_credentials(
            SipDigestAuth(given["username"], password),
            AuthChallenge("Digest", self._offered(nonce, given.get("algorithm", "MD5"))),
            request.method,
            given.get("uri", ""),
            nonce_count=int(given.get("nc", ""), 16),
            cnonce=given.get("cnonce", ""),
        )
        return expected is not None and hmac.compare_digest(expected.params["response"], given.get("response", ""))

    def _offered(self, nonce: str, algorithm: str) -> dict[str, str]:
        return {"realm": REALM, "nonce": nonce, "algorithm": algorithm, "qop": "auth"}

    def _nonce(self, request: SipRequest, source: str, asked_at: str) -> str:
        mark = hmac.new(self._secret, f"{asked_at}-{source}-{request.call_id}".encode(), sha256).hexdigest()
        return f"{asked_at}-{mark}"
