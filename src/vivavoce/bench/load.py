"""The load: paced live sessions over real sockets, against any server that speaks the protocol.

Chunk k of a session is sent at `start + k * chunk_s` by the clock, so no delay adds up; chunks that are overdue go at
once. Sessions start one after another over `stagger_s`. The moment at which an utterance closed is the `created_at` of
its `speech_end` where the server shares this machine's clock; elsewhere it is that message's arrival.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
import uvloop
from pydantic_core import from_json
from websockets.exceptions import InvalidHandshake

from vivavoce.bench.conversation import Conversation, Format, chunks, encode
from vivavoce.bench.lags import Heard, Pace, Shown
from vivavoce.bench.socket import TEXT, Socket, frame
from vivavoce.bench.usage import Look, look
from vivavoce.bench.words import words
from vivavoce.errors import VivavoceError

DRAIN_S = 60.0
"""How long a server may take to finish a session after its last audio."""

WANTED = {
    "receive_partial_transcripts": True,
    "receive_final_transcripts": True,
    "receive_speech_events": True,
    "receive_acknowledgments": True,
    "receive_lifecycle_events": True,
    "receive_post_processing_events": False,
}

T = TypeVar("T")

STOP = frame(b'{"type":"stop_recording"}', TEXT)
LOOK_S, AHEAD_S = 1.0, 0.5
"""How often a run is looked at, and how long before it begins its first stream is made ready."""
_SLACK_S = 0.3


class BenchError(VivavoceError):
    """The bench cannot measure what it was asked to."""

    code = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under test; `pid` is known of one on this machine only."""

    url: str
    key: str | None = None
    pid: int | None = None

    @property
    def shares_clock(self) -> bool:
        """Whether the server's clock is ours."""
        return urlsplit(self.url).hostname in {"localhost", "127.0.0.1", "::1"}

    def client(self) -> httpx.AsyncClient:
        """Give a client for the REST side."""
        headers = {"x-gladia-key": self.key or "none"}
        limits = httpx.Limits(max_connections=64)
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30, limits=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """How sessions are played."""

    form: Format = Format.PCM16K
    chunk_s: float = 0.1
    stagger_s: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def starts(self, begin: float, count: int) -> list[float]:
        """Give when each of some streams starts, the first of them when all begin."""
        return [begin + self.stagger_s * nth / count for nth in range(count)]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a whole chunk."""
        return round(self.form.rate * self.chunk_s) * self.form.sample_bytes


@dataclass(kw_only=True, eq=False)
class Run:
    """What a run of some sessions brought, and what the server's process tree and the bench used meanwhile.

    `backlogs_s` tells how much audio the server had not heard yet at the stop of a session.
    """

    heard: list[Heard] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    backlogs_s: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    busy: list[Look] = field(default_factory=list)
    given_up: bool = False
    bench_cpu_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Follows a run: looks at the process that works, tells how far it is, and gives up where that is `hopeless`.

    All sessions run between the moments of `steady`.
    """

    pid: int | None
    begin: float
    steady: tuple[float, float]
    progress: Callable[[float], None]
    hopeless: Callable[[Sequence[Heard]], bool]

    def look(self, run: Run) -> None:
        """Note what the process has used so far."""
        if self.pid is not None:
            run.looks.append(seen := look(self.pid))
            if self.steady[0] <= seen.at <= self.steady[1]:
                run.busy.append(seen)

    async def attend(self, everyone: asyncio.Future[Any], run: Run) -> None:
        """Follow sessions to their end, or end them where they are left."""
        try:
            while not everyone.done():
                self.look(run)
                self.progress(time.monotonic() - self.begin)
                if not run.given_up and self.hopeless(run.heard):
                    run.given_up = True
                await asyncio.wait([everyone], timeout=LOOK_S)
            self.look(run)
            everyone.result()
        finally:
            everyone.cancel()
            with suppress(asyncio.CancelledError):
                await everyone


