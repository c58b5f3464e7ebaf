"""The nouns of vivavoce: what sessions, engines and stores hand to each other.

Sample positions are integers at `SAMPLE_RATE`; durations and times are seconds in names that end in `_s`, or `start`
and `end` of words and utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Rate of everything downstream of the audio decoder, in Hz."""

_CODES = (  # one string, since a list would be broken into a hundred lines
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id "
    "is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd "
    "si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)
LANGUAGES = frozenset(_CODES.split())
"""Codes of the spoken languages that the protocol knows."""

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my"})
"""Languages whose words are written without blanks between them."""

Samples = NDArray[np.float32]
"""Mono audio at `SAMPLE_RATE`, float32 in [-1, 1]."""


def _g711_tables() -> dict[str, NDArray[np.int16]]:
    code = np.arange(256)
    mu = ~code & 0xFF
    magnitude = (((mu & 0x0F) << 3) + 0x84 << (mu >> 4 & 7)) - 0x84
    ulaw = np.where(mu & 0x80, -magnitude, magnitude)
    a = code ^ 0x55
    exponent = a >> 4 & 7
    mantissa = (a & 0x0F) << 4
    magnitude = np.where(exponent > 0, mantissa + 0x108 << np.maximum(exponent - 1, 0), mantissa + 8)
    alaw = np.where(a & 0x80, magnitude, -magnitude)
    return {law: table.astype(np.int16) for law, table in (("ulaw", ulaw), ("alaw", alaw))}


G711 = _g711_tables()
"""The 256 samples, 16-bit, that the bytes of each G.711 law stand for (ITU-T G.711, tables 1a to 2b)."""


def now() -> datetime:
    """Give the current moment, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat:
    """How a session's bytes are to be read; channels are interleaved."""

    encoding: Literal["pcm", "alaw", "ulaw"] = "pcm"
    bit_depth: Literal[8, 16, 24, 32] = 16
    sample_rate: int = 16_000
    channels: int = 1

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel; A-law and µ-law are one byte whatever depth was stated."""
        return 1 if self.encoding != "pcm" else self.bit_depth // 8

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.sample_bytes * self.channels

    @property
    def silent_sample(self) -> bytes:
        """One sample of silence; 8-bit PCM is unsigned, as in WAV."""
        match self.encoding:
            case "alaw":
                return b"\xd5"
            case "ulaw":
                return b"\xff"
            case "pcm":
                return b"\x80" if self.sample_bytes == 1 else bytes(self.sample_bytes)

    def duration_s(self, size: int) -> float:
        """Give the seconds of audio in `size` bytes."""
        return size / (self.frame_bytes * self.sample_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One word as spoken, without surrounding blanks; times in seconds, `speaker` as in its utterance."""

    text: str
    start: float
    end: float
    confidence: float
    speaker: int | None = None


Weigh = Callable[[Sequence[str]], Sequence[float]]
"""Gives for each of some whole texts the log odds that it was said rather than what the engine wrote, by the engine."""
Mend = Callable[[tuple[Word, ...], str, Weigh], tuple[Word, ...]]
"""Gives the words of a final, in the language named, as they should read where their audio can still be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A segment's text; times in seconds on the session's clock.

    `speaker` is who says most of it, from 0 in order of appearance; None where speakers are not told apart.
    """

    id: str
    channel: int
    start: float
    end: float
    confidence: float
    language: str
    words: tuple[Word, ...]
    speaker: int | None = None

    @property
    def text(self) -> str:
        """The words with single blanks between them; in `UNSPACED` languages only between two Latin ones."""
        texts = [word.text for word in self.words]
        if self.language not in UNSPACED:
            return " ".join(texts)
        return "".join(before + " " * _apart(before, after) for before, after in pairwise([*texts, ""]))


def _apart(before: str, after: str) -> bool:
    return bool(before and after) and before[-1].isascii() and after[0].isascii() and after[0].isalnum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """All finals of a session, ordered by start."""

    utterances: tuple[Utterance, ...]

    @property
    def text(self) -> str:
        """The utterances' texts with single blanks between them."""
        return " ".join(utterance.text for utterance in self.utterances)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages heard, the most frequent first."""
        counts: dict[str, int] = {}
        for utterance in self.utterances:
            counts[utterance.language] = counts.get(utterance.language, 0) + 1
        return tuple(sorted(counts, key=lambda language: -counts[language]))


class Feature(StrEnum):
    """What a client can ask for beside the transcript, by the contract's names; add-ons provide these."""

    CUSTOM_VOCABULARY = "custom_vocabulary"
    CUSTOM_SPELLING = "custom_spelling"
    PII_REDACTION = "pii_redaction"
    NAMED_ENTITY_RECOGNITION = "named_entity_recognition"
    SENTIMENT_ANALYSIS = "sentiment_analysis"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A named entity: `text` as it stands in its utterance, whose words `[first, stop)` it covers; times in seconds.

    `kind` is an upper-case label such as EMAIL_ADDRESS, PHONE_NUMBER, MONEY, DATE, NAME or LOCATION.
    """

    kind: str
    text: str
    start: float
    end: float
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentiment:
    """How one sentence sounds: positive, negative, neutral or mixed, and an emotion; times in seconds."""

    sentiment: str
    emotion: str
    text: str
    start: float
    end: float
    channel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """An utterance in the language `target`: same id, channel, start and end; its words carry times."""

    target: str
    utterance: Utterance


Findings = tuple[Entity, ...] | tuple[Sentiment, ...] | Translation | str
"""What an add-on finds: entities or sentiments of an utterance, its translation, or a transcript's summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One add-on's answer on one utterance, or on the whole transcript, whose `utterance_id` is empty.

    `target` is a translation's language and empty for others. `found` is None where the add-on failed; `error` then
    says why in words fit for clients. `spent_s` is how long it took.
    """

    feature: Feature
    utterance_id: str = ""
    target: str = ""
    found: Findings | None
    error: str | None = None
    spent_s: float = 0.0

    @property
    def key(self) -> str:
        """Names what was looked at for what; a session has at most one finding of each key."""
        return f"{self.feature}/{self.utterance_id}/{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a finished session yields; `findings` are those of the `features` that it asked for, and their options."""

    transcript: Transcript
    audio_s: float
    channels: int
    transcription_s: float
    features: Mapping[Feature, Mapping[str, Any]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Audio for an engine: `samples` from the clip's start so far, decoded as one piece.

    `key` names the utterance; an engine may keep a draft under it between partials. One of the `languages` is spoken,
    any if there are none; where the engine detects it, the answer is the one that it gives with that language alone.
    `hints` are words and phrases that may be said, for engines that can be told. `mend` is for engines that can tell
    how likely other texts are: they call it for each final, and answer with the words that it gives. A final's answer
    depends on nothing but `samples`, `languages`, `hints` and `mend`.
    """

    key: str
    samples: Samples
    final: bool
    languages: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    mend: Mend | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One person in a clip: when they speak, in seconds from the clip's start, and how they sound.

    `embedding` is a vector of length 1; two of them with a cosine near 1 are the same person's. It rests on `alone_s`
    seconds of speech.
    """

    spans: tuple[tuple[float, float], ...]
    alone_s: float
    embedding: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """An engine's answer for one clip; word times are seconds from the clip's start.

    `voices` are those heard in the clip of a final, where somebody asked for them.
    """

    words: tuple[Word, ...]
    language: str
    voices: tuple[Voice, ...] = ()


def spread_words(texts: Sequence[str], confidences: Sequence[float], start: float, end: float) -> tuple[Word, ...]:
    """Give words times proportional to their letters between `start` and `end` (seconds)."""
    weights = np.array([len(text) + 1 for text in texts], dtype=float)
    edges = start + (end - start) * np.concatenate([[0.0], np.cumsum(weights)]) / max(weights.sum(), 1.0)
    return tuple(
        Word(text=text, start=float(edges[i]), end=float(edges[i + 1]), confidence=confidences[i])
        for i, text in enumerate(texts)
    )


class Kind(StrEnum):
    """Classes of messages that a client switches on and off."""

    PARTIAL = "partial"
    TURN = "turn"
    FINAL = "final"
    SPEECH = "speech"
    PRE_PROCESSING = "pre_processing"
    REALTIME = "realtime"
    POST_PROCESSING = "post_processing"
    ACK = "ack"
    ERROR = "error"
    LIFECYCLE = "lifecycle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diarization:
    """How many speakers to expect on each channel; `maximum` is None where nobody knows.

    With `by_channel`, each channel is one speaker, and nothing is listened for.
    """

    minimum: int = 1
    maximum: int | None = None
    by_channel: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a client asked of its session, checked and complete.

    One of the `languages` is spoken, any if there are none; with `code_switching` each utterance may be in another.
    `features` are those switched on, each with its own options, named as in the contract. After `turn_silence_s` a turn
    is likely to be over; None where nobody asks. `model` may be a name that nobody here knows.
    """

    model: str = "solaria-1"
    audio: AudioFormat = field(default_factory=AudioFormat)
    languages: tuple[str, ...] = ()
    code_switching: bool = False
    endpointing_s: float = 0.05
    maximum_utterance_s: float = 5.0
    speech_threshold: float = 0.6
    wanted: frozenset[Kind] = frozenset()
    callback_url: str | None = None
    callback_wanted: frozenset[Kind] = frozenset()
    features: Mapping[Feature, Mapping[str, Any]] = field(default_factory=dict)
    diarization: Diarization | None = None
    turn_silence_s: float | None = None


class Status(StrEnum):
    """Where a session is in its life."""

    QUEUED = "queued"
    PROCESSING = "processing"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session as the store keeps it.

    `request` is the effective configuration as the wire protocol gives it, opaque to everything but `wire`.
    `audio_bytes` is how much of the audio file is committed; `audio_start` the length of a leading WAV header.
    `ack_ends` are the last ends of acknowledgments; the client has shown to have every message up to `delivered_to` (a
    `StoredMessage.seq`). `epoch` counts the processes that have run the session. `leg`
    names the leg of a telephone call, `bridge/id`, by which a lost transport finds the session again.
    """

    id: str
    owner: str
    token_hash: str
    status: Status
    created_at: datetime
    request: Mapping[str, Any]
    custom_metadata: Mapping[str, Any] | None = None
    post_session_metadata: Mapping[str, Any] = field(default_factory=dict)
    completed_at: datetime | None = None
    error_code: int | None = None
    audio_bytes: int = 0
    audio_start: int = 0
    transcription_s: float = 0.0
    ack_ends: tuple[int, ...] = ()
    delivered_to: int = -1
    epoch: int = 0
    leg: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A journal entry beside the audio: something that happened after `at` bytes of the session's stream."""

    at: int
    kind: Literal["connect", "cut", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a channel's transcription can be taken up again after a crash; `state` is JSON, opaque to the store."""

    channel: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A caller's key as the store keeps it; the key itself is shown once and never stored.

    `max_sessions` at once and `rate` of requests a second are the server's own where they are None.
    """

    id: str
    name: str
    key_hash: str
    created_at: datetime
    revoked_at: datetime | None = None
    max_sessions: int | None = None
    rate: float | None = None


class Lane(StrEnum):
    """Who a session posts to: the address its client named, or the one that the server's settings name."""

    CALLBACK = "callback"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One POST that a session owes; those of one session and lane go out in order.

    `id` stays the same however often it is sent. `attempts` have failed so far, and the next is due at `next_at`.
    """

    id: str
    lane: Lane
    event: str
    url: str
    body: str
    created_at: datetime
    attempts: int = 0
    next_at: datetime | None = None


class DeliveryState(StrEnum):
    """Where a delivery is in its life."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a delivery stands after `attempts`; `reason` says why the last one failed."""

    delivery_id: str
    state: DeliveryState
    attempts: int
    next_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A delivery that was given up, and why."""

    id: str
    lane: Lane
    event: str
    created_at: datetime
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """How a session's deliveries stand: how many in each state, and the first of those that were given up."""

    counts: Mapping[tuple[Lane, DeliveryState], int]
    dead: tuple[DeadLetter, ...]
