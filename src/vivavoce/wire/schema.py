"""The body of `POST /v2/live`: its fields, how it is checked, and what a session takes from it.

`parse_request` goes through three gates, and each has its own error. The shape (types, ranges, values, unknown names)
and what one field demands of another give `InvalidConfig` with one string per field; a well-formed request for
something this installation lacks gives `Unsupported`. What is left becomes the *effective request*: every field with
its default filled in, which is stored with the session, shown as `request_params`, and read back by `options_of`. A new
option therefore needs a field here, a line in `_FEATURES` while not everybody has it, and a line in `options_of`. How
values are read and refused is said in `fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vivavoce.errors import Unsupported
from vivavoce.model import AudioFormat, Diarization, Feature, Kind, SessionOptions
from vivavoce.wire.fields import (
    ENTRY_TAG,
    PROBLEM,
    TEXT_TAG,
    Fields,
    Fraction,
    HttpUrl,
    Language,
    Metadata,
    NotNegative,
    Positive,
    Text,
    TranslationLanguage,
    Whole,
    checked,
    invalid,
    whole,
)

MAX_VOCABULARY = 1000
MAX_VOCABULARY_CHARS = 10_000
"""Entries, and letters of all of them together, of a vocabulary or a spelling dictionary."""

_Listing = TypeVar("_Listing", list[Any], dict[str, Any])


class LanguageConfig(Fields):
    """Which languages to expect."""

    languages: list[Language] = Field(default=[], description="Spoken languages to expect; empty means detect them.")
    code_switching: bool = Field(
        default=False, description="Detect the language of each utterance anew; without effect for a single language."
    )


class PreProcessingConfig(Fields):
    """What happens to the audio first."""

    audio_enhancer: bool = Field(default=False, description="Accepted, and without effect: docs/why/noise.md.")
    speech_threshold: Fraction = Field(
        default=0.6, description="How sure voice activity must be to hear speech; closer to 1 is stricter."
    )


class VocabularyEntry(Fields):
    """A word or phrase to listen for."""

    value: Text = Field(description="The text as it should be written.")
    intensity: Fraction | None = Field(default=None, description="How eagerly this entry is heard.")
    pronunciations: list[Text] | None = Field(default=None, description="Other ways to say it.")
    language: Language | None = Field(default=None, description="Look for it in utterances of this language only.")


def _vocabulary_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return TEXT_TAG
    return ENTRY_TAG if isinstance(value, dict | VocabularyEntry) else None


def _few(value: _Listing) -> _Listing:
    """Bound a vocabulary, whose every entry costs each final a little."""
    if len(value) > MAX_VOCABULARY:
        raise PydanticCustomError(PROBLEM, "must not contain more than {limit} entries", {"limit": MAX_VOCABULARY})
    entries = value.items() if isinstance(value, dict) else value
    if sum(map(_letters, entries)) > MAX_VOCABULARY_CHARS:
        raise PydanticCustomError(
            PROBLEM, "must not be longer than {limit} characters in all", {"limit": MAX_VOCABULARY_CHARS}
        )
    return value


def _letters(entry: Any) -> int:
    match entry:
        case str():
            return len(entry)
        case VocabularyEntry():
            return _letters([entry.value, entry.pronunciations or []])
        case _:
            return sum(map(_letters, entry))


VocabularyItem = Annotated[
    Annotated[Text, Tag(TEXT_TAG)] | Annotated[VocabularyEntry, Tag(ENTRY_TAG)], Discriminator(_vocabulary_tag)
]


class CustomVocabularyConfig(Fields):
    """Words to listen for."""

    vocabulary: Annotated[list[VocabularyItem], AfterValidator(_few)] = Field(
        description=f"Words or phrases, plain or as objects; at most {MAX_VOCABULARY}."
    )
    default_intensity: Fraction = Field(default=0.5, description="Intensity of entries that state none.")


class CustomSpellingConfig(Fields):
    """Spellings to prefer."""

    spelling_dictionary: Annotated[dict[Text, list[Text]], AfterValidator(_few)] = Field(
        description=f"The wanted spelling, and the variants that it replaces; at most {MAX_VOCABULARY}."
    )


class TranslationConfig(Fields):
    """How to translate."""

    target_languages: list[TranslationLanguage] = Field(min_length=1, description="Languages to translate to.")
    model: Literal["base", "enhanced", "batch"] = Field(default="base", description="Which translator.")
    match_original_utterances: bool = Field(default=True, description="Align translated utterances with originals.")
    lipsync: bool = Field(default=True, description="Fit translations to the lips of the speaker.")
    context_adaptation: bool = Field(default=True, description="Use what was said before.")
    context: Text | None = Field(default=None, description="What the conversation is about.")
    informal: bool = Field(default=False, description="Prefer informal forms of address.")


class DiarizationConfig(Fields):
    """How many speakers to expect on each channel; the names are those of Gladia's pre-recorded API."""

    number_of_speakers: Positive | None = Field(default=None, description="Exactly so many.")
    min_speakers: NotNegative | None = Field(default=None, description="At least so many.")
    max_speakers: NotNegative | None = Field(default=None, description="At most so many; 0 sets no bound.")

    @model_validator(mode="after")
    def _in_order(self) -> DiarizationConfig:
        given = (self.min_speakers, self.number_of_speakers, self.max_speakers)
        if (numbers := [number for number in given if number]) != sorted(numbers):
            raise PydanticCustomError(PROBLEM, "must not hold numbers of speakers that contradict each other")
        return self


