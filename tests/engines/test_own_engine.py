"""The engine that the documentation prints keeps the contract, as its readers' engines should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recordings import wheel_recording
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis
from vivavoce.plugins import EngineSettings
from vivavoce.testing.engines import ScriptedEngine, check_engine

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "write-engines.md"
SPEECH = wheel_recording("two_cities")[: 2 * SAMPLE_RATE]


@pytest.fixture(scope="module")
def printed():
    """Give what the page's program defines."""
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


def test_the_printed_engine_keeps_the_contract(printed):
    """It hears words and breaks none of an engine's promises."""
    engine = printed["SphinxEngine"](EngineSettings())
    (heard,) = engine.transcribe([Clip(key="a", samples=SPEECH, final=True)])
    assert "best" in [word.text for word in heard.words]
    check_engine(lambda: engine, SPEECH)


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
