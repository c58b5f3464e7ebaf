"""Who may call: this machine alone while no key exists, and afterwards whoever has a key, each its own sessions."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from live import STOP, connected, open_session, transcribe
from recordings import wheel_recording
from server import Server, run_cli, serving
from sound import pcm
from vivavoce.model import SAMPLE_RATE

PHRASE = pcm(wheel_recording("beckett")[: round(1.5 * SAMPLE_RATE)])
FOREIGN = "https://evil.example.com"


def host(server: Server, name: str) -> dict[str, str]:
    """Give the header by which a request names the server."""
    return {"host": f"{name}:{urlsplit(server.url).port}"}


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "127.3.2.1", "LOCALHOST", "app.localhost"])
def test_loopback_names_are_answered_without_a_key(server, name):
    """Any key or none will do, under every name that can only mean this machine, and URLs carry that name."""
    for extra in ({}, {"x-gladia-key": "anything"}):
        response = server.http.post("/v2/live", json={}, headers={**host(server, name), **extra})
        assert response.status_code == 201
        assert (
            response.json()["url"].lower().startswith(f"ws://{name.lower()}:{urlsplit(server.url).port}/v2/live?token=")
        )


@pytest.mark.parametrize("name", ["evil.example.com", "localhost.evil.example.com", "10.0.0.1", "0.0.0.0", "", "a b"])
def test_other_names_are_not(server, name):
    """A page that made its own name point here gets nothing but a refusal, in the body of every error."""
    for method, path in (("POST", "/v2/live"), ("GET", "/v2/live"), ("GET", "/health"), ("GET", "/openapi.json")):
        response = server.http.request(method, path, headers={"host": name})
        assert response.status_code in {400, 403}, (method, path)
        assert "token" not in response.text
        if response.status_code == 403:
            assert {"timestamp", "path", "request_id", "statusCode", "message"} <= set(response.json())


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://localhost.evil.example.com", "file://"])
async def test_pages_from_elsewhere_reach_neither_rest_nor_the_socket(server, origin):
    """Without keys, a foreign web origin gets no CORS header, no answer, and no socket, even with a good token."""
    opened = open_session(server)
    for method, path in (("POST", "/v2/live"), ("GET", f"/v2/live/{opened.session_id}"), ("OPTIONS", "/v2/live")):
        response = server.http.request(
            method, path, headers={"origin": origin, "access-control-request-method": "POST"}
        )
        assert response.status_code == 403
        assert not [name for name in response.headers if name.startswith("access-control")]
    with pytest.raises(InvalidStatus):
        async with connect(opened.url, proxy=None, origin=origin):
            pass
    async with connected(opened) as socket:
        await socket.send(STOP)
        assert await socket.ended() == 1000


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173"])
async def test_pages_of_this_machine_may_call(server, origin):
    """A loopback origin is answered with CORS headers, preflight included, and may open sockets."""
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-gladia-key",
    }
    preflight = server.http.options("/v2/live", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] in {"*", origin}
    assert "x-gladia-key" in preflight.headers["access-control-allow-headers"].lower()
    created = server.http.post("/v2/live", json={}, headers={"origin": origin})
    assert created.headers["access-control-allow-origin"] in {"*", origin}
    async with connect(created.json()["url"], proxy=None, origin=origin) as connection:
        await connection.send(STOP)
        async for _ in connection:
            pass
    assert connection.close_code == 1000


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_other_machines_are_not_served_without_keys(tmp_path, address):
    """Listening on more than loopback is refused in one line that says what to do."""
    refused = run_cli("serve", "--port", "0", "--host", address, "--data-dir", str(tmp_path / "data"))

    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "keys create" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with two keys, made by the command line while it runs; its client has none."""
    data_dir = tmp_path_factory.mktemp("guarded") / "data"
    with serving(data_dir) as running:
        assert running.http.get("/v2/live").status_code == 200
        yield running, new_key(running, "phones"), new_key(running, "lectures")


def new_key(server: Server, name: str) -> str:
    """Create a key as an administrator does."""
    created = run_cli("keys", "create", "--name", name, "--data-dir", str(server.data_dir))
    assert created.returncode == 0, created.stderr
    return created.stdout.strip()


def caller(server: Server, key: str) -> httpx.Client:
    """Give a client that sends a key."""
    return httpx.Client(base_url=server.url, headers={"x-gladia-key": key}, trust_env=False, timeout=60)


