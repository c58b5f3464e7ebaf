"""The SIP door, message by message: who may call, what is agreed, and that lost or forged datagrams break nothing."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from struct import pack

import pytest
import structlog
from aiosipua import transaction
from aiosipua.message import SipRequest

from legs import Calls
from phone import OFFER, Phone, authorization, status
from vivavoce.bridges.sip import SipBridge, warning
from vivavoce.bridges.sip_digest import NONCE_S, Digest
from vivavoce.config import load_settings
from vivavoce.errors import CapacityError, NotAllowed, RateExceeded, SetupError, StoreError
from vivavoce.runtime.mailbox import Ending

PACKET = 160


@asynccontextmanager
async def ringing(calls, **settings):
    """Give an open door and a telephone."""
    door = SipBridge(calls, load_settings(sip_listen="127.0.0.1:0", **settings))
    await door.open()
    phone = Phone(door._port.local_addr)
    try:
        yield door, phone
    finally:
        await door.close()
        phone.socket.close()


def talk(answer, kind=8):
    """Send audio to where an answer says."""
    port = int(re.search(r"m=audio (\d+) ", answer)[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        for number in range(2):
            header = pack("!BBHII", 0x80, kind, number, number * PACKET, 1)
            media.sendto(header + b"\xd5" * PACKET, ("127.0.0.1", port))


async def until(true):
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_call_is_answered_with_the_callers_first_codec_that_we_take_and_its_audio_is_fed():
    """PCMA before PCMU, events of the keypad aside, audio to a port of the call's own; BYE ends the session."""
    calls = Calls()
    async with ringing(calls) as (_, phone):
        answer = await phone.call(headers=["X-Vivavoce-Language: en", "Record-Route: <sip:127.0.0.1:1;lr>"])
        assert status(answer) == 200
        port = int(re.search(r"m=audio (\d+) RTP/AVP 8 101\r", answer)[1])
        assert "a=recvonly" in answer
        assert "a=sendrecv" not in answer
        assert "Record-Route: <sip:127.0.0.1:1;lr>" in answer
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
            for number in range(3):
                header = pack("!BBHII", 0x80, 8, number, number * PACKET, 1)
                media.sendto(header + b"\xd5" * PACKET, ("127.0.0.1", port))
            await until(lambda: len(calls.legs[0].fed) == 3 * 2 * PACKET)
        await phone.say("BYE", 2)
        assert status(await phone.hear()) == 200
        await calls.legs[0].dropped.wait()
    assert calls.legs[0].hung_up
    (call,) = calls.calls
    assert (call.bridge, call.id, call.request["sample_rate"]) == ("sip", "one", 8000)
    assert call.request["language_config"] == {"languages": ["en"]}
    assert call.request["custom_metadata"] == {
        "sip_call_id": "one",
        "sip_from": "sip:alice@example.net",
        "sip_to": "sip:desk@example.net",
    }


async def test_a_request_that_comes_again_gets_the_same_answer_and_makes_no_second_call():
    """Over UDP answers are lost; the caller's repeats are told apart from new requests."""
    calls = Calls()
    async with ringing(calls) as (_, phone):
        for _ in range(3):
            await phone.say("INVITE", 1, body=OFFER)
        first, again = await phone.hear(), await phone.hear()
        assert (status(first), again) == (200, first)
        await phone.say("ACK", 1, branch="ack")
        for _ in range(2):
            await phone.say("BYE", 2)
        answers = [await phone.hear() for _ in range(2)]
        while any("INVITE" in each for each in answers):  # repeats of the first answer on their way
            answers = [each for each in answers if "INVITE" not in each] + [await phone.hear()]
        assert [status(each) for each in answers] == [200, 200]
    assert len(calls.calls) == 1


