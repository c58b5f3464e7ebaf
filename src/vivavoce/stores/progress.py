"""What every round of the journal does: hold the sessions it writes of, and note how far their audio has got.

SQLite lets go of the interpreter at each row, and a busy event loop is slow to give it back. So there the rows of a
round travel as one JSON value, in and out, however many sessions share it; other databases get a row each.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from sqlalchemy import bindparam, func, select, text, update

from vivavoce.errors import StoreError
from vivavoce.stores.schema import progress, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Update

_MOST_VALUES = 500
"""How many values a statement may carry by itself; databases differ in what they take."""

_LARGEST = 2**63 - 1

_EPOCHS = text("SELECT json_group_object(id, epoch) FROM sessions WHERE id IN (SELECT value FROM json_each(:ids))")


def hold(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """Hold the rows of sessions for the transaction, and give the epochs of those that are there."""
    ordered = sorted(set(ids))
    if connection.dialect.name == "sqlite":
        # A transaction that writes has the database for itself.
        found: dict[str, int] = json.loads(connection.execute(_EPOCHS, {"ids": json.dumps(ordered)}).scalar_one())
        return found
    epochs: dict[str, int] = {}
    for some in slices(ordered):
        query = select(sessions.c.id, sessions.c.epoch).where(sessions.c.id.in_(some)).order_by(sessions.c.id)
        epochs |= {row.id: row.epoch for row in connection.execute(query.with_for_update())}
    return epochs


def note(connection: Connection, changes: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]) -> None:
    """Set the columns named by each key, in a row for each session, whose id is `key`."""
    for names, rows in changes.items():
        if connection.dialect.name == "sqlite":
            _note_together(connection, names, rows)
        else:
            bound: dict[str, Any] = {name: bindparam(name) for name in names}
            connection.execute(update(progress).where(progress.c.session_id == bindparam("key")).values(bound), rows)


def _note_together(connection: Connection, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    if any(isinstance(value, int) and value > _LARGEST for row in rows for value in row.values()):
        # As JSON it would become a number with a point.
        raise StoreError("cannot commit: a number is too large for the database")
    connection.execute(_together(tuple(names)), {"rows": to_json(rows).decode()})


@cache
def _together(names: tuple[str, ...]) -> Update:
    """Give the statement that sets these columns from all of `:rows`; making it takes longer than running it."""
    row = func.json_each(bindparam("rows")).table_valued("value", name="row")
    values = {name: func.json_extract(row.c.value, f"$.{name}") for name in names}
    own = progress.c.session_id == func.json_extract(row.c.value, "$.key")
    return update(progress).where(own).values(values)


def slices(values: Iterable[str]) -> Iterator[list[str]]:
    """Give the values in pieces that every database takes."""
    left = iter(values)
    while some := list(islice(left, _MOST_VALUES)):
        yield some
