"""Aligners in processes of their own: real processes, real signals."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vivavoce.engines.alignment import PocketSphinxAligner
from vivavoce.engines.diarization import MoonshineDiarizer
from vivavoce.errors import EngineError
from vivavoce.model import SAMPLE_RATE, Samples
from vivavoce.runtime import isolated
from vivavoce.runtime.isolated import IsolatedAligner, IsolatedDiarizer

ODD = '''
import os, time
from pathlib import Path

def first_time(path):
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Odd:
    """Does what its first word says; else gives each word its process id as a time."""
    languages = frozenset({"en"})

    def align(self, samples, words):
        match words[0]:
            case "hang":
                time.sleep(600)
            case "die once" if first_time(words[1]):
                os._exit(3)
            case "die":
                os._exit(3)
            case "fail":
                raise ValueError("words: " + words[0])
            case "slow":
                time.sleep(0.3)
            case "none":
                return None
        return [(0.0, float(os.getpid()))] * len(words)

def broken():
    raise RuntimeError("no model here")

def starts_once():
    if not first_time(os.environ["STARTED"]):
        time.sleep(600)
    return Odd()
'''

PROGRAM = """
import asyncio, time
print("main imported as", __name__, flush=True)

async def main():
    from vivavoce.engines.alignment import PocketSphinxAligner
    from vivavoce.runtime.isolated import IsolatedAligner
    aligner = IsolatedAligner(PocketSphinxAligner)
    await aligner.start()
    print(*aligner.pids, flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""

CLIP: Samples = np.zeros(SAMPLE_RATE // 10, np.float32)


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of aligners that misbehave, importable in workers too."""
    (tmp_path / "odd_aligners.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_aligners", raising=False)
    return importlib.import_module("odd_aligners")


@pytest.fixture
async def started(odd: Any) -> AsyncIterator[Callable[..., Any]]:
    """A function that starts an aligner of misbehaving workers; all are closed at the end."""
    opened: list[IsolatedAligner] = []

    async def start(**options: Any) -> IsolatedAligner:
        aligner = IsolatedAligner(odd.Odd, **options)
        opened.append(aligner)
        await aligner.start()
        return aligner

    yield start
    for aligner in opened:
        await aligner.close()


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def _until(true: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_worker_gives_what_the_aligner_gives(two_cities: Samples) -> None:
    """Real words over real speech: the same times as in this process, while this process stays free to work."""
    clip = two_cities[int(4.8 * SAMPLE_RATE) : int(6.56 * SAMPLE_RATE)]
    words = ["It", "was", "the", "age", "of", "wisdom,"]
    aligner = IsolatedAligner(PocketSphinxAligner)
    await aligner.start()
    try:
        assert await aligner.align(clip, words) == PocketSphinxAligner().align(clip, words)
        assert await aligner.align(np.zeros_like(clip), words) is None
        assert [aligner.knows(language) for language in ("en", "nl")] == [True, False]
        assert aligner.pids != [os.getpid()]
    finally:
        await aligner.close()


async def test_a_diarizer_works_in_a_worker(two_cities: Samples) -> None:
    """The same voices as in this process; none before its start or if nobody wants them; started twice it is one."""
    clip = two_cities[int(4.8 * SAMPLE_RATE) : int(6.56 * SAMPLE_RATE)]
    diarizer = IsolatedDiarizer(MoonshineDiarizer)
    try:
        assert await diarizer.voices(clip, lambda: True) == ()
        await asyncio.gather(diarizer.start(), diarizer.start())
        assert len(diarizer.pids) == 1
        assert await diarizer.voices(clip, lambda: False) == ()
        assert await diarizer.voices(clip, lambda: True) == MoonshineDiarizer().voices(clip)
    finally:
        await diarizer.close()


async def test_the_longest_wait_is_known(started: Callable[..., Any]) -> None:
    """While calls wait for a worker, and not after."""
    aligner = await started()
    calls = [asyncio.create_task(aligner.align(CLIP, ["slow"])) for _ in range(3)]
    await _until(lambda: aligner.oldest_s > 0.1)
    await asyncio.gather(*calls)
    assert aligner.oldest_s == 0


async def test_late_calls_wait_for_all_others(started: Callable[..., Any]) -> None:
    """What catches up after a crash keeps nobody waiting who is live, and counts for nothing among those who wait."""
    aligner = await started()
    order: list[str] = []

    async def align(name: str, *, late: bool) -> None:
        await aligner.align(CLIP, ["slow"], late=late)
        order.append(name)

    names = {"first": False, "late": True, "later": True}
    calls = [asyncio.create_task(align(name, late=late)) for name, late in names.items()]
    await asyncio.sleep(0)
    assert aligner.oldest_s == 0
    calls.append(asyncio.create_task(align("live", late=False)))
    await asyncio.gather(*calls)
    assert order == ["first", "live", "late", "later"]


async def test_what_did_not_start_can_be_started_again(odd: Any) -> None:
    """Each attempt raises by itself, and calls get None meanwhile."""
    aligner = IsolatedAligner(odd.broken)
    for _ in range(2):
        with pytest.raises(EngineError):
            await aligner.start()
        assert await aligner.align(CLIP, ["pid"]) is None
    await aligner.close()


async def test_a_call_that_loses_its_worker_is_tried_again(started: Callable[..., Any], tmp_path: Path) -> None:
    """A worker that dies by chance costs nobody an answer; it comes from another process."""
    aligner = await started(grace_s=60)
    (pid,) = aligner.pids
    answer = await aligner.align(CLIP, ["die once", str(tmp_path / "tried")])
    assert answer is not None
    assert answer[0][1] != float(pid)


async def test_a_clip_that_kills_workers_costs_one_answer(started: Callable[..., Any]) -> None:
    """Its call gets None after the second one, the next one an answer from another process."""
    aligner = await started(grace_s=60)
    before = await aligner.align(CLIP, ["pid"])
    assert await aligner.align(CLIP, ["die"]) is None
    after = await aligner.align(CLIP, ["pid"])
    assert after is not None
    assert after != before


async def test_a_worker_killed_from_outside_is_replaced(started: Callable[..., Any]) -> None:
    """After kill -9 between two calls no answer is missing."""
    aligner = await started(grace_s=60)
    (pid,) = aligner.pids
    os.kill(pid, signal.SIGKILL)
    assert await aligner.align(CLIP, ["pid"]) is not None
    assert aligner.pids != [pid]


async def test_a_worker_that_hangs_is_killed_and_replaced(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call gets None, its process ends, and another one answers."""
    monkeypatch.setattr(isolated, "OVERDUE", 1)
    aligner = await started(grace_s=0.5)
    (pid,) = aligner.pids
    assert await aligner.align(CLIP, ["hang"]) is None
    await _until(lambda: _ended(pid))
    await _until(lambda: bool(aligner.pids))
    assert aligner.pids != [pid]


async def test_a_worker_that_was_stopped_for_a_while_is_not_killed(
    started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its call, those that wait and those that come get None, none waits for it, and it goes on when it can."""
    monkeypatch.setattr(isolated, "OVERDUE", 10_000)
    aligner = await started(grace_s=0.5)
    (pid,) = aligner.pids
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await asyncio.gather(*(aligner.align(CLIP, ["pid"]) for _ in range(3))) == [None] * 3
        assert await aligner.align(CLIP, ["pid"]) is None
    finally:
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(30):
        while (answer := await aligner.align(CLIP, ["pid"])) is None:
            await asyncio.sleep(0.01)
    assert answer == [(0.0, float(pid))]


async def test_nobody_waits_long_for_a_worker_that_is_slow_to_start_again(
    odd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call whose worker died goes without its answer while the next one still loads."""
    monkeypatch.setenv("STARTED", str(tmp_path / "started"))
    aligner = IsolatedAligner(odd.starts_once, grace_s=0.5)
    await aligner.start()
    try:
        async with asyncio.timeout(isolated.START_S / 2):
            assert await aligner.align(CLIP, ["die"]) is None
            assert await aligner.align(CLIP, ["pid"]) is None
    finally:
        await aligner.close()


async def test_waiting_for_a_worker_is_not_counted(started: Callable[..., Any]) -> None:
    """Load delays answers and takes none away: six calls of 0.3 s, each allowed 1.5 s, all succeed on one worker."""
    aligner = await started(grace_s=1.5)
    answers = await asyncio.gather(*(aligner.align(CLIP, ["slow"]) for _ in range(6)))
    assert None not in answers


async def test_an_aligner_that_raises_costs_one_answer_and_no_worker(
    started: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The call gets None, the same process goes on, and no word of the text is logged."""
    aligner = await started()
    before = await aligner.align(CLIP, ["pid"])
    assert await aligner.align(CLIP, ["fail", "confidential"]) is None
    assert await aligner.align(CLIP, ["none"]) is None
    assert await aligner.align(CLIP, ["pid"]) == before
    printed = capsys.readouterr()
    assert "confidential" not in printed.out + printed.err


async def test_several_processes_share_the_calls(started: Callable[..., Any]) -> None:
    """Two workers answer two calls at a time, from two processes."""
    aligner = await started(processes=2)
    answers = await asyncio.gather(*(aligner.align(CLIP, ["slow"]) for _ in range(4)))
    assert {answer[0][1] for answer in answers if answer} == {float(pid) for pid in aligner.pids}
    assert len(aligner.pids) == 2


async def test_workers_are_deaf_to_the_signals_of_a_stop(started: Callable[..., Any]) -> None:
    """SIGINT and SIGTERM reach the whole process group; only the parent ends a worker."""
    aligner = await started()
    (pid,) = aligner.pids
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    answer = await aligner.align(CLIP, ["pid"])
    assert answer == [(0.0, float(pid))]


async def test_closing_ends_the_workers_and_answers_who_waits(started: Callable[..., Any]) -> None:
    """After close no process is left, a hung call included, and waiting and later calls get None."""
    aligner = await started(grace_s=60)
    (pid,) = aligner.pids
    calls = [asyncio.create_task(aligner.align(CLIP, [word])) for word in ("hang", "pid", "pid")]
    await asyncio.sleep(0)
    await aligner.close()
    assert _ended(pid)
    assert await asyncio.gather(*calls) == [None, None, None]
    assert await aligner.align(CLIP, ["pid"]) is None
    await aligner.close()


async def test_an_aligner_that_cannot_be_made_fails_the_start(odd: Any) -> None:
    """The error keeps the factory's own as its cause, and no process is left."""
    aligner = IsolatedAligner(odd.broken)
    with pytest.raises(EngineError) as failed:
        await aligner.start()
    assert "no model here" in str(failed.value.__cause__)
    assert aligner.pids == []


@pytest.mark.parametrize("way", ["file", "module"])
def test_workers_end_with_their_parent_and_never_import_its_main(tmp_path: Path, way: str) -> None:
    """After kill -9 of the parent its worker ends by itself; the parent's main module was run once, by the parent."""
    package = tmp_path / "program"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    command = [str(package / "__main__.py")] if way == "file" else ["-m", "program"]
    printed = tmp_path / "printed"
    with (
        printed.open("w") as output,
        subprocess.Popen([sys.executable, *command], stdout=output, stderr=subprocess.DEVNULL, cwd=tmp_path) as parent,
    ):
        try:
            deadline = time.monotonic() + 90
            while printed.read_text().count("\n") < 2 and time.monotonic() < deadline and parent.poll() is None:
                time.sleep(0.02)
        finally:
            parent.kill()
    first, pid = printed.read_text().splitlines()
    assert first == "main imported as __main__"
    deadline = time.monotonic() + 60
    while not _ended(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _ended(int(pid))


class _Scripted:
    """A worker whose calls end when the test says so; it dies with those that are told to raise."""

    running, pid = True, 1

    def __init__(self, factory: object) -> None:
        del factory
        self.answers: list[asyncio.Future[Any]] = []
        self.opens: list[BaseException | None] = []

    async def open(self) -> None:
        if self.opens and (error := self.opens.pop(0)) is not None:
            self.running = False
            raise error
        self.running = True

    def may_reopen(self) -> bool:
        return True

    async def call(self, method: str, *arguments: object) -> Any:
        del method, arguments
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    def discard(self, *, kill: bool) -> None:
        del kill
        self.running = False

    async def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers be scripted ones."""
    monkeypatch.setattr(isolated, "_Worker", _Scripted)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("turns", range(6))
async def test_a_worker_whose_caller_goes_away_serves_the_next_one(turns: int) -> None:
    """Whether the call is still under way then, just through, or its answer on its way to the caller."""
    aligner = IsolatedAligner(odd_factory)
    await aligner.start()
    (worker,) = aligner._workers
    first = asyncio.create_task(aligner.align(CLIP, ["word"]))
    await _until(lambda: bool(worker.answers))
    worker.answers[0].set_result([(0.0, 1.0)])
    await _turns(turns)
    first.cancel()
    second = asyncio.create_task(aligner.align(CLIP, ["word"]))
    await _until(lambda: len(worker.answers) > 1)
    worker.answers[1].set_result([(1.0, 2.0)])
    assert await second == [(1.0, 2.0)]
    await asyncio.gather(first, return_exceptions=True)
    await aligner.close()


@pytest.mark.usefixtures("scripted")
async def test_a_worker_that_cannot_be_replaced_answers_nobody_while_another_works() -> None:
    """Calls that wait are for the one that works, not for the one that is gone."""
    aligner = IsolatedAligner(odd_factory, processes=2)
    await aligner.start()
    one, two = aligner._workers
    one.opens = [RuntimeError("no memory")] * 100
    calls = [asyncio.create_task(aligner.align(CLIP, ["word"])) for _ in range(2)]
    await _until(lambda: bool(one.answers and two.answers))
    waiting = [asyncio.create_task(aligner.align(CLIP, ["word"])) for _ in range(3)]
    one.answers[0].set_exception(BrokenProcessPool())
    await _until(lambda: not one.running and len(one.opens) < 100)
    for nth in range(5):
        await _until(lambda nth=nth: len(two.answers) > nth)
        two.answers[nth].set_result([(0.0, 1.0)])
    assert [await call for call in [*calls, *waiting]] == [[(0.0, 1.0)]] * 5
    await aligner.close()


def odd_factory() -> None:
    """Make nothing: scripted workers have no plugin."""
