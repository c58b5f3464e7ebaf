"""The simple stream, pure: `config`, binary audio, `end_of_stream`; `transcript` and `error` come back.

The first frame is a `config` message with a key in it where the connection has none. Its fields become a v2 init
request of one channel. Then each binary frame is audio: samples, in frames of any length, or one packet of Opus or
pages of Ogg. After `end_of_stream` the finals that are still due come, and the connection is closed with 1000.

Times are seconds from the first audio byte, as in v2. `speaker` is a number from 0, or null where nobody is known: in
partials, and without `diarization`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_core import PydanticCustomError

from vivavoce.errors import InvalidConfig, MalformedMessage
from vivavoce.model import LANGUAGES
from vivavoce.wire.fields import AUTO, Fields, Text, Whole, checked, plain_language
from vivavoce.wire.opening import (
    Audio,
    Complaint,
    Compression,
    End,
    Incoming,
    Opening,
    Refusal,
    config_of,
    flags,
    json_object,
    refusal_of,
    spoken,
    written,
)

NAMES = {"language_config.languages": "language", "realtime_processing.diarization": "diarization"}
"""What this protocol calls fields of v2 that an installation may not be able to honour."""

MAX_CALL_ID_CHARS = 500

_ENCODINGS = {"pcm_s16le": "wav/pcm", "mulaw": "wav/ulaw", "alaw": "wav/alaw", "opus": "wav/pcm"}
_COMPRESSIONS: dict[str, Compression] = {"opus": "opus"}
_KEYS = ("x_gladia_key", "api_key", "x-gladia-key")
_CONFIG = 'a config message, such as {"type": "config", "sample_rate": 16000}'


def _language(value: str) -> str:
    """Give the code without a region: `en-US` is English."""
    code = plain_language(value)
    if code != AUTO and code not in LANGUAGES:
        listed = ", ".join([AUTO, *sorted(LANGUAGES)])
        raise PydanticCustomError("problem", "must be one of the following values: {listed}", {"listed": listed})
    return code


class StreamConfig(Fields):
    """The first message; every field but `type` may be left out."""

    type: Literal["config"]
    language: Annotated[str, AfterValidator(_language)] = AUTO
    sample_rate: Whole = Field(default=16_000, ge=8_000, le=48_000)
    encoding: Literal["pcm_s16le", "mulaw", "alaw", "opus"] = "pcm_s16le"
    diarization: bool = False
    enable_partials: bool = False
    call_id: Annotated[Text, Field(max_length=MAX_CALL_ID_CHARS)] | None = None
    key: Text | None = Field(default=None, validation_alias=AliasChoices(*_KEYS))


class SimpleStream:
    """One connection; see `Dialect` for what each method promises."""

    key_place = "in the header x-gladia-key, in the first message as api_key, or in the query as token"

    def __init__(self) -> None:
        self._ended = False

    def open(self, frame: str | bytes) -> Opening | Refusal:
        """Read the `config` message."""
        config = config_of(frame, _CONFIG)
        if isinstance(config, Refusal):
            return config
        if config.get("type") == "end_of_stream":
            return Refusal("config_expected", f"the first frame must be {_CONFIG}")
        first, *others = [name for name in _KEYS if config.get(name) is not None] or [""]
        for name in others:
            if config.pop(name) != config[first]:
                return Refusal("bad_config", f"{first} and {name} must be the same key; one of them is enough")
        try:
            asked = checked(StreamConfig, config)
        except InvalidConfig as error:
            return refusal_of(error, NAMES)
        return Opening(key=asked.key, request=_request(asked), compression=_COMPRESSIONS.get(asked.encoding))

    def greet(self, session_id: str) -> list[str]:
        """Say nothing: this protocol has no greeting."""
        del session_id
        return []

    def receive(self, frame: str | bytes) -> Incoming:
        """Read audio or `end_of_stream`."""
        if self._ended:
            return Complaint("after_end", "nothing may follow end_of_stream; it was left out")
        if isinstance(frame, bytes):
            return Audio(frame)
        message = json_object(frame)
        if isinstance(message, Complaint):
            return message
        match message.get("type"):
            case "end_of_stream":
                self._ended = True
                return End()
            case "config":
                return Complaint("config_repeated", "the configuration cannot be changed; open another connection")
            case _:
                reason = "unknown type of message: send binary frames with audio, or end_of_stream"
                return Complaint(MalformedMessage.code, reason)

    def took(self, size: int, at_s: float) -> None:
        """Take no note: nothing here depends on it."""

    def render(self, message: str, at_s: float) -> list[str]:
        """Give transcripts and errors; this protocol has no word for anything else."""
        del at_s
        said = spoken(message)
        match said["type"]:
            case "transcript":
                return [written(_transcript(said["data"]))]
            case "error":
                return [self.error(said["data"]["code"], said["data"]["message"])]
            case _:
                return []

    def error(self, code: str, message: str) -> str:
        """Give an `error` message."""
        return written({"type": "error", "code": code, "message": message})


def _request(asked: StreamConfig) -> dict[str, Any]:
    request: dict[str, Any] = {
        "encoding": _ENCODINGS[asked.encoding],
        "bit_depth": 16,
        "sample_rate": asked.sample_rate,
        "channels": 1,
        "language_config": {"languages": [] if asked.language == AUTO else [asked.language]},
        "messages_config": flags(partials=asked.enable_partials),
    }
    if asked.diarization:
        request["realtime_processing"] = {"diarization": True}
    if asked.call_id is not None:
        request["custom_metadata"] = {"call_id": asked.call_id}
    return request


def _transcript(data: dict[str, Any]) -> dict[str, Any]:
    utterance = data["utterance"]
    return {
        "type": "transcript",
        "text": utterance["text"].strip(),
        "is_final": data["is_final"],
        "start_time": utterance["start"],
        "end_time": utterance["end"],
        "speaker": utterance.get("speaker"),
    }
