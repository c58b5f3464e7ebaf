"""What REST routes ask of every request: who asks, for which session, and with what body.

Bodies are read and parsed here rather than by FastAPI, because the original service ignores the content type, limits
sizes by route and words its errors in its own way.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader
from pydantic import WithJsonSchema
from pydantic_core import from_json

from vivavoce.api.errors import BodyTooLarge, SlowBody
from vivavoce.errors import INVALID, InvalidConfig, UnknownSession
from vivavoce.model import SessionRecord
from vivavoce.reception.access import KEY_HEADER, Access, Caller
from vivavoce.reception.sessions import Sessions
from vivavoce.wire.bodies import ErrorBody

BODY_S = 30.0
"""How long a body may take; clients give up after ten seconds."""


def hub_of(request: Request) -> Sessions:
    """Give the hub that the application was made with."""
    hub: Sessions = request.app.state.hub
    return hub


_key = APIKeyHeader(name=KEY_HEADER, auto_error=False, description="Not needed while no key exists.")


async def caller_of(request: Request, key: Annotated[str | None, Depends(_key)]) -> Caller:
    """Give the caller and count the request; raises 401 and 429."""
    access: Access = request.app.state.access
    caller = await access.caller_of(key)
    await access.count_request(caller)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]


async def owner_of(caller: CallerOf) -> str:
    """Give the caller's identity."""
    return caller.owner


Hub = Annotated[Sessions, Depends(hub_of)]
Owner = Annotated[str, Depends(owner_of)]


SessionId = Annotated[str, WithJsonSchema({"type": "string", "format": "uuid"})]


async def own_session(session_id: SessionId, owner: Owner, hub: Hub) -> SessionRecord:
    """Give the session in the path; raises 404 for one that is not there or not the caller's."""
    return await find_session(hub, session_id, owner)


async def find_session(hub: Sessions, session_id: str, owner: str | None = None) -> SessionRecord:
    """Give a session of this owner, or of anybody; raises `UnknownSession` (404)."""
    record = await hub.store.session(session_id.lower()) if _is_uuid(session_id) else None
    if record is None or owner not in {None, record.owner}:
        raise UnknownSession("there is no live session with this id")
    return record


Session = Annotated[SessionRecord, Depends(own_session)]


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def documented_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document these refusals, and that everything else that may go wrong looks like them."""
    listed: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in statuses}
    return listed | {"default": {"model": ErrorBody, "description": "Any other failure"}}


def json_body(schema: Mapping[str, Any], **extra: Any) -> dict[str, Any]:
    """Document the body of a request that its route parses itself."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, **extra}}


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body; raises `BodyTooLarge` or `SlowBody` without reading on."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > limit:
                    raise BodyTooLarge(f"the body must not be larger than {limit} bytes")
    except TimeoutError:
        raise SlowBody(f"the body must not take longer than {BODY_S:g} s") from None
    return bytes(body)


def parse_json(raw: bytes, name: str = "body") -> Any:
    """Parse strict JSON of bounded depth, so that whatever it holds can be written out again."""
    try:
        value = from_json(raw, allow_inf_nan=False)
        json.dumps(value, allow_nan=False)  # 1e999 is well-formed, and infinite
    except ValueError:
        raise InvalidConfig(INVALID, [f"{name} must be valid JSON"]) from None
    return value
