"""`vivavoce sessions`: what a running server has stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.cli import formats
from vivavoce.cli.client import Key, clear_errors, connect, deliveries_of, stored_result
from vivavoce.cli.formats import Format

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2Response

    from vivavoce.cli.screen import LiveText

app = typer.Typer(
    name="sessions",
    help="List, show, watch, delete and download the sessions of a running server.",
    epilog="Example: vivavoce sessions list --server https://speech.example.net",
    no_args_is_help=True,
)

RunningServer = Annotated[
    str, typer.Option("--server", metavar="URL", envvar="GLADIA_API_URL", help="The server to ask.")
]
SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session's id, as `sessions list` shows it.")]
LOCAL = "http://127.0.0.1:8080"


@app.command("list", epilog="Example: vivavoce sessions list --limit 5 --status done")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="How many of the newest to pass over.")] = 0,
    status: Annotated[
        list[str] | None, typer.Option(help="Only these: queued, processing, done, error; may be repeated.")
    ] = None,
    server: RunningServer = LOCAL,
    key: Key = None,
) -> None:
    """List sessions, the newest first."""
    client = connect(server, key)
    with clear_errors():
        page = client.list({"limit": limit, "offset": offset, "status": status})
    if not page.items:
        typer.echo("no sessions", err=True)
    for session in page.items:
        typer.echo(_line(session))


def _line(session: LiveV2Response) -> str:
    duration = session.file.audio_duration if session.file is not None else None
    length = f"{duration:.1f} s" if duration is not None else "-"
    text = ""
    if session.result is not None and session.result.transcription is not None:
        text = session.result.transcription.full_transcript
    shown = text if len(text) <= 40 else text[:39] + "…"  # noqa: PLR2004 - what is left of an 120-column line
    return f"{session.id}  {session.created_at[:19]}  {session.status:<10}  {length:>9}  {shown}".rstrip()


@app.command(epilog="Example: vivavoce sessions show ID --format srt > talk.srt")
def show(
    session_id: SessionId,
    wanted: Annotated[Format, typer.Option("--format", "-f", help="How to write the transcript.")] = Format.TEXT,
    server: RunningServer = LOCAL,
    key: Key = None,
) -> None:
    """Show a session's transcript; on standard error, how its callbacks stand."""
    client = connect(server, key)
    try:
        sys.stdout.write(formats.render(stored_result(client, session_id), wanted))
    finally:
        for line in _delivery_lines(deliveries_of(server, key, session_id)):
            typer.echo(line, err=True)


def _delivery_lines(report: dict[str, Any]) -> Iterator[str]:
    for lane in ("callback", "webhook"):
        counts = report.get(lane, {})
        if any(counts.values()):
            shown = ", ".join(f"{counts[state]} {state}" for state in ("delivered", "waiting", "dead"))
            yield f"{lane}s: {shown}"
    for letter in report.get("dead_letters", []):
        yield (
            f"dead letter {letter['id']}: {letter['lane']} {letter['event']} of {letter['created_at']}, "
            f"{letter['attempts']} attempts: {letter['reason']}"
        )


@app.command(epilog="Examples:\n\nvivavoce sessions watch ID\n\nvivavoce sessions watch ID --json | jq .type")
def watch(
    session_id: SessionId,
    start: Annotated[int, typer.Option("--from", min=0, help="Number (seq) of the first message wanted.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Write each message as a line of JSON.")] = False,
    server: RunningServer = LOCAL,
    key: Key = None,
) -> None:
    """Follow a session as it is said, from its start, until it is over."""
    from vivavoce.cli.screen import LiveText, progress_console
    from vivavoce.cli.watching import messages_of

    console = progress_console()
    messages = messages_of(server, key, session_id, start, partials=as_json or console.is_terminal)
    if as_json:
        for message in messages:
            typer.echo(json.dumps(message, ensure_ascii=False))
        return
    with LiveText(console) as screen:
        for message in messages:
            _show(screen, message)


def _show(screen: LiveText, message: dict[str, Any]) -> None:
    from gladiaio_sdk import LiveV2TranscriptMessageData

    if message["type"] == "error":
        typer.echo(message["data"]["message"], err=True)
    if message["type"] != "transcript":
        return
    data = LiveV2TranscriptMessageData.from_dict(message["data"])
    if data.is_final:
        screen.write(data, formats.as_line(data.utterance, name_channel=False))
    else:
        screen.rewrite(data)


@app.command(epilog="Example: vivavoce sessions delete ID")
def delete(session_id: SessionId, server: RunningServer = LOCAL, key: Key = None) -> None:
    """Delete a session with its transcript and its audio."""
    client = connect(server, key)
    with clear_errors():
        client.delete(session_id)
    typer.echo(f"session {session_id} is deleted", err=True)


@app.command(epilog="Example: vivavoce sessions download ID -o call.wav")
def download(
    session_id: SessionId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output, ID.wav the default."),
    ] = None,
    server: RunningServer = LOCAL,
    key: Key = None,
) -> None:
    """Download a session's audio as a WAV file."""
    client = connect(server, key)
    with clear_errors():
        audio = client.get_file(session_id)
    if output == Path("-"):
        sys.stdout.buffer.write(audio)
        return
    target = output or Path(f"{session_id}.wav")
    target.write_bytes(audio)
    typer.echo(f"{target}: {len(audio)} bytes", err=True)
