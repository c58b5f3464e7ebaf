"""The init request: what passes, what is refused, with which words, and what a session takes from it."""

import json
from dataclasses import FrozenInstanceError

import pytest
from gladiaio_sdk.v2.live import generated_types as sdk
from gladiaio_sdk.v2.live._helpers import build_init_body
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import InvalidConfig, Unsupported
from vivavoce.model import LANGUAGES, AudioFormat, Diarization, Feature, Kind, SessionOptions
from vivavoce.wire.fields import MAX_METADATA_CHARS, MAX_PROBLEMS
from vivavoce.wire.schema import FEATURES, Capabilities, InitRequest, options_of, parse_request

ENGLISH = Capabilities(languages=frozenset({"en"}))
EVERYTHING = Capabilities(languages=LANGUAGES, features=FEATURES)

DEFAULT_KINDS = frozenset(Kind) - {Kind.PARTIAL, Kind.TURN, Kind.LIFECYCLE}

LIVEKIT = {
    "region": "eu-west",
    "encoding": "wav/pcm",
    "sample_rate": 16000,
    "model": "solaria-1",
    "endpointing": 0.05,
    "maximum_duration_without_endpointing": 5,
    "bit_depth": 16,
    "channels": 1,
    "language_config": {"languages": [], "code_switching": True},
    "realtime_processing": {"words_accurate_timestamps": False},
    "messages_config": {"receive_partial_transcripts": True, "receive_final_transcripts": True},
    "custom_metadata": {"livekit": "1.8.9"},
    "pre_processing": {"audio_enhancer": False, "speech_threshold": 0.6},
}
PIPECAT = {
    "encoding": "wav/pcm",
    "bit_depth": 16,
    "sample_rate": 24000,
    "channels": 1,
    "model": "solaria-1",
    "custom_metadata": {"pipecat": "1.14.0"},
    "maximum_duration_without_endpointing": 5,
    "language_config": {"languages": ["en"], "code_switching": False},
    "realtime_processing": {"words_accurate_timestamps": True},
}
PYTHON_SDK = build_init_body({})
PYTHON_SDK_TYPED = build_init_body(
    sdk.LiveV2InitRequest(
        encoding="wav/ulaw",
        sample_rate=8000,
        bit_depth=16,
        channels=2,
        language_config=sdk.LiveV2LanguageConfig(languages=["en"]),
        messages_config=sdk.LiveV2MessagesConfig(receive_partial_transcripts=True, receive_acknowledgments=False),
    )
)
JS_SDK = {"endpointing": 0.3, "messages_config": {"receive_lifecycle_events": True, "receive_acknowledgments": True}}


def problems_of(body, capabilities=EVERYTHING):
    with pytest.raises(InvalidConfig) as caught:
        parse_request(body, capabilities)
    assert str(caught.value) == "Some parameters are not valid, look at validation_errors"
    return list(caught.value.problems)


@pytest.mark.parametrize("body", [PYTHON_SDK, PYTHON_SDK_TYPED, JS_SDK, LIVEKIT, PIPECAT, {}])
def test_bodies_of_known_clients_pass_on_an_english_only_installation(body):
    """What each client sends by default opens a session where only English is spoken and no add-on is installed."""
    parsed = parse_request(body, ENGLISH)
    assert parsed.custom_metadata == body.get("custom_metadata")
    assert Kind.ACK in parsed.options.wanted


def test_an_empty_body_means_the_contracts_defaults():
    """Every default is filled in, in the request that is echoed as in the options."""
    parsed = parse_request({}, ENGLISH)
    assert parsed.request == {
        "encoding": "wav/pcm",
        "bit_depth": 16,
        "sample_rate": 16000,
        "channels": 1,
        "model": "solaria-1",
        "endpointing": 0.05,
        "maximum_duration_without_endpointing": 5.0,
        "language_config": {"languages": [], "code_switching": False},
        "pre_processing": {"audio_enhancer": False, "speech_threshold": 0.6},
        "realtime_processing": {
            "custom_vocabulary": False,
            "custom_spelling": False,
            "translation": False,
            "named_entity_recognition": False,
            "sentiment_analysis": False,
        },
        "post_processing": {"summarization": False, "chapterization": False},
        "messages_config": {
            "receive_partial_transcripts": False,
            "receive_final_transcripts": True,
            "receive_speech_events": True,
            "receive_pre_processing_events": True,
            "receive_realtime_processing_events": True,
            "receive_post_processing_events": True,
            "receive_acknowledgments": True,
            "receive_errors": True,
            "receive_lifecycle_events": False,
        },
        "callback": False,
    }
    assert parsed.options == SessionOptions(wanted=DEFAULT_KINDS)
    assert parsed.custom_metadata is None


