"""A telephone call without a telephone: plays a recording as Twilio would send it, at the pace of speech.

    python call.py recording.wav --url ws://127.0.0.1:8070/

Any file that FFmpeg reads will do; its first channel goes out as 8 kHz µ-law in frames of 20 ms, then silence, then the
hang-up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import time
import uuid
from collections.abc import Iterator

import av
from websockets.asyncio.client import connect

RATE, FRAME_S = 8000, 0.02
SILENCE = b"\xff"


def ulaw(path: str) -> bytes:
    """Give a recording as 8 kHz µ-law."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    encoder = av.CodecContext.create("pcm_mulaw", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    with av.open(path) as file:
        frames = [piece for frame in file.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    packets = [packet for frame in frames for packet in encoder.encode(frame)]
    return b"".join(bytes(packet) for packet in [*packets, *encoder.encode(None)])


def messages(audio: bytes) -> Iterator[str]:
    """Give what Twilio sends: two messages at once, then one for every 20 ms, then the end."""
    stream, call = f"MZ{uuid.uuid4().hex}", f"CA{uuid.uuid4().hex}"
    form = {"encoding": "audio/x-mulaw", "sampleRate": RATE, "channels": 1}
    begin = {"streamSid": stream, "callSid": call, "accountSid": "AC" + "0" * 32, "tracks": ["inbound"]}
    yield json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
    started = {**begin, "customParameters": {}, "mediaFormat": form}
    yield json.dumps({"event": "start", "sequenceNumber": "1", "start": started, "streamSid": stream})
    size = round(RATE * FRAME_S)
    for number, at in enumerate(range(0, len(audio), size), 1):
        payload = base64.b64encode(audio[at : at + size]).decode()
        media = {"track": "inbound", "chunk": str(number), "timestamp": str(20 * (number - 1)), "payload": payload}
        yield json.dumps({"event": "media", "sequenceNumber": str(number + 1), "media": media, "streamSid": stream})
    stop = {"accountSid": begin["accountSid"], "callSid": call}
    yield json.dumps({"event": "stop", "sequenceNumber": str(number + 2), "stop": stop, "streamSid": stream})


async def play(url: str, audio: bytes) -> None:
    """Send a call at its pace."""
    async with connect(url) as socket:
        begun = time.monotonic() - 2 * FRAME_S
        for index, message in enumerate(messages(audio)):
            await asyncio.sleep(begun + index * FRAME_S - time.monotonic())
            await socket.send(message)


def main() -> None:
    """Read the command line and call."""
    shown = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown.add_argument("recording")
    shown.add_argument("--url", default="ws://127.0.0.1:8070/", help="default: %(default)s")
    shown.add_argument(
        "--quiet", type=float, default=3.0, metavar="SECONDS", help="silence after it, default: %(default)s"
    )
    options = shown.parse_args()
    asyncio.run(play(options.url, ulaw(options.recording) + SILENCE * round(options.quiet * RATE)))


if __name__ == "__main__":
    main()
