"""How far two English words are from each other by ear: an edit distance over phones in which like sounds cost less.

A sound is the phones of `pronounce` as one letter each, so that libraries for strings can work on it. `ER` is written
as a vowel and an R, which speakers of half the world leave out, and of equal neighbours one is kept.

Consonants that differ in voice, or in place within a kind, are near each other: that is what a telephone line and small
models mix up. Vowels lie as far apart as on the vowel chart, diphthongs by both of their ends. What is easily swallowed
(schwa, H, R, a stop's release) is cheap to leave out or put in.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from vivavoce import pronounce

_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_VOWELS = {
    "IY": (0, 0, 0, 0),
    "IH": (0.25, 0.15, 0.25, 0.15),
    "EH": (0.6, 0.1, 0.6, 0.1),
    "AE": (0.85, 0.15, 0.85, 0.15),
    "AA": (1, 0.8, 1, 0.8),
    "AO": (0.7, 1, 0.7, 1),
    "AH": (0.6, 0.55, 0.6, 0.55),
    "UH": (0.25, 0.85, 0.25, 0.85),
    "UW": (0, 1, 0, 1),
    "EY": (0.5, 0.1, 0.15, 0.1),
    "AY": (0.95, 0.5, 0.2, 0.15),
    "OW": (0.5, 0.95, 0.2, 0.95),
    "AW": (0.95, 0.5, 0.3, 0.9),
    "OY": (0.65, 1, 0.2, 0.2),
}
"""Openness and backness, 0 to 1, where the vowel starts and where it ends."""
_VOWEL_NEAREST, _VOWEL_SPREAD, _VOWEL_FARTHEST = 0.15, 0.6, 0.8
_OTHER_CONSONANT, _OTHER_KIND = 0.9, 1.3
"""One consonant for an unlike one, and a vowel for a consonant or the reverse."""
_ALIKE = """
0.2 Y IY | W UW
0.25 S Z
0.3 P B | T D | K G | F V | TH DH | SH ZH | CH JH | F TH | DH D | N NG | JH ZH | Y IH | W UH
0.35 M N
0.4 S TH | V DH | V B | CH SH | CH T | JH D | W V | ZH Z
0.5 S F | S SH | TH T | Z DH | Z TH | M NG | P T | P K | T K | B D | D G | B G | P F | JH Z | L R | W R | NG G | W OW
0.6 V Z | HH F | HH TH | JH Y | CH S | W L | N L | N D | M B | T S | D Z | L OW | L UH | L AO | L UW
0.7 NG K | R UH | HH K | D R
0.9 NG IY
"""
_SWALLOWED = """
0.45 HH
0.5 AH IH R Y
0.6 W UH DH
0.65 T D L
0.7 N V IY EH
0.8 S AE AA AO UW EY AY OW AW OY
"""
_LEFT_OUT = 0.9
"""What it costs to leave out or put in any other phone."""

_REPEATED = re.compile(r"(.)\1+")

_PHONES = [*_VOWELS, *_CONSONANTS.split()]
_LETTERS = {phone: chr(ord("A") + n) for n, phone in enumerate(_PHONES)}
_LETTERS["ER"] = _LETTERS["AH"] + _LETTERS["R"]


def sound(phones: pronounce.Phones) -> str:
    """Give phones as a sound."""
    return joined([_LETTERS[phone] for phone in phones])


def joined(sounds: Sequence[str]) -> str:
    """Give sounds said one after the other as one."""
    return _REPEATED.sub(r"\1", "".join(sounds))


def sounds(text: str, most: int) -> list[str]:
    """Give the likeliest sounds of a written text, up to `most`, the likeliest first; none where nothing is said."""
    said = [pronounce.variants(word) for word in pronounce.spoken(text)]
    ways = itertools.islice(itertools.product(*said), most) if said else ()
    return list(dict.fromkeys(joined([sound(phones) for phones in way]) for way in ways))


def distance(one: str, other: str, limit: float) -> float:
    """Give the cost of turning one sound into another, 0 for the same, or infinity where it is beyond `limit`."""
    gaps = [_INDEL[letter] for letter in other]
    row = [0.0, *itertools.accumulate(gaps)]
    for letter in one:
        costs, missing = _COST[letter], _INDEL[letter]
        left = row[0] + missing
        above, row = row, [left]
        for wanted, gap, corner, over in zip(other, gaps, above, above[1:], strict=False):
            left = min(corner + costs[wanted], over + missing, left + gap)
            row.append(left)
        if min(row) > limit:
            return math.inf
    return row[-1] if row[-1] <= limit else math.inf


def _table(text: str) -> list[tuple[float, list[str]]]:
    """Read lines of a cost and the groups of phones that have it."""
    lines = [line.split(" ", 1) for line in text.strip().splitlines()]
    return [(float(cost), group.split()) for cost, groups in lines for group in groups.split(" | ")]


def _unlike(one: str, other: str) -> float:
    """Give the cost of one phone for another that `_ALIKE` does not name."""
    if one == other:
        return 0.0
    if one in _VOWELS and other in _VOWELS:
        apart = math.dist(_VOWELS[one], _VOWELS[other]) / math.sqrt(2)
        return min(_VOWEL_FARTHEST, _VOWEL_NEAREST + _VOWEL_SPREAD * apart)
    return _OTHER_KIND if one in _VOWELS or other in _VOWELS else _OTHER_CONSONANT


_INDEL = {_LETTERS[phone]: _LEFT_OUT for phone in _PHONES} | {
    _LETTERS[phone]: cost for cost, group in _table(_SWALLOWED) for phone in group
}
_COST = {_LETTERS[one]: {_LETTERS[other]: _unlike(one, other) for other in _PHONES} for one in _PHONES}
for _cost, (_one, _other) in _table(_ALIKE):
    _COST[_LETTERS[_one]][_LETTERS[_other]] = _COST[_LETTERS[_other]][_LETTERS[_one]] = _cost
