"""Recordings as encoders pack them: bare packets of Opus, and files of several kinds."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import av
import numpy as np

from recordings import wheel_recording
from sound import Samples
from vivavoce.model import SAMPLE_RATE

OPUS_FRAME_S = 0.02

_CODECS = {
    "ogg": ("libopus", 48_000),
    "mp3": ("libmp3lame", 16_000),
    "flac": ("flac", 16_000),
    "amr": ("libopencore_amrnb", 8_000),
}


def _frame(samples: Any, at: int = 0) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None, :], format="flt", layout="mono")
    frame.sample_rate, frame.pts = SAMPLE_RATE, at
    return frame


@cache
def opus_packets(name: str) -> list[bytes]:
    """Give a recording as packets of Opus of 20 ms each, the last one filled with silence."""
    encoder: Any = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "flt"
    size = round(OPUS_FRAME_S * SAMPLE_RATE)
    samples = wheel_recording(name)
    samples = np.pad(samples, (0, -len(samples) % size))
    frames = [_frame(samples[at : at + size], at) for at in range(0, len(samples), size)]
    return [bytes(packet) for frame in [*frames, None] for packet in encoder.encode(frame)]


@cache
def packed(name: str, kind: str) -> bytes:
    """Give a recording as a file: `ogg` (Opus), `mp3`, `flac` or `amr`."""
    return pack(wheel_recording(name), kind)


def pack(samples: Samples, kind: str) -> bytes:
    """Give samples as such a file."""
    codec, rate = _CODECS[kind]
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if kind == "amr":
            stream.bit_rate = 12_200
        stream.codec_context.open()
        resampler = av.AudioResampler(
            format=stream.format.name, layout="mono", rate=rate, frame_size=stream.codec_context.frame_size
        )
        for frame in [*resampler.resample(_frame(samples)), *resampler.resample(None), None]:
            file.mux(stream.encode(frame))
    return out.getvalue()
