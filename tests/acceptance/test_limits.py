"""Limits of the running program: keys, load, frames, readers that do not read, and peers that have gone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from live import EVERYTHING, PATIENCE_S, STOP, Json, connected, open_session
from server import Server, run_cli, serving

MANY = 40_000
"""Messages that together fill every buffer on their way, and the mailbox behind."""


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory) -> Iterator[tuple[Server, dict[str, str]]]:
    """Give a server, and keys of different limits by name."""
    data_dir = tmp_path_factory.mktemp("limits") / "data"
    limits = {"two": ("--max-sessions", "2"), "none": ("--max-sessions", "0"), "slow": ("--rate", "0.2"), "plain": ()}
    keys = {}
    for name, options in limits.items():
        made = run_cli("keys", "create", "--name", name, "--data-dir", str(data_dir), *options)
        assert made.returncode == 0, made.stderr
        keys[name] = made.stdout.strip()
    with serving(data_dir, "--max-sessions", "4", "--key-max-sessions", "3", "--ping-interval", "1") as server:
        # Only this answer waits until the models are loaded.
        create(server, keys["none"])
        yield server, keys


def create(server: Server, key: str) -> httpx.Response:
    return server.http.post("/v2/live", json={"messages_config": EVERYTHING}, headers={"x-gladia-key": key})


def assert_refused(response: httpx.Response, status: int, message: str) -> None:
    """Check a refusal: the body of every error, and when to come again."""
    body = response.json()
    assert (response.status_code, body["statusCode"]) == (status, status), body
    assert message in body["message"]
    assert set(body) == {"timestamp", "path", "request_id", "statusCode", "message"}
    assert int(response.headers["retry-after"]) > 0


def finish(created: httpx.Response) -> None:
    """Run a session to its end."""

    async def run() -> None:
        async with connect(created.json()["url"], proxy=None) as socket:
            await socket.send(STOP)
            while True:
                try:
                    await socket.recv()
                except ConnectionClosed:
                    return

    asyncio.run(run())


def test_a_key_has_its_own_limit_of_sessions_and_all_share_the_servers(with_keys):
    """429 from the first session too many on, for that key only, until one of its sessions is over."""
    server, keys = with_keys
    assert_refused(create(server, keys["none"]), 429, "may have 0")
    two = [create(server, keys["two"]) for _ in range(2)]
    assert [each.status_code for each in two] == [201, 201]
    assert_refused(create(server, keys["two"]), 429, "may have 2")
    plain = [create(server, keys["plain"]) for _ in range(2)]
    assert [each.status_code for each in plain] == [201, 201]
    assert_refused(create(server, keys["plain"]), 429, "all 4 sessions")
    finish(two[0])
    deadline = time.monotonic() + PATIENCE_S
    while (again := create(server, keys["plain"])).status_code == 429:
        assert time.monotonic() < deadline, again.text
        time.sleep(0.05)
    finish(two[1])
    while "may have 3" not in (refused := create(server, keys["plain"])).json()["message"]:
        assert time.monotonic() < deadline, refused.text
        time.sleep(0.05)
    assert_refused(refused, 429, "may have 3")
    for each in (*plain, again):
        finish(each)


def test_a_key_has_its_own_rate_of_requests(with_keys):
    """A burst is fine, then requests are refused at once; other keys do not notice."""
    server, keys = with_keys
    answers = [server.http.get("/v2/live", headers={"x-gladia-key": keys["slow"]}) for _ in range(4)]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    assert_refused(answers[-1], 429, "0.2 requests a second")
    assert server.http.get("/v2/live", headers={"x-gladia-key": keys["plain"]}).status_code == 200


def test_the_limits_of_keys_are_listed(with_keys):
    """An operator sees what was given to whom."""
    server, _ = with_keys
    listed = run_cli("keys", "list", "--data-dir", str(server.data_dir)).stdout
    assert "2 sessions" in listed
    assert "0.2/s" in listed


@pytest.fixture(scope="module")
def pinging(tmp_path_factory) -> Iterator[Server]:
    """Give a server without keys that pings often."""
    with serving(tmp_path_factory.mktemp("limits") / "data", "--ping-interval", "1") as server:
        yield server


def deaf_socket(url: str) -> socket.socket:
    """Connect with little room for what is not read."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", httpx.URL(url).port))
    return plain


