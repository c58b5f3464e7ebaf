"""A scripted engine for tests of everything around speech."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from vivavoce.errors import EngineError
from vivavoce.model import Clip, Hypothesis, spread_words
from vivavoce.plugins import EngineInfo


class ScriptedEngine:
    """Answers each clip with what `script` says of it; waits at `gate` if one is given.

    A script gives the text, or None to fail. `calls` keeps the keys of every batch, finals marked by `!`.
    """

    def __init__(
        self,
        script: Callable[[Clip], str | None] = lambda clip: clip.key,
        *,
        exact_batches: bool = False,
        gate: threading.Semaphore | None = None,
    ) -> None:
        self.info = EngineInfo(
            name="scripted",
            languages=frozenset({"en"}),
            word_times=True,
            exact_batches=exact_batches,
            batch_size=4,
        )
        self.calls: list[list[str]] = []
        self.released: list[str] = []
        self._script, self._gate = script, gate

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Answer by the script; raises `EngineError` if it fails any clip."""
        self.calls.append([clip.key + "!" * clip.final for clip in clips])
        if self._gate is not None:
            self._gate.acquire()
        texts = [self._script(clip) for clip in clips]
        if None in texts:
            raise EngineError("the script says so")
        return [_hypothesis(text or "", clip) for text, clip in zip(texts, clips, strict=True)]

    def release(self, key: str) -> None:
        """Take note of it."""
        self.released.append(key)

    def close(self) -> None:
        """Do nothing."""


def _hypothesis(text: str, clip: Clip) -> Hypothesis:
    words = text.split()
    return Hypothesis(words=spread_words(words, [0.9] * len(words), 0.0, clip.duration_s), language="en")
