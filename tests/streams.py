"""Media streams as telephone networks send them, built from the formats they publish; see `wire.media_streams`."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping

FRAME_MS = 20
ULAW_FRAME = 160
"""Bytes of one frame of 8 kHz µ-law."""

Frames = list[str | bytes]


def cut(audio: bytes, size: int = ULAW_FRAME) -> list[bytes]:
    """Cut audio into frames."""
    return [audio[at : at + size] for at in range(0, len(audio), size)]


def twilio(
    call: str, tracks: Mapping[str, bytes], *, stop: bool = True, shift_ms: int = 0, **parameters: str
) -> Frames:
    """Give a call over Twilio; with two tracks, their frames take turns. `shift_ms` is where the first frame begins."""
    stream = {"streamSid": f"MZ{call}"}
    start = {
        "accountSid": "AC0",
        "callSid": call,
        "tracks": list(tracks),
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {name.replace("__", "."): value for name, value in parameters.items()},
        **stream,
    }
    messages = [{"event": "connected", "protocol": "Call", "version": "1.0.0"}, {"event": "start", "start": start}]
    messages += [{"event": "media", "media": media} for media in _in_turn(tracks, shift_ms)]
    messages.append({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "4"}})
    if stop:
        messages.append({"event": "stop", "stop": {"accountSid": "AC0", "callSid": call}})
    return [
        json.dumps({"sequenceNumber": str(number), **message, **(stream if number else {})})
        for number, message in enumerate(messages)
    ]


def telnyx(call: str, audio: bytes) -> Frames:
    """Give a call over Telnyx, which does not say which tracks come."""
    described = {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}
    start = {"user_id": "u", "call_control_id": call, "media_format": described}
    messages = [{"event": "connected", "version": "1.0.0"}, {"event": "start", "start": start}]
    messages += [{"event": "media", "media": media} for media in _in_turn({"inbound": audio}, 0)]
    messages.append({"event": "stop", "stop": {"user_id": "u", "call_control_id": call}})
    return [
        json.dumps({"sequence_number": str(number), "stream_id": f"s-{call}", **message})
        for number, message in enumerate(messages)
    ]


def plivo(call: str, audio: bytes) -> Frames:
    """Give a call over Plivo, which stamps by the wall clock; closing the socket ends it."""
    start = {
        "callId": call,
        "streamId": f"s-{call}",
        "accountId": "MA0",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
    }
    messages = [{"event": "start", "start": start, "extra_headers": "language=en"}]
    messages += [
        {"event": "media", "media": {**media, "chunk": int(media["chunk"])}}
        for media in _in_turn({"inbound": audio}, 1_795_000_000_000)
    ]
    return [json.dumps({"sequenceNumber": number, **message}) for number, message in enumerate(messages, 1)]


def vonage(call: str, linear: bytes) -> Frames:
    """Give a call over Vonage: the format, and then bare 16 kHz samples; closing the socket ends it."""
    first = {"event": "websocket:connected", "content-type": "audio/l16;rate=16000", "uuid": call, "language": "en"}
    dtmf = {"event": "websocket:dtmf", "digit": "4", "duration": 260}
    return [json.dumps(first), *cut(linear, 640), json.dumps(dtmf)]


def exotel(call: str, linear: bytes) -> Frames:
    """Give a call over Exotel: base64 of linear 8 kHz samples, 100 ms a frame."""
    start = {
        "stream_sid": f"s-{call}",
        "call_sid": call,
        "account_sid": "a",
        "custom_parameters": {"language": "en"},
        "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
    }
    messages = [{"event": "connected"}, {"event": "start", "start": start}]
    messages += [
        {"event": "media", "media": {"chunk": number, "timestamp": str(100 * number - 100), "payload": _text(frame)}}
        for number, frame in enumerate(cut(linear, 1600), 1)
    ]
    messages.append({"event": "stop", "stop": {"call_sid": call, "account_sid": "a", "reason": "callended"}})
    return [
        json.dumps({"sequence_number": number, "stream_sid": f"s-{call}", **message})
        for number, message in enumerate(messages)
    ]


def _in_turn(tracks: Mapping[str, bytes], shift_ms: int) -> Iterator[dict[str, str]]:
    """Give the frames of all tracks as they are played; a frame of silence in every byte is not sent."""
    cuts = {track: cut(audio) for track, audio in tracks.items()}
    for slot in range(max(map(len, cuts.values()))):
        for track, frames in cuts.items():
            if slot < len(frames) and frames[slot] != b"\xff" * ULAW_FRAME:
                stamp = {"chunk": str(slot + 1), "timestamp": str(shift_ms + slot * FRAME_MS)}
                yield {"track": track, **stamp, "payload": _text(frames[slot])}


def _text(frame: bytes) -> str:
    return b64encode(frame).decode()
