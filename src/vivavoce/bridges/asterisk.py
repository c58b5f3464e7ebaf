"""Asterisk's WebSocket channels: `Dial(WebSocket/...)` and ARI's external media connect to `/bridges/asterisk`.

Session options come in the URL's query, which a dial string adds to with `v(...)`, and in channel variables that begin
with VIVAVOCE_, where Asterisk sends JSON. The driver ends its channel where its socket is lost and dials no second time
by itself; a dialplan that does gives the leg a name of its own with `call`. Digits and what else Asterisk tells are
counted and not kept: a text that cannot be read is no reason to end a caller's call.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog
from starlette.websockets import WebSocket  # the web framework reads the handlers' annotations

from vivavoce.bridges.call_socket import call_socket, key_of
from vivavoce.bridges.calls import Call
from vivavoce.bridges.carrying import WebBridge
from vivavoce.errors import MalformedMessage, UnsupportedAudio
from vivavoce.wire.asterisk import SUBPROTOCOL, Malformed, MediaStart, read_control
from vivavoce.wire.call import request_of

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings

log = structlog.get_logger()

NAME = "asterisk"


class AsteriskBridge(WebBridge):
    """Serves `/bridges/asterisk`, and the same with an API key behind it."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls, self._settings = calls, settings
        self.sockets = {
            "/bridges/asterisk": self._serve,
            "/bridges/asterisk/{key}": self._serve,
        }

    async def _serve(self, websocket: WebSocket) -> None:
        query = dict(websocket.query_params)
        async with call_socket(websocket, NAME, self._settings) as socket:
            caller = await self._calls.admit(websocket, key=key_of(websocket))
            await socket.accept(SUBPROTOCOL)
            start = _start(await socket.first())
            request = request_of(
                {**start.options, **query},
                encoding=f"wav/{start.audio.encoding}",
                sample_rate=start.audio.sample_rate,
                metadata={"channel_id": start.channel_id, "channel": start.channel},
            )
            name = query.get("call") or start.channel_id
            leg = await self._calls.answer(Call(bridge=NAME, id=name, caller=caller, request=request))
            told = Counter[str]()
            how = await socket.carry(leg, lambda text: told.update([type(read_control(text)).__name__.lower()]))
            log.info("call over", bridge=NAME, session=leg.session_id, how=how, **told)


def _start(frame: str | bytes) -> MediaStart:
    """Read the first frame; raises `RequestError` where it is not that of a call which a session can take."""
    if isinstance(frame, bytes):
        raise MalformedMessage("audio before MEDIA_START")
    match read_control(frame):
        case MediaStart() as start:
            return start
        case Malformed(reason=reason):
            raise UnsupportedAudio(reason)
        case _:
            raise MalformedMessage("another control message before MEDIA_START")
