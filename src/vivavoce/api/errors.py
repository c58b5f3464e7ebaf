"""How failures look over HTTP: one table from error codes to statuses, one body for all of them.

Every response carries an `x-request-id`; an error's body repeats it, so that a client's report finds its log line.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vivavoce.errors import INVALID, CapacityError, RequestError, VivavoceError
from vivavoce.model import now
from vivavoce.wire.result import timestamp

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

REQUEST_ID = "x-request-id"

STATUSES = {
    "bad_request": HTTPStatus.BAD_REQUEST,
    "invalid_config": HTTPStatus.BAD_REQUEST,
    "malformed_message": HTTPStatus.BAD_REQUEST,
    "invalid_audio_format": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "not_allowed": HTTPStatus.FORBIDDEN,
    "unknown_session": HTTPStatus.NOT_FOUND,
    "body_too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported": HTTPStatus.UNPROCESSABLE_ENTITY,
    "slow_body": HTTPStatus.REQUEST_TIMEOUT,
    "capacity": HTTPStatus.TOO_MANY_REQUESTS,
    "rate": HTTPStatus.TOO_MANY_REQUESTS,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "plugin_error": HTTPStatus.SERVICE_UNAVAILABLE,
    "engine_error": HTTPStatus.SERVICE_UNAVAILABLE,
    "store_error": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The HTTP status of each `VivavoceError` code; one that is missing here is our own fault, a 500."""


class BodyTooLarge(RequestError):
    """A request body beyond its limit."""

    code = "body_too_large"


class SlowBody(RequestError):
    """A request body that does not come to its end in time."""

    code = "slow_body"


def request_id(scope: Scope) -> str:
    """Give the request's id, the same on every call."""
    state = scope.setdefault("state", {})
    given: str = state.setdefault("request_id", f"G-{secrets.token_hex(4)}")
    return given


def error_response(scope: Scope, error: Exception) -> JSONResponse:
    """Give the response for any exception; what is not the caller's fault is logged, and shown without details."""
    status, message, problems = _described(scope, error)
    body = {
        "timestamp": timestamp(now()),
        "path": scope["path"],
        "request_id": request_id(scope),
        "statusCode": int(status),
        "message": message,
    }
    if status == HTTPStatus.BAD_REQUEST and problems:
        body["validation_errors"] = list(problems)
    headers = {REQUEST_ID: request_id(scope)}
    if isinstance(error, CapacityError):
        headers["retry-after"] = str(error.retry_after_s)
    return JSONResponse(body, status, headers=headers)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an exception that a route raised: `error_response` as Starlette calls it."""
    return error_response(request.scope, error)


class ErrorBoundary:
    """ASGI middleware that numbers requests, and answers what escapes the routes with a bare internal error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_numbered(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).setdefault(REQUEST_ID, request_id(scope))
            await send(message)

        try:
            await self.app(scope, receive, send_numbered)
        except ClientDisconnect:
            log.info("client left during its request", method=scope["method"], path=scope["path"])
        except Exception as error:
            if started:
                # Too late for an error body: the server cuts the connection, which shows the client that it is short.
                raise
            await error_response(scope, error)(scope, receive, send_numbered)


def _described(scope: Scope, error: Exception) -> tuple[HTTPStatus, str, Sequence[str]]:
    """Give an exception's status, message and the list of wrong fields."""
    match error:
        case HTTPException(status_code=HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED):
            # The real service has no 405, and names the method in its 404.
            return HTTPStatus.NOT_FOUND, f"Cannot {scope['method']} {scope['path']}", ()
        case HTTPException():
            return HTTPStatus(error.status_code), str(error.detail), ()
        case RequestValidationError():
            return HTTPStatus.BAD_REQUEST, INVALID, [_problem(detail) for detail in error.errors()]
        case CapacityError() | RequestError() if error.code in STATUSES:
            return STATUSES[error.code], str(error), getattr(error, "problems", ())
        case VivavoceError() if error.code in STATUSES:
            # Without its traceback: a database's own error may quote the rows it was given.
            cause = type(error.__cause__).__name__
            log.error("request failed", code=error.code, reason=str(error), cause=cause, request_id=request_id(scope))
            return STATUSES[error.code], "Temporarily unavailable", ()
        case _:
            # Formatted here, since log renderers like to add the locals of each frame, and those may hold transcripts.
            trace = "".join(traceback.format_exception(error))
            log.error("internal error", request_id=request_id(scope), path=scope["path"], exception=trace)
            return HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error", ()


def _problem(detail: dict[str, object]) -> str:
    """Write one of FastAPI's findings as `field must …`, the form in which the SDKs find the field's name."""
    location = detail["loc"]
    assert isinstance(location, tuple)
    path = ".".join(str(part) for part in location[1:])
    demand = str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{path} {demand}"
