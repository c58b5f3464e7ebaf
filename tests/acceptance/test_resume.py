"""Sockets come and go, the session stays: drops, resumed streams, newer sockets, stops that are not forgotten."""

from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from laws import check
from live import (
    PATIENCE_S,
    STOP,
    Json,
    Opened,
    Socket,
    base64_chunk,
    connected,
    is_final,
    once,
    open_session,
    pieces,
    transcribe,
    until_status,
)
from recordings import wheel_recording
from server import serving
from sound import bare, pcm, silence, with_wav_header
from vivavoce.model import SAMPLE_RATE

CHUNK = 3200
SDK_CHUNK = 524_288
SPEECH = pcm(wheel_recording("two_cities")[: round(12.5 * SAMPLE_RATE)])
PHRASE = wheel_recording("beckett")[round(0.1 * SAMPLE_RATE) : round(1.5 * SAMPLE_RATE)]


def last_ack(socket: Socket) -> int:
    """Give where a client that heard this socket goes on after a drop."""
    return max((stop for _, stop in socket.acked), default=0)


@pytest.mark.parametrize("seed", range(6))
async def test_a_dropped_stream_goes_on_where_it_was_acknowledged(server, seed):
    """A client that is cut off at any moment and sends again what was not acknowledged to it loses nothing and doubles
    nothing: file, finals and acknowledgments are those of an undisturbed session.
    """
    random_of = random.Random(seed)
    opened = open_session(server)
    messages: list[Json] = []
    acked = 0
    for _ in range(4):
        async with connected(opened) as socket:
            size = random_of.choice([700, CHUNK, 16_001, SDK_CHUNK])
            goal = acked + random_of.randrange(1000, len(SPEECH) // 6)
            ahead = random_of.choice([0, CHUNK, 50_000])
            for chunk in pieces(SPEECH[acked : goal + ahead], size):
                await socket.send(chunk)
            await socket.acked_up_to(goal)
            await socket.drop()
        messages += socket.messages
        acked = max(acked, last_ack(socket))
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[acked:], SDK_CHUNK), STOP)
        assert await socket.ended() == 1000
    messages += socket.messages
    plain = await transcribe(server, pieces(SPEECH, CHUNK))

    messages = once(messages)
    check([message for message in messages if message["type"] != "transcript" or is_final(message)])
    assert [message["data"] for message in messages if is_final(message)] == plain.finals
    assert server.file(opened.session_id)[44:] == SPEECH
    assert last_ack(socket) == len(SPEECH)


async def test_a_client_that_heard_no_acknowledgment_may_send_all_again(server):
    """Everything from the first byte on, twice over, and once as a single base64 frame, is still taken once."""
    opened = open_session(server)
    for sent in (100_000, 250_000):
        async with connected(opened) as socket:
            await socket.send(*pieces(SPEECH[:sent], 20_000))
            await socket.acked_up_to(sent)
            await socket.drop()
    async with connected(opened) as socket:
        await socket.send(base64_chunk(SPEECH), STOP)
        assert await socket.ended() == 1000

    assert server.file(opened.session_id)[44:] == SPEECH
    assert last_ack(socket) == len(SPEECH)


async def test_a_new_stream_that_repeats_nothing_is_all_new(server):
    """A client that heard every acknowledgment goes on with its next byte, and all of it is taken."""
    opened = open_session(server)
    for start, stop in ((0, 100_002), (100_002, 230_000)):
        async with connected(opened) as socket:
            await socket.send(*pieces(SPEECH[start:stop], CHUNK))
            await socket.acked_up_to(stop)
            await socket.drop()
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[230_000:], CHUNK), STOP)
        assert await socket.ended() == 1000

    assert server.file(opened.session_id)[44:] == SPEECH


async def test_a_drop_inside_the_header_is_resumed_too(server):
    """A WAV header that was cut off by the line is put together again."""
    opened = open_session(server)
    headed = with_wav_header(SPEECH[:100_000])
    async with connected(opened) as socket:
        await socket.send(headed[:20])
        await socket.acked_up_to(20)
        await socket.drop()
    async with connected(opened) as socket:
        await socket.send(*pieces(headed, CHUNK), STOP)
        assert await socket.ended() == 1000

    assert server.file(opened.session_id) == headed


