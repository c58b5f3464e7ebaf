"""Under which scheme, host and port a request reached us, and what of that may be believed."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection

    from vivavoce.config import Settings
    from vivavoce.config.values import Network

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(:\d{1,5})?", re.IGNORECASE)
_WEB_ORIGIN = re.compile(r"https?://(?P<authority>[^/]+)", re.IGNORECASE)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


def host_of(authority: str) -> str:
    """Give the lower-case host of a `Host` header, without port and brackets; empty where the header is malformed."""
    match = _AUTHORITY.fullmatch(authority)
    return match["host"].lower().removeprefix("[").removesuffix("]").removesuffix(".") if match else ""


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_origin(origin: str) -> bool:
    """Tell whether an `Origin` is a web page served by this machine."""
    match = _WEB_ORIGIN.fullmatch(origin)
    return match is not None and is_loopback(host_of(match["authority"]))


def public_origin(connection: HTTPConnection, settings: Settings) -> str:
    """Give the origin that URLs for this client begin with, such as `https://speech.example.net`.

    That is `public_url`, or else what the request says; forwarded headers count from trusted proxies only.
    """
    if settings.public_url is not None:
        return settings.public_url
    scheme = _SCHEMES[connection.scope["scheme"]]
    authority = connection.headers.get("host", "")
    if _is_trusted(connection, settings):
        forwarded = _first(connection.headers.get("x-forwarded-proto", "")).lower()
        scheme = _SCHEMES.get(forwarded, scheme)
        authority = _first(connection.headers.get("x-forwarded-host", "")) or authority
    if not _AUTHORITY.fullmatch(authority):
        authority = _own_authority(connection)
    return f"{scheme}://{authority}"


def peer_of(connection: HTTPConnection, settings: Settings) -> str:
    """Give the address of whoever connects: the nearest one that is not a trusted proxy; empty where nobody knows."""
    peer = connection.client.host if connection.client is not None else ""
    # A proxy may add a line of its own below the client's instead of adding to that one.
    told = ",".join(connection.headers.getlist("x-forwarded-for"))
    hops = [hop.strip() for hop in told.split(",") if hop.strip()]
    while hops and is_in(peer, settings.trusted_proxies):
        peer = hops.pop()
    return peer


def may_be_elsewhere(connection: HTTPConnection, settings: Settings) -> bool:
    """Tell whether somebody on another machine may stand behind a peer on this one: a proxy or a tunnel runs here.

    It gives itself away by a `Host` that is not this machine, or by forwarded headers, unless it is a trusted proxy,
    whose word `peer_of` takes.
    """
    if not _is_own_address(peer_of(connection, settings)):
        return False
    named_here = is_loopback(host_of(connection.headers.get("host", "")))
    forwarded = any(name in connection.headers for name in _FORWARDED)
    return not named_here or (forwarded and not _is_trusted(connection, settings))


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Tell whether an IP address lies in any of the networks; False for what is none."""
    peer = _address_of(address)
    return peer is not None and any(peer in network for network in networks)


def _is_own_address(address: str) -> bool:
    peer = _address_of(address)
    return peer is not None and peer.is_loopback


def _address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an IP address; one of IPv4 that came over IPv6 is one of IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(connection: HTTPConnection, settings: Settings) -> bool:
    return connection.client is not None and is_in(connection.client.host, settings.trusted_proxies)


def _first(header: str) -> str:
    """Give the value that the outermost proxy wrote."""
    return header.partition(",")[0].strip()


def _own_authority(connection: HTTPConnection) -> str:
    """Give the address that the request came in on, for a client that names no host."""
    host, port = connection.scope.get("server") or ("127.0.0.1", None)
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown
