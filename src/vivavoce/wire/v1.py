"""Gladia's V1 live protocol, pure: a configuration, `frames`, `terminate`; `connected`, `transcript` and `error` back.

Gladia has replaced it by v2 and its own Twilio sample still speaks it. The first frame is the configuration, which
names no type. It becomes a v2 init request by the rules of Gladia's migration page: milliseconds become seconds, an
English name of a language its code. What has no counterpart is taken and has no effect (`prosody`, `reinject_context`),
but for `transcription_hint`, whose words become a custom vocabulary. `model_type` decides whether partials are sent, as
it did.

Audio is base64 in `frames` or a binary frame, told apart frame by frame whatever `frames_format` says. `terminate` ends
it: the last final follows, and a close with 1000.

Of what a `transcript` carries, v2 lacks three things. `id` numbers the utterances from 0. `duration` is the audio taken
so far. `inference_time` is how long ago the audio at `time_end` arrived, the wait for the utterance's end included.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from functools import cache
from typing import Annotated, Any, Literal

from babel import Locale
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from vivavoce.errors import INVALID, InvalidConfig, MalformedMessage
from vivavoce.model import LANGUAGES, AudioFormat
from vivavoce.wire.fields import Fields, Text, Whole, checked
from vivavoce.wire.live import base64_bytes
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
from vivavoce.wire.result import number, request_id
from vivavoce.wire.schema import audio_format

NAMES = {"language_config.languages": "language"}
"""What this protocol calls a field of v2 that an installation may not be able to honour."""

MAX_HINT_CHARS = 600
"""V1 cuts a longer hint off here."""

_MAX_HINT_WORDS = 5
_MAX_KNOWN = 64
_MARK_S = 0.1
_MAX_MARKS = 4096

_ENCODINGS = {
    "wav": "wav/pcm",
    "wav/pcm": "wav/pcm",
    "wav/alaw": "wav/alaw",
    "wav/ulaw": "wav/ulaw",
}
_COMPRESSIONS: dict[str, Compression] = {"opus": "opus", "mp3": "mp3", "flac": "flac", "amr-nb": "amr"}
_DEPTHS = (8, 16, 24, 32)
_UNKNOWN_HERE = ("amb", "ogg/vorbis", "sphere")
_CONFIG = 'a configuration, such as {"encoding": "wav/pcm", "sample_rate": 16000}'

_OTHER_NAMES = {
    "bengali": "bn", "castilian": "es", "catalan; valencian": "ca", "farsi": "fa", "flemish": "nl", "haitian": "ht",
    "javanese": "jw", "letzeburgesch": "lb", "mandarin": "zh", "maori": "mi", "moldavian": "ro", "moldovan": "ro",
    "myanmar": "my", "nynorsk": "nn", "panjabi": "pa", "pushto": "ps", "sinhalese": "si", "valencian": "ca",
}  # fmt: skip
"""Names beside those of Unicode's locale data, which the original service knew too."""


@cache
def _language_names() -> dict[str, str]:
    """Give the codes of languages by their English names in lower case, and by themselves."""
    named = {name.lower(): code for code, name in Locale("en").languages.items() if code in LANGUAGES}
    return {**{code: code for code in LANGUAGES}, **named, **_OTHER_NAMES}


def _language(value: str) -> str:
    code = _language_names().get(value.strip().lower())
    if code is None:
        raise PydanticCustomError("problem", "must be the English name of a language, such as dutch, or its code")
    return code


def _encoding(value: str) -> str:
    name = value.strip().lower()
    if name in _ENCODINGS or name in _COMPRESSIONS:
        return name
    listed = ", ".join(each.upper() for each in [*_ENCODINGS, *_COMPRESSIONS])
    why = f"; this server cannot read {name.upper()}" if name in _UNKNOWN_HERE else ""
    raise PydanticCustomError("problem", "must be one of the following values: {listed}{why}",
                              {"listed": listed, "why": why})  # fmt: skip


