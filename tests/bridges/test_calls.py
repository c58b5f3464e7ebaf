"""A call's leg keeps its session while transports come and go, and only those who may call are answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.websockets import WebSocket

import recordings
from vivavoce.bridges import calls as bridged
from vivavoce.bridges.calls import Call, Calls, parameters_of
from vivavoce.config import Settings
from vivavoce.errors import NotAllowed, RateExceeded, SetupError, StoreError, Unauthorized, Unsupported
from vivavoce.model import SessionRecord, Status
from vivavoce.reception.access import Access, Caller, new_key
from vivavoce.reception.origin import peer_of
from vivavoce.runtime.hub import Hub
from vivavoce.runtime.mailbox import Ending
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore
from vivavoce.wire import protocol
from vivavoce.wire.call import request_of

SPEECH = recordings.pcm16(recordings.wheel_recording("clone-test"))
LOCAL = Caller(owner="local")
REQUEST = request_of({}, encoding="wav/pcm", sample_rate=16_000, metadata={"call": "1"})


@asynccontextmanager
async def answering(directory: Path, **fields: Any) -> AsyncIterator[tuple[Calls, Hub]]:
    """Give the calls of a process, which ends with the block."""
    settings = Settings(data_dir=directory, **fields)
    store = await SqlStore.open(settings.store_url)
    audio = LocalAudio(directory / "audio")
    hub = await Hub.open(settings, store=store, audio=audio, wire=protocol)
    try:
        await hub.ready()
        yield Calls(hub, Access(store, settings), settings), hub
    finally:
        await hub.close()
        audio.close()
        await store.close()


def call(request: Mapping[str, Any] = REQUEST, caller: Caller = LOCAL) -> Call:
    return Call(bridge="test", id="one", caller=caller, request=request)


async def test_a_leg_that_comes_back_goes_on_with_its_session_on_the_clock_of_the_call(tmp_path):
    """The time away becomes silence, also for the next process, and the call's words come once."""
    async with answering(tmp_path) as (calls, hub):
        began, said_s = time.monotonic(), len(SPEECH) / 32_000
        leg = await calls.answer(call())
        await leg.feed(SPEECH)
        leg.drop()
        again = await calls.answer(call())
        assert again.session_id == leg.session_id
        # Nothing, where all of it came faster than it was said.
        assert 0 <= again.away_s <= max(0.0, time.monotonic() - began - said_s)
        again.drop()
        session = hub.find_leg("local", "test/one")
        assert session is not None
        assert session._zero_at is not None
        session._zero_at -= said_s + 3
        third = await calls.answer(call())
        assert 3 <= third.away_s <= 3 + time.monotonic() - began
        third.drop()
    async with answering(tmp_path) as (calls, hub):
        last = await calls.answer(call())
        assert last.session_id == leg.session_id
        await last.hang_up()
        assert await asyncio.wait_for(last.ended, 60) is Ending.FINISHED
        record = await hub.store.session(leg.session_id)
        assert record is not None
        assert record.status is Status.DONE
        text = "".join(final.text for final in await hub.store.finals(leg.session_id))
        assert text.lower().count("america") == 1


async def test_a_door_that_listens_gets_messages_and_a_call_after_the_stop_is_a_new_one(tmp_path):
    async with answering(tmp_path) as (calls, _):
        leg = await calls.answer(call(), listens=True)
        await leg.feed(SPEECH)
        await leg.hang_up()
        other = await calls.answer(call())
        assert other.session_id != leg.session_id
        types = []
        while isinstance(item := await asyncio.wait_for(leg.take(), 60), str):
            types.append(json.loads(item)["type"])
        assert item is Ending.FINISHED
        assert "transcript" in types
        assert "audio_chunk" not in types


async def test_a_leg_that_comes_back_in_another_format_is_a_new_call(tmp_path):
    """Its bytes would be noise in the old session."""
    async with answering(tmp_path) as (calls, _):
        wide = await calls.answer(call())
        await wide.feed(SPEECH[:3200])
        wide.drop()
        narrow = await calls.answer(call(request_of({}, encoding="wav/ulaw", sample_rate=8000, metadata={})))
        assert narrow.session_id != wide.session_id


async def test_two_transports_at_once_are_one_session(tmp_path):
    async with answering(tmp_path) as (calls, _):
        one, other = await asyncio.gather(calls.answer(call()), calls.answer(call()))
        assert one.session_id == other.session_id


async def test_a_call_outlives_a_write_that_was_lost(tmp_path):
    """What could not be stored is silence; nobody hangs up."""
    async with answering(tmp_path) as (calls, hub):
        leg = await calls.answer(call())
        await leg.feed(SPEECH[:32_000])
        session = hub.find_leg("local", "test/one")
        assert session is not None
        session._on_lost(StoreError("the disk is full"))
        session._zero_at -= 2
        await leg.feed(SPEECH[32_000:64_000])
        assert leg.away_s >= 1
        assert not leg.ended.done()
        await leg.hang_up()
        leg.drop()
        record = await ended(hub, leg.session_id)
        assert record.audio_bytes == pytest.approx(64_000 + leg.away_s * 32_000, abs=64)


