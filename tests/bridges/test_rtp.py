"""The RTP port: which packets make a call, who may make one, and what ends it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import count
from struct import pack

import pytest
import structlog

from legs import Calls
from vivavoce.bridges import refusals, rtp
from vivavoce.bridges.refusals import Refusals
from vivavoce.bridges.rtp import MAX_STRANGERS, RtpBridge
from vivavoce.config import load_settings
from vivavoce.errors import INVALID, CapacityError, InvalidConfig, NotAllowed, SetupError, StoreError
from vivavoce.runtime.mailbox import Ending

HOST, PORT = "192.0.2.1", 4000
PACKET = 160


def packet(number, *, ssrc=1, kind=0):
    return pack("!BBHII", 0x80, kind, number % 65536, number * PACKET, ssrc) + b"\xff" * PACKET


@asynccontextmanager
async def door_for(calls, **settings):
    door = RtpBridge(calls, load_settings(**{"rtp_timeout": 0.3, "bridge_allow": HOST, **settings}))
    try:
        yield door
    finally:
        await door.close()


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def say_until(door, true):
    """Go on sending one stream, without a pause."""
    async with asyncio.timeout(60):
        for number in count(100):
            if true():
                return
            door.hear(packet(number), HOST, PORT)
            await asyncio.sleep(0.01)


async def test_a_call_is_born_with_the_second_of_two_packets_in_sequence():
    """The first packet's audio is kept; the call is named by address, port and SSRC, and knows them as metadata."""
    calls = Calls()
    async with door_for(calls, bridge_parameters="language=en&metadata.line=7") as door:
        door.hear(packet(0), HOST, PORT)
        door.hear(packet(9), HOST, PORT)
        door.hear(packet(9), HOST, PORT + 1)
        await asyncio.sleep(0)
        assert calls.calls == []
        door.hear(packet(10), HOST, PORT)
        await until(lambda: calls.legs and len(calls.legs[0].fed) == 2 * 2 * PACKET)
    (call,) = calls.calls
    assert (call.bridge, call.id) == ("rtp", "192.0.2.1:4000/00000001")
    assert call.request["custom_metadata"] == {"line": "7", "rtp_source": "192.0.2.1:4000", "rtp_ssrc": "00000001"}
    assert call.request["language_config"] == {"languages": ["en"]}
    assert (call.request["encoding"], call.request["sample_rate"], call.request["channels"]) == ("wav/pcm", 8000, 1)


async def test_silence_on_the_line_hangs_up_and_the_next_packets_call_again():
    """After `rtp_timeout` without packets the session is stopped; the same sender may come back later."""
    calls = Calls()
    async with door_for(calls) as door:
        for number in (1, 2):
            door.hear(packet(number * 100), HOST, PORT)
            door.hear(packet(number * 100 + 1), HOST, PORT)
            await until(lambda count=number: len(calls.legs) == count)
            await calls.legs[-1].dropped.wait()
            assert calls.legs[-1].hung_up


async def test_a_stream_whose_session_has_ended_is_ignored_while_it_goes_on():
    """A session that ends by itself, by its longest time say, does not begin again with the next packet."""
    calls = Calls()
    async with door_for(calls, rtp_timeout=1) as door:
        door.hear(packet(0), HOST, PORT)
        door.hear(packet(1), HOST, PORT)
        await until(lambda: calls.legs)
        calls.legs[0].ended.set_result(Ending.FINISHED)
        await calls.legs[0].dropped.wait()
        for number in range(2, 80):
            door.hear(packet(number), HOST, PORT)
            await asyncio.sleep(0.02)
    assert len(calls.legs) == 1
    assert not calls.legs[0].hung_up


@pytest.mark.parametrize("error", [NotAllowed("not here"), CapacityError("full")])
async def test_a_refused_stream_is_asked_about_once(error):
    """Strangers, and callers for whom there is no room, are not answered however much they send."""
    calls = Calls(error)
    async with door_for(calls) as door:
        door.hear(packet(0), HOST, PORT)
        door.hear(packet(1), HOST, PORT)
        await calls.news.wait()
        await asyncio.sleep(0)
        calls.error = None
        for number in range(2, 20):
            door.hear(packet(number), HOST, PORT)
            await asyncio.sleep(0)
    assert calls.calls == []


@pytest.mark.parametrize("error", [CapacityError("full"), StoreError("locked")])
async def test_a_call_for_which_there_was_no_room_is_answered_while_it_goes_on(monkeypatch, error):
    """One bad moment does not make the server deaf to a stream that never pauses."""
    monkeypatch.setattr(rtp, "RETRY_S", 0.1)
    calls = Calls(error)
    async with door_for(calls, rtp_timeout=60) as door:
        await say_until(door, calls.news.is_set)
        calls.error = None
        await say_until(door, lambda: calls.legs)


