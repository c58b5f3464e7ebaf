"""A language model's endpoint on loopback: a real HTTP server that speaks chat completions as the test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import SecretStr

from vivavoce.plugins import LlmEndpoint

MODEL, KEY = "small-model", "sk-very-secret"


@dataclass(frozen=True)
class Question:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def system(self) -> str:
        """The prompt."""
        return self.body["messages"][0]["content"]

    @property
    def given(self) -> Any:
        """What the user's first message holds, parsed."""
        return json.loads(self.body["messages"][1]["content"])


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer in bytes; `drip_s` waits between each byte of the body, `cut` hangs up after that many of them."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0
    cut: int | None = None


def says(text: str | None, **choice: Any) -> Reply:
    """Answer with a model's text, in all the fields of the real thing."""
    message = {"role": "assistant", "content": text, "refusal": choice.pop("refusal", None)}
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
    return Reply(body=json.dumps(completion).encode())


def fails(status: int, **headers: str) -> Reply:
    """Answer with an error, whose message quotes what was asked as some endpoints do."""
    error = {"error": {"message": "cannot say to 'my PIN is 4711'", "type": "some_error", "param": None, "code": None}}
    return Reply(status=status, body=json.dumps(error).encode(), headers=headers)


@dataclass(eq=False)
class Chat:
    """A running endpoint; made by `chatting`."""

    answer: Callable[[Question], Reply]
    url: str = ""
    questions: list[Question] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def endpoint(self, **changes: Any) -> LlmEndpoint:
        """Give what the server's settings would say of this endpoint."""
        given = {"timeout_s": 20.0, "concurrency": 4, "retries": 0, **changes}
        return LlmEndpoint(url=self.url, model=MODEL, key=SecretStr(KEY), **given)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    chat: Chat

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        headers = {name.lower(): value for name, value in self.headers.items()}
        question = Question(self.path, headers, json.loads(self.rfile.read(size)))
        with self.chat.lock:
            self.chat.questions.append(question)
            self.chat.open_now += 1
            self.chat.most_open = max(self.chat.most_open, self.chat.open_now)
        try:
            self._write(self.chat.answer(question))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.chat.lock:
                self.chat.open_now -= 1

    def _write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        if reply.drip_s:
            for at in range(len(reply.body)):
                self.wfile.write(reply.body[at : at + 1])
                if self.chat.over.wait(reply.drip_s):
                    break
        else:
            self.wfile.write(reply.body[: reply.cut])
        self.close_connection = self.close_connection or reply.cut is not None

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def chatting(answer: Callable[[Question], Reply]) -> Iterator[Chat]:
    """Answer on a free port for the block."""
    chat = Chat(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": chat}))
    server.daemon_threads = True
    server.block_on_close = False
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield chat
    finally:
        chat.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
