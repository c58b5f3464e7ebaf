"""The web application: REST routes, the live socket, and what surrounds them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from vivavoce import __version__
from vivavoce.api.access import AccessMiddleware
from vivavoce.api.errors import ErrorBoundary, on_error
from vivavoce.api.operate import Observe
from vivavoce.api.operate import router as operate_router
from vivavoce.api.rest import request_schemas, router
from vivavoce.api.socket import live_socket
from vivavoce.api.watch import router as watch_router
from vivavoce.api.watch import watch_socket
from vivavoce.errors import VivavoceError
from vivavoce.reception.access import Access

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vivavoce.config import Settings
    from vivavoce.reception.sessions import Sessions

DESCRIPTION = (
    "Create a session with `POST /v2/live`, connect to the URL in the answer, send audio as binary frames, and read "
    "transcripts as JSON messages. The API is that of Gladia's v2 live service."
)


class _Api(FastAPI):
    """FastAPI whose OpenAPI document also holds the bodies that the routes parse themselves."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"].update(request_schemas())
        return document


def create_app(hub: Sessions, settings: Settings) -> FastAPI:
    """Make the application around a hub; the caller opens the hub before and closes it after serving.

    Routes and the socket find `hub`, `settings` and `access` on `app.state`. The server in front must not interpret
    forwarded headers itself, nor log the query of the socket's URL, which holds the token.
    """
    app = _Api(
        title="vivavoce",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    access = Access(hub.store, settings)
    app.state.hub, app.state.settings, app.state.access = hub, settings, access
    for kind in (VivavoceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, on_error)
    app.include_router(router)
    app.include_router(operate_router)
    app.include_router(watch_router)
    app.add_api_websocket_route("/v2/live", live_socket)
    app.add_api_websocket_route("/v2/live/{session_id}/events", watch_socket)
    app.add_api_route("/docs", lambda: HTMLResponse(docs_page(app.openapi())), include_in_schema=False)
    # The one added last is the outermost.
    app.add_middleware(ErrorBoundary)
    app.add_middleware(AccessMiddleware, access=access)
    app.add_middleware(Observe)
    return app


def docs_page(document: dict[str, Any]) -> str:
    """Give an OpenAPI document as a web page that needs neither scripts nor a network."""
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        description=escape(info["description"]),
        operations="\n".join(operations),
        schemas="\n".join(schemas),
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} {version}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
code {{ font-family: ui-monospace, monospace; }}
table {{ border-collapse: collapse; margin: .5rem 0 1rem; }}
td, th {{ border: 1px solid #8886; padding: .2rem .6rem; text-align: left; vertical-align: top; }}
h3 {{ margin-top: 2rem; }}
</style>
<h1>{title} {version}</h1>
<p>{description}</p>
<p>For programs: <a href="/openapi.json">/openapi.json</a></p>
<h2>Operations</h2>
{operations}
<h2>Objects</h2>
{schemas}
</html>
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<h3><code>{method.upper()} {escape(path)}</code></h3>",
        f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>",
    ]
    if parameters := operation.get("parameters"):
        rows = [
            (item["name"], f"{_type(item.get('schema', {}))}, {item['in']}", item.get("description", ""))
            for item in parameters
        ]
        parts.append(_table(("parameter", "type", ""), rows))
    if "requestBody" in operation:
        parts.append(f"<p>Body: {_content(operation['requestBody'])}</p>")
    answers = [(status, _content(answer), answer["description"]) for status, answer in operation["responses"].items()]
    parts.append(_table(("answer", "body", ""), answers))
    return "\n".join(parts)


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = [
        (field, _type(part), " ".join(filter(None, [part.get("description", ""), _default(part)])))
        for field, part in schema.get("properties", {}).items()
    ]
    heading = f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>'
    return f"{heading}\n<p>{escape(schema.get('description', ''))}</p>\n{_table(('field', 'type', ''), rows)}"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default is None or isinstance(default, dict) else f"Default: {default!r}."


def _type(schema: dict[str, Any]) -> str:
    """Name a schema's type in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "items" in schema:
        return f"array of {_type(schema['items'])}"
    if 0 < len(schema.get("enum", ())) <= 8:  # noqa: PLR2004 - longer ones would fill the page
        return " | ".join(str(value) for value in schema["enum"])
    return str(schema.get("format") or schema.get("const") or schema.get("type") or "any")


def _content(part: dict[str, Any]) -> str:
    return ", ".join(_type(body.get("schema", {"type": kind})) for kind, body in part.get("content", {}).items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
