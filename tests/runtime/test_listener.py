"""What a session says of its speech, as whoever watches it hears it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scripted import bursts, create, hub_of, installed
from vivavoce.model import Clip, Hypothesis
from vivavoce.plugins import WARM_UP
from vivavoce.runtime.watch import follow
from vivavoce.testing.engines import ScriptedEngine

__all__ = ["installed"]
pytestmark = pytest.mark.usefixtures("installed")


class Undecided(ScriptedEngine):
    """Hears French where it is not told otherwise, but Dutch in the first utterance, which it answers when let."""

    def __init__(self) -> None:
        super().__init__(lambda _: "word")
        self.info = replace(self.info, languages=frozenset({"fr", "nl"}), batch_size=1)
        self.first: str | None = None
        self.decided = threading.Event()

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Answer the first utterance once the language is decided, others at once."""
        (clip,) = clips
        if clip.key == WARM_UP:
            return super().transcribe(clips)
        self.first = self.first or clip.key
        if clip.key == self.first:
            self.decided.wait()
        language = "nl" if clip.key == self.first else (clip.languages or ("fr",))[0]
        return [replace(answer, language=language) for answer in super().transcribe(clips)]


async def test_a_hint_in_a_language_that_is_not_the_calls_is_withdrawn_after_its_speech_ended(tmp_path: Path) -> None:
    """The final comes in another one, with other words, and whoever relied on the hint has heard so before."""
    engine = Undecided()
    async with hub_of(tmp_path / "data", engine, decode_threads=2, idle_cut=60) as hub:
        wanted = {"turn_hints": True}
        events = {"receive_speech_events": True}
        session = await create(hub, endpointing=0.6, realtime_processing=wanted, messages_config=events)
        watcher = session.watchers.open(0, partials=False)
        connection = await session.connect(lambda _: None)
        await session.feed(connection, bursts("s.s") + bursts(".")[:6400])
        seen: list[str] = []
        async for shown in follow(hub.store, session.id, session.watchers, watcher):
            assert shown is not None
            kind = json.loads(shown.text)["type"]
            seen.append(kind)
            if kind == "turn_end_likely":
                await session.feed(connection, bursts("."))
            elif seen.count("speech_end") == 2 and kind == "speech_end":
                engine.decided.set()
            elif seen.count("transcript") == 2:
                break
        session.disconnect(connection, None)
    told = [kind for kind in seen if kind in {"turn_end_likely", "speech_end", "turn_continued", "transcript"}]
    assert told == ["speech_end", "turn_end_likely", "speech_end", "transcript", "turn_continued", "transcript"]