async def test_a_call_on_hold_is_kept_and_its_time_goes_on(tmp_path, monkeypatch):
    """Silence stands for what does not come; a network that stamps its audio is only kept."""
    monkeypatch.setattr(bridged, "QUIET_S", 0.0)
    async with answering(tmp_path) as (calls, hub):
        leg = await calls.answer(call())
        await leg.feed(SPEECH[:3200])
        session = hub.find_leg("local", "test/one")
        assert session is not None
        session._zero_at -= 5
        await leg.keep_time(fill=False)
        assert session.missed_s > 4
        await leg.keep_time(fill=True)
        assert session.missed_s < 1
        assert not leg.ended.done()


async def test_a_call_that_brings_nothing_is_ended(tmp_path, monkeypatch):
    """After the idle time; one whose audio is stamped only where none ever came, as it sends nothing on hold."""
    monkeypatch.setattr(bridged, "QUIET_S", 0.0)
    async with answering(tmp_path, idle_timeout=30) as (calls, _):
        for fill, speaks, ends in ((True, True, True), (False, False, True), (False, True, False)):
            leg = await calls.answer(call())
            if speaks:
                await leg.feed(SPEECH[:3200])
            await leg.keep_time(fill=fill)
            assert not leg._session.stopped
            leg._fed_at -= 31
            await leg.keep_time(fill=fill)
            assert leg._session.stopped is ends
            if ends:
                assert await asyncio.wait_for(leg.ended, 60) is Ending.FINISHED


async def test_a_call_remembers_one_place_only(tmp_path):
    """It never says where it goes on, so ends of acknowledgments are not kept for it."""
    async with answering(tmp_path) as (calls, hub):
        leg = await calls.answer(call())
        for at in range(0, 64_000, 640):
            await leg.feed(SPEECH[at : at + 640])
        await leg.hang_up()
        leg.drop()
        record = await ended(hub, leg.session_id)
        assert record.audio_bytes == 64_000
        assert record.ack_ends == (64_000,)


async def ended(hub: Hub, session_id: str) -> SessionRecord:
    """Give a session's record once it is done."""
    async with asyncio.timeout(60):
        while True:
            record = await hub.store.session(session_id)
            assert record is not None
            if record.status is Status.DONE:
                return record
            await asyncio.sleep(0.05)


async def test_a_newer_transport_of_the_same_leg_replaces_the_older(tmp_path):
    async with answering(tmp_path) as (calls, _):
        older = await calls.answer(call())
        newer = await calls.answer(call())
        assert newer.session_id == older.session_id
        assert await older.ended is Ending.REPLACED
        assert not newer.ended.done()


async def test_calls_name_callbacks_only_where_that_is_allowed(tmp_path):
    asked = request_of({"callback_url": "https://example.org"}, encoding="wav/pcm", sample_rate=16_000, metadata={})
    async with answering(tmp_path) as (calls, _):
        with pytest.raises(Unsupported, match="--bridge-callbacks"):
            await calls.answer(call(asked))


def test_a_callback_for_every_call_needs_callbacks_to_be_allowed_before_the_server_starts():
    asked = "callback_url=https://example.org"
    with pytest.raises(SetupError, match=r"--bridge-parameters.*--bridge-callbacks"):
        parameters_of(Settings(bridge_parameters=asked))
    assert parameters_of(Settings(bridge_parameters=asked, bridge_callbacks=True)) == {
        "callback_url": "https://example.org"
    }


def socket(
    peer: str,
    origin: str | None = None,
    headers: Mapping[str, str] | None = None,
    forwarded: Sequence[str] = (),
    **query: str,
) -> WebSocket:
    """Give a socket as it stands before it is accepted, with a line of `X-Forwarded-For` for each of `forwarded`."""
    text = "&".join(f"{name}={value}" for name, value in query.items())
    said = {"host": "localhost:8080", **({} if origin is None else {"origin": origin}), **(headers or {})}
    lines = [*said.items(), *(("x-forwarded-for", hops) for hops in forwarded)]
    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in lines],
        "query_string": text.encode(),
        "client": (peer, 4000),
    }

    async def unused(*_: object) -> Any:
        raise AssertionError("nothing is read or written before a call is admitted")

    return WebSocket(scope, unused, unused)