def test_partial_objects_are_merged_key_by_key():
    """One flag given leaves the other flags at their defaults; callbacks have defaults of their own."""
    body = {
        "messages_config": {"receive_partial_transcripts": True},
        "callback": True,
        "callback_config": {"url": "https://example.org/hook", "receive_errors": True},
    }
    request = parse_request(body, EVERYTHING).request
    assert request["messages_config"] == {
        **parse_request({}, EVERYTHING).request["messages_config"],
        "receive_partial_transcripts": True,
    }
    assert request["callback_config"] == {
        "url": "https://example.org/hook",
        "receive_partial_transcripts": False,
        "receive_final_transcripts": True,
        "receive_speech_events": False,
        "receive_pre_processing_events": True,
        "receive_realtime_processing_events": True,
        "receive_post_processing_events": True,
        "receive_acknowledgments": False,
        "receive_errors": True,
        "receive_lifecycle_events": True,
    }


def test_options_carry_what_was_asked():
    """Each option the session reads comes from its own field."""
    body = {
        "encoding": "wav/alaw",
        "bit_depth": 8,
        "sample_rate": 8000,
        "channels": 2,
        "endpointing": 1,
        "maximum_duration_without_endpointing": 60,
        "language_config": {"languages": ["nl", "en", "nl"]},
        "pre_processing": {"speech_threshold": 0},
        "messages_config": {
            "receive_partial_transcripts": True,
            "receive_final_transcripts": False,
            "receive_speech_events": False,
            "receive_pre_processing_events": False,
            "receive_realtime_processing_events": False,
            "receive_post_processing_events": False,
            "receive_acknowledgments": False,
            "receive_errors": False,
            "receive_lifecycle_events": True,
        },
    }
    assert parse_request(body, EVERYTHING).options == SessionOptions(
        audio=AudioFormat(encoding="alaw", bit_depth=8, sample_rate=8000, channels=2),
        languages=("nl", "en"),
        endpointing_s=1.0,
        maximum_utterance_s=60.0,
        speech_threshold=0.0,
        wanted=frozenset({Kind.PARTIAL, Kind.LIFECYCLE}),
    )


@pytest.mark.parametrize(
    ("listed", "wanted", "switches"),
    [
        ([], True, True),
        ([], False, False),
        (["nl", "en"], True, True),
        (["nl"], True, False),
        (["nl", "nl"], True, False),
    ],
)
def test_code_switching_needs_more_than_one_language(listed, wanted, switches):
    """It is without effect where a single language is listed."""
    body = {"language_config": {"languages": listed, "code_switching": wanted}}
    assert parse_request(body, EVERYTHING).options.code_switching is switches


@pytest.mark.parametrize("body", [PYTHON_SDK, PYTHON_SDK_TYPED, JS_SDK, LIVEKIT, PIPECAT, {"bit_depth": 24.0}])
def test_options_survive_storing_the_request(body):
    """The effective request is plain JSON; the same options come back from what a store kept of it."""
    parsed = parse_request(body, EVERYTHING)
    assert options_of(json.loads(json.dumps(parsed.request, allow_nan=False))) == parsed.options


