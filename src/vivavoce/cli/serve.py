"""`vivavoce serve`: the server, with one option per field of `Settings`."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import signal
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from vivavoce.config import Settings

READY = "vivavoce listens on "
"""What the one line begins with that `serve` prints once it accepts connections; the base URL follows."""

_PANELS = {
    "config": "Where it listens and for whom",
    "data_dir": "Where it keeps things",
    "engine": "Speech",
    "max_sessions": "Sessions",
    "addon_deadline": "Add-ons",
    "llm_url": "Language model, translation, summaries",
    "webhook_url": "Callbacks and webhooks",
    "bridge_owner": "Calls",
    "log_level": "Logs and traces",
}
"""The headings of the help, each with the setting that it begins at."""

_PLUGINS = {
    "engine": "engines",
    "partial_engine": "engines",
    "vad": "vads",
    "aligner": "aligners",
    "diarizer": "diarizers",
}
"""The settings that name a plugin, and of which kind."""


class _ServeCommand(TyperCommand):
    """Builds its options when they are asked for: importing the settings takes longer than all other help."""

    def get_params(self, ctx: Any) -> Any:
        return _command().get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        return _command().invoke(ctx)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = (
        "Examples:\n\n"
        "vivavoce serve   # loopback only, no key needed\n\n"
        "vivavoce keys create --name phones && vivavoce serve --host 0.0.0.0 --public-url https://speech.example.net\n\n"
        "VIVAVOCE_PORT=9000 vivavoce serve --config /etc/vivavoce.toml"
    )
    app.command("serve", cls=_ServeCommand, epilog=epilog, rich_help_panel="Server")(_describe)


def _describe() -> None:
    """Run the server.

    Each option can also be set by its environment variable, or in a TOML file (data_dir = "…").
    The command line wins, then the environment, then the file.
    """


@cache
def _command() -> Any:
    """Give the real command, its signature made from the settings."""
    from vivavoce.config import Settings

    def serve(**values: Any) -> None:
        _serve(ephemeral=values.pop("ephemeral"), overrides=values)

    parameters = []
    panel = ""
    for name, field in Settings.model_fields.items():
        panel = _PANELS.get(name, panel)
        parameters.append(_parameter(name, field, panel))
    hidden = Annotated[bool, typer.Option("--ephemeral", hidden=True)]
    parameters.append(_keyword("ephemeral", hidden, default=False))
    vars(serve)["__signature__"] = inspect.Signature(parameters)
    vars(serve)["__annotations__"] = {parameter.name: parameter.annotation for parameter in parameters}
    built = typer.Typer(add_completion=False, rich_markup_mode="rich")
    built.command()(serve)
    return typer.main.get_command(built)


def _keyword(name: str, annotation: Any, *, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _parameter(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """Make an option of a setting; all but flags are text here, because the settings check every source alike."""
    from vivavoce.config import ENV_PREFIX
    from vivavoce.plugins import plugin_names

    flag = f"--{name.replace('_', '-')}"
    is_flag = field.annotation is bool
    notes = [f"env {ENV_PREFIX}{name.upper()}"]
    if field.default_factory is None and field.default not in (None, ()):
        notes.insert(0, f"default {_typed(field.default)}")
    if name in _PLUGINS:
        notes.insert(0, f"installed: {', '.join(plugin_names(_PLUGINS[name]))}")
    text = f"{escape(field.description or '')} [dim]({escape('; '.join(notes))})[/]"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if is_flag else flag,
        help=text,
        metavar=None if is_flag else _metavar(name, field),
        show_default=False,
        rich_help_panel=panel,
    )
    kind: Any = bool if is_flag else str
    return _keyword(name, Annotated[kind | None, option], default=None)


def _typed(default: object) -> str:
    """Give a default as one would type it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _metavar(name: str, field: FieldInfo) -> str:
    kind = _bare(field.annotation)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if kind in (int, float):
        return "NUMBER"
    if kind is Path:
        return "FILE" if name in {"config", "models_file"} else "DIR"
    return "NAME" if name in _PLUGINS else "TEXT"


def _bare(kind: Any) -> Any:
    """Give a type without its checks, and without None beside it."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        (kind, *_) = (each for each in get_args(kind) if each is not type(None))
        return _bare(kind)
    return kind


def _serve(*, ephemeral: bool, overrides: dict[str, Any]) -> None:
    # Importing makes much and drops little: looking for garbage meanwhile is a tenth of the time to start.
    gc.disable()
    from vivavoce.config import load_settings

    settings = load_settings(**overrides)
    if ephemeral:
        _serve_one_caller(settings)
        return
    from vivavoce.serve import serve

    def announce(url: str, keys: bool) -> None:
        access = "a key is needed" if keys else "no key is needed while none exists"
        typer.echo(f"{READY}{url} · data in {settings.data_dir} · {access}")

    serve(settings, on_ready=announce)


def _serve_one_caller(settings: Settings) -> None:
    """Serve from a temporary directory until standard input closes, and leave nothing behind."""
    # A server that is told to stop may die of that signal in the end, unless somebody catches it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    directory = Path(tempfile.mkdtemp(prefix="vivavoce-"))
    # onnxruntime leaves a file in the temporary directory when it is imported, which happens below.
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    try:
        from vivavoce.serve import serve

        _stop_when_parent_leaves()
        own = _for_one_caller(settings, directory)
        serve(own, on_ready=lambda url, _: typer.echo(f"{READY}{url} · data in {directory}"))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _for_one_caller(settings: Settings, directory: Path) -> Settings:
    """Give settings that keep what was chosen about speech and nothing of where and for whom to serve."""
    from vivavoce.config import store_in

    return settings.model_copy(
        update={
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": directory,
            "store_url": store_in(directory),
            "public_url": None,
            "trusted_proxies": (),
            "allowed_hosts": (),
            "webhook_url": None,
        }
    )


def _stop_when_parent_leaves() -> None:
    """Stop the server when standard input closes, so that it never outlives whoever started it, however that died."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
