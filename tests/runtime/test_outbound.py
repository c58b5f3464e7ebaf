"""Posting to strangers: which addresses are connected to, what redirects may do, and how bad receivers end."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from ipaddress import ip_address

import pytest

from receiver import OK, receiving, redirect, status
from vivavoce.errors import DeliveryError
from vivavoce.runtime.outbound import Outbound, Refusal, is_public, names_private_address, parse_url


@pytest.fixture
async def anywhere():
    """Give connections to any address."""
    outbound = Outbound(connections=8, timeout_s=2, allow_private=True, max_redirects=3)
    yield outbound
    await outbound.close()


@pytest.fixture
async def public_only():
    """Give connections to public addresses."""
    outbound = Outbound(connections=8, timeout_s=2, allow_private=False, max_redirects=3)
    yield outbound
    await outbound.close()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
        "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
        "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_of_private_networks_and_of_groups_are_not_public(address):
    """Private, loopback, link-local, shared, mapped, multicast, unspecified, reserved: none is for strangers."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_internet_are_public(address):
    """Also in the IPv6 forms that stand for a public IPv4 address."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("http://127.0.0.1/x", True),
        ("http://127.1/x", True),
        ("http://2130706433/x", True),
        ("http://0x7f.0.0.1/x", True),
        ("http://[::1]:80/", True),
        ("http://[::ffff:10.0.0.1]/", True),
        ("http://localhost:9/", True),
        ("http://a.localhost/", True),
        ("http://8.8.8.8/", False),
        ("http://receiver.example/", False),
    ],
)
def test_a_private_address_is_seen_in_the_url_itself(url, private):
    """In every spelling that resolvers take for an address; names are not looked up."""
    assert names_private_address(parse_url(url)) is private


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http:///x", "x", "http://a:99999/", "http://[::1", "http://a:0/", "http://a:-1/"]
)
def test_what_is_no_url_of_a_receiver_is_refused(url):
    """Without a look at any network."""
    with pytest.raises(Refusal):
        parse_url(url)


async def test_a_body_arrives_as_it_is(anywhere):
    """With its headers, its host and nothing of the environment's proxies."""
    async with receiving() as receiver:
        await anywhere.post(f"{receiver.url}?token=x", b'{"x":1}', {"webhook-id": "msg_1"})
        (post,) = receiver.posts
        assert (post.path, post.body, post.id) == ("/hook?token=x", '{"x":1}', "msg_1")
        assert post.headers["host"] == receiver.url.split("/")[2]
        assert post.headers["content-type"] == "application/json"


async def test_connections_are_used_again(anywhere):
    """One after the other takes one connection."""
    async with receiving() as receiver:
        for _ in range(5):
            await anywhere.post(receiver.url, b"{}", {})
        assert receiver.connections == 1


async def test_a_user_and_password_in_the_url_are_sent_as_such(anywhere):
    """And not to another host that the receiver redirects to."""
    async with receiving() as other, receiving(lambda _: redirect(other.url)) as receiver:
        await anywhere.post(receiver.url.replace("//", "//me:p%40ss@"), b"{}", {})
        assert receiver.posts[0].headers["authorization"] == "Basic bWU6cEBzcw=="
        assert "authorization" not in other.posts[0].headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_private_address_is_never_connected_to(public_only, host):
    """Written out or behind a name, it is refused for good, before anything is sent."""
    async with receiving() as receiver:
        with pytest.raises(Refusal, match="--allow-private-callbacks"):
            await public_only.post(receiver.url.replace("127.0.0.1", host), b"{}", {})
        assert receiver.connections == 0


async def test_a_redirect_is_checked_like_the_first_address(monkeypatch):
    """A public receiver cannot lead the server into a private network."""
    async with receiving() as inner, receiving(lambda _: redirect(inner.url), host="127.0.0.2") as outer:
        # No public address can be served on here, so one loopback address stands for the internet.
        monkeypatch.setattr(
            "vivavoce.runtime.outbound.is_public", lambda address: str(address) == "127.0.0.2" or is_public(address)
        )
        outbound = Outbound(connections=8, timeout_s=2, allow_private=False, max_redirects=3)
        with pytest.raises(Refusal, match="not a public one"):
            await outbound.post(outer.url, b"{}", {})
        await outbound.close()
        assert (len(outer.posts), inner.connections) == (1, 0)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_gets_the_same_post(anywhere, code):
    """Whatever its code, so that a receiver can move."""
    async with receiving(lambda post: OK if post.path == "/new" else redirect("/new", code)) as receiver:
        await anywhere.post(receiver.url, b'{"x":1}', {"webhook-id": "msg_1"})
        assert [(post.path, post.body, post.id) for post in receiver.posts] == [
            ("/hook", '{"x":1}', "msg_1"),
            ("/new", '{"x":1}', "msg_1"),
        ]


