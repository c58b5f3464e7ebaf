"""An engine that runs in another process, on this machine or another: `vivavoce recognize` at the other end.

A call of `transcribe` takes a connection that is free, or makes one. Where the recogniser is away, finals wait for it,
so that its restart loses nothing; partials do not. What the engine says of itself is fixed once a server has begun with
it: sessions were admitted by its languages. So a recogniser that comes back with another model is refused, by an error
that says so, until the former one returns or the server is restarted. Keys to release go along with the next request:
whoever releases must not wait for a network.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import stamina
from pydantic import ValidationError
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vivavoce.engines.remote_protocol import ANSWER, GREETING, MAX_ANSWER_BYTES, VERSION, Greeting, pack
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import Clip, Hypothesis
from vivavoce.plugins import EngineInfo, EngineSettings

FINAL_PATIENCE_S, PARTIAL_PATIENCE_S = 30.0, 1.0
"""How long a clip may wait for a recogniser that is away."""

_CONNECT_S, _ANSWER_S = 5.0, 60.0
_LONGEST_PAUSE_S = 1.0
_UNAUTHORIZED = 401


class RemoteEngine:
    """The engine behind a recogniser's URL, with what that says of itself as `info`."""

    def __init__(self, settings: EngineSettings) -> None:
        """Connect to the recogniser whose URL is the model; raises `SetupError` where none answers there."""
        url = settings.model or ""
        if urlsplit(url).scheme not in {"ws", "wss"}:
            raise SetupError("--engine remote needs --model with its recogniser's URL, such as ws://127.0.0.1:8090")
        self._url, self._key = url, settings.engine_key
        self._idle: deque[ClientConnection] = deque()
        self._released: deque[str] = deque()
        self._closed = threading.Event()
        try:
            connection, greeting = self._connect()
        except InvalidStatus as error:
            reason = "it needs the key in --engine-key" if error.response.status_code == _UNAUTHORIZED else str(error)
            raise SetupError(f"the recogniser at {url} refuses: {reason}") from error
        except (OSError, WebSocketException) as error:
            raise SetupError(f"no recogniser answers at {url}: start one with vivavoce recognize") from error
        self._idle.append(connection)
        self.info = greeting.info

    @classmethod
    def describe(cls, settings: EngineSettings) -> EngineInfo:
        """Give what the recogniser says of itself now; raises `SetupError` where none answers."""
        engine = cls(settings)
        try:
            return engine.info
        finally:
            engine.close()

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give the recogniser's hypotheses; raises `EngineError` where it fails or stays away, and once closed."""
        if self._closed.is_set():
            raise EngineError("the engine is closed")
        frame = pack(clips, self._take_released())
        patience_s = FINAL_PATIENCE_S if any(clip.final for clip in clips) else PARTIAL_PATIENCE_S
        try:
            for attempt in stamina.retry_context(
                on=self._is_passing, attempts=None, timeout=patience_s, wait_initial=0.05, wait_max=_LONGEST_PAUSE_S
            ):
                with attempt:
                    answer = self._ask(frame)
        except (OSError, WebSocketException) as error:
            raise EngineError("the recogniser does not answer") from error
        if len(answer) != len(clips):
            raise EngineError("the recogniser answered another question")
        return list(answer)

    def release(self, key: str) -> None:
        """Have the recogniser forget a clip's key, with the next request."""
        self._released.append(key)

    def close(self) -> None:
        """Leave the recogniser, which goes on for others."""
        self._closed.set()
        while self._idle:
            with suppress(OSError, WebSocketException):
                self._idle.popleft().close()

    def _take_released(self) -> list[str]:
        taken = []
        # Other threads take keys too, so none may be left although there was one a moment ago.
        with suppress(IndexError):
            while True:
                taken.append(self._released.popleft())
        return taken

    def _is_passing(self, error: Exception) -> bool:
        return isinstance(error, OSError | WebSocketException) and not self._closed.is_set()

    def _ask(self, frame: bytes) -> tuple[Hypothesis, ...]:
        try:
            connection = self._idle.popleft()
        except IndexError:
            connection = self._reconnect()
        try:
            connection.send(frame)
            answer = ANSWER.validate_json(connection.recv(_ANSWER_S))
        except ValidationError as error:
            connection.close()
            raise EngineError("the recogniser's answer cannot be read") from error
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if answer.error is not None:
            raise EngineError(f"the recogniser failed: {answer.error}")
        return answer.hypotheses

    def _reconnect(self) -> ClientConnection:
        try:
            connection, greeting = self._connect()
        except SetupError as error:
            raise EngineError(str(error)) from error
        if greeting.info != self.info:
            connection.close()
            raise EngineError(
                f"the recogniser at {self._url} runs {greeting.info.name} now, with other abilities than "
                f"{self.info.name} before: restart this server to take it"
            )
        return connection

    def _connect(self) -> tuple[ClientConnection, Greeting]:
        headers = {"authorization": f"Bearer {self._key.get_secret_value()}"} if self._key is not None else {}
        # Entered for good: a connection is kept for later calls, and closed when it fails or by `close`.
        connection = ExitStack().enter_context(
            connect(
                self._url,
                additional_headers=headers,
                compression=None,
                max_size=MAX_ANSWER_BYTES,
                open_timeout=_CONNECT_S,
                close_timeout=1.0,
            )
        )
        try:
            greeting = GREETING.validate_json(connection.recv(_CONNECT_S))
        except ValidationError:
            connection.close()
            raise SetupError(f"what answers at {self._url} is no recogniser of this version") from None
        except BaseException:
            connection.close()
            raise
        if greeting.version != VERSION:
            connection.close()
            raise SetupError(f"the recogniser at {self._url} is of another version: update the older side")
        return connection, greeting