def numbers(messages: list[Json]) -> list[int]:
    """Give the numbers in the errors that `nonsense` provokes."""
    return [int(each["data"]["message"].split("'")[1][1:]) for each in messages if each["type"] == "error"]


def nonsense(number: int) -> str:
    """Give a message that is answered with an error that names it."""
    return json.dumps({"type": f"n{number}"})


async def test_a_client_that_does_not_read_is_closed_with_a_code_to_come_back_on(server):
    """The queue of its messages is bounded; what was queued is read in order, then 1012, and on the next socket the
    rest: no number is missing in between.
    """
    opened = open_session(server)
    async with connect(
        opened.url, sock=deaf_socket(opened.url), proxy=None, ping_interval=None, max_queue=1, max_size=None
    ) as client:
        sending = asyncio.create_task(_send_nonsense(client))
        deadline = time.monotonic() + PATIENCE_S
        while "the client reads too slowly" not in server.log:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        messages = [json.loads(text) async for text in _received(client)]
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert client.close_code == 1012
    first = numbers(messages)
    assert first == list(range(len(first)))
    async with connected(opened) as again:
        await again.send(nonsense(MANY), STOP)
        assert await again.ended() == 1000
    rest = numbers(again.messages)
    assert rest[-1] == MANY
    # What was on its way may come twice; nothing may be left out, or come out of turn.
    new = [number for number in rest[:-1] if number >= len(first)]
    assert new == list(range(len(first), len(first) + len(new)))
    assert new


async def _received(client: ClientConnection) -> AsyncIterator[str | bytes]:
    while True:
        try:
            yield await client.recv()
        except ConnectionClosed:
            return


async def _send_nonsense(client: ClientConnection) -> None:
    for number in range(MANY):
        await client.send(nonsense(number))


async def test_a_client_that_has_gone_silently_is_let_go(pinging):
    """No pong, no FIN: the socket ends within two intervals of pings, and the session can be resumed."""
    opened = open_session(pinging)
    async with connect(opened.url, proxy=None, ping_interval=None) as client:
        client.transport.pause_reading()
        deadline = time.monotonic() + PATIENCE_S
        while 'vivavoce_sessions{state="away"} 1.0' not in pinging.http.get("/metrics").text:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        client.transport.abort()
    async with connected(opened) as again:
        await again.send(STOP)
        assert await again.ended() == 1000


async def test_a_frame_beyond_the_limit_closes_the_socket_and_not_the_session(server):
    """1009, as the standard has it; no official client sends such a frame."""
    opened = open_session(server)
    async with connected(opened) as socket:
        with suppress(ConnectionClosed):
            await socket.send(b"\0" * (34 << 20))
        assert await socket.ended() == 1009
    async with connected(opened) as again:
        await again.send(b"\0" * (1 << 20))  # as long a first message as one that comes back has
        await again.acked_up_to(1 << 20)
        await again.send(STOP)
        assert await again.ended() == 1000


@pytest.mark.parametrize("path", ["audio/stream", "audio/text/audio-transcription", "bridges/freeswitch"])
async def test_doors_that_find_the_key_in_the_first_message_take_no_long_one(server, path):
    """What a stranger sends is not kept: a megabyte ends the connection, where the live socket takes 33."""
    async with connect(f"ws{server.url.removeprefix('http')}/{path}", proxy=None) as client:
        with suppress(ConnectionClosed):
            await client.send(b"\0" * (1 << 20))
        await client.wait_closed()
        assert client.close_code == 1009


def test_a_full_data_directory_and_a_stop_are_told_to_who_asks(tmp_path: Path):
    """Ready says no, with the reason, while live says yes: the process is well, but should get nothing new."""
    with serving(tmp_path / "data", "--min-free-disk", "1000000") as server:
        assert server.get("/health/live") == {"health": "OK"}
        refused = server.http.get("/health/ready")
        assert (refused.status_code, refused.json()["reasons"]) == (503, ["the disk is nearly full"])
    with serving(tmp_path / "data", "--min-free-disk", "0") as server:
        assert server.get("/health/ready") == {"health": "OK"}
