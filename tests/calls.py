"""What calls leave behind on a server: their sessions, found by what the peer named them, and what was heard."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from live import Json, pieces, transcribe, until_status
from server import Server
from vivavoce.bench.words import errors, words

PATIENCE_S = 60.0


async def session_of(server: Server, name: str, value: str, status: str = "done") -> Json:
    """Wait for the one session whose metadata has this entry, and until it has this status."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = server.get("/v2/live", custom_metadata=json.dumps({name: value}))["items"]
            if found:
                break
            await asyncio.sleep(0.05)
    assert len(found) == 1
    return await until_status(server, found[0]["id"], status)


def heard_in(shown: Json, channel: int = 0) -> str:
    """Give what was said on one channel of a finished session."""
    said = shown["result"]["transcription"]["utterances"]
    return " ".join(utterance["text"] for utterance in said if utterance["channel"] == channel)


async def assert_heard_as_directly(server: Server, shown: Json, audio: bytes, **options: Any) -> None:
    """Check that a call's text differs from that of the same audio on the live socket by 3 words in 100 at most."""
    direct = await transcribe(server, pieces(audio, 3200), language_config={"languages": ["en"]}, **options)
    for channel in range(options.get("channels", 1)):
        given, heard = words(direct.text(channel)), words(heard_in(shown, channel))
        assert len(given) > 8
        assert errors(given, heard) <= 0.03 * len(given), (given, heard)
