"""What speaks for an English word where another was heard: an edit distance over phones in which like sounds cost less.

A sound is the phones of `pronounce` as one letter each, so that libraries for strings can work on it. `ER` is written
as a vowel and an R, which speakers of half the world leave out, and of equal neighbours one is kept.

All costs are differences of log odds, in nats: how much likelier it is to hear a phone where another one was said than
to hear it anywhere. They come from counts of what the default engine wrote for the phones of names over the telephone
(heard_phones.txt, which says how it was made). Where the counts are few, knowledge of phones stands in: consonants that
differ in voice, or in place within a kind, are near each other, vowels lie as far apart as on the vowel chart.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from vivavoce import pronounce
from vivavoce.addons.rewriting import UNSPACED_RANGES, unspaced

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
_PRIOR_WEIGHT, _PRIOR_STEEPNESS = 12.0, 4.0
"""How many sightings of a phone that knowledge counts as, and how much less likely by it a phone is for each unit."""
_ANYTHING = 0.03
"""Share of phones for which anything may be heard."""
_LEAST_PUT_IN = 0.02
"""What it costs at least to hear a phone that was not said."""

_REPEATED = re.compile(rf"([^{UNSPACED_RANGES}])\1+")

_PHONES = [*_VOWELS, *_CONSONANTS.split()]
_LETTERS = {phone: chr(ord("A") + n) for n, phone in enumerate(_PHONES)}
_LETTERS["ER"] = _LETTERS["AH"] + _LETTERS["R"]


def sound(phones: pronounce.Phones) -> str:
    """Give phones as a sound."""
    return joined([_LETTERS[phone] for phone in phones])


def joined(sounds: Sequence[str]) -> str:
    """Give sounds said one after the other as one; of equal neighbours one is kept, unless they are syllables."""
    return _REPEATED.sub(r"\1", "".join(sounds))


def extended(before: str, after: str) -> str:
    """Give two sounds, each as `joined` gives it, said one after the other."""
    once = before[-1:] == after[:1] and bool(after) and not unspaced(after[0])
    return before + (after[1:] if once else after)


def sounds(text: str, most: int) -> list[str]:
    """Give the likeliest sounds of a written text, up to `most`, the likeliest first; none where nothing is said."""
    said = [pronounce.variants(word) for word in pronounce.spoken(text)]
    ways = itertools.islice(itertools.product(*said), most) if said else ()
    return list(dict.fromkeys(joined([sound(phones) for phones in way]) for way in ways))


def worth(said: str) -> float:
    """Give the log odds that speak for a sound that is heard exactly as it is said: more, the longer and rarer."""
    return sum(_WORTH[letter] for letter in said)


def distance(heard: str, said: str, limit: float) -> float:
    """Give how much of the worth of a sound is lost where another is heard, or infinity where it is beyond `limit`.

    It is 0 for the same sound, and more than the worth for sounds that have nothing to do with each other. Swapped,
    two sounds are another distance apart.
    """
    gaps = [_LEFT_OUT[letter] for letter in said]
    row = [0.0, *itertools.accumulate(gaps)]
    for letter in heard:
        costs, more = _COST[letter], _PUT_IN[letter]
        left = row[0] + more
        above, row = row, [left]
        for wanted, gap, corner, over in zip(said, gaps, above, above[1:], strict=False):
            left += gap
            if (change := corner + costs[wanted]) < left:
                left = change
            if (put_in := over + more) < left:
                left = put_in
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


_UNLIKE = {(one, other): _unlike(one, other) for one in _PHONES for other in _PHONES}
for _cost, (_one, _other) in _table(_ALIKE):
    _UNLIKE[_one, _other] = _UNLIKE[_other, _one] = _cost


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What is known of a phone: its share of English speech, how often it was put in or left out, and heard as what."""

    usual: float
    put_in: int
    left_out: int
    heard: Counter[str]

    @property
    def said(self) -> int:
        return self.left_out + self.heard.total()


def _counts() -> dict[str, _Counts]:
    lines = files("vivavoce.addons").joinpath("heard_phones.txt").read_text(encoding="utf-8").splitlines()
    counts = {}
    for phone, usual, put_in, left_out, *heard in (line.split() for line in lines if not line.startswith("#")):
        times = Counter(dict(zip(heard[::2], map(int, heard[1::2]), strict=True)))
        counts[phone] = _Counts(usual=int(usual) / 10_000, put_in=int(put_in), left_out=int(left_out), heard=times)
    return counts


def _chances(counts: dict[str, _Counts], said: str, mean_left_out: float) -> tuple[dict[str, float], float]:
    """Give the log odds of each phone where one was said, and the log of the chance that nothing was heard."""
    of, weight = counts[said], _PRIOR_WEIGHT
    likely = {phone: counts[phone].usual * math.exp(-_PRIOR_STEEPNESS * _UNLIKE[said, phone]) for phone in counts}
    total = sum(likely.values())
    lost = (of.left_out + weight * mean_left_out) / (of.said + weight)
    odds = {}
    for phone, each in counts.items():
        share = (of.heard[phone] + weight * likely[phone] / total) / (of.heard.total() + weight)
        odds[phone] = math.log((1 - lost) * ((1 - _ANYTHING) * share / each.usual + _ANYTHING))
    return odds, math.log(lost)


def _costs() -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, float], dict[str, float]]:
    """Give the costs of a letter heard for one said, of one put in and of one left out, and the worth of each."""
    counts = _counts()
    said = sum(each.said for each in counts.values())
    mean_left_out = sum(each.left_out for each in counts.values()) / said
    mean_put_in = sum(each.put_in for each in counts.values()) / said
    weight = 2 * _PRIOR_WEIGHT
    cost: dict[str, dict[str, float]] = {_LETTERS[phone]: {} for phone in counts}
    put_in, left_out, worth = {}, {}, {}
    for phone, each in counts.items():
        letter = _LETTERS[phone]
        odds, lost = _chances(counts, phone, mean_left_out)
        worth[letter], left_out[letter] = odds[phone], odds[phone] - lost
        more = (each.put_in + weight * mean_put_in * each.usual) / (said + weight)
        put_in[letter] = max(_LEAST_PUT_IN, math.log(each.usual / more))
        for other in counts:
            cost[_LETTERS[other]][letter] = max(0.0, odds[phone] - odds[other])
    return cost, put_in, left_out, worth


_COST, _PUT_IN, _LEFT_OUT, _WORTH = _costs()