async def test_redirects_end(anywhere):
    """A receiver that only redirects is a failing one."""
    async with receiving(lambda _: redirect("/hook")) as receiver:
        with pytest.raises(DeliveryError, match="more than 3 redirects"):
            await anywhere.post(receiver.url, b"{}", {})
        assert len(receiver.posts) == 4


@pytest.mark.parametrize(
    ("answer", "reason", "retryable"),
    [
        (status(500), "answered 500", True),
        (status(404), "answered 404", True),
        (status(303), "answered 303", True),
        (status(410), "answered 410", False),
        (None, "connection|HTTP properly", True),
        (b"SSH-2.0-x\r\n\r\n", "HTTP properly", True),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n", "HTTP properly", True),
    ],
)
async def test_bad_answers_are_told_apart(anywhere, answer, reason, retryable):
    """Only a receiver that is gone, or an address that must not be, is not worth another attempt."""
    async with receiving(lambda _: answer) as receiver:
        with pytest.raises(DeliveryError, match=reason) as failure:
            await anywhere.post(f"{receiver.url}?secret", b"{}", {})
    assert failure.value.retryable is retryable
    assert "secret" not in str(failure.value)


async def test_a_receiver_that_never_answers_costs_the_timeout(anywhere):
    """And no more."""

    async def never(_):
        await asyncio.Event().wait()

    async with receiving(never) as receiver:
        with pytest.raises(DeliveryError, match="no answer within 2 s"):
            async with asyncio.timeout(60):
                await anywhere.post(receiver.url, b"{}", {})


async def test_an_endless_answer_is_cut_off_and_counts_by_its_status(anywhere):
    """Neither memory nor time goes into what nobody reads."""
    sent = 0

    async def flood(reader, writer):
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(flood, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    await anywhere.post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert sent < 50 << 20
    server.close()


async def test_nobody_listening_is_a_failure_to_try_again(anywhere):
    """Told in words without the address."""
    with pytest.raises(DeliveryError, match="cannot be connected to") as failure:
        await anywhere.post("http://127.0.0.1:9/secret", b"{}", {})
    assert failure.value.retryable


async def test_a_name_that_nobody_knows_is_a_failure_to_try_again(anywhere):
    """Names come and go."""
    with pytest.raises(DeliveryError, match="cannot be resolved") as failure:
        await anywhere.post("http://nobody.invalid/", b"{}", {})
    assert failure.value.retryable


async def test_one_hanging_receiver_leaves_connections_to_the_others():
    """However many sessions post to it, it holds only its share."""

    async def never(_):
        await asyncio.Event().wait()

    outbound = Outbound(connections=64, timeout_s=60, allow_private=True, max_redirects=0)
    async with receiving(never) as hanging, receiving() as good:
        stuck = [asyncio.create_task(outbound.post(hanging.url, b"{}", {})) for _ in range(100)]
        await hanging.until(lambda it: it.open_now >= 16)
        await outbound.post(good.url, b"{}", {})
        assert not any(each.done() for each in stuck)
        assert hanging.most_open == 16
        for each in stuck:
            each.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
    await outbound.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Give the files of a certificate for `localhost` that signs itself, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_is_verified_by_name_though_the_connection_goes_to_an_address(certificate, monkeypatch):
    """The name in the URL is asked for and must be in the certificate; a certificate nobody vouches for is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    asked = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with receiving(tls=context) as receiver:
        strict = Outbound(connections=8, timeout_s=2, allow_private=True, max_redirects=0)
        with pytest.raises(DeliveryError, match="certificate is not valid"):
            await strict.post(receiver.url, b"{}", {})
        await strict.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusting = Outbound(connections=8, timeout_s=2, allow_private=True, max_redirects=0)
        await trusting.post(receiver.url, b"{}", {})
        with pytest.raises(DeliveryError, match="certificate is not valid"):
            await trusting.post(receiver.url.replace("localhost", "127.0.0.1"), b"{}", {})
        await trusting.close()
        assert asked[:2] == ["localhost", "localhost"]
        assert receiver.posts[0].headers["host"].startswith("localhost:")
