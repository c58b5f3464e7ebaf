"""How much of what the machine could decode a server really decodes, when audio comes as fast as it can.

The server gets whole conversations at once over its sockets, without partials. The bare loop does what decoding them
takes and nothing else: voice activity a second at a time, the segments, the engine for each final and the aligner for
its words, in one process for each core, models loaded beforehand. It decodes no clip that turned out not to be a
segment's, which a server may have begun with, so the ratio never flatters the server. Both take turns a few times: on
a busy machine one run tells little.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.load import STOP, WANTED, Pacing, Target, frames_of, open_sessions
from vivavoce.bench.models import channel, whole_frames
from vivavoce.bench.socket import Socket
from vivavoce.bench.usage import look
from vivavoce.config import Settings, load_settings
from vivavoce.model import SAMPLE_RATE, Clip, Samples
from vivavoce.plugins import EngineSettings, plugin
from vivavoce.speech.audio import FRAME
from vivavoce.speech.channel import Ask, Channel, Step, Withdraw

_PIECE_FRAMES = SAMPLE_RATE // FRAME
_LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class _Spent:
    """What one process of the bare loop took, and what it heard."""

    wall_s: float
    cpu_s: float
    finals: int


async def served(target: Target, talks: Sequence[Conversation], pacing: Pacing) -> dict[str, float]:
    """Send conversations as fast as they go; give seconds of clock and CPU until the last final, and the finals."""
    finals = [0]
    last = [0.0]

    def count(at: float, text: bytes) -> None:
        if b'"is_final":true' in text:
            finals[0] += 1
            last[0] = at

    wanted = {**WANTED, "receive_partial_transcripts": False, "receive_acknowledgments": False}
    quiet = Pacing(form=pacing.form, chunk_s=pacing.chunk_s, options={**pacing.options, "messages_config": wanted})
    frames = [frames_of([talk], pacing) for talk in talks]
    async with target.client() as http:
        urls = await open_sessions(http, quiet, len(talks))
        sockets = [await Socket.connect(url, count) for url in urls]
        began, before = time.monotonic(), look(target.pid or 0)
        try:
            for socket, sent in zip(sockets, frames, strict=True):
                socket.write(b"".join(sent) + STOP)
            async with asyncio.timeout(_LONGEST_S):
                await asyncio.gather(*(socket.closed.wait() for socket in sockets))
        finally:
            for socket in sockets:
                socket.abort()
    return {"wall_s": last[0] - began, "cpu_s": look(target.pid or 0).cpu_s - before.cpu_s, "finals": finals[0]}


def bare(talks: Sequence[Conversation], processes: int, settings: Mapping[str, str]) -> dict[str, float]:
    """Decode conversations in the bare loop; give seconds of clock and CPU, and the number of finals.

    `settings` are those that the server was started with.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    shares = [[talk.samples for talk in talks[i::processes]] for i in range(processes)]
    with context.Pool(processes, _load, (barrier, dict(settings))) as pool:
        spent = _run(pool, shares)
    return {
        "wall_s": max(each.wall_s for each in spent),
        "cpu_s": sum(each.cpu_s for each in spent),
        "finals": sum(each.finals for each in spent),
    }


def ratios(pairs: Sequence[tuple[dict[str, float], dict[str, float]]], audio_s: float) -> dict[str, Any]:
    """Put the server beside the loop: medians over the pairs of runs, and the ratio of each pair by the clock."""
    server, loop = (_medians(runs) for runs in zip(*pairs, strict=True))
    by_clock = [theirs["wall_s"] / ours["wall_s"] for ours, theirs in pairs]
    by_cpu = [theirs["cpu_s"] / ours["cpu_s"] for ours, theirs in pairs if ours["cpu_s"]]
    return {
        "server": server,
        "bare_loop": loop,
        "server_audio_s_per_s": round(audio_s / server["wall_s"], 1),
        "bare_audio_s_per_s": round(audio_s / loop["wall_s"], 1),
        "ratios": [round(each, 3) for each in by_clock],
        "ratio": round(median(by_clock), 3),
        "ratio_by_cpu": round(median(by_cpu), 3) if by_cpu else None,
    }


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(median(run[name] for run in runs), 3) for name in runs[0]}


_loaded: list[Any] = []


def _load(barrier: Barrier, chosen: Mapping[str, str]) -> None:
    """Load the models in a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = load_settings(**chosen)
    _loaded[:] = [
        barrier,
        plugin("vads", settings.vad)(),
        plugin("engines", settings.engine)(EngineSettings.of(settings)),
        plugin("aligners", settings.aligner)(),
        settings,
    ]


def _run(pool: Pool, shares: Sequence[Sequence[Samples]]) -> list[_Spent]:
    # One task for each process: the barrier keeps any of them from taking two.
    return pool.map(_decode_all, shares, chunksize=1)


def _decode_all(tracks: Sequence[Samples]) -> _Spent:
    barrier, *models = _loaded
    barrier.wait()
    began, cpu_s = time.monotonic(), time.process_time()
    finals = sum(_decode(track, *models) for track in tracks)
    return _Spent(time.monotonic() - began, time.process_time() - cpu_s, finals)


def _decode(samples: Samples, vad: Any, engine: Any, aligner: Any, settings: Settings) -> int:
    """Decode one track and give the number of its finals."""
    asks = _asks(whole_frames(samples), channel(settings, Pacing(), partials=False), vad)
    finals = 0
    for ask in asks:
        (heard,) = engine.transcribe([Clip(key=ask.utterance, samples=ask.samples, final=True)])
        if heard.words:
            finals += 1
            aligner.align(ask.samples, [word.text for word in heard.words])
    return finals


def _asks(frames: NDArray[np.float32], heard_by: Channel, vad: Any) -> list[Ask]:
    """Give the clips of all segments of a track."""
    asks: dict[int, Ask] = {}
    steps: list[Step] = []
    state = vad.open()
    for at in range(0, len(frames), _PIECE_FRAMES):
        piece = frames[at : at + _PIECE_FRAMES]
        speech, state = vad.probabilities(piece, state)
        steps += heard_by.feed(piece.reshape(-1), speech)
    for step in [*steps, *heard_by.cut()]:
        if isinstance(step, Ask):
            asks[step.number] = step
        elif isinstance(step, Withdraw):
            asks.pop(step.number, None)
    return list(asks.values())
