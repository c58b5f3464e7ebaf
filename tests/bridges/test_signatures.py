"""Handshakes are checked as the networks sign them, whatever stands in front of the server."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from plivo.utils.signature_v3 import construct_get_url, get_signature_v3
from starlette.requests import HTTPConnection
from twilio.request_validator import HMAC_SHA1, HMAC_SHA256, RequestValidator

from vivavoce.bridges.signatures import TOKEN_AGE_S, checks
from vivavoce.config import Settings
from vivavoce.model import now

TOKEN = "a-token-that-is-long-enough-for-every-algorithm-that-any-of-them-might-use"
PUBLIC = "speech.example.net"


def handshake(host: str = PUBLIC, path: str = "/bridges/x", query: str = "", **headers: str) -> HTTPConnection:
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return HTTPConnection(
        {
            "type": "websocket", "scheme": "ws", "path": path, "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": ("127.0.0.1", 4000), "server": ("127.0.0.1", 8080),
        }
    )  # fmt: skip


def is_signed(network: str, connection: HTTPConnection, **settings: Any) -> bool:
    setting = {"twilio": "twilio_auth_token", "plivo": "plivo_auth_token", "vonage": "vonage_signature_secret"}[network]
    return checks(Settings(**{setting: TOKEN}, **settings))[network](connection)


def twilio(url: str, algorithm: str = HMAC_SHA1) -> dict[str, str]:
    return {
        "x_twilio_signature": RequestValidator(TOKEN).compute_signature(url, {}, algorithm),
        "x_twilio_webhooks_signature_settings": f"key=k,algorithm={algorithm}",
    }


def plivo(url: str, nonce: str = "1", header: str = "x_plivo_signature_v3") -> dict[str, str]:
    signature = get_signature_v3(TOKEN.encode(), construct_get_url(url, {}).decode(), nonce).decode()
    return {header: f"{signature},other", "x_plivo_signature_v3_nonce": nonce}


def test_only_networks_whose_secret_is_set_are_checked():
    """Without a secret there is nothing to check, and no package is needed."""
    assert checks(Settings()) == {}


@pytest.mark.parametrize("algorithm", [HMAC_SHA1, HMAC_SHA256])
@pytest.mark.parametrize(
    "url", [f"wss://{PUBLIC}/bridges/x", f"https://{PUBLIC}/bridges/x", f"wss://{PUBLIC}/bridges/x/"]
)
def test_twilio_signs_the_address_it_was_told_to_call(url, algorithm):
    """In any spelling of it, by either of its algorithms."""
    assert is_signed("twilio", handshake(**twilio(url, algorithm)))


def test_the_address_is_the_public_one():
    """The setting names it; or a trusted proxy does; what others claim is not believed."""
    signed = twilio(f"wss://{PUBLIC}/bridges/x")
    inner = handshake("10.0.0.7:8080", **signed)
    assert not is_signed("twilio", inner)
    assert is_signed("twilio", inner, public_url=f"https://{PUBLIC}")
    forwarded = handshake("10.0.0.7:8080", x_forwarded_host=PUBLIC, x_forwarded_proto="https", **signed)
    assert not is_signed("twilio", forwarded)
    assert is_signed("twilio", forwarded, trusted_proxies="127.0.0.1")


@pytest.mark.parametrize(
    "connection",
    [
        handshake(),
        handshake(x_twilio_signature=""),
        handshake(x_twilio_signature="ü"),
        handshake(path="/bridges/other", **twilio(f"wss://{PUBLIC}/bridges/x")),
        handshake(query="a=b", **twilio(f"wss://{PUBLIC}/bridges/x")),
        handshake(**{**twilio(f"wss://{PUBLIC}/bridges/x"), "x_twilio_webhooks_signature_settings": "algorithm=NONE"}),
    ],
)
def test_what_twilio_did_not_sign_is_not_its_own(connection):
    """No signature, an empty one, one of another address, and one by an algorithm that is none."""
    assert not is_signed("twilio", connection)


def test_plivo_signs_the_address_with_its_query_and_a_nonce():
    """By the account's token or its main account's, and for that nonce alone."""
    url = f"https://{PUBLIC}/bridges/x?language=en&b=a"
    asked = {"query": "language=en&b=a"}
    assert is_signed("plivo", handshake(**asked, **plivo(url)))
    assert is_signed(
        "plivo", handshake(**asked, **plivo(url.replace("https", "wss"), header="x_plivo_signature_ma_v3"))
    )
    assert not is_signed("plivo", handshake(**plivo(url)))
    assert not is_signed("plivo", handshake(**asked, **{**plivo(url), "x_plivo_signature_v3_nonce": "2"}))
    assert not is_signed("plivo", handshake(**asked))


@pytest.mark.parametrize(
    ("claims", "secret", "algorithm", "good"),
    [
        ({"iat": 0}, TOKEN, "HS256", True),
        ({"iat": -TOKEN_AGE_S - 5}, TOKEN, "HS256", False),
        ({"iat": 600}, TOKEN, "HS256", False),
        ({"iat": 0, "exp": -120}, TOKEN, "HS256", False),
        ({}, TOKEN, "HS256", False),
        ({"iat": 0}, TOKEN[::-1], "HS256", False),
        ({"iat": 0}, TOKEN, "HS512", False),
    ],
)
def test_vonage_sends_a_young_token_signed_with_the_account_s_secret(claims, secret, algorithm, good):
    """Old ones, those of the future, without a time, and by another secret or algorithm are refused."""
    times = {name: int(now().timestamp() + offset) for name, offset in claims.items()}
    token = jwt.encode({"iss": "Vonage", **times}, secret, algorithm=algorithm)
    assert is_signed("vonage", handshake(authorization=f"Bearer {token}")) is good
    assert not is_signed("vonage", handshake(authorization=f"Basic {token}"))
