"""Words as they sound, and which of them were heard: what error rates and lags rest on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from num2words import num2words
from rapidfuzz.distance import LCSseq, Levenshtein


def words(text: str) -> list[str]:
    """Give a text's words as they sound: lower case, numbers spelled out, no punctuation."""
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = re.sub(r"\d+", lambda digits: f" {num2words(int(digits[0]))} ", text)
    text = re.sub(r"\bmr\.", "mister", text)
    return re.sub(r"[^a-z' ]", " ", text.replace("-", " ")).split()


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Count the words to change, add or leave out to make one text of the other."""
    return int(Levenshtein.distance(said, heard))


def pairs(said: Sequence[str], heard: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Give the places in both texts of each word that was heard, rightly or as another, in order.

    Words that were not heard, or not said, are in no pair.
    """
    for step in Levenshtein.opcodes(said, heard):
        if step.tag in {"equal", "replace"}:
            yield from zip(range(step.src_start, step.src_end), range(step.dest_start, step.dest_end), strict=True)


def kept(before: Sequence[str], after: Sequence[str]) -> int:
    """Count the words of one text that stand in another unchanged, in the same order."""
    return int(LCSseq.similarity(before, after))
