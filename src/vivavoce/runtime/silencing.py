"""Silences what redaction hid in the stored audio, in place, so that no copy of it is left."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vivavoce.events import Event, Final, TranscriptExamined, UtteranceExamined
from vivavoce.model import AudioFormat, Entity, Feature, Finding, Utterance
from vivavoce.plugins import AudioFiles

HIDDEN = "HIDDEN"
"""The kind of entity that says where something is hidden, and not what."""

PIECE_S = 1.0


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
