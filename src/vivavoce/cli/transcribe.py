"""`vivavoce transcribe`: a recording through the live API, as text, JSON or subtitles."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vivavoce.cli import formats
from vivavoce.cli.client import (
    Key,
    LiveStream,
    Server,
    clear_errors,
    server_client,
    session_request,
    stored_result,
)
from vivavoce.cli.formats import Format
from vivavoce.errors import VivavoceError

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2Client, LiveV2Response, LiveV2TranscriptMessageData
    from rich.progress import Progress

    from vivavoce.cli.recording import Recording
    from vivavoce.cli.screen import LiveText


class Pace(StrEnum):
    """How fast a recording is sent."""

    FAST = "fast"
    REALTIME = "realtime"


class Channels(StrEnum):
    """What becomes of a recording's channels."""

    MIX = "mix"
    SEPARATE = "separate"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = (
        "Examples:\n\n"
        "vivavoce transcribe talk.mp3\n\n"
        "vivavoce transcribe film.mkv --format srt --output film.srt\n\n"
        "vivavoce transcribe call.wav --channels separate --format json | jq .transcription.full_transcript\n\n"
        "ffmpeg -i rtsp://camera -f wav - | vivavoce transcribe -"
    )
    app.command("transcribe", epilog=epilog, rich_help_panel="Speech")(transcribe)


def transcribe(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Any audio or video file, or - for standard input.")],
    wanted: Annotated[Format, typer.Option("--format", "-f", help="How to write the transcript.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to standard output.")
    ] = None,
    pace: Annotated[Pace, typer.Option(help="As fast as the server takes it, or as if spoken now.")] = Pace.FAST,
    channels: Annotated[Channels, typer.Option(help="Mix all channels, or transcribe each on its own.")] = Channels.MIX,
    language: Annotated[str | None, typer.Option(metavar="CODE", help="Language spoken, such as en.")] = None,
    endpointing: Annotated[float, typer.Option(help="Seconds of silence that end an utterance.")] = 0.5,
    maximum_duration: Annotated[float, typer.Option(help="Longest utterance, in seconds.")] = 15.0,
    server: Server = None,
    key: Key = None,
) -> None:
    """Transcribe a file, or standard input, through the live API.

    Without a server of your own one is started for the occasion, and nothing of it is left afterwards. Only the
    transcript goes to standard output; progress is shown on a terminal.
    """
    from vivavoce.cli.recording import RATE, open_recording
    from vivavoce.cli.screen import progress_console

    if output is not None and not os.access(output.parent, os.W_OK):
        raise VivavoceError(f"{output}: cannot be written, there is no such directory or it is not yours")
    with (
        open_recording(file, separate=channels is Channels.SEPARATE) as recording,
        server_client(server, key) as client,
    ):
        request = session_request(
            rate=RATE,
            channels=recording.channels,
            language=language,
            endpointing=endpointing,
            maximum_duration=maximum_duration,
            partials=progress_console().is_terminal,
        )
        # Text can be read while it is made; one channel's finals come in the order of the result.
        flowing = wanted is Format.TEXT and output is None and recording.channels == 1
        session = _stream(client, request, recording, realtime=pace is Pace.REALTIME, flowing=flowing)
    if not flowing:
        _write(formats.render(session, wanted), output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


def _stream(
    client: LiveV2Client, request: dict[str, object], recording: Recording, *, realtime: bool, flowing: bool
) -> LiveV2Response:
    """Send a recording and show what comes back; gives the stored session."""
    from vivavoce.cli.screen import LiveText, progress_console

    progress = _progress()
    sent = progress.add_task("sent", total=recording.duration_s)
    heard = progress.add_task("transcribed", total=recording.duration_s)
    with clear_errors(), LiveText(progress_console(), footer=progress) as screen, LiveStream(client, request) as stream:
        stream.feed(recording.chunks(), realtime=realtime)
        for received in stream:
            message = received.message
            progress.update(sent, completed=stream.sent_s)
            if message.type == "transcript":
                progress.update(heard, completed=message.data.utterance.end)
                _show(screen, message.data, flowing=flowing)
        session_id = stream.session_id
    return stored_result(client, session_id)


def _show(screen: LiveText, data: LiveV2TranscriptMessageData, *, flowing: bool) -> None:
    if not data.is_final:
        screen.rewrite(data)
        return
    if flowing:
        screen.write(data, formats.as_line(data.utterance, name_channel=False))
    else:
        screen.settle(data, None)


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:>11}", style="dim"),
        BarColumn(bar_width=40),
        TextColumn("{task.completed:.1f} s", style="dim"),
    )
    return Progress(*columns)
