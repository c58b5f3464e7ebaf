"""Pipecat's serializers, unmodified, as the other side of calls: they read what our traces say, and are heard.

Written by others from the same pages of the telephone networks, they check that the traces of the other tests are
what networks send, and that what they send themselves is understood.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import framework
import streams
from calls import PATIENCE_S, assert_heard_as_directly, heard_in, session_of
from sound import g711, pcm, recording_at
from vivavoce.bench.words import words
from vivavoce.model import G711
from vivavoce.wire.media_streams import DIALECTS, EXOTEL, TELNYX, TWILIO, VONAGE, Started, read
from vivavoce.wire.tracks import Media

# Pipecat is 400 MB to install.
pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "frameworks" / "pipecat_streams.py"
NAME = "with-pipecat"
STREAMED = {"twilio": "streamSid", "telnyx": "stream_id", "plivo": "streamId", "exotel": "stream_sid"}
TOLD_AS = {"vonage": "unknown"}
"""Pipecat tells the networks apart by their first two messages, but for Vonage, whose path it asks to be told."""

SPEECH_S = 6.3
NARROW, WIDE = (pcm(recording_at("two_cities", rate)[: round(SPEECH_S * rate)]) for rate in (8000, 16_000))
ULAW = g711(recording_at("two_cities", 8000)[: round(SPEECH_S * 8000)], "mulaw")
CALLS: Mapping[str, streams.Frames] = {
    "twilio": streams.twilio(NAME, {"inbound": ULAW}, language="en"),
    "telnyx": streams.telnyx(NAME, ULAW),
    "plivo": streams.plivo(NAME, ULAW),
    "vonage": streams.vonage(NAME, WIDE),
    "exotel": streams.exotel(NAME, NARROW),
}


@pytest.fixture(scope="module")
def pipecat(tmp_path_factory) -> dict[str, Any]:
    """What Pipecat makes of each call, and says in it."""
    place = tmp_path_factory.mktemp("streams")
    (place / "8000").write_bytes(NARROW)
    (place / "16000").write_bytes(WIDE)
    kept = {
        network: [[b64encode(each).decode()] if isinstance(each, bytes) else each for each in frames]
        for network, frames in CALLS.items()
    }
    (place / "calls").write_text(json.dumps(kept), encoding="utf-8")
    task = {"calls": str(place / "calls"), "speech": str(place), "out": str(place / "out")}
    assert asyncio.run(framework.run(framework.python_of("pipecat"), PROGRAM, **task)) == sorted(CALLS)
    told: dict[str, Any] = json.loads((place / "out").read_text(encoding="utf-8"))
    return told


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_pipecat_reads_in_our_calls_what_we_read(pipecat, dialect):
    """Which network, which call and which stream it is, and every sample of its audio."""
    events = [read(dialect, frame) for frame in CALLS[dialect.name]]
    (started,) = [event for event in events if isinstance(event, Started)]
    payload = b"".join(event.payload for event in events if isinstance(event, Media))
    linear = started.encoding == "pcm"
    audio = payload if linear else G711[started.encoding][np.frombuffer(payload, np.uint8)].astype("<i2").tobytes()
    assert audio
    told = pipecat[dialect.name]
    assert told["kind"] == TOLD_AS.get(dialect.name, dialect.name)
    if dialect.name in STREAMED:
        assert told["call"] == started.call_id
        assert told["stream"] == started.metadata[STREAMED[dialect.name]]
    assert b64decode(told["audio"][0]) == audio
    assert told["digits"] == ("4" if "dtmf" in str(CALLS[dialect.name]) else "")


@pytest.mark.parametrize("dialect", [TWILIO, TELNYX, VONAGE, EXOTEL], ids=lambda dialect: dialect.name)
async def test_what_pipecat_says_is_heard_to_the_sample(server, pipecat, dialect):
    """Its messages have neither numbers nor times. What it says to Plivo has another form than what Plivo says."""
    sent = [b64decode(each[0]) if isinstance(each, list) else each for each in pipecat[dialect.name]["sent"]]
    frames, speech = CALLS[dialect.name], (WIDE if dialect is VONAGE else NARROW)
    opening, end = (frames[:1], []) if dialect is VONAGE else (frames[:2], frames[-1:])
    async with connect(server.url.replace("http", "ws") + f"/bridges/{dialect.name}", proxy=None) as socket:
        for frame in [*opening, *sent, *end]:
            await socket.send(frame)
        if end:
            with suppress(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), PATIENCE_S)
    shown = await session_of(server, dialect.call, NAME)
    said = b"".join(event.payload for event in map(partial(read, dialect), sent) if isinstance(event, Media))
    law = dialect in (TWILIO, TELNYX)
    assert len(said) * (2 if law else 1) == len(speech)
    assert server.file(shown["id"]).endswith(said)
    assert {"best", "worst", "wisdom"} <= set(words(heard_in(shown)))
    described = {"encoding": "wav/ulaw", "bit_depth": 8} if law else {"encoding": "wav/pcm"}
    rate = 16_000 if dialect is VONAGE else 8000
    await assert_heard_as_directly(server, shown, said, sample_rate=rate, **described)
