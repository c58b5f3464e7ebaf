"""The live socket: every event as a message the official SDK reads, every frame as something a client said."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from gladiaio_sdk.v2.live import generated_types as sdk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vivavoce import events as ev
from vivavoce.model import Entity, Feature, Finding, Result, Sentiment, Transcript, Translation, Utterance, Word
from vivavoce.wire.live import (
    MAX_MESSAGE_BYTES,
    AudioChunk,
    BadChunk,
    BadMessage,
    CloseCode,
    StopRecording,
    numbered,
    receive,
    render,
)
from vivavoce.wire.result import result_body, transcription_body

SESSION = "7c1e2b90-5d34-4f0a-9b6e-2f8a41c7d3e5"
AT = datetime(2026, 11, 3, 8, 15, 42, 118_900, tzinfo=UTC)
HEAD = {"session_id": SESSION, "created_at": "2026-11-03T08:15:42.118Z"}

SAID = Utterance(
    id="00_00000620",
    channel=0,
    start=0.62,
    end=2.3100004,
    confidence=0.93751,
    language="nl",
    words=(
        Word(text="Goedemorgen,", start=0.62, end=1.18, confidence=0.96),
        Word(text="bibliotheek.", start=1.47, end=2.3100004, confidence=0.88),
    ),
)
UTTERANCE = {
    "start": 0.62,
    "end": 2.31,
    "confidence": 0.938,
    "channel": 0,
    "language": "nl",
    "text": " Goedemorgen, bibliotheek.",
    "words": [
        {"word": " Goedemorgen,", "start": 0.62, "end": 1.18, "confidence": 0.96},
        {"word": " bibliotheek.", "start": 1.47, "end": 2.31, "confidence": 0.88},
    ],
}
TRANSCRIPT = Transcript(utterances=(SAID,))
TRANSCRIPTION = {
    "full_transcript": "Goedemorgen, bibliotheek.",
    "languages": ["nl"],
    "utterances": [UTTERANCE],
}

HELLO = Utterance(
    id="00_00000620",
    channel=0,
    start=0.62,
    end=2.3100004,
    confidence=0.93751,
    language="en",
    words=(Word(text="Hello.", start=0.62, end=2.3100004, confidence=0.9),),
)
TRANSLATED = {
    **UTTERANCE,
    "language": "en",
    "text": " Hello.",
    "words": [{"word": " Hello.", "start": 0.62, "end": 2.31, "confidence": 0.9}],
}
ENTITY = Entity(kind="LOCATION", text="bibliotheek", start=1.47, end=2.3100004, first=1, stop=2)
SENTIMENT = Sentiment(
    sentiment="neutral", emotion="neutral", text="Goedemorgen, bibliotheek.", start=0.62, end=2.31, channel=0
)


def looked(feature, found, **fields):
    return ev.UtteranceExamined(utterance=SAID, finding=Finding(feature=feature, found=found, **fields))


FAILURE = {"error": {"message": "the add-on took too long"}, "data": None}
FAILED = {"found": None, "error": "the add-on took too long"}
LOOKED = {"utterance_id": "00_00000620", "utterance": UTTERANCE}

EXAMPLES = [
    (ev.RecordingStarted(), {"type": "start_recording"}),
    (
        ev.AudioAccepted(start_byte=3200, stop_byte=6400, start_s=0.1, stop_s=0.2),
        {
            "type": "audio_chunk",
            "acknowledged": True,
            "error": None,
            "data": {"byte_range": [3200, 6400], "time_range": [0.1, 0.2]},
        },
    ),
    (
        ev.AudioRefused(reason="data.chunk is not valid base64"),
        {
            "type": "audio_chunk",
            "acknowledged": False,
            "error": {"message": "data.chunk is not valid base64"},
            "data": None,
        },
    ),
    (
        ev.StopAccepted(recorded_s=21.4, left_s=0.72),
        {
            "type": "stop_recording",
            "acknowledged": True,
            "error": None,
            "data": {"recording_duration": 21.4, "recording_left_to_process": 0.72},
        },
    ),
    (ev.SpeechStarted(channel=1, at_s=0.58), {"type": "speech_start", "data": {"time": 0.58, "channel": 1}}),
    (ev.SpeechEnded(channel=1, at_s=2.34), {"type": "speech_end", "data": {"time": 2.34, "channel": 1}}),
    (
        ev.Partial(utterance=SAID),
        {"type": "transcript", "data": {"id": "00_00000620", "is_final": False, "utterance": UTTERANCE}},
    ),
    (
        ev.TurnEndLikely(utterance=SAID, at_s=2.31, silence_s=0.104),
        {
            "type": "turn_end_likely",
            "data": {"id": "00_00000620", "channel": 0, "time": 2.31, "silence": 0.104, "utterance": UTTERANCE},
        },
    ),
    (
        ev.TurnContinued(utterance_id="00_00000620", channel=1),
        {"type": "turn_continued", "data": {"id": "00_00000620", "channel": 1}},
    ),
    (
        ev.Final(utterance=SAID),
        {"type": "transcript", "data": {"id": "00_00000620", "is_final": True, "utterance": UTTERANCE}},
    ),
    (
        looked(Feature.TRANSLATION, Translation(target="en", utterance=HELLO), target="en"),
        {
            "type": "translation",
            "error": None,
            "data": {
                **LOOKED,
                "original_language": "nl",
                "target_language": "en",
                "translated_utterance": TRANSLATED,
            },
        },
    ),
    (
        looked(Feature.NAMED_ENTITY_RECOGNITION, (ENTITY,)),
        {
            "type": "named_entity_recognition",
            "error": None,
            "data": {
                **LOOKED,
                "results": [{"entity_type": "LOCATION", "text": "bibliotheek", "start": 1.47, "end": 2.31}],
            },
        },
    ),
    (
        looked(Feature.SENTIMENT_ANALYSIS, (SENTIMENT,)),
        {
            "type": "sentiment_analysis",
            "error": None,
            "data": {
                **LOOKED,
                "results": [
                    {
                        "sentiment": "neutral",
                        "emotion": "neutral",
                        "text": "Goedemorgen, bibliotheek.",
                        "start": 0.62,
                        "end": 2.31,
                        "channel": 0,
                    }
                ],
            },
        },
    ),
    (looked(Feature.TRANSLATION, target="en", **FAILED), {"type": "translation", **FAILURE}),
    (looked(Feature.NAMED_ENTITY_RECOGNITION, **FAILED), {"type": "named_entity_recognition", **FAILURE}),
    (looked(Feature.SENTIMENT_ANALYSIS, **FAILED), {"type": "sentiment_analysis", **FAILURE}),
    (
        ev.TranscriptExamined(finding=Finding(feature=Feature.SUMMARIZATION, found="A library is called.")),
        {"type": "post_summarization", "error": None, "data": {"results": "A library is called."}},
    ),
    (
        ev.TranscriptExamined(finding=Finding(feature=Feature.SUMMARIZATION, **FAILED)),
        {"type": "post_summarization", **FAILURE},
    ),
    (ev.RecordingEnded(recorded_s=21.4), {"type": "end_recording", "data": {"recording_duration": 21.4}}),
    (ev.TranscriptReady(transcript=TRANSCRIPT), {"type": "post_transcript", "data": TRANSCRIPTION}),
    (
        ev.ResultReady(result=Result(transcript=TRANSCRIPT, audio_s=21.4, channels=2, transcription_s=3.0701)),
        {
            "type": "post_final_transcript",
            "data": {
                "metadata": {
                    "audio_duration": 21.4,
                    "number_of_distinct_channels": 2,
                    "billing_time": 42.8,
                    "transcription_time": 3.07,
                },
                "transcription": TRANSCRIPTION,
            },
        },
    ),
    (ev.SessionStarted(), {"type": "start_session"}),
    (ev.SessionEnded(), {"type": "end_session"}),
    (
        ev.Problem(code="session_timeout", message="the session reached its maximum duration"),
        {
            "type": "error",
            "data": {"code": "session_timeout", "message": "the session reached its maximum duration"},
        },
    ),
]


def body_of(event):
    return json.loads(render(SESSION, event, AT).text)


@pytest.mark.parametrize(("event", "body"), EXAMPLES, ids=[type(event).__name__ for event, _ in EXAMPLES])
def test_each_event_has_its_message(event, body):
    """The message of each event, field by field; one compact JSON object that keeps its event."""
    message = render(SESSION, event, AT)
    assert message.event is event
    assert json.loads(message.text) == {**HEAD, **body}
    assert "\n" not in message.text
    assert '": ' not in message.text


def test_there_is_an_example_of_every_event():
    """No event was forgotten above."""
    assert {type(event) for event, _ in EXAMPLES} == set(ev.Event.__args__)


def test_times_of_messages_are_utc():
    """A moment in any zone is written in UTC, cut to milliseconds."""
    there = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert json.loads(render(SESSION, ev.SessionEnded(), there).text)["created_at"] == "2026-11-03T08:15:42.118Z"


def test_a_speaker_is_named_only_where_one_is_known():
    """`speaker` is an integer or absent, never null."""
    known = Utterance(id="0", channel=0, start=0, end=1, confidence=1, language="en", words=(), speaker=0)
    assert body_of(ev.Final(utterance=known))["data"]["utterance"]["speaker"] == 0
    assert "speaker" not in body_of(ev.Final(utterance=SAID))["data"]["utterance"]


def test_numbers_that_are_none_are_written_as_zero():
    """A confidence an engine could not compute does not make a message that nobody can parse."""
    broken = Utterance(
        id="0",
        channel=0,
        start=0.0,
        end=float("inf"),
        confidence=float("nan"),
        language="en",
        words=(Word(text="a", start=0.0, end=1.0, confidence=float("-inf")),),
    )
    said = body_of(ev.Final(utterance=broken))["data"]["utterance"]
    assert (said["end"], said["confidence"], said["words"][0]["confidence"]) == (0.0, 0.0, 0.0)


def test_text_that_cannot_be_sent_is_mended():
    """A lone surrogate becomes a question mark; any other text arrives as it is."""
    spoken = Word(text="\ud800naïve 🎈", start=0, end=1, confidence=1)
    broken = Utterance(id="0", channel=0, start=0, end=1, confidence=1, language="en", words=(spoken,))
    text = render(SESSION, ev.Final(utterance=broken), AT).text
    assert json.loads(text.encode())["data"]["utterance"]["text"] == " ?naïve 🎈"


numbers = st.floats(0, 20_000)
words = st.builds(Word, text=st.text(min_size=1, max_size=12), start=numbers, end=numbers, confidence=st.floats(0, 1))
utterances = st.builds(
    Utterance,
    id=st.from_regex(r"[0-9]{2}_[0-9]{8}", fullmatch=True),
    channel=st.integers(0, 7),
    start=numbers,
    end=numbers,
    confidence=st.floats(),
    language=st.sampled_from(["en", "nl", "haw"]),
    words=st.lists(words, max_size=6).map(tuple),
    speaker=st.none() | st.integers(0, 9),
)
transcripts = st.builds(Transcript, utterances=st.lists(utterances, max_size=4).map(tuple))
entities = st.builds(
    Entity, kind=st.just("MONEY"), text=st.text(), start=numbers, end=numbers, first=st.just(0), stop=st.just(1)
)
sentiments = st.builds(
    Sentiment,
    sentiment=st.just("mixed"),
    emotion=st.just("anger"),
    text=st.text(),
    start=numbers,
    end=numbers,
    channel=st.integers(0, 7),
)
translations = st.builds(Translation, target=st.sampled_from(["fr", "wo"]), utterance=utterances)
answers = {
    Feature.NAMED_ENTITY_RECOGNITION: st.lists(entities, max_size=3).map(tuple),
    Feature.SENTIMENT_ANALYSIS: st.lists(sentiments, max_size=3).map(tuple),
    Feature.TRANSLATION: translations,
    Feature.SUMMARIZATION: st.text(),
}


def findings_of(feature, **fields):
    good = st.builds(Finding, feature=st.just(feature), found=answers[feature], spent_s=numbers, **fields)
    return good | st.builds(Finding, feature=st.just(feature), found=st.none(), error=st.text(), **fields)


utterance_findings = st.one_of(
    findings_of(Feature.NAMED_ENTITY_RECOGNITION),
    findings_of(Feature.SENTIMENT_ANALYSIS),
    findings_of(Feature.TRANSLATION, target=st.sampled_from(["fr", "wo"])),
)
results = st.builds(
    Result,
    transcript=transcripts,
    audio_s=numbers,
    channels=st.integers(1, 8),
    transcription_s=numbers,
    features=st.just({feature: {"target_languages": ["wo", "fr"]} for feature in answers}),
    findings=st.lists(utterance_findings | findings_of(Feature.SUMMARIZATION), max_size=6).map(tuple),
)
sizes = st.integers(0, 2**40)
events = st.one_of(
    st.just(ev.RecordingStarted()),
    st.builds(ev.AudioAccepted, start_byte=sizes, stop_byte=sizes, start_s=numbers, stop_s=numbers),
    st.builds(ev.AudioRefused, reason=st.text()),
    st.builds(ev.StopAccepted, recorded_s=numbers, left_s=numbers),
    st.builds(ev.SpeechStarted, channel=st.integers(0, 7), at_s=numbers),
    st.builds(ev.SpeechEnded, channel=st.integers(0, 7), at_s=numbers),
    st.builds(ev.Partial, utterance=utterances),
    st.builds(ev.Final, utterance=utterances),
    st.builds(ev.UtteranceExamined, utterance=utterances, finding=utterance_findings),
    st.builds(ev.RecordingEnded, recorded_s=numbers),
    st.builds(ev.TranscriptReady, transcript=transcripts),
    st.builds(ev.TranscriptExamined, finding=findings_of(Feature.SUMMARIZATION)),
    st.builds(ev.ResultReady, result=results),
    st.just(ev.SessionEnded()),
    st.builds(ev.Problem, code=st.sampled_from(["invalid_audio_format", "error"]), message=st.text()),
)


@given(event=events)
def test_the_sdk_reads_every_message_whole(lossless, event):
    """Whatever happens in a session, its message parses into the SDK's types, and nothing of it is lost or unknown."""
    text = render(SESSION, event, AT).text
    message = sdk.create_live_v2_web_socket_message_from_json(text)
    lossless(message, json.loads(text))
    assert isinstance(message, sdk.LiveV2UnknownWebSocketMessage) == isinstance(event, ev.Problem)
    assert message.session_id == SESSION


