"""Names of people, organisations and places, by a model that the installation brings along.

Rules cannot tell a name from another word, so this is where a model comes in: any spaCy pipeline with an entity
recogniser, by the name of its package or the path of its directory. It needs `vivavoce[names]`; the pipeline itself is
loaded when the first session asks for names, from this machine only. A GLiNER model, too, can be a part of one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vivavoce.errors import AddonError, SetupError
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

    def load(self) -> None:
        """Load what takes long, so that no text waits for it; raises `AddonError`."""

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

    def load(self) -> None:
        """Load the pipeline, once for everybody in this process; raises `AddonError` where it cannot be."""
        try:
            _pipeline(self._name)
        except Exception as error:
            raise AddonError("the spaCy pipeline for names cannot be loaded") from error

    def find(self, text: str, _language: str) -> Iterator[tuple[str, int, int]]:
        """Give the names in a text; what else the pipeline finds is left out."""
        for entity in _pipeline(self._name)(text).ents:
            if kind := _LABELS.get(entity.label_):
                yield kind, entity.start_char, entity.end_char


_LOADING = threading.Lock()
_LOADED: dict[str, Any] = {}


def _pipeline(name: str) -> Any:
    with _LOADING:
        if name not in _LOADED:
            import spacy  # noqa: PLC0415 - it takes a second and belongs to an extra

            _LOADED[name] = spacy.load(name)
        return _LOADED[name]
