"""What add-ons do for one session, and how their failures are told."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vivavoce.model import Feature, Mend, Utterance
from vivavoce.plugins import TextRule, TranscriptAddon, UtteranceAddon

RULES = (Feature.CUSTOM_VOCABULARY, Feature.CUSTOM_SPELLING, Feature.PII_REDACTION)
"""The features that rewrite texts, in the order in which they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What add-ons do for one session; those that look at utterances by feature and target language."""

    rules: Mapping[Feature, TextRule] = field(default_factory=dict)
    hints: tuple[str, ...] = ()
    mend: Mend | None = None
    hides: Callable[[Utterance], Sequence[tuple[float, float]]] | None = None
    lookers: Mapping[tuple[Feature, str], UtteranceAddon] = field(default_factory=dict)
    readers: Mapping[Feature, TranscriptAddon] = field(default_factory=dict)


def place_of(error: BaseException) -> str:
    """Name an error and where it was raised, without its text, which may quote what was said."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__


def way_to(error: BaseException) -> list[str]:
    """Give the places that an error came through, outermost first: its traceback without any text or value."""
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
