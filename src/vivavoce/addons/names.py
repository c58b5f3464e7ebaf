"""Names of people, organisations and places, by a model that the installation brings along.

Rules cannot tell a name from another word, so this is where a model comes in: any spaCy pipeline with an entity
recogniser, by the name of its package or the path of its directory. It needs `vivavoce[names]`; the pipeline itself is
loaded when the first utterance arrives, from this machine only. A GLiNER model, too, can be a part of such a pipeline.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vivavoce.errors import SetupError
from vivavoce.plugins import AddonSettings

NAME_KINDS = ("NAME", "ORGANIZATION", "LOCATION")
"""What a model of names finds."""

_LABELS = {
    "PERSON": "NAME",
    "PER": "NAME",
    "NAME": "NAME",
    "ORG": "ORGANIZATION",
    "ORGANIZATION": "ORGANIZATION",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "LOCATION": "LOCATION",
}


class Names(Protocol):
    """A model of names; blocking, called from several threads at once."""

    def find(self, text: str, language: str) -> Iterator[tuple[str, int, int]]:
        """Give each name as its kind, one of `NAME_KINDS`, and its characters `[start, stop)` in the text."""


def pipeline_of(settings: AddonSettings) -> Names | None:
    """Give the spaCy pipeline that the settings name, if any; raises `SetupError` where it is not there."""
    if settings.names != "spacy":
        return None
    if settings.names_pipeline is None:
        raise SetupError("--names spacy needs --names-pipeline")
    return SpacyNames(settings.names_pipeline)


class SpacyNames:
    """Find names with a spaCy pipeline; implements `Names`."""

    def __init__(self, pipeline: str) -> None:
        """Take the name of an installed package or the path of a directory; raises `SetupError` where it is missing."""
        if find_spec("spacy") is None:
            raise SetupError("names need spaCy: install vivavoce[names]")
        if not (Path(pipeline) / "config.cfg").is_file() and not (pipeline.isidentifier() and find_spec(pipeline)):
            raise SetupError(
                f"no spaCy pipeline at {pipeline!r}: name an installed package or a directory with a config.cfg"
            )
        self._name = pipeline
        self._lock = threading.Lock()
        self._loaded: Any = None

    def find(self, text: str, _language: str) -> Iterator[tuple[str, int, int]]:
        """Give the names in a text; what else the pipeline finds is left out. Loads the pipeline the first time."""
        for entity in self._pipeline()(text).ents:
            if kind := _LABELS.get(entity.label_):
                yield kind, entity.start_char, entity.end_char

    def _pipeline(self) -> Any:
        with self._lock:
            if self._loaded is None:
                import spacy  # noqa: PLC0415 - it takes a second and belongs to an extra

                self._loaded = spacy.load(self._name)
            return self._loaded
