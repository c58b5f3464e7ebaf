"""JSON objects that clients send, whatever the protocol: how their values are read, and what is said of wrong ones.

A request is a class of `Fields`, and `checked` reads one:

* An explicit null is an absent field, at every level but inside `custom_metadata`.
* Types are strict: no "16" for 16, no true for 1. A float without a fraction passes for an integer, since JSON has one
  number type (JSON Schema counts 16.0 as an integer too) and an integer passes for a float. NaN and the infinities,
  which Python's own JSON reader lets through, do not pass, nor do lone surrogates, which could never be sent back.
* Names nobody knows are refused at every level. Gladia refuses them at the top only; below, a misspelt flag would
  silently do nothing. The exceptions are the names in `ignored`, which old and current clients do send.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    UrlConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from vivavoce.errors import INVALID, InvalidConfig
from vivavoce.model import LANGUAGES

AUTO = "auto"
"""What doors with a single text for languages call one that is found out."""

TRANSLATION_LANGUAGES = LANGUAGES | {"wo"}
"""Codes that the protocol knows as translation targets."""

MAX_METADATA_CHARS = 2000
MAX_METADATA_DEPTH = 64
"""Nesting beyond this would only serve to exhaust the stack of whoever writes the metadata out again."""

MAX_PROBLEMS = 100
"""Strings in one error; a body can hold any number of wrong list items."""

PROBLEM = "problem"
"""The type of errors whose messages are sayings of ours, beginning with "must"."""

TEXT_TAG, ENTRY_TAG = "<text>", "<entry>"
"""Tags of unions, which are no part of a field's path."""

_Object = TypeVar("_Object", bound="Fields")


def whole(value: Any) -> Any:
    """Give a float without a fraction as the integer that it stands for, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def plain_language(tag: str) -> str:
    """Give a language's code in lower case and without a region: `en-US` is `en`."""
    return tag.strip().lower().replace("_", "-").partition("-")[0]


def _unicode(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError(PROBLEM, "must be valid Unicode text") from None
    return value


def _legible(name: Any) -> Any:
    """Give a field's name without lone surrogates, at which pydantic would give up on the whole object."""
    return name.encode("utf-8", "replace").decode("utf-8") if isinstance(name, str) else name


def _among(values: frozenset[str]) -> Callable[[str], str]:
    """Give the check of a string out of `values`; a Literal of a hundred codes would need a hundred lines."""
    listed = ", ".join(sorted(values))

    def check(value: str) -> str:
        if value not in values:
            raise PydanticCustomError(PROBLEM, "must be one of the following values: {listed}", {"listed": listed})
        return value

    return check


_URL = TypeAdapter(Annotated[AnyUrl, UrlConstraints(allowed_schemes=["http", "https"], host_required=True)])


def _http_url(value: str) -> str:
    try:
        _URL.validate_python(_unicode(value))
    except ValidationError:
        raise PydanticCustomError(PROBLEM, "must be an http or https URL") from None
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [child for item in level for child in _children(item)]
    return depth


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except RecursionError:
        raise PydanticCustomError(PROBLEM, "must not be nested so deeply") from None
    except (ValueError, TypeError):
        raise PydanticCustomError(PROBLEM, "must hold plain JSON: finite numbers and valid Unicode") from None
    if len(text) > MAX_METADATA_CHARS:
        raise PydanticCustomError(
            PROBLEM, "must not be longer than {limit} characters as JSON", {"limit": MAX_METADATA_CHARS}
        )
    if _depth(value) > MAX_METADATA_DEPTH:
        raise PydanticCustomError(
            PROBLEM, "must not be nested deeper than {limit} levels", {"limit": MAX_METADATA_DEPTH}
        )
    return value


Whole = Annotated[int, BeforeValidator(whole)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(whole)]
NotNegative = Annotated[int, Field(ge=0), BeforeValidator(whole)]
Text = Annotated[str, AfterValidator(_unicode)]
Fraction = Annotated[float, Field(ge=0, le=1)]
HttpUrl = Annotated[str, AfterValidator(_http_url), Field(json_schema_extra={"format": "uri"})]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Language = Annotated[str, AfterValidator(_among(LANGUAGES)), Field(json_schema_extra={"enum": [*sorted(LANGUAGES)]})]
TranslationLanguage = Annotated[
    str,
    AfterValidator(_among(TRANSLATION_LANGUAGES)),
    Field(json_schema_extra={"enum": [*sorted(TRANSLATION_LANGUAGES)]}),
]


class Fields(BaseModel):
    """One object of a request; the module's head has the rules for its values."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    ignored: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_absent(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_legible(name): item for name, item in value.items() if item is not None and name not in cls.ignored}


def checked(model: type[_Object], body: object) -> _Object:
    """Read parsed JSON as an object of this kind; raises `InvalidConfig` with one string per wrong field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True, include_input=False)
        raise invalid([_problem(problem) for problem in problems[:MAX_PROBLEMS]]) from None


def invalid(problems: list[str]) -> InvalidConfig:
    """Make the error for a body with these problems."""
    unique = list(dict.fromkeys(problems))
    return InvalidConfig(INVALID, problems=unique)


_SAYINGS = {
    "bool_type": "must be a boolean value",
    "dict_type": "must be an object",
    "extra_forbidden": "must not be given: no such field",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be an integer number",
    "invalid_key": "must be named by a string",
    "list_type": "must be an array",
    "missing": "must be given",
    "model_type": "must be an object",
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode text",
    "union_tag_not_found": "must be a string or an object",
}


def _problem(error: ErrorDetails) -> str:
    """Say what is wrong in the form that clients look for: the field's path, then "must"."""
    parts = [_shown(part) for part in error["loc"] if part not in {TEXT_TAG, ENTRY_TAG, "[key]"}]
    return f"{'.'.join(parts) or 'body'} {_saying(error)}"


def _saying(error: ErrorDetails) -> str:  # noqa: PLR0911 - one return for each kind
    limits = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return f"must be one of the following values: {_listed(limits['expected'])}"
        case "greater_than_equal":
            return f"must not be less than {limits['ge']:g}"
        case "less_than_equal":
            return f"must not be greater than {limits['le']:g}"
        case "too_short":
            return f"must contain at least {limits['min_length']} item"
        case "string_too_long" | "too_long":
            return f"must not be longer than {limits['max_length']} characters"
        case "greater_than":
            return f"must be greater than {limits['gt']:g}"
        case "problem":
            return error["msg"]
        case other:
            return _SAYINGS.get(other, "must be valid")


def _listed(expected: str) -> str:
    """Turn pydantic's "'a', 'b' or 'c'" into "a, b, c"."""
    return expected.replace("'", "").replace(" or ", ", ")


def _shown(part: int | str) -> str:
    """Give a step of a path; names come from the caller, so they may be endless or impossible to send back."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(part)[:80]) or '""'