def long_transcript(count, *, word="word", channels=1):
    spoken = tuple(Word(text=word, start=i / 4, end=i / 4 + 0.2, confidence=0.9) for i in range(10))
    return Transcript(
        utterances=tuple(
            Utterance(
                id=f"{i % channels:02}_{i:08}",
                channel=i % channels,
                start=float(i),
                end=i + 2.5,
                confidence=0.9,
                language="en",
                words=spoken,
            )
            for i in range(count)
        )
    )


def posts_of(transcript):
    result = Result(transcript=transcript, audio_s=10.0, channels=1, transcription_s=1.0)
    post = render(SESSION, ev.TranscriptReady(transcript=transcript), AT).text
    final = render(SESSION, ev.ResultReady(result=result), AT).text
    for text in (post, final):
        assert len(text.encode()) <= MAX_MESSAGE_BYTES < 2**20
        sdk.create_live_v2_web_socket_message_from_json(text)
    assert json.loads(final)["data"]["metadata"] == result_body(result)["metadata"]
    assert json.loads(post)["data"] == json.loads(final)["data"]["transcription"]
    return json.loads(post)["data"]


def test_a_short_transcript_goes_out_whole():
    """What fits is not touched."""
    transcript = long_transcript(20)
    assert posts_of(transcript) == transcription_body(transcript)