class RedactionConfig(Fields):
    """What to hide, and how; the names are those of Gladia's pre-recorded API, but for `redact_audio`."""

    entity_types: Annotated[list[Text], AfterValidator(_few)] = Field(
        default=[], description="Types of named entities to hide; none means what leads to people or money."
    )
    processed_text_type: Literal["MARKER", "MASK"] = Field(
        default="MARKER", description="Put the type in place of the text, or ####."
    )
    redact_audio: bool = Field(default=False, description="Silence what is hidden in the stored audio too.")


class TurnHintsConfig(Fields):
    """When a turn is likely to be over."""

    silence: float = Field(
        default=0.1, ge=0.1, le=10, description="Silence after which it is said, seconds; less than endpointing."
    )


class RealtimeProcessingConfig(Fields):
    """What happens to each final."""

    # Gone from Gladia's specification since spring 2026, yet part of every request of LiveKit's plugin. Word times are
    # as exact as they get without it.
    ignored: ClassVar[frozenset[str]] = frozenset({"words_accurate_timestamps"})

    custom_vocabulary: bool = Field(default=False, description="Listen for the words of custom_vocabulary_config.")
    custom_vocabulary_config: CustomVocabularyConfig | None = None
    custom_spelling: bool = Field(default=False, description="Apply the spellings of custom_spelling_config.")
    custom_spelling_config: CustomSpellingConfig | None = None
    translation: bool = Field(default=False, description="Translate each final.")
    translation_config: TranslationConfig | None = None
    named_entity_recognition: bool = Field(default=False, description="Mark names in each final.")
    sentiment_analysis: bool = Field(default=False, description="Judge the sentiment of each final.")
    # Gladia has these for recordings only, so they are part of the effective request only where they are asked for.
    diarization: bool = Field(default=False, description="Tell speakers apart (not Gladia's).")
    diarization_config: DiarizationConfig | None = None
    pii_redaction: bool = Field(default=False, description="Hide personal data (not Gladia's).")
    pii_redaction_config: RedactionConfig | None = None
    turn_hints: bool = Field(default=False, description="Say when a turn is likely to be over (not Gladia's).")
    turn_hints_config: TurnHintsConfig | None = None


class SummarizationConfig(Fields):
    """How to summarize."""

    type: Literal["general", "bullet_points", "concise"] = Field(default="general", description="Kind of summary.")


class PostProcessingConfig(Fields):
    """What happens to the whole transcript."""

    summarization: bool = Field(default=False, description="Summarize the transcript.")
    summarization_config: SummarizationConfig | None = None
    chapterization: bool = Field(
        default=False, description="Accepted and ignored.", json_schema_extra={"deprecated": True}
    )


class MessagesConfig(Fields):
    """Which messages go over the socket."""

    receive_partial_transcripts: bool = Field(default=False, description="transcript with is_final false")
    receive_final_transcripts: bool = Field(default=True, description="transcript with is_final true")
    receive_speech_events: bool = Field(default=True, description="speech_start, speech_end")
    receive_pre_processing_events: bool = Field(default=True, description="nothing: no such message exists")
    receive_realtime_processing_events: bool = Field(default=True, description="messages about each final")
    receive_post_processing_events: bool = Field(default=True, description="post_transcript, post_final_transcript")
    receive_acknowledgments: bool = Field(default=True, description="audio_chunk and stop_recording acks")
    receive_errors: bool = Field(default=True, description="error")
    receive_lifecycle_events: bool = Field(default=False, description="start_recording, end_recording, end_session")


