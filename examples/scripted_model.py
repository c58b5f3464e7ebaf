"""A model that says what it is told to: OpenAI's chat completions on loopback, for trying agents offline.

    python scripted_model.py --reply "Good morning, how can I help?" --reply "We open at nine."

Answers come in turn, and then from the first one again; without any, the caller's words are repeated. Standard output
tells of each question and how its answer ended.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    replies: Iterator[str | None]
    word_delay_s: float
    lock = threading.Lock()

    def handle(self) -> None:
        """Answer a connection's questions; those who hang up are not missed."""
        with suppress(ConnectionResetError):
            super().handle()

    def do_POST(self) -> None:
        """Answer one question."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.lock:
            text = next(self.replies)
        question = asked["messages"][-1]["content"]
        self._log(f"asked: {question}")
        words = (text or f"You said: {question}").split(" ")
        try:
            self._stream(asked["model"], words) if asked.get("stream") else self._whole(asked["model"], words)
            self._log("answered")
        except (BrokenPipeError, ConnectionResetError):
            self._log("interrupted")
            self.close_connection = True

    def _stream(self, model: str, words: list[str]) -> None:
        self._head("text/event-stream", "transfer-encoding", "chunked")
        for index, word in enumerate(words):
            time.sleep(self.word_delay_s)
            self._event(model, {"role": "assistant", "content": word if index == 0 else f" {word}"}, None)
        self._event(model, {}, "stop")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _whole(self, model: str, words: list[str]) -> None:
        time.sleep(self.word_delay_s * len(words))
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = json.dumps(self._completion("chat.completion", model, choice)).encode()
        self._head("application/json", "content-length", str(len(body)))
        self.wfile.write(body)

    def _event(self, model: str, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self._chunk(f"data: {json.dumps(self._completion('chat.completion.chunk', model, choice))}\n\n".encode())

    def _completion(self, kind: str, model: str, choice: dict[str, Any]) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": model, "choices": [choice]}

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _head(self, kind: str, *length: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header(*length)
        self.end_headers()

    def _log(self, line: str) -> None:
        with self.lock:
            print(line, flush=True)

    def log_message(self, *_: Any) -> None:
        """Keep quiet about requests."""


def main() -> None:
    """Read the command line and answer until the program is ended."""
    shown = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown.add_argument("--reply", action="append", metavar="TEXT", help="an answer; give it several times for several")
    shown.add_argument("--word-delay", type=float, default=0.05, metavar="SECONDS", help="default: %(default)s")
    shown.add_argument("--port", type=int, default=11434, help="default: %(default)s; 0 takes a free one")
    options = shown.parse_args()
    Handler.replies = itertools.cycle(options.reply or [None])
    Handler.word_delay_s = options.word_delay
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    print(f"answers on http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
