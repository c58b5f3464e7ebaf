"""One session through Pipecat's Gladia service in a pipeline of its own; what it told is printed as one line of JSON.

Argument: JSON with `url` (of the init request), `pcm` (a file), `rate` and `speed`, `settings` of the service, and
`finals`: after so many the pipeline is ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.gladia.config import MessagesConfig
from pipecat.services.gladia.stt import GladiaSTTService
from pipecat.workers.runner import WorkerRunner

CHUNK_S = 0.02


class Story(FrameProcessor):
    """Keeps what the service says to those after it in the pipeline."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.events: list[tuple[str, Any]] = []
        self.session_id = ""
        self.complete = asyncio.Event()
        self._wanted = wanted

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case TranscriptionFrame():
                self.session_id = frame.result["session_id"]
                self.events.append(("final", frame.text))
                self._wanted -= 1
                if self._wanted == 0:
                    self.complete.set()
            case InterimTranscriptionFrame():
                self.events.append(("partial", frame.text))
            case ProposedUserStartedSpeakingFrame():
                self.events.append(("start", None))
            case ProposedUserStoppedSpeakingFrame():
                self.events.append(("stop", None))
        await self.push_frame(frame, direction)


async def session(task: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Play the recording at its pace, wait for the finals, and end the pipeline."""
    settings = dict(task["settings"])
    if flags := settings.pop("messages_config", None):
        settings["messages_config"] = MessagesConfig(**flags)
    stt = GladiaSTTService(api_key="any", url=task["url"], settings=GladiaSTTService.Settings(**settings))
    story = Story(task["finals"])
    connections, errors = [], []
    stt.add_event_handler("on_connected", lambda _: connections.append(len(story.events)))
    params = PipelineParams(audio_in_sample_rate=task["rate"])
    worker = PipelineWorker(Pipeline([stt, story]), params=params, enable_rtvi=False)
    worker.add_event_handler("on_pipeline_error", lambda _, frame: errors.append(str(frame)))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    size = round(task["rate"] * CHUNK_S) * 2
    begun = time.monotonic()
    for at in range(0, len(data), size):
        await asyncio.sleep(begun + at / 2 / task["rate"] / task["speed"] - time.monotonic())
        await worker.queue_frame(InputAudioRawFrame(data[at : at + size], task["rate"], 1))
    await asyncio.wait_for(story.complete.wait(), 60)
    await worker.queue_frame(EndFrame())
    await running
    return {"id": story.session_id, "events": story.events, "connected": len(connections), "errors": errors}


logger.remove()
logger.add(sys.stderr, level="WARNING")
asked = json.loads(sys.argv[1])
print(json.dumps(asyncio.run(session(asked, Path(asked["pcm"]).read_bytes()))))
