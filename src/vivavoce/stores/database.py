"""Opens databases for the store: which driver, which settings, which errors."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import stamina
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from vivavoce.errors import SetupError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

READERS = 4
_BUSY_MS = 10_000
_PRIMARY = 0xFF
"""The bits of an extended error code of SQLite that say which error it is."""
# Writers of every session wait while the log is emptied; a reader in the way is left alone soon.
_PATIENCE_MS = 200
_POSTGRES = "postgresql+psycopg"
_DRIVERS = {"postgresql": _POSTGRES, "postgres": _POSTGRES}


def make_engines(url: str, *, durable: bool) -> tuple[Engine, Engine]:
    """Give an engine of one connection that writes and one of a few that read, neither of them connected yet."""
    target = _database_url(url)
    return _engine(target, writes=True, durable=durable), _engine(target, writes=False, durable=durable)


@contextmanager
def setup_failing(url: str) -> Iterator[None]:
    """Turn what goes wrong while a database is opened into a `SetupError` of one line, without the password."""
    try:
        yield
    except (SQLAlchemyError, ImportError, OSError, TypeError) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        told = str(original).partition("\n")[0] or type(original).__name__
        target = _database_url(url)
        if isinstance(error, ImportError) and target.drivername == _POSTGRES:
            told = f"PostgreSQL's driver is missing ({told}); pip install 'vivavoce[postgres]'"
        raise SetupError(f"cannot open the database {target.render_as_string(hide_password=True)}: {told}") from error


@contextmanager
def failing_as(action: str) -> Iterator[None]:
    """Turn what a database fails with into a `StoreError` that names the action and the failure, and no values."""
    # Beside SQLAlchemy's own: sockets fail with OSError, and values that the driver cannot write with the other two.
    try:
        yield
    except (SQLAlchemyError, OSError, ValueError, OverflowError) as error:
        raise StoreError(f"cannot {action}: {_reason(error)}") from error


def empty_log(writer: Engine) -> bool:
    """Take what was deleted out of SQLite's log too; False where a reader still needs it. Nothing to do elsewhere."""
    if writer.dialect.name != "sqlite":
        return True
    with writer.connect() as connection:
        driver: Any = connection.connection.driver_connection
        # Not through SQLAlchemy, which would begin a transaction, and SQLite refuses this inside one.
        driver.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
        try:
            busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            driver.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    return not busy


def _database_url(text: str) -> URL:
    try:
        url = make_url(text)
    except SQLAlchemyError as error:
        raise SetupError("the database URL cannot be read; it looks like sqlite:///vivavoce.sqlite3") from error
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    in_memory = not url.database or ":memory:" in url.database or url.query.get("mode") == "memory"
    if url.get_backend_name() == "sqlite" and in_memory:
        raise SetupError("the database must be a file: reading and writing connections share it")
    return url


def _engine(url: URL, *, writes: bool, durable: bool) -> Engine:
    engine = create_engine(
        url,
        pool_size=1 if writes else READERS,
        max_overflow=0,
        pool_pre_ping=url.get_backend_name() != "sqlite",
        hide_parameters=True,
        json_serializer=partial(json.dumps, allow_nan=False, separators=(",", ":")),
    )
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, url, writes=writes, durable=durable)
    return engine


def _prepare_sqlite(engine: Engine, url: URL, *, writes: bool, durable: bool) -> None:
    if url.database and not url.database.startswith("file:"):
        os.close(os.open(url.database, os.O_RDWR | os.O_CREAT, 0o600))

    def connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        # SQLite does not wait here: of two that open a new file at once it may refuse one.
        for attempt in stamina.retry_context(
            _locked, attempts=None, timeout=_BUSY_MS / 1000, wait_initial=0.01, wait_jitter=0.05
        ):
            with attempt:
                cursor.execute("PRAGMA journal_mode=WAL")
        for pragma in (
            f"synchronous={'FULL' if durable else 'NORMAL'}",
            "foreign_keys=ON",
            "secure_delete=ON",
            f"query_only={'OFF' if writes else 'ON'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    # The driver's own BEGIN comes late and only before some statements. A writer says at once that it will write: a
    # transaction that finds out later that somebody else did in between cannot go on.
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_BUSY


def _reason(error: BaseException) -> str:
    """Name a failure without its text, in which databases repeat values."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    return code or type(original).__name__
