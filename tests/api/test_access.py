"""Keys, and what keeps a server without keys private to its machine."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from vivavoce.api.access import AccessMiddleware
from vivavoce.config import Settings
from vivavoce.errors import NotAllowed, RateExceeded, SetupError, Unauthorized
from vivavoce.model import now
from vivavoce.reception.access import Access, Caller, new_key, require_safe_bind
from vivavoce.reception.origin import is_loopback_origin
from vivavoce.stores.sql import SqlStore


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    yield store
    await store.close()


async def greet(request):
    return PlainTextResponse("hello")


async def echo(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


def guarded(access: Access) -> AccessMiddleware:
    """Give a small application behind the middleware."""
    return AccessMiddleware(Starlette(routes=[Route("/", greet), WebSocketRoute("/", echo)]), access)


async def ask(access: Access, method: str = "GET", **headers: str) -> httpx.Response:
    """Send one request with exactly these headers, `host` being a loopback one by default."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded(access)), base_url="http://localhost") as client:
        return await client.request(method, "/", headers=given)


async def handshake(access: Access, headers: dict[str, str]) -> str:
    """Give the type of the first message that a socket with these headers gets."""
    sent: list[str] = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await guarded(access)({"type": "websocket", "path": "/", "query_string": b"", "headers": raw}, receive, send)
    return sent[0]


def test_keys_are_random_and_stored_as_hashes():
    """Nothing stored opens anything, and no key can be guessed."""
    record, secret = new_key("desk")
    assert re.fullmatch(r"vv_[A-Za-z0-9_-]{43}", secret)
    assert record.key_hash == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in repr(record)
    assert len({new_key("desk")[1] for _ in range(100)}) == 100
    assert len({new_key("desk")[0].id for _ in range(100)}) == 100


async def test_while_no_key_exists_everybody_is_the_local_owner(store):
    """Any key or none is taken, as SDKs insist on sending one."""
    access = Access(store, Settings())
    assert await access.owner_of(None) == await access.owner_of("whatever") == "local"


async def test_once_a_key_exists_one_is_needed_also_after_it_was_revoked(store):
    """Revoking the last key closes the server rather than opening it again; changes count at once."""
    access = Access(store, Settings())
    assert await access.owner_of(None) == "local"
    record, secret = new_key("desk")
    await store.add_key(record)
    assert await access.owner_of(secret) == record.id
    with pytest.raises(Unauthorized, match="no gladia key provided"):
        await access.owner_of(None)
    with pytest.raises(Unauthorized, match="gladia key not found"):
        await access.owner_of("vv_wrong")
    await store.revoke_key(record.id, now())
    for again in (access, Access(store, Settings())):
        with pytest.raises(Unauthorized, match="gladia key not found"):
            await again.owner_of(secret)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "stt.localhost:1",
        "127.0.0.1:8080",
        "127.9.9.9",
        "[::1]:8080",
        "[::1]",
    ],
)
async def test_without_keys_loopback_hosts_are_answered(store, host):
    """Every usual name of this machine, with any port."""
    assert (await ask(Access(store, Settings()), host=host)).text == "hello"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "10.0.0.1",
        "0.0.0.0",
        "[::2]",
        "evil.example:8080",
        "localhost@evil.example",
        "localhost/evil",
        "localhost:x",
        "",
    ],
)
async def test_without_keys_other_hosts_are_refused(store, host):
    """A page that rebound its own name to 127.0.0.1 gets nothing."""
    answer = await ask(Access(store, Settings()), host=host)
    assert answer.status_code == 403
    assert answer.json()["statusCode"] == 403
    assert "hello" not in answer.text


async def test_an_allowed_host_is_answered_too(store):
    """A container's name, for example."""
    access = Access(store, Settings(allowed_hosts="stt.lan"))
    assert (await ask(access, host="STT.lan:8080")).status_code == 200
    assert (await ask(access, host="other.lan")).status_code == 403


async def test_without_keys_a_server_that_is_not_bound_to_loopback_answers_nobody(store):
    """The second line of defence, behind `require_safe_bind`."""
    assert (await ask(Access(store, Settings(host="0.0.0.0")))).status_code == 403


