"""Which engine the settings name: one for everything, or a quick one for partials and a thorough one for finals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vivavoce.config import Settings
from vivavoce.model import Clip, Hypothesis
from vivavoce.plugins import Engine, EngineSettings, plugin
from vivavoce.runtime.decode import FINALS_NICE, polite_threads


async def open_engine(settings: Settings) -> Engine:
    """Make what decodes; raises `SetupError` where a plugin is missing or cannot be made from the settings.

    Engines that compute on threads of their own start them here: these give way to the event loop as callers do.
    """
    with polite_threads("load", 1, FINALS_NICE) as loader:
        return await asyncio.get_running_loop().run_in_executor(loader, load_engine, settings)


def load_engine(settings: Settings) -> Engine:
    """Make what decodes, as `open_engine` does; blocks."""
    told = EngineSettings.of(settings)
    finals: Engine = plugin("engines", settings.engine)(told)
    if settings.partial_engine is None and settings.partial_model is None:
        return finals
    name = settings.partial_engine or settings.engine
    # What another engine computes on, and with which numbers, is for that engine to say.
    own = told if name == settings.engine else replace(told, device="auto", compute_type="auto")
    try:
        return Pair(finals, plugin("engines", name)(replace(own, model=settings.partial_model)))
    except BaseException:
        finals.close()
        raise


class Pair:
    """Two engines as one; implements `plugins.Engine`.

    What the pair says of itself is what its engine for finals says. That one also decodes partials which may be in a
    language that the other does not know.
    """

    def __init__(self, finals: Engine, partials: Engine) -> None:
        self._finals, self._partials = finals, partials
        size = max(finals.info.batch_size, partials.info.batch_size)
        self.info = replace(finals.info, batch_size=size)

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. Raises `EngineError`."""
        found: dict[int, Hypothesis] = {}
        quick = [nth for nth, clip in enumerate(clips) if self._is_quick(clip)]
        thorough = [nth for nth in range(len(clips)) if nth not in quick]
        for engine, places in ((self._finals, thorough), (self._partials, quick)):
            for group in _groups(places, engine.info.batch_size):
                answers = engine.transcribe([clips[nth] for nth in group])
                found.update(zip(group, answers, strict=True))
        return [found[nth] for nth in range(len(clips))]

    def release(self, key: str) -> None:
        """Have both forget what they kept under a clip's key."""
        self._finals.release(key)
        self._partials.release(key)

    def close(self) -> None:
        """Free both models."""
        self._finals.close()
        self._partials.close()

    def _is_quick(self, clip: Clip) -> bool:
        possible = frozenset(clip.languages) or self._finals.info.languages
        return not clip.final and possible <= self._partials.info.languages


def _groups(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    yield from (places[at : at + size] for at in range(0, len(places), size))