def test_the_effective_request_is_a_fixed_point(lossless):
    """Asking with an effective request gives that request again, which the SDK reads without an unknown field."""
    body = {
        "realtime_processing": {
            "custom_vocabulary": True,
            "custom_vocabulary_config": {"vocabulary": ["Femke", {"value": "Westeros", "intensity": 1}]},
            "custom_spelling": True,
            "custom_spelling_config": {"spelling_dictionary": {"Gorish": ["ghorish", "gaurish"]}},
            "translation": True,
            "translation_config": {"target_languages": ["wo"], "model": "batch"},
        },
        "post_processing": {"summarization": True, "summarization_config": {}},
    }
    request = parse_request(body, EVERYTHING).request
    assert parse_request(request, EVERYTHING).request == request
    assert request["realtime_processing"]["custom_vocabulary_config"] == {
        "vocabulary": ["Femke", {"value": "Westeros", "intensity": 1.0}],
        "default_intensity": 0.5,
    }
    assert request["post_processing"]["summarization_config"] == {"type": "general"}
    lossless(sdk.LiveV2RequestParamsResponse.from_dict(request), request)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "body must be an object"),
        ("{}", "body must be an object"),
        (None, "body must be an object"),
        ({"encoding": "wav/opus"}, "encoding must be one of the following values: wav/pcm, wav/alaw, wav/ulaw"),
        ({"bit_depth": 12}, "bit_depth must be one of the following values: 8, 16, 24, 32"),
        ({"bit_depth": "16"}, "bit_depth must be one of the following values: 8, 16, 24, 32"),
        ({"bit_depth": [16]}, "bit_depth must be one of the following values: 8, 16, 24, 32"),
        ({"sample_rate": 7999}, "sample_rate must not be less than 8000"),
        ({"sample_rate": 48001}, "sample_rate must not be greater than 48000"),
        ({"sample_rate": 16000.5}, "sample_rate must be an integer number"),
        ({"sample_rate": float("inf")}, "sample_rate must be an integer number"),
        ({"channels": True}, "channels must be an integer number"),
        ({"channels": 0}, "channels must not be less than 1"),
        ({"channels": 9}, "channels must not be greater than 8"),
        ({"channels": 10**5000}, "channels must not be greater than 8"),
        ({"model": 1}, "model must be a string"),
        ({"model": "\ud800"}, "model must be valid Unicode text"),
        ({"endpointing": 11}, "endpointing must not be greater than 10"),
        ({"endpointing": 0.009}, "endpointing must not be less than 0.01"),
        ({"endpointing": "0.3"}, "endpointing must be a number"),
        ({"endpointing": True}, "endpointing must be a number"),
        ({"endpointing": float("nan")}, "endpointing must be a finite number"),
        ({"endpointing": 10**400}, "endpointing must be a number"),
        (
            {"maximum_duration_without_endpointing": 4},
            "maximum_duration_without_endpointing must not be less than 5",
        ),
        ({"language_config": []}, "language_config must be an object"),
        ({"language_config": {"languages": "en"}}, "language_config.languages must be an array"),
        ({"language_config": {"languages": [None]}}, "language_config.languages.0 must be a string"),
        ({"language_config": {"code_switching": 1}}, "language_config.code_switching must be a boolean value"),
        ({"language_config": {"language": "en"}}, "language_config.language must not be given: no such field"),
        ({"pre_processing": {"speech_threshold": 1.1}}, "pre_processing.speech_threshold must not be greater than 1"),
        ({"custom_metadata": []}, "custom_metadata must be an object"),
        (
            {"custom_metadata": {"a": float("nan")}},
            "custom_metadata must hold plain JSON: finite numbers and valid Unicode",
        ),
        (
            {"custom_metadata": {"a": ["\udfff"]}},
            "custom_metadata must hold plain JSON: finite numbers and valid Unicode",
        ),
        (
            {"custom_metadata": {"a": "x" * MAX_METADATA_CHARS}},
            "custom_metadata must not be longer than 2000 characters as JSON",
        ),
        (
            {"realtime_processing": {"custom_vocabulary_config": {"vocabulary": [1]}}},
            "realtime_processing.custom_vocabulary_config.vocabulary.0 must be a string or an object",
        ),
        (
            {"realtime_processing": {"custom_vocabulary_config": {"vocabulary": ["a", {"intensity": 1}]}}},
            "realtime_processing.custom_vocabulary_config.vocabulary.1.value must be given",
        ),
        (
            {"realtime_processing": {"custom_vocabulary_config": {"vocabulary": None}}},
            "realtime_processing.custom_vocabulary_config.vocabulary must be given",
        ),
        (
            {"realtime_processing": {"custom_spelling_config": {"spelling_dictionary": {"a": "b"}}}},
            "realtime_processing.custom_spelling_config.spelling_dictionary.a must be an array",
        ),
        (
            {"realtime_processing": {"translation_config": {"target_languages": []}}},
            "realtime_processing.translation_config.target_languages must contain at least 1 item",
        ),
        (
            {"post_processing": {"summarization_config": {"type": "long"}}},
            "post_processing.summarization_config.type must be one of the following values: general, bullet_points",
        ),
        (
            {"realtime_processing": {"custom_vocabulary_config": {"vocabulary": ["a"] * 1001}}},
            "realtime_processing.custom_vocabulary_config.vocabulary must not contain more than 1000 entries",
        ),
        (
            {
                "realtime_processing": {
                    "custom_vocabulary_config": {"vocabulary": ["a", {"value": "b", "pronunciations": ["c" * 9_999]}]}
                }
            },
            "realtime_processing.custom_vocabulary_config.vocabulary must not be longer than 10000 characters in all",
        ),
        (
            {"realtime_processing": {"custom_spelling_config": {"spelling_dictionary": {"a": ["b" * 10_000]}}}},
            "realtime_processing.custom_spelling_config.spelling_dictionary must not be longer than 10000 characters",
        ),
        ({"callback_config": {"url": "ftp://example.org"}}, "callback_config.url must be an http or https URL"),
        ({"callback_config": {"url": "not a url"}}, "callback_config.url must be an http or https URL"),
        ({"xyz": 1}, "xyz must not be given: no such field"),
        ({"messages_config": {"recieve_errors": True}}, "messages_config.recieve_errors must not be given: "),
        (
            {"realtime_processing": {"custom_vocabulary": True}},
            "realtime_processing.custom_vocabulary_config must be given when realtime_processing.custom_vocabulary is",
        ),
        (
            {"realtime_processing": {"translation": True, "translation_config": None}},
            "realtime_processing.translation_config must be given when realtime_processing.translation is true",
        ),
        ({"callback": True}, "callback_config.url must be given when callback is true"),
        ({"callback": True, "callback_config": {}}, "callback_config.url must be given when callback is true"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(body, problem):
    """One wrong field gives one string: its path, then what it must be."""
    (found,) = problems_of(body)
    assert found.startswith(problem)


def test_an_unknown_language_code_is_a_mistake_and_not_a_missing_ability():
    """Codes outside the protocol's list break the contract, even beside known ones."""
    (found,) = problems_of({"language_config": {"languages": ["en", "jv"]}}, ENGLISH)
    assert found.startswith("language_config.languages.1 must be one of the following values: af, am, ")


def test_every_wrong_field_is_reported_at_once():
    """A client can mend all its mistakes after one answer."""
    found = problems_of({"endpointing": 11, "language_config": {"languages": "en"}, "bit_depth": 1, "callback": "no"})
    assert {problem.split(" ")[0] for problem in found} == {
        "endpointing",
        "language_config.languages",
        "bit_depth",
        "callback",
    }


def test_an_answer_stays_small_whatever_is_sent():
    """Thousands of wrong items and endless names give a bounded list of short, printable strings."""
    found = problems_of({"language_config": {"languages": [1] * 5000}, "x" * 100_000: 1})
    assert len(found) == MAX_PROBLEMS
    (shown,) = problems_of({"x\n\ud800" + "y" * 100_000: 1})
    assert shown.startswith("x??yyy")
    assert len(shown) < 200


@pytest.mark.parametrize(
    "body",
    [
        {"region": "us-west"},
        {"model_type": "accurate"},
        {"words_accurate_timestamps": True},
        {"realtime_processing": {"words_accurate_timestamps": True}},
    ],
)
def test_names_of_older_clients_are_ignored(body):
    """What only older clients send changes nothing and shows nowhere."""
    assert parse_request(body, ENGLISH) == parse_request({}, ENGLISH)


def test_null_means_absent():
    """An explicit null is the default, at the top, in an object, and for a whole object; metadata keeps its nulls."""
    body = {
        "sample_rate": None,
        "language_config": None,
        "messages_config": {"receive_final_transcripts": None},
        "unheard_of": None,
        "custom_metadata": {"desk": None},
    }
    parsed = parse_request(body, ENGLISH)
    assert parsed.request == parse_request({}, ENGLISH).request
    assert parsed.custom_metadata == {"desk": None}


def test_integral_floats_pass_for_integers():
    """JSON has one number type, so 44100.0 is 44100, and comes out as an integer."""
    request = parse_request({"sample_rate": 44100.0, "bit_depth": 24.0, "channels": 2.0}, ENGLISH).request
    assert [(request[name], type(request[name])) for name in ("sample_rate", "bit_depth", "channels")] == [
        (44100, int),
        (24, int),
        (2, int),
    ]


@pytest.mark.parametrize("rate", [8000, 11025, 24000, 48000])
def test_any_rate_from_8_to_48_khz_passes(rate):
    """Pipecat sends the rate of its pipeline, which need not be one of Gladia's five."""
    assert parse_request({"sample_rate": rate}, ENGLISH).options.audio.sample_rate == rate


def test_mulaw_with_the_depth_of_pcm_passes():
    """Twilio bridges state 16 bits beside µ-law; its samples are bytes all the same."""
    audio = parse_request({"encoding": "wav/ulaw", "bit_depth": 16, "sample_rate": 8000}, ENGLISH).options.audio
    assert audio.frame_bytes == 1


@pytest.mark.parametrize("model", ["solaria-1", "solaria-3", "fast", ""])
def test_any_model_name_is_kept(model):
    """Clients of every age name models; the name is echoed."""
    assert parse_request({"model": model}, ENGLISH).request["model"] == model


def test_metadata_may_be_nested_but_not_endlessly():
    """Sixty-four levels pass; what would exhaust a stack is refused like any other mistake."""
    value = {}
    for _ in range(63):
        value = {"a": value}
    assert parse_request({"custom_metadata": value}, ENGLISH).custom_metadata == value
    (found,) = problems_of({"custom_metadata": {"a": value}})
    assert found == "custom_metadata must not be nested deeper than 64 levels"
    for _ in range(100_000):
        value = [value]
    (found,) = problems_of({"custom_metadata": {"a": value}})
    assert found == "custom_metadata must not be nested so deeply"


def test_metadata_of_exactly_2000_characters_passes():
    """The limit counts the characters of the compact JSON text, and includes its last value."""
    frame = len('{"a":""}')
    assert parse_request({"custom_metadata": {"a": "é" * (MAX_METADATA_CHARS - frame)}}, ENGLISH)
    assert problems_of({"custom_metadata": {"a": "é" * (MAX_METADATA_CHARS - frame + 1)}})


@pytest.mark.parametrize(
    ("body", "feature"),
    [
        (
            {
                "realtime_processing": {
                    "custom_vocabulary": True,
                    "custom_vocabulary_config": {"vocabulary": ["Femke"]},
                }
            },
            "custom_vocabulary",
        ),
        (
            {
                "realtime_processing": {
                    "custom_spelling": True,
                    "custom_spelling_config": {"spelling_dictionary": {"Femke": ["femka"]}},
                }
            },
            "custom_spelling",
        ),
        (
            {"realtime_processing": {"translation": True, "translation_config": {"target_languages": ["wo"]}}},
            "translation",
        ),
        ({"realtime_processing": {"named_entity_recognition": True}}, "named_entity_recognition"),
        ({"realtime_processing": {"sentiment_analysis": True}}, "sentiment_analysis"),
        ({"realtime_processing": {"diarization": True}}, "diarization"),
        ({"realtime_processing": {"pii_redaction": True}}, "pii_redaction"),
        ({"post_processing": {"summarization": True}}, "summarization"),
        ({"callback": True, "callback_config": {"url": "http://127.0.0.1:1/hook"}}, "callback"),
    ],
)
def test_a_missing_feature_is_refused_by_name_and_passes_where_it_exists(body, feature):
    """A good request for what is not installed says what is missing; the same request passes where it is there."""
    with pytest.raises(Unsupported, match=rf"nothing on this installation provides {feature} .*set it to false"):
        parse_request(body, ENGLISH)
    parse_request(body, Capabilities(languages=frozenset(), features=frozenset({feature})))


def test_a_missing_feature_says_what_would_provide_it():
    """An add-on that lacks something tells the caller which setting it wants."""
    known = Capabilities(languages=frozenset(), remedies={"summarization": "start vivavoce with --such-and-such"})
    with pytest.raises(Unsupported, match=r"provides summarization \(start vivavoce with --such-and-such\)"):
        parse_request({"post_processing": {"summarization": True}}, known)


def test_features_come_with_all_their_options():
    """What is switched on, with defaults filled in; what is configured and not switched on is off."""
    asked = {
        "realtime_processing": {
            "translation": True,
            "translation_config": {"target_languages": ["fr"], "informal": True},
            "pii_redaction": True,
            "sentiment_analysis": True,
            "custom_spelling_config": {"spelling_dictionary": {"Femke": ["femka"]}},
        },
        "post_processing": {"summarization": True, "chapterization": True},
    }
    parsed = parse_request(asked, Capabilities(languages=frozenset(), features=FEATURES))
    assert parsed.options.features == {
        Feature.PII_REDACTION: {"entity_types": [], "processed_text_type": "MARKER", "redact_audio": False},
        Feature.SENTIMENT_ANALYSIS: {},
        Feature.TRANSLATION: {
            "target_languages": ["fr"],
            "model": "base",
            "match_original_utterances": True,
            "lipsync": True,
            "context_adaptation": True,
            "informal": True,
        },
        Feature.SUMMARIZATION: {"type": "general"},
    }
    assert options_of(json.loads(json.dumps(parsed.request))) == parsed.options


def test_extensions_show_only_where_they_are_asked_for():
    """The effective request of everybody else is what Gladia's would be."""
    every = Capabilities(languages=frozenset(), features=FEATURES)
    plain = parse_request({}, every).request["realtime_processing"]
    assert not {"diarization", "pii_redaction", "turn_hints"} & set(plain)
    asked = {"diarization": True, "diarization_config": {"max_speakers": 4.0}, "pii_redaction": False}
    shown = parse_request({"realtime_processing": asked}, every).request["realtime_processing"]
    assert shown == {**plain, "diarization": True, "diarization_config": {"max_speakers": 4}}


def test_hints_at_the_end_of_a_turn_are_said_to_those_who_ask():
    """Asking switches them on, whatever messages_config says, and for the socket only."""
    none = Capabilities(languages=frozenset())
    plain = parse_request({}, none).options
    assert (plain.turn_silence_s, Kind.TURN in plain.wanted) == (None, False)
    for config, silence_s in (({}, 0.1), ({"turn_hints_config": {"silence": 0.4}}, 0.4)):
        asked = parse_request({"realtime_processing": {"turn_hints": True, **config}}, none)
        assert (asked.options.turn_silence_s, asked.options.wanted - plain.wanted) == (silence_s, {Kind.TURN})
        assert Kind.TURN not in asked.options.callback_wanted
        assert options_of(json.loads(json.dumps(asked.request))) == asked.options
    off = parse_request({"realtime_processing": {"turn_hints": False, "turn_hints_config": {}}}, none).options
    assert off == plain
    with pytest.raises(InvalidConfig) as refused:
        parse_request({"realtime_processing": {"turn_hints_config": {"silence": 0.05}}}, none)
    assert refused.value.problems == ("realtime_processing.turn_hints_config.silence must not be less than 0.1",)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"diarization_config": {"number_of_speakers": 0}}, "number_of_speakers must not be less than 1"),
        ({"diarization_config": {"min_speakers": -1}}, "min_speakers must not be less than 0"),
        ({"diarization_config": {"speakers": 1}}, "speakers must not be given: no such field"),
        (
            {"diarization_config": {"number_of_speakers": 3, "max_speakers": 2}},
            " must not hold numbers of speakers that contradict each other",
        ),
        (
            {"pii_redaction_config": {"processed_text_type": "BLUR"}},
            "processed_text_type must be one of the following values: MARKER, MASK",
        ),
        ({"pii_redaction_config": {"entity_types": ["NAME", 1]}}, "entity_types.1 must be a string"),
    ],
)
def test_extensions_are_checked_like_the_rest(config, problem):
    """Each mistake names its field."""
    (config_name,) = config
    separator = "" if problem.startswith(" ") else "."
    assert problems_of({"realtime_processing": config}) == [f"realtime_processing.{config_name}{separator}{problem}"]


