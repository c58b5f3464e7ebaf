"""`vivavoce recognize`: an engine in a process of its own, for servers that are started with `--engine remote`."""

from __future__ import annotations

from typing import Annotated

import typer

READY = "recognizer listens on "
"""What the one line begins with that `recognize` prints once it accepts connections; its URL follows."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    epilog = (
        "Example, on one machine:\n\n"
        "vivavoce recognize --listen 127.0.0.1:8090\n\n"
        "vivavoce serve --engine remote --model ws://127.0.0.1:8090\n\n"
        "On two, VIVAVOCE_ENGINE_KEY must be the same on both."
    )
    app.command("recognize", epilog=epilog, rich_help_panel="Server")(recognize)


def recognize(
    listen: Annotated[str, typer.Option(help="Address and port to listen on; 0 takes a free port.")] = "127.0.0.1:8090",
    engine: Annotated[
        str | None, typer.Option(help="Speech engine, by its plugin name; as for serve.", show_default="moonshine")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The engine's model; as for serve.")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda", help="What it computes on.", show_default="auto")
    ] = None,
    compute_type: Annotated[
        str | None, typer.Option(help="Numbers that it computes with, such as int8.", show_default="auto")
    ] = None,
    engine_threads: Annotated[
        int | None, typer.Option(help="CPU threads of one decoding.", min=1, show_default="1")
    ] = None,
    decode_threads: Annotated[
        int | None, typer.Option(help="Decodings at once; one per core by default.", min=1)
    ] = None,
) -> None:
    """Recognise speech for servers, so that recognisers and sockets can run on machines of their own.

    All options but the first are settings of serve: their variables (VIVAVOCE_ENGINE …) and ./vivavoce.toml count too.

    Other machines need a key: the same VIVAVOCE_ENGINE_KEY (or engine_key in the TOML file) on both sides. The line is
    not encrypted; put it in a private network, or behind a proxy that speaks TLS (then the model is a wss:// URL).
    """
    import asyncio

    from vivavoce.config import load_settings
    from vivavoce.config.values import MAX_PORT
    from vivavoce.errors import SetupError
    from vivavoce.plugins import EngineSettings, plugin
    from vivavoce.reception.origin import is_loopback
    from vivavoce.recognizer import Recognizer

    settings = load_settings(
        engine=engine,
        model=model,
        device=device,
        compute_type=compute_type,
        engine_threads=engine_threads,
        decode_threads=decode_threads,
    )
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > MAX_PORT:
        raise SetupError(
            f"--listen must be an address and a port up to {MAX_PORT}, such as 127.0.0.1:8090, not {listen!r}"
        )
    if settings.engine_key is None and not is_loopback(host):
        raise SetupError(f"--listen {host} is open to other machines: set VIVAVOCE_ENGINE_KEY here and at the servers")
    if settings.engine == "remote":
        raise SetupError("a recogniser recognises itself: choose another --engine than remote")
    made = plugin("engines", settings.engine)(EngineSettings.of(settings))
    recognizer = Recognizer(made, threads=settings.decode_threads, key=settings.engine_key)
    asyncio.run(recognizer.run(host, int(port), on_ready=lambda url: typer.echo(f"{READY}{url}")))