@pytest.mark.parametrize(
    ("origin", "local"),
    [
        ("http://localhost:3000", True),
        ("https://127.0.0.1", True),
        ("http://[::1]:5173", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://localhost:3000.evil.example", False),
        ("http://localhost@evil.example", False),
        ("null", False),
        ("file://", False),
        ("", False),
    ],
)
async def test_without_keys_only_pages_of_this_machine_may_call(store, origin, local):
    """A foreign page gets no CORS headers, no answer and no preflight; a developer's local page gets all of them."""
    access = Access(store, Settings())
    assert is_loopback_origin(origin) is local
    plain = await ask(access, origin=origin)
    preflight = await ask(access, "OPTIONS", origin=origin, access_control_request_method="POST")
    assert plain.status_code == (200 if local else 403)
    assert preflight.status_code == (204 if local else 403)
    for answer in (plain, preflight):
        assert ("access-control-allow-origin" in answer.headers) is local


async def test_a_key_brings_its_limits_or_the_servers(store):
    """What a key was made with wins; nobody limits the one who needs no key."""
    access = Access(store, Settings(key_max_sessions=7, key_rate=3))
    assert await access.caller_of(None) == Caller(owner="local")
    own, plain = new_key("own", max_sessions=0, rate=0.5), new_key("plain")
    for record, _ in (own, plain):
        await store.add_key(record)
    assert await access.caller_of(own[1]) == Caller(owner=own[0].id, max_sessions=0, rate=0.5)
    assert await access.caller_of(plain[1]) == Caller(owner=plain[0].id, max_sessions=7, rate=3)


async def test_requests_beyond_a_rate_are_refused_at_once(store):
    """A burst of ten seconds' worth passes; then it is an error instead of a wait, for that caller only."""
    access = Access(store, Settings())
    quick, slow = Caller(owner="quick", rate=5), Caller(owner="slow", rate=0.01)
    for _ in range(50):
        await access.count_request(quick)
    with pytest.raises(RateExceeded, match="5 requests a second"):
        await asyncio.gather(*[access.count_request(quick) for _ in range(50)])
    await access.count_request(slow)
    with pytest.raises(RateExceeded):
        await access.count_request(slow)
    for _ in range(1000):
        await access.count_request(Caller(owner="local"))


@pytest.mark.parametrize("foreign", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
async def test_without_keys_foreign_sockets_are_refused_in_the_handshake(store, foreign):
    """Sockets know no CORS: nothing but the server keeps a foreign page from opening one."""
    access = Access(store, Settings())
    local = {"host": "localhost:8080"}
    assert await handshake(access, local) == "websocket.accept"
    assert await handshake(access, local | {"origin": "http://localhost:3000"}) == "websocket.accept"
    assert await handshake(access, local | foreign) == "websocket.close"
    await store.add_key(new_key("desk")[0])
    assert await handshake(access, local | foreign) == "websocket.accept"


async def test_once_keys_exist_any_origin_and_host_may_call(store):
    """CORS is that of the original service: every origin, no credentials."""
    await store.add_key(new_key("desk")[0])
    access = Access(store, Settings())
    answer = await ask(access, host="speech.example.net", origin="https://app.example.net")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    preflight = await ask(
        access,
        "OPTIONS",
        host="speech.example.net",
        origin="https://app.example.net",
        access_control_request_method="DELETE",
        access_control_request_headers="x-gladia-key, content-type, x-gladia-version",
    )
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == "*"
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("x-gladia-key", "content-type", "x-gladia-version"))
    methods = preflight.headers["access-control-allow-methods"]
    assert all(name in methods for name in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"))


async def test_a_request_from_no_page_needs_no_origin(store):
    """SDKs and curl send none."""
    await Access(store, Settings()).check_reach(Headers({"host": "localhost:8080"}))
    with pytest.raises(NotAllowed):
        await Access(store, Settings()).check_reach(Headers({}))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_loopback_bind_needs_no_key(host):
    """The first start on one's own machine just works."""
    require_safe_bind(Settings(host=host), keys_exist=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "stt.lan"])
def test_an_open_bind_needs_a_key(host):
    """The message says how to make one."""
    require_safe_bind(Settings(host=host), keys_exist=True)
    with pytest.raises(SetupError, match="vivavoce keys create"):
        require_safe_bind(Settings(host=host), keys_exist=False)
