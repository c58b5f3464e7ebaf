"""How sherpa-onnx's tokens become words: joined at blanks, apart where a script has none, with the tokens' times."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vivavoce.model import UNSPACED, Word, spread_words

NO_CONFIDENCE = 0.5
"""Confidence of words for which a model gives none."""

_LONGEST_PIECE_S = 0.4  # how long the last piece of a word may last before a pause

_SCRIPTS: Mapping[str, Callable[[str], bool]] = {
    "zh": lambda letter: "\u3400" <= letter <= "\u9fff",
    "ja": lambda letter: "\u3040" <= letter <= "\u30ff",
    "th": lambda letter: "\u0e00" <= letter <= "\u0e7f",
    "lo": lambda letter: "\u0e80" <= letter <= "\u0eff",
    "my": lambda letter: "\u1000" <= letter <= "\u109f",
    "ko": lambda letter: "\uac00" <= letter <= "\ud7a3",
}


def timed_words(result: Any, start_s: float, end_s: float) -> list[Word]:
    """Give the words of a result whose audio lasted from `start_s` to `end_s`, with the times of their pieces."""
    pieces = [piece.replace("▁", " ") for piece in result.tokens]
    times = [min(start_s + at, end_s) for at in result.timestamps]
    logs = list(getattr(result, "ys_probs", None) or getattr(result, "ys_log_probs", None) or ())
    if len(times) != len(pieces) or "".join("".join(pieces).split()) != "".join(result.text.split()):
        texts = _split(result.text)
        confidence = _confidence(logs)
        first = times[0] if times else start_s
        last = min(times[-1] + _LONGEST_PIECE_S, end_s) if times else end_s
        return list(spread_words(texts, [confidence] * len(texts), first, last))
    lasting = list(getattr(result, "durations", None) or ())
    words = []
    for first, stop in _groups(pieces):
        after = times[stop] if stop < len(times) else end_s
        longest = lasting[stop - 1] if len(lasting) == len(times) else _LONGEST_PIECE_S
        words.append(
            Word(
                text="".join(pieces[first:stop]).strip(),
                start=times[first],
                end=min(times[stop - 1] + longest, after),
                confidence=_confidence(logs[first:stop] if len(logs) == len(pieces) else logs),
            )
        )
    return words


def _groups(pieces: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Give the first piece of each word and the one behind its last; pieces of blanks alone belong to none."""
    first, before = None, ""
    for nth, piece in enumerate(pieces):
        if first is not None and (piece[:1] in {"", " "} or _apart(before, piece[0])):
            yield first, nth
            first = None
        if piece.strip():
            first = nth if first is None else first
            before = piece.strip()[-1]
    if first is not None:
        yield first, len(pieces)


def _split(text: str) -> list[str]:
    """Cut a text into words: at blanks, and between characters where the script has no blanks."""
    marked = "".join(
        letter + " " * (nth + 1 < len(text) and _apart(letter, text[nth + 1])) for nth, letter in enumerate(text)
    )
    return marked.split()


def _apart(before: str, after: str) -> bool:
    """Tell whether a word ends between two characters that have no blank between them."""
    return unicodedata.category(after)[0] not in "MP" and (unspaced(before) or unspaced(after))


def unspaced(letter: str) -> bool:
    """Tell whether a character is of a script without blanks between words."""
    return any(_SCRIPTS[code](letter) for code in UNSPACED)


def by_script(text: str, among: Sequence[str]) -> str:
    """Give the first of the languages that is written as a text is; the first of all if none is."""
    counts = {code: sum(map(own, text)) for code, own in _SCRIPTS.items()}
    likeliest = max(counts, key=lambda code: counts[code])
    if not counts[likeliest]:
        others = [code for code in among if code not in _SCRIPTS] if text else []
        return others[0] if others else among[0]
    if likeliest == "zh" and (counts["ja"] or "zh" not in among):
        likeliest = "ja"
    return likeliest if likeliest in among else among[0]


def told_apart(languages: Sequence[str]) -> bool:
    """Tell whether `by_script` knows each of some languages from the others."""
    return len([code for code in languages if code not in _SCRIPTS]) <= 1


def _confidence(logs: Sequence[float]) -> float:
    return min(1.0, math.exp(sum(logs) / len(logs))) if logs else NO_CONFIDENCE