def test_a_long_transcript_loses_its_words_first():
    """A message over the limit keeps its utterances and their texts, and says so with empty lists of words."""
    transcript = long_transcript(3000)
    assert posts_of(transcript) == transcription_body(transcript, words=False)


def test_a_longer_transcript_loses_its_utterances_next():
    """A message too long without words keeps the whole text."""
    transcript = long_transcript(12_000)
    assert posts_of(transcript) == {"full_transcript": transcript.text, "languages": ["en"], "utterances": []}


@pytest.mark.parametrize("word", ["word" * 10, "🎈" * 8, "\x01" * 8])
def test_the_longest_transcript_loses_the_end_of_its_text(word):
    """Text too long by itself is cut at its end, whether JSON writes its letters with one, four or six bytes."""
    transcript = long_transcript(6000, word=word)
    shown = posts_of(transcript)["full_transcript"]
    assert transcript.text.startswith(shown)
    assert len(json.dumps(shown, ensure_ascii=False).encode()) > MAX_MESSAGE_BYTES / 2


def test_an_endless_utterance_is_cut_as_well():
    """Even an engine gone mad does not make a message that clients choke on."""
    spoken = tuple(Word(text="mad" * 10, start=0.0, end=1.0, confidence=1.0) for _ in range(20_000))
    mad = Utterance(id="00_00000000", channel=0, start=0, end=1, confidence=1, language="en", words=spoken)
    unworded = render(SESSION, ev.Final(utterance=mad), AT).text
    assert json.loads(unworded)["data"]["utterance"]["words"] == []
    assert json.loads(unworded)["data"]["utterance"]["text"] == f" {mad.text}"
    madder = Utterance(id="0", channel=0, start=0, end=1, confidence=1, language="en", words=spoken * 3)
    hint = render(SESSION, ev.TurnEndLikely(utterance=madder, at_s=1.0, silence_s=0.1), AT).text
    assert len(hint.encode()) <= MAX_MESSAGE_BYTES
    cut = render(SESSION, ev.Partial(utterance=madder), AT).text
    assert MAX_MESSAGE_BYTES / 2 < len(cut.encode()) <= MAX_MESSAGE_BYTES
    assert f" {madder.text}".startswith(json.loads(cut)["data"]["utterance"]["text"])