async def test_a_change_of_the_call_is_answered_and_hold_keeps_it():
    """A re-INVITE that stops the audio is answered inactive; silence ends a call neither on hold nor right after it."""
    calls = Calls()
    async with ringing(calls, sip_timeout=1) as (_, phone):
        await phone.call()
        await phone.say("INVITE", 2, body=OFFER + "a=inactive\r\n")
        answer = await phone.hear()
        assert status(answer) == 200
        assert "a=inactive" in answer
        assert re.search(r"o=- \d+ 2 ", answer)
        await phone.say("ACK", 2, branch="ack2")
        await asyncio.sleep(1.5)
        assert not calls.legs[0].hung_up
        await phone.say("INVITE", 3, body=OFFER.replace(" 9 8 0", " 9"))
        refused = await phone.hear()
        assert status(refused) == 488
        assert 'Warning: 399 vivavoce "audio in G722, telephone-event is not taken, only in PCMU or PCMA"' in refused
        await phone.say("ACK", 3, branch="INVITE3one")
        await phone.say("INVITE", 4, body=OFFER)
        answer = await phone.hear()
        assert status(answer) == 200
        await phone.say("ACK", 4, branch="ack4")
        await until(lambda: talk(answer) or calls.legs[0].fed)
        bye = await phone.hear()
        assert bye.startswith("BYE ")
        await calls.legs[0].dropped.wait()
    assert calls.legs[0].hung_up


async def test_a_question_within_a_call_is_answered_under_its_name():
    """OPTIONS gets the methods that are known; the tags of the call stay as they are."""
    async with ringing(Calls()) as (_, phone):
        await phone.call()
        tag = phone.tag
        await phone.say("OPTIONS", 2)
        answer = await phone.hear()
        assert status(answer) == 200
        assert re.search(rf"^To: [^;]*;tag={tag}\r$", answer, re.MULTILINE)
        assert re.search(r"^Allow: .*INVITE", answer, re.MULTILINE)


async def test_a_cancelled_call_leaves_no_session_running():
    """CANCEL before the answer ends both: 487 for the INVITE, and the session that was being made is stopped."""
    calls = Calls()
    calls.may_answer.clear()
    async with ringing(calls) as (_, phone):
        await phone.say("INVITE", 1, body=OFFER, branch="x")
        await calls.news.wait()
        await asyncio.sleep(0.1)
        await phone.say("CANCEL", 1, branch="x")
        assert sorted([status(await phone.hear()), status(await phone.hear())]) == [200, 487]
        calls.may_answer.set()
        await until(lambda: calls.legs and calls.legs[0].dropped.is_set())
    assert calls.legs[0].hung_up


@pytest.mark.parametrize(
    ("error", "offer", "expected"),
    [
        (NotAllowed("no"), OFFER, 403),
        (CapacityError("full"), OFFER, 486),
        (RateExceeded("too often"), OFFER, 486),
        (None, OFFER.replace(" 9 8 0", " 9"), 488),
        (None, OFFER.replace("m=audio", "m=video"), 488),
    ],
    ids=["stranger", "full", "too often", "no codec", "no audio"],
)
async def test_a_refusal_is_repeated_until_it_is_acknowledged(error, offer, expected):
    """Callers who may not, or cannot, be answered are told so, even where the first telling is lost."""
    calls = Calls(error)
    async with ringing(calls) as (door, phone):
        await phone.say("INVITE", 1, body=offer, branch="x")
        assert [status(await phone.hear()), status(await phone.hear())] == [expected, expected]
        await phone.say("ACK", 1, branch="x")
        await until(lambda: not door._port._repeats)
        assert door._lines == door._callers == door._uas.active_calls == {}
    assert calls.calls == []