def _depth(value: int) -> int:
    if value not in _DEPTHS:
        listed = ", ".join(map(str, _DEPTHS))
        raise PydanticCustomError("problem", "must be one of the following values: {listed}", {"listed": listed})
    return value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


class V1Config(Fields):
    """The first message; every field may be left out where no key is needed."""

    x_gladia_key: Text | None = None
    encoding: Annotated[str, AfterValidator(_encoding)] = "wav"
    bit_depth: Annotated[Whole, AfterValidator(_depth)] = 16
    sample_rate: Whole = Field(default=16_000, ge=8_000, le=48_000)
    language_behaviour: (
        Annotated[
            Literal["manual", "automatic single language", "automatic multiple languages"], BeforeValidator(_lower)
        ]
        | None
    ) = None
    language: Annotated[str, AfterValidator(_language)] | None = None
    transcription_hint: Text = ""
    endpointing: float = Field(default=300.0, ge=10, le=10_000)
    model_type: Text | None = None
    model: Text | None = None
    frames_format: Annotated[Literal["base64", "bytes"], BeforeValidator(_lower)] = "base64"
    prosody: bool | Text = False
    audio_enhancer: bool = False
    reinject_context: bool | Text = False
    word_timestamps: bool = False
    maximum_audio_duration: float = Field(default=30.0, gt=0)


class V1Live:
    """One connection; see `Dialect` for what each method promises."""

    key_place = "in the first message as x_gladia_key"

    def __init__(self) -> None:
        self._request_id = ""
        self._words = self._ended = False
        self._format = AudioFormat()
        self._taken = 0
        self._marks: deque[tuple[float, float]] = deque(maxlen=_MAX_MARKS)
        self._numbers: dict[str, int] = {}
        self._count = 0

    def open(self, frame: str | bytes) -> Opening | Refusal:
        """Read the configuration."""
        config = config_of(frame, _CONFIG)
        if isinstance(config, Refusal):
            return config
        if "frames" in config or "event" in config:
            return Refusal("config_expected", f"the first frame must be {_CONFIG}")
        try:
            asked = checked(V1Config, config)
            _require_language(asked)
        except InvalidConfig as error:
            return refusal_of(error, NAMES)
        compression = _COMPRESSIONS.get(asked.encoding)
        encoding = _ENCODINGS.get(asked.encoding, "wav/pcm")
        bits = 16 if compression is not None else asked.bit_depth
        self._words = asked.word_timestamps
        request = {"encoding": encoding, "bit_depth": bits, "sample_rate": asked.sample_rate, "channels": 1}
        self._format = audio_format(request)
        return Opening(key=asked.x_gladia_key, request={**request, **_options(asked)}, compression=compression)

    def greet(self, session_id: str) -> list[str]:
        """Tell the client how its session is called."""
        self._request_id = request_id(session_id)
        return [written({"event": "connected", "request_id": self._request_id})]

    def receive(self, frame: str | bytes) -> Incoming:
        """Read audio or `terminate`."""
        if self._ended:
            return Complaint("after_end", "nothing may follow terminate; it was left out")
        if isinstance(frame, bytes):
            return Audio(frame)
        message = json_object(frame)
        if isinstance(message, Complaint):
            return message
        if (frames := message.get("frames")) is not None:
            data = base64_bytes(frames) if isinstance(frames, str) else None
            return Audio(data) if data is not None else Complaint("bad_frames", "frames is not valid base64")
        if message.get("event") == "terminate":
            self._ended = True
            return End()
        return Complaint(MalformedMessage.code, 'unknown message: send {"frames": base64} or {"event": "terminate"}')

    def took(self, size: int, at_s: float) -> None:
        """Take note when which audio came."""
        self._taken += size
        until_s = self._format.duration_s(self._taken)
        if not self._marks or until_s >= self._marks[-1][0] + _MARK_S:
            self._marks.append((until_s, at_s))

    def render(self, message: str, at_s: float) -> list[str]:
        """Give transcripts and errors; this protocol has no word for anything else."""
        said = spoken(message)
        match said["type"]:
            case "transcript":
                return [written(self._transcript(said["data"], at_s))]
            case "error":
                return [self.error(said["data"]["code"], said["data"]["message"])]
            case _:
                return []

    def error(self, code: str, message: str) -> str:
        """Give an `error` event; the clients of old look for `error` in a message before anything else."""
        head = {"event": "error", "request_id": self._request_id}
        return written({**head, "code": code, "message": message, "error": message})

    def _transcript(self, data: dict[str, Any], at_s: float) -> dict[str, Any]:
        utterance = data["utterance"]
        said = {
            "transcription": utterance["text"].strip(),
            "language": utterance["language"],
            "time_begin": utterance["start"],
            "time_end": utterance["end"],
            "confidence": utterance["confidence"],
        }
        if self._words:
            said["words"] = [_word(word) for word in utterance["words"]]
        return {
            "event": "transcript",
            "request_id": self._request_id,
            "type": "final" if data["is_final"] else "partial",
            **said,
            "duration": number(self._format.duration_s(self._taken)),
            "inference_time": number(self._since(utterance["end"], at_s)),
            "utterances": [{"id": self._number(data), "stable": data["is_final"], **said}],
        }

    def _since(self, end: float, at_s: float) -> float:
        """Give how long ago the audio up to `end` had arrived."""
        if not self._marks:
            return 0.0
        i = bisect_left(self._marks, (end, 0.0))
        return max(0.0, at_s - self._marks[min(i, len(self._marks) - 1)][1])

    def _number(self, data: dict[str, Any]) -> int:
        """Give an utterance's number, the same for its partials and its final."""
        name = data["id"]
        if name not in self._numbers:
            self._numbers[name] = self._count
            self._count += 1
        found = self._numbers.pop(name) if data["is_final"] else self._numbers[name]
        while len(self._numbers) > _MAX_KNOWN:
            del self._numbers[next(iter(self._numbers))]
        return found


