"""What is said to a system under test: recordings with known words, cut into turns as people take them.

The moment each word ends comes from aligning the known text with the recording, never from what a system heard, so
every system is measured by the same moments. So does the end of speech: it is where the recording's own energy falls
`SPEECH_END_DB` under its peak for the last time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np

from vivavoce.bench.words import words
from vivavoce.errors import SetupError, UnsupportedAudio
from vivavoce.model import SAMPLE_RATE, Samples
from vivavoce.plugins import Aligner

TRANSCRIPTS = {
    "two_cities": (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
        "it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season "
        "of darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had "
        "nothing before us, we were all going direct to heaven, we were all going direct the other way. In short, the "
        "period was so far like the present period that some of its noisiest authorities insisted on its being "
        "received, for good or for evil, in the superlative degree of comparison only."
    ),
    "beckett": "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
}
"""What is said in recordings of the moonshine-voice wheel: the printed text, which both readers follow."""

SPEECH_END_DB = 30.0
"""How far under its loudest block a recording's speech has ended."""

_BLOCK = SAMPLE_RATE // 100
_PAUSE_S = 0.3
_SHORTEST_TURN_S = 3.0
_BEFORE_S, _MARGIN_S = 0.12, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A word that is said, as `words` spells it, and when it ends, in seconds."""

    text: str
    end: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """What one person says in one go; times in seconds from its first sample."""

    name: str
    samples: Samples
    said: tuple[Spoken, ...]
    speech_end: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


def speech_end(samples: Samples) -> float:
    """Give where speech ends, in seconds: the end of the last 10 ms within `SPEECH_END_DB` of the loudest."""
    blocks = samples[: len(samples) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).astype(np.float64)
    power = np.einsum("bs,bs->b", blocks, blocks)
    if not power.size or not power.max():
        return 0.0
    loud = np.flatnonzero(power >= power.max() / 10 ** (SPEECH_END_DB / 10))
    return float((loud[-1] + 1) * _BLOCK / SAMPLE_RATE)


def turns(manifest: Path | None, aligner: Aligner) -> list[Turn]:
    """Give the turns of a manifest's recordings, or of those in the moonshine-voice wheel.

    Raises `SetupError` where the manifest cannot be read, `UnsupportedAudio` for a recording that cannot, and
    `SetupError` where not one recording fits its transcript.
    """
    found = [turn for path, text in _recordings(manifest) for turn in _cut(path.stem, _read(path), text, aligner)]
    if not found:
        raise SetupError(f"{manifest or 'moonshine-voice'}: no recording there fits its transcript")
    return found


def _recordings(manifest: Path | None) -> Iterator[tuple[Path, str]]:
    """Give each recording with what is said in it; those with a text for each channel are left out."""
    if manifest is None:
        spec = find_spec("moonshine_voice")
        assert spec is not None
        assert spec.submodule_search_locations
        assets = Path(spec.submodule_search_locations[0]) / "assets"
        yield from ((assets / f"{name}.wav", text) for name, text in TRANSCRIPTS.items())
        return
    for entry in _entries(manifest):
        if isinstance(entry["transcript"], str):
            yield manifest.parent / str(entry["file"]), entry["transcript"]


def _entries(manifest: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SetupError(f"{manifest} is not valid JSON: {error}") from error
    known = isinstance(entries, list) and all(
        isinstance(entry, dict) and {"file", "transcript"} <= entry.keys() for entry in entries
    )
    if not known:
        raise SetupError(f'{manifest} must be a JSON list of {{"file": …, "transcript": …}}')
    return list(entries)


def _read(path: Path) -> Samples:
    """Give a recording as mono samples."""
    if not path.is_file():
        raise UnsupportedAudio(f"{path}: there is no such file")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    try:
        with av.open(str(path)) as container:
            frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    except (av.FFmpegError, IndexError) as error:
        raise UnsupportedAudio(f"{path}: cannot be read as audio") from error
    pieces = [frame.to_ndarray().reshape(-1) for frame in [*frames, *resampler.resample(None)]]
    return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def _cut(name: str, samples: Samples, text: str, aligner: Aligner) -> Iterator[Turn]:
    """Cut a recording at its pauses into turns of `_SHORTEST_TURN_S` and more; nothing where its text does not fit."""
    said = words(text)
    times = aligner.align(samples, said)
    if not times:
        return
    first = 0
    for last in range(len(said)):
        pause_s = times[last + 1][0] - times[last][1] if last + 1 < len(said) else np.inf
        long_enough = times[last][1] - times[first][0] >= _SHORTEST_TURN_S
        if last + 1 == len(said) or (pause_s >= _PAUSE_S and long_enough):
            after_s = min(pause_s / 2, _MARGIN_S)
            yield _turn(f"{name}/{first}", samples, said[first : last + 1], times[first : last + 1], after_s)
            first = last + 1


def _turn(
    name: str, samples: Samples, said: Sequence[str], times: Sequence[tuple[float, float]], after_s: float
) -> Turn:
    """Give the samples from shortly before the first word to `after_s` behind the last, which keeps breaths out."""
    start = max(round((times[0][0] - _BEFORE_S) * SAMPLE_RATE), 0)
    stop = round((times[-1][1] + after_s) * SAMPLE_RATE)
    clip = samples[start:stop]
    offset = start / SAMPLE_RATE
    spoken = tuple(Spoken(text=text, end=end - offset) for text, (_, end) in zip(said, times, strict=True))
    return Turn(name=name, samples=clip, said=spoken, speech_end=speech_end(clip))
