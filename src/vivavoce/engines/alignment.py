"""Word times for a known English text: forced alignment with PocketSphinx and the acoustic model in its wheel.

The decoder starts without a dictionary and is given the words of each text as `pronounce` says them, so one module
decides how everything is said. A narrow search comes first and a wide one where it fails; both are exhaustive within
their beams, which bounds the work. Nothing of one call is left over for the next.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence

import numpy as np
from pocketsphinx import Decoder

from vivavoce import pronounce
from vivavoce.model import SAMPLE_RATE, Samples

LONGEST_S = 90.0
"""Clips beyond this are refused, so that no call takes more than a few seconds."""
QUIETEST = 10 ** (-60 / 20)
"""A clip whose loudest sample stays under this has no speech in it."""
KNOWN_WORDS = 5000
"""Words that a decoder may learn before a fresh one takes over, so that its dictionary does not grow for ever."""

_FRAME_S = 0.010
_BOUNDARY_S = 0.008
"""A frame of 25.6 ms stands for its middle, so the boundary before frame n lies at n frames and this."""
_FRAMES_PER_PHONE = 3
_BEAMS = (1e-64, 1e-120)
_TAIL = bytes(2 * SAMPLE_RATE // 5)
"""0.2 s of silence after the clip, in 16-bit samples. A final ends 0.1 s after its speech, often too soon for that
silence to be told from the last word, which then reaches to the clip's end."""


class PocketSphinxAligner:
    """Aligns English at some 60 to 80 times real time; the same clip and words always get the same times.

    It holds the GIL while it works, so it belongs in a process of its own.
    """

    languages = frozenset({"en"})

    def __init__(self) -> None:
        self._searches = [_Search(beam) for beam in _BEAMS]
        self._one_call = threading.Lock()
        pronounce.dictionary()

    def align(self, samples: Samples, words: Sequence[str]) -> list[tuple[float, float]] | None:
        """Give each word's start and end in seconds from the clip's start, in order, or None where it fails.

        Times never go back and stay inside the clip; what is not said, such as a dash, gets no length. It fails on
        silence, on text without a spoken word, on a text that the clip is too short for or that does not fit it, and
        on clips beyond `LONGEST_S`.
        """
        spoken = [pronounce.spoken(word) for word in words]
        said = [word for group in spoken for word in group]
        if not _plausible(samples, said):
            return None
        pcm = (np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16).tobytes() + _TAIL
        with self._one_call:
            for search in self._searches:
                if (spans := search.spans(pcm, said)) is not None:
                    return _by_word(spans, [len(group) for group in spoken], len(samples) / SAMPLE_RATE)
        return None


def _plausible(samples: Samples, said: Sequence[str]) -> bool:
    """Tell whether the words could be in the clip at all."""
    clip_s = len(samples) / SAMPLE_RATE
    shortest = sum(min(len(phones) for phones in pronounce.variants(word)) for word in said)
    if not 0 < shortest * _FRAMES_PER_PHONE * _FRAME_S <= clip_s <= LONGEST_S:
        return False
    peak = float(np.abs(samples).max())
    return math.isfinite(peak) and peak >= QUIETEST


def _by_word(spans: Sequence[tuple[float, float]], counts: Sequence[int], clip_s: float) -> list[tuple[float, float]]:
    """Give one span per written word from those of its spoken words; `counts` says how many each has."""
    times: list[tuple[float, float]] = []
    at, reached = 0, 0.0
    for count in counts:
        own = spans[at : at + count]
        start, end = (own[0][0], own[-1][1]) if own else (reached, reached)
        reached = min(end, clip_s)
        times.append((min(start, clip_s), reached))
        at += count
    return times


class _Search:
    """A decoder with one beam, and the words it knows."""

    def __init__(self, beam: float) -> None:
        self._beam = beam
        self._open()

    def _open(self) -> None:
        # Only "FATAL" keeps the library from printing the words of a text that does not fit. The best path through its
        # word lattice may leave words out or stretch them over silence; the first pass may not.
        self._decoder = Decoder(
            lm=None,
            dict=None,
            loglevel="FATAL",
            bestpath=False,
            beam=self._beam,
            pbeam=self._beam,
            wbeam=self._beam,
        )
        self._tokens: dict[str, str] = {}

    def spans(self, pcm: bytes, said: Sequence[str]) -> list[tuple[float, float]] | None:
        """Give the start and end in seconds of each spoken word in 16-bit samples, or None where they do not fit."""
        if len(self._tokens) > KNOWN_WORDS:
            self._open()
        tokens = [self._token(word) for word in said]
        decoder = self._decoder
        decoder.set_align_text(" ".join(tokens))
        # The front end tracks the noise level over utterances; without this, times depend on earlier clips.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return None
        found = [segment for segment in decoder.seg() if segment.word[0] == "w"]
        if [re.sub(r"\(\d+\)$", "", segment.word) for segment in found] != tokens:
            return None
        return [
            (segment.start_frame * _FRAME_S + _BOUNDARY_S, (segment.end_frame + 1) * _FRAME_S + _BOUNDARY_S)
            for segment in found
        ]

    def _token(self, word: str) -> str:
        """Give the name under which the decoder knows a word, in all the ways to say it."""
        if (known := self._tokens.get(word)) is not None:
            return known
        token = f"w{len(self._tokens)}"
        for n, phones in enumerate(pronounce.variants(word), 1):
            self._decoder.add_word(token if n == 1 else f"{token}({n})", " ".join(phones), False)
        self._tokens[word] = token
        return token
