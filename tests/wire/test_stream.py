"""The simple stream: its configuration as an init request, its frames, and what it says of a session."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce import events as ev
from vivavoce.errors import (
    CapacityError,
    EngineError,
    InvalidConfig,
    NotAllowed,
    RateExceeded,
    Unavailable,
    Unsupported,
)
from vivavoce.model import LANGUAGES, Utterance, Word
from vivavoce.wire.live import CloseCode, render
from vivavoce.wire.opening import MAX_CONFIG_CHARS, Audio, Complaint, End, Opening, Refusal, refusal_of
from vivavoce.wire.schema import FEATURES, Capabilities, parse_request
from vivavoce.wire.stream import NAMES, SimpleStream

EVERYTHING = Capabilities(languages=LANGUAGES, features=FEATURES)
EXAMPLE = {
    "type": "config",
    "language": "auto",
    "sample_rate": 8000,
    "encoding": "pcm_s16le",
    "diarization": True,
    "enable_partials": True,
    "call_id": "desk-3-0412",
}
SAID = Utterance(
    id="00_00000620",
    channel=0,
    start=0.62,
    end=2.31,
    confidence=0.94,
    language="nl",
    words=(Word(text="Goedemorgen,", start=0.62, end=1.18, confidence=0.96),),
    speaker=1,
)


def opened(**fields):
    """Give what a configuration opens."""
    return SimpleStream().open(json.dumps({"type": "config", **fields}))


def request_of(**fields):
    """Give the init request of a configuration that is good, checked as `POST /v2/live` would."""
    opening = opened(**fields)
    assert isinstance(opening, Opening), opening
    return parse_request(opening.request, EVERYTHING)


def message(event):
    """Give an event as v2 says it."""
    return render("7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5", event, datetime(2026, 11, 3, tzinfo=UTC)).text


def said(event):
    """Give an event as the simple stream says it."""
    return [json.loads(text) for text in SimpleStream().render(message(event), 0.0)]


def test_the_configuration_becomes_an_init_request():
    """Every field has its place in v2, and nothing but transcripts and errors is asked for."""
    parsed = request_of(**{name: value for name, value in EXAMPLE.items() if name != "type"})
    request = parsed.request
    assert (request["encoding"], request["sample_rate"], request["channels"]) == ("wav/pcm", 8000, 1)
    assert request["language_config"] == {"languages": [], "code_switching": False}
    assert request["realtime_processing"]["diarization"] is True
    assert parsed.custom_metadata == {"call_id": "desk-3-0412"}
    wanted = {flag for flag, on in request["messages_config"].items() if on}
    assert wanted == {"receive_partial_transcripts", "receive_final_transcripts", "receive_errors"}


def test_all_fields_may_be_left_out():
    """The defaults are 16 kHz PCM, any language, no partials, no speakers."""
    opening = opened()
    assert opening == SimpleStream().open('{"type": "config", "language": null, "api_key": null}')
    assert (opening.key, opening.compression) == (None, None)
    request = request_of().request
    assert (request["encoding"], request["sample_rate"]) == ("wav/pcm", 16_000)
    assert not request["messages_config"]["receive_partial_transcripts"]
    assert "diarization" not in request["realtime_processing"]


@pytest.mark.parametrize(
    ("encoding", "theirs", "compression"),
    [
        ("pcm_s16le", "wav/pcm", None),
        ("mulaw", "wav/ulaw", None),
        ("alaw", "wav/alaw", None),
        ("opus", "wav/pcm", "opus"),
    ],
)
def test_encodings(encoding, theirs, compression):
    """Opus becomes PCM of the stated rate; the others are what v2 knows under other names."""
    assert opened(encoding=encoding).compression == compression
    request = request_of(encoding=encoding, sample_rate=8000).request
    assert (request["encoding"], request["bit_depth"], request["sample_rate"]) == (theirs, 16, 8000)


@pytest.mark.parametrize(("given_", "codes"), [("auto", []), ("nl", ["nl"]), ("en-US", ["en"]), ("ZH_tw", ["zh"])])
def test_languages(given_, codes):
    """A code may have a region; `auto` leaves it to the engine."""
    assert request_of(language=given_).request["language_config"]["languages"] == codes


@pytest.mark.parametrize("name", ["api_key", "x_gladia_key", "x-gladia-key"])
def test_the_key_may_come_in_the_configuration(name):
    """Browsers cannot set headers; it goes nowhere but to the check."""
    opening = opened(**{name: "vv_secret"})
    assert opening.key == "vv_secret"
    assert "vv_secret" not in json.dumps(opening.request)


def test_a_key_given_twice_is_the_same_key_or_refused():
    """Nobody has to guess which one counts."""
    assert opened(api_key="one", x_gladia_key="one").key == "one"
    refusal = opened(api_key="one", x_gladia_key="two")
    assert isinstance(refusal, Refusal)
    assert refusal.code == "bad_config"
    assert refusal.message == "x_gladia_key and api_key must be the same key; one of them is enough"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sample_rate": 7999}, "sample_rate must not be less than 8000"),
        ({"sample_rate": 96_000}, "sample_rate must not be greater than 48000"),
        ({"sample_rate": "8000"}, "sample_rate must be an integer number"),
        ({"encoding": "mp3"}, "encoding must be one of the following values: pcm_s16le, mulaw, alaw, opus"),
        ({"language": "klingon"}, "language must be one of the following values: auto"),
        ({"language": 7}, "language must be a string"),
        ({"diarization": "yes"}, "diarization must be a boolean value"),
        ({"enable_partials": 1}, "enable_partials must be a boolean value"),
        ({"call_id": 7}, "call_id must be a string"),
        ({"call_id": "x" * 501}, "call_id must not be longer than 500 characters"),
        ({"enable_partial": True}, "enable_partial must not be given: no such field"),
    ],
)
def test_a_bad_configuration_is_refused_by_the_fields_name(fields, named):
    """The client reads which field, and is not to come back with the same."""
    refusal = opened(**fields)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.close) == ("bad_config", CloseCode.BAD_REQUEST)
    assert refusal.message.startswith(named)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\0\0", "config_expected"),
        (b"", "config_expected"),
        ('{"type": "end_of_stream"}', "config_expected"),
        ("", "malformed_message"),
        ("[1]", "malformed_message"),
        ("{", "malformed_message"),
        ('{"type": "config", "sample_rate": NaN}', "malformed_message"),
        ("{}", "bad_config"),
        ('{"type": "start"}', "bad_config"),
        ('{"call_id": "' + "x" * MAX_CONFIG_CHARS + '"}', "bad_config"),
        ("[" * 60_000, "malformed_message"),
    ],
)
def test_anything_but_a_configuration_is_refused_at_first(frame, code):
    """Audio included."""
    refusal = SimpleStream().open(frame)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.close) == (code, CloseCode.BAD_REQUEST)


def test_frames_after_the_configuration():
    """Audio, the end, and what counts for nothing."""
    stream = SimpleStream()
    stream.open(json.dumps(EXAMPLE))
    assert stream.receive(b"\1\2") == Audio(b"\1\2")
    assert stream.receive(b"") == Audio(b"")
    for frame, code in [
        (json.dumps(EXAMPLE), "config_repeated"),
        ('{"type": "stop_recording"}', "malformed_message"),
        ("{}", "malformed_message"),
        ("?", "malformed_message"),
    ]:
        complaint = stream.receive(frame)
        assert isinstance(complaint, Complaint)
        assert complaint.code == code
    assert stream.receive('{"type": "end_of_stream"}') == End()
    for late in (b"\1", '{"type": "end_of_stream"}'):
        complaint = stream.receive(late)
        assert isinstance(complaint, Complaint)
        assert complaint.code == "after_end"


@given(st.one_of(st.binary(max_size=50), st.text(max_size=50), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*EXAMPLE, "x"]), inner, max_size=4),
).map(json.dumps)))  # fmt: skip
def test_no_frame_raises(frame):
    """Whatever comes, first or later, has an answer, and an answer can be sent."""
    answer = SimpleStream().open(frame)
    stream = SimpleStream()
    stream.open(json.dumps(EXAMPLE))
    later = stream.receive(frame)
    for said_ in (answer, later):
        if isinstance(said_, Refusal | Complaint):
            stream.error(said_.code, said_.message).encode()


def test_transcripts_have_the_six_fields():
    """Without v2's leading blank; a partial has no speaker yet."""
    final = {"type": "transcript", "text": "Goedemorgen,", "is_final": True, "start_time": 0.62, "end_time": 2.31}
    assert said(ev.Final(utterance=SAID)) == [{**final, "speaker": 1}]
    unknown = Utterance(**{name: getattr(SAID, name) for name in SAID.__slots__ if name != "speaker"})
    assert said(ev.Partial(utterance=unknown)) == [{**final, "is_final": False, "speaker": None}]


