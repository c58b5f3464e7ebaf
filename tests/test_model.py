"""The shared nouns that do more than hold fields."""

from __future__ import annotations

import pytest

from vivavoce.model import Utterance, spread_words


@pytest.mark.parametrize(
    ("language", "words", "text"),
    [
        ("en", ["Good", "morning."], "Good morning."),
        ("nl", ["Goede", "morgen."], "Goede morgen."),
        ("ja", ["図", "書", "館。"], "図書館。"),
        ("zh", ["我", "有", "New", "York", "14", "個"], "我有New York 14個"),
        ("zh", [], ""),
    ],
)
def test_a_text_has_blanks_as_its_language_is_written(language, words, text):
    """Words stand apart, but for those of languages without blanks; Latin words do there as well."""
    spread = spread_words(words, [0.5] * len(words), 0.0, 1.0)
    one = Utterance(id="a", channel=0, start=0.0, end=1.0, confidence=0.5, language=language, words=spread)
    assert one.text == text
