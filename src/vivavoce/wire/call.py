"""From the parameters of a telephone call to an init request; pure.

Telephony has no place for JSON, only for flat names and values: TwiML's `<Parameter>`, a dialplan's variables, a query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from vivavoce.errors import INVALID, InvalidConfig, renamed
from vivavoce.wire.fields import AUTO, checked, plain_language
from vivavoce.wire.schema import InitRequest

PARAMETERS = {
    "language": "spoken languages, such as en or en,nl; or auto",
    "endpointing": "silence that closes an utterance, in seconds",
    "model": "name of the model",
    "custom_vocabulary": "words and names to listen for, with commas between them",
    "metadata": "a JSON object to keep with the session; metadata.NAME for a single entry",
    "callback_url": "where messages are posted; needs --bridge-callbacks",
}
"""What a call may ask of its session, and how it is written; anything else is ignored."""

NAMES = {
    "language_config.languages": "language",
    "realtime_processing.custom_vocabulary_config.vocabulary": "custom_vocabulary",
    "realtime_processing.custom_vocabulary": "custom_vocabulary",
    "custom_metadata": "metadata",
    "callback_config.url": "callback_url",
}
"""The parameters that stand for fields of v2, by the fields' names."""

_METADATA = "metadata."


def request_of(
    parameters: Mapping[str, str], *, encoding: str, sample_rate: int, channels: int = 1, metadata: Mapping[str, str]
) -> dict[str, Any]:
    """Give an init request, as the body of `POST /v2/live`, with the call's own `metadata` over what it asks to keep.

    Raises `InvalidConfig` for a parameter that cannot be read, or whose value no session can have.
    """
    request: dict[str, Any] = {
        "encoding": encoding,
        "sample_rate": sample_rate,
        "channels": channels,
        "custom_metadata": {**_kept(parameters), **metadata},
        # Nobody on the line reads them.
        "messages_config": {"receive_acknowledgments": False},
    }
    languages = [plain_language(tag) for tag in _listed(parameters.get("language", ""))]
    if languages and AUTO not in languages:
        request["language_config"] = {"languages": languages}
    if endpointing := parameters.get("endpointing"):
        request["endpointing"] = _number("endpointing", endpointing)
    if model := parameters.get("model"):
        request["model"] = model
    if words := _listed(parameters.get("custom_vocabulary", "")):
        request["realtime_processing"] = {
            "custom_vocabulary": True,
            "custom_vocabulary_config": {"vocabulary": words},
        }
    if url := parameters.get("callback_url"):
        request |= {"callback": True, "callback_config": {"url": url}}
    try:
        checked(InitRequest, request)
    except InvalidConfig as error:
        raise InvalidConfig(INVALID, dict.fromkeys(renamed(problem, NAMES) for problem in error.problems)) from None
    return request


def _kept(parameters: Mapping[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if text := parameters.get("metadata"):
        try:
            kept = from_json(text)
        except ValueError:
            raise InvalidConfig(INVALID, ["metadata must be valid JSON"]) from None
        if not isinstance(kept, dict):
            raise InvalidConfig(INVALID, ["metadata must be a JSON object"])
    return kept | {
        name.removeprefix(_METADATA): value for name, value in parameters.items() if name.startswith(_METADATA)
    }


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidConfig(INVALID, [f"{name} must be a number"]) from None