def _require_language(asked: V1Config) -> None:
    if asked.language_behaviour == "manual" and asked.language is None:
        raise InvalidConfig(INVALID, ["language must be given where language_behaviour is manual"])


def _options(asked: V1Config) -> dict[str, Any]:
    """Give what the configuration asks for beside the audio's format, as v2 names it."""
    automatic = (asked.language_behaviour or "manual") != "manual"
    live: dict[str, Any] = {}
    if hints := _hints(asked.transcription_hint):
        live = {"custom_vocabulary": True, "custom_vocabulary_config": {"vocabulary": hints}}
    return {
        "language_config": {
            "languages": [] if automatic or asked.language is None else [asked.language],
            "code_switching": asked.language_behaviour == "automatic multiple languages",
        },
        "endpointing": asked.endpointing / 1000,
        # V1 knows no bounds of its own here; 5 and 60 are those of v2.
        "maximum_duration_without_endpointing": min(max(asked.maximum_audio_duration, 5.0), 60.0),
        "pre_processing": {"audio_enhancer": asked.audio_enhancer},
        "realtime_processing": live,
        "messages_config": flags(partials=(asked.model_type or asked.model or "").lower() != "accurate"),
    }


def _hints(text: str) -> list[str]:
    """Give the entries of a hint, which stand between commas, semicolons or line ends; sentences are none."""
    parts = [part.strip() for part in re.split(r"[,;\n]", text[:MAX_HINT_CHARS])]
    return list(dict.fromkeys(part for part in parts if part and len(part.split()) <= _MAX_HINT_WORDS))


def _word(word: dict[str, Any]) -> dict[str, Any]:
    return {
        "word": word["word"].strip(),
        "time_begin": word["start"],
        "time_end": word["end"],
        "confidence": word["confidence"],
    }
