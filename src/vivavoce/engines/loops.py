"""Texts that go round in circles: what small models write on noise and after cut words, and then to the end."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST_PHRASE, _LONG_PHRASE = 16, 6
_LOOP_TOKENS = 8


def looped(tokens: Sequence[int]) -> int:
    """Give how many tokens at the end repeat the phrase before them, 0 unless they make a loop.

    A loop is a phrase four times in a row, or three times for one of six tokens and more, and at least eight tokens.
    """
    for size in range(1, _LONGEST_PHRASE + 1):
        span = max((3 if size >= _LONG_PHRASE else 4) * size, _LOOP_TOKENS)
        tail = tokens[-(span + -span % size) :]
        if len(tail) >= span and tail[size:] == tail[:-size]:
            return len(tail) - size
    return 0
