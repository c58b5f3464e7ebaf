"""The `vivavoce` command: every mistake of its user gives one clear line on stderr, never a traceback.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Modules of this package import what is slow to import
inside functions, so that `vivavoce --help` is quick.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import vivavoce
from vivavoce.cli import bench, demo, doctor, keys, listen, models, recognize, serve, sessions, transcribe, twiml
from vivavoce.errors import InvalidConfig, VivavoceError

INTERRUPTED = 130

app = typer.Typer(
    name="vivavoce",
    help="Self-hosted live speech-to-text that speaks the Gladia v2 live API, on a real model, offline.",
    epilog="Start here: [bold]vivavoce demo[/]; then [bold]vivavoce transcribe talk.mp3[/] or [bold]vivavoce serve[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    _log_to_stderr()


def _log_to_stderr() -> None:
    """Keep what is logged out of a command's output; a server has a log of its own form."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # Made anew for every line, since stderr may be another one by then.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


demo.register(app)
transcribe.register(app)
listen.register(app)
serve.register(app)
recognize.register(app)
app.add_typer(keys.app, rich_help_panel="Server")
app.add_typer(models.app, rich_help_panel="Server")
app.add_typer(sessions.app, rich_help_panel="Server")
twiml.register(app)
doctor.register(app)
bench.register(app)


@app.command(rich_help_panel="More", epilog="Example: vivavoce version")
def version() -> None:
    """Show the version."""
    typer.echo(f"vivavoce {vivavoce.__version__}")


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; anything but a bug ends in at most one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that lacks a character shows a question mark rather than a traceback.
            stream.reconfigure(errors="replace")
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="vivavoce")
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except (typer.TyperException, VivavoceError, OSError) as error:
        return _explain(error)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    """Report a user's mistake and give its exit code; raises `error` again where it is none."""
    match error:
        case VivavoceError():
            _report("\n".join([str(error), *(error.problems if isinstance(error, InvalidConfig) else ())]))
            return 1
        case BrokenPipeError():
            # The reader of a pipe left (`| head`); whatever Python still holds for it would fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case OSError(filename=str() | os.PathLike() as name):
            _report(f"{name}: {error.strerror}")
            return 1
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            _report(f"{error.strerror}: make room for what this command writes, and run it again")
            return 1
        case typer.TyperException():
            return _report_usage(error)
    raise error


def _report(message: str) -> None:
    for line in message.splitlines() or [""]:
        typer.echo(f"vivavoce: {line}", err=True)


def _report_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if message:
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        _report(message.rstrip(".") + hint)
    return int(getattr(error, "exit_code", 2))
