"""The operator's models: a TOML file with one table per model, in the data directory unless a setting says otherwise.

    [dutch]
    engine = "faster-whisper"
    model = "/srv/models/large-v3-turbo"
    partials = "quick"

A table has the engine's plugin name and what that engine is made from, by the names of the server's settings.
`partials` names another table, or an engine, that gives partials while this one gives finals.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vivavoce.config import Settings
from vivavoce.errors import SetupError
from vivavoce.plugins import EngineSettings, plugin_names
from vivavoce.runtime.engines import Recipe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_DEMANDS = {
    "extra_forbidden": "there is no such key",
    "greater_than_equal": "must be between 1 and 1024",
    "int_type": "must be a whole number",
    "less_than_equal": "must be between 1 and 1024",
    "missing": "must be given",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
}


class Entry(BaseModel):
    """One table of the file; `engine_threads` is the server's own where it is not given."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    engine: str = Field(min_length=1)
    model: str | None = Field(default=None, min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = Field(default="auto", min_length=1)
    engine_threads: int | None = Field(default=None, ge=1, le=1024)
    partials: str | None = Field(default=None, min_length=1)

    def told(self, settings: Settings) -> EngineSettings:
        """Give what the engine is made from, on this server."""
        return EngineSettings(
            model=self.model,
            device=self.device,
            compute_type=self.compute_type,
            engine_threads=self.engine_threads or settings.engine_threads,
            decode_threads=settings.decode_threads,
            engine_key=settings.engine_key,
        )


def models_file(settings: Settings) -> Path:
    """Give the path of the file, which need not exist."""
    return settings.models_file or settings.data_dir / "models.toml"


def model_directory(settings: Settings, name: str) -> Path:
    """Give where a model of this name is downloaded to."""
    return settings.data_dir / "models" / name


def read_entries(path: Path) -> Mapping[str, Entry]:
    """Give the tables by name, none where there is no file; raises `SetupError` with one line per mistake."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SetupError(f"cannot read the models in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{path} is not valid TOML: {error}") from error
    return check_entries(tables, path)


def check_entries(tables: Mapping[str, Any], path: Path) -> Mapping[str, Entry]:
    """Give parsed tables as entries; raises `SetupError` with one line per mistake, each naming table and key."""
    entries: dict[str, Entry] = {}
    mistakes = []
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            mistakes.append(
                f"{name!r} is no name for a model: letters, digits, dots, dashes and underscores, up to 100"
            )
        elif not isinstance(table, dict):
            mistakes.append(f"{name} must be a table, such as [{name}]")
        else:
            try:
                entries[name] = Entry.model_validate(table)
            except ValidationError as error:
                mistakes += [f"{name}.{_mistake(detail)}" for detail in error.errors()]
    mistakes += _unknown_names(entries)
    if mistakes:
        raise SetupError("\n".join(f"in {path}: {mistake}" for mistake in mistakes))
    return entries


def recipe_of(name: str, entries: Mapping[str, Entry], settings: Settings) -> Recipe:
    """Give what the engine of an entry is made from."""
    entry = entries[name]
    partials: tuple[str, EngineSettings] | None = None
    if entry.partials is not None:
        quick = entries.get(entry.partials) or Entry(engine=entry.partials)
        partials = (quick.engine, quick.told(settings))
    return Recipe(engine=entry.engine, told=entry.told(settings), partials=partials)


def _unknown_names(entries: Mapping[str, Entry]) -> list[str]:
    engines = plugin_names("engines") if entries else []
    known = ", ".join(engines) or "none"
    found = [
        f"{name}.engine: no engine named {entry.engine!r} is installed (there are: {known})"
        for name, entry in entries.items()
        if entry.engine not in engines
    ]
    return found + [
        f"{name}.partials: must name another model of the file, or an engine (there are: {known}), "
        f"got {entry.partials!r}"
        for name, entry in entries.items()
        if entry.partials is not None and (entry.partials == name or entry.partials not in {*entries, *engines})
    ]


def _mistake(detail: ErrorDetails) -> str:
    key, kind = detail["loc"][0], detail["type"]
    demand = _DEMANDS.get(kind, detail["msg"])
    if kind == "literal_error":
        demand = f"must be one of {detail['ctx']['expected']}"
    got = "" if kind in {"extra_forbidden", "missing"} else f", got {detail['input']!r}"
    return f"{key}: {demand}{got}"