@pytest.mark.parametrize(
    ("channels", "config", "expected"),
    [
        (1, None, Diarization()),
        (1, {"max_speakers": 0, "min_speakers": 0}, Diarization()),
        (1, {"number_of_speakers": 2, "min_speakers": 1, "max_speakers": 4}, Diarization(minimum=2, maximum=2)),
        (1, {"min_speakers": 2, "max_speakers": 4}, Diarization(minimum=2, maximum=4)),
        (2, None, Diarization(by_channel=True)),
        (2, {}, Diarization(by_channel=True)),
        (2, {"max_speakers": 3}, Diarization(maximum=3)),
    ],
)
def test_speakers_are_told_apart_as_asked(channels, config, expected):
    """By voice on one channel; with several the channel is the speaker, unless numbers of speakers are given."""
    asked = {"diarization": True, "diarization_config": config}
    every = Capabilities(languages=frozenset(), features=FEATURES)
    parsed = parse_request({"channels": channels, "realtime_processing": asked}, every)
    assert parsed.options.diarization == expected
    assert parse_request({"realtime_processing": {**asked, "diarization": False}}, every).options.diarization is None


def test_a_missing_language_is_refused_with_what_there_is():
    """The answer names the languages that are missing and the ones to ask for, all at once with other lacks."""
    body = {"language_config": {"languages": ["nl", "en", "fr"]}, "post_processing": {"summarization": True}}
    with pytest.raises(Unsupported) as caught:
        parse_request(body, ENGLISH)
    assert "does not know fr, nl (it knows: en)" in str(caught.value)
    assert "post_processing.summarization" in str(caught.value)