async def test_a_stream_that_was_one_too_many_is_answered_when_another_has_ended(monkeypatch):
    """`rtp_streams` bounds how many there are at once, not who may be next."""
    monkeypatch.setattr(rtp, "RETRY_S", 0.1)
    calls = Calls()
    async with door_for(calls, rtp_streams=1, rtp_timeout=60) as door:
        door.hear(packet(0, ssrc=2), HOST, PORT)
        door.hear(packet(1, ssrc=2), HOST, PORT)
        await until(lambda: calls.legs)
        door.hear(packet(0), HOST, PORT)
        door.hear(packet(1), HOST, PORT)
        calls.legs[0].ended.set_result(Ending.FINISHED)
        await say_until(door, lambda: len(calls.legs) == 2)
    assert calls.calls[1].id.endswith("/00000001")


async def test_strangers_take_no_place_from_those_who_may_call():
    """An address that may not call is turned away before anything is made for it; this machine's own is asked about."""
    calls = Calls()
    async with door_for(calls, rtp_streams=1, rtp_timeout=60) as door:
        for host in ("198.51.100.7", "127.0.0.1"):
            door.hear(packet(0), host, PORT)
            door.hear(packet(1), host, PORT)
            await asyncio.sleep(0)
            assert calls.news.is_set() is bool(door._streams) is (host == "127.0.0.1")


async def test_the_server_going_down_lets_go_without_hanging_up():
    """The session stays for the next process, to which the stream will go on sending."""
    calls = Calls()
    async with door_for(calls) as door:
        door.hear(packet(0), HOST, PORT)
        door.hear(packet(1), HOST, PORT)
        await until(lambda: calls.legs)
    assert calls.legs[0].dropped.is_set()
    assert not calls.legs[0].hung_up


async def test_streams_and_strangers_have_bounds():
    """More streams than `rtp_streams` are not answered, and a flood of sources is forgotten, the oldest first."""
    calls = Calls()
    async with door_for(calls, rtp_streams=2, rtp_timeout=60) as door:
        for ssrc in range(3):
            door.hear(packet(0, ssrc=ssrc), HOST, PORT)
            door.hear(packet(1, ssrc=ssrc), HOST, PORT)
        door.hear(packet(0, ssrc=99), HOST, PORT)
        for ssrc in range(100, 100 + MAX_STRANGERS):
            door.hear(packet(0, ssrc=ssrc), HOST, PORT)
        assert len(door._strangers) == MAX_STRANGERS
        door.hear(packet(1, ssrc=99), HOST, PORT)
        await until(lambda: len(calls.legs) == 2)
    assert len(calls.legs) == 2


async def test_a_port_that_is_taken_is_one_clear_line():
    """The error names the address and the setting."""
    async with door_for(Calls(), rtp_listen="127.0.0.1:0") as door:
        await door.open()
        port = door._transport.get_extra_info("sockname")[1]
        async with door_for(Calls(), rtp_listen=f"127.0.0.1:{port}") as second:
            with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port}: .* --rtp-listen"):
                await second.open()


async def test_the_log_says_why_a_stream_is_refused_and_seldom():
    """The parameter that is wrong, or the payload type that nobody knows; one packet alone may be anything."""
    calls = Calls(InvalidConfig(INVALID, ["language must be known"]))
    with structlog.testing.capture_logs() as lines:
        async with door_for(calls, bridge_allow=f"{HOST},192.0.2.2") as door:
            for number, kind in enumerate((13, 101, 97, 0, 97)):
                door.hear(packet(number, kind=kind), HOST, PORT)
            assert lines == []
            for number in range(5, 8):
                door.hear(packet(number, kind=97), HOST, PORT)
            door._refusals._logged_at = float("-inf")
            door.hear(packet(0), "192.0.2.2", PORT)
            door.hear(packet(1), "192.0.2.2", PORT)
            await until(lambda: len(lines) == 2)
    assert [(line["event"], line["log_level"], line["peer"], line["reason"]) for line in lines] == [
        ("call refused", "warning", HOST, "payload type 97 is not known; say what it means with --rtp-types"),
        ("call refused", "warning", "192.0.2.2", "language must be known"),
    ]


async def test_refusals_are_logged_once_a_minute_for_a_peer_and_once_a_second_for_all(monkeypatch):
    """Neither one sender nor many fill the log, and what is remembered of them has a bound."""
    monkeypatch.setattr(refusals, "LOG_EVERY_S", 0)
    monkeypatch.setattr(refusals, "MAX_PEERS", 2)
    noted = Refusals("rtp")
    with structlog.testing.capture_logs() as lines:
        for peer in "aabcba":
            noted.log(peer, "why")
        monkeypatch.setattr(refusals, "LOG_EVERY_S", 60)
        noted.log("d", "why")
    assert [line["peer"] for line in lines] == ["a", "b", "c", "a"]
    assert len(noted._logged) == 2


async def test_a_port_that_nobody_could_call_is_not_opened():
    """Where other machines can reach the port, somebody must be named who may."""
    async with door_for(Calls(), rtp_listen="0.0.0.0:0", bridge_allow="") as door:
        with pytest.raises(SetupError, match=r"--rtp-listen .*0\.0\.0\.0 is open.*--bridge-allow"):
            await door.open()


async def test_nothing_listens_by_default():
    """Without `rtp_listen` no port is opened."""
    async with door_for(Calls()) as door:
        await door.open()
        assert door._transport is None