async def test_the_newest_socket_wins(server):
    """A second socket on a session takes it over; the older one is closed with a code that clients do not retry."""
    opened = open_session(server)
    data = SPEECH[:200_000]
    async with connected(opened) as older:
        await older.send(*pieces(data[:100_000], CHUNK))
        await older.acked_up_to(100_000)
        async with connected(opened) as newer:
            assert 4400 <= await older.ended() < 4500
            await newer.send(*pieces(data[100_000:], CHUNK), STOP)
            assert await newer.ended() == 1000

    assert server.file(opened.session_id)[44:] == data
    ids = [message["data"]["id"] for message in once(older.messages + newer.messages) if is_final(message)]
    assert len(ids) > 1
    assert ids == sorted(set(ids))


async def test_what_was_said_while_nobody_listened_is_delivered_on_return(server):
    """A final that came after the drop waits for the next socket, and no message comes twice on one."""
    opened = open_session(server)
    data = pcm(np.concatenate([PHRASE, silence(1), PHRASE, silence(1)]))
    async with connected(opened) as socket:
        await socket.send(data)
        await socket.acked_up_to(len(data))
        await socket.drop()
    async with connected(opened) as again:
        await again.until(lambda _: len({each["id"] for each in socket.finals + again.finals}) == 2)
        await again.send(STOP)
        assert await again.ended() == 1000

    messages = once(socket.messages + again.messages)
    check(messages)
    said = [message["data"]["utterance"]["text"] for message in messages if is_final(message)]
    assert [bare(text) for text in said] == [["ever", "tried"]] * 2
    for each in (socket, again):
        assert len(once(each.messages)) == len(each.messages)


async def test_a_stop_is_remembered_over_a_drop(server):
    """A client cut off after its stop gets the end of the session on its next socket, without stopping again."""
    opened = open_session(server)
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH, SDK_CHUNK), STOP)
        await socket.drop()
    if "stop_recording" not in socket.types:
        # The stop itself may have been lost with the socket; SDKs then send it again with their audio.
        async with connected(opened) as socket:
            await socket.send(*pieces(SPEECH, SDK_CHUNK), STOP)
            await socket.until(lambda message: message["type"] == "stop_recording")
            await socket.drop()
    async with connected(opened) as again:
        assert await again.ended() in {1000, 4403}
    result = await until_status(server, opened.session_id, "done")

    if "end_session" not in socket.types:
        assert again.code == 1000
        assert again.types[-1] == "end_session"
    assert server.file(opened.session_id)[44:] == SPEECH
    assert result["result"]["metadata"]["audio_duration"] == pytest.approx(12.5)


@pytest.mark.parametrize("token", ["?token=unknown", "?token=", "", "?token=a&token=b", "?token=%00%ff"])
async def test_an_unknown_token_is_told_so_once_connected(server, token):
    """The upgrade is accepted and closed with 4403: official clients would retry a refused one."""
    url = f"ws{server.url.removeprefix('http')}/v2/live{token}"
    async with connect(url, proxy=None) as connection:
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(connection.recv(), PATIENCE_S)
        assert connection.close_code == 4403
        assert connection.close_reason


async def test_a_finished_session_cannot_be_joined(server):
    """Its token is worth nothing any more, whether it ended by a stop or by a close."""
    opened = open_session(server)
    async with connected(opened) as socket:
        await socket.send(pcm(PHRASE), STOP)
        assert await socket.ended() == 1000
    await until_status(server, opened.session_id, "done")

    async with connected(opened) as again:
        assert await again.ended() == 4403
        assert again.messages == []


