"""moonshine-voice's own streaming Transcriber as a system under test, in a process of its own.

It gets what is best for it: 16 kHz floats instead of sockets and formats, one Transcriber for all streams with a thread
for each (it uses all cores for one stream, so that several Transcribers only get in each other's way: they take half as
long again), no copies of the audio handed back with each line, its default interval between updates, and all audio that
is due in one call, so that a stream that is behind makes up for it with one update instead of many. Lags are taken from
its events as from a socket's messages: a line is an utterance, and what it covers is its start and duration. The moment
of an event is when its listener is called.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.lags import Heard, Pace, Shown
from vivavoce.bench.load import AHEAD_S, DRAIN_S, LOOK_S, BenchError, Pacing, Run, Watch
from vivavoce.bench.words import words
from vivavoce.model import SAMPLE_RATE, Samples

_START_S = 120.0


@dataclass(frozen=True, slots=True)
class _Play:
    """What one stream is to hear, and when."""

    stream: int
    samples: Samples
    pace: Pace


@dataclass(frozen=True, slots=True)
class _Said:
    """What one stream's Transcriber said; `line` is None once it is over."""

    stream: int
    at: float
    line: str | None
    text: str = ""
    start: float = 0.0
    end: float = 0.0
    final: bool = False
    late_s: tuple[float, ...] = ()
    problem: str | None = None


@contextmanager
def transcriber() -> Iterator[Rival]:
    """Give the Transcriber as a system under test; its process ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="bench-moonshine", daemon=True)
    process.start()
    theirs.close()
    try:
        yield Rival(ours, process.pid or 0)
    finally:
        ours.close()
        process.terminate()
        process.join(5)
        process.kill()
        process.join()


class Rival:
    """Plays conversations to the Transcriber in the other process; a `load.System`."""

    def __init__(self, pipe: Connection, pid: int) -> None:
        self._pipe, self._pid = pipe, pid

    def __call__(
        self,
        talks: Sequence[Conversation],
        pacing: Pacing,
        *,
        progress: Callable[[float], None] = lambda _: None,
        hopeless: Callable[[Sequence[Heard]], bool] = lambda _: False,
    ) -> Run:
        """Play one stream for each conversation, and give what they brought; raises `BenchError` where it broke."""
        try:
            return self._run(talks, pacing, progress, hopeless)
        except (EOFError, OSError) as error:
            raise BenchError("moonshine-voice's Transcriber ended its process") from error

    def _run(
        self,
        talks: Sequence[Conversation],
        pacing: Pacing,
        progress: Callable[[float], None],
        hopeless: Callable[[Sequence[Heard]], bool],
    ) -> Run:
        self._pipe.send(len(talks))
        if not self._pipe.poll(_START_S):
            raise BenchError(f"moonshine-voice's Transcriber was not loaded in {_START_S:.0f} s")
        self._pipe.recv()
        # Handing the audio over takes time, so streams begin when all of it is there.
        begin = time.monotonic() + AHEAD_S + 0.25 * len(talks)
        run = Run()
        for i, (talk, start) in enumerate(zip(talks, pacing.starts(begin, len(talks)), strict=True)):
            pace = Pace(start=start, chunk_s=pacing.chunk_s)
            run.heard.append(Heard(played=talk, pace=pace))
            self._pipe.send(_Play(i, talk.samples, pace))
        steady = (begin + pacing.stagger_s, begin + min(talk.duration_s for talk in talks))
        self._follow(run, Watch(pid=self._pid, begin=begin, steady=steady, progress=progress, hopeless=hopeless))
        self._pipe.recv()
        return run

    def _follow(self, run: Run, watch: Watch) -> None:
        left = len(run.heard)
        latest = max(each.pace.start + each.played.duration_s for each in run.heard) + DRAIN_S
        looked_at = 0.0
        while left:
            now = time.monotonic()
            if now >= looked_at + LOOK_S:
                looked_at = now
                watch.look(run)
                watch.progress(now - watch.begin)
                if not run.given_up and (watch.hopeless(run.heard) or now > latest):
                    run.given_up = True
                    self._pipe.send(None)
            if self._pipe.poll(max(looked_at + LOOK_S - now, 0)):
                left -= _take(run, self._pipe.recv())
        watch.look(run)


def _take(run: Run, said: _Said) -> int:
    """Note what was said; gives 1 where that was a stream's end."""
    run.late_s.extend(said.late_s)
    if said.problem is not None:
        run.problems.append(said.problem)
    if said.line is None:
        return 1
    shown = Shown(
        at=said.at,
        utterance=said.line,
        words=tuple(words(said.text)),
        start=said.start,
        end=said.end,
        final=said.final,
    )
    if shown.words:
        run.heard[said.stream].shown.append(shown)
    return 0


def _serve(pipe: Connection) -> None:
    """Run in the other process: load the Transcriber, play, and report, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from moonshine_voice import ModelArch, Transcriber, get_assets_path  # noqa: PLC0415 - only this process loads it

    model = str(Path(get_assets_path()) / "tiny-en")
    loaded = Transcriber(model, ModelArch.TINY, options={"return_audio_data": "false"})
    with suppress(EOFError, OSError):
        while True:
            wanted = pipe.recv()
            if wanted is None:
                continue
            pipe.send(None)
            _play_all(pipe, loaded, [pipe.recv() for _ in range(wanted)])
            # Until it gets this, the other side sends nothing but a request to stop.
            pipe.send(None)


def _play_all(pipe: Connection, loaded: Any, plays: Sequence[_Play]) -> None:
    stop, sending = threading.Event(), threading.Lock()

    def say(said: _Said) -> None:
        with sending:
            pipe.send(said)

    threads = [threading.Thread(target=_play, args=(loaded, play, say, stop)) for play in plays]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if pipe.poll(LOOK_S / 4):
            pipe.recv()
            stop.set()
    for thread in threads:
        thread.join()


def _play(loaded: Any, play: _Play, say: Callable[[_Said], None], stop: threading.Event) -> None:
    """Play one stream at its pace."""
    stream = loaded.create_stream()
    latest: dict[int, tuple[str, float, bool]] = {}
    late_s: list[float] = []

    def listen(event: Any) -> None:
        at, line = time.monotonic(), getattr(event, "line", None)
        if line is None:
            say(_Said(play.stream, at, "", problem=type(event.error).__name__))
            return
        state = (line.text, line.start_time + line.duration, bool(line.is_complete))
        before = latest.get(line.line_id)
        # One update may be told by several events; what a line is completed with is its final.
        if before == state or (before is not None and before[2]):
            return
        latest[line.line_id] = state
        say(_Said(play.stream, at, f"{play.stream}/{line.line_id}", state[0], line.start_time, state[1], state[2]))

    stream.add_listener(listen)
    stream.start()
    size = round(play.pace.chunk_s * SAMPLE_RATE)
    sent, total = 0, -(-len(play.samples) // size)
    while sent < total and not stop.is_set():
        now = time.monotonic()
        if (early_s := play.pace.due(sent) - now) > 0:
            time.sleep(early_s)
            continue
        due = min(max(int((now - play.pace.start) / play.pace.chunk_s) + 1, sent + 1), total)
        late_s.append(now - play.pace.due(sent))
        stream.add_audio(play.samples[sent * size : due * size].tolist(), SAMPLE_RATE)
        sent = due
    stream.stop()
    stream.close()
    say(_Said(play.stream, time.monotonic(), None, late_s=tuple(late_s)))
