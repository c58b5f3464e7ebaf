"""Brings a database's tables up to date, with the versions that ship in this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from sqlalchemy import Connection


def migration_config(connection: Connection) -> Config:
    """Give Alembic's settings for a connection; no alembic.ini is read."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date within the connection's transaction; raises `SetupError` for a newer database."""
    if connection.dialect.name == "postgresql":
        # Two programs may start at once; SQLite's immediate transaction already keeps the second one out.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(2072030214)")
    config = migration_config(connection)
    script = ScriptDirectory.from_config(config)
    stored = set(MigrationContext.configure(connection).get_current_heads())
    if not stored <= {version.revision for version in script.walk_revisions()}:
        raise SetupError("the database was written by a newer vivavoce: install that one, or use another database")
    if stored != set(script.get_heads()):
        command.upgrade(config, "heads")
