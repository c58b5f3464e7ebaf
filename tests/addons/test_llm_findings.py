"""Sentiment and names by a language model: labels and places, never its text."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from chat import chatting, fails, says
from spoken import said
from vivavoce.addons import sentiment
from vivavoce.addons.llm import connect
from vivavoce.addons.llm_findings import EmotionLabel, LlmEntities, LlmSentiment
from vivavoce.addons.sentiment import SentimentAnalysis
from vivavoce.errors import AddonError, SetupError
from vivavoce.plugins import AddonSettings

UTTERANCE = said("I am Femke. Nice to hear you!", 10, 14, channel=1)


def look(kind, utterance, answer, before=()):
    """Give what an add-on finds when the model answers so, and what the model was asked."""
    with chatting(answer if callable(answer) else lambda _: says(json.dumps(answer))) as chat:
        llm = connect(chat.endpoint())
        try:
            return kind(llm, within_s=20).look(utterance, before), chat.questions
        finally:
            llm.close()


def judged(*pairs):
    return {"sentences": [{"sentiment": sentiment, "emotion": emotion} for sentiment, emotion in pairs]}


def test_each_sentence_is_judged():
    """The text, the times and the channel are the utterance's own."""
    before = [said(f"Number {n}.") for n in range(9)]
    found, [question] = look(LlmSentiment, UTTERANCE, judged(("neutral", "neutral"), ("positive", "happiness")), before)
    assert [(each.sentiment, each.emotion, each.text, each.channel) for each in found] == [
        ("neutral", "neutral", "I am Femke.", 1),
        ("positive", "happiness", "Nice to hear you!", 1),
    ]
    assert (found[0].start, found[1].end) == (10, 14)
    assert found[0].end <= found[1].start
    assert question.given["sentences"] == ["I am Femke.", "Nice to hear you!"]
    assert question.given["before"] == [f"Number {n}." for n in range(4, 9)]


def test_sentences_are_written_as_their_language_is():
    """Without blanks where it has none, however the engine cut it into words."""
    utterance = said("你 好。 再 见。", language="zh")
    found, [question] = look(LlmSentiment, utterance, judged(("neutral", "neutral"), ("neutral", "neutral")))
    assert [each.text for each in found] == question.given["sentences"] == ["你好。", "再见。"]


@pytest.mark.parametrize(
    "answer",
    [
        judged(("neutral", "neutral")),
        judged(("great", "happiness"), ("neutral", "neutral")),
        judged(("positive", "bliss; DROP TABLE"), ("neutral", "neutral")),
    ],
)
def test_other_labels_or_another_count_are_no_answer(answer):
    """Nobody puts text of their own into a label."""
    with pytest.raises(AddonError, match="form"):
        look(LlmSentiment, UTTERANCE, answer)


def test_the_setting_decides_who_judges():
    """The lexicon needs nothing and knows English; the model judges any language and needs an endpoint."""
    with pytest.raises(SetupError, match="--sentiment llm needs --llm-url"):
        SentimentAnalysis(AddonSettings(sentiment="llm"))
    with chatting(lambda _: says(json.dumps(judged(("positive", "gratitude"))))) as chat:
        addon = SentimentAnalysis(AddonSettings(sentiment="llm", llm_url=chat.url, llm_model="m"))
        [found] = addon.open({}, ("nl",)).by_target[""].look(said("Dank je wel!", language="nl"), ())
        assert (found.sentiment, found.emotion) == ("positive", "gratitude")
        addon.close()


def test_the_model_may_choose_from_the_lexicons_emotions():
    """Clients see the same labels whoever judges."""
    assert {*get_args(EmotionLabel)} == {"neutral", *sentiment._LEANINGS}


def names(*pairs):
    return {"names": [{"kind": kind, "text": text} for kind, text in pairs]}


def test_names_are_found_where_they_stand():
    """With the words that they cover; a name said twice is found twice."""
    utterance = said("Femke de Vries of Acme, from Utrecht. Femke's friend.", 0, 9)
    found, _ = look(
        LlmEntities,
        utterance,
        names(("NAME", "Femke de Vries"), ("LOCATION", "utrecht"), ("ORGANIZATION", "Acme"), ("NAME", "Femke")),
    )
    assert [(each.kind, each.text, each.first, each.stop) for each in found] == [
        ("NAME", "Femke de Vries", 0, 3),
        ("ORGANIZATION", "Acme", 4, 5),
        ("LOCATION", "Utrecht", 6, 7),
        ("NAME", "Femke's", 7, 8),
    ]
    for each in found:
        assert each.start == utterance.words[each.first].start
        assert each.end == utterance.words[each.stop - 1].end


def test_a_name_that_was_not_said_is_dropped():
    """Whoever made it up: the model, or a caller who told it to."""
    found, _ = look(LlmEntities, UTTERANCE, names(("NAME", "Eve"), ("NAME", "…"), ("NAME", ""), ("NAME", "am I")))
    assert found == ()


def test_words_are_in_one_name_at_most():
    """A name that overlaps one before it finds no place."""
    found, _ = look(LlmEntities, UTTERANCE, names(("NAME", "Femke"), ("ORGANIZATION", "am Femke")))
    assert [each.kind for each in found] == ["NAME"]


@pytest.mark.parametrize("kind", [LlmSentiment, LlmEntities])
def test_nothing_said_is_nothing_asked(kind):
    """An utterance without words has no findings."""
    assert look(kind, said(""), names()) == ((), [])


@pytest.mark.parametrize("kind", [LlmSentiment, LlmEntities])
def test_a_failing_endpoint_is_told_without_what_was_said(kind):
    """The reason is fit for clients."""
    with pytest.raises(AddonError) as caught:
        look(kind, UTTERANCE, lambda _: fails(503))
    assert "Femke" not in str(caught.value)