MAD = Utterance(
    id="00_00000000",
    channel=0,
    start=0,
    end=1,
    confidence=1,
    language="en",
    words=tuple(Word(text="mad" * 10, start=0.0, end=1.0, confidence=1.0) for _ in range(60_000)),
)
MAD_FINDINGS = {
    "translation": Finding(
        feature=Feature.TRANSLATION, target="fr", found=Translation(target="fr", utterance=MAD), spent_s=1.0
    ),
    "entities": Finding(feature=Feature.NAMED_ENTITY_RECOGNITION, found=(ENTITY,) * 100_000),
    "sentiments": Finding(feature=Feature.SENTIMENT_ANALYSIS, found=(SENTIMENT,) * 100_000),
}


@pytest.mark.parametrize("utterance", [SAID, MAD], ids=["short", "endless"])
@pytest.mark.parametrize("finding", MAD_FINDINGS.values(), ids=MAD_FINDINGS)
def test_an_add_on_gone_mad_is_cut_as_well(utterance, finding):
    """What an add-on says of an utterance fits, however much it is, and is still what the SDK reads."""
    text = render(SESSION, ev.UtteranceExamined(utterance=utterance, finding=finding), AT).text
    assert len(text.encode()) <= MAX_MESSAGE_BYTES
    message = sdk.create_live_v2_web_socket_message_from_json(text)
    assert message.data.utterance_id == utterance.id
    if utterance is SAID:
        assert message.data.utterance.text == f" {SAID.text}"


