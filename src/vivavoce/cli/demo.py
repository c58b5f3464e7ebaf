"""`vivavoce demo`: live text from real speech, and what it took, measured."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

from vivavoce.cli.client import LiveStream, Received, ServerError, clear_errors, connect, session_request, stored_result
from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2Response, LiveV2TranscriptMessageData, LiveV2Utterance
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from vivavoce.cli.screen import LiveText
    from vivavoce.model import Samples

RECORDING = "two_cities.wav"
LENGTH_S = 24.0
"""How much of the recording is played: a few sentences, ending in a pause."""

ENDPOINTING_S = 0.3
MAXIMUM_DURATION_S = 15.0


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo", epilog="Example: vivavoce demo", rich_help_panel="Speech")(demo)


def demo() -> None:
    """Show live transcription of a recording that ships with the speech engine.

    Starts a server on a free port, streams some speech to it at real-time pace through the official Gladia SDK, shows
    partials being rewritten and finals settling, then the stored result and the measured latencies. Takes half a
    minute, needs no network and leaves nothing behind.
    """
    from rich.console import Console

    from vivavoce.cli.embedded import embedded_server

    console = Console(highlight=False)
    recording = recording_path()
    console.print("[dim]starting a server …[/]")
    with embedded_server() as base:
        console.print(f"[bold]vivavoce[/] listens on {base}")
        console.print(f"{LENGTH_S:.0f} s of {RECORDING}, at real-time pace, through the official gladiaio-sdk\n")
        client = connect(base, None)
        show = _play(console, client, recording)
        session = stored_result(client, show.session_id)
    _check(show, session)
    _print_result(console, session)
    console.print(_latencies(show))
    console.print("\nNext: [bold]vivavoce transcribe[/] FILE, [bold]vivavoce listen[/], or [bold]vivavoce serve[/].")


def recording_path() -> Path:
    """Give the recording's path; raises `SetupError` where the wheel lacks it."""
    spec = find_spec("moonshine_voice")
    for directory in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(directory) / "assets" / RECORDING
        if path.is_file():
            return path
    raise SetupError(f"{RECORDING} is missing: install moonshine-voice==0.1.0 again")


def recorded_speech(length_s: float) -> Samples:
    """Give the beginning of the recording, English speech, as an engine hears it: 16 kHz, mono, float32.

    Raises `SetupError` where the wheel lacks the recording.
    """
    import numpy as np

    from vivavoce.cli.recording import open_recording

    with open_recording(str(recording_path())) as recording:
        pcm = b"".join(recording.chunks(length_s))
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


@dataclass(slots=True)
class _Show:
    """What a session showed, and how long after the audio it did; lags in seconds."""

    session_id: str = ""
    finals: list[LiveV2Utterance] = field(default_factory=list)
    partials: int = 0
    rewrites: int = 0
    ack_lags: list[float] = field(default_factory=list)
    word_lags: list[float] = field(default_factory=list)
    final_lags: list[float] = field(default_factory=list)
    _speech_end: float | None = None
    _seen: dict[str, list[tuple[float, list[str]]]] = field(default_factory=dict)

    def take(self, received: Received, stream: LiveStream) -> None:
        """Measure one message."""
        message = received.message
        if message.type == "audio_chunk" and message.acknowledged and message.data is not None:
            self.ack_lags.append(received.at - stream.byte_sent_at(message.data.byte_range[1]))
        elif message.type == "speech_end":
            self._speech_end = message.data.time
        elif message.type == "transcript" and message.data.is_final:
            self._take_final(message.data, received.at, stream)
        elif message.type == "transcript":
            self._take_partial(message.data, received.at)

    def _take_partial(self, data: LiveV2TranscriptMessageData, at: float) -> None:
        history = self._seen.setdefault(data.id, [])
        words = _plain(data.utterance)
        before = history[-1][1] if history else []
        self.partials += 1
        self.rewrites += words[: len(before)] != before
        history.append((at, words))

    def _take_final(self, data: LiveV2TranscriptMessageData, at: float, stream: LiveStream) -> None:
        self.finals.append(data.utterance)
        if self._speech_end is not None:
            self.final_lags.append(at - stream.sent_at(self._speech_end))
            self._speech_end = None
        history = self._seen.pop(data.id, [])
        for index, (text, word) in enumerate(zip(_plain(data.utterance), data.utterance.words, strict=False)):
            # A word counts as shown where it stands in its place, or one beside it.
            shown = next((when for when, words in history if text in words[max(index - 1, 0) : index + 2]), None)
            if shown is not None:
                self.word_lags.append(shown - stream.sent_at(word.end))