class System(Protocol):
    """Something that transcribes conversations played to it."""

    def __call__(
        self,
        talks: Sequence[Conversation],
        pacing: Pacing,
        *,
        progress: Callable[[float], None] = ...,
        hopeless: Callable[[Sequence[Heard]], bool] = ...,
    ) -> Run:
        """Play one session for each conversation at the same time, as `play` does, and give what they brought."""


class _Session:
    """One session's messages."""

    def __init__(self, heard: Heard, chunk_bytes: int, run: Run, *, shares_clock: bool) -> None:
        self._heard, self._run = heard, run
        self._chunk_bytes = chunk_bytes
        # From the clock of arrivals to that of messages.
        self._ahead_s = time.time() - time.monotonic() if shares_clock else None
        self._closed: list[tuple[float, float, float]] = []
        self._speech_start = 0.0
        self.ended = False

    def take(self, at: float, text: bytes) -> None:
        """Take one message that came `at`."""
        message = from_json(text)
        data = message.get("data")
        match message["type"]:
            case "audio_chunk":
                self._take_ack(at, message)
            case "transcript":
                self._take_transcript(at, data)
            case "speech_start":
                self._speech_start = data["time"]
            case "speech_end":
                happened = at if self._ahead_s is None else _moment(message["created_at"]) - self._ahead_s
                self._closed.append((self._speech_start, data["time"], happened))
            case "end_session":
                self.ended = True
            case "stop_recording":
                self._run.backlogs_s.append(data["recording_left_to_process"])
            case "error":
                self._run.problems.append(str(data["code"]))

    def _take_ack(self, at: float, message: Mapping[str, Any]) -> None:
        if not message["acknowledged"]:
            self._run.problems.append("audio refused")
            return
        start, stop = message["data"]["byte_range"]
        for chunk in range(start // self._chunk_bytes, -(-stop // self._chunk_bytes)):
            self._heard.ack_lags.append(at - self._heard.pace.due(chunk))

    def _take_transcript(self, at: float, data: Mapping[str, Any]) -> None:
        said = data["utterance"]
        shown = Shown(
            at=at,
            utterance=data["id"],
            words=tuple(words(said["text"])),
            start=said["start"],
            end=said["end"],
            final=data["is_final"],
            text=said["text"],
        )
        self._heard.shown.append(shown)
        if shown.final:
            middle = (shown.start + shown.end) / 2
            closed = [moment for start, end, moment in self._closed if start - _SLACK_S <= middle <= end + _SLACK_S]
            self._heard.decision_lags.extend(at - moment for moment in closed[-1:])


def _moment(created_at: str) -> float:
    return datetime.fromisoformat(created_at).timestamp()


def finish(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what `work` gives to its end on a fast event loop; Ctrl-C cancels it and raises `KeyboardInterrupt`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def play(
    target: Target,
    talks: Sequence[Conversation],
    pacing: Pacing,
    *,
    progress: Callable[[float], None] = lambda _: None,
    hopeless: Callable[[Sequence[Heard]], bool] = lambda _: False,
) -> Run:
    """Play one session for each conversation, and give what they brought.

    `progress` is told about once a second how many seconds of the longest session are over; where `hopeless` says so,
    the sessions are stopped early.
    """
    prepared = {id(talk): frames_of([talk], pacing) for talk in talks}
    frames = [prepared[id(talk)] for talk in talks]
    begin = time.monotonic() + AHEAD_S
    starts = pacing.starts(begin, len(talks))
    busy_s = time.process_time()
    async with target.client() as http:
        load = _Load(target, pacing, http)
        parts = zip(talks, frames, starts, strict=True)
        everyone = asyncio.gather(*(load.play(talk, sent, start) for talk, sent, start in parts))
        steady = (begin + pacing.stagger_s, begin + min(talk.duration_s for talk in talks))
        watch = Watch(pid=target.pid, begin=begin, steady=steady, progress=progress, hopeless=hopeless)
        await watch.attend(everyone, load.run)
        load.run.bench_cpu_s, load.run.wall_s = time.process_time() - busy_s, time.monotonic() - begin
    return load.run


def frames_of(talks: Sequence[Conversation], pacing: Pacing) -> list[bytes]:
    """Give the frames of a session with a channel for each conversation; short ones end in silence."""
    longest = max(len(talk.samples) for talk in talks)
    tracks = [encode(np.pad(talk.samples, (0, longest - len(talk.samples))), pacing.form) for talk in talks]
    samples = np.stack([np.frombuffer(track, f"V{pacing.form.sample_bytes}") for track in tracks], 1)
    return [frame(chunk) for chunk in chunks(samples.tobytes(), pacing.form, pacing.chunk_s * len(talks))]


class _Load:
    """The sessions of one run."""

    def __init__(self, target: Target, pacing: Pacing, http: httpx.AsyncClient) -> None:
        self._target, self._pacing, self._http = target, pacing, http
        self.run = Run()

    async def play(self, talk: Conversation, frames: Sequence[bytes], start: float) -> None:
        """Play one session to its end."""
        await asyncio.sleep(start - AHEAD_S - time.monotonic())
        url = await open_session(self._http, self._pacing, self.run)
        if url is None:
            return
        early: list[tuple[float, bytes]] = []
        try:
            socket = await Socket.connect(url, lambda at, text: early.append((at, text)))
        except (OSError, InvalidHandshake) as error:
            self.run.refused.append(f"socket: {type(error).__name__}")
            return
        try:
            await self._play(socket, talk, frames, start, early)
        finally:
            socket.abort()

    async def _play(
        self,
        socket: Socket,
        talk: Conversation,
        frames: Sequence[bytes],
        start: float,
        early: Sequence[tuple[float, bytes]],
    ) -> None:
        pacing = self._pacing
        heard = Heard(played=talk, pace=Pace(start=max(start, time.monotonic()), chunk_s=pacing.chunk_s))
        session = _Session(heard, pacing.chunk_bytes, self.run, shares_clock=self._target.shares_clock)
        for at, text in early:
            session.take(at, text)
        socket.on_message = session.take
        self.run.heard.append(heard)
        await send(socket, heard.pace, frames, self.run)
        socket.write(STOP)
        with suppress(TimeoutError):
            await asyncio.wait_for(socket.closed.wait(), DRAIN_S)
        if not session.ended:
            self.run.problems.append(f"not finished (closed with {socket.close_code})")


async def send(socket: Socket, pace: Pace, frames: Sequence[bytes], run: Run) -> None:
    """Send each frame when it is due, and note in `run` how late it was."""
    for chunk, data in enumerate(frames):
        due = pace.due(chunk)
        early_s = due - time.monotonic()
        if early_s > 0:
            await asyncio.sleep(early_s)
        if run.given_up or socket.closed.is_set():
            return
        run.late_s.append(time.monotonic() - due)
        socket.write(data)


async def open_sessions(http: httpx.AsyncClient, pacing: Pacing, count: int) -> list[str]:
    """Make sessions and give the addresses of their sockets; raises `BenchError` where one was refused."""
    run = Run()
    urls = [await open_session(http, pacing, run) for _ in range(count)]
    if run.refused:
        raise BenchError(f"the server refused sessions: {', '.join(sorted(set(run.refused)))}")
    return [url for url in urls if url]


async def open_session(http: httpx.AsyncClient, pacing: Pacing, run: Run) -> str | None:
    """Make a session and give the address of its socket, or None where it was refused."""
    request = {**pacing.form.request, "messages_config": WANTED, **pacing.options}
    try:
        response = await http.post("/v2/live", json=request)
    except httpx.HTTPError as error:
        run.refused.append(type(error).__name__)
        return None
    if response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY}:
        raise BenchError(f"the server refused the session: {response.json().get('message', response.status_code)}")
    if response.status_code != httpx.codes.CREATED:
        run.refused.append(str(response.status_code))
        return None
    return str(response.json()["url"])
