"""The page about REST tells of every route and every option of a session, with its default and its range."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vivavoce.api.app import create_app
from vivavoce.config import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"
FEW = 8


@pytest.fixture(scope="module")
def document():
    return create_app(SimpleNamespace(store=None), Settings()).openapi()


def rows(text: str) -> dict[str, list[str]]:
    """Give the cells of tables whose first cell is code, by that."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]
    return {first.strip("`"): rest for first, *rest in cells if first.startswith("`")}


def test_every_route_is_told_with_its_answers_and_parameters(document):
    """No other routes are, for they would not be there."""
    page = PAGE.read_text(encoding="utf-8")
    promised = {route: cells for route, cells in rows(page).items() if re.match("[A-Z]+ /", route)}
    routes = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(promised) == set(routes)
    for route, operation in routes.items():
        answers = set(operation["responses"]) - {"default"}
        assert {status for status in answers if status not in promised[route][-1]} == set(), route
        names = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] != "path"}
        assert {name for name in names if f"`{name}`" not in page} == set(), route


def test_every_option_of_a_session_is_told_with_its_default_and_its_values(document):
    """By its path; a field that is gone may not stay on the page."""
    _, _, told = PAGE.read_text(encoding="utf-8").partition("## The init request")
    sections = re.findall(r"^### (.*?)$(.*?)(?=^### |\Z)", told, re.DOTALL | re.MULTILINE)
    promised = {
        (heading.strip("`") if heading.startswith("`") else "", field): cells
        for heading, text in sections
        for field, cells in rows(text).items()
    }
    found = dict(options(document["components"]["schemas"], "InitRequest-Request"))
    assert set(promised) == set(found)
    for place, (default, values) in found.items():
        assert promised[place][1] == default, place
        assert [value for value in values if value not in promised[place][0]] == [], place


def options(
    schemas: dict[str, Any], name: str, path: str = ""
) -> Iterator[tuple[tuple[str, str], tuple[str, list[str]]]]:
    """Give each field by its object and name: its default as the page writes it, and what must be said of values."""
    for field, schema in schemas[name]["properties"].items():
        parts = [schema, *schema.get("anyOf", [])]
        parts += [dict(each, inside="[]") for each in schema.get("items", {}).get("oneOf", [])]
        yield (path, field), (shown_default(field, schema, schemas[name]), shown_values(parts))
        for part in parts:
            if "$ref" in part:
                inner = ".".join(filter(None, [path, field])) + part.get("inside", "")
                yield from options(schemas, part["$ref"].rpartition("/")[2], inner)


def shown_default(field: str, schema: dict[str, Any], owner: dict[str, Any]) -> str:
    if field in owner.get("required", []):
        return "must be given"
    default = schema.get("default")
    if default is None:
        return "none"
    if isinstance(default, dict):
        return "that of its fields"
    whole = isinstance(default, float) and default.is_integer()
    return f"`{json.dumps(int(default) if whole else default)}`"


def shown_values(parts: list[dict[str, Any]]) -> list[str]:
    ranges = [f"{part['minimum']:g} to {part['maximum']:g}" for part in parts if "maximum" in part]
    return ranges + [
        f"`{value}`" for part in parts if len(part.get("enum", ())) <= FEW for value in part.get("enum", ())
    ]