class CallbackConfig(Fields):
    """Where messages are posted to, and which."""

    url: HttpUrl | None = Field(default=None, description="Receives one POST per message.")
    receive_partial_transcripts: bool = Field(default=False, description="As in messages_config.")
    receive_final_transcripts: bool = Field(default=True, description="As in messages_config.")
    receive_speech_events: bool = Field(default=False, description="As in messages_config.")
    receive_pre_processing_events: bool = Field(default=True, description="As in messages_config.")
    receive_realtime_processing_events: bool = Field(default=True, description="As in messages_config.")
    receive_post_processing_events: bool = Field(default=True, description="As in messages_config.")
    receive_acknowledgments: bool = Field(default=False, description="As in messages_config.")
    receive_errors: bool = Field(default=False, description="As in messages_config.")
    receive_lifecycle_events: bool = Field(default=True, description="As in messages_config, and start_session.")


class InitRequest(Fields):
    """What a client asks of its session; every field may be left out."""

    # Sent by older releases of clients: `region` belongs in the query, the others named things that no longer differ.
    ignored: ClassVar[frozenset[str]] = frozenset({"region", "model_type", "words_accurate_timestamps"})

    encoding: Literal["wav/pcm", "wav/alaw", "wav/ulaw"] = Field(
        default="wav/pcm", description="Sample format, little-endian; a WAV header before the samples is fine."
    )
    bit_depth: Annotated[Literal[8, 16, 24, 32], BeforeValidator(whole)] = Field(
        default=16, description="Bits of a PCM sample; A-law and µ-law samples have 8 whatever is stated."
    )
    sample_rate: Whole = Field(default=16_000, ge=8_000, le=48_000, description="Samples a second of one channel, Hz.")
    channels: Whole = Field(default=1, ge=1, le=8, description="Interleaved channels, each transcribed on its own.")
    custom_metadata: Metadata | None = Field(
        default=None, description="Kept with the session; at most 2000 characters as JSON."
    )
    model: Text = Field(default="solaria-1", description="A model of `GET /v1/models`; any other name is the default.")
    endpointing: float = Field(default=0.05, ge=0.01, le=10, description="Silence that closes an utterance, seconds.")
    maximum_duration_without_endpointing: float = Field(
        default=5.0, ge=5, le=60, description="Longest utterance before it is cut, seconds."
    )
    language_config: LanguageConfig = LanguageConfig()
    pre_processing: PreProcessingConfig = PreProcessingConfig()
    realtime_processing: RealtimeProcessingConfig = RealtimeProcessingConfig()
    post_processing: PostProcessingConfig = PostProcessingConfig()
    messages_config: MessagesConfig = MessagesConfig()
    callback: bool = Field(default=False, description="Post messages to callback_config.url.")
    callback_config: CallbackConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What this installation can do: language codes of the `model` that was chosen, and names out of `FEATURES`.

    `others` are the languages of its other models by their names. `remedies` say of features that are missing what
    would provide them.
    """

    languages: frozenset[str]
    model: str = "the default one"
    others: Mapping[str, frozenset[str]] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    remedies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A checked request: the effective request as plain JSON values, the client's metadata, and the options."""

    request: dict[str, Any]
    custom_metadata: dict[str, Any] | None
    options: SessionOptions


_FEATURES = (
    "realtime_processing.custom_vocabulary",
    "realtime_processing.custom_spelling",
    "realtime_processing.translation",
    "realtime_processing.named_entity_recognition",
    "realtime_processing.sentiment_analysis",
    "realtime_processing.diarization",
    "realtime_processing.pii_redaction",
    "post_processing.summarization",
    "callback",
)
FEATURES = frozenset(path.rpartition(".")[2] for path in _FEATURES)
"""Names of what an installation may or may not have."""

_EXTENSIONS = ("diarization", "pii_redaction", "turn_hints")
"""Flags of `realtime_processing` that Gladia's live API does not have."""

_NEEDS = {
    "realtime_processing.custom_vocabulary": "realtime_processing.custom_vocabulary_config",
    "realtime_processing.custom_spelling": "realtime_processing.custom_spelling_config",
    "realtime_processing.translation": "realtime_processing.translation_config",
    "callback": "callback_config.url",
}

_DEFAULTS = {
    Feature.PII_REDACTION: RedactionConfig().model_dump(),
    Feature.SUMMARIZATION: SummarizationConfig().model_dump(),
}
"""Options of features that may be switched on without any."""

_KINDS = {
    "receive_partial_transcripts": Kind.PARTIAL,
    "receive_final_transcripts": Kind.FINAL,
    "receive_speech_events": Kind.SPEECH,
    "receive_pre_processing_events": Kind.PRE_PROCESSING,
    "receive_realtime_processing_events": Kind.REALTIME,
    "receive_post_processing_events": Kind.POST_PROCESSING,
    "receive_acknowledgments": Kind.ACK,
    "receive_errors": Kind.ERROR,
    "receive_lifecycle_events": Kind.LIFECYCLE,
}


