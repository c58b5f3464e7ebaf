"""The operator's models.toml as commands change it: other tables and comments stay, and no other change is lost.

A change reads the file, checks what it would become, and puts a new file in its place, all under one lock. A running
server sees the old text or the new one, never half of it. Where the file is a link, the file behind it is changed; its
mode and owner stay as they were.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

    from vivavoce.config import Settings
    from vivavoce.runtime.entries import Entry

PATIENCE_S = 10.0
"""How long a command waits for another one's change."""


def check_table(settings: Settings, name: str, table: Mapping[str, Any], *, taken: str | None) -> Mapping[str, Entry]:
    """Give the tables as they would be; raises `SetupError` where `write_table` would."""
    from vivavoce.runtime.entries import check_entries, models_file

    return check_entries(_with_table(settings, name, table, taken).unwrap(), models_file(settings))


def write_table(settings: Settings, name: str, table: Mapping[str, Any], *, taken: str | None) -> None:
    """Add a table to the file, or put it in the place of another one where `taken` is None.

    Otherwise `taken` says what to do where there is one of that name. Raises `SetupError`, and changes nothing then.
    """
    with _held(settings) as path:
        _put(_with_table(settings, name, table, taken), path)


def remove_table(settings: Settings, name: str) -> None:
    """Take a table out of the file; raises `SetupError` where another one needs it, and changes nothing then."""
    with _held(settings) as path:
        document = _read(path)
        _take_out(document, name)
        _check(document, path)
        _put(document, path)


def _with_table(settings: Settings, name: str, table: Mapping[str, Any], taken: str | None) -> TOMLDocument:
    from vivavoce.runtime.entries import models_file, read_entries

    path = models_file(settings)
    if name == settings.engine:
        raise SetupError(f"{name} is the name of the server's default model; choose another")
    if taken is not None and name in read_entries(path):
        raise SetupError(f"{path} has a model {name} already; {taken}")
    document = _read(path)
    _set(document, name, table)
    _check(document, path)
    return document


def _set(document: TOMLDocument, name: str, given: Mapping[str, Any]) -> None:
    """Make a table what is given; comments in it stay, and so do those behind it."""
    from tomlkit.items import Table, Whitespace

    table = document.get(name)
    if not isinstance(table, Table):
        document[name] = dict(given)
        return
    behind = _cut_end(table)
    for key in table.keys() - given.keys():
        table.remove(key)
    table.update(given)
    table.value.body.append((None, Whitespace(behind)))


def _take_out(document: TOMLDocument, name: str) -> None:
    """Remove a table, but not comments behind it: they are about what follows."""
    from tomlkit.items import Table, Whitespace

    table = document.get(name)
    behind = _cut_end(table) if isinstance(table, Table) else ""
    place = next((n for n, (key, _) in enumerate(document.body) if key is not None and key.key == name), None)
    document.pop(name, None)
    if place is not None and "#" in behind:
        document.body[place] = (None, Whitespace(behind if place else behind.lstrip()))


def _cut_end(table: Table) -> str:
    """Take the comments and blank lines off the end of a table, and give them."""
    body = table.value.body
    end = 1 + max((n for n, (key, _) in enumerate(body) if key is not None), default=-1)
    behind = "".join(item.as_string() for _, item in body[end:])
    del body[end:]
    return behind


def _read(path: Path) -> TOMLDocument:
    import tomlkit

    from vivavoce.runtime.entries import read_entries

    # Whatever is wrong with the file is told by who reads it for the server.
    read_entries(path)
    return tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()


def _check(document: TOMLDocument, path: Path) -> None:
    from vivavoce.runtime.entries import check_entries

    check_entries(document.unwrap(), path)


@contextmanager
def _held(settings: Settings) -> Iterator[Path]:
    """Give the file's path, which no other command changes meanwhile."""
    from filelock import FileLock, Timeout

    from vivavoce.runtime.entries import models_file

    path = models_file(settings).resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        raise SetupError(f"{path} is being changed by another vivavoce; try again when that has ended") from None
    try:
        yield path
    finally:
        # Who waits for it looks whether the file that it has locked is still there. One that stayed would be its
        # first user's, and another user could not lock it.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _put(document: TOMLDocument, path: Path) -> None:
    import tomlkit

    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(tomlkit.dumps(document), encoding="utf-8")
        if path.exists():
            before = path.stat()
            # Only root may give a file away; a server that runs as another user must still read it then.
            with suppress(PermissionError):
                os.chown(beside, before.st_uid, before.st_gid)
            beside.chmod(stat.S_IMODE(before.st_mode))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise SetupError(f"{path} cannot be written and is as it was: {error.strerror or error}") from error
