"""Speaker numbers: the voices of one final after another, each found among those heard before or added to them.

A speaker is the sum of the voices that were taken for it, each as heavy as the speech it rests on. A voice belongs to
the nearest speaker if it is near enough, and little speech is near enough at a smaller cosine than much. Otherwise it
is a new speaker's, if it has enough speech to be known by and there may be one more; if not, the nearest speaker gets
it and does not change. Finals never change, so nothing that was said is revised.

The numbers depend on the finals so far and on nothing else. What is saved after a final is all that the next one needs.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.model import Diarization, Utterance, Voice, Word

MOST = 16
"""Speakers on one channel where no maximum is given; each takes 1.4 KB of every snapshot."""

FOUND_S = 0.6
"""Speech that makes a new speaker; a voice with less goes to the nearest one."""

_NEAR = ((0.3, 1.0, 2.0), (0.12, 0.28, 0.38))
"""Cosine from which a voice is a speaker's, by the seconds of speech that the shorter of the two rests on."""
_EAGER = 0.05
"""How much nearer it has to be while there are fewer speakers than expected."""
_LONGEST_S = 30.0
"""Speech after which a speaker counts as no heavier, so that it keeps following the voice."""


@dataclass(slots=True, kw_only=True)
class _Speaker:
    """The sum of a speaker's voices, weighed by their seconds."""

    total: NDArray[np.float32]
    heard_s: float

    def nearness(self, voice: NDArray[np.float32]) -> float:
        if self.total.shape != voice.shape:  # saved by another diarizer
            return -1.0
        return float(self.total @ voice / max(float(np.linalg.norm(self.total)), 1e-9))

    def take(self, voice: NDArray[np.float32], seconds: float) -> None:
        self.total = (self.total + voice * np.float32(seconds)).astype(np.float32)
        self.heard_s += seconds
        if self.heard_s > _LONGEST_S:
            self.total = (self.total * np.float32(_LONGEST_S / self.heard_s)).astype(np.float32)
            self.heard_s = _LONGEST_S


class Speakers:
    """The speakers of one channel, numbered from 0 in order of appearance.

    Where `channels` of a session are listened to each by itself, channel `index` gives the numbers `index`,
    `index + channels` and so on, so that no two channels share one.
    """

    def __init__(self, asked: Diarization, *, index: int = 0, channels: int = 1) -> None:
        self._index, self._channels = index, channels
        self._asked = asked
        self._most = min(asked.maximum or MOST, MOST)
        self._known: list[_Speaker] = []

    def attribute(self, utterance: Utterance, voices: Sequence[Voice], clip_start: float) -> Utterance:
        """Give the next final with its speakers; `voices` are those of its clip, which starts at `clip_start` seconds.

        Each word gets the one who speaks during it, or nearest to it; the utterance the one who says most of it. There
        are none where no voice is known.
        """
        if self._asked.by_channel:
            return _all_by(utterance, self._index)
        if not voices:
            return utterance
        # Who says most is the easiest to know, and then a help in knowing the others; numbers go by appearance.
        order = sorted(range(len(voices)), key=lambda i: (-voices[i].alone_s, i))
        first_free = len(self._known)
        places = dict(zip(order, [self._place(voices[i]) for i in order], strict=True))
        moved = self._by_appearance(first_free, [places[i] for i in range(len(voices))])
        numbers = [moved.get(places[i], places[i]) * self._channels + self._index for i in range(len(voices))]
        words = tuple(replace(word, speaker=numbers[_speaking(word, clip_start, voices)]) for word in utterance.words)
        return replace(utterance, words=words, speaker=_most_by(words))

    def save(self) -> list[Any]:
        """Give what `restore` needs, as JSON."""
        return [[speaker.heard_s, b64encode(speaker.total.tobytes()).decode()] for speaker in self._known]

    def restore(self, saved: Sequence[Any]) -> None:
        """Go on after the final that this was saved with."""
        self._known = [
            _Speaker(total=np.frombuffer(b64decode(total), np.float32), heard_s=heard_s) for heard_s, total in saved
        ]

    def _place(self, voice: Voice) -> int:
        """Give the place of the speaker that a voice belongs to, and let it count for that."""
        heard = np.array(voice.embedding, np.float32)
        nearness = [speaker.nearness(heard) for speaker in self._known]
        best = int(np.argmax(nearness)) if nearness else -1
        if best >= 0 and nearness[best] >= self._near_enough(voice, self._known[best]):
            self._known[best].take(heard, voice.alone_s)
            return best
        if best >= 0 and (voice.alone_s < FOUND_S or len(self._known) >= self._most):
            return best
        self._known.append(_Speaker(total=np.zeros_like(heard), heard_s=0.0))
        self._known[-1].take(heard, voice.alone_s)
        return len(self._known) - 1

    def _near_enough(self, voice: Voice, speaker: _Speaker) -> float:
        shorter = min(voice.alone_s, speaker.heard_s)
        near = float(np.interp(shorter, *_NEAR))
        return near + _EAGER if len(self._known) < self._asked.minimum else near

    def _by_appearance(self, first_free: int, places: Sequence[int]) -> Mapping[int, int]:
        """Put speakers that are new with this final in the order in which they speak; give who moved where."""
        new = list(dict.fromkeys(place for place in places if place >= first_free))
        self._known[first_free:] = [self._known[place] for place in new]
        return {place: first_free + i for i, place in enumerate(new)}


def _all_by(utterance: Utterance, number: int) -> Utterance:
    words = tuple(replace(word, speaker=number) for word in utterance.words)
    return replace(utterance, words=words, speaker=number)


def _speaking(word: Word, clip_start: float, voices: Sequence[Voice]) -> int:
    """Give which of the voices says a word: who speaks for most of it, or the nearest before or after it."""
    start, end = word.start - clip_start, word.end - clip_start

    def fit(voice: Voice) -> tuple[float, float]:
        during = sum(max(min(end, stop) - max(start, begin), 0.0) for begin, stop in voice.spans)
        away = min(max(begin - end, start - stop, 0.0) for begin, stop in voice.spans)
        return during, -away

    return max(range(len(voices)), key=lambda i: fit(voices[i]))


def _most_by(words: Sequence[Word]) -> int | None:
    """Give who says most of the words, by their times; whoever is first where two say as much."""
    seconds: dict[int | None, float] = {}
    for word in words:
        seconds[word.speaker] = seconds.get(word.speaker, 0.0) + word.end - word.start
    return max(seconds, key=lambda speaker: seconds[speaker])
