"""The models of this process: the default one, and those of the operator's file, loaded when a session first asks.

All sessions of a model share its engine and its decode pool. A session takes a `Lease` on its model and gives it back;
a model without leases is unloaded after `model_idle` seconds, where that is set. The default is what the server's own
settings name: it is loaded before the server is ready, never unloaded, and taken for every name that nobody knows.

The file is looked at whenever somebody asks for a model. Where a table has changed, new sessions get the new model, and
the old one goes when its last session does. A file with mistakes changes nothing: the log says what is wrong with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from vivavoce.config import Settings
from vivavoce.errors import EngineError, SetupError, Unavailable
from vivavoce.plugins import Engine, EngineInfo, KnownModel
from vivavoce.runtime.decode import DecodePool
from vivavoce.runtime.engines import Recipe, known_models, open_engine
from vivavoce.runtime.entries import Entry, model_directory, models_file, read_entries, recipe_of
from vivavoce.runtime.isolated import IsolatedAligner, IsolatedDiarizer

log = structlog.get_logger()

PATIENCE_S = 8.0
"""How long a new session waits for its model; clients give up after ten seconds."""
RETRY_S = 10.0
"""Pause after a model could not be loaded."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A model that stays loaded until `give_back` is called; calling that again does nothing."""

    pool: DecodePool
    give_back: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A model as clients see it: `get` is the command that installs one that is not here, or says what it lacks.

    `engine` is the engine's plugin name, `languages` are None where only loading the model would tell.
    """

    name: str
    engine: str
    languages: frozenset[str] | None
    features: tuple[str, ...]
    loaded: bool
    default: bool = False
    get: str | None = None


@dataclass(slots=True, eq=False)
class _Slot:
    """A model that is loaded, may be, or is being loaded or unloaded."""

    name: str
    recipe: Recipe
    sessions: int = 0
    retired: bool = False
    loading: asyncio.Task[DecodePool] | None = None
    unloading: asyncio.Task[None] | None = None
    retry_at: float = 0.0
    timer: asyncio.TimerHandle | None = None
    described: EngineInfo | None = None
    absent: bool = False
    describe_at: float = 0.0

    @property
    def pool(self) -> DecodePool | None:
        task = self.loading
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()


class Catalogue:
    """Gives each session the pool of the model that it names; made by `open`, and lives on the event loop."""

    def __init__(self, settings: Settings, aligner: IsolatedAligner, diarizer: IsolatedDiarizer | None) -> None:
        self._settings = settings
        self._aligner, self._diarizer = aligner, diarizer
        self._path = models_file(settings)
        self._stamp = _stamp(self._path)
        self._default = _Slot(name=settings.engine, recipe=Recipe.of(settings))
        self._entries = self._read()
        self._known: list[tuple[str, KnownModel]] | None = None
        self._slots: dict[str, _Slot] = {}
        self._retired: set[_Slot] = set()
        self._listing = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(
        cls, settings: Settings, *, aligner: IsolatedAligner, diarizer: IsolatedDiarizer | None
    ) -> Catalogue:
        """Load the default model; raises `SetupError` where that or the file is not fit for use."""
        catalogue = cls(settings, aligner, diarizer)
        catalogue._default.loading = asyncio.create_task(catalogue._load(catalogue._default), name="load default")
        await catalogue._default.loading
        return catalogue

    @property
    def pools(self) -> list[DecodePool]:
        """The pools of all models that are loaded, the default one's first."""
        return [pool for slot in self._all() if (pool := slot.pool) is not None]

    async def info(self, name: str) -> EngineInfo:
        """Say what the model of this name can do, once it is loaded; raises as `take` does."""
        lease = await self.take(name)
        try:
            return lease.pool.engine.info
        finally:
            lease.give_back()

    async def take(self, name: str, *, patience_s: float | None = PATIENCE_S) -> Lease:
        """Give a lease on the model of this name, or on the default; raises `Unavailable` where it cannot be loaded.

        Also where that takes longer than `patience_s`: loading goes on then, for who comes next.
        """
        slot = self._find(name)
        slot.sessions += 1
        if slot.timer is not None:
            slot.timer.cancel()
        try:
            pool = await self._loaded(slot, patience_s)
        except BaseException:
            self._leave(slot)
            raise
        left = False

        def give_back() -> None:
            nonlocal left
            if not left:
                left = True
                self._leave(slot)

        return Lease(pool, give_back)

    async def models(self, *, fetchable: bool = True) -> list[Listed]:
        """Give the default model, those of the file, and those that are `fetchable`, by name.

        What can be fetched every installed engine has to be asked, which loads its libraries.
        """
        self._look_at_file()
        async with self._listing:
            if fetchable and self._known is None:
                self._known = await asyncio.to_thread(known_models)
            slots = [self._default, *(self._find(name) for name in sorted(self._entries))]
            await asyncio.gather(*(self._describe(slot) for slot in slots))
        known = (self._known if fetchable else None) or ()
        listed = [self._listed(slot, known) for slot in slots]
        here = [slot.recipe for slot, each in zip(slots, listed, strict=True) if each.get is None]
        return listed + missing(known, here, {each.name for each in listed})

    async def close(self) -> None:
        """Stop decoding and free every model."""
        self._closed = True
        slots = [*self._all()]
        await asyncio.gather(*(self._unload(slot) for slot in slots))
        await asyncio.gather(*(slot.unloading for slot in slots if slot.unloading is not None))

    def _all(self) -> Iterable[_Slot]:
        return (self._default, *self._slots.values(), *self._retired)

    def _find(self, name: str) -> _Slot:
        self._look_at_file()
        if name not in self._entries:
            return self._default
        recipe = recipe_of(name, self._entries, self._settings)
        slot = self._slots.get(name)
        if slot is not None and slot.recipe == recipe:
            return slot
        if slot is not None:
            self._retire(slot)
        self._slots[name] = slot = _Slot(name=name, recipe=recipe)
        return slot

    def _read(self) -> Mapping[str, Entry]:
        entries = dict(read_entries(self._path))
        if entries.pop(self._default.name, None) is not None:
            log.warning("a model in the file has the default one's name and is not used", model=self._default.name)
        return entries

    def _look_at_file(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._entries = self._read()
        except SetupError as error:
            log.error("models are used as they were before", error=str(error))
            return
        for name in self._slots.keys() - self._entries.keys():
            self._retire(self._slots[name])
        log.info("models read", path=str(self._path), count=len(self._entries))

    def _retire(self, slot: _Slot) -> None:
        """Let a model go that is not in the file any more, after its last session."""
        del self._slots[slot.name]
        self._retired.add(slot)
        slot.retired = True
        if not slot.sessions:
            self._begin_unloading(slot)

    async def _loaded(self, slot: _Slot, patience_s: float | None) -> DecodePool:
        task = slot.loading
        if task is None or (task.done() and slot.pool is None and time.monotonic() >= slot.retry_at):
            task = slot.loading = asyncio.create_task(self._load(slot), name=f"load {slot.name}")
            # Nobody may be left to hear of it.
            task.add_done_callback(_seen)
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise Unavailable(f"the model {slot.name} is being loaded; come again") from None
        except SetupError as error:
            raise Unavailable(f"the model {slot.name} cannot be loaded now; the server's log says why") from error

    async def _load(self, slot: _Slot) -> DecodePool:
        """Make the engine of a slot with a pool around it; the log says why that fails, in one line."""
        if slot.unloading is not None:
            await slot.unloading
        begin = time.monotonic()
        try:
            engine = await self._open(slot)
        except SetupError as error:
            slot.retry_at = time.monotonic() + RETRY_S
            slot.described, slot.describe_at = None, 0.0
            if slot is not self._default:
                log.error("model not loaded", model=slot.name, error=str(error))
            raise
        slot.described, slot.absent = engine.info, False
        log.info("model loaded", model=slot.name, engine=engine.info.name, seconds=round(time.monotonic() - begin, 2))
        return DecodePool(engine, self._aligner, self._diarizer, threads=self._settings.decode_threads)

    async def _open(self, slot: _Slot) -> Engine:
        if slot is self._default:
            engine = await open_engine(slot.recipe)
        else:
            engine = await _open_chosen(slot.recipe)
        try:
            if not engine.info.word_times:
                await self._aligner.start()
        except BaseException as error:
            await asyncio.to_thread(engine.close)
            if slot is not self._default and isinstance(error, EngineError):
                raise SetupError(str(error)) from error
            raise
        return engine

    def _leave(self, slot: _Slot) -> None:
        slot.sessions -= 1
        if slot.sessions or self._closed:
            return
        if slot.retired:
            self._begin_unloading(slot)
        elif slot is not self._default:
            self._await_idleness(slot)

    def _await_idleness(self, slot: _Slot) -> None:
        if self._settings.model_idle is not None:
            loop = asyncio.get_running_loop()
            slot.timer = loop.call_later(self._settings.model_idle, partial(self._on_idle, slot))

    def _on_idle(self, slot: _Slot) -> None:
        if slot.sessions or slot.retired:
            return
        if slot.loading is not None and not slot.loading.done():
            # Who was told to come again is to find it.
            self._await_idleness(slot)
        else:
            self._begin_unloading(slot)

    def _begin_unloading(self, slot: _Slot) -> None:
        if slot.loading is None:
            self._retired.discard(slot)
            return
        slot.unloading = asyncio.create_task(self._unload(slot), name=f"unload {slot.name}")

    async def _unload(self, slot: _Slot) -> None:
        """Free a model; one that is being loaded is freed then. Another may be loaded in its place meanwhile."""
        task, slot.loading = slot.loading, None
        if slot.timer is not None:
            slot.timer.cancel()
        if task is None:
            return
        (pool,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(pool, DecodePool):
            await pool.close()
            await asyncio.to_thread(pool.engine.close)
            log.info("model unloaded", model=slot.name)
        self._retired.discard(slot)

    async def _describe(self, slot: _Slot) -> None:
        """Find out what a model can do; where it cannot be loaded, look again after a while, since files come."""
        if slot.described is not None or time.monotonic() < slot.describe_at:
            return
        slot.describe_at = time.monotonic() + RETRY_S
        try:
            slot.described = await asyncio.to_thread(slot.recipe.describe)
            slot.absent = False
        except SetupError:
            slot.absent = True

    def _listed(self, slot: _Slot, known: Iterable[tuple[str, KnownModel]]) -> Listed:
        info, loaded = slot.described, slot.pool is not None
        return Listed(
            name=slot.name,
            engine=slot.recipe.engine,
            languages=info.languages if info is not None else None,
            features=features_of(info),
            loaded=loaded,
            default=slot is self._default,
            get=way_to_get(slot.name, slot.recipe, known, self._settings) if slot.absent and not loaded else None,
        )


def features_of(info: EngineInfo | None) -> tuple[str, ...]:
    """Name what a model does besides writing words, as far as that is known."""
    if info is None:
        return ()
    several = info.detects and len(info.languages) > 1
    detects = ("code_switching", "language_detection") if several else ()
    return (*detects, *(("word_times",) if info.word_times else ()))


def way_to_get(name: str, recipe: Recipe, known: Iterable[tuple[str, KnownModel]], settings: Settings) -> str:
    """Give the command that brings back a model which cannot be loaded, or says what it lacks."""
    if name == settings.engine:
        return "vivavoce doctor"
    downloaded = recipe.told.model == str(model_directory(settings, name))
    if downloaded and any((engine, model.name) == (recipe.engine, name) for engine, model in known):
        return f"vivavoce models download {name}"
    return f"vivavoce models verify {name}"


def missing(known: Iterable[tuple[str, KnownModel]], recipes: Iterable[Recipe], names: set[str]) -> list[Listed]:
    """Give the known models that neither a recipe of one that is here uses nor one of `names` stands for."""
    used = {(recipe.engine, recipe.told.model) for recipe in recipes}
    return [
        Listed(
            name=model.name,
            engine=engine,
            languages=model.languages,
            features=(),
            loaded=False,
            get=f"vivavoce models download {model.name}",
        )
        for engine, model in known
        if model.name not in names and (engine, model.model) not in used
    ]


async def _open_chosen(recipe: Recipe) -> Engine:
    """Make the engine of a model beside the default one; whatever fails, sessions of other models go on."""
    try:
        return await open_engine(recipe)
    except SetupError:
        raise
    except Exception as error:
        # An engine is a plugin and may raise anything.
        raise SetupError(f"the engine {recipe.engine} failed: {' '.join(str(error).split())}") from error


def _seen(task: asyncio.Task[DecodePool]) -> None:
    if not task.cancelled():
        task.exception()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Give what tells one state of a file from another, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
