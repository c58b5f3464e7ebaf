"""What the command line says about itself, and to mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vivavoce.cli import app, run
from vivavoce.config import Settings
from vivavoce.plugins import plugin_names

ROOT = Path(__file__).parents[2]
SLOW = ("av", "gladiaio_sdk", "numpy", "onnxruntime", "pydantic_settings", "sqlalchemy", "uvicorn")


def commands() -> Iterator[tuple[str, Any]]:
    """Give every command with its full name."""
    for name, command in typer.main.get_command(app).commands.items():
        subcommands = getattr(command, "commands", {})
        yield from ((f"{name} {each}", subcommand) for each, subcommand in subcommands.items())
        if not subcommands:
            yield name, command


NAMES = [name for name, _ in commands()]


def test_the_commands_are_those_promised():
    """Nothing is missing from the command line, and nothing is there unannounced."""
    assert sorted(NAMES) == sorted(
        [
            "serve",
            "recognize",
            "keys create",
            "keys list",
            "keys revoke",
            "keys rotate-secret",
            "transcribe",
            "listen",
            "twiml",
            "demo",
            "bench",
            "doctor",
            "version",
        ]
        + [f"models {each}" for each in ("list", "add", "download", "remove", "verify")]
        + [f"sessions {each}" for each in ("list", "show", "watch", "delete", "download")]
    )


@pytest.mark.parametrize("name", NAMES)
def test_help_teaches_by_example(name):
    """Every command explains itself and ends with an example that calls it."""
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert f"vivavoce {name}" in result.output.split("Example", 1)[1]


def test_serve_has_one_option_per_setting():
    """A setting cannot exist without its option, described and with its environment variable."""
    output = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in output
        assert f"VIVAVOCE_{name.upper()}" in output
        assert field.description is not None
        assert field.description[:40] in output


def test_serve_has_the_headings_of_the_reference():
    """Options stand below the same headings as on the page about settings, in the same order."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    promised = [(heading, re.findall(r"^\| `\w+` \| `(--[a-z-]+)`", text, re.MULTILINE)) for heading, text in sections]
    output = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    panels = re.findall(r"^╭─ (.*?) ─+╮$(.*?)^╰", output, re.DOTALL | re.MULTILINE)
    shown = [(heading, re.findall(r"^│ (--[a-z-]+) ", text, re.MULTILINE)) for heading, text in panels]
    assert [panel for panel in shown if panel[0] != "Options"] == promised


def test_serve_shows_choices_and_defaults_as_they_are_typed():
    """Names are listed where there are few, and a list is written with commas."""
    output = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for option, says in {
        "log-format": "console|json",
        "names": "none|llm|spacy",
        "model-idle": "NUMBER",
        "models-file": "FILE",
        "translation-models": "DIR",
        "engine": f"installed: {', '.join(plugin_names('engines'))}; default moonshine",
        "vad": f"installed: {', '.join(plugin_names('vads'))}; default silero",
        "rtp-types": "default 101=telephone-event,118=L16/16000; env",
        "fsync": "default off",
    }.items():
        (line,) = (line for line in output.splitlines() if line.startswith(f"│ --{option} "))
        assert says in line


