"""English speech to text by the tiny Moonshine model, whose weights lie in the moonshine-voice 0.1.0 wheel.

A partial goes on from the one before it: from its stem, so that no sample is convolved twice, and from its text, the
draft that the model only has to confirm. Partials that arrive together are encoded one by one and spelled side by side.

The weights are quantized with scales taken from whole tensors, so neighbours in a batch and drafts can change a text.
Finals therefore go alone and from scratch: the same samples give the same words, whatever else runs.

The encoder's time and memory grow with the square of the length. A long clip is cut at quiet places into spans; a cut
depends only on what was heard up to `_LONGEST_SPAN` after the one before, so it stays where it is while the clip grows,
and partials keep the words of the spans that are complete.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from vivavoce.engines.moonshine_model import END, Memory, Model, Row, Stem
from vivavoce.engines.spans import quiet_cuts
from vivavoce.errors import SetupError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, Word, spread_words
from vivavoce.plugins import EngineInfo, EngineSettings

_FIRST_SPECIAL = 32_000
_FIRST_JOINED = 259  # pieces before it are single bytes, for characters that have no piece
_MORE_TOKENS = 32  # what a text may have more than that it is weighed against; beyond, a step takes much memory
_FIRST_BYTE = 3
_FEWEST_SAMPLES = 1_600  # the encoder fails below 895; a tenth of a second holds no word
_TOKENS_A_SECOND = 6.5  # English speech does not exceed it: the bound the model's makers decode with
_SPARE_TOKENS = 6  # punctuation and split words weigh more in a short clip
_LONGEST_SPAN = 20 * SAMPLE_RATE  # beyond it time and memory grow faster than the words
_DEFAULTS = EngineSettings()


class MoonshineEngine:
    """Decode English clips greedily on the CPU; implements `plugins.Engine`.

    A final depends on nothing but its samples. Word times are spread over the clip; a word's confidence is the
    geometric mean of the probabilities the model gave its tokens. Clips below a tenth of a second have no words.
    """

    info = EngineInfo(
        name="moonshine-tiny-en", languages=frozenset({"en"}), word_times=False, exact_batches=False, batch_size=4
    )

    def __init__(self, settings: EngineSettings = _DEFAULTS) -> None:
        """Load the model; raises `SetupError` without weights, and where the settings ask for another one."""
        _require_defaults(settings)
        folder = _weights()
        self._pieces = read_pieces(folder / "tokenizer.bin")
        self._tokens = {
            piece: n for n, piece in reversed(list(enumerate(self._pieces))) if n >= _FIRST_JOINED and piece
        }
        self._model = Model(folder, threads=settings.engine_threads)
        self._drafts: dict[str, _Draft] = {}

    @classmethod
    def describe(cls, settings: EngineSettings) -> EngineInfo:
        """Say what it can do; raises `SetupError` as making it would."""
        _require_defaults(settings)
        _weights()
        return cls.info

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. Raises `EngineError`."""
        spans = [span for nth, clip in enumerate(clips) for span in _spans(nth, clip)]
        words = {(span.clip, span.start): self._recall(span) for span in spans}
        new = [span for span in spans if words[span.clip, span.start] is None]
        groups = [[span] for span in new if span.final]
        groups.append([span for span in new if not span.final])
        for group in filter(None, groups):
            for span, row, memory in zip(group, *self._decode(group), strict=True):
                words[span.clip, span.start] = self._mended(clips[span.clip], span, row, memory)
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
        self._model.close()
        self._drafts.clear()

    def _recall(self, span: _Span) -> tuple[Word, ...] | None:
        """Give the words of a complete span that an earlier partial decoded; silence for a span without a word."""
        if len(span.samples) < _FEWEST_SAMPLES:
            return ()
        if span.final:
            return None
        return self._drafts.setdefault(span.key, _Draft()).complete.get(span.start)

    def _keep(self, span: _Span, row: Row, words: tuple[Word, ...]) -> None:
        draft = None if span.final else self._drafts.get(span.key)
        if draft is not None and span.complete:
            draft.complete[span.start] = words
            draft.tokens = []
        elif draft is not None:
            draft.tokens = row.tokens

    def _mended(self, clip: Clip, span: _Span, row: Row, memory: Memory) -> tuple[Word, ...]:
        """Give the words of a row, of a final as its clip's `mend` leaves them where it was decoded in one piece."""
        words = self._words(span, row)
        if not words or not clip.final or clip.mend is None or len(span.samples) < len(clip.samples):
            return words
        return clip.mend(words, "en", functools.partial(self._weigh, row, memory))

    def _weigh(self, row: Row, memory: Memory, texts: Sequence[str]) -> list[float]:
        """Give the log odds of texts against that of a row; one with far more tokens is not looked at."""
        spelled = [self._spelled(text) for text in texts]
        asked = [tokens for tokens in spelled if len(tokens) <= len(row.tokens) + _MORE_TOKENS]
        own, *others = self._model.weigh(memory, [row.tokens, *asked]) if asked else [0.0]
        odds = iter(others)
        return [next(odds) - own if tokens in asked else -math.inf for tokens in spelled]

    def _spelled(self, text: str) -> list[int]:
        """Give the tokens of a text as the model learned them: of neighbours, those that make the first piece join."""
        return [token for word in text.split() for token in self._word_tokens(word)]

    def _word_tokens(self, word: str) -> list[int]:
        parts = [letter.encode() for letter in f" {word}"]
        while len(parts) > 1:
            joined = [one + other for one, other in itertools.pairwise(parts)]
            first = min(range(len(joined)), key=lambda n: self._tokens.get(joined[n], _FIRST_SPECIAL))
            if joined[first] not in self._tokens:
                break
            parts[first : first + 2] = [joined[first]]
        return [
            token
            for part in parts
            for token in ([self._tokens[part]] if part in self._tokens else [_FIRST_BYTE + byte for byte in part])
        ]

    def _decode(self, spans: Sequence[_Span]) -> tuple[list[Row], list[Memory]]:
        """Decode spans that are spelled side by side: one of a final, or some of partials."""
        memories, drafts, limits = [], [], []
        for span in spans:
            draft = None if span.final else self._drafts.get(span.key)
            # Read once: another thread may be at a newer partial of the same utterance.
            start, stem = draft.heard if draft else (0, None)
            stem = self._model.hear(span.samples, stem if start == span.start else None)
            memories.append(self._model.remember(stem))
            limits.append(int(len(span.samples) / SAMPLE_RATE * _TOKENS_A_SECOND) + _SPARE_TOKENS)
            drafts.append(draft.tokens[: limits[-1]] if draft else [])
            if draft is not None:
                draft.heard = (span.start, stem)
        return self._model.spell(memories, drafts, limits), memories

    def _words(self, span: _Span, row: Row) -> tuple[Word, ...]:
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
    """What partials leave for the next one: the words of complete spans by start, and of the span after them where it
    starts with its stem, and its tokens.
    """

    complete: dict[int, tuple[Word, ...]] = field(default_factory=dict)
    heard: tuple[int, Stem | None] = (0, None)
    tokens: list[int] = field(default_factory=list)


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
    return [piece if END < token < _FIRST_SPECIAL else b"" for token, piece in enumerate(pieces)]


