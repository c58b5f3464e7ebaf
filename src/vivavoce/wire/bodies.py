"""What REST answers, as models: the OpenAPI document is made from them, and the tests hold our answers against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vivavoce.wire.schema import InitRequest


class _Body(BaseModel):
    """One object of an answer; it has the named fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InitResponse(_Body):
    """A new session."""

    id: str = Field(description="The session, a UUID.", json_schema_extra={"format": "uuid"})
    created_at: str = Field(description="ISO 8601, UTC.", json_schema_extra={"format": "date-time"})
    url: str = Field(description="Where to connect, as often as needed; the token in it is the only credential.")


class WatchToken(_Body):
    """A token that lets a browser watch one session."""

    token: str = Field(description="Reads this session's messages, and can do nothing else.")
    url: str = Field(description="The messages as server-sent events, for `EventSource`; holds the token.")
    socket_url: str = Field(description="The same on a WebSocket.")
    expires_at: str = Field(description="ISO 8601, UTC.", json_schema_extra={"format": "date-time"})


class ModelBody(_Body):
    """A speech model."""

    name: str = Field(description="What `model` of an init request calls it.")
    engine: str = Field(description="The engine that runs it.")
    languages: list[str] | None = Field(
        default=None, description="Codes of the languages it knows; absent where only loading it would tell."
    )
    features: list[str] = Field(
        description="`language_detection` and `code_switching` where it knows several languages, `word_times` where "
        "its word times are its own."
    )
    loaded: bool = Field(description="Whether it is in memory; the first session of one that is not has to wait.")
    default: bool = Field(description="Whether it is the one that unknown names stand for.")
    installed: bool = Field(description="Whether it can be loaded: its files are here, or its recogniser answers.")
    get: str | None = Field(
        default=None, description="The command that installs it, or says what it lacks; absent if installed."
    )


class ModelList(_Body):
    """The speech models."""

    models: list[ModelBody] = Field(description="The default, those of the server's file, those to be had.")


class ErrorBody(_Body):
    """Any refusal or failure."""

    timestamp: str = Field(description="ISO 8601, UTC.", json_schema_extra={"format": "date-time"})
    path: str = Field(description="The path that was called.")
    request_id: str = Field(description="Names this call in the server's log.")
    statusCode: int = Field(ge=400, le=599, description="The HTTP status.")  # noqa: N815 - the contract's spelling
    message: str = Field(description="What is wrong, for people.")
    validation_errors: list[str] | None = Field(
        default=None, description="Only with 400: one string per field, which begins with the field's path."
    )


class WordBody(_Body):
    """One word."""

    word: str = Field(description="The word after a blank.")
    start: float = Field(description="Seconds from the session's start.")
    end: float = Field(description="Seconds from the session's start.")
    confidence: float = Field(description="From 0 to 1.")
    speaker: int | None = Field(default=None, ge=0, description="Absent where speakers are not told apart.")


class UtteranceBody(_Body):
    """What one speaker said between two silences."""

    start: float = Field(description="Seconds from the session's start.")
    end: float = Field(description="Seconds from the session's start.")
    confidence: float = Field(description="From 0 to 1.")
    channel: int = Field(ge=0, description="Place of the channel in the interleave.")
    words: list[WordBody]
    text: str = Field(description="The words after one another; begins with a blank.")
    language: str = Field(description="Language code.")
    speaker: int | None = Field(default=None, ge=0, description="Absent where speakers are not told apart.")


class TranscriptionBody(_Body):
    """All that was said."""

    full_transcript: str
    languages: list[str] = Field(description="The most frequent first.")
    utterances: list[UtteranceBody] = Field(description="In the order of their starts.")


class MetadataBody(_Body):
    """Sizes of the session."""

    audio_duration: float = Field(description="Seconds.")
    number_of_distinct_channels: int
    billing_time: float = Field(description="Duration times channels, seconds.")
    transcription_time: float = Field(description="Time spent on decoding, seconds.")


class AddonErrorBody(_Body):
    """How an add-on failed."""

    status_code: int
    exception: str
    message: str


