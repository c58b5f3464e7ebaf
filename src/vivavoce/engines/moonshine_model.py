"""The tiny Moonshine model as three calls: hear samples, remember them, spell what was said.

`hear` gives the stem of a clip, and goes on from the stem of a shorter one. `remember` encodes a stem; each clip is
encoded alone, so its memory depends on nothing else. `spell` writes the text of some memories side by side, greedily.

Each row of `spell` may bring a draft, tokens that were right a moment ago: one pass tells at each of them what the
model itself would have written, and the row goes on from the first disagreement. Rows then take a token a step, all
together; the attention knows how long each row's cache is, and how many frames it may look at. Rows that have ended
step along until half of them have, because leaving them out means copying the caches of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.engines import inference, moonshine_graph
from vivavoce.engines.loops import looped
from vivavoce.engines.moonshine_graph import CACHE_SIZE, EPSILON, HEAD_SIZE, HEADS, LAYERS, STEM_HOP, STEM_REACH, WIDTH
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import Samples

_START, END = 1, 2
_FIRST_WIDTH, _FIRST_HOP = 127, 64  # samples of a frame of the first convolution, and from one to the next
_FIRST_FRAMES = 3  # frames of the first convolution that a frame of the stem moves on by
_PARTS = [f"{part}{layer}" for layer in range(LAYERS) for part in "kv"]
_CACHES = [f"cache_{part}" for part in _PARTS]
_MEMORIES = [f"memory_{part}" for part in _PARTS]
_OUTPUTS = ["next", "probability", *(f"new_{part}" for part in _PARTS)]

_Array = NDArray[Any]
Memory = _Array
"""What `remember` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """The first layers' view of a clip: `raw` `[1, channels, frames]` before its norm, and what the norm must know."""

    raw: _Array
    first_frames: int
    total: float
    squares: float


@dataclass(slots=True, kw_only=True)
class Row:
    """One text being written; `tokens[-1]` of a row that has not ended is not in the cache yet."""

    limit: int
    tokens: list[int]
    probabilities: list[float]
    ended: bool = False

    def take(self, token: int, probability: float) -> None:
        """Write the model's next token, or end; a phrase said over and over ends the row and is kept once."""
        if token == END or len(self.tokens) >= self.limit:
            self.ended = True
            return
        self.tokens.append(token)
        self.probabilities.append(probability)
        excess = looped(self.tokens)
        if excess:
            self.ended = True
            del self.tokens[-excess:], self.probabilities[-excess:]


class Model:
    """The weights and their sessions; every method may be called from several threads, and raises `EngineError`."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        """Load the model from the `.ort` files in `folder`; raises `SetupError`."""
        try:
            graphs = moonshine_graph.build(folder)
            self._stem, self._encoder, self._decoder = (
                inference.load(graph, threads=threads) for graph in (graphs.stem, graphs.encoder, graphs.decoder)
            )
        except Exception as error:
            raise SetupError(f"the weights in {folder} cannot be loaded") from error
        self._norm_gain, self._norm_bias = graphs.norm_gain, graphs.norm_bias

    def close(self) -> None:
        """Free the weights; calls under way may fail, later ones do."""
        self._stem = self._encoder = self._decoder = None

    def hear(self, samples: Samples, before: Stem | None = None) -> Stem:
        """Give a clip's stem, going on from that of its beginning; the clip has at least `STEM_REACH` samples."""
        if before is not None and before.first_frames > (len(samples) - _FIRST_WIDTH) // _FIRST_HOP + 1:
            before = None  # it is of more than these samples
        start = 0 if before is None else before.raw.shape[2]
        piece = samples[start * STEM_HOP :]
        if before is not None and len(piece) < STEM_REACH:
            return before
        raw, sums, squares = _run(self._stem, ["raw", "sums", "squares"], {"samples": piece[None]})
        counted = 0 if before is None else before.first_frames - start * _FIRST_FRAMES
        return Stem(
            raw=raw if before is None else np.concatenate([before.raw, raw], 2),
            first_frames=start * _FIRST_FRAMES + len(sums),
            total=(before.total if before else 0.0) + float(sums[counted:].sum(dtype=np.float64)),
            squares=(before.squares if before else 0.0) + float(squares[counted:].sum(dtype=np.float64)),
        )

    def remember(self, stem: Stem) -> Memory:
        """Give the keys and values of a clip's frames by layer: `[2 * layers, heads, frames, head size]`."""
        count = stem.first_frames * WIDTH
        mean = stem.total / count
        deviation = math.sqrt(max(stem.squares / count - mean**2, 0.0) + EPSILON)
        bias = (self._norm_bias - self._norm_gain * (mean / deviation)).astype(np.float32)
        inputs = {"raw": stem.raw, "gain": np.array([1 / deviation], np.float32), "bias": bias}
        (memory,) = _run(self._encoder, ["memory"], inputs)
        return memory

    def spell(self, memories: Sequence[Memory], drafts: Sequence[list[int]], limits: Sequence[int]) -> list[Row]:
        """Write the text of each memory with at most `limits` tokens; a draft saves time where it is right."""
        texts = _Texts(memories)
        prefixes = np.full((len(drafts), 1 + max(map(len, drafts))), END, np.int64)
        prefixes[:, 0] = _START
        for i, draft in enumerate(drafts):
            prefixes[i, 1 : 1 + len(draft)] = draft
        tokens, probabilities = texts.pass_through(self._decoder, prefixes, np.array([len(each) for each in drafts]))
        rows = []
        for i, draft in enumerate(drafts):
            own = tokens[i].tolist()
            kept = next((k for k, token in enumerate(draft) if own[k] != token), len(draft))
            row = Row(limit=limits[i], tokens=draft[:kept], probabilities=probabilities[i, :kept].tolist())
            row.take(own[kept], float(probabilities[i, kept]))
            rows.append(row)
        texts.cut([len(row.tokens) + row.ended for row in rows])
        self._finish(texts, rows)
        return rows

    def weigh(self, memory: Memory, texts: Sequence[list[int]]) -> list[float]:
        """Give the logarithm of the chance that the model gives each text for a memory, behind what all have in common.

        That is from the first token in which they differ to their ends.
        """
        differ = (n for n, tokens in enumerate(zip(*texts, strict=False)) if len(set(tokens)) > 1)
        shared = next(differ, min(map(len, texts)))
        prefixes = np.full((len(texts), 1 + max(map(len, texts))), END, np.int64)
        prefixes[:, 0] = _START
        for i, text in enumerate(texts):
            prefixes[i, 1 : 1 + len(text)] = text
        side_by_side = _Texts([memory] * len(texts))
        logits = side_by_side.logits(self._decoder, prefixes, np.array([len(each) for each in texts]))
        return [_chance(logits[i, shared : len(text) + 1], [*text[shared:], END]) for i, text in enumerate(texts)]

    def _finish(self, texts: _Texts, rows: Sequence[Row]) -> None:
        """Step until every row has ended."""
        stepping = list(rows)
        while live := [i for i, row in enumerate(stepping) if not row.ended]:
            if 2 * len(live) <= len(stepping):
                texts.keep(live)
                stepping = [stepping[i] for i in live]
            last = np.array([[row.tokens[-1] if row.tokens else _START] for row in stepping])
            tokens, probabilities = texts.pass_through(self._decoder, last, texts.cached)
            for row, token, probability in zip(stepping, tokens[:, 0].tolist(), probabilities[:, 0], strict=True):
                if not row.ended:
                    row.take(token, float(probability))


