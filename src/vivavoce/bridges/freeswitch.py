"""FreeSWITCH's audio sockets: mod_audio_stream, mod_audio_fork and jambonz connect to `/bridges/freeswitch`.

Which channels, rate and options a call has stands in the URL's query or in its first text frame (see
`wire.freeswitch`). mod_audio_stream connects again by itself where its socket is lost, and repeats the first frame; a
call that says its own name goes on with its session. Nothing is ever sent to them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import structlog
from starlette.websockets import WebSocket  # the web framework reads the handlers' annotations

from vivavoce.bridges.call_socket import call_socket, key_of
from vivavoce.bridges.calls import Call
from vivavoce.bridges.carrying import WebBridge
from vivavoce.errors import NotAllowed
from vivavoce.wire.call import request_of
from vivavoce.wire.freeswitch import open_call

if TYPE_CHECKING:
    from vivavoce.bridges.calls import Calls
    from vivavoce.config import Settings
    from vivavoce.reception.access import Caller

log = structlog.get_logger()

NAME = "freeswitch"


class FreeSwitchBridge(WebBridge):
    """Serves `/bridges/freeswitch`, and the same with an API key behind it."""

    def __init__(self, calls: Calls, settings: Settings) -> None:
        self._calls, self._settings = calls, settings
        self.sockets = {
            "/bridges/freeswitch": self._serve,
            "/bridges/freeswitch/{key}": self._serve,
        }

    async def _serve(self, websocket: WebSocket) -> None:
        query = dict(websocket.query_params)
        async with call_socket(websocket, NAME, self._settings) as socket:
            caller = await self._admitted(websocket)
            await socket.accept()
            first = await socket.first()
            audio, text = (first, None) if isinstance(first, bytes) else (None, first)
            opening = open_call(query, text)
            if caller is None:
                if opening.key is None:
                    raise NotAllowed("this call needs an API key, or an address in --bridge-allow")
                caller = await self._calls.admit(websocket, key=opening.key)
            name = opening.call_id or secrets.token_hex(8)
            request = request_of(
                opening.parameters,
                encoding="wav/pcm",
                sample_rate=opening.sample_rate,
                channels=opening.channels,
                metadata={"call": opening.call_id} if opening.call_id else {},
            )
            if opening.left_out:
                log.warning("metadata left out", bridge=NAME, entries=opening.left_out)
            leg = await self._calls.answer(Call(bridge=NAME, id=name, caller=caller, request=request))
            how = await socket.carry(leg, lambda _: None, audio)
            log.info("call over", bridge=NAME, session=leg.session_id, how=how)

    async def _admitted(self, websocket: WebSocket) -> Caller | None:
        """Give whose call this is, or None where only a key in its first message can tell."""
        try:
            return await self._calls.admit(websocket, key=key_of(websocket))
        except NotAllowed:
            if key_of(websocket) is not None:
                raise
            return None
