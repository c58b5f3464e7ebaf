"""Loads of other kinds than conversations: many idle sockets, digital silence, and more streams than can be held."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
from websockets.exceptions import InvalidHandshake

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.lags import ACK, FINAL, Heard, Shown, final_lags, percentiles
from vivavoce.bench.load import STOP, BenchError, Pacing, Run, Target, open_session, play
from vivavoce.bench.result import result_of
from vivavoce.bench.socket import Socket, frame
from vivavoce.bench.usage import Used, look
from vivavoce.model import SAMPLE_RATE

KEEP_ALIVE_S = 20.0
"""How often an idle client sends an empty chunk, as those of pipecat do."""

_OPENING = 32
_CLOSE_S = 60.0
_SPARE_FILES = 200
_REST_S = 0.1
_MIB = 1 << 20
_EMPTY = frame(b"")

Progress = Callable[[float], None]


async def idle(target: Target, sessions: int, seconds: float, progress: Progress) -> dict[str, Any]:
    """Hold open sessions that send nothing but keep-alives, and give what they cost.

    Raises `BenchError` where this system does not let one process have so many files.
    """
    _allow_files(sessions + _SPARE_FILES)
    run, sockets, gate = Run(), list[Socket](), asyncio.Semaphore(_OPENING)
    before = look(target.pid) if target.pid is not None else None
    async with target.client() as http:

        async def open_one() -> None:
            async with gate:
                url = await open_session(http, Pacing(), run)
                if url is None:
                    return
                try:
                    sockets.append(await Socket.connect(url, lambda *_: None))
                except (OSError, InvalidHandshake) as error:
                    run.refused.append(f"socket: {type(error).__name__}")

        keeping = asyncio.create_task(_keep_alive(sockets), name="keep-alive")
        began = time.monotonic()
        try:
            await asyncio.gather(*(open_one() for _ in range(sessions)))
            opened_s = time.monotonic() - began
            used = await _use(target, seconds, progress)
        finally:
            keeping.cancel()
            await _stop(sockets)
    lost = sum(socket.close_code not in {None, 1000} for socket in sockets)
    figures: dict[str, Any] = {"sessions": len(sockets), "refused": len(run.refused), "lost": lost}
    figures["opened_per_s"] = round(len(sockets) / max(opened_s, 1e-9), 1)
    if used is not None and before is not None:
        figures["cores"] = round(used.cores, 4)
        figures["memory_mb_per_session"] = round((used.memory - before.memory) / _MIB / max(len(sockets), 1), 4)
    return figures


async def _keep_alive(sockets: Sequence[Socket]) -> None:
    """Send each of a growing number of sockets a sign of life in turn."""
    turns = round(KEEP_ALIVE_S / _REST_S)
    while True:
        for turn in range(turns):
            for socket in sockets[turn::turns]:
                socket.write(_EMPTY)
            await asyncio.sleep(_REST_S)


async def _use(target: Target, seconds: float, progress: Progress) -> Used | None:
    """Wait, and give what the server used meanwhile."""
    first = look(target.pid) if target.pid is not None else None
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        progress(seconds - left_s)
        await asyncio.sleep(min(left_s, 1.0))
    return look(target.pid).since(first) if target.pid is not None and first is not None else None


async def _stop(sockets: Sequence[Socket]) -> None:
    for socket in sockets:
        socket.write(STOP)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(socket.closed.wait() for socket in sockets)), _CLOSE_S)
    for socket in sockets:
        socket.abort()


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard or (soft < wanted and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    elif soft < wanted:
        raise BenchError(f"{wanted} files are needed and {hard} allowed: raise the limit with `ulimit -n`")


async def silence(target: Target, sessions: int, seconds: float, pacing: Pacing, progress: Progress) -> dict[str, Any]:
    """Stream digital silence, and give what it costs and how soon it is acknowledged."""
    quiet = Conversation(samples=np.zeros(round(seconds * SAMPLE_RATE), np.float32), turns=())
    run = await play(target, [quiet] * sessions, pacing, progress=progress)
    result = result_of(run, sessions)
    figures: dict[str, Any] = {
        "sessions": len(run.heard),
        "refused": len(run.refused),
        "problems": sorted(set(run.problems)),
        "transcripts": sum(len(heard.shown) for heard in run.heard),
        "ack_ms": _milliseconds(result.measured.lags[ACK]),
        "sending_late_ms": _milliseconds(run.late_s),
    }
    if result.usage is not None:
        figures["cores"] = round(result.usage.cores, 4)
        figures["memory_mb_per_session"] = round(result.usage.memory_mb_per_stream, 3)
    return figures


async def overload(
    target: Target, talks: Sequence[Conversation], streams: int, pacing: Pacing, progress: Progress
) -> dict[str, Any]:
    """Play more streams than a server holds, and give what became of them and of what came after.

    `talks` are played alone first; then by all `streams`, each of them by several. So the finals of both can be
    compared to the letter. Meanwhile one new session a second is asked for, and afterwards `talks` are played again.
    """
    alone = await play(target, talks, pacing, progress=progress)
    if alone.refused or alone.problems:
        raise BenchError("the server is loaded already: it does not hold the sessions to compare with")
    knocks: list[int] = []
    async with target.client() as http:
        knocking = asyncio.create_task(_knock(http, pacing, knocks))
        try:
            crowd = await play(target, [talks[i % len(talks)] for i in range(streams)], pacing, progress=progress)
        finally:
            knocking.cancel()
            with suppress(asyncio.CancelledError):
                await knocking
    load_ended = max((_last_sent(heard) for heard in crowd.heard), default=0.0)
    last_final = max((final.at for heard in crowd.heard for final in heard.finals), default=0.0)
    after = await play(target, talks, pacing, progress=progress)
    expected = {id(heard.played): _texts(heard.finals) for heard in alone.heard}
    unloaded, loaded, recovered = result_of(alone, len(talks)), result_of(crowd, streams), result_of(after, len(talks))
    return {
        "streams": streams,
        "played": len(crowd.heard),
        "refused": len(crowd.refused),
        "refused_meanwhile": sum(status != httpx.codes.CREATED for status in knocks),
        "taken_meanwhile": sum(status == httpx.codes.CREATED for status in knocks),
        "problems": sorted(set(crowd.problems)),
        "finals": sum(len(heard.finals) for heard in crowd.heard),
        "sessions_with_other_finals": sum(_texts(heard.finals) != expected[id(heard.played)] for heard in crowd.heard),
        "sessions_out_of_order": sum(_disordered(heard.finals) for heard in crowd.heard),
        "partials_per_speech_s": {"alone": round(unloaded.partial_rate, 2), "overload": round(loaded.partial_rate, 2)},
        "final_ms": {
            "alone": _milliseconds(unloaded.measured.lags[FINAL]),
            "after": _milliseconds(recovered.measured.lags[FINAL]),
        },
        "final_lag_s_by_third": _growth(crowd.heard),
        "backlog_s_at_stop": round(max(crowd.backlogs_s, default=0.0), 2),
        "recovered_after_s": round(max(last_final - load_ended, 0.0), 2),
        "cores_of_others": cores_of_others(crowd),
    }


def cores_of_others(run: Run) -> float | None:
    """Give how many cores other processes than the server's and the bench took from a run; None where nobody looked.

    An overloaded server lives on every core it can get: what others take tells of this machine, not of the server.
    """
    if len(run.looks) < 2:  # noqa: PLR2004 - a first and a last one
        return None
    used = run.looks[-1].since(run.looks[0])
    busy = (1.0 - used.idle) * (os.cpu_count() or 1)
    return round(max(busy - used.cores - run.bench_cpu_s / run.wall_s, 0.0), 2)


async def _knock(http: httpx.AsyncClient, pacing: Pacing, statuses: list[int]) -> None:
    """Ask for a session once a second, and note how that was answered; it is never connected to."""
    while True:
        await asyncio.sleep(1.0)
        with suppress(httpx.HTTPError):
            statuses.append((await http.post("/v2/live", json=dict(pacing.form.request))).status_code)


def _last_sent(heard: Heard) -> float:
    return heard.pace.sent_at(heard.played.duration_s)


def _texts(finals: Sequence[Shown]) -> list[tuple[float, float, str]]:
    return sorted((final.start, final.end, final.text) for final in finals)


def _disordered(finals: Sequence[Shown]) -> bool:
    starts = [final.start for final in finals]
    return starts != sorted(starts)


def _growth(sessions: Sequence[Heard]) -> list[float]:
    """Give the median final lag, in seconds, of the first, second and last third of all turns."""
    lags = [lag for _, lag in sorted(each for session in sessions for each in final_lags(session))]
    return [round(float(np.median(part)), 3) for part in np.array_split(np.asarray(lags), 3) if part.size]


def _milliseconds(lags: Sequence[float]) -> dict[str, float] | None:
    if not lags:
        return None
    p50, p95, p99 = percentiles(lags)
    return {"p50": round(p50 * 1000, 1), "p95": round(p95 * 1000, 1), "p99": round(p99 * 1000, 1)}