def test_a_summary_without_end_is_cut():
    """A summary longer than a message loses its end."""
    finding = Finding(feature=Feature.SUMMARIZATION, found="so on " * 500_000)
    text = render(SESSION, ev.TranscriptExamined(finding=finding), AT).text
    assert MAX_MESSAGE_BYTES / 2 < len(text.encode()) <= MAX_MESSAGE_BYTES
    failed = Finding(feature=Feature.SUMMARIZATION, found=None, error="x" * 2_000_000)
    assert len(render(SESSION, ev.TranscriptExamined(finding=failed), AT).text) < 1000


def test_what_add_ons_found_goes_before_the_text_is_cut():
    """A result too long loses its lists, those of add-ons included, and keeps every text as long as that can be."""
    transcript = long_transcript(6000)
    result = Result(
        transcript=transcript,
        audio_s=10.0,
        channels=1,
        transcription_s=1.0,
        features={
            Feature.TRANSLATION: {"target_languages": ["fr"]},
            Feature.NAMED_ENTITY_RECOGNITION: {},
            Feature.SENTIMENT_ANALYSIS: {},
            Feature.SUMMARIZATION: {},
        },
        findings=(
            *(
                Finding(
                    feature=Feature.TRANSLATION,
                    utterance_id=utterance.id,
                    target="fr",
                    found=Translation(target="fr", utterance=utterance),
                )
                for utterance in transcript.utterances
            ),
            MAD_FINDINGS["entities"],
            MAD_FINDINGS["sentiments"],
            Finding(feature=Feature.SUMMARIZATION, found="Words."),
        ),
    )
    text = render(SESSION, ev.ResultReady(result=result), AT).text
    shown = json.loads(text)["data"]
    assert len(text.encode()) <= MAX_MESSAGE_BYTES
    assert shown["transcription"]["full_transcript"] == shown["translation"]["results"][0]["full_transcript"]
    assert shown["transcription"]["full_transcript"] == transcript.text
    assert shown["named_entity_recognition"]["results"] == []
    assert shown["sentiment_analysis"]["results"] == "[]"
    assert shown["summarization"]["results"] == "Words."
    sdk.create_live_v2_web_socket_message_from_json(text)


