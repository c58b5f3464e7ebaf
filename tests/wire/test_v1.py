"""The V1 live protocol: its configuration as an init request, its frames, and what it says of a session."""

import json
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce import events as ev
from vivavoce.model import LANGUAGES, Utterance, Word
from vivavoce.wire.live import CloseCode, render
from vivavoce.wire.opening import Audio, Complaint, End, Opening, Refusal
from vivavoce.wire.schema import FEATURES, Capabilities, parse_request
from vivavoce.wire.v1 import V1Live

EVERYTHING = Capabilities(languages=LANGUAGES, features=FEATURES)
SESSION = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"
TWILIO = {
    "x_gladia_key": "vv_secret",
    "language_behaviour": "automatic multiple languages",
    "sample_rate": 8000,
    "encoding": "wav/ulaw",
    "bit_depth": 16,
}
"""The fields that Gladia's own Twilio sample sends."""

FULL = {
    "x_gladia_key": "vv_secret",
    "encoding": "WAV/PCM",
    "bit_depth": 24,
    "sample_rate": 44_100,
    "language_behaviour": "manual",
    "language": "Dutch",
    "transcription_hint": "vivavoce, Femke de Vries; HBO-V",
    "endpointing": 800,
    "model_type": "accurate",
    "frames_format": "bytes",
    "prosody": True,
    "audio_enhancer": True,
    "reinject_context": "true",
    "word_timestamps": True,
    "maximum_audio_duration": 10,
}
SAID = Utterance(
    id="00_00000620",
    channel=0,
    start=0.62,
    end=2.31,
    confidence=0.94,
    language="nl",
    words=(
        Word(text="Goede", start=0.62, end=1.18, confidence=0.96),
        Word(text="morgen.", start=1.2, end=2.31, confidence=0.92),
    ),
)


def request_of(**fields):
    """Give the init request of a configuration that is good, checked as `POST /v2/live` would."""
    opening = V1Live().open(json.dumps(fields))
    assert isinstance(opening, Opening), opening
    return parse_request(opening.request, EVERYTHING).request


def talking(**fields):
    """Give a connection whose session exists."""
    live = V1Live()
    assert isinstance(live.open(json.dumps(fields)), Opening)
    live.greet(SESSION)
    return live


def said(live, event, at_s=0.0):
    """Give an event as V1 says it."""
    text = render(SESSION, event, datetime(2026, 11, 3, tzinfo=UTC)).text
    return [json.loads(each) for each in live.render(text, at_s)]


def test_the_twilio_samples_configuration():
    """µ-law has eight bits whatever is stated, and each utterance's language is found anew."""
    opening = V1Live().open(json.dumps(TWILIO))
    assert (opening.key, opening.compression) == ("vv_secret", None)
    assert "vv_secret" not in json.dumps(opening.request)
    request = parse_request(opening.request, EVERYTHING).request
    assert (request["encoding"], request["sample_rate"]) == ("wav/ulaw", 8000)
    assert request["language_config"] == {"languages": [], "code_switching": True}


def test_all_fields_have_their_place():
    """By the rules of the migration page."""
    request = request_of(**FULL)
    assert (request["encoding"], request["bit_depth"], request["sample_rate"]) == ("wav/pcm", 24, 44_100)
    assert request["language_config"] == {"languages": ["nl"], "code_switching": False}
    assert (request["endpointing"], request["maximum_duration_without_endpointing"]) == (0.8, 10)
    assert request["pre_processing"]["audio_enhancer"] is True
    vocabulary = request["realtime_processing"]["custom_vocabulary_config"]["vocabulary"]
    assert vocabulary == ["vivavoce", "Femke de Vries", "HBO-V"]
    wanted = {flag for flag, on in request["messages_config"].items() if on}
    assert wanted == {"receive_final_transcripts", "receive_errors"}


@pytest.mark.parametrize("name", ["prosody", "reinject_context"])
def test_what_has_no_effect_may_be_a_flag_or_text(name):
    """Clients of old wrote either."""
    for value in (True, False, "true"):
        assert request_of(**{name: value}) == request_of()


def test_the_defaults_are_those_of_v1():
    """300 ms, 30 s, 16 kHz of 16 bits, partials."""
    request = request_of()
    assert (request["encoding"], request["bit_depth"], request["sample_rate"]) == ("wav/pcm", 16, 16_000)
    assert (request["endpointing"], request["maximum_duration_without_endpointing"]) == (0.3, 30)
    assert request["language_config"] == {"languages": [], "code_switching": False}
    assert request["messages_config"]["receive_partial_transcripts"]
    assert request["realtime_processing"]["custom_vocabulary"] is False


