"""What operators ask: is the process alive, may it be sent new sessions, and what do its numbers say.

`/health/live` and `/health/ready` are open to all, since whoever asks them has no key, and tell nothing about anybody.
`/metrics` needs a key like every other route, so nothing without one while there is none: a peer on loopback proves
nothing behind a proxy of the same machine.
"""

import time
from http import HTTPStatus
from typing import Annotated, Any, Protocol

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vivavoce.api.errors import request_id
from vivavoce.api.requests import caller_of
from vivavoce.reception.access import KEY_HEADER
from vivavoce.runtime import metrics
from vivavoce.wire.bodies import ErrorBody

log = structlog.get_logger()

_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorBody, "description": "Any failure"}}

router = APIRouter(redirect_slashes=False)


class Operated(Protocol):
    """What these routes need of the hub."""

    async def obstacles(self) -> list[str]:
        """Say why no sessions should be sent here now; nothing where they may."""


@router.get("/health/live", summary="Tell that the process is alive", responses=_ERRORS)
@router.head("/health/live", include_in_schema=False)
async def live() -> dict[str, str]:
    """Give 200 while the process answers at all; where it does not, it should be restarted."""
    return {"health": "OK"}


@router.get(
    "/health/ready",
    summary="Tell whether sessions may be sent here",
    responses={503: {"description": "Not now, and why"}, **_ERRORS},
)
@router.head("/health/ready", include_in_schema=False)
async def ready(request: Request) -> JSONResponse:
    """Give 200 while the store answers, the disk has room and the server is not stopping; otherwise 503 and why."""
    hub: Operated = request.app.state.hub
    obstacles = await hub.obstacles()
    if obstacles:
        return JSONResponse({"health": "not ready", "reasons": obstacles}, HTTPStatus.SERVICE_UNAVAILABLE)
    return JSONResponse({"health": "OK"})


async def _may_read(request: Request) -> None:
    """Take the key from where Prometheus can put it, too."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    key = request.headers.get(KEY_HEADER) or (bearer.strip() if scheme.lower() == "bearer" else None)
    await caller_of(request, key)


@router.get(
    "/metrics",
    summary="Read the metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format"}, **_ERRORS},
)
async def read_metrics(_: Annotated[None, Depends(_may_read)]) -> Response:
    """Give all metrics of this process, for Prometheus; the key may also come as `Authorization: Bearer`."""
    return Response(await metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})


class Observe:
    """ASGI middleware that counts responses, and logs each request at level debug without its query."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.HTTP_RESPONSES.labels(str(message["status"])).inc()
                log.debug(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=message["status"],
                    seconds=round(time.perf_counter() - started, 4),
                    request_id=request_id(scope),
                )
            await send(message)

        await self._app(scope, receive, send_observed)
