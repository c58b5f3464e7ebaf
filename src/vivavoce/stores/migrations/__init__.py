"""Brings a database's tables up to date, with the versions that ship in this package.

Alembic is imported where there is something to do: that takes longer than all else that opening a database does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect

from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

_HERE = Path(__file__).parent
VERSIONS = frozenset(path.name[1:5] for path in (_HERE / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))
"""The revisions, which their files are named after, each a step behind the one before it."""


def migration_config(connection: Connection) -> Config:
    """Give Alembic's settings for a connection; no alembic.ini is read."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date within the connection's transaction; raises `SetupError` for a newer database."""
    if connection.dialect.name == "postgresql":
        # Two programs may start at once; SQLite's immediate transaction already keeps the second one out.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(2072030214)")
    stored: set[str] = set()
    if inspect(connection).has_table("alembic_version"):
        stored = set(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars())
    if not stored <= VERSIONS:
        raise SetupError("the database was written by a newer vivavoce: install that one, or use another database")
    if stored != {max(VERSIONS)}:
        from alembic import command  # noqa: PLC0415

        command.upgrade(migration_config(connection), "heads")
