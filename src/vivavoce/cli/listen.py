"""`vivavoce listen`: the microphone, live."""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivavoce.cli import formats
from vivavoce.cli.client import CHUNK_S, Key, LiveStream, Server, clear_errors, server_client, session_request
from vivavoce.errors import SetupError

if TYPE_CHECKING:
    from gladiaio_sdk import LiveV2Client

RATE = 16_000


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = "Examples:\n\nvivavoce listen\n\nvivavoce listen --list-devices\n\nvivavoce listen --device 3 > notes.txt"
    app.command("listen", epilog=epilog, rich_help_panel="Speech")(listen)


def listen(
    device: Annotated[
        str | None, typer.Option(metavar="NAME|NUMBER", help="Microphone; by default the system's own choice.")
    ] = None,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="Show the microphones there are.")] = False,
    language: Annotated[str | None, typer.Option(metavar="CODE", help="Language spoken, such as en.")] = None,
    endpointing: Annotated[float, typer.Option(help="Seconds of silence that end an utterance.")] = 0.3,
    maximum_duration: Annotated[float, typer.Option(help="Longest utterance, in seconds.")] = 15.0,
    server: Server = None,
    key: Key = None,
) -> None:
    """Transcribe the microphone until Ctrl-C, which lets the last words settle; a second one leaves at once."""
    from vivavoce.cli.screen import progress_console

    sounddevice = portaudio()
    if list_devices:
        _list_devices(sounddevice)
        return
    with _microphone(sounddevice, device) as microphone, server_client(server, key) as client:
        request = session_request(
            rate=microphone.rate,
            channels=1,
            language=language,
            endpointing=endpointing,
            maximum_duration=maximum_duration,
            partials=progress_console().is_terminal,
        )
        _stream(client, request, microphone)


def portaudio() -> Any:
    """Give the `sounddevice` module; raises `SetupError` that names the missing package."""
    try:
        return import_module("sounddevice")
    except OSError as error:
        raise SetupError(
            "PortAudio, which reads the microphone, is not installed:"
            " on Debian and Ubuntu `apt install libportaudio2`, elsewhere the package named portaudio"
        ) from error


@dataclass(frozen=True, slots=True)
class _Microphone:
    rate: int
    _heard: queue.SimpleQueue[bytes | None]

    def chunks(self) -> Iterator[bytes]:
        return iter(self._heard.get, None)

    def close(self) -> None:
        self._heard.put(None)


@contextmanager
def _microphone(sounddevice: Any, device: str | None) -> Iterator[_Microphone]:
    heard: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    wanted = int(device) if device is not None and device.isdecimal() else device
    try:
        rate = _rate(sounddevice, wanted)
        stream = sounddevice.RawInputStream(
            samplerate=rate,
            channels=1,
            dtype="int16",
            device=wanted,
            blocksize=round(rate * CHUNK_S),
            callback=lambda data, *_: heard.put(bytes(data)),
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        which = f"named {device!r}" if device is not None else "to listen to"
        raise SetupError(f"there is no microphone {which}: see `vivavoce listen --list-devices` ({error})") from error
    with stream:
        yield _Microphone(rate, heard)


def _rate(sounddevice: Any, device: int | str | None) -> int:
    """Give 16 kHz, or the microphone's own rate where it knows no other."""
    try:
        sounddevice.check_input_settings(device=device, channels=1, dtype="int16", samplerate=RATE)
    except sounddevice.PortAudioError:
        return int(sounddevice.query_devices(device, "input")["default_samplerate"])
    return RATE


def _list_devices(sounddevice: Any) -> None:
    found = [each for each in sounddevice.query_devices() if each["max_input_channels"] > 0]
    if not found:
        raise SetupError("this machine has no microphone that PortAudio knows of")
    for each in found:
        typer.echo(f"{each['index']:>3}  {each['name']}")


def _stream(client: LiveV2Client, request: dict[str, Any], microphone: _Microphone) -> None:
    from rich.text import Text

    from vivavoce.cli.screen import LiveText, progress_console

    footer = Text("listening; Ctrl-C ends", style="dim")

    def settle() -> None:
        microphone.close()
        footer.plain = "settling the last words"

    with (
        clear_errors(),
        LiveText(progress_console(), footer=footer) as screen,
        LiveStream(client, request) as stream,
        _first_interrupt(settle),
    ):
        stream.feed(microphone.chunks(), realtime=False)
        for received in stream:
            if received.message.type != "transcript":
                continue
            data = received.message.data
            if data.is_final:
                screen.write(data, formats.as_line(data.utterance, name_channel=False))
            else:
                screen.rewrite(data)


@contextmanager
def _first_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C in the block do `action` and the next what it always does."""
    usual = signal.getsignal(signal.SIGINT)

    def once(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, usual)
        action()

    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
