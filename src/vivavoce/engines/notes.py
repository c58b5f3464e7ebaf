"""What the owner of a model's directory says of the model, in a file beside its weights."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivavoce.errors import SetupError
from vivavoce.model import LANGUAGES

NOTES = "vivavoce.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """The languages of a model, the likeliest first, and its type; empty or None where nothing is said of them."""

    languages: tuple[str, ...] = ()
    type: str | None = None


def read_notes(directory: Path, types: Collection[str] = ()) -> Notes:
    """Read the notes in a directory, which may name one of `types`; raises `SetupError` for anything else in them."""
    path = directory / NOTES
    if not path.is_file():
        return Notes()
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not TOML: {' '.join(str(error).split())}") from error
    languages, kind = told.get("languages", []), told.get("type")
    if told.keys() - {"languages", "type"} or not _are_texts(languages) or kind not in (None, *types):
        also = f' and type = "…", one of {", ".join(types)}' if types else ""
        raise SetupError(f'{path} may have languages = ["…"]{also}; nothing else')
    if strange := [code for code in languages if code not in LANGUAGES]:
        raise SetupError(
            f"{path}: languages: {', '.join(map(repr, strange))}: not among the protocol's codes, which are: "
            f"{', '.join(sorted(LANGUAGES))}"
        )
    return Notes(languages=tuple(languages), type=kind)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
