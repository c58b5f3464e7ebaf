"""Bursts, large frames and many sessions at once: nothing is lost, nobody waits, and finals do not change."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from live import STOP, base64_chunk, connected, open_session, pieces, transcribe
from recordings import wheel_recording
from sound import pcm, share_of, silence
from vivavoce.model import SAMPLE_RATE

SPEECH = wheel_recording("two_cities")[: round(4.8 * SAMPLE_RATE)]
SPOKEN = "It was the best of times, it was the worst of times"
PATIENCE_S = 10.0
"""As long as clients wait for REST, and half of what they wait for a pong."""


async def test_twenty_megabytes_at_wire_speed(server):
    """Eleven minutes of audio in one burst are all taken, acknowledged, and transcribed to the end; meanwhile pings and
    REST are answered.
    """
    data = pcm(np.concatenate([SPEECH, silence(330), SPEECH, silence(310)]))
    async with connected(open_session(server)) as socket:
        await socket.send(*pieces(data, 65_536))
        await socket.ping(PATIENCE_S)
        started = time.monotonic()
        assert server.result(socket.session_id)["status"] == "processing"
        assert time.monotonic() - started < PATIENCE_S
        await socket.acked_up_to(len(data))
        await socket.send(STOP)
        assert await socket.ended() == 1000

    assert len(data) > 20_000_000
    assert share_of(f"{SPOKEN} {SPOKEN}", socket.text()) > 0.85
    first, second = socket.utterances[0], socket.utterances[len(socket.utterances) // 2]
    assert second["start"] == pytest.approx(first["start"] + 4.8 + 330, abs=0.05)
    assert server.file(socket.session_id)[44:] == data


async def test_a_text_frame_of_28_megabytes(server):
    """A whole buffer resent as one base64 frame is taken like any other chunk."""
    data = pcm(np.concatenate([silence(300), SPEECH, silence(360)]))
    frame = base64_chunk(data)
    heard = await transcribe(server, [frame])

    assert len(frame) > 28_000_000
    assert heard.acked == [(0, len(data))]
    assert share_of(SPOKEN, heard.text()) > 0.85


async def test_finals_do_not_depend_on_the_other_sessions(server):
    """A session beside eleven others, all at wire speed with partials, has the finals that it has alone."""
    voices = {
        name: pcm(wheel_recording(name)[: 9 * SAMPLE_RATE]) for name in ("beckett", "two_cities", "endgame_nagg_nell")
    }
    alone = {name: (await transcribe(server, pieces(data, 3200))).finals for name, data in voices.items()}

    names = list(voices) * 4
    together = await asyncio.gather(*(transcribe(server, pieces(voices[name], 3200)) for name in names))

    for name, heard in zip(names, together, strict=True):
        assert heard.finals == alone[name]
