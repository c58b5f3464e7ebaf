"""`vivavoce keys`: who may call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivavoce.errors import VivavoceError

if TYPE_CHECKING:
    from vivavoce.config import Settings
    from vivavoce.model import ApiKey
    from vivavoce.stores.sql import SqlStore

app = typer.Typer(
    name="keys",
    help="Create, list and revoke API keys, renew signing secrets. Once there is a key, every caller needs one.",
    epilog="Example: vivavoce keys create --name phones",
    no_args_is_help=True,
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="The server's data directory (env VIVAVOCE_DATA_DIR)."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The server's TOML file.")]


@app.command(epilog="Example: export GLADIA_API_KEY=$(vivavoce keys create --name phones)")
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    max_sessions: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Sessions at once; the server's setting by default.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="R", help="Requests a second; the server's setting by default."),
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Create a key; it is shown this once and kept only as a hash.

    Standard output is the key and nothing else; the secret that signs its callbacks goes to standard error. A running
    server honours the key at once.
    """
    from vivavoce.reception.access import new_key
    from vivavoce.runtime.callbacks import new_secret

    signing = new_secret()

    async def add() -> tuple[ApiKey, str]:
        key, secret = new_key(name, max_sessions=max_sessions, rate=rate)
        async with _store(data_dir, config) as store:
            await store.add_key(key)
            await store.rotate_secret(key.id, signing, key.created_at, key.created_at)
        return key, secret

    key, secret = asyncio.run(add())
    typer.echo(f"callbacks of key {key.id} are signed with {signing}, which is not shown again", err=True)
    typer.echo(f"key {key.id}: keep what follows, it is not shown again", err=True)
    typer.echo(secret)


@app.command("list", epilog="Example: vivavoce keys list")
def list_keys(data_dir: DataDir = None, config: Config = None) -> None:
    """List the keys by id, the oldest first."""

    async def read() -> list[ApiKey]:
        async with _store(data_dir, config) as store:
            return await store.keys()

    found = asyncio.run(read())
    if not found:
        typer.echo("no keys: the server listens on loopback only and asks for none", err=True)
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "valid"
        line = f"{key.id}  {key.created_at:%Y-%m-%d %H:%M}  {state:<24}  {_limits(key):<24}  {key.name}"
        typer.echo(line.rstrip())


def _limits(key: ApiKey) -> str:
    sessions = f"{key.max_sessions} sessions" if key.max_sessions is not None else ""
    return ", ".join(filter(None, [sessions, f"{key.rate:g}/s" if key.rate is not None else ""]))


@app.command(epilog="Example: vivavoce keys revoke ID   # as `vivavoce keys list` shows it")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, not the key itself.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Revoke a key for good."""
    from vivavoce.model import now

    async def withdraw() -> bool:
        async with _store(data_dir, config) as store:
            return await store.revoke_key(key_id, now())

    if not asyncio.run(withdraw()):
        raise VivavoceError(f"there is no valid key with the id {key_id}: see `vivavoce keys list`")
    typer.echo(f"key {key_id} is revoked", err=True)


@app.command(epilog="Example: vivavoce keys rotate-secret ID   # as `vivavoce keys list` shows it")
def rotate_secret(
    owner: Annotated[
        str,
        typer.Argument(
            metavar="[ID]",
            help="The key's id; without it, the server's own secret: of webhooks, and of keyless sessions.",
        ),
    ] = "",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a new secret for signing callbacks; it is shown this once.

    Standard output is the secret and nothing else. For a day, deliveries carry a signature by the old secret, too.
    """
    from vivavoce.model import now
    from vivavoce.runtime.callbacks import OLD_SECRET_VALID, SERVER_OWNER, new_secret

    signing = new_secret()

    async def renew() -> bool:
        async with _store(data_dir, config) as store:
            known = {key.id for key in await store.keys() if key.revoked_at is None}
            if owner and owner not in known:
                return False
            await store.rotate_secret(owner or SERVER_OWNER, signing, now(), now() + OLD_SECRET_VALID)
            return True

    if not asyncio.run(renew()):
        raise VivavoceError(f"there is no valid key with the id {owner}: see `vivavoce keys list`")
    typer.echo("the new secret follows; keep it, it is not shown again", err=True)
    typer.echo(signing)


@asynccontextmanager
async def _store(data_dir: Path | None, config: Path | None) -> AsyncIterator[SqlStore]:
    from vivavoce.config import load_settings

    async with open_store(load_settings(data_dir=data_dir, config=config)) as store:
        yield store


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[SqlStore]:
    """Open the store of `settings` for the block, beside a running server or without one."""
    from vivavoce.stores.sql import SqlStore

    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await SqlStore.open(settings.store_url)
    try:
        yield store
    finally:
        await store.close()