def _plain(utterance: LiveV2Utterance) -> list[str]:
    return [word.strip(string.punctuation).lower() for word in utterance.text.split()]


def _play(console: Console, client: Any, path: Path) -> _Show:
    from vivavoce.cli.recording import RATE, open_recording
    from vivavoce.cli.screen import LiveText

    request = session_request(
        rate=RATE,
        channels=1,
        language="en",
        endpointing=ENDPOINTING_S,
        maximum_duration=MAXIMUM_DURATION_S,
        partials=True,
    )
    progress = _progress()
    task = progress.add_task("", total=LENGTH_S)
    show = _Show()
    with (
        clear_errors(),
        open_recording(str(path)) as recording,
        LiveText(console, footer=progress) as screen,
        LiveStream(client, request) as stream,
    ):
        stream.feed(recording.chunks(LENGTH_S), realtime=True)
        for received in stream:
            show.take(received, stream)
            progress.update(task, completed=stream.sent_s)
            if received.message.type == "transcript":
                _show(console, screen, received.message.data)
        show.session_id = stream.session_id
    return show


def _show(console: Console, screen: LiveText, data: LiveV2TranscriptMessageData) -> None:
    from vivavoce.cli.screen import row

    if not console.is_terminal:
        mark = "✓" if data.is_final else "…"
        console.print(f"{mark} {data.utterance.text.strip()}", markup=False, soft_wrap=True)
    elif data.is_final:
        screen.settle(data, row("✓", data.utterance))
    else:
        screen.rewrite(data)


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(BarColumn(bar_width=60), TextColumn("{task.completed:.1f} of {task.total:.0f} s", style="dim"))


def _check(show: _Show, session: LiveV2Response) -> None:
    """Raise `ServerError` unless speech was heard and what is stored is what was sent."""
    if not show.finals:
        raise ServerError("the server heard no speech: `vivavoce doctor` may tell why")
    stored = session.result.transcription if session.result is not None else None
    if stored is None or stored.utterances != sorted(show.finals, key=lambda each: each.start):
        raise ServerError("the stored result differs from the finals that were sent")


def _print_result(console: Console, session: LiveV2Response) -> None:
    from rich.panel import Panel
    from rich.text import Text

    assert session.result is not None
    assert session.result.transcription is not None
    title = (
        f"stored result: {session.status}, {session.result.metadata.audio_duration:.1f} s of audio, same as the finals"
    )
    text = Text(session.result.transcription.full_transcript)
    console.print()
    console.print(Panel(text, title=title, title_align="left", border_style="green"))


def _latencies(show: _Show) -> Table:
    from rich.table import Table

    title = f"{len(show.finals)} finals, {show.partials} partials ({show.rewrites} rewrote earlier words)"
    table = Table(title=title, title_justify="left", title_style="", header_style="dim", min_width=62)
    table.add_column("latency")
    for name in ("median", "95 %", "count"):
        table.add_column(name, justify="right")
    table.add_row("audio sent → acknowledged", *_figures(show.ack_lags))
    table.add_row("end of a word sent → shown in a partial", *_figures(show.word_lags))
    table.add_row("end of speech sent → final", *_figures(show.final_lags))
    return table


def _figures(lags: list[float]) -> tuple[str, str, str]:
    if not lags:
        return "-", "-", "0"
    ordered = sorted(lags)
    high = ordered[min(round(0.95 * len(ordered)), len(ordered) - 1)]
    return f"{median(ordered) * 1000:.0f} ms", f"{high * 1000:.0f} ms", str(len(ordered))
