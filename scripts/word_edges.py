"""How far word times lie from the edges that speech has in the energy of the signal.

Run as `python scripts/word_edges.py`: the default engine hears the recordings of the `moonshine-voice` wheel, the
aligner times its words, and the errors beside every pause are printed. Neither voice activity nor the aligner has a
say in where the edges are: they come from the energy envelope of the recording alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
from av import AudioResampler
from numpy.typing import NDArray

from vivavoce.model import SAMPLE_RATE, Clip, Samples, Word
from vivavoce.plugins import Aligner, Engine, plugin

RECORDINGS = ("beckett.wav", "clone-test.wav", "two_cities.wav", "endgame_nagg_nell.wav")

HOP_S = 0.005
WINDOW_S = 0.010
PAUSE_S = 0.150
BELOW_SPEECH_DB = 30.0
ABOVE_NOISE_DB = 8.0
GAP_S = 0.08
"""Shorter silences are inside a sound: the closure of a stop is about this long."""
VOICE_DB = 10.0
"""A sound that never comes this near to the loud parts is a breath or a click, not a word."""


def recording(name: str) -> Samples:
    """Give one of the wheel's recordings at `SAMPLE_RATE` in mono; `name` may also be the path of any audio file."""
    path = Path(name)
    resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path if path.exists() else files("moonshine_voice") / "assets" / name)) as container:
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in [*parts, *resampler.resample(None)]])


def envelope_db(samples: Samples) -> NDArray[np.float64]:
    """Give the level in dB of a `WINDOW_S` window around each multiple of `HOP_S`."""
    half = int(WINDOW_S * SAMPLE_RATE) // 2
    power = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    centres = np.arange(0, len(samples), int(HOP_S * SAMPLE_RATE))
    first, last = np.maximum(centres - half, 0), np.minimum(centres + half, len(samples))
    mean = (power[last] - power[first]) / np.maximum(last - first, 1)
    return np.asarray(10 * np.log10(np.maximum(mean, 1e-12)))


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Give the stretches where `mask` is true, as (first, one past the last)."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in changes.reshape(-1, 2)]


def pauses(samples: Samples, minimum_s: float = PAUSE_S) -> list[tuple[float, float]]:
    """Give (start, end) in seconds of every silence of at least `minimum_s`, those at either end included.

    Silent is what lies `BELOW_SPEECH_DB` under the loud parts or within `ABOVE_NOISE_DB` of the quiet ones, and every
    sound that stays `VOICE_DB` under the loud parts.
    """
    level = envelope_db(samples)
    speech, noise = np.percentile(level, 95), np.percentile(level, 10)
    silent = level < max(speech - BELOW_SPEECH_DB, min(noise + ABOVE_NOISE_DB, speech - BELOW_SPEECH_DB / 2))
    for first, last in runs(silent):
        if (last - first) * HOP_S < GAP_S:
            silent[first:last] = False
    for first, last in runs(~silent):
        if level[first:last].max() < speech - VOICE_DB:
            silent[first:last] = True
    found = [(first * HOP_S, min(last * HOP_S, len(samples) / SAMPLE_RATE)) for first, last in runs(silent)]
    return [(start, end) for start, end in found if end - start >= minimum_s]


def edge_offsets(
    words: Sequence[tuple[str, float, float]], silences: Iterable[tuple[float, float]]
) -> list[tuple[str, float]]:
    """Give, for both sides of each pause, the word there and how much too late its boundary lies, in seconds.

    `words` are (text, start, end) by start. The word before a pause is the last whose middle lies before the middle of
    the pause; the one after it is the next. A word drawn over a pause is therefore an error on one side.
    """
    offsets: list[tuple[str, float]] = []
    for start, end in silences:
        before = [word for word in words if word[1] + word[2] < start + end]
        after = words[len(before) :]
        if before:
            offsets.append((before[-1][0], before[-1][2] - start))
        if after:
            offsets.append((after[0][0], after[0][1] - end))
    return offsets


def edge_errors(words: Sequence[tuple[str, float, float]], silences: Iterable[tuple[float, float]]) -> list[float]:
    """Give the distance in seconds between each pause's edges and the word boundaries beside it."""
    return [abs(late) for _, late in edge_offsets(words, silences)]


def summary(errors: Sequence[float]) -> str:
    """Give one line with the median, the 90th percentile and the count."""
    if not errors:
        return "no edges"
    median, p90 = np.percentile(errors, [50, 90]) * 1000
    return f"median {median:.0f} ms, p90 {p90:.0f} ms, {len(errors)} edges"


def segments(samples: Samples, silence_s: float = 0.3) -> list[tuple[int, int]]:
    """Give sample positions of clips cut at silences, with 0.2 s before each and 0.1 s after."""
    edges = [0.0, *(edge for pause in pauses(samples, silence_s) for edge in pause), len(samples) / SAMPLE_RATE]
    spans = zip(edges[::2], edges[1::2], strict=True)
    return [
        (max(0, int((start - 0.2) * SAMPLE_RATE)), min(len(samples), int((end + 0.1) * SAMPLE_RATE)))
        for start, end in spans
        if end - start >= 0.1  # noqa: PLR2004 - less is no utterance
    ]


def heard_words(samples: Samples, engine: Engine, aligner: Aligner) -> tuple[list[Word], int, float]:
    """Give the words of a recording with aligned times, how many clips did not align, and the seconds it took."""
    words: list[Word] = []
    failed, spent_s = 0, 0.0
    for start, stop in segments(samples):
        clip = samples[start:stop]
        heard = engine.transcribe([Clip(key="", samples=clip, final=True)])[0].words
        began = time.perf_counter()
        times = aligner.align(clip, [word.text for word in heard])
        spent_s += time.perf_counter() - began
        failed += times is None and bool(heard)
        offset = start / SAMPLE_RATE
        for word, (from_s, to_s) in zip(heard, times or [(w.start, w.end) for w in heard], strict=True):
            words.append(Word(text=word.text, start=offset + from_s, end=offset + to_s, confidence=word.confidence))
    return words, failed, spent_s


def main() -> None:
    """Print the errors of each recording and of all together."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engine", default="moonshine")
    parser.add_argument("--aligner", default="pocketsphinx")
    parser.add_argument("--words", action="store_true", help="print every edge")
    parser.add_argument("recordings", nargs="*", default=RECORDINGS, help="names in the wheel, or paths of audio files")
    options = parser.parse_args()
    engine, aligner = plugin("engines", options.engine)(), plugin("aligners", options.aligner)()
    every: list[float] = []
    for name in options.recordings:
        samples = recording(name)
        words, failed, spent_s = heard_words(samples, engine, aligner)
        offsets = edge_offsets([(word.text, word.start, word.end) for word in words], pauses(samples))
        errors = [abs(late) for _, late in offsets]
        speed = len(samples) / SAMPLE_RATE / max(spent_s, 1e-9)
        print(f"{name}: {summary(errors)}; {failed} clips not aligned; {speed:.0f} x real time")
        if options.words:
            print("  " + "  ".join(f"{text} {late * 1000:+.0f}" for text, late in offsets))
        every += errors
    print(f"all: {summary(every)}")


if __name__ == "__main__":
    main()
