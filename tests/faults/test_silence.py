"""Digital silence, where bytes cannot tell one place from another: how far off a resume may be, and no further."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

from faults.clients import CLIENTS, SDK_WARNINGS, Pace
from faults.oracle import stored
from faults.proxy import Fault, Kind, Link
from faults.run import Runner
from faults.schedules import BYTES_PER_S, speech

pytestmark = SDK_WARNINGS

CHUNK = 3200
SILENCE = bytes(4 * BYTES_PER_S)
PACE = Pace(chunk=CHUNK, chunks_per_s=25, patience_s=2)


async def test_a_cut_in_digital_silence_is_off_by_one_interval_at_most(runner: Runner) -> None:
    """Speech on both sides is kept whole, and the silence between has its length, give or take one acknowledgment."""
    before, after = speech(0), speech(1)
    strike = len(before) + len(SILENCE) // 2
    plans = [((Fault(kind=kind, at=strike, lasts_s=0.2),),) for kind in (Kind.RESET, Kind.CLOSE, Kind.HALF_OPEN)]
    for kept, interval in await asyncio.gather(*(_run(runner, before + SILENCE + after, plan) for plan in plans)):
        assert kept.startswith(before)
        assert kept.endswith(after)
        middle = kept[len(before) : -len(after)]
        assert not middle.strip(b"\0")
        assert abs(len(middle) - len(SILENCE)) <= interval


async def test_speech_after_silence_is_never_taken_for_a_repetition(runner: Runner) -> None:
    """A muted microphone on both sides of a few words: the words and the acknowledged silence stay."""
    mute = bytes(2 * BYTES_PER_S)
    audio = mute + speech(0) + mute + mute + speech(1)
    strike = len(mute) + len(speech(0)) + len(mute)
    kept, interval = await _run(runner, audio, ((Fault(kind=Kind.RESET, at=strike),),))
    assert abs(len(kept) - len(audio)) <= interval
    assert [len(part) > 0 for part in re.split(rb"\0{32000,}", kept)] == [False, True, True]


async def test_nothing_but_silence(runner: Runner) -> None:
    """A session of zeros is as long as what was sent, give or take one interval for each drop."""
    plans = tuple((Fault(kind=Kind.RESET, at=at),) for at in (20_000, 50_000))
    kept, interval = await _run(runner, SILENCE + SILENCE, plans)
    assert not kept.strip(b"\0")
    assert abs(len(kept) - 2 * len(SILENCE)) <= len(plans) * interval


async def test_lost_acknowledgments_of_silence_double_nothing(runner: Runner) -> None:
    """With one acknowledgment lost, the repetition is found in digital silence too."""
    before, after = speech(0), speech(1)
    audio = before + SILENCE + after
    slow = Pace(chunk=16_000, chunks_per_s=5, patience_s=2)
    plans = ((Fault(kind=Kind.DEAF, at=len(before) + 32_000, lasts_s=0.15),),)
    kept, interval = await _run(runner, audio, plans, slow)
    assert abs(len(kept) - len(audio)) <= interval


async def _run(runner: Runner, audio: bytes, plans: tuple[tuple[Fault, ...], ...], pace: Pace = PACE):
    """Give the stored bytes, and the longest stretch between two acknowledgments in a row or one chunk."""
    async with Link(runner.server.url, plans) as link:
        report = await CLIENTS["async"](link.url, audio, pace)
    assert link.struck
    ends = sorted(ack for socket in link.sockets for ack in socket.acks)
    kept = await asyncio.to_thread(stored, runner.server, report.session_id)
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    return kept.audio, max(pace.chunk, sorted(gaps)[len(gaps) * 9 // 10])
