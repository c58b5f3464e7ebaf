"""`vivavoce doctor`: is this machine fit to serve, and what to do where it is not."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vivavoce.cli.keys import Config, DataDir
from vivavoce.errors import SetupError, VivavoceError

if TYPE_CHECKING:
    from vivavoce.config import Settings

OLDEST_PYTHON = (3, 11)
LITTLE_DISK = 2 * 10**9
"""Bytes: some ten hours of 16 kHz audio, with its database."""
NO_DISK = 10**8

INSTALL_AGAIN = "install again: pip install --force-reinstall vivavoce"


class Level(StrEnum):
    """How bad a finding is; only `FAIL` keeps the server from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and the way out where something is wrong."""

    level: Level
    name: str
    found: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = "Example: vivavoce doctor --data-dir /srv/vivavoce"
    app.command("doctor", epilog=epilog, rich_help_panel="More")(doctor)


def doctor(data_dir: DataDir = None, config: Config = None) -> None:
    """Check that this machine is fit to serve, and say what to do where it is not.

    Exits with 1 where something fails; warnings leave the server working.
    """
    worst = Level.OK
    for finding in findings(data_dir=data_dir, config=config):
        _print(finding)
        if finding.level is Level.FAIL:
            worst = Level.FAIL
    if worst is Level.FAIL:
        raise typer.Exit(1)


def findings(**overrides: Any) -> Iterator[Finding]:
    """Look at everything in turn, under the settings that `overrides` give; never raises for what it finds."""
    from vivavoce.config import load_settings

    yield _python()
    yield from _packages()
    yield _microphone()
    try:
        settings = load_settings(**overrides)
    except SetupError as error:
        for line in str(error).splitlines():
            yield Finding(Level.FAIL, "settings", line, "correct the setting it names")
        return
    yield Finding(Level.OK, "settings", "valid")
    for check in (_engine, _models, _vad, _aligner, _addons, _directory, _disk, _port):
        yield check(settings)


def _print(finding: Finding) -> None:
    colors = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
    mark = typer.style(f"{finding.level:<4}", fg=colors[finding.level])
    typer.echo(f"{mark}  {finding.name:<16} {finding.found}")
    if finding.remedy:
        typer.echo(f"{'':<23}→ {finding.remedy}")


def _python() -> Finding:
    found = sys.version.split()[0]
    if sys.version_info < OLDEST_PYTHON:
        return Finding(Level.FAIL, "Python", found, "install Python 3.11 or later")
    return Finding(Level.OK, "Python", found)


def _packages() -> Iterator[Finding]:
    for name, package in (("onnxruntime", "onnxruntime"), ("PyAV", "av"), ("SDK", "gladiaio-sdk")):
        note = " (decodes audio itself: no ffmpeg program is needed)" if package == "av" else ""
        try:
            __import__(package.replace("gladiaio-", "gladiaio_"))
            yield Finding(Level.OK, name, version(package) + note)
        except (ImportError, PackageNotFoundError, OSError) as error:
            yield Finding(Level.FAIL, name, _one_line(error), INSTALL_AGAIN)


def _microphone() -> Finding:
    from vivavoce.cli.listen import portaudio

    try:
        portaudio()
    except SetupError:
        remedy = "only `vivavoce listen` needs it; on Debian and Ubuntu: apt install libportaudio2"
        return Finding(Level.WARN, "PortAudio", "not installed", remedy)
    return Finding(Level.OK, "PortAudio", "installed")


def _engine(settings: Settings) -> Finding:
    import numpy as np

    from vivavoce.model import SAMPLE_RATE, Clip
    from vivavoce.runtime.engines import load_engine

    def decode(engine: Any) -> None:
        engine.transcribe([Clip(key="doctor", samples=np.zeros(SAMPLE_RATE, dtype=np.float32), final=True)])
        engine.close()

    return _tried(lambda: load_engine(settings), settings.engine, "speech engine", decode)


def _models(settings: Settings) -> Finding:
    from vivavoce.runtime.entries import models_file, read_entries

    try:
        entries = read_entries(models_file(settings))
    except SetupError as error:
        return Finding(Level.FAIL, "more models", "; ".join(str(error).splitlines()), "correct the table it names")
    found = f"{', '.join(entries)}: try each with vivavoce models verify" if entries else "none"
    return Finding(Level.OK, "more models", found)


def _vad(settings: Settings) -> Finding:
    import numpy as np

    def judge(vad: Any) -> None:
        vad.probabilities(np.zeros((1, vad.frame), dtype=np.float32), vad.open())

    return _plugin("vads", settings.vad, "voice activity", judge)


def _aligner(settings: Settings) -> Finding:
    import numpy as np

    from vivavoce.model import SAMPLE_RATE

    def align(aligner: Any) -> None:
        aligner.align(np.zeros(SAMPLE_RATE, dtype=np.float32), ["hello"])

    return _plugin("aligners", settings.aligner, "word times", align)


def _addons(settings: Settings) -> Finding:
    import asyncio

    from vivavoce.runtime.addons import Addons

    async def load() -> Addons:
        addons = await Addons.load(settings)
        await addons.close()
        return addons

    try:
        addons = asyncio.run(load())
    except SetupError as error:
        return Finding(Level.FAIL, "add-ons", str(error), "correct the setting it names")
    except Exception as error:  # noqa: BLE001 - a broken plugin may raise anything, and that is what is asked
        return Finding(Level.FAIL, "add-ons", _one_line(error), INSTALL_AGAIN)
    ready = ", ".join(sorted(addons.features)) or "none"
    missing = "; ".join(addons.missing.values())
    return Finding(Level.OK, "add-ons", ready, missing and f"to have more: {missing}")


def _plugin(kind: str, name: str, shown: str, use: Callable[[Any], None]) -> Finding:
    from vivavoce.plugins import plugin

    return _tried(lambda: plugin(kind, name)(), name, shown, use)  # noqa: PLW0108 - that there is none is a finding too


def _tried(make: Callable[[], Any], name: str, shown: str, use: Callable[[Any], None]) -> Finding:
    """Load a plugin and use it once: a damaged model shows only then."""
    begin = time.perf_counter()
    try:
        use(make())
    except VivavoceError as error:
        remedy = "correct the setting it names" if str(error).startswith("--") else INSTALL_AGAIN
        return Finding(Level.FAIL, shown, str(error), remedy)
    except Exception as error:  # noqa: BLE001 - a broken plugin may raise anything, and that is what is asked
        return Finding(Level.FAIL, shown, f"{name}: {_one_line(error)}", INSTALL_AGAIN)
    return Finding(Level.OK, shown, f"{name}, loaded and used in {time.perf_counter() - begin:.1f} s")


def _directory(settings: Settings) -> Finding:
    from filelock import FileLock, Timeout

    directory = settings.data_dir
    place = _existing(directory)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        remedy = "make it writable for this user, or name another one with --data-dir"
        return Finding(Level.FAIL, "data directory", f"{directory}: {place} is not a directory to write in", remedy)
    lock = directory / "lock"
    try:
        if lock.exists():
            FileLock(lock).acquire(timeout=0).lock.release()
    except Timeout:
        remedy = "that is fine if it is your server; another one needs another --data-dir"
        return Finding(Level.WARN, "data directory", f"{directory} is in use by a running server", remedy)
    except OSError as error:
        return Finding(Level.FAIL, "data directory", f"{lock}: {error.strerror}", "make it writable for this user")
    return Finding(Level.OK, "data directory", f"{directory} is writable and not in use")


def _existing(path: Path) -> Path:
    """Give the path or its nearest parent that exists: the server makes the rest."""
    return next(each for each in (path, *path.parents) if each.exists())


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.data_dir)).free
    found = f"{free / 1e9:.1f} GB free"
    remedy = "an hour of 16 kHz audio takes 0.12 GB: delete old sessions, or use a larger disk"
    if free < NO_DISK:
        return Finding(Level.FAIL, "disk", found, remedy)
    return Finding(Level.WARN, "disk", found, remedy) if free < LITTLE_DISK else Finding(Level.OK, "disk", found)


def _port(settings: Settings) -> Finding:
    where = f"{settings.host} port {settings.port}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            remedy = "is a server running already? else choose another with --port or VIVAVOCE_PORT"
            return Finding(Level.WARN, "port", f"{where}: {error.strerror or error}", remedy)
    return Finding(Level.OK, "port", f"{where} is free")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
