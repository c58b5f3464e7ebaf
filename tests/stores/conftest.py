"""Databases for the store's tests: SQLite files, and PostgreSQL where its server and psycopg are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest

from vivavoce.stores.sql import SqlStore


def _postgres_programs() -> Path | None:
    """Give the folder of PostgreSQL's programs, if this machine and user can run a server."""
    initdb = shutil.which("initdb")
    users = {entry.pw_name for entry in pwd.getpwall()}
    if initdb is None or find_spec("psycopg") is None or (os.geteuid() == 0 and "postgres" not in users):
        return None
    return Path(initdb).resolve().parent


POSTGRES = _postgres_programs()


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[str]:
    """Run a PostgreSQL server of our own; it refuses to run as root."""
    assert POSTGRES is not None
    folder = tempfile.mkdtemp(prefix="vivavoce-pg-")
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = f"{folder}/db"
    subprocess.run(
        [POSTGRES / "initdb", "-D", data, "-A", "trust", "-U", "vivavoce", "--no-sync", "--locale=C", "-E", "UTF8"],
        user=user,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    control = [POSTGRES / "pg_ctl", "-D", data, "-w", "-s", "-l", f"{folder}/log"]
    subprocess.run([*control, "-o", options, "start"], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    try:
        yield folder
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], user=user, cwd=folder, check=True)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/vivavoce.sqlite3"
    assert POSTGRES is not None
    socket = request.getfixturevalue("postgres_socket")
    name = f"test_{uuid4().hex}"
    subprocess.run([POSTGRES / "createdb", "-h", socket, "-U", "vivavoce", name], check=True)
    return f"postgresql://vivavoce@/{name}?host={socket}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[SqlStore]:
    """Give an open store on an empty database."""
    opened = await SqlStore.open(url)
    yield opened
    await opened.close()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """Give the path of an SQLite file that is not there yet."""
    return tmp_path / "vivavoce.sqlite3"