def test_mistakes_are_reported_before_missing_features():
    """A request that is both wrong and too much is wrong first."""
    assert problems_of({"realtime_processing": {"sentiment_analysis": True}, "channels": 0}, ENGLISH)


@pytest.mark.parametrize("flag", ["chapterization", "summarization"])
def test_features_switched_off_ask_for_nothing(flag):
    """False is always fine, whatever is installed."""
    parse_request({"post_processing": {flag: False}}, ENGLISH)


def test_the_audio_enhancer_is_accepted_and_changes_nothing():
    """It shows in the effective request, and the session is like any other."""
    parsed = parse_request({"pre_processing": {"audio_enhancer": True}}, ENGLISH)
    assert parsed.request["pre_processing"]["audio_enhancer"] is True
    assert parsed.options == parse_request({}, ENGLISH).options


def test_chapterization_is_accepted_and_ignored():
    """SDK 2 ignores it, so it must not stop a session."""
    assert parse_request({"post_processing": {"chapterization": True}}, ENGLISH).options == SessionOptions(
        wanted=DEFAULT_KINDS
    )


def test_capabilities_cannot_be_changed():
    """They are shared by all requests."""
    with pytest.raises(FrozenInstanceError):
        ENGLISH.languages = frozenset()


def test_every_field_is_described_for_openapi():
    """The OpenAPI document says of each field what it is for, unless its type does."""
    schema = InitRequest.model_json_schema()
    objects = [schema, *schema["$defs"].values()]
    for properties in (found["properties"] for found in objects):
        for name, field in properties.items():
            assert "description" in field or "$ref" in json.dumps(field), name
    assert schema["properties"]["bit_depth"]["enum"] == [8, 16, 24, 32]
    assert schema["$defs"]["LanguageConfig"]["properties"]["languages"]["items"]["enum"] == sorted(LANGUAGES)


