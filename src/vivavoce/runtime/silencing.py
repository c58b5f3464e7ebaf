"""Silences in the stored audio what redaction hid and what nobody has read, in place, so that no copy of it is left.

Redaction knows what it hid of a final. Speech of which there is no final was never looked at: its clip could not be
decoded, or the engine made no words of it. Where a session failed, that may be anything, so only what finals cover
stays. All of it is told from what is stored, by whichever process ends the session.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import stamina
import structlog

from vivavoce.errors import StoreError
from vivavoce.events import Event, Final, TranscriptExamined, UtteranceExamined, speech_of
from vivavoce.model import SAMPLE_RATE, AudioFormat, Entity, Feature, Finding, SessionOptions, Utterance
from vivavoce.plugins import AudioFiles, Store
from vivavoce.speech.channel import PREROLL, utterance_name
from vivavoce.speech.endpoint import TAIL

log = structlog.get_logger()

HIDDEN = "HIDDEN"
"""The kind of entity that says where something is hidden, and not what."""

PIECE_S = 1.0
_REDACT_AUDIO = "redact_audio"

TRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.5, 30.0
"""How often a session's audio is tried to be silenced before that is left to the next process: for about a minute."""

_BEFORE_S, _AFTER_S = PREROLL / SAMPLE_RATE, 2 * TAIL / SAMPLE_RATE
"""What is silenced around speech that was not read: at least what its clip has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of one channel, in seconds of the session's audio."""

    channel: int
    start: float
    end: float


def findings_in(event: Event) -> tuple[Finding, ...]:
    """Give what is stored of an event as findings; of what is hidden, the times and no text."""
    match event:
        case UtteranceExamined() | TranscriptExamined():
            return (event.finding,)
        case Final(utterance=utterance, hidden=hidden) if hidden:
            found = tuple(Entity(kind=HIDDEN, text="", start=start, end=end, first=0, stop=0) for start, end in hidden)
            return (Finding(feature=Feature.PII_REDACTION, utterance_id=utterance.id, found=found),)
        case _:
            return ()


def hidden_spans(finals: Iterable[Utterance], findings: Iterable[Finding]) -> list[Span]:
    """Give what the finals of a session hide of its audio."""
    channels = {final.id: final.channel for final in finals}
    spans = []
    for finding in findings:
        if finding.feature is not Feature.PII_REDACTION or not isinstance(finding.found, tuple):
            continue
        channel = channels[finding.utterance_id]
        spans += [Span(channel=channel, start=entity.start, end=entity.end) for entity in finding.found]
    return spans


def unread_spans(keys: Iterable[str], finals: Sequence[Utterance]) -> list[Span]:
    """Give the speech that the stored messages' `keys` tell of and no final does; nothing of it lies in a final."""
    told = {final.id for final in finals}
    begun: dict[int, float] = {}
    spans = []
    for is_start, channel, at_s in filter(None, map(speech_of, keys)):
        if is_start:
            begun[channel] = at_s
        elif channel in begun:
            start = begun.pop(channel)
            if utterance_name(channel, round(start * SAMPLE_RATE)) not in told:
                spans.append(Span(channel=channel, start=max(start - _BEFORE_S, 0.0), end=at_s + _AFTER_S))
    return [part for span in spans for part in _without(span, finals)]


def uncovered_spans(channels: int, audio_s: float, finals: Sequence[Utterance]) -> list[Span]:
    """Give all that no final covers of a session's audio."""
    whole = [Span(channel=channel, start=0.0, end=audio_s) for channel in range(channels)]
    return [part for span in whole for part in _without(span, finals)]


def _without(span: Span, finals: Iterable[Utterance]) -> list[Span]:
    """Give the parts of a span between the finals of its channel."""
    parts, at = [], span.start
    for final in sorted(finals, key=lambda final: final.start):
        if final.channel == span.channel and final.end > at and final.start < span.end:
            parts.append(replace(span, start=at, end=final.start))
            at = final.end
    parts.append(replace(span, start=at))
    return [part for part in parts if part.start < part.end]


def asks_for_silence(options: SessionOptions) -> bool:
    """Tell whether a session wants its stored audio redacted."""
    return bool(options.features.get(Feature.PII_REDACTION, {}).get(_REDACT_AUDIO))


def names_silence(request: Mapping[str, Any]) -> bool:
    """Tell whether a stored request that cannot be read asks for that, as far as can be told."""
    return f'"{_REDACT_AUDIO}": true' in json.dumps(request, default=str)


async def silence_session(
    store: Store, files: AudioFiles, session_id: str, options: SessionOptions, *, failed: bool
) -> bool:
    """Silence all that is to be silenced of a session's audio; False where that cannot be done, tried several times.

    Nothing may be added to what is stored of the session meanwhile. `failed` says whether it was not heard to its end.
    """
    attempts = 0
    try:
        async for attempt in _tries():
            attempts += 1
            with attempt:
                await _silence_once(store, files, session_id, options, failed=failed)
    except StoreError as error:
        log.error("audio is not silenced: the next process tries again", session=session_id, error=str(error))
        return False
    if attempts > 1:
        log.info("audio is silenced", session=session_id, attempts=attempts)
    return True


def _tries() -> AsyncIterator[stamina.Attempt]:
    return aiter(
        stamina.retry_context(
            on=StoreError, attempts=TRIES, timeout=None, wait_initial=FIRST_PAUSE_S, wait_max=LONGEST_PAUSE_S
        )
    )


async def _silence_once(
    store: Store, files: AudioFiles, session_id: str, options: SessionOptions, *, failed: bool
) -> None:
    try:
        record, finals = await store.session(session_id), await store.finals(session_id)
        if record is None:
            return
        spans = hidden_spans(finals, await store.findings(session_id))
        audio, start = options.audio, record.audio_start
        if failed:
            size = await asyncio.to_thread(files.size, session_id)
            spans += uncovered_spans(audio.channels, audio.duration_s(max(size - start, 0)), finals)
        else:
            spans += unread_spans([message.key for message in await store.messages(session_id)], finals)
        await asyncio.to_thread(silence, files, session_id, audio, start, spans)
    except StoreError as error:
        log.error("audio could not be silenced", session=session_id, error=str(error))
        raise


def silence(files: AudioFiles, session_id: str, audio: AudioFormat, audio_start: int, spans: Iterable[Span]) -> None:
    """Write silence over each span of a session's file, the other channels untouched; blocks. Doing it twice is fine.

    `audio_start` is the length of the header before the audio, in bytes. Raises `StoreError`.
    """
    silent = np.frombuffer(audio.silent_sample, np.uint8)
    piece = round(PIECE_S * audio.sample_rate)
    for span in spans:
        stop = math.ceil(span.end * audio.sample_rate)
        for first in range(max(math.floor(span.start * audio.sample_rate), 0), stop, piece):
            at = audio_start + first * audio.frame_bytes
            stored = files.read(session_id, at, (min(first + piece, stop) - first) * audio.frame_bytes)
            whole = len(stored) // audio.frame_bytes * audio.frame_bytes
            if not whole:
                break
            frames = np.frombuffer(stored[:whole], np.uint8).reshape(-1, audio.channels, audio.sample_bytes).copy()
            frames[:, span.channel] = silent
            files.overwrite(session_id, at, frames.tobytes())
