"""What stands in front of every route: who may reach the server at all (see `reception.access`), and CORS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from vivavoce.api.errors import REQUEST_ID, error_response
from vivavoce.reception.access import KEY_HEADER, Access

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = structlog.get_logger()


class AccessMiddleware:
    """ASGI middleware that refuses what `Access.check_reach` refuses, and lets browsers read the rest (CORS)."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._access = access
        self._inner = _Cors(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"],
            allow_headers=[KEY_HEADER, "content-type", "last-event-id", "x-gladia-version"],
            expose_headers=[REQUEST_ID],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in {"http", "websocket"}:
            try:
                await self._access.check_reach(Headers(scope=scope))
            except Exception as error:  # noqa: BLE001 - the routes' own boundary lies further in
                await _refuse(scope, receive, send, error)
                return
        await self._inner(scope, receive, send)


class _Cors(CORSMiddleware):
    """Starlette's CORS with the preflight answer of the original service: 204, always; the browser decides."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        kept = {name: value for name, value in answer.headers.items() if name.startswith(("access-control", "vary"))}
        return Response(status_code=204, headers=kept)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
    """Answer with the error, or refuse a socket's handshake, which clients see as a 403."""
    if scope["type"] == "http":
        await error_response(scope, error)(scope, receive, send)
        return
    log.warning("socket refused", kind=type(error).__name__, reason=str(error))
    await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})
