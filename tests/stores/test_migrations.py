import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from vivavoce.errors import SetupError
from vivavoce.stores.schema import metadata
from vivavoce.stores.sql import SqlStore


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_versions_make_the_schema(store: SqlStore) -> None:
    """An empty database brought up to date has exactly the tables that the code uses."""
    with store._writer.connect() as connection:
        assert differences(connection) == []
        assert tables(connection) == {*metadata.tables, "alembic_version"}


async def test_a_newer_database_is_refused(url: str) -> None:
    """A database with a version that this program does not know is left alone, and the message says why."""
    store = await SqlStore.open(url)
    with store._writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from the future'"))
    await store.close()
    with pytest.raises(SetupError, match="newer vivavoce"):
        await SqlStore.open(url)


async def test_a_failed_upgrade_changes_nothing(url: str) -> None:
    """An upgrade that cannot finish leaves no half of itself, so the next start finds what this one found."""
    store = await SqlStore.open(url)
    with store._writer.begin() as connection:
        for name in ("alembic_version", *(table.name for table in reversed(metadata.sorted_tables))):
            connection.execute(text(f"DROP TABLE {name}"))
        connection.execute(text("CREATE TABLE controls (mine INTEGER)"))
    with pytest.raises(SetupError, match="cannot open the database"):
        await SqlStore.open(url)
    with store._reader.connect() as connection:
        assert tables(connection) == {"controls"}
    await store.close()


async def test_a_path_with_a_percent_sign_works(tmp_path: Path) -> None:
    """Characters that settings files and URLs give a meaning are characters in a path."""
    folder = tmp_path / "100% mine"
    folder.mkdir()
    store = await SqlStore.open(f"sqlite:///{folder}/vivavoce.sqlite3")
    await store.close()
    assert (folder / "vivavoce.sqlite3").exists()


async def test_logging_stays_as_it_was(sqlite_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Bringing a database up to date prints nothing."""
    store = await SqlStore.open(f"sqlite:///{sqlite_file}")
    await store.close()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_file_that_is_no_database_is_refused(sqlite_file: Path) -> None:
    """A file of another kind is neither read nor overwritten."""
    sqlite_file.write_bytes(b"certainly not a database" * 100)
    with pytest.raises(SetupError, match="not a database"):
        asyncio.run(SqlStore.open(f"sqlite:///{sqlite_file}"))
    assert sqlite_file.read_bytes() == b"certainly not a database" * 100


async def test_another_programs_database_is_refused(sqlite_file: Path) -> None:
    """A database that has a table of our name but not our version is left alone."""
    with sqlite3.connect(sqlite_file) as theirs:
        theirs.execute("CREATE TABLE sessions (theirs)")
    theirs.close()
    with pytest.raises(SetupError, match="already exists"):
        await SqlStore.open(f"sqlite:///{sqlite_file}")


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////nonexistent/folder/vivavoce.sqlite3",
        "sqlite+nodriver:///vivavoce.sqlite3",
        "nobase:///vivavoce",
        "mysql://somebody:swordfish@localhost/vivavoce",
        "postgresql://somebody:swordfish@127.0.0.1:1/vivavoce",
    ],
)
async def test_urls_that_cannot_work_are_refused(url: str) -> None:
    """A URL that leads nowhere is a `SetupError` in one line that hides the password."""
    with pytest.raises(SetupError) as caught:
        await SqlStore.open(url)
    assert "\n" not in str(caught.value)
    assert "swordfish" not in str(caught.value)


async def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PostgreSQL's driver is not installed, the message says which one it is and how to get it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SetupError, match=r"psycopg.*; pip install 'vivavoce\[postgres\]'"):
        await SqlStore.open("postgresql://localhost/vivavoce")
