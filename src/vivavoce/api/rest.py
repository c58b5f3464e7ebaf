"""The REST routes: sessions are created, listed, read, annotated and deleted; their audio is downloaded.

Who asks, for which session, and with what body is found out in `requests`.
"""
# ruff: noqa: FAST003 - `own_session` takes the path's session_id, which ruff does not see through an alias.

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from vivavoce import __version__
from vivavoce.api.requests import (
    CallerOf,
    Hub,
    Owner,
    Session,
    documented_errors,
    json_body,
    parse_json,
    read_body,
)
from vivavoce.config import Settings
from vivavoce.errors import INVALID, InvalidConfig, NotAllowed, UnknownSession
from vivavoce.model import DeliveryState, Lane, SessionRecord, Status
from vivavoce.plugins import AudioFiles
from vivavoce.reception.origin import public_origin
from vivavoce.reception.sessions import Sessions, create
from vivavoce.runtime.catalogue import Listed
from vivavoce.wire.bodies import (
    DeliveriesBody,
    InitResponse,
    ModelBody,
    ModelList,
    SessionBody,
    SessionList,
)
from vivavoce.wire.result import session_body, timestamp
from vivavoce.wire.schema import InitRequest, audio_format
from vivavoce.wire.wav import wav_header

MAX_INIT_BYTES = 1 << 20
MAX_PATCH_BYTES = 100 << 10
MAX_PAGE = 100
"""Sessions of one page; each comes with its whole result, so larger pages would weigh many megabytes."""
MAX_DEAD_LETTERS = 100
FILE_PIECE_BYTES = 256 << 10

REQUEST_REF = "#/components/schemas/{model}-Request"
"""Where the OpenAPI document keeps the objects of request bodies, apart from those of answers."""

_FINISHED = {Status.DONE, Status.ERROR}

_REGION = {
    "name": "region",
    "in": "query",
    "required": False,
    "description": "Accepted and ignored: there is one region, here.",
    "schema": {"type": "string"},
}

router = APIRouter(redirect_slashes=False)


@router.post(
    "/v2/live",
    status_code=201,
    summary="Create a session",
    responses={201: {"model": InitResponse}, **documented_errors(400, 401, 413, 422, 429, 503)},
    openapi_extra={"parameters": [_REGION], **json_body({"$ref": REQUEST_REF.format(model="InitRequest")})},
)
async def create_session(request: Request, caller: CallerOf, hub: Hub) -> JSONResponse:
    """Check the configuration, keep a session with it, and give the URL of its socket; no body means all defaults."""
    raw = await read_body(request, MAX_INIT_BYTES)
    settings: Settings = request.app.state.settings
    record, token = await create(hub, settings, caller, parse_json(raw) if raw else {})
    origin = public_origin(request, settings)
    url = f"ws{origin.removeprefix('http')}/v2/live?{urlencode({'token': token})}"
    return JSONResponse({"id": record.id, "created_at": timestamp(record.created_at), "url": url}, 201)


def _moment(value: object) -> object:
    """Read an ISO date or moment; one without a zone is in UTC."""
    if not isinstance(value, str):
        return value
    try:
        # In a query, the plus of a zone that was not percent-encoded has become a blank.
        moment = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a date such as 2026-11-03, or an ISO 8601 moment") from None