class _Envelope(_Body):
    """What an add-on said of the session, and how it went."""

    success: bool = Field(description="Whether it never failed.")
    is_empty: bool = Field(description="Whether it found nothing.")
    exec_time: float = Field(description="Time spent on it, seconds.")
    error: AddonErrorBody | None = Field(description="Null where it succeeded.")


class TranslatedBody(_Body):
    """All that was said, in another language."""

    error: AddonErrorBody | None = Field(description="Null where all utterances could be translated.")
    full_transcript: str
    languages: list[str] = Field(description="The target language.")
    utterances: list[UtteranceBody]


class TranslationBody(_Envelope):
    """The translations of a session."""

    results: list[TranslatedBody] = Field(description="One for each target language.")


class SummarizationBody(_Envelope):
    """The summary of a session."""

    results: str | None


class EntityBody(_Body):
    """A named entity."""

    entity_type: str
    text: str
    start: float = Field(description="Seconds from the session's start.")
    end: float = Field(description="Seconds from the session's start.")


class EntitiesBody(_Envelope):
    """The named entities of a session."""

    results: list[EntityBody]


class SentimentsBody(_Envelope):
    """The sentiments of a session."""

    results: str = Field(description="A JSON text: a list of sentiment, emotion, text, start, end and channel.")


class ResultBody(_Body):
    """The outcome of a finished session."""

    metadata: MetadataBody
    transcription: TranscriptionBody | None = None
    translation: TranslationBody | None = None
    summarization: SummarizationBody | None = None
    named_entity_recognition: EntitiesBody | None = None
    sentiment_analysis: SentimentsBody | None = None
    messages: list[str] | None = Field(
        default=None, description="The socket's messages as they were sent, without partials and audio acks."
    )


class FileBody(_Body):
    """The session's audio."""

    id: str
    filename: str | None = None
    source: str | None = None
    audio_duration: float | None = Field(default=None, description="Seconds.")
    number_of_channels: int | None = None


class SessionBody(_Body):
    """A session as it stands."""

    id: str
    request_id: str = Field(description="`G-` and the first eight digits of the id.")
    version: Literal[2]
    status: Literal["queued", "processing", "done", "error"]
    created_at: str = Field(description="ISO 8601, UTC.", json_schema_extra={"format": "date-time"})
    completed_at: str | None = Field(default=None, description="ISO 8601, UTC; null before the session is over.")
    kind: Literal["live"]
    post_session_metadata: dict[str, Any] = Field(description="What PATCH last stored.")
    custom_metadata: dict[str, Any] | None = Field(default=None, description="As given at init.")
    error_code: int | None = Field(default=None, ge=400, le=599, description="Why it failed; null otherwise.")
    file: FileBody | None = None
    request_params: InitRequest | None = Field(default=None, description="The request with its defaults filled in.")
    result: ResultBody | None = Field(default=None, description="Null before the session is done.")


class SessionList(_Body):
    """A page of sessions, the newest first."""

    first: str = Field(description="URL of the first page.")
    current: str = Field(description="URL of this page.")
    next: str | None = Field(description="URL of the next page; null on the last one.")
    items: list[SessionBody]


class DeliveryCounts(_Body):
    """Messages by how far their delivery is."""

    waiting: int = Field(ge=0, description="Still to be posted.")
    delivered: int = Field(ge=0, description="Taken by the receiver.")
    dead: int = Field(ge=0, description="Given up.")


class DeadLetterBody(_Body):
    """A message that was given up."""

    id: str = Field(description="The `webhook-id` it was posted with.")
    lane: Literal["callback", "webhook"]
    event: str = Field(description="Such as `live.transcript`.")
    created_at: str = Field(description="When it was said; ISO 8601, UTC.", json_schema_extra={"format": "date-time"})
    attempts: int = Field(ge=0, description="How often it was posted.")
    reason: str = Field(description="Why the last attempt failed.")


class DeliveriesBody(_Body):
    """What a session owes and owed to the receivers of its messages."""

    callback: DeliveryCounts
    webhook: DeliveryCounts
    dead_letters: list[DeadLetterBody] = Field(description="The first of them, at most 100.")