ROUTES = [("POST", ""), ("GET", ""), ("GET", "/{id}"), ("GET", "/{id}/file"), ("DELETE", "/{id}"), ("PATCH", "/{id}")]


def test_without_a_valid_key_there_is_nothing(guarded):
    """Every route answers 401 to no key, to a wrong one, and to a key in the wrong place."""
    server, key, _ = guarded
    for method, path in ROUTES:
        url = "/v2/live" + path.format(id="7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5")
        for headers in ({}, {"x-gladia-key": "vv_wrong"}, {"x-gladia-key": ""}, {"authorization": f"Bearer {key}"}):
            response = server.http.request(method, url, headers=headers)
            assert response.status_code == 401, (method, url, headers)
            assert response.json()["statusCode"] == 401
        assert server.http.request(method, url, params={"x-gladia-key": key}).status_code == 401


async def test_a_key_sees_only_its_own_sessions(guarded):
    """Another key's session is not there: not listed, not read, not downloaded, not annotated, not deleted."""
    server, phones, lectures = guarded
    with caller(server, phones) as mine, caller(server, lectures) as theirs:
        server.http.headers["x-gladia-key"] = phones
        try:
            heard = await transcribe(server, [PHRASE])
        finally:
            del server.http.headers["x-gladia-key"]
        path = f"/v2/live/{heard.session_id}"

        assert [each["id"] for each in mine.get("/v2/live").json()["items"]] == [heard.session_id]
        assert theirs.get("/v2/live").json()["items"] == []
        for method, url in (("GET", path), ("GET", f"{path}/file"), ("DELETE", path)):
            assert theirs.request(method, url).status_code == 404
        assert theirs.patch(path, json={}).status_code == 404
        assert mine.get(path).json()["status"] == "done"
        assert mine.get(f"{path}/file").content[44:] == PHRASE
        assert mine.delete(path).status_code == 202


def test_with_keys_any_page_and_name_may_call(guarded):
    """Once keys exist, CORS is open and the host's name is free, as the original service has it."""
    server, key, _ = guarded
    asked = {
        "origin": FOREIGN,
        "host": "speech.example.net",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-gladia-key,content-type,x-gladia-version",
    }
    preflight = server.http.options("/v2/live", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("x-gladia-key", "content-type", "x-gladia-version"))
    methods = preflight.headers["access-control-allow-methods"]
    assert all(method in methods for method in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"))
    assert "access-control-allow-credentials" not in preflight.headers
    created = server.http.post(
        "/v2/live", json={}, headers={"origin": FOREIGN, "host": "speech.example.net", "x-gladia-key": key}
    )
    assert created.status_code == 201
    assert created.headers["access-control-allow-origin"] == "*"
    assert created.json()["url"].startswith("ws://speech.example.net/v2/live?token=")


async def test_the_token_alone_opens_the_socket(guarded):
    """With keys too, the URL of the socket needs no header, from whatever page; a wrong token is closed with 4403."""
    server, key, _ = guarded
    with caller(server, key) as mine:
        url = mine.post("/v2/live", json={}).json()["url"]
    async with connect(url, proxy=None, origin=FOREIGN) as connection:
        await connection.send(STOP)
        async for _ in connection:
            pass
    assert connection.close_code == 1000
    async with connect(url + "x", proxy=None) as connection:
        await connection.wait_closed()
    assert connection.close_code == 4403


def test_a_revoked_key_is_refused_at_once(guarded):
    """Revocation by the command line needs no restart, and never opens the server to callers without keys."""
    server, _, _ = guarded
    key = new_key(server, "guest")
    with caller(server, key) as guest:
        assert guest.get("/v2/live").status_code == 200
        listed = run_cli("keys", "list", "--data-dir", str(server.data_dir))
        key_id = next(line.split()[0] for line in listed.stdout.splitlines() if line.endswith("guest"))
        assert run_cli("keys", "revoke", key_id, "--data-dir", str(server.data_dir)).returncode == 0
        assert guest.get("/v2/live").status_code == 401
    assert server.http.get("/v2/live").status_code == 401


def test_keys_are_neither_stored_nor_logged(guarded):
    """What is on disk and in the log cannot be used to call."""
    server, phones, lectures = guarded
    stored = b"".join(path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file())
    for key in (phones, lectures):
        assert key.encode() not in stored
        assert key not in server.log
