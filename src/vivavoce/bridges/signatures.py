"""Signatures by which telephone networks show that a WebSocket's handshake is theirs.

Each is computed with a secret that the network and the account's owner share, and checked with the network's own
package, which is an extra and is loaded only where its secret is set. What Twilio and Plivo sign is the address that
they were told to call, here `public_url` or else the host that the request names. They only call `wss://`, and have
signed that address or the same one with `https://`, with a slash at its end or without; nobody else can sign any of
these. Vonage signs no address: its token says who sent it and when.

* Twilio: https://www.twilio.com/docs/usage/security, `X-Twilio-Signature`
* Plivo: https://www.plivo.com/docs/voice/concepts/signature-validation, `X-Plivo-Signature-V3` and its nonce
* Vonage: https://developer.vonage.com/en/getting-started/concepts/webhooks, a JSON Web Token in `Authorization`
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vivavoce.errors import SetupError
from vivavoce.model import now
from vivavoce.reception.origin import public_origin

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from vivavoce.config import Settings

Check = Callable[["HTTPConnection"], bool]
"""Tells whether a handshake is signed by its network."""

TOKEN_AGE_S = 300.0
"""Older tokens are refused, so that one that leaked is of no use for long."""


def checks(settings: Settings) -> Mapping[str, Check]:
    """Give the check of each network whose secret is set; raises `SetupError` where its package is missing."""
    makers = (
        ("twilio", settings.twilio_auth_token, _twilio),
        ("plivo", settings.plivo_auth_token, _plivo),
        ("vonage", settings.vonage_signature_secret, _vonage),
    )
    return {name: make(secret.get_secret_value(), settings) for name, secret, make in makers if secret is not None}


def _twilio(token: str, settings: Settings) -> Check:
    twilio = _package("twilio.request_validator", "twilio_auth_token", "twilio")
    validator = twilio.RequestValidator(token)

    def check(connection: HTTPConnection) -> bool:
        signature = connection.headers.get("x-twilio-signature", "")
        algorithm = twilio.get_signature_algorithm(connection.headers.get("x-twilio-webhooks-signature-settings"))
        return any(validator.validate(url, {}, signature, algorithm) for url in _addresses(connection, settings))

    return check


def _plivo(token: str, settings: Settings) -> Check:
    plivo = _package("plivo.utils.signature_v3", "plivo_auth_token", "plivo")

    def check(connection: HTTPConnection) -> bool:
        nonce = connection.headers.get("x-plivo-signature-v3-nonce", "")
        names = ("x-plivo-signature-v3", "x-plivo-signature-ma-v3")
        given = [part.strip().encode() for name in names for part in connection.headers.get(name, "").split(",")]
        for url in _addresses(connection, settings):
            signed = plivo.construct_get_url(url, {}).decode()
            expected = plivo.get_signature_v3(token.encode(), signed, nonce)
            if any(hmac.compare_digest(expected, each) for each in given):
                return True
        return False

    return check


def _vonage(secret: str, _settings: Settings) -> Check:
    jwt = _package("jwt", "vonage_signature_secret", "vonage")

    def check(connection: HTTPConnection) -> bool:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        try:
            claims = jwt.decode(token, secret, algorithms=["HS256"], leeway=60, options={"require": ["iat"]})
        except jwt.InvalidTokenError:
            return False
        return bool(now().timestamp() - claims["iat"] <= TOKEN_AGE_S)

    return check


def _addresses(connection: HTTPConnection, settings: Settings) -> Iterator[str]:
    """Give the spellings of the address that the network called."""
    host = urlsplit(public_origin(connection, settings)).netloc
    path = connection.url.path.rstrip("/")
    query = f"?{connection.url.query}" if connection.url.query else ""
    for scheme in ("wss", "https"):
        for slash in ("", "/"):
            yield f"{scheme}://{host}{path}{slash}{query}"


def _package(module: str, setting: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise SetupError(f"{setting} needs a package that is missing: pip install 'vivavoce[{extra}]'") from None
