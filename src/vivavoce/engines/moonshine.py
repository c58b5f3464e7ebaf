"""English speech to text by the tiny Moonshine model, whose weights lie in the moonshine-voice 0.1.0 wheel.

The encoder turns samples into frames of 384; the decoder spells the text token by token, with a cache of its keys and
values for what it wrote (self) and for the encoder's frames (cross). Its first pass takes a whole prefix and is the
only one that gives the cross cache; every step after it takes one token.

A partial's prefix is the draft: the tokens of the partial before it. The first pass tells at each of them what the
model itself would have written, so the draft is kept up to the first disagreement and the steps go on from there.
Partials of about the same length share their passes. What is kept of their drafts is of unequal length, and the model
takes a cache's length for the position in the text, so only rows with equal caches step together: always the shortest
ones, until they meet the next.

The weights are quantized with scales taken from whole tensors, so neighbours, padding and drafts can change a result.
Finals therefore go alone, unpadded and without a draft: the same samples give the same words, whatever else runs.

The encoder's time and memory grow with the square of the length. A long clip is cut at quiet places into spans; a cut
depends only on what was heard up to `_LONGEST_SPAN` after the one before, so it stays where it is while the clip grows,
and partials keep the words of the spans that are complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from vivavoce.errors import EngineError, SetupError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, Word, spread_words
from vivavoce.plugins import EngineInfo

# The wheel carries a telemetry library; nothing leaves this machine.
onnxruntime.disable_telemetry_events()

_START, _END, _FIRST_SPECIAL = 1, 2, 32_000
_FRAME = 384
_FEWEST_SAMPLES = 1_600  # the encoder fails below 895; a tenth of a second holds no word
_TOKENS_A_SECOND = 6.5  # English speech does not exceed it: the bound the model's makers decode with
_SPARE_TOKENS = 6  # punctuation and split words weigh more in a short clip
_LONGEST_PHRASE, _LONG_PHRASE = 16, 6
_LOOP_TOKENS = 8
_LONGEST_SPAN = 20 * SAMPLE_RATE  # beyond it time and memory grow faster than the words
_HOP, _QUIET_HOPS = SAMPLE_RATE // 50, 10  # a cut lies in the middle of the quietest fifth of a second
_CLOSE_LENGTHS = 0.75  # shorter than this share of the longest, a row's padding costs more than its company saves

_LAYERS, _HEADS, _HEAD_SIZE = 6, 8, 36
_SELF = [f"{layer}.decoder.{part}" for layer in range(_LAYERS) for part in ("key", "value")]
_CROSS = [f"{layer}.encoder.{part}" for layer in range(_LAYERS) for part in ("key", "value")]
_SELF_IN = [f"past_key_values.{name}" for name in _SELF]
_CROSS_IN = [f"past_key_values.{name}" for name in _CROSS]
_STEP_OUT = ["logits", *(f"present.{name}" for name in _SELF)]
_FIRST_OUT = [*_STEP_OUT, *(f"present.{name}" for name in _CROSS)]

_Array = NDArray[Any]


class MoonshineEngine:
    """Decode English clips greedily on the CPU; implements `plugins.Engine`.

    A final depends on nothing but its samples. Word times are spread over the clip; a word's confidence is the
    geometric mean of the probabilities the model gave its tokens. Clips below a tenth of a second have no words.
    """

    info = EngineInfo(
        name="moonshine-tiny-en", languages=frozenset({"en"}), word_times=False, exact_batches=False, batch_size=8
    )

    def __init__(self, *, threads: int = 1) -> None:
        """Load the model; `threads` is how many threads one call computes on. Raises `SetupError` without weights."""
        folder = _weights()
        self._pieces = read_pieces(folder / "tokenizer.bin")
        self._encoder = _session(folder / "encoder_model.ort", threads)
        self._decoder = _session(folder / "decoder_model_merged.ort", threads)
        self._drafts: dict[str, _Draft] = {}

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. Raises `EngineError`."""
        spans = [span for nth, clip in enumerate(clips) for span in _spans(nth, clip)]
        words = {(span.clip, span.start): self._recall(span) for span in spans}
        for group in _groups([span for span in spans if words[span.clip, span.start] is None]):
            for span, row in zip(group, self._decode(group), strict=True):
                words[span.clip, span.start] = self._words(span, row)
                self._keep(span, row, words[span.clip, span.start] or ())
        texts: list[list[Word]] = [[] for _ in clips]
        for span in spans:
            texts[span.clip].extend(words[span.clip, span.start] or ())
        return [Hypothesis(words=tuple(text), language="en") for text in texts]

    def release(self, key: str) -> None:
        """Forget what was kept under `key`; a partial of that key still being decoded does not bring it back."""
        self._drafts.pop(key, None)

    def close(self) -> None:
        """Free the model; calls under way may raise `EngineError`, later ones do."""
        self._encoder = self._decoder = None
        self._drafts.clear()

    def _recall(self, span: _Span) -> tuple[Word, ...] | None:
        """Give the words of a complete span that an earlier partial decoded; silence for a span without a word."""
        if len(span.samples) < _FEWEST_SAMPLES:
            return ()
        if span.final:
            return None
        return self._drafts.setdefault(span.key, _Draft()).complete.get(span.start)

    def _keep(self, span: _Span, row: _Row, words: tuple[Word, ...]) -> None:
        draft = None if span.final else self._drafts.get(span.key)
        if draft is not None and span.complete:
            draft.complete[span.start] = words
            draft.tokens = []
        elif draft is not None:
            draft.tokens = row.tokens

    def _decode(self, spans: Sequence[_Span]) -> list[_Row]:
        """Decode spans that share their passes: one of a final, or some of partials."""
        limits = [int(len(span.samples) / SAMPLE_RATE * _TOKENS_A_SECOND) + _SPARE_TOKENS for span in spans]
        drafts = [self._draft(span)[:limit] for span, limit in zip(spans, limits, strict=True)]
        mask, hidden = self._encode([span.samples for span in spans])
        rows, cross = self._verify(mask, hidden, drafts, limits)
        self._finish(rows, {"encoder_attention_mask": mask, "encoder_hidden_states": hidden, **cross})
        return rows

    def _draft(self, span: _Span) -> list[int]:
        draft = None if span.final else self._drafts.get(span.key)
        return draft.tokens if draft is not None else []

    def _encode(self, clips: Sequence[Samples]) -> tuple[_Array, _Array]:
        """Give the mask `[n, samples]`, which the decoder needs too, and the frames `[n, frames, 288]`."""
        samples = np.zeros((len(clips), max(map(len, clips))), np.float32)
        mask = np.zeros(samples.shape, np.int64)
        for i, clip in enumerate(clips):
            samples[i, : len(clip)] = clip
            # The model reads every 384th entry as one frame's; the frames that only see padding must stay out.
            mask[i, : (_frames(len(clip)) - 1) * _FRAME + 1] = 1
        (hidden,) = _run(self._encoder, ["last_hidden_state"], {"input_values": samples, "attention_mask": mask})
        return mask, hidden

    def _verify(
        self, mask: _Array, hidden: _Array, drafts: Sequence[list[int]], limits: Sequence[int]
    ) -> tuple[list[_Row], dict[str, _Array]]:
        """Give one row per draft, holding what the model confirms of it, and the cross cache by input name."""
        prefixes = np.full((len(drafts), 1 + max(map(len, drafts))), _END, np.int64)
        prefixes[:, 0] = _START
        for i, draft in enumerate(drafts):
            prefixes[i, 1 : 1 + len(draft)] = draft
        empty = np.zeros((len(drafts), _HEADS, 0, _HEAD_SIZE), np.float32)
        inputs = dict.fromkeys([*_SELF_IN, *_CROSS_IN], empty) | {
            "input_ids": prefixes,
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": mask,
            "use_cache_branch": np.array([False]),
        }
        logits, *caches = _run(self._decoder, _FIRST_OUT, inputs)
        tokens, probabilities = _choose(logits)
        rows = []
        for i, draft in enumerate(drafts):
            own = tokens[i].tolist()
            kept = next((k for k, token in enumerate(draft) if own[k] != token), len(draft))
            row = _Row(
                limit=limits[i],
                tokens=draft[:kept],
                probabilities=probabilities[i, :kept].tolist(),
                cache=[cache[i, :, : kept + 1] for cache in caches[: len(_SELF)]],
            )
            row.take(own[kept], float(probabilities[i, kept]))
            rows.append(row)
        return rows, dict(zip(_CROSS_IN, caches[len(_SELF) :], strict=True))

    def _finish(self, rows: Sequence[_Row], shared: dict[str, _Array]) -> None:
        """Step the rows to their ends; `shared` are the inputs that stay, with one entry per row."""
        group: list[int] = []
        inputs: dict[str, _Array] = {}
        while live := [i for i, row in enumerate(rows) if not row.ended]:
            shortest = min(rows[i].length for i in live)
            stepping = [i for i in live if rows[i].length == shortest]
            if stepping != group:
                group = stepping
                whole = len(group) == len(rows)
                inputs = {name: array if whole else array[group] for name, array in shared.items()}
                inputs["use_cache_branch"] = np.array([True])
                inputs |= {name: np.stack([rows[i].cache[part] for i in group]) for part, name in enumerate(_SELF_IN)}
            inputs["input_ids"] = np.array([[rows[i].tokens[-1]] for i in group], np.int64)
            logits, *caches = _run(self._decoder, _STEP_OUT, inputs)
            inputs |= zip(_SELF_IN, caches, strict=True)
            tokens, probabilities = _choose(logits[:, -1])
            for place, i in enumerate(group):
                rows[i].cache = [cache[place] for cache in caches]
                rows[i].take(int(tokens[place]), float(probabilities[place]))

    def _words(self, span: _Span, row: _Row) -> tuple[Word, ...]:
        """Give the words of a row's tokens; a text without a letter or digit (the model's notes for music) has none."""
        spelled: list[tuple[bytearray, list[float]]] = []
        for token, probability in zip(row.tokens, row.probabilities, strict=True):
            for nth, part in enumerate(self._pieces[token].split(b" ")):
                if nth or not spelled:
                    spelled.append((bytearray(), []))
                if part:
                    spelled[-1][0].extend(part)
                    spelled[-1][1].append(probability)
        # A character that the limit cut in two is left out.
        words = [(letters.decode(errors="ignore").strip(), log) for letters, log in spelled]
        words = [(text, log) for text, log in words if text]
        if not any(character.isalnum() for text, _ in words for character in text):
            return ()
        confidences = [min(1.0, float(np.exp(np.mean(np.log(log))))) for _, log in words]
        start, end = span.start / SAMPLE_RATE, (span.start + len(span.samples)) / SAMPLE_RATE
        return spread_words([text for text, _ in words], confidences, start, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """A part of a clip that is decoded in one piece; `complete` when more audio will not lengthen it."""

    clip: int
    key: str
    final: bool
    start: int
    samples: Samples
    complete: bool


@dataclass(slots=True)
class _Draft:
    """What partials leave for the next one: the words of complete spans by start, the tokens of the one after them."""

    complete: dict[int, tuple[Word, ...]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Row:
    """One clip being decoded; `tokens[-1]` of a row that has not ended is not in the cache yet."""

    limit: int
    tokens: list[int]
    probabilities: list[float]
    cache: list[_Array] = field(default_factory=list)
    ended: bool = False

    @property
    def length(self) -> int:
        """Positions in the cache."""
        return int(self.cache[0].shape[1])

    def take(self, token: int, probability: float) -> None:
        """Write the model's next token, or end; a phrase said over and over ends the row and is kept once."""
        if token == _END or len(self.tokens) >= self.limit:
            self.ended = True
            return
        self.tokens.append(token)
        self.probabilities.append(probability)
        excess = looped(self.tokens)
        if excess:
            self.ended = True
            del self.tokens[-excess:], self.probabilities[-excess:]


def looped(tokens: Sequence[int]) -> int:
    """Give how many tokens at the end repeat the phrase before them, 0 unless they make a loop.

    A loop is a phrase four times in a row, or three times for one of six tokens and more, and at least eight tokens.
    Small models fall into loops on noise and after cut words, and stay in them to the end.
    """
    for size in range(1, _LONGEST_PHRASE + 1):
        span = max((3 if size >= _LONG_PHRASE else 4) * size, _LOOP_TOKENS)
        tail = tokens[-(span + -span % size) :]
        if len(tail) >= span and tail[size:] == tail[:-size]:
            return len(tail) - size
    return 0


def read_pieces(path: Path) -> list[bytes]:
    """Give each token's bytes, blanks as spaces, special tokens as nothing, from a `tokenizer.bin`.

    The file is one string after another: a length byte and the bytes; from 128 on the length has a second byte.
    """
    content = path.read_bytes()
    pieces: list[bytes] = []
    at = 0
    while at < len(content):
        size = content[at]
        at += 1
        if size >= 128:  # noqa: PLR2004 - the format's own flag
            size = size % 128 + 128 * content[at]
            at += 1
        pieces.append(re.sub(rb"\xe2\x96\x81|\s", b" ", content[at : at + size]))
        at += size
    return [piece if _END < token < _FIRST_SPECIAL else b"" for token, piece in enumerate(pieces)]


def _spans(nth: int, clip: Clip) -> Iterator[_Span]:
    """Cut a clip wherever it exceeds the longest span, in the quietest place of that span's second half."""
    start, samples = 0, clip.samples
    while len(samples) - start > _LONGEST_SPAN:
        half = start + _LONGEST_SPAN // 2
        energy = np.square(samples[half : start + _LONGEST_SPAN], dtype=np.float64).reshape(-1, _HOP).sum(1)
        quiet = np.convolve(energy, np.ones(_QUIET_HOPS), "valid").argmin()
        stop = half + (int(quiet) + _QUIET_HOPS // 2) * _HOP
        yield _span(nth, clip, start, stop, complete=True)
        start = stop
    yield _span(nth, clip, start, len(samples), complete=False)


def _span(nth: int, clip: Clip, start: int, stop: int, *, complete: bool) -> _Span:
    samples = clip.samples[start:stop]
    return _Span(clip=nth, key=clip.key, final=clip.final, start=start, samples=samples, complete=complete)


def _groups(spans: Sequence[_Span]) -> Iterator[list[_Span]]:
    """Give the spans that are decoded together: those of finals alone, those of partials by length."""
    yield from ([span] for span in spans if span.final)
    group: list[_Span] = []
    for span in sorted((span for span in spans if not span.final), key=lambda span: -len(span.samples)):
        if group and len(span.samples) < _CLOSE_LENGTHS * len(group[0].samples):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _choose(logits: _Array) -> tuple[_Array, _Array]:
    """Give the likeliest tokens and their probabilities over the last axis."""
    tokens = logits.argmax(-1)
    top = np.take_along_axis(logits, tokens[..., None], -1)
    return tokens, 1.0 / np.exp(logits - top).sum(-1)


def _frames(samples: int) -> int:
    """Give the frames of a clip: three convolutions of widths 127, 7, 3 and strides 64, 3, 2."""
    return ((((samples - 127) // 64 + 1) - 7) // 3 + 1 - 3) // 2 + 1


def _run(session: Any, outputs: list[str], inputs: dict[str, _Array]) -> list[_Array]:
    if session is None:
        raise EngineError("the engine is closed")
    try:
        results: list[_Array] = session.run(outputs, inputs)
    except Exception as error:
        raise EngineError("the speech model failed") from error
    return results


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # failures arrive as exceptions
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SetupError(f"onnxruntime cannot load {path}") from error


def _weights() -> Path:
    """Find the model without importing moonshine-voice, which would load its native library."""
    spec = find_spec("moonshine_voice")
    if spec is None or spec.origin is None:
        raise SetupError("the default engine needs the package moonshine-voice; pip install moonshine-voice==0.1.0")
    folder = Path(spec.origin).parent / "assets" / "tiny-en"
    if not (folder / "encoder_model.ort").is_file():
        raise SetupError("this moonshine-voice carries no weights; pip install moonshine-voice==0.1.0")
    return folder
