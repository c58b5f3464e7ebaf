"""Two engines as one: finals by the thorough one, partials by the quick one, wherever that knows the language."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from recordings import wheel_recording
from vivavoce.config import load_settings
from vivavoce.engines.moonshine import MoonshineEngine
from vivavoce.errors import SetupError
from vivavoce.model import SAMPLE_RATE, Clip
from vivavoce.plugins import EngineSettings
from vivavoce.runtime import engines
from vivavoce.runtime.decode import FINALS_NICE
from vivavoce.runtime.engines import Pair, Recipe, load_engine, open_engine
from vivavoce.testing.engines import ScriptedEngine, check_engine

SAMPLES = np.zeros(SAMPLE_RATE, np.float32)


def made(text: str, languages: set[str], size: int = 4) -> ScriptedEngine:
    engine = ScriptedEngine(lambda _: text)
    engine.info = replace(engine.info, languages=frozenset(languages), batch_size=size)
    return engine


def clip(key: str, final: bool = False, **more: tuple[str, ...]) -> Clip:
    return Clip(key=key, samples=SAMPLES, final=final, **more)


def test_each_clip_goes_to_its_engine_and_comes_back_in_its_place() -> None:
    """Finals are thorough; so are partials that may be in a language the quick engine does not know."""
    thorough, quick = made("thorough", {"en", "nl"}), made("quick", {"en"}, size=2)
    pair = Pair(thorough, quick)
    clips = [
        clip("a", languages=("en",)),
        clip("b", final=True, languages=("en",)),
        clip("c", languages=("nl",)),
        clip("d", languages=("en",)),
        clip("e"),
        clip("f", languages=("en",)),
    ]
    said = [hypothesis.words[0].text for hypothesis in pair.transcribe(clips)]
    assert said == ["quick", "thorough", "thorough", "quick", "thorough", "quick"]
    assert quick.calls == [["a", "d"], ["f"]]
    assert thorough.calls == [["b!", "c", "e"]]
    assert pair.info == replace(thorough.info, batch_size=4)
    pair.release("a")
    assert thorough.released == quick.released == ["a"]


def test_a_pair_keeps_the_engines_contract() -> None:
    """Two engines together promise what each of them does."""
    speech = wheel_recording("two_cities")[: 2 * SAMPLE_RATE]
    check_engine(lambda: Pair(MoonshineEngine(), MoonshineEngine()), speech)


@pytest.fixture
def told(monkeypatch):
    """Collect what the factories of two engines are told."""
    asked: list[tuple[str, EngineSettings]] = []

    def plugin(kind, name):
        def make(settings):
            asked.append((name, settings))
            return made(name, {"en"})

        return make

    monkeypatch.setattr(engines, "plugin", plugin)
    return asked


def test_settings_name_one_engine_or_two(told) -> None:
    """One alone, another model of the same, or another engine, which chooses for itself what it computes on."""
    common = {"engine": "big", "model": "m", "device": "cpu", "compute_type": "int8", "decode_threads": 3}
    both = EngineSettings(model="m", device="cpu", compute_type="int8", decode_threads=3)
    assert not isinstance(load_engine(load_settings(**common)), Pair)
    assert isinstance(load_engine(load_settings(**common, partial_model="s")), Pair)
    assert isinstance(load_engine(load_settings(**common, partial_engine="other")), Pair)
    assert told == [
        ("big", both),
        ("big", both),
        ("big", replace(both, model="s")),
        ("big", both),
        ("other", EngineSettings(decode_threads=3)),
    ]


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no priorities of threads")
async def test_threads_of_an_engine_give_way(monkeypatch) -> None:
    """A library that computes on threads of its own has them as low as those that call it, or lower."""
    found = []

    def make(settings):
        thread = threading.Thread(
            target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        )
        thread.start()
        thread.join()
        return made("one", {"en"})

    monkeypatch.setattr(engines, "plugin", lambda kind, name: make)
    await open_engine(Recipe.of(load_settings()))
    assert found == [os.getpriority(os.PRIO_PROCESS, 0) + FINALS_NICE]


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ("sherpa-onnx", "--partial-model lost: there is no such directory"),
        ("faster-whisper", "--partial-model lost: no such directory, and no size of Whisper"),
        (
            "moonshine",
            "--partial-engine moonshine has one model, and runs it on the CPU: leave out --partial-model, --dev",
        ),
        ("remote", "--partial-engine remote needs --partial-model with its recogniser's URL"),
    ],
)
def test_what_is_wrong_with_the_second_model_names_its_own_settings(engine, line, monkeypatch) -> None:
    """The start fails in one line, and the first model is freed."""
    first, made_by = made("thorough", {"en"}), engines.plugin
    closed: list[bool] = []
    monkeypatch.setattr(first, "close", lambda: closed.append(True))
    monkeypatch.setattr(
        engines, "plugin", lambda kind, name: made_by(kind, name) if name == engine else lambda _: first
    )
    with pytest.raises(SetupError) as refused:
        load_engine(load_settings(engine="big", partial_engine=engine, partial_model="lost"))
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert closed == [True]


def test_settings_that_both_models_have_keep_their_names(monkeypatch) -> None:
    """A key or a device is not the second model's own."""

    def plugin(kind, name):
        def make(settings):
            if settings.model is not None:
                raise SetupError("--model quick: see --engine-key, --engine-threads, --device and --models-file")
            return made(name, {"en"})

        return make

    monkeypatch.setattr(engines, "plugin", plugin)
    with pytest.raises(
        SetupError, match=r"^--partial-model quick: see --engine-key, --engine-threads, --device and --"
    ):
        load_engine(load_settings(engine="big", partial_model="quick"))