@pytest.mark.parametrize(
    ("peer", "forwarded", "judged"),
    [
        ("203.0.113.9", ["127.0.0.1"], "203.0.113.9"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3, 203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["10.1.2.3, 203.0.113.9, 192.0.2.1", "127.0.0.1"], "203.0.113.9"),
    ],
)
def test_a_caller_is_who_the_nearest_trusted_proxy_says(peer, forwarded, judged):
    """What a client wrote into the header itself stands further to the left, or in a line above."""
    assert peer_of(socket(peer, forwarded=forwarded), Settings(trusted_proxies="127.0.0.1,192.0.2.1")) == judged


async def test_calls_are_admitted_by_key_signature_address_or_from_this_machine(tmp_path):
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    try:
        key, secret = new_key("calls")
        settings = Settings(data_dir=tmp_path, bridge_owner=key.id, bridge_allow="10.0.0.0/8")
        calls = Calls(None, Access(store, settings), settings)  # type: ignore[arg-type] - admitting needs no hub
        assert (await calls.admit(socket("127.0.0.1"))).owner == "local"
        with pytest.raises(NotAllowed):
            await calls.admit(socket("192.0.2.1"))
        await store.add_key(key)
        calls = Calls(None, Access(store, settings), settings)  # type: ignore[arg-type]
        assert (await calls.admit(socket("192.0.2.1", api_key=secret))).owner == key.id
        assert (await calls.admit(socket("192.0.2.1"), key=secret)).owner == key.id
        assert (await calls.admit(socket("192.0.2.1"), signed=True)).owner == key.id
        assert (await calls.admit(socket("10.1.2.3"))).owner == key.id
        with pytest.raises(NotAllowed, match="web page"):
            await calls.admit(socket("10.1.2.3", origin="https://evil.example"))
        assert (await calls.admit(socket("10.1.2.3", origin="http://localhost:3000"))).owner == key.id
        for stranger in ("127.0.0.1", "192.0.2.1"):
            with pytest.raises(NotAllowed):
                await calls.admit(socket(stranger))
        with pytest.raises(NotAllowed, match="needs a key in the first message"):
            await calls.admit(socket("192.0.2.1"), ways="a key in the first message")
        with pytest.raises(Unauthorized):
            await calls.admit(socket("10.1.2.3"), key="wrong")
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("peer", "headers", "admitted"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {"host": "[::1]:8080"}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("127.0.0.1", {"host": "speech.example.net"}, False),
        ("::ffff:127.0.0.1", {"host": "speech.example.net"}, False),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.1"}, False),
        ("127.0.0.1", {"forwarded": "for=192.0.2.1"}, False),
        ("10.1.2.3", {"host": "speech.example.net", "x-forwarded-for": "192.0.2.1"}, True),
        ("127.0.0.9", {"host": "speech.example.net", "x-forwarded-for": "10.1.2.3"}, True),
        ("127.0.0.9", {"host": "speech.example.net", "x-forwarded-for": "192.0.2.1"}, False),
        ("127.0.0.9", {"host": "speech.example.net"}, False),
    ],
)
async def test_a_proxy_on_this_machine_lets_nobody_in_by_its_own_address(tmp_path, peer, headers, admitted):
    """Who comes through a tunnel comes from loopback as well; a trusted proxy's word is taken."""
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    try:
        key, secret = new_key("calls")
        await store.add_key(key)
        settings = Settings(
            data_dir=tmp_path,
            bridge_owner=key.id,
            bridge_allow="10.0.0.0/8,127.0.0.0/8,::1",
            trusted_proxies="127.0.0.9",
        )
        calls = Calls(None, Access(store, settings), settings)  # type: ignore[arg-type] - admitting needs no hub
        assert (await calls.admit(socket(peer, headers=headers), key=secret)).owner == key.id
        if admitted:
            assert (await calls.admit(socket(peer, headers=headers))).owner == key.id
        else:
            with pytest.raises(NotAllowed):
                await calls.admit(socket(peer, headers=headers))
    finally:
        await store.close()


async def test_every_call_counts_once_against_the_rate_of_its_key(tmp_path):
    """By whatever door it comes; a key with two calls to spend has none for a third."""
    store = await SqlStore.open(f"sqlite:///{tmp_path}/vivavoce.sqlite3")
    try:
        key, secret = new_key("calls", rate=0.2)
        await store.add_key(key)
        settings = Settings(data_dir=tmp_path, bridge_owner=key.id, bridge_allow="10.0.0.0/8")

        def calls() -> Calls:
            return Calls(None, Access(store, settings), settings)  # type: ignore[arg-type] - admitting needs no hub

        for admit in (
            lambda door: door.admit_peer("10.1.2.3"),
            lambda door: door.admit(socket("10.1.2.3")),
            lambda door: door.admit(socket("192.0.2.1"), key=secret),
        ):
            door = calls()
            for _ in range(2):
                await admit(door)
            with pytest.raises(RateExceeded):
                await admit(door)
    finally:
        await store.close()
