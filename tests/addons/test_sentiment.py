"""Sentiment and emotion of sentences, and where sentences end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.addons.sentences import sentences
from vivavoce.addons.sentiment import SentimentAnalysis
from vivavoce.errors import AddonError, Unsupported
from vivavoce.model import Utterance, Word
from vivavoce.plugins import AddonSettings


def utterance(text: str, language: str = "en") -> Utterance:
    words = tuple(
        Word(text=word, start=float(i), end=i + 0.5, confidence=0.9) for i, word in enumerate(text.split(), start=3)
    )
    return Utterance(
        id="01_00003000", channel=1, start=3.0, end=3.5 + len(words), confidence=0.9, language=language, words=words
    )


@pytest.fixture(scope="module")
def analysis() -> SentimentAnalysis:
    return SentimentAnalysis(AddonSettings())


@pytest.mark.parametrize(
    ("text", "sentiment", "emotion"),
    [
        ("I am so happy with this!", "positive", "happiness"),
        ("Thank you very much for your help.", "positive", "gratitude"),
        ("I am really angry about this bill.", "negative", "anger"),
        ("It is so sad that he died.", "negative", "sadness"),
        ("I'm worried and scared about the operation.", "negative", "fear"),
        ("The meeting is at five.", "neutral", "neutral"),
        ("I'm not happy at all.", "negative", "neutral"),
        ("I wasn't angry, it was a lovely day.", "positive", "happiness"),
        ("The food was terrible but the service was excellent.", "positive", "happiness"),
        ("I have a problem, thanks.", "mixed", "gratitude"),
        ("I am confused about the form.", "negative", "confusion"),
    ],
)
def test_a_sentence_has_the_sentiment_and_emotion_of_its_words(analysis, text, sentiment, emotion):
    """What a person would say of plain sentences, negation included."""
    (found,) = analysis.look(utterance(text), [])
    assert (found.sentiment, found.emotion, found.text) == (sentiment, emotion, text)


def test_each_sentence_is_judged_by_itself(analysis):
    """Two sentences are two findings, each with its text, its own words' times and the utterance's channel."""
    bad, good = analysis.look(utterance("This is awful. I love the other one!"), [])
    assert (bad.text, bad.sentiment, bad.start, bad.end, bad.channel) == ("This is awful.", "negative", 3.0, 5.5, 1)
    assert (good.text, good.sentiment, good.start, good.end) == ("I love the other one!", "positive", 6.0, 10.5)


def test_other_languages_are_refused_rather_than_guessed(analysis):
    """A list of English words has nothing to say of Dutch; a session in Dutch alone is refused at its start."""
    with pytest.raises(AddonError, match="English only, and this is nl"):
        analysis.look(utterance("Dat is fantastisch.", "nl"), [])
    with pytest.raises(Unsupported, match="en is not among"):
        analysis.open({}, ["nl", "fr"])
    for languages in ([], ["en"], ["nl", "en"]):
        assert analysis.open({}, languages).by_target.keys() == {""}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello. How are you? Fine!", ["Hello.", "How are you?", "Fine!"]),
        ("Dr. Smith met Mr. J. Jones at 5 p.m. on Monday.", ["Dr. Smith met Mr. J. Jones at 5 p.m. on Monday."]),
        ("It was me and I. Then he left.", ["It was me and I.", "Then he left."]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("It costs 3.50 euros. approximately", ["It costs 3.50 euros. approximately"]),
        ("no stop at all", ["no stop at all"]),
        ("Wait… what?", ["Wait…", "what?"]),
    ],
)
def test_sentences_end_where_people_end_them(text, parts):
    """At full stops, but not after abbreviations and initials, nor before a small letter."""
    assert [" ".join(word.text for word in words) for words in sentences(utterance(text).words)] == parts


@given(st.lists(st.text(alphabet="ab.?!i \"'", min_size=1, max_size=4), max_size=12))
def test_sentences_lose_no_word(texts):
    """Whatever the words are, sentences put together are the utterance, and none is empty."""
    words = [Word(text=text, start=0.0, end=1.0, confidence=1.0) for text in texts]
    parts = list(sentences(words))
    assert [word for part in parts for word in part] == words
    assert all(parts)


@given(st.text(max_size=60))
def test_any_text_is_judged(analysis, text):
    """No text makes it fail, and every sentence has one of the four sentiments."""
    found = analysis.look(utterance(text), [])
    assert {each.sentiment for each in found} <= {"positive", "negative", "neutral", "mixed"}
    assert " ".join(each.text for each in found) == " ".join(text.split())