def _split(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [part for item in value for part in (item.split(",") if isinstance(item, str) else [item])]


Moment = Annotated[
    datetime | None,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]


class ListQuery(BaseModel):
    """Which sessions to list."""

    offset: int = Field(0, ge=0, description="Sessions to leave out, from the newest.")
    limit: int = Field(20, ge=1, description=f"Sessions of one page; never more than {MAX_PAGE} are given.")
    date: Moment = Field(None, description="Created on this day (UTC).")
    before_date: Moment = Field(None, description="Created before this day or moment.")
    after_date: Moment = Field(None, description="Created on this day or later, or at this moment or later.")
    status: Annotated[list[Status], BeforeValidator(_split)] = Field(
        [], description="In one of these states; repeated, or with commas."
    )
    custom_metadata: Annotated[str | None, WithJsonSchema({"type": "string"})] = Field(
        None,
        description="A JSON object that the session's own must contain; or, one by one, custom_metadata[key]=value.",
    )

    def period(self) -> tuple[datetime | None, datetime | None]:
        """Give the first moment that counts and the first that does not any more."""
        since, before = self.after_date, self.before_date
        if self.date is not None:
            day = self.date.replace(hour=0, minute=0, second=0, microsecond=0)
            since = max(since or day, day)
            if day.date() < date.max:
                after = day + timedelta(days=1)
                before = min(before or after, after)
        return since, before


@router.get(
    "/v2/live",
    summary="List sessions",
    responses={200: {"model": SessionList}, **documented_errors(400, 401)},
)
async def list_sessions(request: Request, owner: Owner, hub: Hub, query: Annotated[ListQuery, Query()]) -> JSONResponse:
    """Give the caller's sessions, the newest first."""
    limit = min(query.limit, MAX_PAGE)
    since, before = query.period()
    records = await hub.store.list_sessions(
        owner=owner,
        offset=query.offset,
        limit=limit + 1,
        statuses=query.status,
        since=since,
        before=before,
        custom_metadata=_wanted_metadata(request, query.custom_metadata),
    )
    more = len(records) > limit
    return JSONResponse(
        {
            "first": _page_url(request, 0, limit),
            "current": _page_url(request, query.offset, limit),
            "next": _page_url(request, query.offset + limit, limit) if more else None,
            "items": [await _body(hub, record) for record in records[:limit]],
        }
    )


def _wanted_metadata(request: Request, text: str | None) -> dict[str, Any]:
    """Join both spellings of the filter: one JSON object, and single keys in brackets."""
    wanted: dict[str, Any] = {}
    if text:
        wanted = parse_json(text.encode(), "custom_metadata")
        if not isinstance(wanted, dict):
            raise InvalidConfig(INVALID, ["custom_metadata must be a JSON object"])
    for name, value in request.query_params.multi_items():
        if name.startswith("custom_metadata[") and name.endswith("]"):
            wanted[name.removeprefix("custom_metadata[").removesuffix("]")] = value
    return wanted


def _page_url(request: Request, offset: int, limit: int) -> str:
    """Give the public URL of another page of the same list."""
    kept = [pair for pair in request.query_params.multi_items() if pair[0] not in {"offset", "limit"}]
    query = urlencode([*kept, ("offset", offset), ("limit", limit)], errors="replace")
    return f"{public_origin(request, request.app.state.settings)}/v2/live?{query}"


@router.get(
    "/v2/live/{session_id}",
    summary="Read a session",
    responses={200: {"model": SessionBody}, **documented_errors(401, 404)},
)
async def read_session(record: Session, hub: Hub) -> JSONResponse:
    """Give the session as it stands; its result once it is done."""
    return JSONResponse(await _body(hub, record))


async def _body(hub: Sessions, record: SessionRecord) -> dict[str, Any]:
    if record.status != Status.DONE:
        return session_body(record, [], [])
    store = hub.store
    kept = store.finals(record.id), store.messages(record.id), store.findings(record.id)
    return session_body(record, *await asyncio.gather(*kept))


@router.patch(
    "/v2/live/{session_id}",
    status_code=204,
    summary="Annotate a session",
    response_class=Response,
    responses=documented_errors(400, 401, 404, 413),
    openapi_extra=json_body({"type": "object"}, required=True),
)
async def annotate_session(request: Request, record: Session, hub: Hub) -> Response:
    """Keep a JSON object of at most 100 kB as the session's `post_session_metadata`, in place of an earlier one."""
    metadata = parse_json(await read_body(request, MAX_PATCH_BYTES))
    if not isinstance(metadata, dict):
        raise InvalidConfig(INVALID, ["body must be an object"])
    await hub.store.set_post_session_metadata(record.id, metadata)
    return Response(status_code=204)


@router.delete(
    "/v2/live/{session_id}",
    status_code=202,
    summary="Delete a session",
    response_class=Response,
    responses=documented_errors(401, 403, 404),
)
async def delete_session(record: Session, hub: Hub) -> Response:
    """Remove a finished session: result, messages and audio."""
    if _is_live(hub, record):
        raise NotAllowed("the session is not finished; only those that are done or in error can be deleted")
    # Audio first: where this fails in between, the session can still be found and deleted again.
    await asyncio.to_thread(hub.audio.delete, record.id)
    await hub.store.delete_session(record.id)
    return Response(status_code=202)


def _is_live(hub: Sessions, record: SessionRecord) -> bool:
    return record.status not in _FINISHED or hub.is_running(record.id)


@router.get(
    "/v2/live/{session_id}/file",
    summary="Download a session's audio",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "A WAV file"},
        **documented_errors(401, 404),
    },
)
@router.head("/v2/live/{session_id}/file", include_in_schema=False)
@router.get("/v2/live/{session_id}/audio", include_in_schema=False)
@router.head("/v2/live/{session_id}/audio", include_in_schema=False)
async def read_file(request: Request, record: Session, hub: Hub) -> Response:
    """Give all audio of a finished session as a WAV file, all channels, as it was sent."""
    if _is_live(hub, record):
        raise UnknownSession("the audio of this session is not ready: the session is not finished")
    sound = audio_format(record.request)
    stored = min(record.audio_bytes, await asyncio.to_thread(hub.audio.size, record.id))
    size = max(0, stored - record.audio_start) // sound.frame_bytes * sound.frame_bytes
    header = wav_header(sound, size)
    headers = {
        "content-length": str(len(header) + size),
        "content-disposition": f'attachment; filename="{record.id}.wav"',
    }
    if request.method == "HEAD":
        return Response(headers=headers, media_type="application/octet-stream")
    return StreamingResponse(
        _pieces(hub.audio, record, header, size), headers=headers, media_type="application/octet-stream"
    )


