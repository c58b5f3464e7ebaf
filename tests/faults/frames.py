"""Frames of a live socket, read off the wire between a client and the server."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Generator
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader


class Frames:
    """Reads one direction of a socket after its handshake; `masked` is the client's."""

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._stream = StreamReader()
        self._next = self._parse()

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they passed and give the frames that are complete now."""
        self._stream.feed_data(data)
        frames = []
        while True:
            try:
                next(self._next)
            except StopIteration as whole:
                frames.append(whole.value)
                self._next = self._parse()
            else:
                return frames

    def _parse(self) -> Generator[None, None, Frame]:
        return Frame.parse(self._stream.read_exact, mask=self._masked)


def audio_of(frame: Frame) -> bytes:
    """Give the audio in a client's frame, of either kind; none in other frames."""
    if frame.opcode is Opcode.BINARY:
        return bytes(frame.data)
    message = message_of(frame)
    return b64decode(message["data"]["chunk"]) if message.get("type") == "audio_chunk" else b""


def message_of(frame: Frame) -> dict[str, Any]:
    """Give the JSON of a text frame, nothing for other frames."""
    assert frame.fin, "a frame in fragments"
    return json.loads(bytes(frame.data)) if frame.opcode is Opcode.TEXT else {}
