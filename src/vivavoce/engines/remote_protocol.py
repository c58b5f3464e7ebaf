"""What a server and a recogniser in another process say to each other: the `Engine` protocol over a WebSocket.

The recogniser speaks first: a text frame with a `Greeting`. Then each request is one binary frame and its answer one
text frame. A request is a `Request` as JSON, its length before it as four little-endian bytes, and behind it the
samples of all its clips as little-endian float32, so that the recogniser hears, to the bit, what the server heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter, ValidationError

from vivavoce.errors import EngineError
from vivavoce.model import Clip, Hypothesis
from vivavoce.plugins import EngineInfo

VERSION = 1
MAX_REQUEST_BYTES = 64 << 20
"""A batch of sixteen clips of the longest utterance, a minute."""
MAX_ANSWER_BYTES = 4 << 20

_SIZE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What runs at the other end."""

    version: int
    info: EngineInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipHead:
    """A clip but for its samples, of which there are `size`."""

    key: str
    size: int
    final: bool
    languages: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Clips to transcribe, and keys that are not needed any more."""

    clips: tuple[ClipHead, ...] = ()
    release: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A hypothesis for each clip, or what went wrong."""

    hypotheses: tuple[Hypothesis, ...] = ()
    error: str | None = None


GREETING, ANSWER = TypeAdapter(Greeting), TypeAdapter(Answer)
_REQUEST = TypeAdapter(Request)


def pack(clips: Sequence[Clip], release: Sequence[str] = ()) -> bytes:
    """Write a request as one frame."""
    heads = tuple(
        ClipHead(key=clip.key, size=len(clip.samples), final=clip.final, languages=clip.languages, hints=clip.hints)
        for clip in clips
    )
    head = _REQUEST.dump_json(Request(clips=heads, release=tuple(release)))
    samples = [np.ascontiguousarray(clip.samples, "<f4").tobytes() for clip in clips]
    return b"".join([len(head).to_bytes(_SIZE_BYTES, "little"), head, *samples])


def unpack(frame: bytes) -> tuple[list[Clip], tuple[str, ...]]:
    """Read a request: its clips, and the keys to release; raises `EngineError` for a frame that is none."""
    stop = _SIZE_BYTES + int.from_bytes(frame[:_SIZE_BYTES], "little")
    try:
        request = _REQUEST.validate_json(frame[_SIZE_BYTES:stop])
        samples = np.frombuffer(frame, "<f4", offset=stop)
    except (ValidationError, ValueError):
        raise EngineError("this is no request to a recogniser") from None
    sizes = [head.size for head in request.clips]
    if min(sizes, default=0) < 0 or sum(sizes) != len(samples):
        raise EngineError("a request's samples are not what its head says")
    stops = np.cumsum(sizes)
    return [
        Clip(
            key=head.key,
            samples=samples[stop - head.size : stop].astype(np.float32),
            final=head.final,
            languages=head.languages,
            hints=head.hints,
        )
        for head, stop in zip(request.clips, stops, strict=True)
    ], request.release
