"""Sessions through the official SDK, as the command line needs them: blocking, bounded, and with clear errors."""

from __future__ import annotations

import bisect
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit

import typer

from vivavoce.errors import VivavoceError

if TYPE_CHECKING:
    from gladiaio_sdk import HttpError, LiveV2Client, LiveV2Response

Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", envvar="GLADIA_API_URL", help="A running server; by default one is started."
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="KEY", envvar="GLADIA_API_KEY", help="API key, where the server wants one."),
]

CHUNK_S = 0.1
"""Length of one chunk of audio on its way to the server, which is what the service's documentation recommends."""

IN_FLIGHT_S = 30.0
"""Audio that may wait for its acknowledgment before a fast sender pauses."""


class ServerError(VivavoceError):
    """The server cannot be reached, refused a request or ended a session early."""

    code = "server"


@contextmanager
def server_client(url: str | None, key: str | None) -> Iterator[LiveV2Client]:
    """Give a client of the server at `url`, or of one started for the block where `url` is None."""
    if url is not None:
        yield connect(url, key)
        return
    from vivavoce.cli.embedded import embedded_server

    with embedded_server() as base:
        yield connect(base, None)


def base_url(url: str) -> str:
    """Give the base URL of the server at `url`; raises `ServerError` where none answers."""
    import httpx

    base = (url if "://" in url else f"http://{url}").rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ServerError(f"{url} is not the URL of a server (such as http://127.0.0.1:8080)")
    if parts.hostname in {"localhost", "127.0.0.1", "::1"}:
        _never_proxy(parts.hostname)
    try:
        httpx.get(f"{base}/health", timeout=10)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no server answers at {base}: start one with `vivavoce serve`") from error
    return base


def connect(url: str, key: str | None) -> LiveV2Client:
    """Give a client of the server at `url`; raises `ServerError` where none answers."""
    from gladiaio_sdk import GladiaClient

    base = base_url(url)
    return GladiaClient(api_url=base, api_key=key or "none").live_v2()


def _never_proxy(host: str) -> None:
    """Keep the SDK's HTTP and WebSocket libraries from sending loopback traffic to a proxy of the environment."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what the SDK raises into `ServerError` with one line for people."""
    try:
        yield
    except VivavoceError:
        raise
    except Exception as error:
        # The SDK raises a bare Exception when its attempts are used up.
        if type(error) is not Exception and not type(error).__module__.startswith("gladiaio_sdk"):
            raise
        raise ServerError(explain(error)) from error


def explain(error: BaseException) -> str:
    """Say in one line what an error of the SDK means."""
    from gladiaio_sdk import HttpError

    if not isinstance(error, HttpError):
        return f"the server does not answer: {error}"
    if error.status == 401:  # noqa: PLR2004
        return (
            "the server wants a valid API key: give --key or set GLADIA_API_KEY (make one with `vivavoce keys create`)"
        )
    problems = error.validation_errors
    if isinstance(problems, list) and problems:
        return "the server refused: " + "; ".join(str(problem) for problem in problems)
    return f"the server refused: {_message(error)}"


def _message(error: HttpError) -> str:
    body = error.response_body
    return str(body.get("message") or error) if isinstance(body, Mapping) else str(error)


