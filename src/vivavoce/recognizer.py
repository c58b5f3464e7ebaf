"""A process that only recognises: an engine, and a WebSocket at which servers ask it (`--engine remote`)."""

from __future__ import annotations

import asyncio
import hmac
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus

import structlog
from pydantic import SecretStr
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vivavoce.engines.remote_protocol import ANSWER, GREETING, MAX_REQUEST_BYTES, VERSION, Answer, Greeting, unpack
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import Clip, Hypothesis
from vivavoce.plugins import Engine

log = structlog.get_logger()

MAX_CONNECTIONS = 256


class Recognizer:
    """Answers requests with one engine, `threads` of them at once."""

    def __init__(self, engine: Engine, *, threads: int, key: SecretStr | None) -> None:
        """Serve those who show the `key`, everybody where there is none."""
        self._engine, self._key = engine, key
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="recognize")
        self._connections = 0
        self._keys: dict[str, ServerConnection] = {}

    async def run(self, host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT; otherwise as `serve`."""
        serving = asyncio.create_task(self.serve(host, port, on_ready=on_ready), name="recognizer")
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(each, serving.cancel)
        with suppress(asyncio.CancelledError):
            await serving

    async def serve(self, host: str, port: int, *, on_ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `on_ready` gets the URL. Raises `SetupError` where the port is taken."""
        try:
            server = await serve(
                self._serve_one,
                host,
                port,
                process_request=self._admit,
                max_size=MAX_REQUEST_BYTES,
                compression=None,
            )
        except OSError as error:
            raise SetupError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --listen"
            ) from error
        try:
            async with server:
                bound = server.sockets[0].getsockname()[1]
                on_ready(f"ws://[{host}]:{bound}" if ":" in host else f"ws://{host}:{bound}")
                await server.serve_forever()
        finally:
            self._threads.shutdown()
            self._engine.close()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse who has no key, and who is one too many."""
        if self._key is not None:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(shown.strip().encode(), self._key.get_secret_value().encode())
            if scheme.lower() != "bearer" or not right:
                log.warning("a server was refused: wrong key")
                return connection.respond(HTTPStatus.UNAUTHORIZED, "the key is missing or wrong\n")
        if self._connections >= MAX_CONNECTIONS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None

    async def _serve_one(self, connection: ServerConnection) -> None:
        self._connections += 1
        try:
            greeting = Greeting(version=VERSION, info=self._engine.info)
            await connection.send(GREETING.dump_json(greeting).decode())
            async for frame in connection:
                answer = await self._answer(frame, connection)
                await connection.send(ANSWER.dump_json(answer).decode())
        except ConnectionClosed:
            pass
        finally:
            self._connections -= 1
            # What its server has under way ended with it, or begins anew over another connection.
            for key in [key for key, user in self._keys.items() if user is connection]:
                self._release(key)

    def _release(self, key: str) -> None:
        self._keys.pop(key, None)
        self._engine.release(key)

    async def _answer(self, frame: str | bytes, connection: ServerConnection) -> Answer:
        try:
            clips, release = unpack(frame if isinstance(frame, bytes) else frame.encode())
            for key in release:
                self._release(key)
            # Engines keep nothing of finals, whose keys may have been released just now.
            self._keys.update((clip.key, connection) for clip in clips if not clip.final)
            return Answer(hypotheses=tuple(await self._transcribe(clips)))
        except EngineError as error:
            log.error("recognising failed", reason=str(error))
            return Answer(error=str(error))
        except Exception:
            log.exception("recognising failed")
            return Answer(error="internal error")

    async def _transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        size = self._engine.info.batch_size
        if len(clips) > size:
            raise EngineError(f"more than {size} clips in a request")
        if not clips:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.transcribe, clips)