def parse_request(body: object, capabilities: Capabilities) -> ParsedRequest:
    """Check the body of an init request, as its JSON parsed.

    Raises `InvalidConfig` for a body that breaks the contract and `Unsupported` for a good one that asks for more than
    `capabilities` has.
    """
    asked = checked(InitRequest, body)
    if lacking := [
        f"{needed} must be given when {flag} is true"
        for flag, needed in _NEEDS.items()
        if _at(asked, flag) and _at(asked, needed) is None
    ]:
        raise invalid(lacking)
    if missing := _missing(asked, capabilities):
        raise Unsupported("; ".join(missing))
    request = asked.model_dump(exclude={"custom_metadata"}, exclude_none=True)
    live = request["realtime_processing"]
    for flag in _EXTENSIONS:
        if not live[flag]:
            del live[flag]
    return ParsedRequest(request=request, custom_metadata=asked.custom_metadata, options=options_of(request))


def options_of(request: Mapping[str, Any]) -> SessionOptions:
    """Give the options in an effective request, fresh or read back from the store."""
    callback = (request["callback"] and request.get("callback_config")) or None
    languages = tuple(dict.fromkeys(request["language_config"]["languages"]))
    turn_silence_s = _turn_silence(request)
    return SessionOptions(
        model=request["model"],
        audio=audio_format(request),
        languages=languages,
        code_switching=request["language_config"]["code_switching"] and len(languages) != 1,
        endpointing_s=request["endpointing"],
        maximum_utterance_s=request["maximum_duration_without_endpointing"],
        speech_threshold=request["pre_processing"]["speech_threshold"],
        wanted=_wanted(request["messages_config"]) | ({Kind.TURN} if turn_silence_s is not None else set()),
        callback_url=callback and callback["url"],
        callback_wanted=_wanted(callback) if callback else frozenset(),
        features=_features({**request["realtime_processing"], **request["post_processing"]}),
        diarization=_diarization(request),
        turn_silence_s=turn_silence_s,
    )


def _turn_silence(request: Mapping[str, Any]) -> float | None:
    """Give after how much silence a turn is likely to be over, None where nobody asks."""
    live = request["realtime_processing"]
    silence: float = {**TurnHintsConfig().model_dump(), **live.get("turn_hints_config", {})}["silence"]
    return silence if live.get("turn_hints") else None


def _diarization(request: Mapping[str, Any]) -> Diarization | None:
    """Give how speakers are told apart; with several channels the channel is the speaker, unless numbers are given."""
    live = request["realtime_processing"]
    if not live.get("diarization"):
        return None
    numbers = live.get("diarization_config", {})
    exactly = numbers.get("number_of_speakers")
    return Diarization(
        minimum=exactly or numbers.get("min_speakers") or 1,
        maximum=exactly or numbers.get("max_speakers") or None,
        by_channel=audio_format(request).channels > 1 and not numbers,
    )


def _features(asked: Mapping[str, Any]) -> dict[Feature, Mapping[str, Any]]:
    """Give the features that are switched on, with all their options."""
    return {
        feature: {**_DEFAULTS.get(feature, {}), **asked.get(f"{feature}_config", {})}
        for feature in Feature
        if asked.get(feature)
    }


def _wanted(flags: Mapping[str, Any]) -> frozenset[Kind]:
    return frozenset(kind for flag, kind in _KINDS.items() if flags[flag])


def audio_format(request: Mapping[str, Any]) -> AudioFormat:
    """Give the audio format in an effective request."""
    return AudioFormat(
        encoding=request["encoding"].removeprefix("wav/"),
        bit_depth=request["bit_depth"],
        sample_rate=request["sample_rate"],
        channels=request["channels"],
    )


def _at(request: InitRequest, path: str) -> Any:
    found: Any = request
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _missing(asked: InitRequest, capabilities: Capabilities) -> list[str]:
    missing = []
    if absent := sorted(set(asked.language_config.languages) - capabilities.languages):
        known = ", ".join(sorted(capabilities.languages)) or "none"
        wanted = set(asked.language_config.languages)
        able = [name for name, languages in sorted(capabilities.others.items()) if wanted <= languages]
        remedy = f"another model: {', '.join(able)}" if able else "add a model that does (see `vivavoce models list`)"
        missing.append(
            f"language_config.languages: the model {capabilities.model} does not know {', '.join(absent)} "
            f"(it knows: {known}); ask for those, or {'for ' * bool(able)}{remedy}"
        )
    for path in _FEATURES:
        name = path.rpartition(".")[2]
        if _at(asked, path) and name not in capabilities.features:
            remedy = capabilities.remedies.get(name, "the README's compatibility table says what does")
            missing.append(
                f"{path}: nothing on this installation provides {name} ({remedy}); leave it out or set it to false"
            )
    return missing
