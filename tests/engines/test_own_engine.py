"""The engine that the documentation prints keeps the contract, as its readers' engines should."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from recordings import wheel_recording
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis
from vivavoce.plugins import EngineSettings
from vivavoce.testing.engines import ScriptedEngine, check_engine

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-engines.md"
SPEECH = wheel_recording("two_cities")[: 2 * SAMPLE_RATE]


def printed(language):
    """Give the page's texts in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_printed_engine_keeps_the_contract(monkeypatch):
    """It has 30 lines, hears words, and the printed check finds that it breaks none of an engine's promises."""
    engine, check = printed("python")
    assert len([line for line in engine.splitlines() if line]) == 30
    module = ModuleType("our_engine")
    exec(compile(engine, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "our_engine", module)
    names: dict[str, object] = {}
    exec(compile(check, str(PAGE), "exec"), names)
    with pytest.raises(AssertionError, match="a final does not depend on its key"):
        names["check_engine"](lambda: Careless("a final does not depend on its key"), names["speech"])
    assert len(names["speech"]) == 2 * SAMPLE_RATE
    (heard,) = module.SphinxEngine(EngineSettings()).transcribe([Clip(key="a", samples=names["speech"], final=True)])
    assert "best" in [word.text for word in heard.words]


def test_the_printed_package_names_the_printed_engine():
    """Its one module is installed, although the check lies beside it."""
    (text,) = printed("toml")
    told = tomllib.loads(text)
    assert told["project"]["entry-points"]["vivavoce.engines"] == {"sphinx": "our_engine:SphinxEngine"}
    assert told["tool"]["setuptools"]["py-modules"] == ["our_engine"]


class Careless(ScriptedEngine):
    """Breaks one promise."""

    def __init__(self, promise: str) -> None:
        super().__init__(lambda clip: "one two three" if len(clip.samples) > SAMPLE_RATE else "")
        self._promise = promise

    def transcribe(self, clips):
        (said, *_) = answers = [*super().transcribe(clips), None][: len(clips) or 1]
        if said is None:
            return []
        return [self._spoilt(clip, answer) for clip, answer in zip(clips, answers, strict=True)]

    def _spoilt(self, clip: Clip, answer: Hypothesis) -> Hypothesis:
        match self._promise:
            case "a final does not depend on its key" if clip.key == "another":
                return Hypothesis(words=answer.words[:1], language="en")
            case "a final does not depend on its partials" if len(self.calls) > 12:
                return Hypothesis(words=answer.words[:1], language="en")
            case "words are in order and inside their clip":
                return Hypothesis(words=answer.words[::-1], language="en")
            case "the language is one that the engine knows":
                return Hypothesis(words=answer.words, language="nl")
        return answer


@pytest.mark.parametrize(
    "promise",
    [
        "a final does not depend on its key",
        "a final does not depend on its partials",
        "words are in order and inside their clip",
        "the language is one that the engine knows",
        "a closed engine fails with EngineError",
    ],
)
def test_the_checker_names_the_promise_that_is_broken(promise):
    """Each careless engine is caught at what it does wrong."""
    with pytest.raises(AssertionError, match=promise):
        check_engine(lambda: Careless(promise), SPEECH)