def session_request(
    *,
    rate: int,
    channels: int,
    language: str | None,
    endpointing: float | None,
    maximum_duration: float | None,
    partials: bool,
) -> dict[str, Any]:
    """Give the body that opens a session for 16-bit PCM with the messages that a screen can use."""
    request: dict[str, Any] = {
        "encoding": "wav/pcm",
        "bit_depth": 16,
        "sample_rate": rate,
        "channels": channels,
        "endpointing": endpointing,
        "maximum_duration_without_endpointing": maximum_duration,
        "language_config": {"languages": [language]} if language else None,
        "messages_config": {
            "receive_partial_transcripts": partials,
            "receive_final_transcripts": True,
            "receive_speech_events": True,
            "receive_acknowledgments": True,
            "receive_errors": True,
            "receive_post_processing_events": False,
            "receive_lifecycle_events": False,
        },
    }
    return {name: value for name, value in request.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message of the server, the SDK's typed object, and when it came (`time.monotonic`)."""

    message: Any
    at: float


class LiveStream:
    """One live session: audio goes in on a thread of its own, messages come out by iterating, in order.

    Use it as a context manager; leaving the block early ends the session.
    """

    def __init__(self, client: LiveV2Client, request: Mapping[str, Any]) -> None:
        self._bytes_per_s: int = request["sample_rate"] * request["channels"] * 2
        self._inbox: queue.SimpleQueue[Received | BaseException | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._acked = 0
        self._sent_bytes = [0]
        self._sent_at = [0.0]
        self._stopped = False
        self._problem: BaseException | None = None
        self._refusal: str | None = None
        self._sender: threading.Thread | None = None
        threading.excepthook = _report_uncaught
        self._session = client.start_session(dict(request))
        self._session.on("message", self._receive)
        self._session.on("error", self._fail)
        self._session.on("ended", self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        if self._session.status != "ended":
            self._session.end_session()
        if self._sender is not None:
            self._sender.join(1.0)

    @property
    def session_id(self) -> str:
        """The session's id; only after its first message."""
        assert self._session.session_id is not None
        return self._session.session_id

    @property
    def sent_s(self) -> float:
        """Seconds of audio sent so far."""
        return self._sent_bytes[-1] / self._bytes_per_s

    @property
    def acked_s(self) -> float:
        """Seconds of audio that the server has confirmed."""
        return self._acked / self._bytes_per_s

    def sent_at(self, position_s: float) -> float:
        """Say when (`time.monotonic`) the chunk with this moment of the audio was sent."""
        return self.byte_sent_at(round(position_s * self._bytes_per_s))

    def byte_sent_at(self, byte: int) -> float:
        """Say when (`time.monotonic`) the chunk that reaches `byte` was sent."""
        index = bisect.bisect_left(self._sent_bytes, byte)
        return self._sent_at[min(index, len(self._sent_at) - 1)]

    def feed(self, chunks: Iterable[bytes], *, realtime: bool) -> None:
        """Send `chunks` and then the end of the recording, without blocking the caller.

        In real time a chunk leaves when its last sample could have been spoken; otherwise as fast as acknowledgments
        allow. What iterating `chunks` raises is raised to whoever reads the messages.
        """
        self._sender = threading.Thread(target=self._send_all, args=(chunks, realtime), name="sender", daemon=True)
        self._sender.start()

    def stop(self) -> None:
        """End the recording; the messages go on until the server is through."""
        self._stopped = True
        self._session.stop_recording()

    def __iter__(self) -> Iterator[Received]:
        """Yield messages until the session is over; raises `ServerError` unless it ended well."""
        while True:
            try:
                item = self._inbox.get(timeout=0.5)
            except queue.Empty:
                if self._over.is_set() or self._session.join(0):
                    raise self._why("the session was lost") from self._problem
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _send_all(self, chunks: Iterable[bytes], realtime: bool) -> None:
        try:
            while not self._session.wait_until_ready(0.2):
                if self._over.is_set():
                    return
            start = time.monotonic()
            for chunk in chunks:
                if realtime:
                    self._over.wait(max(0.0, start + self.sent_s + len(chunk) / self._bytes_per_s - time.monotonic()))
                if not self._send(chunk):
                    return
            self.stop()
        except BaseException as error:  # noqa: BLE001 - the reader of the messages gets it
            self._inbox.put(error)

    def _send(self, chunk: bytes) -> bool:
        """Send one chunk when few enough wait for acknowledgment; False once the session is over."""
        with self._changed:
            while not self._over.is_set() and self.sent_s - self.acked_s > IN_FLIGHT_S:
                self._changed.wait(1.0)
            if self._over.is_set():
                return False
            self._sent_at.append(time.monotonic())
            self._sent_bytes.append(self._sent_bytes[-1] + len(chunk))
        self._session.send_audio(chunk)
        return True

    def _receive(self, message: Any) -> None:
        at = time.monotonic()
        if message.type == "audio_chunk" and message.acknowledged and message.data is not None:
            with self._changed:
                self._acked = message.data.byte_range[1]
                self._changed.notify_all()
        elif message.type == "error":
            self._refusal = str((getattr(message, "data", None) or {}).get("message", "unknown error"))
        self._inbox.put(Received(message=message, at=at))

    def _fail(self, error: BaseException) -> None:
        self._problem = error

    def _end(self, ended: Any) -> None:
        self._over.set()
        with self._changed:
            self._changed.notify_all()
        if ended.code == 1000 and self._stopped:  # noqa: PLR2004
            self._inbox.put(None)
        else:
            reason = f"the server ended the session before its end ({ended.code} {ended.reason or ''}".rstrip() + ")"
            self._inbox.put(self._why(reason))

    def _why(self, otherwise: str) -> ServerError:
        if self._refusal is not None:
            return ServerError(f"the server ended the session: {self._refusal}")
        return ServerError(explain(self._problem) if self._problem is not None else otherwise)


def _report_uncaught(args: threading.ExceptHookArgs) -> None:
    """Report what ends a thread, but for the SDK's.

    Where a session cannot be opened its thread reports that to the listeners, removes them, and reports once more: to
    nobody, which raises.
    """
    if args.thread is None or args.thread.name != "live-v2-ws":
        threading.__excepthook__(args)


def stored_result(client: LiveV2Client, session_id: str) -> LiveV2Response:
    """Give a session as the server stored it; raises `ServerError`, also where it has no result."""
    with clear_errors():
        return client.get(session_id)


def deliveries_of(url: str, key: str | None, session_id: str) -> dict[str, Any]:
    """Tell how a session's callbacks and webhooks stand; nothing where the server does not know such a thing."""
    import httpx

    base = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        answer = httpx.get(
            f"{base}/v2/live/{session_id}/deliveries", headers={"x-gladia-key": key or "none"}, timeout=10
        )
        report = answer.json() if answer.status_code == httpx.codes.OK else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return report if isinstance(report, dict) else {}
