"""The server process: what it owns, in which order it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import io
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TextIO, cast

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI
from filelock import FileLock, Timeout

from vivavoce.api.app import create_app
from vivavoce.api.connections import HttpConnection, SocketConnection
from vivavoce.bridges.calls import Calls
from vivavoce.config import Settings
from vivavoce.errors import SetupError
from vivavoce.plugins import Bridge, plugin, plugin_names
from vivavoce.reception.access import require_safe_bind
from vivavoce.runtime import tracing
from vivavoce.runtime.hub import Hub
from vivavoce.stores.objects import LocalAudio
from vivavoce.stores.sql import SqlStore
from vivavoce.wire import protocol

log = structlog.get_logger()

RESERVED_DESCRIPTORS = 512
"""Kept for audio files, the database and libraries."""

SWITCH_S = 0.0005
"""How long the event loop may keep the interpreter from a thread that has something to do: each call of a decoder, a
file or the database waits for its turn when it returns."""

GC_THRESHOLD = (100_000, 20, 50)
"""Objects made before the youngest are looked at, and how many times that is before older ones are."""

OnReady = Callable[[str, bool], None]

MAX_FRAME_BYTES = 33 << 20
"""Largest frame taken: official clients resend up to 20 MB of audio as one base64 text frame."""


def serve(settings: Settings, *, on_ready: OnReady = lambda *_: None) -> None:
    """Run the server until SIGTERM or SIGINT; `on_ready` gets the base URL and whether callers need a key, once
    connections are accepted.

    Raises `SetupError` where the server cannot start.
    """
    gc.enable()  # off while the command imported what it needs
    _configure_logs(settings)
    sys.setswitchinterval(SWITCH_S)
    HttpConnection.max_connections = min(settings.max_connections, _raise_descriptor_limit())
    stop_tracing = tracing.enable() if settings.otel else None
    with _own_data_dir(settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, on_ready))
    if stop_tracing is not None:
        stop_tracing()


async def _serve(settings: Settings, on_ready: OnReady) -> None:
    listener = _listen(settings)
    try:
        async with _open_hub(settings) as hub, _open_bridges(app := create_app(hub, settings), hub, settings):
            config = uvicorn.Config(
                app,
                ws=SocketConnection,
                ws_max_size=MAX_FRAME_BYTES,
                ws_ping_interval=settings.ping_interval,
                ws_ping_timeout=settings.ping_interval,
                ws_per_message_deflate=False,
                http=HttpConnection,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
            server = _Server(config, hub)
            watch = asyncio.create_task(_announce(hub, server, on_ready), name="announce")
            await server.serve(sockets=[listener])
            await watch
    finally:
        listener.close()


async def _announce(hub: Hub, server: _Server, on_ready: OnReady) -> None:
    """Load the models once the server listens, and say that it is ready; without them it ends, and says why.

    Sessions that an earlier process left take audio before that, from the moment the server listens.
    """
    await server.listening.wait()
    if server.should_exit:
        return
    try:
        await hub.ready()
        keys = bool(await hub.store.keys())
    except BaseException:
        server.should_exit = True
        raise
    if not server.should_exit:
        _spare_garbage_collection()
        on_ready(server.url, keys)


def _spare_garbage_collection() -> None:
    """Look for garbage among what sessions make only: all that was loaded stays for good, and is most of what there is.

    Left alone, collecting takes a third of the event loop of a few hundred streams.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)


class _Server(uvicorn.Server):
    """uvicorn that lets the sessions rest before it closes their sockets, and exits with 0 on a signal."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub
        self.listening = asyncio.Event()
        self.url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        log.info("listening", url=self.url)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping")
        await self._hub.drain()
        # Closes the listener and then every socket, with 1012: official clients come back at once.
        await super().shutdown(sockets)
        log.info("stopped")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self._on_signal)
        try:
            yield
        finally:
            for each in signals:
                loop.remove_signal_handler(each)

    def _on_signal(self) -> None:
        if self.should_exit:
            log.warning("stopped at once by a second signal")
            sys.stdout.flush()
            sys.stderr.flush()
            # Sessions keep what is committed; nothing else is worth waiting for.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        self.should_exit = True


@asynccontextmanager
async def _open_hub(settings: Settings) -> AsyncIterator[Hub]:
    store = await SqlStore.open(settings.store_url, durable=settings.fsync)
    audio = LocalAudio(settings.data_dir / "audio", fsync=settings.fsync, open_files=_open_audio_files())
    try:
        require_safe_bind(settings, keys_exist=bool(await store.keys()))
        hub = await Hub.open(settings, store=store, audio=audio, wire=protocol)
        try:
            yield hub
        finally:
            await hub.close()
    finally:
        audio.close()
        await store.close()


@asynccontextmanager
async def _open_bridges(app: FastAPI, hub: Hub, settings: Settings) -> AsyncIterator[None]:
    """Add the front doors for calls to the application, and open those that listen by themselves."""
    calls = Calls(hub, app.state.access, settings)
    bridges: list[Bridge] = [plugin("bridges", name)(calls, settings) for name in plugin_names("bridges")]
    async with AsyncExitStack() as opened:
        for bridge in bridges:
            for path, serve_socket in bridge.sockets.items():
                app.router.add_websocket_route(path, serve_socket)
            opened.push_async_callback(bridge.close)
            await bridge.open()
        yield


def _listen(settings: Settings) -> socket.socket:
    """Take the port, so that a taken one is one clear line before any model is loaded."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise SetupError(
            f"cannot listen on {where}: {error.strerror}; choose another with --host and --port"
        ) from error
    return listener


@contextmanager
def _own_data_dir(settings: Settings) -> Iterator[None]:
    """Hold the data directory for this process alone."""
    directory = settings.data_dir
    lock = FileLock(directory / "lock")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise SetupError(
            f"another vivavoce serves from {directory}; stop it or choose another directory with --data-dir"
        ) from None
    except OSError as error:
        raise SetupError(f"cannot use the data directory {directory}: {error.strerror}; see --data-dir") from error
    try:
        yield
    finally:
        lock.release()


def _raise_descriptor_limit() -> int:
    """Allow as many sockets and audio files as the system lets this user have; give how many may be sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - RESERVED_DESCRIPTORS, hard // 2)


def _open_audio_files() -> int:
    """Give how many audio files may stay open: half of the descriptors that are not for connections."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (allowed - HttpConnection.max_connections) // 2


class _Unfailing(io.TextIOBase):
    """A log that loses lines rather than raise: it is often on the disk whose being full is to be told."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def _configure_logs(settings: Settings) -> None:
    level = logging.getLevelName(settings.log_level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks never show local variables: they hold transcripts and tokens.
    quiet = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    plain_traceback = structlog.dev.plain_traceback
    last: list[structlog.typing.Processor] = (
        [structlog.processors.ExceptionRenderer(quiet), structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain_traceback)]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # What libraries log is written like our own lines, but only what is serious: uvicorn's informative lines show the
    # query of a socket's URL, and so its token.
    handler = logging.StreamHandler(sys.stderr)
    foreign = [structlog.stdlib.add_logger_name, *shared]
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=[remove_meta, *last])
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