def test_recognize_shows_the_defaults_of_the_settings():
    """Its options say what they are without, as the server's do."""
    output = CliRunner().invoke(app, ["recognize", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    for name in ("engine", "device", "compute_type", "engine_threads"):
        (line,) = (line for line in output.splitlines() if line.startswith(f"│ --{name.replace('_', '-')} "))
        assert f"[default: ({Settings.model_fields[name].default})]" in line


@pytest.mark.parametrize("flag", ["--version", "version"])
def test_version_is_one_line(flag):
    """Both spellings give the same line."""
    result = CliRunner().invoke(app, [flag])
    assert result.output.startswith("vivavoce 0.")
    assert result.output.count("\n") == 1


def test_help_imports_nothing_slow():
    """`vivavoce --help` loads no audio, network, database or settings library."""
    code = (
        "import sys\nfrom vivavoce.cli import run\nassert run(['--help']) == 0\n"
        f"print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("transcribe", "Missing argument 'FILE|-' (see vivavoce transcribe --help)"),
        ("bogus", "No such command 'bogus'"),
        ("serve --bogus", "No such option"),
        ("transcribe a.wav --format docx", "'docx' is not one of"),
        ("transcribe a.wav --endpointing soon", "Invalid value for '--endpointing'"),
        ("sessions list --limit 0", "Invalid value for '--limit'"),
        ("keys revoke", "Missing argument 'ID'"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments, says, capsys):
    """What cannot be understood gives one line on stderr that names it, and exit code 2."""
    assert run(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("vivavoce: ")


def test_no_command_shows_the_help(capsys):
    """`vivavoce` alone teaches, and counts as wrong usage."""
    assert run([]) == 2
    out, err = capsys.readouterr()
    assert "transcribe" in out + err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("transcribe no/such.wav", "no/such.wav: there is no such file"),
        ("transcribe no/such.wav --output no/such/dir/a.txt", "no/such/dir/a.txt: cannot be written"),
        ("sessions list --server http://127.0.0.1:9", "no server answers at http://127.0.0.1:9: start one with"),
        ("sessions list --server ftp://x", "ftp://x is not the URL of a server"),
        ("sessions show 1 --server 127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
        ("serve --port abc", "--port (VIVAVOCE_PORT): must be a whole number, got 'abc'"),
        ("serve --config no/such.toml", "cannot read no/such.toml"),
        ("bench --audio no/such.json", "no/such.json: No such file"),
        ("bench --json no/such/dir/bench.json", "no/such/dir/bench.json: cannot be written"),
        ("bench --set bogus=1", "--set bogus=1: give a setting of `vivavoce serve`"),
        ("bench --idle 1 --server http://127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
        ("bench --server http://127.0.0.1:9 --set port=1", "--set is for a server that is started"),
        ("keys list --config no/such.toml", "cannot read no/such.toml"),
        ("recognize --listen 127.0.0.1:99999", "--listen must be an address and a port up to 65535"),
        ("recognize --listen 127.0.0.1", "--listen must be an address and a port up to 65535"),
        ("recognize --listen 127.0.0.1:", "--listen must be an address and a port up to 65535"),
        ("recognize --listen :8090", "--listen must be an address and a port up to 65535"),
    ],
)
def test_mistakes_are_one_line_and_1(arguments, says, capsys, monkeypatch, tmp_path):
    """What cannot be done gives one line on stderr with the reason, and exit code 1."""
    monkeypatch.chdir(tmp_path)
    assert run(arguments.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert err.startswith("vivavoce: ")


def test_each_wrong_setting_has_its_line(capsys, monkeypatch, tmp_path):
    """Two mistakes at once are both reported, each in a line of its own."""
    monkeypatch.chdir(tmp_path)
    assert run(["serve", "--port", "abc", "--log-level", "loud"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "--port" in lines[0] + lines[1]
    assert "--log-level" in lines[0] + lines[1]


def test_a_bug_keeps_its_traceback(monkeypatch):
    """An error that nobody foresaw is not dressed up as the user's mistake."""

    def broken(*_arguments, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr("vivavoce.cli.recording.open_recording", broken)
    with pytest.raises(ZeroDivisionError):
        run(["transcribe", "a.wav"])


def test_no_portaudio_names_the_package(capsys, monkeypatch):
    """Where PortAudio is missing, `listen` says what to install."""

    def missing(name):
        raise OSError(f"PortAudio library not found ({name})")

    monkeypatch.setattr("vivavoce.cli.listen.import_module", missing)
    assert run(["listen"]) == 1
    err = capsys.readouterr().err
    assert "apt install libportaudio2" in err
    assert err.count("\n") == 1
