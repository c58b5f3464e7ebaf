"""Summaries: the sentences that are picked, and what a language model is asked for long and short transcripts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from chat import KEY, chatting, fails, says
from spoken import said, talk
from vivavoce.addons.extraction import Budget, extract
from vivavoce.addons.llm import connect
from vivavoce.addons.summary import MAX_LETTERS, WINDOW_WORDS, ExtractiveSummary, LlmSummary, SummaryAddon
from vivavoce.errors import AddonError, SetupError
from vivavoce.model import Transcript
from vivavoce.plugins import AddonSettings

KINDS = ["general", "bullet_points", "concise"]

CALL = talk(
    "Good morning, this is the city library, how can I help you?",
    "Hi, yes.",
    "I borrowed three books last month and I got a letter that they are overdue.",
    "Okay.",
    "Do you have your library card number at hand?",
    "Yes, it is five five two nine.",
    "I see that the three books were due on the third of November.",
    "The fine is four euros and fifty cents at the moment.",
    "Oh, I see.",
    "Could I extend the loan of the books by two weeks?",
    "Two of the books can be extended, but the third book has been reserved by another reader.",
    "All right, I will bring the reserved book back on Friday.",
    "You can pay the fine at the desk or on our website.",
    "I will pay the fine at the desk on Friday then.",
    "Perfect, I have extended the loan of the other two books until the first of December.",
    "Thank you very much.",
    "Bye bye.",
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_transcript_has_an_empty_summary(kind):
    """Nothing was said, and nobody is asked."""
    assert ExtractiveSummary(kind).look(Transcript(utterances=())) == ""
    assert ExtractiveSummary(kind).look(talk("")) == ""


def test_general_is_one_text_of_sentences_that_were_said():
    """In their order, much shorter than the whole, and about what the call was about."""
    summary = ExtractiveSummary("general").look(CALL)
    places = [CALL.text.find(sentence.strip()) for sentence in summary.replace("?", "?|").replace(".", ".|").split("|")]
    assert -1 not in places
    assert places[:-1] == sorted(places[:-1])
    assert 10 < len(summary.split()) <= 50
    assert "books" in summary


def test_bullet_points_are_lines():
    """Three to ten of them, each a whole sentence."""
    lines = ExtractiveSummary("bullet_points").look(CALL).splitlines()
    assert 3 <= len(lines) <= 10
    assert all(line.startswith("- ") and line[2:] in CALL.text for line in lines)


def test_concise_is_shorter_than_general():
    """One or two sentences."""
    concise = ExtractiveSummary("concise").look(CALL)
    assert 0 < len(concise.split()) <= 50
    assert len(extract(CALL, Budget(sentences=2, words=50))) <= 2


def test_a_short_transcript_is_its_own_summary():
    """What is shorter than a summary is given whole."""
    short = talk("We meet on Monday.", "At nine.")
    assert ExtractiveSummary("general").look(short) == "We meet on Monday. At nine."


def test_a_sentence_cut_by_an_utterance_is_joined():
    """An utterance that ends within a sentence goes on in the next one of the same voice, whoever speaks between."""
    cut = talk(
        "The meeting about the new bridge",
        ("Mhm.", {"channel": 1}),
        "is on Monday at nine. ",
        pause_s=0.1,
    )
    found = extract(cut, Budget(sentences=9, words=99))
    assert found == ["The meeting about the new bridge is on Monday at nine.", "Mhm."]


def test_a_pause_ends_a_sentence_without_a_mark():
    """Speech that was left hanging is not joined with what is said later."""
    assert len(extract(talk("So the bridge", "is closed", pause_s=5), Budget(sentences=9, words=99))) == 2


def test_speech_without_any_mark_has_a_summary_as_short_as_any():
    """It is cut where somebody paused, or anywhere; in a script without blanks too."""
    endless = " ".join(f"word{nth % 89}" for nth in range(1200))
    for kind, most in [("general", 120), ("bullet_points", 8 * 30), ("concise", 50)]:
        assert 20 <= len(ExtractiveSummary(kind).look(talk(endless)).replace("- ", "").split()) <= most
    before, after = said("a " * 30), said("b " * 25, 15.5)
    paused = replace(before, words=before.words + after.words)
    assert extract(Transcript(utterances=(paused,)), Budget(sentences=9, words=99)) == [
        before.text,
        after.text,
    ]


@pytest.mark.parametrize("blank", ["", " "])
def test_a_script_without_blanks_is_summed_up_without(blank):
    """However the engine cut it into words; its letters count as words."""
    lines = ["我们今天讨论项目进度。然后我们讨论预算问题。", "明天再联系。"]
    transcript = talk(*((blank.join(line).replace(" 。", "。"), {"language": "zh"}) for line in lines * 4))
    assert ExtractiveSummary("bullet_points").look(transcript).splitlines() == [
        "- 我们今天讨论项目进度。",
        "- 然后我们讨论预算问题。",
        "- 明天再联系。",
    ]
    assert extract(transcript, Budget(sentences=9, words=16)) == ["我们今天讨论项目进度。"]


def test_what_is_said_twice_is_taken_once():
    """Of sentences that say the same, the summary has one."""
    repeated = talk(*["The bridge is closed until Monday morning."] * 20, *["Nobody knows why that had to be."] * 20)
    found = extract(repeated, Budget(sentences=5, words=60))
    assert len(found) == len(set(found)) == 2


@given(st.lists(st.text(max_size=30), max_size=30), st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_any_transcript_has_a_summary(said_texts, kind):
    """No text breaks the picking, and nothing is in a summary that was not said."""
    transcript = talk(*said_texts)
    for line in ExtractiveSummary(kind).look(transcript).splitlines():
        assert all(word in transcript.text for word in line.removeprefix("- ").split())


def spoken_hours(words: int = 30_000) -> Transcript:
    """Give a transcript as long as three hours of speech."""
    count = words // 12
    return talk(
        *(
            f"Number {n} is about topic{n % 97} and place{n % 53} for item{n} and case{n // 3} again."
            for n in range(count)
        )
    )


def test_hours_of_speech_have_a_summary_no_longer_than_any():
    """What is picked is bounded, however much was said."""
    transcript = spoken_hours()
    assert 50 < len(ExtractiveSummary("general").look(transcript).split()) <= 200
    assert len(ExtractiveSummary("bullet_points").look(transcript).splitlines()) == 10


def answering(question):
    """Answer as a model would, each prompt in its form."""
    if "points" in question.body["response_format"]["json_schema"]["schema"]["properties"]:
        return says(r'{"points": ["First.", "- Second\nline.", "", "-", "* 3rd\n- 4 - 5", "- - **Sixth**", "2.5 km"]}')
    return says('{"summary": " It was about books. "}')


def llm_summary(chat, kind, transcript, **endpoint):
    llm = connect(chat.endpoint(**endpoint))
    try:
        return LlmSummary(llm, kind, within_s=30).look(transcript)
    finally:
        llm.close()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("general", "It was about books."),
        ("concise", "It was about books."),
        ("bullet_points", "- First.\n- Second line.\n- 3rd\n- 4 - 5\n- **Sixth**\n- 2.5 km"),
    ],
)
def test_a_language_model_is_asked_once_for_a_short_transcript(kind, wanted):
    """By the prompt of the kind, with what was said as data."""
    with chatting(answering) as chat:
        assert llm_summary(chat, kind, CALL) == wanted
    [question] = chat.questions
    assert question.given == {"language": "en", "turns": [{"text": CALL.text}]}
    assert "library" not in question.system


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        (["15. Mai ist der Termin", "- 12. Mai: Treffen"], ["15. Mai ist der Termin", "12. Mai: Treffen"]),
        (["3. Quartal", "1. FC Köln"], ["3. Quartal", "1. FC Köln"]),
        (["1. - One", "2) Two", "3. 15. Mai"], ["One", "Two", "15. Mai"]),
        (["1. One\nmore\n2. Two"], ["One more", "Two"]),
        (["- 1. Mai", "- 2. Mai"], ["1. Mai", "2. Mai"]),
    ],
)
def test_numbers_are_markers_where_points_are_counted(points, wanted):
    """Dates and ordinals stay."""
    with chatting(lambda _: says(json.dumps({"points": points}))) as chat:
        assert llm_summary(chat, "bullet_points", CALL) == "\n".join(f"- {point}" for point in wanted)


def test_points_of_markers_alone_are_none():
    """The model is asked again, and then given up."""
    with chatting(lambda _: says('{"points": ["- ", "*"]}')) as chat, pytest.raises(AddonError, match="form"):
        llm_summary(chat, "bullet_points", CALL)


def test_a_language_model_is_not_asked_about_nothing():
    """An empty transcript has an empty summary."""
    with chatting(answering) as chat:
        assert llm_summary(chat, "general", talk("", "")) == ""
    assert chat.questions == []


def test_several_voices_are_told_apart():
    """By channel, by speaker, or by both; what one voice says in a row is one turn."""
    two = talk("Hello.", "Who is it?", ("It is me.", {"channel": 1}), "Ah.")
    speakers = talk(("Hello.", {"speaker": 0}), ("It is me.", {"speaker": 1}))
    both = talk(("Hello.", {"speaker": 0}), ("It is me.", {"channel": 1, "speaker": 0}))
    with chatting(answering) as chat:
        for transcript in (two, speakers, both):
            llm_summary(chat, "concise", transcript)
    assert chat.questions[0].given["turns"] == [
        {"by": "channel 0", "text": "Hello. Who is it?"},
        {"by": "channel 1", "text": "It is me."},
        {"by": "channel 0", "text": "Ah."},
    ]
    assert [turn["by"] for turn in chat.questions[1].given["turns"]] == ["speaker 0", "speaker 1"]
    assert [turn["by"] for turn in chat.questions[2].given["turns"]] == ["channel 0, speaker 0", "channel 1, speaker 0"]


def test_a_long_transcript_is_read_in_parts():
    """Every word is in one part, in order; notes of the parts become the summary, several at once within the bound."""
    transcript = spoken_hours(3 * WINDOW_WORDS)
    with chatting(answering) as chat:
        assert llm_summary(chat, "general", transcript, concurrency=2) == "It was about books."
    *parts, last = chat.questions
    assert all("turns" in part.given for part in parts)
    read = sorted((part.given["turns"][0]["text"] for part in parts), key=transcript.text.find)
    assert " ".join(read) == transcript.text
    assert all(len(text.split()) <= WINDOW_WORDS for text in read)
    assert last.given == {"language": "en", "parts": ["It was about books."] * len(parts)}
    assert chat.most_open <= 2


def test_notes_that_are_too_long_are_condensed_again():
    """However much the model writes, no question is longer than a window."""
    notes = " ".join(["words"] * 450)

    def answer(question):
        given = question.given
        weight = len(" ".join(given.get("parts", [])).split())
        assert weight <= WINDOW_WORDS
        return says('{"summary": "short"}' if "parts" in given else f'{{"summary": "{notes}"}}')

    with chatting(answer) as chat:
        assert llm_summary(chat, "general", spoken_hours(6 * WINDOW_WORDS)) == "short"
    assert sum("turns" in question.given for question in chat.questions) >= 6
    assert sum(len(question.given.get("parts", [])) > 1 for question in chat.questions) >= 3


@pytest.mark.parametrize("text", ['{"summary": "  "}', '{"summary": "' + "x" * (MAX_LETTERS["concise"] + 1) + '"}'])
def test_a_summary_that_is_none_is_refused(text):
    """Empty ones, and ones too long for their kind."""
    with chatting(lambda _: says(text)) as chat, pytest.raises(AddonError, match="form"):
        llm_summary(chat, "concise", CALL)


def test_a_part_that_fails_fails_the_summary():
    """No summary is better than one that leaves out an hour."""

    def answer(question):
        return fails(500) if "item3 " in str(question.given) else answering(question)

    with chatting(answer) as chat, pytest.raises(AddonError, match="answered 500"):
        llm_summary(chat, "general", spoken_hours(2 * WINDOW_WORDS))


def test_the_add_on_picks_by_its_setting():
    """Extraction needs nothing; the language model needs an endpoint."""
    plain = SummaryAddon(AddonSettings())
    assert plain.open({"type": "concise"}, ()).transcript.look(talk("We meet.")) == "We meet."
    plain.close()
    with pytest.raises(SetupError, match="--llm-url"):
        SummaryAddon(AddonSettings(summarizer="llm"))
    with chatting(answering) as chat:
        told = AddonSettings(summarizer="llm", llm_url=chat.url, llm_model="m", llm_key=SecretStr(KEY))
        addon = SummaryAddon(told)
        assert addon.open({}, ()).transcript.look(CALL) == "It was about books."
        addon.close()


def test_one_utterance_longer_than_a_window_is_a_part_of_its_own():
    """Parts are cut between utterances only."""
    long = talk(" ".join(["word"] * (WINDOW_WORDS + 5)), "The end.")
    with chatting(answering) as chat:
        llm_summary(chat, "concise", long)
    assert len(chat.questions) == 3
    assert said("The end.").text in str([question.given for question in chat.questions])
