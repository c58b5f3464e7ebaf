"""One stream through LiveKit's Gladia plugin; what it told is printed as one line of JSON.

Argument: JSON object with `url` (of the init request), `pcm` (a file), `rate` and `speed`, `options` of the plugin, and
`finals`: after so many the input is ended. The stream may end before, as it does when its connection is lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from livekit import rtc
from livekit.agents import stt, utils
from livekit.plugins import gladia

FRAME_S = 0.02


class Story:
    """Keeps what a stream tells."""

    def __init__(self, wanted: int) -> None:
        self.told: dict[str, Any] = {"ids": [], "events": [], "finals": [], "errors": [], "raised": None}
        self.complete = asyncio.Event()
        self._wanted = wanted

    async def listen(self, stream: stt.RecognizeStream) -> None:
        """Take events until the stream ends."""
        async for event in stream:
            if event.type is not stt.SpeechEventType.RECOGNITION_USAGE:
                self._take(event)

    def _take(self, event: stt.SpeechEvent) -> None:
        if event.request_id not in self.told["ids"]:
            self.told["ids"].append(event.request_id)
        self.told["events"].append(event.type.value)
        if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
            said = event.alternatives[0]
            self.told["finals"].append({"text": said.text, "words": [str(word) for word in said.words]})
        if len(self.told["finals"]) == self._wanted:
            self.complete.set()


async def session(task: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Play the recording at its pace, wait for the finals, and end the input."""
    plugin = gladia.STT(api_key="any", base_url=task["url"], sample_rate=task["rate"], **task["options"])
    story = Story(task["finals"])
    plugin.on("error", lambda error: story.told["errors"].append(str(error.error)))
    stream = plugin.stream()
    listening = asyncio.create_task(story.listen(stream))
    samples = round(task["rate"] * FRAME_S)
    begun = time.monotonic()
    for at in range(0, len(data) - 2 * samples + 1, 2 * samples):
        await asyncio.sleep(begun + at / 2 / task["rate"] / task["speed"] - time.monotonic())
        if listening.done():
            break
        stream.push_frame(rtc.AudioFrame(data[at : at + 2 * samples], task["rate"], 1, samples))
    waiting = asyncio.create_task(story.complete.wait())
    await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
    waiting.cancel()
    if not listening.done():
        stream.end_input()
    try:
        await listening
    except Exception as error:  # noqa: BLE001 - what the framework raises is what the test asks about
        story.told["raised"] = repr(error)
    await stream.aclose()
    return story.told


async def main(task: dict[str, Any], data: bytes) -> None:
    """Run within the HTTP session that the framework gives its plugins."""
    async with utils.http_context.open():
        print(json.dumps(await session(task, data)))


logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
asked = json.loads(sys.argv[1])
asyncio.run(main(asked, Path(asked["pcm"]).read_bytes()))