async def test_a_dropped_session_is_not_deleted_nor_downloadable(server):
    """While a session may still be resumed, its file is not there yet and it cannot be deleted."""
    opened = open_session(server)
    async with connected(opened) as socket:
        await socket.send(pcm(PHRASE))
        await socket.acked_up_to(len(PHRASE) * 2)
        await socket.drop()

    assert server.result(opened.session_id)["status"] == "processing"
    assert server.http.delete(f"/v2/live/{opened.session_id}").status_code == 403
    assert server.http.get(f"/v2/live/{opened.session_id}/file").status_code == 404
    async with connected(opened) as socket:
        await socket.send(STOP)
        assert await socket.ended() == 1000


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server that waits for nobody."""
    data_dir = tmp_path_factory.mktemp("hasty") / "data"
    with serving(data_dir, "--grace", "1", "--idle-timeout", "2", "--connect-timeout", "2") as running:
        yield running


async def test_a_lost_client_is_given_the_grace_and_no_more(hasty):
    """A dropped session is finished with what it has when nobody came back in time, and not before, post-processing
    included; who comes too late still hears how it ended, once.
    """
    opened = open_session(hasty)
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[:160_000], CHUNK))
        await socket.acked_up_to(160_000)
        dropped_at = time.monotonic()
        await socket.drop()
    result = await until_status(hasty, opened.session_id, "done")

    assert time.monotonic() - dropped_at > 0.99
    assert "the best of times" in result["result"]["transcription"]["full_transcript"]
    assert any('"post_final_transcript"' in message for message in result["result"]["messages"])
    async with connected(opened) as late:
        assert await late.ended() == 1000
        assert late.types[-1] == "end_session"
    async with connected(opened) as later:
        assert await later.ended() == 4403


async def test_what_is_done_can_be_downloaded_and_deleted(hasty):
    """From the moment that REST shows a session as done, its file is there and it can be deleted, even if its client
    was lost and its last messages were never read.
    """
    opened = open_session(hasty)
    async with connected(opened) as socket:
        await socket.send(pcm(PHRASE))
        await socket.acked_up_to(len(PHRASE) * 2)
        await socket.drop()
    await until_status(hasty, opened.session_id, "done")

    assert hasty.http.get(f"/v2/live/{opened.session_id}/file").status_code == 200
    assert hasty.http.delete(f"/v2/live/{opened.session_id}").status_code == 202
    assert hasty.http.get(f"/v2/live/{opened.session_id}").status_code == 404


async def test_a_session_is_over_when_its_socket_is_closed(server):
    """Whoever sees the close with 1000 may download and delete the session at once, every time."""
    for _ in range(8):
        opened = open_session(server)
        async with connected(opened) as socket:
            await socket.send(b"\0" * 320, STOP)
            assert await socket.ended() == 1000
            assert server.result(opened.session_id)["status"] == "done"
            assert len(server.file(opened.session_id)) == 44 + 320
            assert server.http.delete(f"/v2/live/{opened.session_id}").status_code == 202


async def test_a_client_that_goes_away_is_finished_without_post_processing(hasty):
    """A close with 1001 is followed by the grace, and then by the end without `post_*` messages."""
    opened = open_session(hasty)
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[:160_000], CHUNK))
        await socket.acked_up_to(160_000)
        await socket.close(1001)
    result = await until_status(hasty, opened.session_id, "done")

    assert "the best of times" in result["result"]["transcription"]["full_transcript"]
    assert not any('"post_' in message for message in result["result"]["messages"])
    assert any('"end_session"' in message for message in result["result"]["messages"])


async def test_an_idle_session_is_ended_by_the_server(hasty):
    """A client that neither sends nor stops hears why, gets its results, and is closed with 1000."""
    async with connected(open_session(hasty)) as socket:
        await socket.send(*pieces(SPEECH[:160_000], CHUNK))
        assert await socket.ended() == 1000

    check(socket.messages)
    assert socket.of("error")[0]["data"]["code"] == "session_timeout"
    assert socket.types[-1] == "end_session"
    assert "the best of times" in socket.text()
    assert hasty.result(socket.session_id)["status"] == "done"


async def test_an_empty_chunk_is_a_sign_of_life(hasty):
    """A client that sends only empty chunks stays connected for longer than the idle limit."""
    async with connected(open_session(hasty)) as socket:
        await socket.send(pcm(PHRASE))
        for _ in range(6):
            await socket.send(b"")
            with pytest.raises(TimeoutError):
                await socket.until(lambda message: message["type"] == "error", within_s=0.5)
        assert socket.code is None
        assert not socket.of("error")
        await socket.send(STOP)
        assert await socket.ended() == 1000


async def test_a_session_nobody_connects_to_ends_in_error(hasty):
    """It is not kept for ever: its status becomes `error`, with 408."""
    opened: Opened = open_session(hasty)
    assert hasty.result(opened.session_id)["status"] == "queued"
    result = await until_status(hasty, opened.session_id, "error")

    assert result["error_code"] == 408
    assert hasty.http.delete(f"/v2/live/{opened.session_id}").status_code == 202
