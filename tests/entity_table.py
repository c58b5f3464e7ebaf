"""The table of sentences with their entities, and words to make others of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from spoken import said
from vivavoce.model import Utterance

TABLE = Path(__file__).parent / "addons" / "entities.txt"

SPOKEN = """
at dot com example john smith j o h n w w w double triple u oh zero one two seven nine eleven twenty forty hundred
thousand million and a half quarter past to point percent euros dollars cents pounds fifth second may March Monday of
the plus dash slash underscore street Baker 12 3.5 2023 4111 07799 $5 9:30 p.m. GB29 is my number, I'm p m o'clock
"""
"""Words that entities are made of, for sentences that nobody would say."""

sentences = st.lists(st.sampled_from(SPOKEN.split()) | st.text(min_size=1, max_size=8), max_size=25)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table; entities by kind and words."""

    part: str
    text: str
    language: str
    entities: frozenset[tuple[str, int, int]]


@cache
def table() -> tuple[Row, ...]:
    """Read the table."""
    rows, part = [], ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("=="):
            part = line.removeprefix("==").strip()
        elif line and not line.startswith("#"):
            rows.append(row(part, line))
    return tuple(rows)


def row(part: str, line: str) -> Row:
    """Read a line: the language before a bar, and entities in brackets with their kinds."""
    language, text = line.split("| ", 1) if re.match(r"\w\w\| ", line) else ("en", line)
    words: list[str] = []
    entities = set()
    opened = None
    for word in text.split():
        if re.fullmatch(r"\[[A-Z_]+", word):
            opened = word[1:], len(words)
            continue
        words.append(word.replace("]", "") if opened else word)
        if opened and "]" in word:
            entities.add((*opened, len(words)))
            opened = None
    assert opened is None, line
    return Row(part, " ".join(words), language, frozenset(entities))


def utterance(text: str, language: str = "en") -> Utterance:
    """Give an utterance of the text's words in a language."""
    return said(text, language=language)