def _spans(nth: int, clip: Clip) -> Iterator[_Span]:
    for start, stop in quiet_cuts(clip.samples, _LONGEST_SPAN):
        yield _span(nth, clip, start, stop, complete=stop < len(clip.samples))


def _span(nth: int, clip: Clip, start: int, stop: int, *, complete: bool) -> _Span:
    samples = clip.samples[start:stop]
    return _Span(clip=nth, key=clip.key, final=clip.final, start=start, samples=samples, complete=complete)


def _require_defaults(settings: EngineSettings) -> None:
    if settings.model is not None or settings.device == "cuda" or settings.compute_type != "auto":
        raise SetupError(
            "--engine moonshine has one model, and runs it on the CPU: leave out --model, --device and "
            "--compute-type, or choose another engine"
        )


def _weights() -> Path:
    """Find the model without importing moonshine-voice, which would load its native library."""
    spec = find_spec("moonshine_voice")
    if spec is None or spec.origin is None:
        raise SetupError("the default engine needs the package moonshine-voice; pip install moonshine-voice==0.1.0")
    folder = Path(spec.origin).parent / "assets" / "tiny-en"
    if not (folder / "encoder_model.ort").is_file():
        raise SetupError("this moonshine-voice carries no weights; pip install moonshine-voice==0.1.0")
    return folder