NAMES = sorted(
    {
        name
        for found in (InitRequest.model_json_schema(), *InitRequest.model_json_schema()["$defs"].values())
        for name in found["properties"]
    }
    | {"region", "words_accurate_timestamps"}
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.sampled_from([1, 2, 5, 8, 16, 16.0, 24000, 10**400, "en", "nl", "wav/pcm", "general", "http://example.org"])
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=8)
    | st.just("\ud800")
)
KEYS = st.sampled_from(NAMES) | st.text(max_size=5) | st.just("\udfff")
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


def outcome(body, capabilities):
    try:
        return parse_request(body, capabilities)
    except (InvalidConfig, Unsupported) as refusal:
        return refusal


@given(body=JSON | st.dictionaries(KEYS, JSON, max_size=6), capabilities=st.sampled_from([ENGLISH, EVERYTHING]))
def test_any_body_is_read_or_refused_in_words_that_can_be_sent(body, capabilities):
    """Whatever JSON arrives: a session, or problems that begin with a path, and never any other exception."""
    match outcome(body, capabilities):
        case InvalidConfig(problems=problems):
            assert problems
            assert len(set(problems)) == len(problems)
            names = set(body) if isinstance(body, dict) else set()
            for problem in problems:
                path, _, rest = problem.encode().decode().partition(" must ")
                assert rest not in {"", "be valid"}
                top = path.split(".")[0]
                assert top == "body" or top in NAMES or any(not name.isidentifier() or name == top for name in names)
        case Unsupported() as refusal:
            assert str(refusal).encode()
            assert capabilities is ENGLISH
        case parsed:
            text = json.dumps([parsed.request, parsed.custom_metadata], allow_nan=False, ensure_ascii=False)
            stored = json.loads(text.encode())[0]
            assert options_of(stored) == parsed.options
            assert parse_request(stored, capabilities).request == parsed.request
