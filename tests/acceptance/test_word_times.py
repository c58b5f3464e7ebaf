"""Word times through the running program, against pauses that the energy of the recordings shows."""

from __future__ import annotations

import importlib.util
import statistics
from pathlib import Path
from types import ModuleType

from live import pieces, transcribe
from recordings import pcm16, wheel_recording
from server import Server

SCRIPT = Path(__file__).parents[2] / "scripts" / "word_edges.py"


def word_edges() -> ModuleType:
    spec = importlib.util.spec_from_file_location("word_edges", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_word_boundaries_lie_at_the_pauses(server: Server) -> None:
    """Beside pauses of 150 ms and more, words begin and end within 60 ms of where the signal does, at the median."""
    script = word_edges()
    errors: list[float] = []
    for name in ("two_cities", "beckett", "clone-test", "endgame_nagg_nell"):
        samples = wheel_recording(name)
        heard = await transcribe(server, pieces(pcm16(samples), 3200))
        words = [
            (word["word"], word["start"], word["end"]) for final in heard.finals for word in final["utterance"]["words"]
        ]
        errors += script.edge_errors(words, script.pauses(samples))
    assert len(errors) > 60
    assert statistics.median(errors) <= 0.060, script.summary(errors)