class _Texts:
    """What the decoder needs of the rows that step together."""

    def __init__(self, memories: Sequence[Memory]) -> None:
        frames = [memory.shape[2] for memory in memories]
        self._heard = (np.arange(max(frames)) < np.array(frames)[:, None]).astype(np.int32)
        joined = np.zeros((2 * LAYERS, len(memories), HEADS, max(frames), HEAD_SIZE), np.float32)
        for i, memory in enumerate(memories):
            joined[:, i, :, : frames[i]] = memory
        self._memories = list(joined)
        self._caches = [np.zeros((len(memories), HEADS, 0, CACHE_SIZE), np.float32)] * len(_PARTS)
        self.cached = np.zeros(len(memories), np.int64)

    def pass_through(self, decoder: Any, tokens: _Array, before: _Array) -> tuple[_Array, _Array]:
        """Give the likeliest token after each of `tokens` `[rows, tokens]` and its probability.

        `before` says how many positions of each row come before its last token.
        """
        following, probabilities, *self._caches = _run(decoder, _OUTPUTS, self._inputs(tokens, before))
        self.cached = before + 1
        return following, probabilities

    def logits(self, decoder: Any, tokens: _Array, before: _Array) -> _Array:
        """Give the logits of all tokens after each of `tokens`, `[rows, tokens, all tokens]`; nothing is cached."""
        (logits,) = _run(decoder, ["logits"], self._inputs(tokens, before))
        return logits

    def _inputs(self, tokens: _Array, before: _Array) -> dict[str, _Array]:
        return {
            "tokens": tokens,
            "lengths": before.astype(np.int32),
            "longest": np.array(before.max() + 1, np.int32),
            "heard": self._heard,
            **dict(zip(_CACHES, self._caches, strict=True)),
            **dict(zip(_MEMORIES, self._memories, strict=True)),
        }

    def cut(self, lengths: Sequence[int]) -> None:
        """Forget what is cached beyond each row's length."""
        self.cached = np.array(lengths)
        self._caches = [np.ascontiguousarray(cache[:, :, : max(lengths)]) for cache in self._caches]

    def keep(self, rows: Sequence[int]) -> None:
        """Leave out all rows but these."""
        self._heard, self.cached = self._heard[rows], self.cached[rows]
        self._memories = [memory[rows] for memory in self._memories]
        self._caches = [np.ascontiguousarray(cache[rows, :, : self.cached.max()]) for cache in self._caches]


def _chance(logits: _Array, tokens: Sequence[int]) -> float:
    """Give the logarithm of the chance of tokens, one for each row of logits."""
    highest = logits.max(-1)
    totals = highest + np.log(np.exp(logits - highest[:, None]).sum(-1))
    return float((logits[np.arange(len(tokens)), tokens] - totals).sum())


def _run(session: Any, outputs: list[str], inputs: dict[str, _Array]) -> list[_Array]:
    if session is None:
        raise EngineError("the engine is closed")
    try:
        results: list[_Array] = session.run(outputs, inputs)
    except Exception as error:
        raise EngineError("the speech model failed") from error
    return results
