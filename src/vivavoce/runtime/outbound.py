"""POST to addresses that strangers name, without being led into the networks that this server can reach.

A host is resolved here, every address that it has is checked, and the connection goes to one of those very addresses,
so that a name which answers differently the second time gains nothing; TLS and the Host header still use the name. Each
redirect goes the same way. Answers are judged by their status; their bodies are read only as far as that lets the
connection be used again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import unquote
from weakref import WeakValueDictionary

import httpcore
import httpx

from vivavoce.errors import DeliveryError

PER_RECEIVER = 16
"""Connections to one host and port at once, so that one that hangs leaves the rest to the others."""

MAX_REDIRECTS = 3
MAX_DRAIN_BYTES = 64 << 10
DRAIN_S = 1.0
KEEP_ALIVE_S = 15.0
RESOLVERS = 16

GONE = 410
_PORTS = {None, *range(1, 1 << 16)}
_REDIRECTS = {301, 302, 307, 308}
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)
_NAT64 = IPv6Network("64:ff9b::/96")
_CARRIERS = [IPv6Network(text) for text in ("::/8", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")]
"""IPv6 ranges that carry IPv4 addresses by ways of old, or are local to a site."""

Address = IPv4Address | IPv6Address


class Refusal(DeliveryError):
    """A delivery that no repetition would save."""

    retryable = False


def is_public(address: Address) -> bool:
    """Say whether an address belongs to the internet at large, and to no network of ours, this machine or a group."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if any(address in network for network in _CARRIERS):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def parse_url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    """Read the URL of a receiver, relative ones from `base`; raises `Refusal` for what is none."""
    try:
        url = httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, ValueError):
        raise Refusal("the URL cannot be read") from None
    if url.scheme not in {"http", "https"} or not url.host or url.port not in _PORTS:
        raise Refusal("the URL is not one of http or https")
    return url


def names_private_address(url: httpx.URL) -> bool:
    """Say whether a URL names this machine or an address that is not public, without asking the network."""
    if url.host == "localhost" or url.host.endswith(".localhost"):
        return True
    try:
        found = socket.getaddrinfo(url.host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return not all(is_public(_address(entry[4][0])) for entry in found)


class Outbound:
    """A pool of connections to receivers; belongs to the event loop."""

    def __init__(self, *, connections: int, timeout_s: float, allow_private: bool, max_redirects: int) -> None:
        """Allow so many connections in all, and so long for a POST with its redirects."""
        self._timeout_s, self._max_redirects = timeout_s, max_redirects
        self._slots = asyncio.Semaphore(connections)
        self._receivers: WeakValueDictionary[tuple[str, str, int | None], asyncio.Semaphore] = WeakValueDictionary()
        self._network = _CheckedNetwork(allow_private=allow_private)
        self._tls = httpx.create_ssl_context()
        # Not the library's own pool, which may hand one connection to several requests and then starves some of them.
        self._idle: dict[str, list[httpcore.AsyncHTTPConnection]] = {}
        self._swept_at = time.monotonic()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Return once a receiver took the body with a 2xx; raises `DeliveryError`, or `Refusal` for good."""
        target = parse_url(url)
        origin = (target.scheme, target.host, target.port)
        receiver = self._receivers.setdefault(origin, asyncio.Semaphore(PER_RECEIVER))
        async with receiver, self._slots:
            try:
                async with asyncio.timeout(self._timeout_s):
                    status = await self._follow(target, body, headers)
            except TimeoutError:
                raise DeliveryError(f"no answer within {self._timeout_s:g} s") from None
            except _NETWORK_ERRORS as error:
                raise DeliveryError(_reason(error)) from None
        if status == GONE:
            raise Refusal(f"the receiver answered {status}")
        if status // 100 != 2:  # noqa: PLR2004 - the class of good answers
            raise DeliveryError(f"the receiver answered {status}")

    async def close(self) -> None:
        """Close all connections."""
        for connections in self._idle.values():
            for connection in connections:
                await connection.aclose()
        self._network.close()

    async def _follow(self, url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> int:
        """Post, also to where redirects lead, and give the last status."""
        for _ in range(self._max_redirects + 1):
            status, location = await self._send(url, body, headers)
            if status not in _REDIRECTS or location is None or not self._max_redirects:
                return status
            # The password in a URL is for the host in it, and a relative redirect stays with that host.
            source, url = url, parse_url(location, url)
            if source.scheme == "https" and url.scheme != "https":
                raise Refusal("the receiver redirects from https to http")
        raise DeliveryError(f"more than {self._max_redirects} redirects")

    async def _send(self, url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        sent = {**headers, "content-type": "application/json", "host": url.netloc.decode("ascii")}
        sent |= {"content-length": str(len(body)), **_authorization(url)}
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        connection = await self._take(target.origin)
        try:
            async with connection.stream("POST", target, headers=list(sent.items()), content=body) as response:
                await _drain(response)
        finally:
            await self._give_back(str(target.origin), connection)
        given = {name.lower(): value for name, value in response.headers}
        location = given.get(b"location", b"").decode("latin-1")
        return response.status, location or None

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """Give a connection that nobody else uses, an open one if there is any."""
        if time.monotonic() - self._swept_at > KEEP_ALIVE_S:
            self._swept_at = time.monotonic()
            idle, self._idle = self._idle, {}
            for each, connections in idle.items():
                for connection in connections:
                    await self._give_back(each, connection)
        while open_ones := self._idle.get(str(origin)):
            connection = open_ones.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._tls, keepalive_expiry=KEEP_ALIVE_S, network_backend=self._network
        )

    async def _give_back(self, origin: str, connection: httpcore.AsyncHTTPConnection) -> None:
        if connection.is_idle() and not connection.has_expired():
            self._idle.setdefault(origin, []).append(connection)
        else:
            await connection.aclose()


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens TCP connections to public addresses only, or to any where private ones are allowed."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._tcp = httpcore.AnyIOBackend()
        # Threads of their own: names that nobody answers for would otherwise hold up the audio files.
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers."""
        addresses = await self._resolve(host, port)
        if not self._allow_private and not all(is_public(_address(address)) for address in addresses):
            raise Refusal("the address is not a public one (--allow-private-callbacks lets the server post there)")
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                return await self._tcp.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait, for the pool."""
        await asyncio.sleep(seconds)

    def close(self) -> None:
        """Let the threads go."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def _resolve(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._resolvers, _addresses, host, port)
        except (OSError, UnicodeError):
            raise DeliveryError("the host name cannot be resolved") from None
        return list(dict.fromkeys(found))


def _addresses(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _address(text: object) -> Address:
    """Read an address as the resolver writes it, which may name a network interface behind a percent sign."""
    return ip_address(str(text).partition("%")[0])


def _authorization(url: httpx.URL) -> dict[str, str]:
    if not url.userinfo:
        return {}
    name, _, password = url.userinfo.decode("ascii").partition(":")
    token = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode("ascii")
    return {"authorization": f"Basic {token}"}


async def _drain(response: httpcore.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again; a long or slow one is cut off."""
    left = MAX_DRAIN_BYTES
    with suppress(TimeoutError, *_NETWORK_ERRORS):
        async with asyncio.timeout(DRAIN_S):
            async for piece in response.aiter_stream():
                left -= len(piece)
                if left < 0:
                    return


def _reason(error: Exception) -> str:
    """Say what went wrong on the network in words that hold nothing of the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the receiver's certificate is not valid: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or type(cause).__name__}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout | OSError):
        return "the receiver cannot be connected to"
    if isinstance(error, httpcore.ProtocolError):
        return "the receiver does not speak HTTP properly"
    return "the connection to the receiver was lost"