def test_errors_have_a_code_and_a_message_and_the_rest_is_left_out():
    """Neither acknowledgments nor lifecycle have a word in this protocol."""
    problem = ev.Problem(code="session_timeout", message="the session was idle")
    assert said(problem) == [{"type": "error", "code": "session_timeout", "message": "the session was idle"}]
    assert said(ev.RecordingStarted()) == []
    assert SimpleStream().greet("7c1e2b90") == []


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (InvalidConfig("bad", ["sample_rate must be 1", "x must be 2"]), "bad_config", 4400),
        (Unsupported("language_config.languages: no"), "unsupported", 4400),
        (NotAllowed("no gladia key provided"), "unauthorized", 4401),
        (CapacityError("full"), "capacity", 4429),
        (RateExceeded("too fast"), "rate", 4429),
        (Unavailable("stopping"), "unavailable", 4429),
        (EngineError("broken"), "engine_error", 4450),
    ],
)
def test_every_reason_for_no_session_has_its_code(error, code, close):
    """What would fail again at once closes with 44xx."""
    refusal = refusal_of(error, NAMES)
    assert (refusal.code, refusal.close) == (code, close)
    assert "language_config" not in refusal.message
    if isinstance(error, InvalidConfig):
        assert refusal.message == "sample_rate must be 1; x must be 2"
