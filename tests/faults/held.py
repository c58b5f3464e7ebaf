"""Add-ons that answer only while they are let: an installed plugin of the servers that `test_addons` starts.

Each waits while the file of its name lies in the directory that HELD_ADDONS names, and fails where that file says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vivavoce.errors import AddonError
from vivavoce.model import Entity, Transcript, Utterance
from vivavoce.plugins import AddonParts, AddonSettings

FAIL = "fail"


def _wait(name: str) -> None:
    path = Path(os.environ["HELD_ADDONS"]) / name
    while path.exists():
        if path.read_text() == FAIL:
            raise AddonError(f"{name} was told to fail")
        time.sleep(0.01)


class Names:
    """Takes the first word of each utterance for a name."""

    threads = 2

    def __init__(self, settings: AddonSettings) -> None:
        pass

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        return AddonParts(by_target={"": self})

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> tuple[Entity, ...]:
        _wait("names")
        word = utterance.words[0]
        return (Entity(kind="NAME", text=word.text, start=word.start, end=word.end, first=0, stop=1),)

    def close(self) -> None:
        pass


class Summary:
    """Counts utterances."""

    threads = 1

    def __init__(self, settings: AddonSettings) -> None:
        pass

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        return AddonParts(transcript=self)

    def look(self, transcript: Transcript) -> str:
        _wait("summary")
        return f"{len(transcript.utterances)} utterances."

    def close(self) -> None:
        pass