@pytest.mark.parametrize(
    ("encoding", "theirs", "compression"),
    [
        ("WAV", "wav/pcm", None),
        ("wav", "wav/pcm", None),
        ("WAV/PCM", "wav/pcm", None),
        ("wav/alaw", "wav/alaw", None),
        ("WAV/ULAW", "wav/ulaw", None),
        ("OPUS", "wav/pcm", "opus"),
        ("mp3", "wav/pcm", "mp3"),
        ("FLAC", "wav/pcm", "flac"),
        ("AMR-NB", "wav/pcm", "amr"),
    ],
)
def test_encodings(encoding, theirs, compression):
    """In upper and lower case; what is compressed becomes 16-bit PCM."""
    opening = V1Live().open(json.dumps({"encoding": encoding, "bit_depth": 24}))
    assert (opening.request["encoding"], opening.compression) == (theirs, compression)
    assert opening.request["bit_depth"] == (24 if compression is None else 16)


@pytest.mark.parametrize(
    ("name", "code"),
    [("english", "en"), ("Dutch", "nl"), ("haitian creole", "ht"), ("JAVANESE", "jw"), ("fr", "fr"), ("myanmar", "my")],
)
def test_languages_by_name(name, code):
    """English names as the service wrote them, or codes; naming one is enough to mean it."""
    assert request_of(language=name)["language_config"]["languages"] == [code]
    assert request_of(language=name, language_behaviour="manual")["language_config"]["languages"] == [code]
    automatic = request_of(language=name, language_behaviour="automatic single language")
    assert automatic["language_config"]["languages"] == []


def test_each_language_of_the_protocol_has_a_name():
    """So nobody needs a code."""
    from vivavoce.wire.v1 import _language_names  # noqa: PLC0415

    named = {code for name, code in _language_names().items() if name != code}
    assert named == LANGUAGES


@pytest.mark.parametrize(("asked", "taken"), [(1, 5), (5, 5), (30.5, 30.5), (600, 60)])
def test_the_longest_utterance_stays_within_what_a_session_can_have(asked, taken):
    """V1 names no bounds, so none of its clients is refused for them."""
    assert request_of(maximum_audio_duration=asked)["maximum_duration_without_endpointing"] == taken


def test_a_hint_in_sentences_is_no_vocabulary():
    """And one beyond 600 characters is cut off, as V1 does."""
    prose = "This is a conversation between a nurse and a patient about hearing aids."
    assert request_of(transcription_hint=prose)["realtime_processing"]["custom_vocabulary"] is False
    many = ", ".join(f"name{i}" for i in range(200))
    vocabulary = request_of(transcription_hint=many)["realtime_processing"]["custom_vocabulary_config"]["vocabulary"]
    assert 50 < len(vocabulary) < 100


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"encoding": "OGG/VORBIS"},
            "encoding must be one of the following values: WAV, WAV/PCM, WAV/ALAW, WAV/ULAW, OPUS, MP3, FLAC, AMR-NB;",
        ),
        ({"encoding": "sphere"}, "encoding must be one of the following values: WAV, WAV/PCM"),
        ({"encoding": "wave"}, "encoding must be one of the following values: WAV, WAV/PCM"),
        ({"bit_depth": 64}, "bit_depth must be one of the following values: 8, 16, 24, 32"),
        ({"sample_rate": 4000}, "sample_rate must not be less than 8000"),
        ({"language": "klingon"}, "language must be the English name of a language"),
        ({"language_behaviour": "manual"}, "language must be given where language_behaviour is manual"),
        ({"language_behaviour": "guess"}, "language_behaviour must be one of"),
        ({"endpointing": 0.3}, "endpointing must not be less than 10"),
        ({"maximum_audio_duration": 0}, "maximum_audio_duration must be greater than 0"),
        ({"frames_format": "hex"}, "frames_format must be one of"),
        ({"diarization": True}, "diarization must not be given: no such field"),
    ],
)
def test_a_bad_configuration_is_refused_by_the_fields_name(fields, told):
    """With a code from 4400 to 4499, after which clients of V1 look at the reason and do not come back."""
    refusal = V1Live().open(json.dumps(fields))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.close) == ("bad_config", CloseCode.BAD_REQUEST)
    assert refusal.message.startswith(told)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\0\0", "config_expected"),
        ('{"frames": "AAAA"}', "config_expected"),
        ('{"event": "terminate"}', "config_expected"),
        ("7", "malformed_message"),
        ("", "malformed_message"),
    ],
)
def test_anything_but_a_configuration_is_refused_at_first(frame, code):
    """Audio included."""
    refusal = V1Live().open(frame)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.close) == (code, CloseCode.BAD_REQUEST)


