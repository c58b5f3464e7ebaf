"""Transcripts as text, JSON and subtitles."""

from __future__ import annotations

import json
from itertools import pairwise

import pysubs2
import pytest
from gladiaio_sdk import LiveV2Response, LiveV2Utterance, LiveV2Word
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.cli.formats import CUE_S, LINE_LENGTH, LINES, SHORTEST_CUE_S, Format, cues, render, subtitles
from vivavoce.errors import VivavoceError

WORD_S = 0.4


def utterance(text: str, *, start: float = 0.0, channel: int = 0, word_s: float = WORD_S) -> LiveV2Utterance:
    words = [
        LiveV2Word(word=f" {word}", start=start + i * word_s, end=start + (i + 1) * word_s, confidence=0.9)
        for i, word in enumerate(text.split())
    ]
    end = words[-1].end if words else start
    return LiveV2Utterance(
        start=start, end=end, confidence=0.9, channel=channel, words=words, text=f" {text}", language="en"
    )


def session(*utterances: LiveV2Utterance, channels: int = 1, status: str = "done") -> LiveV2Response:
    transcription = {
        "full_transcript": " ".join(each.text.strip() for each in utterances),
        "languages": ["en"],
        "utterances": [each.to_dict(encode_json=False) for each in utterances],
    }
    metadata = {"audio_duration": 9.0, "number_of_distinct_channels": channels, "billing_time": 9.0}
    result = {
        "metadata": metadata | {"transcription_time": 1.0},
        "transcription": transcription,
        "messages": ['{"type": "transcript"}'],
    }
    shown = {"id": "7c1e", "request_id": "G-7c1e", "version": 2, "status": status, "created_at": "", "kind": "live"}
    return LiveV2Response.from_dict(shown | ({"result": result} if status == "done" else {}))


def test_text_has_one_line_an_utterance():
    """Each utterance is a line without the blank that words begin with."""
    shown = session(utterance("Good morning."), utterance("How are you?", start=2))
    assert render(shown, Format.TEXT) == "Good morning.\nHow are you?\n"


def test_text_names_channels_only_where_there_are_several():
    """With two channels every line says whose it is, counted from 1."""
    shown = session(utterance("Hello."), utterance("Hi.", start=2, channel=1), channels=2)
    assert render(shown, Format.TEXT) == "Channel 1: Hello.\nChannel 2: Hi.\n"


def test_text_of_silence_is_empty():
    """No speech, no output."""
    assert render(session(), Format.TEXT) == ""


def test_json_is_the_result_without_messages():
    """JSON has the id, the metadata and the transcription under the service's own names, unescaped."""
    written = render(session(utterance("Où ça ?")), Format.JSON)
    read = json.loads(written)
    assert read["id"] == "7c1e"
    assert read["metadata"]["audio_duration"] == 9.0
    assert read["transcription"]["utterances"][0]["words"][0]["word"] == " Où"
    assert "messages" not in read
    assert "Où ça" in written


@pytest.mark.parametrize("wanted", list(Format))
def test_a_session_without_result_is_refused_with_its_status(wanted):
    """A session that is still running has nothing to write, and the message says so."""
    with pytest.raises(VivavoceError, match="processing"):
        render(session(status="processing"), wanted)


def test_srt_is_exact():
    """Times, numbers and line ends are those of SubRip."""
    written = subtitles([utterance("Good morning, everybody."), utterance("Sit down.", start=3600.5)], Format.SRT)
    assert written == (
        "1\n00:00:00,000 --> 00:00:01,200\nGood morning, everybody.\n\n2\n01:00:00,500 --> 01:00:01,500\nSit down.\n"
    )


def test_vtt_is_exact_and_escaped():
    """WebVTT has its header and dots, and text that looks like markup stays text."""
    written = subtitles([utterance("a < b & {c}", word_s=0.5)], Format.VTT)
    assert written == "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.500\na &lt; b &amp; {c}\n"


def test_subtitles_name_channels_where_there_are_several():
    """WebVTT uses voice tags, SubRip a number in brackets."""
    both = [utterance("Hello there."), utterance("Hi.", start=2, channel=1)]
    assert "<v Channel 2>Hi." in subtitles(both, Format.VTT)
    assert "[2] Hi." in subtitles(both, Format.SRT)


def test_no_speech_gives_valid_empty_subtitles():
    """An empty file is still one that players open."""
    assert subtitles([], Format.VTT) == "WEBVTT\n"
    assert subtitles([], Format.SRT).strip() == ""


def test_utterance_without_words_is_one_cue():
    """Where there are no word times the utterance's own are used."""
    bare = LiveV2Utterance(start=1, end=3, confidence=1, channel=0, words=[], text=" Hello.", language="en")
    assert [(cue.start, cue.end, cue.lines) for cue in cues([bare])] == [(1, 3, ("Hello.",))]


def test_a_long_utterance_leaves_no_lonely_word():
    """The words of one sentence are shared evenly: no cue of a single word after two full lines."""
    text = "Unless a system is established for the frequent formal review of activities there under."
    parts = [" ".join(cue.lines) for cue in cues([utterance(text)])]
    assert " ".join(parts) == text
    assert min(map(len, parts)) > LINE_LENGTH / 2


def test_sentences_end_cues():
    """A cue that already fills a line ends with its sentence."""
    first = "It was the best of times, it was the worst of times."
    parts = [" ".join(cue.lines) for cue in cues([utterance(f"{first} Then came spring.", word_s=0.1)])]
    assert parts == [first, "Then came spring."]


def test_short_cues_stay_readable_where_there_is_room():
    """A cue lasts a second unless the next one of its channel begins."""
    near, far = cues([utterance("No.", word_s=0.2), utterance("Yes.", start=0.5, word_s=0.2)])
    assert near.end == 0.5
    assert far.end == pytest.approx(0.5 + SHORTEST_CUE_S)


texts = st.lists(st.from_regex(r"[a-z]{1,14}[.,?!]?", fullmatch=True), min_size=1, max_size=60).map(" ".join)


@given(st.lists(texts, max_size=4), st.floats(0.05, 2.0))
def test_cues_keep_every_word_within_their_limits(spoken, word_s):
    """Whatever is said, cues hold all words in order, fit the screen, and never overlap or go back."""
    said, at = [], 0.0
    for text in spoken:
        said.append(utterance(text, start=at, word_s=word_s))
        at = said[-1].end + 0.3
    found = cues(said)
    assert " ".join(" ".join(cue.lines) for cue in found) == " ".join(spoken)
    assert all(len(cue.lines) <= LINES and max(map(len, cue.lines)) <= LINE_LENGTH for cue in found)
    assert all(cue.end - cue.start <= CUE_S + 1e-6 for cue in found)
    assert all(before.end <= after.start for before, after in pairwise(found))


@given(texts, st.sampled_from([Format.SRT, Format.VTT]))
def test_subtitles_read_back(text, wanted):
    """What is written is read back by a subtitle library with the same words and times to the millisecond."""
    said = [utterance(text)]
    read = pysubs2.SSAFile.from_string(subtitles(said, wanted))
    assert " ".join(event.plaintext.replace("\n", " ") for event in read) == text
    assert [event.start for event in read] == [pytest.approx(cue.start * 1000, abs=1) for cue in cues(said)]
