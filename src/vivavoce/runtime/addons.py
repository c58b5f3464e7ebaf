"""The add-ons of this installation: what they are, and how they are called.

`Addons` holds them for the process: each is made once by its factory. Its calls run on threads, only so many at a time,
and never share these with another add-on's, so that a slow one keeps no other waiting. A call that takes longer than
its deadline is given up and answered with an error; the thread may go on, but an add-on that has lost too many is not
called any more until they are back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from threading import Thread
from typing import Any, NoReturn, cast

import structlog

from vivavoce.config import Settings
from vivavoce.errors import AddonError, AddonMissing, RequestError
from vivavoce.model import Entity, Feature, Findings, Sentiment, SessionOptions, Translation, Utterance
from vivavoce.plugins import (
    Addon,
    AddonParts,
    AddonSettings,
    TextRule,
    TranscriptAddon,
    UtteranceAddon,
    plugin,
    plugin_names,
)
from vivavoce.runtime import metrics
from vivavoce.runtime.opened import RULES, Opened, place_of, way_to

log = structlog.get_logger()

MAX_ERROR_CHARS = 300

MAX_LOST = 16
"""Threads of one add-on that may be out beyond their deadline before it is not called any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an add-on found, or the error that says why it did not, and the seconds it took."""

    found: Findings | None = None
    error: str | None = None
    spent_s: float = 0.0


class Addons:
    """The add-ons of this process; made by `load`."""

    def __init__(self, settings: Settings, installed: Mapping[Feature, Addon], missing: Mapping[Feature, str]) -> None:
        self.missing = missing
        self.deadline_s, self.closing_s = settings.addon_deadline, settings.closing_deadline
        self._installed = {feature: _Installed(feature, addon, self.closing_s) for feature, addon in installed.items()}

    @classmethod
    async def load(cls, settings: Settings) -> Addons:
        """Make every add-on that is installed and has what it needs; raises `SetupError` where settings are wrong."""
        told = AddonSettings(**{each.name: getattr(settings, each.name) for each in fields(AddonSettings)})
        known = plugin_names("addons")
        installed: dict[Feature, Addon] = {}
        missing: dict[Feature, str] = {}
        for feature in Feature:
            if feature not in known:
                continue
            try:
                installed[feature] = await asyncio.to_thread(plugin("addons", feature), told)
            except AddonMissing as error:
                missing[feature] = str(error)
        return cls(settings, installed, missing)

    @property
    def features(self) -> frozenset[Feature]:
        """What sessions may ask for."""
        return frozenset(self._installed)

    async def open(self, options: SessionOptions, *, taken_up: bool = False) -> Opened:
        """Prepare what a session asked for; raises `RequestError` where an add-on cannot do what is asked of it.

        What is not installed any more, since the session began, fails whenever it is asked; so does what refuses a
        session that is `taken_up`, whose audio is to be heard all the same.
        """
        rules: dict[Feature, TextRule] = {}
        hints: tuple[str, ...] = ()
        hides = mend = None
        lookers: dict[tuple[Feature, str], UtteranceAddon] = {}
        readers: dict[Feature, TranscriptAddon] = {}
        for feature, own in options.features.items():
            parts = await self._parts(feature, own, options.languages, taken_up=taken_up)
            if parts.rule is not None:
                rules[feature] = parts.rule
            hints += tuple(parts.hints)
            hides = hides or parts.hides
            mend = mend or parts.mend
            lookers |= {(feature, target): looker for target, looker in parts.by_target.items()}
            if parts.transcript is not None:
                readers[feature] = parts.transcript
        return Opened(rules=rules, hints=hints, mend=mend, hides=hides, lookers=lookers, readers=readers)

    async def _parts(
        self, feature: Feature, own: Mapping[str, Any], languages: Sequence[str], *, taken_up: bool
    ) -> AddonParts:
        installed = self._installed.get(feature)
        addon = installed.addon if installed else _Absent(feature)
        try:
            parts = await asyncio.to_thread(addon.open, own, languages)
            if not isinstance(parts, AddonParts):
                raise AddonError(f"{feature} gave no parts")  # noqa: TRY301 - as if it had refused by itself
        except Exception as error:
            if not taken_up:
                raise
            known = isinstance(error, RequestError | AddonError | AddonMissing)
            way = {} if known else {"way": way_to(error)}
            log.error("an add-on refuses a session it took before", addon=feature.value, error=place_of(error), **way)
            return _Absent(feature).open(own, languages)
        return parts

    async def answer(self, feature: Feature, look: Callable[[], Findings], deadline_s: float) -> Answer:
        """Give what an add-on says, once it is its turn; an error where that does not come in `closing_s`."""
        installed = self._installed.get(feature)
        if installed is None:
            return Answer(error=_absence(feature))
        answer = await installed.answer(look, deadline_s)
        outcome = "failed" if answer.found is None else "found"
        metrics.ADDON_SECONDS.labels(feature.value, outcome).observe(answer.spent_s)
        return answer

    async def close(self) -> None:
        """Free what add-ons hold; calls that are out are left to themselves."""
        for installed in self._installed.values():
            await installed.close()


class _Installed:
    """One add-on, and whose turn it is."""

    def __init__(self, feature: Feature, addon: Addon, patience_s: float) -> None:
        self.addon = addon
        self._feature, self._patience_s = feature, patience_s
        self._turns = asyncio.Semaphore(addon.threads)
        self._calls: set[asyncio.Task[Answer]] = set()
        self._lost = 0

    async def answer(self, look: Callable[[], Findings], deadline_s: float) -> Answer:
        """Wait for a turn and call the add-on; who is cancelled leaves the turn to the call until that is done."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._turns.acquire()
        except TimeoutError:
            return Answer(error=f"{self._feature} had no time for this in {self._patience_s:g} s")
        call = asyncio.create_task(self._call(look, deadline_s), name=f"addon-{self._feature}")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)

    async def close(self) -> None:
        """Wait for nothing, and free what the add-on holds."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await asyncio.to_thread(self.addon.close)

    async def _call(self, look: Callable[[], Findings], deadline_s: float) -> Answer:
        started = time.monotonic()
        found: object = None
        try:
            found, failure = await self._run(look, deadline_s)
            if failure is None and not _is_sound(self._feature, found):
                failure = AddonError(f"{self._feature} gave an answer that cannot be shown")
        except TimeoutError:
            failure = AddonError(f"{self._feature} took longer than {deadline_s:g} s")
        except Exception as error:  # noqa: BLE001 - no thread to be had, or an answer that cannot even be looked at
            failure = error
        finally:
            self._turns.release()
        spent_s = time.monotonic() - started
        if failure is None:
            return Answer(found=cast("Findings", found), spent_s=spent_s)
        return Answer(error=self._reason(failure), spent_s=spent_s)

    def _reason(self, failure: BaseException) -> str:
        """Say why there is no answer; what an add-on did not mean to say may quote its text, and is not repeated."""
        if isinstance(failure, AddonError):
            with suppress(Exception):  # an error of an add-on's own making may have no text
                return str(failure).encode("utf-8", "replace").decode()[:MAX_ERROR_CHARS]
        log.error("an add-on failed", addon=self._feature.value, error=place_of(failure), way=way_to(failure))
        return f"{self._feature} failed"

    async def _run(self, look: Callable[[], Findings], deadline_s: float) -> tuple[object, BaseException | None]:
        """Call on a thread that the end of the program does not wait for, unlike those of an executor."""
        if self._lost >= MAX_LOST:
            return None, AddonError(f"{self._feature} does not answer")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

        def back(found: object, error: BaseException | None) -> None:
            if future.done():
                self._lost -= 1
            else:
                future.set_result((found, error))

        def run() -> None:
            found, error = None, None
            try:
                found = look()
            except BaseException as raised:  # noqa: BLE001 - told on the event loop, exits and stops of iterators too
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(back, found, error)

        Thread(target=run, name=f"addon-{self._feature}", daemon=True).start()
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except BaseException:
            self._lost += future.cancelled()
            raise


class _Absent:
    """Stands for an add-on that a session asked for and an earlier process had."""

    threads = 1

    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:  # noqa: ARG002 (the protocol's)
        """Give parts that fail."""
        if self._feature in RULES:
            return AddonParts(rule=self)
        if self._feature is Feature.SUMMARIZATION:
            return AddonParts(transcript=self)
        return AddonParts(by_target=dict.fromkeys(options.get("target_languages", [""]), self))

    def rewrite(self, utterance: Utterance, *, final: bool) -> NoReturn:  # noqa: ARG002 (the protocol's)
        """Fail."""
        raise AddonError(_absence(self._feature))

    def look(self, *_shown: object) -> NoReturn:
        """Fail."""
        raise AddonError(_absence(self._feature))

    def close(self) -> None:
        """Do nothing."""


def _is_sound(feature: Feature, found: object) -> bool:
    """Tell whether an answer is what the feature is for, in numbers and letters that can be stored."""
    match feature:
        case Feature.SUMMARIZATION:
            sound = isinstance(found, str)
        case Feature.TRANSLATION:
            sound = isinstance(found, Translation)
        case _:
            kind = Sentiment if feature is Feature.SENTIMENT_ANALYSIS else Entity
            sound = isinstance(found, tuple) and all(isinstance(each, kind) for each in found)
    if not sound:
        return False
    try:
        json.dumps(found, default=asdict, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return False
    return True


def _absence(feature: Feature) -> str:
    return f"{feature} is not available on this server any more"
