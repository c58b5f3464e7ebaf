"""examples/livekit_agent.py without a room: a recording is its microphone, and the conversation is printed.

Argument: JSON object with `pcm` (a file of 16-bit PCM at 16 kHz) and `answers`: after so many the session is closed.
The server and the model are named by the environment, as for the example itself. The last line is a JSON list of
[who, what] pairs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))

import livekit_agent
from livekit import rtc
from livekit.agents import io, utils

RATE, FRAME_S = 16_000, 0.02
PATIENCE_S = 60


class Microphone(io.AudioInput):
    """Plays a recording at the pace of speech, and silence after it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(label="recording")
        self._data, self._at, self._begun = data, 0, 0.0

    async def __anext__(self) -> rtc.AudioFrame:
        self._begun = self._begun or time.monotonic()
        size = round(RATE * FRAME_S) * 2
        await asyncio.sleep(self._begun + self._at / 2 / RATE - time.monotonic())
        piece = self._data[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return rtc.AudioFrame(piece, RATE, 1, size // 2)


async def main(task: dict[str, Any], data: bytes) -> None:
    """Run the example's session within the HTTP session that the framework gives its plugins."""
    said: list[tuple[str, str]] = []
    enough = asyncio.Event()

    def take(added: Any) -> None:
        if added.item.type == "message":
            said.append((added.item.role, added.item.text_content))
        if [who for who, _ in said].count("assistant") == task["answers"]:
            enough.set()

    async with utils.http_context.open():
        session = livekit_agent.conversation()
        session.on("conversation_item_added", take)
        session.input.audio = Microphone(data)
        await session.start(livekit_agent.Receptionist())
        await asyncio.wait_for(enough.wait(), PATIENCE_S)
        await session.aclose()
    print(json.dumps(said))


asked = json.loads(sys.argv[1])
asyncio.run(main(asked, Path(asked["pcm"]).read_bytes()))