@pytest.mark.parametrize("frames_format", ["base64", "bytes"])
def test_audio_is_told_by_its_frame(frames_format):
    """Whatever the configuration says of it; padding may be missing."""
    live = talking(frames_format=frames_format)
    assert live.receive(b"\1\2") == Audio(b"\1\2")
    assert live.receive(json.dumps({"frames": b64encode(b"\1\2").decode()})) == Audio(b"\1\2")
    assert live.receive('{"frames": "AQI"}') == Audio(b"\1\2")
    assert live.receive('{"frames": ""}') == Audio(b"")
    for frame, code in [
        ('{"frames": "?"}', "bad_frames"),
        ('{"frames": 7}', "bad_frames"),
        ('{"event": "stop"}', "malformed_message"),
        ("[]", "malformed_message"),
    ]:
        complaint = live.receive(frame)
        assert isinstance(complaint, Complaint)
        assert complaint.code == code
    assert live.receive('{"event": "terminate"}') == End()
    late = live.receive(b"\1")
    assert isinstance(late, Complaint)
    assert late.code == "after_end"


@given(st.one_of(st.binary(max_size=50), st.text(max_size=50), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*FULL, "frames", "event"]), inner, max_size=4),
).map(json.dumps)))  # fmt: skip
def test_no_frame_raises(frame):
    """Whatever comes, first or later, has an answer, and an answer can be sent."""
    live = talking()
    for answer in (V1Live().open(frame), live.receive(frame)):
        if isinstance(answer, Refusal | Complaint):
            live.error(answer.code, answer.message).encode()


def test_the_greeting_names_the_request():
    """By the name that the session's result has too."""
    live = V1Live()
    live.open("{}")
    assert [json.loads(text) for text in live.greet(SESSION)] == [{"event": "connected", "request_id": "G-7c1e2b90"}]


def test_a_transcript_has_all_fields():
    """At the top and for its one utterance; times in seconds, text without v2's leading blank."""
    live = talking(word_timestamps=True, sample_rate=8000)
    live.took(16_000 * 2, 100.0)
    live.took(16_000, 101.0)
    words = [
        {"word": "Goede", "time_begin": 0.62, "time_end": 1.18, "confidence": 0.96},
        {"word": "morgen.", "time_begin": 1.2, "time_end": 2.31, "confidence": 0.92},
    ]
    same = {
        "transcription": "Goede morgen.",
        "language": "nl",
        "time_begin": 0.62,
        "time_end": 2.31,
        "confidence": 0.94,
        "words": words,
    }
    assert said(live, ev.Final(utterance=SAID), at_s=101.25) == [
        {
            "event": "transcript",
            "request_id": "G-7c1e2b90",
            "type": "final",
            **same,
            "duration": 3.0,
            "inference_time": 0.25,
            "utterances": [{"id": 0, "stable": True, **same}],
        }
    ]


def test_words_come_on_request_only():
    """As in V1."""
    (final,) = said(talking(), ev.Final(utterance=SAID))
    assert "words" not in final
    assert "words" not in final["utterances"][0]


def test_utterances_are_numbered_from_their_first_partial_to_their_final():
    """From 0, in the order in which they began."""
    live = talking()
    later = replace(SAID, id="00_00009000")
    story = [
        ev.Partial(utterance=SAID),
        ev.Final(utterance=SAID),
        ev.Partial(utterance=later),
        ev.Final(utterance=later),
    ]
    told = [said(live, event)[0]["utterances"][0] for event in story]
    assert [(each["id"], each["stable"]) for each in told] == [(0, False), (0, True), (1, False), (1, True)]


def test_partials_without_a_final_are_not_kept_for_ever():
    """A session of hours stays small."""
    live = talking()
    for i in range(1000):
        said(live, ev.Partial(utterance=replace(SAID, id=f"00_{i:08}")))
        live.took(3200, i / 10)
    assert len(live._numbers) < 100
    assert len(live._marks) <= 4096


def test_errors_are_told_as_the_clients_of_old_look_for_them():
    """They take any message with `error` for one, and nothing else."""
    live = talking()
    (problem,) = said(live, ev.Problem(code="session_timeout", message="the session was idle"))
    assert problem == {
        "event": "error",
        "request_id": "G-7c1e2b90",
        "code": "session_timeout",
        "message": "the session was idle",
        "error": "the session was idle",
    }
    assert "error" not in said(live, ev.Final(utterance=SAID))[0]
    assert said(live, ev.RecordingStarted()) == []
