"""Each way to break a connection, with each client: not a byte is lost or doubled."""

from __future__ import annotations

import asyncio
import json

import pytest

from faults.clients import CLIENTS, SDK_WARNINGS, Pace, available
from faults.oracle import check, quiet_run, stored
from faults.proxy import Fault, Kind, Link
from faults.run import Runner
from faults.schedules import BYTES_PER_S, Schedule, speech
from live import STOP, base64_chunk, connected, is_ack, is_final, open_session, pieces
from server import Server

pytestmark = SDK_WARNINGS

CHUNK = 3200
RECORDING = 0
PACE = Pace(chunk=CHUNK, chunks_per_s=100)

RESET, CLOSE, DEAF, HALF_OPEN, LATE = Kind.RESET, Kind.CLOSE, Kind.DEAF, Kind.HALF_OPEN, Kind.LATE

WAYS = {
    "cut": ((Fault(kind=RESET, at=60_000),),),
    "closed without a word": ((Fault(kind=CLOSE, at=61_234),),),
    "cut in a frame's header": ((Fault(kind=CLOSE, at=19 * (CHUNK + 8) + 1),),),
    "cut in the very first frame": ((Fault(kind=RESET, at=5),),),
    "half-open": ((Fault(kind=HALF_OPEN, at=50_000, lasts_s=0.4),),),
    "stall": ((Fault(kind=Kind.STALL, at=50_000, lasts_s=0.4),),),
    "cut during the acknowledgment": ((Fault(kind=DEAF, at=40_000, lasts_s=0.3),),),
    "cut during the resend": (
        (Fault(kind=DEAF, at=40_000, lasts_s=0.3),),
        (Fault(kind=RESET, at=2_000),),
        (Fault(kind=CLOSE, at=7_000),),
    ),
    "acknowledgments of two sockets in doubt": (
        (Fault(kind=DEAF, at=40_000, lasts_s=0.2),),
        (Fault(kind=DEAF, at=0, lasts_s=0.2),),
        (Fault(kind=DEAF, at=9_000, lasts_s=0.2),),
    ),
    "two quick drops": ((Fault(kind=RESET, at=50_000),), (Fault(kind=RESET, at=0),), (Fault(kind=CLOSE, at=1),)),
    "a second socket while the first lives": ((Fault(kind=HALF_OPEN, at=50_000),),),
    "an older socket's bytes after the newer one's": ((Fault(kind=LATE, at=50_000, lasts_s=0.3),),),
    "slow link": ((Fault(kind=Kind.SLOW, at=40_000, lasts_s=1.0, size=20_000), Fault(kind=RESET, at=70_000)),),
    "tiny segments": ((Fault(kind=Kind.TINY, at=30_000, lasts_s=0.5, size=3), Fault(kind=DEAF, at=31_000)),),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_client_resumes_without_loss(runner: Runner, way: str) -> None:
    """The stored bytes are those that left the client, and the finals those of a quiet run."""
    await runner.quiet(RECORDING)
    runs = [
        runner.run(Schedule(seed=-1, client=client, speech=RECORDING, pace=PACE, plans=WAYS[way]))
        for client in CLIENTS
        if available(client)
    ]
    links = await asyncio.gather(*runs)
    ends = len(WAYS[way]) if way != "stall" else 0
    assert all(len(link.sockets) > ends for link in links), "the fault did not make the client come back"


@pytest.mark.parametrize("chunk", [160, 8_000])
async def test_many_acknowledgments_lost_at_once(runner: Runner, chunk: int) -> None:
    """However many acknowledgments were under way when the socket broke, the right one is found."""
    plans = ((Fault(kind=DEAF, at=1_000, lasts_s=1.5),), (Fault(kind=DEAF, at=500, lasts_s=1.0),))
    pace = Pace(chunk=chunk, chunks_per_s=min(500, 8 * BYTES_PER_S / chunk))
    await runner.run(Schedule(seed=-1, client="async", speech=RECORDING, pace=pace, plans=plans))


async def test_a_long_recording_resumes_in_one_huge_frame(runner: Runner) -> None:
    """Twenty seconds without one acknowledgment come again as one text frame, and count once."""
    audio = b"".join(speech(number) for number in range(4))
    quiet = await quiet_run(runner.server, audio)
    async with Link(runner.server.url, ((Fault(kind=DEAF, at=10, lasts_s=1.5),),)) as link:
        report = await CLIENTS["pipecat"](link.url, audio, Pace(chunk=16_000, chunks_per_s=100))
        await asyncio.to_thread(check, runner.server, link, report, audio, quiet)


async def test_a_stop_is_remembered_over_a_drop(runner: Runner) -> None:
    """A client that said stop and lost its socket gets the rest on the next one, and close code 1000."""
    audio, quiet = speech(RECORDING), await runner.quiet(RECORDING)
    opened = open_session(runner.server)
    async with connected(opened) as first:
        await first.send(*pieces(audio, CHUNK), STOP)
        await first.until(lambda message: message["type"] == "stop_recording")
        await first.drop()
    async with connected(opened) as second:
        assert await second.ended() == 1000
    kept = stored(runner.server, opened.session_id)
    assert (kept.audio, kept.finals) == (audio, quiet.finals)
    assert second.types[-2:] == ["post_final_transcript", "end_session"]


async def test_messages_wait_for_the_client(runner: Runner) -> None:
    """What was said while nobody was connected comes on the next socket, in order and once."""
    audio, quiet = speech(RECORDING), await runner.quiet(RECORDING)
    opened = open_session(runner.server)
    async with connected(opened) as first:
        await first.send(*pieces(audio, CHUNK))
        await first.acked_up_to(len(audio))
        await first.drop()
    seen = {message["data"]["id"] for message in first.messages if is_final(message)}
    async with connected(opened) as second:
        await second.send(STOP)
        assert await second.ended() == 1000
    ids = [final["id"] for final in second.finals]
    assert not seen & set(ids)
    assert sorted(seen | set(ids)) == [final_id for final_id, _ in quiet.finals]
    assert ids == sorted(ids)


async def test_the_newest_of_many_sockets_wins(runner: Runner) -> None:
    """Sockets opened over one another leave one that works; each older one is closed with 4409."""
    audio = speech(RECORDING)
    opened = open_session(runner.server)
    async with connected(opened) as first, connected(opened) as second, connected(opened) as third:
        assert [await first.ended(), await second.ended()] == [4409, 4409]
        await third.send(base64_chunk(audio[:CHUNK]), audio[CHUNK:], STOP)
        assert await third.ended() == 1000
    assert stored(runner.server, opened.session_id).audio == audio


async def test_acknowledgments_never_go_back_and_end_where_the_bytes_do(runner: Runner) -> None:
    """Over all sockets of a session, acknowledgments rise, and the last one names the file's length."""
    audio = speech(RECORDING)
    opened = open_session(runner.server)
    ends: list[int] = []
    for stop in (20_000, 90_000, len(audio)):
        async with connected(opened) as socket:
            # Always from the start, as a client does that saw no acknowledgment at all.
            await socket.send(*pieces(audio[:stop], CHUNK))
            await socket.acked_up_to(stop)
            ends += [message["data"]["byte_range"][1] for message in socket.messages if is_ack(message)]
            if stop == len(audio):
                await socket.send(STOP)
                assert await socket.ended() == 1000
            else:
                await socket.drop()
    assert ends == sorted(ends)
    assert ends[-1] == len(audio)
    assert stored(runner.server, opened.session_id).audio == audio


async def test_utterances_cut_by_the_clock_keep_their_words(server: Server) -> None:
    """A stall longer than the server waits for audio may end an utterance early, but no word is lost."""
    audio = speech(RECORDING)
    quiet = await quiet_run(server, audio)
    pause = _pause_in(quiet.finals)
    async with Link(server.url, ((Fault(kind=Kind.STALL, at=pause, lasts_s=2.0),),)) as link:
        report = await CLIENTS["async"](link.url, audio, PACE)
        await asyncio.to_thread(check, server, link, report, audio, quiet, same_cuts=False)


def _pause_in(finals: list[tuple[str, dict]]) -> int:
    """Give the byte in the middle of the first pause between two utterances."""
    assert len(finals) > 1, json.dumps(finals)
    return int((finals[0][1]["end"] + finals[1][1]["start"]) / 2 * BYTES_PER_S)
