"""FreeSWITCH's audio WebSockets (mod_audio_stream, mod_audio_fork and jambonz' listen), pure: how such a call opens.

All of them send 16 bit PCM, little-endian, in binary frames, one channel or two interleaved: the caller, then the
callee. None says in its protocol which rate and how many channels these are; that was said to FreeSWITCH, so it has to
be said here too, in the URL's query or in the metadata, a text frame that comes before the audio where there is any.
Without a word it is what both modules do by themselves: 8 kHz, one channel. jambonz, which uses mod_audio_fork,
writes `sampleRate` and `mixType` of its own accord.

Metadata is whatever the dialplan gives: the names below are read out of a JSON object, and the rest of it is kept with
the session, as is text that is no JSON. A query goes before metadata. Text frames that follow (`send_text`, and the
last words of `stop`) are not looked at, and nothing is sent back: both modules make events of what they are sent.

Published in the README of amigniter/mod_audio_stream, that of mod_audio_fork in drachtio/drachtio-freeswitch-modules,
and at docs.jambonz.org, Verbs / listen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from vivavoce.errors import INVALID, InvalidConfig
from vivavoce.wire.call import PARAMETERS

MAX_METADATA_CHARS = 65_536
"""Longer metadata refuses the call."""

MAX_KEPT_CHARS = 1_500
"""Of metadata as JSON, what is kept with the session; the whole of a session's is at most 2000 characters."""

DEFAULT_RATE = 8_000

_CALL_NAMES = ("call", "uuid", "call_id", "callId", "callid", "callSid", "callsid")
_RATE_NAMES = ("sample_rate", "sampleRate", "rate")
_MIX_NAMES = ("mix", "mix_type", "mixType", "channels")
_KEY_NAMES = frozenset({"api_key", "x_gladia_key", "token"})
"""What a key may be called in metadata, in any case and with hyphens too."""

_MIXES = {"mono": 1, "mixed": 1, "stereo": 2, "1": 1, "2": 2}
_RATES = {"8k": 8_000, "16k": 16_000, "24k": 24_000, "32k": 32_000, "48k": 48_000}
_OPTION_VALUES = (str, int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is known of a call once its first frame is there.

    `call_id` is empty where nobody names the call, which then cannot come back after a lost connection. `parameters`
    are those that `wire.call.request_of` reads. `left_out` entries of the metadata were too much to keep.
    """

    call_id: str
    sample_rate: int
    channels: int
    parameters: Mapping[str, str]
    key: str | None = field(default=None, repr=False)
    left_out: int = 0


def open_call(query: Mapping[str, str], metadata: str | None) -> Opening:
    """Read a URL's query and the first frame, where that is text; raises `InvalidConfig`."""
    said = _said(metadata)
    merged = {**said, **query}
    options = {name: merged[name] for name in PARAMETERS if name != "metadata" and name in merged}
    parameters = {name: _option(name, value) for name, value in options.items()}
    read_out = {*PARAMETERS, *_CALL_NAMES, *_RATE_NAMES, *_MIX_NAMES}
    inner = said.get("metadata")
    wanted = {name: value for name, value in said.items() if name not in read_out}
    wanted |= inner if isinstance(inner, dict) else {}
    keys = tuple(name for name in wanted if _is_key(name))
    key = _first(wanted, keys)
    kept = _that_fit({name: value for name, value in wanted.items() if name not in keys})
    if kept:
        parameters["metadata"] = json.dumps(kept, ensure_ascii=False)
    if "metadata" in query:
        parameters["metadata"] = query["metadata"]
    parameters |= {name: value for name, value in query.items() if name.startswith("metadata.")}
    return Opening(
        call_id=_first(merged, _CALL_NAMES) or "",
        sample_rate=_rate(_first(merged, _RATE_NAMES)),
        channels=_channels(_first(merged, _MIX_NAMES)),
        parameters=parameters,
        key=key,
        left_out=len(wanted) - len(keys) - len(kept),
    )


def _said(text: str | None) -> dict[str, Any]:
    """Give the metadata as an object."""
    if not text or not text.strip():
        return {}
    if len(text) > MAX_METADATA_CHARS:
        raise InvalidConfig(INVALID, [f"the metadata must be at most {MAX_METADATA_CHARS} characters"])
    try:
        said = from_json(text, allow_inf_nan=False)
    except ValueError:
        return {"text": text}
    return said if isinstance(said, dict) else {"text": text}


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Give the first of the named fields that says something, as text."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    return None


def _is_key(name: str) -> bool:
    return name.lower().replace("-", "_") in _KEY_NAMES


def _rate(text: str | None) -> int:
    if text is None:
        return DEFAULT_RATE
    if text.lower() in _RATES:
        return _RATES[text.lower()]
    if text.isascii() and text.isdigit():
        return int(text[:9])
    raise InvalidConfig(INVALID, ["sample_rate must be a number of Hz, or one of " + ", ".join(_RATES)])


def _channels(text: str | None) -> int:
    if text is None:
        return 1
    if text.lower() in _MIXES:
        return _MIXES[text.lower()]
    raise InvalidConfig(INVALID, ["mix must be mono, mixed or stereo"])


def _option(name: str, value: object) -> str:
    """Give an option as flat text; a list of texts has commas between them."""
    items = value if isinstance(value, list) else [value]
    if all(isinstance(item, _OPTION_VALUES) and not isinstance(item, bool) for item in items):
        return ",".join(str(item) for item in items)
    raise InvalidConfig(INVALID, [f"{name} must be a text or a number"])


def _that_fit(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Give the entries, in order, that can be kept together."""
    kept: dict[str, Any] = {}
    for name, value in entries.items():
        if len(json.dumps({**kept, name: value}, ensure_ascii=False)) <= MAX_KEPT_CHARS:
            kept[name] = value
    return kept