async def _pieces(audio: AudioFiles, record: SessionRecord, header: bytes, size: int) -> AsyncIterator[bytes]:
    """Give the file's bytes, read on a thread."""
    yield header
    at, stop = record.audio_start, record.audio_start + size
    while at < stop:
        piece = await asyncio.to_thread(audio.read, record.id, at, min(FILE_PIECE_BYTES, stop - at))
        if not piece:
            # The length is promised already, so only a cut connection can tell the client.
            raise UnknownSession("the session was deleted during its download")
        at += len(piece)
        yield piece


@router.get(
    "/v2/live/{session_id}/deliveries",
    summary="Tell how a session's callbacks and webhooks stand",
    responses={200: {"model": DeliveriesBody}, **documented_errors(401, 404)},
)
async def read_deliveries(record: Session, hub: Hub) -> DeliveriesBody:
    """Count what was posted, what waits and what was given up, and say why; not part of the original API."""
    report = await hub.store.delivery_report(record.id, MAX_DEAD_LETTERS)
    counts = {
        lane.value: {state.value: report.counts.get((lane, state), 0) for state in DeliveryState} for lane in Lane
    }
    letters = [
        {
            "id": letter.id,
            "lane": letter.lane.value,
            "event": letter.event,
            "created_at": timestamp(letter.created_at),
            "attempts": letter.attempts,
            "reason": letter.reason,
        }
        for letter in report.dead
    ]
    return DeliveriesBody.model_validate({**counts, "dead_letters": letters})


@router.get("/health", summary="Tell that the server is up", responses=documented_errors())
@router.head("/health", include_in_schema=False)
async def health() -> dict[str, str]:
    """Give `OK` and the version."""
    return {"health": "OK", "version": __version__}


@router.get(
    "/v1/models",
    summary="List the speech models",
    response_model_exclude_none=True,
    responses=documented_errors(),
)
async def models(hub: Hub) -> ModelList:
    """Give the models that an init request may name, and those that could be installed; not part of the original API.

    The first is the default, which every other name stands for.
    """
    await hub.ready()
    return ModelList(models=[_model_body(each) for each in await hub.models()])


def _model_body(model: Listed) -> ModelBody:
    return ModelBody(
        name=model.name,
        engine=model.engine,
        languages=sorted(model.languages) if model.languages is not None else None,
        features=list(model.features),
        loaded=model.loaded,
        default=model.default,
        installed=model.get is None,
        get=model.get,
    )


def request_schemas() -> dict[str, Any]:
    """Give the objects of request bodies for the OpenAPI document, by component name."""
    schema = InitRequest.model_json_schema(ref_template=REQUEST_REF)
    parts = {**schema.pop("$defs", {}), "InitRequest": schema}
    return {f"{name}-Request": part for name, part in parts.items()}
