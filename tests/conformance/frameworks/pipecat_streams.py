"""Pipecat's serializers of telephone networks: what they read in calls, and what they make of speech, as a JSON file.

Argument: JSON with `calls` (a file: by network, the frames of a call, binary ones as a list of base64), `speech` (a
directory of raw speech, named by its rate) and `out` (the file to write: by network, what Pipecat takes the call for,
the `audio` and `digits` it reads, and the frames it `sent`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.clocks.system_clock import SystemClock
from pipecat.frames.frames import InputAudioRawFrame, InputDTMFFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.utils.asyncio.task_manager import TaskManager

RATES = {"twilio": 8_000, "telnyx": 8_000, "plivo": 8_000, "vonage": 16_000, "exotel": 8_000}
CHUNK_S = 0.02


@dataclass
class Recorded:
    """A socket that brings the texts of a call."""

    frames: list[str | bytes]

    async def iter_text(self) -> AsyncIterator[str]:
        """Give the texts in order."""
        for frame in self.frames:
            if isinstance(frame, str):
                yield frame


def serializer(network: str, stream: str | None) -> FrameSerializer:
    """Give Pipecat's serializer as its examples make it, but without the account that hangs up."""
    match network:
        case "twilio":
            return TwilioFrameSerializer(stream, params=TwilioFrameSerializer.InputParams(auto_hang_up=False))
        case "telnyx":
            params = TelnyxFrameSerializer.InputParams(auto_hang_up=False)
            return TelnyxFrameSerializer(stream, outbound_encoding="PCMU", inbound_encoding="PCMU", params=params)
        case "plivo":
            return PlivoFrameSerializer(stream, params=PlivoFrameSerializer.InputParams(auto_hang_up=False))
        case "exotel":
            return ExotelFrameSerializer(stream)
    return VonageFrameSerializer()


async def converse(network: str, frames: list[str | bytes], speech: bytes) -> dict[str, Any]:
    """Let Pipecat read a call's frames, and say something in it."""
    rate = RATES[network]
    kind, call = await parse_telephony_websocket(Recorded(frames))
    peer = serializer(network, call.get("stream_id"))
    rates = {"audio_in_sample_rate": rate, "audio_out_sample_rate": rate}
    around = {"clock": SystemClock(), "task_manager": TaskManager(), "pipeline_worker": None}
    await peer.setup(FrameProcessorSetup(**around, **rates))
    audio, digits = b"", ""
    for frame in frames:
        match await peer.deserialize(frame):
            case InputAudioRawFrame(audio=read, sample_rate=at, num_channels=1) if at == rate:
                audio += read
            case InputDTMFFrame(button=button):
                digits += button.value
    size = round(CHUNK_S * rate) * 2
    said = [OutputAudioRawFrame(speech[at : at + size], rate, 1) for at in range(0, len(speech), size)]
    sent = [await peer.serialize(frame) for frame in said]
    ids = {"call": call.get("call_id"), "stream": call.get("stream_id")}
    return {"kind": kind, **ids, "audio": packed(audio), "digits": digits, "sent": [packed(each) for each in sent]}


def packed(frame: str | bytes) -> str | list[str]:
    """Give a frame as JSON can hold it."""
    return [b64encode(frame).decode()] if isinstance(frame, bytes) else frame


def main() -> None:
    task = json.loads(sys.argv[1])
    logger.remove()
    told = {}
    for network, kept in json.loads(Path(task["calls"]).read_text(encoding="utf-8")).items():
        frames = [b64decode(each[0]) if isinstance(each, list) else each for each in kept]
        speech = Path(task["speech"], str(RATES[network])).read_bytes()
        told[network] = asyncio.run(converse(network, frames, speech))
    Path(task["out"]).write_text(json.dumps(told), encoding="utf-8")
    print(json.dumps(sorted(told)))


main()