def test_reasons_stay_short():
    """Reasons may quote what a client sent; they are cut."""
    assert len(render(SESSION, ev.AudioRefused(reason="x" * 2_000_000), AT).text) < 1000
    assert len(render(SESSION, ev.Problem(code="c", message="\x01" * 2_000_000), AT).text) < 5000


def frame_of(chunk):
    return json.dumps({"type": "audio_chunk", "data": {"chunk": chunk}})


@given(audio=st.binary(max_size=500))
@example(audio=b"")
def test_audio_arrives_alike_as_bytes_and_as_base64(audio):
    """Both forms give the same bytes; none at all are a chunk too."""
    encoded = base64.b64encode(audio).decode()
    assert receive(audio) == receive(frame_of(encoded)) == AudioChunk(audio)


@given(audio=st.binary(max_size=100))
def test_missing_padding_is_forgiven(audio):
    """Base64 without its padding can mean one thing only."""
    assert receive(frame_of(base64.b64encode(audio).decode().rstrip("="))) == AudioChunk(audio)


def test_a_resume_frame_of_28_mb_is_read():
    """Pipecat sends up to 20 MB of audio again as one text frame."""
    audio = bytes(range(256)) * 80_000
    assert receive(frame_of(base64.b64encode(audio).decode())) == AudioChunk(audio)


@pytest.mark.parametrize(
    "frame", ['{"type": "stop_recording"}', '{"data":null,"type":"stop_recording","x":[1e999,NaN]}']
)
def test_stop_needs_no_more_than_its_type(frame):
    """Whatever else stands in the message does not matter."""
    assert receive(frame) == StopRecording()


