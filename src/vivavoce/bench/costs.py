"""What a second of audio costs a server, by what it is spent on, and how that grows.

One thing is changed at a time: the length of chunks, with a few streams at the pace of speech; the channels of one
session; and the length of one session, which is sent as fast as the server takes it and brings no partials. The server
itself says what its processor time went to (`vivavoce_cpu_seconds_total`), so a long answer costs it nothing here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import from_json

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.lags import Pace
from vivavoce.bench.load import LOOK_S, STOP, WANTED, BenchError, Pacing, Run, Target, frames_of, open_sessions, send
from vivavoce.bench.socket import Socket
from vivavoce.bench.usage import look

CHUNKS_S = (0.02, 0.05, 0.1, 0.2, 0.5)
CHANNELS = (1, 2, 4, 8)
MINUTES = (1, 10, 60, 180)

_STREAMS_A_CORE = 2
_UNACKNOWLEDGED_S = 60.0
"""How much of a long session is sent ahead of what the server has taken."""
_REPEATED_MIN = 10
"""Longer sessions say this much again and again."""
_FINISH_S = 1800.0
_NORMAL = 1000
_MIB = 1 << 20

Talk = Callable[[int, float], Conversation]
"""Gives the n-th of conversations of some seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run cost: `parts` in CPU seconds, over `audio_s` seconds of audio, every channel counted.

    `memory` is by how many bytes the server had grown at its largest, None where its process is not known.
    """

    grown: str
    size: float
    audio_s: float
    wall_s: float
    parts: Mapping[str, float]
    memory: int | None

    @property
    def milliseconds(self) -> dict[str, float]:
        """Milliseconds of CPU for a second of audio, by part."""
        return {part: 1000 * seconds / self.audio_s for part, seconds in self.parts.items()}

    def as_json(self) -> dict[str, Any]:
        """Give everything as JSON knows it: milliseconds of CPU for a second of audio."""
        return {
            self.grown: self.size,
            "audio_s": round(self.audio_s, 1),
            "wall_s": round(self.wall_s, 1),
            "cpu_ms_per_audio_s": {part: round(spent, 2) for part, spent in self.milliseconds.items()},
            "memory_mb": None if self.memory is None else round(self.memory / _MIB, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What is sent in each session: chunks at the pace of speech, or as fast as the server takes them."""

    grown: str
    size: float
    sessions: Sequence[Sequence[bytes]]
    pacing: Pacing
    audio_s: float
    paced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played: conversations of `talk`, `seconds` long and up to `longest_min`, at the pace of speech or not."""

    talk: Talk
    seconds: float
    longest_min: float
    pacing: Pacing


async def costs(target: Target, plan: Plan, progress: Callable[[str], None]) -> list[Cost]:
    """Measure all of a plan; `progress` hears what is played.

    Raises `BenchError` where the server refuses sessions or does not tell what it spends.
    """
    found: list[Cost] = []
    async with target.client() as http:
        for play in plays(plan):
            if not found:
                await _measure(http, target, play)  # warms the server up
            progress(f"{play.grown} {play.size:g}")
            found.append(await _measure(http, target, play))
    return found


def plays(plan: Plan) -> Iterator[Play]:
    """Give what is played, one thing after another."""
    talk, pacing = plan.talk, plan.pacing
    streams = _STREAMS_A_CORE * (os.cpu_count() or 1)
    talks = [talk(nth, plan.seconds) for nth in range(max(streams, *CHANNELS))]
    for chunk_s in CHUNKS_S:
        paced = replace(pacing, chunk_s=chunk_s)
        sessions = [frames_of([each], paced) for each in talks[:streams]]
        audio_s = sum(each.duration_s for each in talks[:streams])
        yield Play(grown="chunk_ms", size=1000 * chunk_s, sessions=sessions, pacing=paced, audio_s=audio_s)
    for channels in CHANNELS:
        together = [frames_of(talks[:channels], pacing)]
        several = replace(pacing, options={**pacing.options, "channels": channels})
        audio_s = channels * max(each.duration_s for each in talks[:channels])
        yield Play(grown="channels", size=channels, sessions=together, pacing=several, audio_s=audio_s)
    quiet = {"messages_config": {**WANTED, "receive_partial_transcripts": False, "receive_speech_events": False}}
    hurried = replace(pacing, options={**pacing.options, **quiet})
    for minutes in (each for each in MINUTES if each <= plan.longest_min):
        part = talk(0, 60.0 * min(minutes, _REPEATED_MIN))
        times = max(round(60 * minutes / part.duration_s), 1)
        long = [frames_of([part], pacing) * times]
        audio_s = part.duration_s * times
        yield Play(grown="minutes", size=minutes, sessions=long, pacing=hurried, audio_s=audio_s, paced=False)


async def _measure(http: httpx.AsyncClient, target: Target, play: Play) -> Cost:
    urls = await open_sessions(http, play.pacing, len(play.sessions))
    before, began = await _parts(http), time.monotonic()
    memory = look(target.pid).memory if target.pid is not None else None
    peak = memory
    everyone = asyncio.gather(*(_session(url, sent, play) for url, sent in zip(urls, play.sessions, strict=True)))
    while not everyone.done():
        await asyncio.wait([everyone], timeout=LOOK_S)
        if target.pid is not None and peak is not None:
            peak = max(peak, look(target.pid).memory)
    everyone.result()
    wall_s, after = time.monotonic() - began, await _parts(http)
    return Cost(
        grown=play.grown,
        size=play.size,
        audio_s=play.audio_s,
        wall_s=wall_s,
        parts={part: max(after[part] - before.get(part, 0.0), 0.0) for part in after},
        memory=None if peak is None or memory is None else peak - memory,
    )


async def _session(url: str, frames: Sequence[bytes], play: Play) -> None:
    taken, more = [0.0], asyncio.Event()

    def take(at: float, text: bytes) -> None:
        del at
        message = from_json(text)
        if message["type"] == "audio_chunk" and message["acknowledged"]:
            taken[0] = message["data"]["time_range"][1]
            more.set()

    socket = await Socket.connect(url, take)
    try:
        if play.paced:
            await send(socket, Pace(start=time.monotonic(), chunk_s=play.pacing.chunk_s), frames, Run())
        else:
            for nth, data in enumerate(frames):
                while nth * play.pacing.chunk_s - taken[0] > _UNACKNOWLEDGED_S and not socket.closed.is_set():
                    more.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(more.wait(), LOOK_S)
                socket.write(data)
        socket.write(STOP)
        async with asyncio.timeout(_FINISH_S):
            await socket.closed.wait()
        if socket.close_code != _NORMAL:
            raise BenchError(f"the server closed a session with {socket.close_code}")
    except TimeoutError:
        raise BenchError(f"a session did not end within {_FINISH_S:.0f} s of its stop") from None
    finally:
        socket.abort()


async def _parts(http: httpx.AsyncClient) -> dict[str, float]:
    """Give what the server says it has spent so far, in seconds by part."""
    response = await http.get("/metrics")
    if response.is_success:
        for family in text_string_to_metric_families(response.text):
            if family.name == "vivavoce_cpu_seconds":
                return {sample.labels["part"]: sample.value for sample in family.samples}
    raise BenchError("the server's /metrics does not tell what it spends: it is older than this bench, or no vivavoce")
