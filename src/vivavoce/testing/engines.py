"""A scripted engine for tests of everything around speech, and the contract checker for real ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vivavoce.errors import EngineError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, spread_words
from vivavoce.plugins import WARM_UP, EngineInfo

if TYPE_CHECKING:
    from vivavoce.plugins import Engine


class ScriptedEngine:
    """Answers each clip with what `script` says of it; waits at `gate` if one is given.

    A script gives the text, or None to fail. `calls` keeps the keys of every batch, finals marked by `!`. The clip that
    warms it up has no words and does not wait.
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
        if [clip.key for clip in clips] == [WARM_UP]:
            return [_hypothesis("", clip) for clip in clips]
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


def check_engine(make: Callable[[], Engine], samples: Samples) -> None:
    """Check each promise of `Engine` on an engine that `make` gives, with `samples` of two seconds or more.

    Speech shows more than noise. Raises `AssertionError` with the promise that is broken.
    """
    engine = make()
    _check_info(engine.info)
    known = _check_finals(engine, samples)
    _check_partials(engine, samples, known)
    _check_order(engine, samples)
    _check_languages(engine, samples, known)
    _check_threads(engine, samples, known)
    engine.release("never heard of")
    engine.close()
    try:
        engine.transcribe([_final(samples)])
    except EngineError:
        return
    raise AssertionError("a closed engine fails with EngineError")


def _final(samples: Samples, key: str = "f", **more: Any) -> Clip:
    return Clip(key=key, samples=samples, final=True, **more)


def _partial(samples: Samples, key: str) -> Clip:
    return Clip(key=key, samples=samples, final=False)


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise AssertionError(promise)


def _check_info(info: EngineInfo) -> None:
    _require(bool(info.name) and bool(info.languages), "an engine has a name and languages")
    _require(info.batch_size >= 1, "an engine takes one clip at least")


def _check_finals(engine: Engine, samples: Samples) -> Hypothesis:
    _require(engine.transcribe([]) == [], "no clips have no answers")
    (known,) = engine.transcribe([_final(samples)])
    _check_words(known, samples)
    _require(known.language in engine.info.languages, "the language is one that the engine knows")
    _require(engine.transcribe([_final(samples, "another")]) == [known], "a final does not depend on its key")
    for short in (samples[:0], samples[:1], samples[:400]):
        _check_words(engine.transcribe([_final(short)])[0], short)
    silence = np.zeros(SAMPLE_RATE, np.float32)
    _check_words(engine.transcribe([_final(silence)])[0], silence)
    _require(engine.transcribe([_final(samples)]) == [known], "a final does not depend on what came before")
    _check_words(engine.transcribe([_final(samples, hints=("Femke", "the library"))])[0], samples)
    return known


def _check_words(hypothesis: Hypothesis, samples: Samples) -> None:
    words = hypothesis.words
    _require(all(word.text and word.text == word.text.strip() for word in words), "words have no blanks around them")
    _require(all(0.0 <= word.confidence <= 1.0 for word in words), "confidences lie between 0 and 1")
    times = [0.0, *(time for word in words for time in (word.start, word.end)), len(samples) / SAMPLE_RATE + 1e-6]
    _require(times == sorted(times), "words are in order and inside their clip")


def _check_partials(engine: Engine, samples: Samples, known: Hypothesis) -> None:
    for stop in range(SAMPLE_RATE // 2, len(samples), SAMPLE_RATE // 2):
        (said,) = engine.transcribe([_partial(samples[:stop], "f")])
        _check_words(said, samples[:stop])
    _require(engine.transcribe([_final(samples)]) == [known], "a final does not depend on its partials")
    engine.release("f")
    engine.release("f")


def _check_order(engine: Engine, samples: Samples) -> None:
    size = engine.info.batch_size
    clips = [_partial(samples[: -1 - nth * SAMPLE_RATE // 4], f"p{nth}") for nth in range(min(size, 4))]
    said = engine.transcribe(clips)
    _require(len(said) == len(clips), "there is an answer for each clip")
    for clip, hypothesis in zip(clips, said, strict=True):
        _check_words(hypothesis, clip.samples)
        engine.release(clip.key)
    if engine.info.exact_batches:
        finals = [replace(clip, final=True) for clip in clips]
        alone = [engine.transcribe([clip])[0] for clip in finals]
        _require(engine.transcribe(finals) == alone, "a final does not depend on the clips beside it")


def _check_languages(engine: Engine, samples: Samples, known: Hypothesis) -> None:
    told = engine.transcribe([_final(samples, languages=(known.language,))])
    _require(told == [known], "with the language that is detected, the answer is the one without")
    pair = tuple(sorted(engine.info.languages))[:2]
    (among,) = engine.transcribe([_final(samples, languages=pair)])
    _require(among.language in pair, "the language is one of those that are expected")


def _check_threads(engine: Engine, samples: Samples, known: Hypothesis) -> None:
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda key: engine.transcribe([_final(samples, key)]), "abcd"))
    _require(said == [[known]] * 4, "a final does not depend on other threads")
