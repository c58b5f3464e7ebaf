"""`vivavoce models`: the models that sessions may name."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.cli.keys import Config, DataDir
from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vivavoce.config import Settings
    from vivavoce.plugins import EngineInfo, KnownModel
    from vivavoce.runtime.engines import Recipe

app = typer.Typer(
    name="models",
    help="List, add, download, verify and remove the models that sessions may name.",
    epilog="Example: vivavoce models download whisper-small",
    no_args_is_help=True,
)

FEW_LANGUAGES = 4
VERIFIED_S = 4.0
"""How much speech a model is tried with."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

Name = Annotated[str, typer.Argument(metavar="NAME", help="What `model` of an init request is to call it.")]


@app.command("list", epilog="Example: vivavoce models list --json")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """List the default model, those of the file, and those that can be downloaded.

    What a running server has loaded, its `GET /v1/models` tells.
    """
    from vivavoce.config import load_settings

    found = list(_listed(load_settings(data_dir=data_dir, config=config)))
    if as_json:
        typer.echo(json.dumps({"models": found}, indent=2))
        return
    rows = [("NAME", "ENGINE", "LANGUAGES", "")]
    for model in found:
        state = model.get("get", "default" if model["default"] else "installed")
        rows.append((model["name"], model["engine"], _languages(model.get("languages")), state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command(epilog="Example: vivavoce models add dutch --engine faster-whisper --model /srv/models/whisper-dutch")
def add(
    name: Name,
    engine: Annotated[str, typer.Option(help="The engine that runs it, by plugin name.")],
    model: Annotated[str | None, typer.Option(help="A name that the engine knows, or a directory.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    compute_type: Annotated[str | None, typer.Option(help="Numbers that it computes with, such as int8.")] = None,
    engine_threads: Annotated[int | None, typer.Option(help="CPU threads of one decoding.")] = None,
    partials: Annotated[str | None, typer.Option(help="Another model, or an engine, for partials.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a model of that name.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add a model that is on this machine and can be loaded here; a running server offers it at once.

    It becomes a table in models.toml of the data directory; other tables and comments there stay as they are.
    """
    from vivavoce.cli.model_tables import check_table, write_table
    from vivavoce.config import load_settings
    from vivavoce.runtime.entries import recipe_of

    settings = load_settings(data_dir=data_dir, config=config)
    if model is not None and (Path(model).expanduser().exists() or model.startswith(("/", ".", "~"))):
        model = str(_readable(Path(model).expanduser().absolute()))
    table = {
        "engine": engine,
        "model": model,
        "device": device,
        "compute_type": compute_type,
        "engine_threads": engine_threads,
        "partials": partials,
    }
    given = {key: value for key, value in table.items() if value is not None}
    taken = None if replace else "choose another name, or give --replace"
    entries = check_table(settings, name, given, taken=taken)
    recipe_of(name, entries, settings).describe()
    write_table(settings, name, given, taken=taken)
    typer.echo(f"{name} is added; try it with: vivavoce models verify {name}", err=True)


@app.command(
    epilog="Examples:\n\nvivavoce models download whisper-small\n\n"
    "vivavoce models download dutch --engine faster-whisper --hub owner/whisper-dutch-ct2\n\n"
    "vivavoce models download dutch --engine faster-whisper --url https://models.example.net/dutch.tar.gz --sha256 HEX"
)
def download(
    name: Name,
    engine: Annotated[str | None, typer.Option(help="The engine that runs it; known models have theirs.")] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Repository of the Hugging Face hub, or of HF_ENDPOINT.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A file, or an archive of the model's directory.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Checksum of what the URL gives.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Download a model and add it; a download that was cut off goes on when the command runs again."""
    from vivavoce.cli.fetching import Interrupted, fetch_from_hub, fetch_from_url, part_of
    from vivavoce.cli.model_tables import check_table, write_table
    from vivavoce.config import load_settings
    from vivavoce.runtime.entries import models_file, read_entries

    settings = load_settings(data_dir=data_dir, config=config)
    engine, source = _source(name, engine, hub, url, sha256)
    taken = f"choose another name, or remove it with: {_command('remove', name)}"
    target = _downloads(settings, name)
    entry = read_entries(models_file(settings)).get(name)
    # Where only the files have gone, the table stays as it is.
    again = entry is not None and (entry.engine, entry.model) == (engine, str(target))
    if not again:
        check_table(settings, name, {"engine": engine}, taken=taken)
    if target.exists():
        raise SetupError(
            f"{target} is there already; add it with: {_add(name, engine, target)}, or remove it with: "
            f"{_command('remove', name, '--files')}"
        )
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if source.url is not None and source.sha256 is not None:
            fetch_from_url(source.url, source.sha256, target)
        else:
            fetch_from_hub(source.repository or "", source.files, target)
    except Interrupted as error:
        raise SetupError(_way_out(str(error), name, engine, source, kept=part_of(target).exists())) from error
    except KeyboardInterrupt:
        if part_of(target).exists():
            typer.echo(f"vivavoce: {name}: what came is kept; run the same command again to go on", err=True)
        raise
    if not again:
        write_table(settings, name, {"engine": engine, "model": str(target)}, taken=taken)
    typer.echo(f"{name} is in {target} and added; try it with: vivavoce models verify {name}", err=True)


@app.command(epilog="Example: vivavoce models remove whisper-small --files")
def remove(
    name: Name,
    files: Annotated[
        bool, typer.Option("--files", help="Its directory among the downloads too, and what is left of a download.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Remove a model; sessions of a running server that have it keep it until they end."""
    from vivavoce.cli.fetching import forget, part_of, unused
    from vivavoce.cli.model_tables import remove_table
    from vivavoce.config import load_settings
    from vivavoce.runtime.entries import models_file, read_entries

    settings = load_settings(data_dir=data_dir, config=config)
    entries = read_entries(models_file(settings))
    own = _downloads(settings, name)
    left = own.exists() or part_of(own).exists()
    if name not in entries and not (files and left):
        has_files = f", but files: add --files to remove {own}" if left else ": see `vivavoce models list`"
        raise SetupError(f"there is no model {name} in {models_file(settings)}{has_files}")
    if files:
        _check_unused(own, {other: entry.model for other, entry in entries.items() if other != name}, settings)
    with unused(own) if files else nullcontext():
        if name in entries:
            remove_table(settings, name)
        if files:
            forget(own)
    elsewhere = entries[name].model if name in entries else None
    kept = own if left and not files else elsewhere if elsewhere not in {None, str(own)} else None
    typer.echo(f"{name} is removed" + (f"; {kept} stays as it is" if kept is not None else ""), err=True)


@app.command(epilog="Example: vivavoce models verify whisper-small")
def verify(name: Name, data_dir: DataDir = None, config: Config = None) -> None:
    """Compare a model's files with what was downloaded, load it, and say what it hears in some seconds of speech."""
    from vivavoce.cli.fetching import wrong_files
    from vivavoce.config import load_settings
    from vivavoce.runtime.entries import models_file, read_entries, recipe_of

    settings = load_settings(data_dir=data_dir, config=config)
    entries = read_entries(models_file(settings))
    if name not in entries:
        raise SetupError(f"there is no model {name} in {models_file(settings)}: see `vivavoce models list`")
    # A name that the engine knows may be that of a directory here, which is none of its business.
    directory = Path(entries[name].model or "").expanduser()
    wrong = wrong_files(directory) if directory.is_absolute() else None
    if wrong:
        raise SetupError(
            f"{name}: changed since the download: {', '.join(wrong)}; remove it with: "
            f"{_command('remove', name, '--files')}, and download it again"
        )
    begin = time.perf_counter()
    info, heard = _use(recipe_of(name, entries, settings))
    files = "its files are as downloaded, and " if wrong is not None else ""
    used = f"{name}: {files}{info.name} was loaded and used in {time.perf_counter() - begin:.1f} s"
    if not heard and "en" in info.languages:
        raise SetupError(f"{used}, but heard no word in {VERIFIED_S:.0f} s of English speech: it may be damaged")
    typer.echo(f"{used}; of {VERIFIED_S:.0f} s of English speech it heard: {heard or 'no word'}")


def _use(recipe: Recipe) -> tuple[EngineInfo, str]:
    """Let an engine decode English speech as a partial and as a final; give what it is and what it heard."""
    from vivavoce.cli.demo import recorded_speech
    from vivavoce.errors import EngineError
    from vivavoce.model import Clip

    samples = recorded_speech(VERIFIED_S)
    engine = recipe.make()
    try:
        languages = tuple({"en"} & engine.info.languages)
        engine.transcribe([Clip(key="verify", samples=samples, final=False, languages=languages)])
        (heard,) = engine.transcribe([Clip(key="verify", samples=samples, final=True, languages=languages)])
        return engine.info, " ".join(word.text for word in heard.words)
    except EngineError as error:
        raise SetupError(f"{engine.info.name} was loaded, but {error}") from error
    finally:
        engine.close()


def _listed(settings: Settings) -> Iterator[dict[str, Any]]:
    """Give what there is and what there could be, as `GET /v1/models` shows it, without what only a server knows."""
    from vivavoce.runtime.catalogue import features_of, missing, way_to_get
    from vivavoce.runtime.engines import Recipe, known_models
    from vivavoce.runtime.entries import models_file, read_entries, recipe_of

    entries = read_entries(models_file(settings))
    recipes = {settings.engine: Recipe.of(settings)}
    for name in sorted(entries.keys() - recipes):
        recipes[name] = recipe_of(name, entries, settings)
    known, here = known_models(), []
    for name, recipe in recipes.items():
        info, get = None, {}
        try:
            info = recipe.describe()
            here.append(recipe)
        except SetupError:
            get = {"get": way_to_get(name, recipe, known, settings)}
        yield {
            "name": name,
            "engine": recipe.engine,
            **({"languages": sorted(info.languages)} if info is not None else {}),
            "features": list(features_of(info)),
            "default": name == settings.engine,
            "installed": not get,
            **get,
        }
    for each in missing(known, here, set(recipes)):
        languages = {"languages": sorted(each.languages)} if each.languages is not None else {}
        yield {
            "name": each.name,
            "engine": each.engine,
            **languages,
            "features": [],
            "default": False,
            "installed": False,
            "get": each.get,
        }


def _downloads(settings: Settings, name: str) -> Path:
    """Give where a model of this name is downloaded to; raises `SetupError` for what is no name."""
    from vivavoce.runtime.entries import model_directory

    if Path(name).name != name or name.startswith("."):
        raise SetupError(f"{name!r} is no name for a model")
    return model_directory(settings, name)


def _check_unused(own: Path, others: Mapping[str, str | None], settings: Settings) -> None:
    """Raise `SetupError` where what is in a directory is the model of another table, or of the settings."""
    users = sorted(other for other, model in others.items() if _is_in(model, own))
    if users:
        raise SetupError(f"{own} is the model of {', '.join(users)} too; remove that first, or leave --files out")
    for key in ("model", "partial_model"):
        if _is_in(getattr(settings, key), own):
            raise SetupError(f"{own} is the server's {key}; change that setting first, or leave --files out")


def _is_in(model: str | None, own: Path) -> bool:
    """Tell whether a model's name is a path that is gone when a directory is removed, or a link to one."""
    try:
        path = Path(model or "").expanduser()
        if path.is_absolute() and path.is_relative_to(own.absolute()):
            return True
        # A name that the engine knows is no path, and behind a link nothing is removed.
        named = model is not None and (path.is_absolute() or path.exists())
        return named and not own.is_symlink() and path.resolve().is_relative_to(own.resolve())
    except (OSError, RuntimeError, ValueError):
        # It leads nowhere.
        return False


def _languages(codes: list[str] | None) -> str:
    if codes is None:
        return "?"
    return ", ".join(codes) if len(codes) <= FEW_LANGUAGES else f"{len(codes)} languages"


def _readable(directory: Path) -> Path:
    if not directory.is_dir():
        raise SetupError(f"--model {directory}: there is no such directory")
    if not os.access(directory, os.R_OK | os.X_OK):
        raise SetupError(f"--model {directory}: this user may not read it")
    return directory


def _source(
    name: str, engine: str | None, hub: str | None, url: str | None, sha256: str | None
) -> tuple[str, KnownModel]:
    """Give the engine and where its model comes from: what the options name, or what an engine knows."""
    from vivavoce.plugins import KnownModel
    from vivavoce.runtime.engines import known_models

    if sha256 is not None and url is None:
        raise SetupError("--sha256 is the checksum of what --url gives; the hub tells those of its files itself")
    if hub is None and url is None:
        known = {owner: model for owner, model in known_models() if model.name == name}
        if not known:
            raise SetupError(f"no engine knows a model {name}: see `vivavoce models list`, or give --hub or --url")
        if engine is not None and engine not in known:
            raise SetupError(f"{name} is a model of {', '.join(known)}: leave --engine out, or give --hub or --url")
        owner = engine or next(iter(known))
        return owner, known[owner]
    if engine is None or (hub is not None and url is not None):
        raise SetupError("give --engine with either --hub or --url, so that it is known what runs the model")
    if hub is not None and not _REPOSITORY.fullmatch(hub):
        raise SetupError(f"--hub {hub} is no repository of the hub, which is written OWNER/NAME")
    if url is not None and (problem := _no_address(url)):
        raise SetupError(f"--url {url} {problem}")
    if url is not None and (sha256 is None or not _SHA256.fullmatch(sha256)):
        raise SetupError("--url needs --sha256 with the 64 digits of what it gives, which the model's makers publish")
    return engine, KnownModel(name=name, model=name, repository=hub, url=url, sha256=sha256)


def _no_address(url: str) -> str | None:
    """Say why nothing could be fetched from there, if that is so."""
    from urllib.parse import urlsplit

    import httpx

    try:
        address = httpx.URL(url)
        # It escapes some of what this one refuses.
        urlsplit(url)
    except (httpx.InvalidURL, ValueError) as error:
        return f"is no address: {str(error).rstrip('.')}"
    if address.scheme == "file":
        return "is on this machine; unpack it, and add its directory with `vivavoce models add`"
    if address.scheme not in {"http", "https"} or not address.host:
        return "is no address that is fetched from; give one that begins with https:// or http:// and a host"
    return None


def _way_out(problem: str, name: str, engine: str, source: KnownModel, *, kept: bool) -> str:
    if source.url is not None:
        what = f"fetch {source.url} elsewhere and unpack it here"
    else:
        from huggingface_hub import constants

        files = f" ({', '.join(source.files)})" if source.files else ""
        what = (
            f"name a mirror with HF_ENDPOINT, or fetch the files{files} of {constants.ENDPOINT}/{source.repository} "
            "elsewhere and copy them into a directory here"
        )
    again = "; what came is kept, so run the same command again to go on" if kept else ""
    return f"{problem}{again}. Without a network: {what}, then: {_add(name, engine, Path('DIR'))}"


def _add(name: str, engine: str, directory: Path) -> str:
    return _command("add", name, "--engine", engine, "--model", str(directory))


def _command(*arguments: str) -> str:
    return shlex.join(["vivavoce", "models", *arguments])
