"""How words are said: what an engine may write, and what nobody foresaw."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.pronounce import by_rule, dictionary, phones, spoken, variants

ARPABET = frozenset(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905 - a line to read
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Hello,", "Hello"),
        ("“don’t”", "don't"),  # noqa: RUF001
        ("—", ""),
        ("...", ""),
        ("", ""),
        ("Mr.", "Mr."),
        ("25", "twenty five"),
        ("1,234", "one thousand two hundred thirty four"),
        ("3.05", "three point zero five"),
        ("1984", "nineteen eighty four"),
        ("2005", "two thousand five"),
        ("1990s", "nineteen nineties"),
        ("'80s", "eighties"),
        ("21st", "twenty first"),
        ("50%", "fifty percent"),
        ("$5", "five dollars"),
        ("$5.50", "five dollars fifty cents"),
        ("£1m", "one million pounds"),
        ("¥500", "five hundred yen"),
        ("3:30", "three thirty"),
        ("10:05", "ten oh five"),
        ("7:00", "seven o'clock"),
        ("555-1234", "five five five one two three four"),
        ("007", "zero zero seven"),
        ("COVID-19", "COVID nineteen"),
        ("B2B", "B two B"),
        ("ChatGPT", "Chat GPT"),
        ("Q&A", "Q and A"),
        ("Łódź", "lodz"),
    ],
)
def test_written_forms_are_read_as_words(written: str, said: str) -> None:
    """Numbers, money, clock times, symbols and accents become the words a reader says; punctuation becomes none."""
    assert " ".join(spoken(written)).lower() == said.lower()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("WORLD!", "W ER L D"),
        ("U.S.A.", "Y UW EH S EY"),
        ("HTTP", "EY CH T IY T IY P IY"),
        ("10km", "T EH N K EY EH M"),
        ("gaslighted", "G AE S L AY T IH D"),
        ("Nell's", "N EH L Z"),
        ("voicemail", "V OY S M EY L"),
        ("twenty-five", "T W EH N T IY F AY V"),
    ],
)
def test_words_are_said_by_dictionary_by_letter_or_by_parts(written: str, said: str) -> None:
    """A word in the dictionary, initials, a regular form, a compound: each has the phones an English speaker uses."""
    assert " ".join(phones(written)) == said


def test_the_dictionary_order_of_variants_is_kept_and_capitals_may_be_initials() -> None:
    """`it` is one word; `IT` may be the word or two letters."""
    assert variants("tomato") == tuple(tuple(said.split()) for said in dictionary()["tomato"])
    assert variants("it") == (("IH", "T"),)
    assert variants("IT") == (("IH", "T"), ("AY", "T", "IY"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Gladia", "G L AE D IY AH"),
        ("Okonkwo", "OW K AA NG K W OW"),
        ("Thornquist", "TH AO R N K W IH S T"),
        ("Brightmoor", "B R AY T M AO R"),
        ("Shelvington", "SH EH L V IH NG T AH N"),
    ],
)
def test_unknown_names_sound_as_they_are_spelled(name: str, said: str) -> None:
    """A name outside the dictionary differs from how it is said in one phone at most."""
    assert name.lower() not in dictionary()
    assert _distance(by_rule(name), said.split()) <= 1


def test_spelling_rules_come_near_the_dictionary() -> None:
    """Over every 50th plain word of the dictionary, fewer than 18 in 100 phones are wrong by rule alone."""
    words = [word for word in dictionary() if re.fullmatch("[a-z]{3,}", word)][::50]
    wrong = total = 0
    for word in words:
        told = by_rule(word)
        best = min((said.split() for said in dictionary()[word]), key=lambda said: _distance(told, said))
        wrong += _distance(told, best)
        total += len(best)
    assert wrong / total < 0.18


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,$£:-'sthkmbnA%", max_size=60))
def test_any_text_has_phones_of_the_acoustic_model(text: str) -> None:
    """Whatever an engine writes is said in at most a bounded number of phones the model knows, and always the same."""
    for word in spoken(text):
        ways = variants(word)
        assert ways
        assert all(way and set(way) <= ARPABET for way in ways)
    assert len(phones(text)) <= 80 * 5
    assert phones(text) == phones(text)


def _distance(told: tuple[str, ...] | list[str], said: list[str]) -> int:
    row = list(range(len(said) + 1))
    for n, phone in enumerate(told, 1):
        above, row = row, [n]
        for m, other in enumerate(said, 1):
            row.append(min(above[m] + 1, row[-1] + 1, above[m - 1] + (phone != other)))
    return row[-1]
