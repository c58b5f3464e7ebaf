"""Gladia's V1 live API, `/audio/text/audio-transcription`, for clients that were written before v2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivavoce.bridges.carrying import WebBridge
from vivavoce.bridges.conversation import door
from vivavoce.wire.v1 import NAMES, V1Live

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings


class V1Bridge(WebBridge):
    """Serves the one address of V1; the key comes in the first message."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        del settings
        self.sockets = {"/audio/text/audio-transcription": door(calls, "v1", V1Live, NAMES)}