async def test_a_call_that_fails_after_it_was_answered_is_hung_up(monkeypatch):
    """What was answered cannot be refused any more: the caller gets BYE, and the session is stopped."""

    async def broken(*_):
        raise StoreError("locked")

    calls = Calls()
    async with ringing(calls) as (door, phone):
        answer = await phone.call()
        monkeypatch.setattr(calls.legs[0], "feed", broken)
        port = int(re.search(r"m=audio (\d+) ", answer)[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
            for number in range(2):
                header = pack("!BBHII", 0x80, 8, number, number * PACKET, 1)
                media.sendto(header + b"\xd5" * PACKET, ("127.0.0.1", port))
            assert (await phone.hear()).startswith("BYE ")
        await calls.legs[0].dropped.wait()
        await until(lambda: not door._lines)
    assert calls.legs[0].hung_up


async def test_a_call_about_which_nobody_can_be_asked_is_answered_all_the_same(monkeypatch):
    """Where the store is out of order the caller is told so, and the call takes no place."""

    async def broken(*_, **__):
        raise StoreError("locked")

    calls = Calls()
    monkeypatch.setattr(calls, "admit_peer", broken)
    async with ringing(calls) as (door, phone):
        await phone.say("INVITE", 1, body=OFFER)
        assert status(await phone.hear()) == 500
        await phone.say("ACK", 1, branch="INVITE1one")
        assert door._callers == door._lines == {}


async def test_a_password_opens_the_door_and_a_wrong_one_does_not():
    """Digest: the challenge is answered for one call by one who knows the password, also from a strange address."""
    calls = Calls(NotAllowed("no"))
    async with ringing(calls, sip_users="bob:other, alice:secret") as (_, phone):
        await phone.say("INVITE", 1, body=OFFER, branch="x1")
        asked = await phone.hear()
        assert status(asked) == 401
        await phone.say("ACK", 1, branch="x1")
        right = authorization(asked, "secret")
        forged = right.replace(re.search(r'nonce="(\w+)', right)[1], "9")
        attempts = [
            ("wrong", authorization(asked, "wrong")),
            ("forged", forged),
            ("nonsense", "Authorization: Digest é="),
        ]
        for branch, header in attempts:
            await phone.say("INVITE", 2, body=OFFER, branch=branch, headers=[header])
            assert status(await phone.hear()) == 401
            await phone.say("ACK", 2, branch=branch)
        await phone.say("INVITE", 2, body=OFFER, branch="other", call="two", headers=[right])
        assert status(await phone.hear()) == 401
        await phone.say("ACK", 2, branch="other", call="two")
        calls.error = None
        assert status(await phone.call(branch="x2", headers=[right])) == 200
    assert [call.id for call in calls.calls] == ["one"]


async def test_wrong_passwords_are_logged_now_and_then_and_who_was_not_asked_yet_is_not():
    """A telephone that sends none at first has done nothing wrong."""
    with structlog.testing.capture_logs() as lines:
        async with ringing(Calls(), sip_users="alice:secret") as (door, phone):
            lines.clear()
            await phone.say("INVITE", 1, body=OFFER, branch="x1")
            asked = await phone.hear()
            assert lines == []
            for number in range(5):
                header = authorization(asked, f"guess{number}")
                await phone.say("INVITE", 2, body=OFFER, branch=f"g{number}", headers=[header])
            await until(lambda: len(door._port._seen) == 6 and not door._port._tasks)
    reason = "the password is wrong, or its challenge is too old"
    assert [(line["event"], line["peer"], line["status"], line["reason"]) for line in lines] == [
        ("call refused", "127.0.0.1", 401, reason)
    ]


def test_an_answer_is_good_for_its_call_its_address_and_a_minute():
    """Overheard, it opens nothing for anybody elsewhere, and nothing later."""
    digest = Digest({"alice": "secret"})
    asked = SipRequest(method="INVITE", uri="sip:desk@127.0.0.1")
    asked.headers.append("Call-ID", "one")
    header = authorization(f"WWW-Authenticate: {digest.challenge(asked, '192.0.2.1', 100.0)}\r\n", "secret")
    for call, source, at, good in [
        ("one", "192.0.2.1", 101.0, True),
        ("one", "192.0.2.2", 101.0, False),
        ("two", "192.0.2.1", 101.0, False),
        ("one", "192.0.2.1", 100.0 + NONCE_S, False),
    ]:
        answered = SipRequest(method="INVITE", uri="sip:desk@127.0.0.1")
        answered.headers.append("Call-ID", call)
        answered.headers.append("Authorization", header.removeprefix("Authorization: "))
        assert digest.is_answered(answered, source, at) is good


async def test_an_allowed_address_needs_no_password():
    """What `bridge_allow` names is the exchange, which has no user of its own."""
    async with ringing(Calls(), sip_users="alice:secret", bridge_allow="127.0.0.1") as (_, phone):
        assert status(await phone.call()) == 200


async def test_a_session_that_ends_first_says_goodbye_until_that_is_heard():
    """BYE goes out again until it is answered."""
    calls = Calls()
    async with ringing(calls) as (door, phone):
        await phone.call()
        calls.legs[0].ended.set_result(Ending.FINISHED)
        bye, again = await phone.hear(), await phone.hear()
        assert bye.startswith("BYE ")
        assert again == bye
        via = re.search(r"^(Via: .*)\r$", bye, re.MULTILINE)[1]
        ok = f"SIP/2.0 200 OK\r\n{via}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
        await asyncio.get_running_loop().sock_sendto(phone.socket, ok.encode(), phone.to)
        await until(lambda: not door._port._repeats)
        assert door._uas.active_calls == {}


async def test_an_answer_that_is_never_acknowledged_ends_the_call(monkeypatch):
    """The session is stopped, place and port are free for the next call, and a caller who still hears is told."""
    monkeypatch.setattr(transaction, "T1", 0.05)
    monkeypatch.setattr(transaction, "TIMER_H", 0.4)
    calls = Calls()
    async with ringing(calls, sip_calls=1, sip_timeout=600) as (door, phone):
        await phone.say("INVITE", 1, body=OFFER)
        answer, again = await phone.hear(), await phone.hear()
        assert (status(answer), again) == (200, answer)
        port = int(re.search(r"m=audio (\d+) ", answer)[1])
        assert not can_be_bound(port)
        await asyncio.wait_for(calls.legs[0].dropped.wait(), 60)
        assert calls.legs[0].hung_up
        await until(lambda: can_be_bound(port))
        assert door._lines == door._callers == door._uas.active_calls == {}
        while not (bye := await phone.hear()).startswith("BYE "):
            assert bye == answer
        assert f";tag={phone.tag}" in bye
        phone.tag = ""
        await phone.say("INVITE", 1, body=OFFER, call="two")
        while "Call-ID: two" not in (answer := await phone.hear()):
            pass  # BYE again
        assert status(answer) == 200
    assert [call.id for call in calls.calls] == ["one", "two"]


def can_be_bound(port):
    """Tell whether a UDP port of this machine is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        try:
            opened.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_the_server_going_down_hangs_up():
    """A call cannot outlive the server: the caller gets BYE, and the session is stopped."""
    calls = Calls()
    async with ringing(calls) as (_, phone):
        await phone.call()
    assert calls.legs[0].hung_up
    assert calls.legs[0].dropped.is_set()


async def test_floods_and_nonsense_leave_the_door_working(monkeypatch):
    """Cut, foreign and half-made messages are let go; what is kept of requests has a bound."""
    monkeypatch.setattr("vivavoce.bridges.sip_port.MAX_TRANSACTIONS", 100)
    calls = Calls()
    async with ringing(calls, sip_calls=2) as (door, phone):
        whole = phone.message("INVITE", 1, body=OFFER, call="cut")
        for size in range(0, len(whole), 7):
            door._port.take(whole[:size].replace(b"z9hG4bK", b"z9hG4bK%d" % size), ("192.0.2.1", 5060))
        for line in (b"Via: x", b"CSeq: x y", b"From: <", b"To: ;;;=", b"Contact: <sip:[::>", b"Content-Length: -5"):
            door._port.take(re.sub(line.split(b":")[0] + b":[^\r]*", line, whole), ("192.0.2.1", 5060))
        for number in range(300):
            door._port.take(phone.message("OPTIONS", 1, branch=number), ("192.0.2.1", 5060))
        assert len(door._port._seen) == 100
        await asyncio.sleep(0.1)
        for number in range(4):
            await phone.say("INVITE", 1, body=OFFER, call=f"c{number}", branch=f"c{number}")
        codes = []
        while len(codes) < 4:
            answer = await phone.hear()
            if answer.split()[1] not in codes or status(answer) == 486:
                codes.append(answer.split()[1])
        assert "486" in codes
        assert len(calls.calls) <= 2


async def test_a_change_of_a_call_that_is_not_there_is_refused_and_forgotten():
    """481, and the user agent never hears of it; otherwise strangers could fill its memory."""
    async with ringing(Calls()) as (door, phone):
        phone.tag = "t1"
        await phone.say("INVITE", 2, body=OFFER, call="none")
        assert status(await phone.hear()) == 481
        assert not door._uas._calls


async def test_answers_go_to_whoever_asked():
    """Not to the address that the message names, which may be a victim's."""
    async with ringing(Calls()) as (_, phone):
        asked = phone.message("OPTIONS", 1).replace(b";rport", b";received=192.0.2.9;rport")
        await asyncio.get_running_loop().sock_sendto(phone.socket, asked, phone.to)
        assert status(await phone.hear()) == 200


async def test_an_offer_that_cannot_be_read_is_refused_and_takes_no_place():
    """400, as often as it comes; a change that cannot be read leaves the call as it was."""
    calls = Calls()
    async with ringing(calls, sip_calls=1) as (door, phone):
        for call in ("bad", "worse"):
            await phone.say("INVITE", 1, body=OFFER.replace("m=audio 45000", "m=audio x"), call=call, branch=call)
            assert status(await phone.hear()) == 400
            await phone.say("ACK", 1, call=call, branch=call)
        assert door._callers == door._lines == {}
        assert status(await phone.call()) == 200
        await phone.say("INVITE", 2, body=OFFER.replace("m=audio 45000", "m=audio x"))
        assert status(await phone.hear()) == 400
        await phone.say("BYE", 3)
        while status(answer := await phone.hear()) == 400:
            pass
        assert status(answer) == 200


async def test_another_invitation_by_the_name_of_a_call_is_a_loop():
    """A Call-ID that is taken, with no tag of ours, is refused and leaves the call alone."""
    calls = Calls()
    async with ringing(calls) as (_, phone):
        await phone.call()
        tag, phone.tag = phone.tag, ""
        await phone.say("INVITE", 1, body=OFFER, branch="other")
        assert status(await phone.hear()) == 482
        await phone.say("ACK", 1, branch="other")
        phone.tag = tag
        await phone.say("BYE", 2)
        assert status(await phone.hear()) == 200
    assert len(calls.calls) == 1


async def test_a_call_without_an_offer_gets_ours():
    """An exchange may leave the offer to us; what it sends is taken by its payload type."""
    async with ringing(Calls()) as (_, phone):
        await phone.say("INVITE", 1)
        answer = await phone.hear()
        assert status(answer) == 200
        assert re.search(r"m=audio \d+ RTP/AVP 0 8 101\r", answer)
        assert "a=recvonly" in answer


async def test_what_an_ack_says_to_our_offer_is_taken():
    """Payload types, the host of the audio and hold are those of the answer; another ACK changes nothing."""
    dynamic = OFFER.replace(" 9 8 0", " 96").replace("a=", "a=rtpmap:96 PCMA/8000\r\na=", 1)
    calls = Calls()
    async with ringing(calls) as (door, phone):
        await phone.say("INVITE", 1)
        answer = await phone.hear()
        await phone.say("ACK", 1, branch="ack", body=dynamic.replace("IP4 127.0.0.1", "IP4 192.0.2.9"))
        line = door._lines["one"]
        await until(lambda: line._hosts == {"127.0.0.1", "192.0.2.9"})
        await until(lambda: talk(answer, 96) or calls.legs[0].fed)
        await phone.say("INVITE", 2, body=OFFER + "a=inactive\r\n")
        assert "a=inactive" in await phone.hear()
        await phone.say("ACK", 2, branch="ack2", body=OFFER)
        await phone.say("INVITE", 3)
        assert "a=recvonly" in await phone.hear()
        assert line.media._silent_s is None
        await phone.say("ACK", 3, branch="ack3", body=OFFER)
        await until(lambda: line.media._silent_s == 60)


async def test_an_invitation_without_an_offer_is_not_answered_with_the_last_one():
    """After a change that was refused we offer to go on with what was agreed, stream for stream."""
    async with ringing(Calls()) as (_, phone):
        await phone.call()
        await phone.say("INVITE", 2, body=OFFER.replace("RTP/AVP", "RTP/SAVP"))
        assert status(await phone.hear()) == 488
        await phone.say("ACK", 2, branch="INVITE2one")
        await phone.say("INVITE", 3)
        answer = await phone.hear()
        assert status(answer) == 200
        assert re.search(r"o=- \d+ 2 ", answer)
        assert re.search(r"m=audio \d+ RTP/AVP 8 101\r", answer)


async def test_what_a_request_requires_and_we_do_not_know_is_named():
    """420, also within a call; reliable answers that are not final may be required, for there are none."""
    async with ringing(Calls()) as (_, phone):
        await phone.say("INVITE", 1, body=OFFER, branch="x", headers=["Require: 100rel, foo", "Require: Bar"])
        answer = await phone.hear()
        assert status(answer) == 420
        assert "Unsupported: foo, Bar\r" in answer
        await phone.say("ACK", 1, branch="x", headers=["Require: foo"])
        assert status(await phone.call(headers=["Require: 100rel"])) == 200
        await phone.say("OPTIONS", 2, headers=["Require: foo"])
        assert status(await phone.hear()) == 420


async def test_a_caller_and_the_log_learn_why_a_call_is_refused():
    """The parameter that is wrong is named; quotes and line ends in it cannot break the header."""
    with structlog.testing.capture_logs() as lines:
        async with ringing(Calls()) as (_, phone):
            await phone.say("INVITE", 1, body=OFFER, branch="x", headers=["X-Vivavoce-Endpointing: abc"])
            answer = await phone.hear()
            await phone.say("ACK", 1, branch="x")
    assert status(answer) == 488
    assert re.search(r'^Warning: 399 vivavoce ".*endpointing.* number"\r$', answer, re.MULTILINE)
    (line,) = [line for line in lines if line["event"] == "call refused"]
    assert (line["log_level"], line["bridge"], line["peer"], line["status"]) == ("warning", "sip", "127.0.0.1", 488)
    assert "endpointing" in line["reason"]
    assert warning('a "b"\r\n\\') == r'399 vivavoce "a \"b\"  \\"'


async def test_a_port_that_nobody_could_call_is_not_opened():
    """Where other machines can reach the port, somebody must be named who may; keys are no good here."""
    with pytest.raises(SetupError, match=r"--sip-listen .*0\.0\.0\.0 is open.*--sip-users or --bridge-allow"):
        await SipBridge(Calls(), load_settings(sip_listen="0.0.0.0:0")).open()


async def test_a_port_that_is_taken_is_one_clear_line():
    """The error names the address and the setting."""
    async with ringing(Calls()) as (door, _):
        port = door._port.local_addr[1]
        second = SipBridge(Calls(), load_settings(sip_listen=f"127.0.0.1:{port}"))
        with pytest.raises(SetupError, match=rf"127\.0\.0\.1:{port}: .* --sip-listen"):
            await second.open()