@pytest.mark.parametrize(
    "chunk",
    [
        "AAA!",
        "AAAA\n",
        "AA AA",
        "A",
        "AAAAA",
        "=AAA",
        "AA==AA==",
        "AA-_",
        "ÄÖÜÄ",
        "🎈🎈🎈🎈",
        "\x00\x00\x00\x00",
    ],
)
def test_a_chunk_that_is_not_base64_is_refused_whole(chunk):
    """Blanks, other alphabets, text after the padding: a nack, rather than audio with a hole."""
    assert receive(frame_of(chunk)) == BadChunk("data.chunk is not valid base64")


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"audio_chunk"}',
        '{"type":"audio_chunk","data":null}',
        '{"type":"audio_chunk","data":"AAAA"}',
        '{"type":"audio_chunk","data":{}}',
        '{"type":"audio_chunk","data":{"chunk":null}}',
        '{"type":"audio_chunk","data":{"chunk":[0,1]}}',
    ],
)
def test_a_chunk_without_audio_is_refused(frame):
    """An audio message must say where its audio is."""
    assert receive(frame) == BadChunk("data.chunk must be a base64 string")


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "the message is not valid JSON"),
        ("hello", "the message is not valid JSON"),
        ('{"type":"stop_recording"', "the message is not valid JSON"),
        ('{"type":"stop_recording"} {}', "the message is not valid JSON"),
        ('{"a":' * 100_000, "the message is not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "the message is not valid JSON"),
        ('{"type":"stop_recording","n":' + "9" * 100_000 + "}", "the message is not valid JSON"),
        ('{"type":"\\ud800"}', "the message is not valid JSON"),
        ("\ud800", "the message is not valid JSON"),
        ("[]", "the message must be a JSON object"),
        ("null", "the message must be a JSON object"),
        ('"stop_recording"', "the message must be a JSON object"),
        ("{}", "type must be a string"),
        ('{"type":1}', "type must be a string"),
        ('{"type":["stop_recording"]}', "type must be a string"),
        ('{"type":"stop"}', "unknown message type 'stop': send audio_chunk or stop_recording"),
        ('{"type":"é\\n"}', "unknown message type '\\xe9\\n': send audio_chunk or stop_recording"),
    ],
)
def test_other_frames_are_answered_with_what_is_wrong(frame, reason):
    """Broken JSON of every kind, other values than objects, and unknown types: each has its reason."""
    assert receive(frame) == BadMessage("malformed_message", reason)


def test_a_reason_never_repeats_much_of_a_frame():
    """A type of a megabyte is not sent back."""
    incoming = receive(json.dumps({"type": "x" * 1_000_000}))
    assert isinstance(incoming, BadMessage)
    assert len(incoming.reason) < 120


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.just("stop_recording"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "data", "chunk"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["audio_chunk", "stop_recording"]) | json_values,
        "data": st.fixed_dictionaries(
            {}, optional={"chunk": st.text(alphabet="AQz+/= \n\ud800", max_size=9) | json_values}
        )
        | json_values,
    },
)


@settings(max_examples=300)
@given(
    frame=st.binary()
    | st.text()
    | st.text(alphabet=st.characters(categories=["Cs", "Ll"]))
    | (messages | json_values).map(json.dumps)
    | (messages | json_values).map(lambda value: json.dumps(value)[:-1])
)
def test_any_frame_is_an_answer_and_never_an_exception(frame):
    """Whatever a client sends, `receive` says what it was, in words that can be sent back."""
    incoming = receive(frame)
    assert isinstance(incoming, AudioChunk | StopRecording | BadChunk | BadMessage)
    match incoming:
        case BadChunk(reason=reason) | BadMessage(reason=reason):
            answer = ev.AudioRefused(reason=reason)
            assert body_of(answer)["error"] == {"message": reason}
            assert reason.isascii()


def test_watchers_get_the_very_message_with_its_number():
    """One rendering for everybody; what is not stored has no number."""
    text = render(SESSION, ev.SpeechStarted(channel=0, at_s=0.5), AT).text
    assert json.loads(numbered(text, 7)) == {"seq": 7, **json.loads(text)}
    assert numbered(text, None) == text


def test_close_codes_stop_or_restart_clients_as_meant():
    """Official clients come back after 1002-4399 only: after a restart, and after nothing that would fail again."""
    retried = {code for code in CloseCode if 1002 <= code <= 4399}
    assert retried == {CloseCode.RESTART, CloseCode.TRY_LATER}
    assert all(4400 <= code <= 4499 for code in CloseCode if code not in {CloseCode.NORMAL, *retried})
