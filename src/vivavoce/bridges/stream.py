"""The simple stream, `/audio/stream`: one socket, one configuration, audio in and text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vivavoce.bridges.carrying import WebBridge
from vivavoce.bridges.conversation import door
from vivavoce.wire.stream import NAMES, SimpleStream

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings


class SimpleStreamBridge(WebBridge):
    """Serves `/audio/stream`; the key comes in a header, the query or the first message."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        del settings
        self.sockets = {"/audio/stream": door(calls, "stream", SimpleStream, NAMES)}
