"""Which engine a recipe names: one for everything, or a quick one for partials and a thorough one for finals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import structlog

from vivavoce.config import Settings
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis
from vivavoce.plugins import WARM_UP, Engine, EngineInfo, EngineSettings, KnownModel, plugin, plugin_names
from vivavoce.runtime.decode import FINALS_NICE, polite_threads

log = structlog.get_logger()

_SECOND = np.zeros(SAMPLE_RATE, np.float32)
_FINALS_OPTION = re.compile(r"--(engine|model)(?![\w-])")  # not --engine-key or --engine-threads, which both have


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decodes: the plugin name of an engine with what it is made from, and another for `partials` if any."""

    engine: str
    told: EngineSettings
    partials: tuple[str, EngineSettings] | None = None

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """Give what the server's own settings name."""
        told = EngineSettings.of(settings)
        if settings.partial_engine is None and settings.partial_model is None:
            return cls(engine=settings.engine, told=told)
        name = settings.partial_engine or settings.engine
        # What another engine computes on, and with which numbers, is for that engine to say.
        own = told if name == settings.engine else replace(told, device="auto", compute_type="auto")
        return cls(engine=settings.engine, told=told, partials=(name, replace(own, model=settings.partial_model)))

    def make(self) -> Engine:
        """Make what decodes, and use it once; blocks.

        Raises `SetupError` where a plugin is missing, cannot be made or cannot decode.
        """
        finals = _make_warm(self.engine, self.told)
        if self.partials is None:
            return finals
        try:
            with _told_as_partials():
                return Pair(finals, _make_warm(*self.partials))
        except BaseException:
            finals.close()
            raise

    def describe(self) -> EngineInfo | None:
        """Say what the engine can do without making it, None where its factory cannot tell; blocks.

        Raises `SetupError` where it cannot be made: its files are not here, or the settings ask for what is not.
        """
        info = _describe(self.engine, self.told)
        if self.partials is not None:
            with _told_as_partials():
                _describe(*self.partials)
        return info


def _describe(name: str, told: EngineSettings) -> EngineInfo | None:
    try:
        describe = getattr(plugin("engines", name), "describe", None)
        info: EngineInfo | None = describe(told) if describe is not None else None
    except SetupError:
        raise
    except Exception as error:  # noqa: BLE001 - a factory may raise anything; loading the engine will tell
        log.debug("an engine cannot describe itself", engine=name, error=str(error))
        return None
    return info


@contextmanager
def _told_as_partials() -> Iterator[None]:
    """Tell what is wrong with the engine for partials by the names of its own settings."""
    try:
        yield
    except SetupError as error:
        raise SetupError(_FINALS_OPTION.sub(r"--partial-\1", str(error))) from error


def _make_warm(name: str, told: EngineSettings) -> Engine:
    """Make an engine and use it once, so that its first session does not pay for what libraries put off."""
    engine: Engine = plugin("engines", name)(told)
    try:
        engine.transcribe([Clip(key=WARM_UP, samples=_SECOND, final=False)])
        engine.release(WARM_UP)
    except EngineError as error:
        engine.close()
        raise SetupError(f"the engine {name} was loaded, but {error}") from error
    except BaseException:
        engine.close()
        raise
    return engine


async def open_engine(recipe: Recipe) -> Engine:
    """Make what decodes, as `Recipe.make` does.

    Engines that compute on threads of their own start them here: these give way to the event loop as callers do.
    """
    with polite_threads("load", 1, FINALS_NICE) as loader:
        return await asyncio.get_running_loop().run_in_executor(loader, recipe.make)


def load_engine(settings: Settings) -> Engine:
    """Make what decodes by the server's own settings; blocks. Raises as `Recipe.make` does."""
    return Recipe.of(settings).make()


def known_models() -> list[tuple[str, KnownModel]]:
    """Give the models that installed engines know where to get, each with its engine's plugin name; blocks."""
    found: list[tuple[str, KnownModel]] = []
    for name in plugin_names("engines"):
        try:
            known = getattr(plugin("engines", name), "known", None)
            found += [(name, model) for model in (known() if known is not None else ())]
        except Exception as error:  # noqa: BLE001 - an engine whose library is missing is for its own user to hear of
            log.debug("an engine cannot say which models it knows", engine=name, error=str(error))
    return found


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
