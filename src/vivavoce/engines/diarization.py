"""Who is heard in a clip, by the two models that the moonshine-voice wheel's own diarizer is built on.

One model marks, every 17 ms of a window of 10 s, up to three people who speak; the other turns someone's speech into a
vector that sounds like that person whatever is said. Both are pyannote's community-1 (CC BY 4.0) and lie inside the
wheel's library as plain data. The wheel itself runs them over a stream, ten times over every second, and revises what
it said; here they see each final's clip once, which takes a twentieth of the time and gives the same for the same clip.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from vivavoce.engines import inference
from vivavoce.errors import PluginError, SetupError
from vivavoce.model import SAMPLE_RATE, Samples, Voice

ENOUGH_S = 2.0
"""Speech that a voice is known by; more costs time and tells little more."""
LEAST_S = 0.25
"""Speech without which a voice is not known, and taken for a slip of the first model."""

_WINDOW = 10 * SAMPLE_RATE
_STEP_S = 0.016875
"""From one mark of the first model to the next."""
_SPEAKS = 0.5
"""A mark above this says that somebody speaks; they are 0 or 1 but for rounding."""
_FEATURES_PER_S = 100
_MEL_BINS = 80
_FULL_SCALE = 32768.0
"""Kaldi's features are made of 16-bit samples."""
_SYMBOL = "_ZN9cppannote19embedded_community1{}{}E"

Marks = NDArray[np.bool_]
"""Who speaks: one row per mark, one column per person."""


class MoonshineDiarizer:
    """Tells people apart in some 0.1 s of one core for a clip of one; implements `plugins.Diarizer`.

    A window of the clip takes 0.06 s, each voice up to 0.15 s more.
    """

    def __init__(self) -> None:
        library = _library()
        self._segmentation = _session(_embedded(library, "segmentation_ort_data"))
        self._embedding = _session(_embedded(library, "embedding_ort_data"))

    def voices(self, samples: Samples) -> tuple[Voice, ...]:
        """Give everybody who is heard for `LEAST_S`, whoever is heard first first; the same for the same clip.

        Somebody who speaks in several windows of 10 s is given once for each. Where nobody stands out, all of the clip
        is taken for one voice; a clip shorter than `LEAST_S` has none.
        """
        if len(samples) < LEAST_S * SAMPLE_RATE:
            return ()
        try:
            features = _features(samples)
            found = [voice for start, marks in self._windows(samples) for voice in self._told(start, marks, features)]
            return tuple(found) or self._told(0.0, np.ones((_marks_in(len(samples)), 1), np.bool_), features)
        except Exception as error:
            raise PluginError("the diarization model failed") from error

    def _windows(self, samples: Samples) -> Iterator[tuple[float, Marks]]:
        """Give the start in seconds and the marks of each window; the last one looks back for a full view."""
        for start in range(0, len(samples), _WINDOW):
            first = max(min(start, len(samples) - _WINDOW), 0)
            window = np.zeros(_WINDOW, np.float32)
            heard = samples[first : first + _WINDOW]
            window[: len(heard)] = heard
            (marks,) = self._segmentation.run(None, {"waveforms": window[None, None]})
            skip = _marks_in(start - first)
            yield start / SAMPLE_RATE, marks[0, skip : _marks_in(len(heard))] > _SPEAKS

    def _told(self, start: float, marks: Marks, features: NDArray[np.float32]) -> tuple[Voice, ...]:
        """Give the voices of a window in the order of their first words."""
        single = marks.sum(axis=1) == 1
        found: list[Voice] = []
        for column in marks.T:
            alone = column & single
            # Somebody who is hardly ever alone is known by what there is.
            heard = alone if alone.sum() * _STEP_S >= LEAST_S else column
            if heard.sum() * _STEP_S >= LEAST_S:
                voice = Voice(
                    spans=_spans(start, column),
                    alone_s=float(heard.sum()) * _STEP_S,
                    embedding=self._embed(features[_features_at(start, heard, len(features))]),
                )
                found.append(voice)
        return tuple(sorted(found, key=lambda voice: voice.spans[0]))

    def _embed(self, features: NDArray[np.float32]) -> tuple[float, ...]:
        enough = features[None, : round(ENOUGH_S * _FEATURES_PER_S)]
        weights = np.ones(enough.shape[:2], np.float32)
        (vectors,) = self._embedding.run(None, {"fbank": enough, "weights": weights})
        return tuple((vectors[0] / np.linalg.norm(vectors[0])).tolist())


def _marks_in(size: int) -> int:
    """Give how many marks stand for that many samples."""
    return round(size / SAMPLE_RATE / _STEP_S)


def _spans(start: float, column: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """Give the runs of a column as starts and ends in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], column, [False]]).astype(np.int8)))
    return tuple((start + float(a) * _STEP_S, start + float(b) * _STEP_S) for a, b in edges.reshape(-1, 2))


def _features_at(start: float, heard: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Give the places of the features, of `count`, during which a window's marks are set."""
    marks = np.floor((np.arange(count) / _FEATURES_PER_S - start) / _STEP_S).astype(np.int64)
    inside = (marks >= 0) & (marks < len(heard))
    return np.flatnonzero(inside & heard[np.clip(marks, 0, len(heard) - 1)])


def _features(samples: Samples) -> NDArray[np.float32]:
    """Give the log mel energies of each 10 ms, less their mean over the clip."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = _MEL_BINS
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE, (samples * _FULL_SCALE).tolist())
    bank.input_finished()
    features = np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)], np.float32)
    centred: NDArray[np.float32] = features - features.mean(axis=0, dtype=np.float32)
    return centred


def _session(model: bytes) -> Any:
    try:
        # Several clips are worked on by several processes, and one thread always adds up in the same order.
        return inference.load(model)
    except Exception as error:
        raise SetupError("onnxruntime cannot load the diarization models in moonshine-voice") from error


def _library() -> ctypes.CDLL:
    """Find the wheel's library without importing the package, which would start a microphone library."""
    spec = find_spec("moonshine_voice")
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    try:
        path = next(folder / name for name in ("libmoonshine.so", "libmoonshine.dylib") if (folder / name).is_file())
        return ctypes.CDLL(str(path))
    except (StopIteration, OSError) as error:
        raise SetupError("telling speakers apart needs moonshine-voice==0.1.0, on Linux or macOS") from error


def _embedded(library: ctypes.CDLL, name: str) -> bytes:
    """Give a model that is part of the library."""
    try:
        size = ctypes.c_size_t.in_dll(library, _symbol(f"{name}_size")).value
        return bytes((ctypes.c_ubyte * size).in_dll(library, _symbol(name)))
    except ValueError as error:
        raise SetupError(f"this moonshine-voice has no {name}; pip install moonshine-voice==0.1.0") from error


def _symbol(name: str) -> str:
    return _SYMBOL.format(len(name), name)
