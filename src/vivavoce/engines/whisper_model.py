"""A Whisper model as four calls: hear clips, tell their languages, spell what was said, and say when.

This stands on CTranslate2's own interface (`encode`, `detect_language`, `generate`, `align`) and takes from
faster-whisper what that does not have: downloads, features, tokens. faster-whisper's `transcribe` always encodes 30 s,
falls back to sampling at random, and conditions on what was said before; none of that fits a live final, which must be
the same for the same clip.

`hear` encodes what is there and as much silence as it is told: Whisper's encoder takes any length up to 30 s, and its
cost grows faster than the length.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import Tokenizer
from numpy.typing import NDArray

from vivavoce.engines.loops import looped
from vivavoce.errors import EngineError
from vivavoce.model import UNSPACED, Samples, Word, spread_words

FRAMES_PER_S = 100
"""Feature frames in a second; the encoder gives one for every two."""
FULL_FRAMES = 30 * FRAMES_PER_S
"""What the model was trained on, and the most it takes."""

MOST_HINT_TOKENS = 160
_MOST_TOKENS, _PLACES = 224, 448  # of one text, and of a prompt and a text together
_TOKENS_A_SECOND, _SPARE_TOKENS = 25, 20  # scripts that are spelled byte by byte take most
_TOKEN_S = 0.02  # what a frame of the encoder stands for
_HOP = 160
_SILENT, _UNSURE = 0.6, -1.0  # Whisper's own thresholds: probability of no speech, mean log probability of a token
_COMPRESSED = 2.4  # and how well a text that goes round in circles is compressed
_NO_REPEAT = 3  # the second try writes no three tokens twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Some clips encoded side by side, `frames` of each are audio and the rest is silence."""

    memory: Any
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What was spelled: tokens without special ones, and the mean log probability of one."""

    tokens: list[int]
    log: float


class Model:
    """The weights and what reads and writes for them; every method may be called from several threads.

    Methods raise `EngineError`.
    """

    def __init__(
        self, whisper: ctranslate2.models.Whisper, tokenizer: Any, languages: frozenset[str], *, word_times: bool
    ) -> None:
        self._whisper: Any = whisper
        self._tokenizer = tokenizer
        self._specs: dict[str, Tokenizer] = {}
        self._features = FeatureExtractor(feature_size=whisper.n_mels)
        self._multilingual = whisper.is_multilingual
        self.word_times, self.languages = word_times, languages

    def close(self) -> None:
        """Free the weights; later calls fail."""
        self._whisper = None

    def hear(self, clips: Sequence[Samples], frames: int) -> Heard:
        """Encode clips side by side, each in so many feature frames, `FULL_FRAMES` at most."""
        known = tuple(min(len(clip) // _HOP, frames) for clip in clips)
        features = np.stack([self._padded(clip, frames) for clip in clips])
        memory = self._call("encode", ctranslate2.StorageView.from_array(features))
        return Heard(memory=memory, frames=known)

    def tell_languages(self, heard: Heard, among: Sequence[Collection[str]]) -> list[str]:
        """Give the likeliest of its languages for each clip."""
        if all(len(codes) == 1 for codes in among):
            return [next(iter(codes)) for codes in among]
        ranked = self._call("detect_language", heard.memory)
        return [
            next(code for token, _ in ranking if (code := token[2:-2]) in codes)
            for ranking, codes in zip(ranked, among, strict=True)
        ]

    def spell(
        self, heard: Heard, languages: Sequence[str], hints: Sequence[int], *, beam: int, again: bool
    ) -> list[Text]:
        """Write what was said in each clip; nothing where the model takes it for silence.

        A text that goes round in circles is written `again` without repetitions, or is nothing.
        """
        texts = self._write(heard, languages, hints, beam=beam, no_repeat_ngram_size=0)
        if not any(map(self._circles, texts)):
            return texts
        second = (
            self._write(heard, languages, hints, beam=beam, no_repeat_ngram_size=_NO_REPEAT)
            if again
            else [Text(tokens=[], log=text.log) for text in texts]
        )
        return [new if self._circles(old) else old for old, new in zip(texts, second, strict=True)]

    def hint_tokens(self, hints: Sequence[str]) -> list[int]:
        """Give the tokens of the first of the hints, as many of them as there is room for."""
        found: list[int] = []
        for hint in hints:
            tokens = self._tokenizer.encode(f"{',' if found else ''} {hint}", add_special_tokens=False).ids
            if len(found) + len(tokens) > MOST_HINT_TOKENS:
                break
            found += tokens
        return found

    def spread(self, text: Text, language: str, clip_s: float) -> list[Word]:
        """Give the words with times spread over the clip and the text's own probability for each."""
        words = [word for word, _ in self._split(text.tokens, language)]
        return list(spread_words(words, [math.exp(min(text.log, 0.0))] * len(words), 0.0, clip_s))

    def align(self, heard: Heard, text: Text, language: str, clip_s: float) -> list[Word]:
        """Give the words of a clip that was heard alone, with times by the model's attention.

        Words at the end that begin when the clip is over are left out: nothing is there to be heard.
        """
        split = self._split(text.tokens, language)
        if not split:
            return []
        spec = self._spec(language)
        (found,) = self._call("align", heard.memory, spec.sot_sequence, [text.tokens], [heard.frames[0]])
        places = np.array(found.alignments, np.int64).reshape(-1, 2)
        # Where the path comes to each token; what it never comes to begins at the end.
        first = np.searchsorted(places[:, 0], np.arange(len(text.tokens) + 1))
        reached = np.append(places[:, 1] * _TOKEN_S, clip_s)[first]
        begins = np.minimum(np.maximum.accumulate(reached), clip_s)
        words, at = [], 0
        for word, count in split:
            chance = float(np.mean(found.text_token_probs[at : at + count]))
            start, end = float(begins[at]), float(begins[at + count])
            words.append(Word(text=word, start=start, end=end, confidence=min(max(chance, 0.0), 1.0)))
            at += count
        while len(words) > 1 and words[-1].start >= clip_s - _TOKEN_S:
            words.pop()
        return words

    def _padded(self, clip: Samples, frames: int) -> NDArray[np.float32]:
        """Give a clip's features with the silence behind it that Whisper was trained with."""
        found = self._features(clip, padding=2 * _HOP)[:, :frames]  # the last sample reaches into two more
        padded = np.full((len(found), frames), max(float(found.max()) - 2.0, -1.5), np.float32)
        padded[:, : found.shape[1]] = found
        return padded

    def _write(
        self, heard: Heard, languages: Sequence[str], hints: Sequence[int], *, beam: int, no_repeat_ngram_size: int
    ) -> list[Text]:
        prompts = [self._prompt(language, hints) for language in languages]
        most = min(max(heard.frames) * _TOKENS_A_SECOND // FRAMES_PER_S + _SPARE_TOKENS, _MOST_TOKENS)
        results = self._call(
            "generate",
            heard.memory,
            prompts,
            beam_size=beam,
            # The library takes the smaller of half of this and what the prompt leaves.
            max_length=min(max(2 * most, most + len(prompts[0])), _PLACES),
            no_repeat_ngram_size=no_repeat_ngram_size,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._text(result) for result in results]

    def _text(self, result: Any) -> Text:
        (tokens,), (score,) = result.sequences_ids, result.scores
        log = score * len(tokens) / (len(tokens) + 1)
        end = self._spec("en").eot
        silent = result.no_speech_prob > _SILENT and log < _UNSURE
        return Text(tokens=[] if silent else [token for token in tokens if token < end], log=log)

    def _prompt(self, language: str, hints: Sequence[int]) -> list[int]:
        spec = self._spec(language)
        before = [spec.sot_prev, *hints] if hints else []
        return [*before, *spec.sot_sequence, spec.no_timestamps]

    def _circles(self, text: Text) -> bool:
        letters = self._tokenizer.decode(text.tokens).encode()
        return looped(text.tokens) > 0 or len(letters) > _COMPRESSED * len(zlib.compress(letters))

    def _split(self, tokens: list[int], language: str) -> list[tuple[str, int]]:
        """Give the words of a text, each with the number of its tokens; none for a text without a letter or digit."""
        pieces, groups = self._spec(language).split_tokens_on_unicode(tokens)
        split: list[tuple[str, int]] = []
        for piece, group in itertools.zip_longest(pieces, groups):
            if split and _continues(split[-1][0], piece, language):
                split[-1] = split[-1][0] + piece, split[-1][1] + len(group)
            else:
                split.append((piece, len(group)))
        if not any(letter.isalnum() for word, _ in split for letter in word):
            return []
        return _joined([(" ".join(word.replace("\ufffd", "").split()), count) for word, count in split])

    def _spec(self, language: str) -> Tokenizer:
        if language not in self._specs:
            multilingual = self._multilingual
            self._specs[language] = Tokenizer(self._tokenizer, multilingual, task="transcribe", language=language)
        return self._specs[language]

    def _call(self, name: str, *inputs: Any, **options: Any) -> Any:
        whisper = self._whisper
        if whisper is None:
            raise EngineError("the engine is closed")
        try:
            return getattr(whisper, name)(*inputs, **options)
        except Exception as error:
            if "out of memory" in str(error).lower():
                raise EngineError("the GPU is out of memory; see --compute-type, --model, --decode-threads") from error
            raise EngineError("the speech model failed") from error


def languages_of(tokenizer: Any) -> frozenset[str]:
    """Give the languages that a model has tokens for; Cantonese is not among the protocol's."""
    first, stop = tokenizer.token_to_id("<|startoftranscript|>") + 1, tokenizer.token_to_id("<|translate|>")
    return frozenset(tokenizer.id_to_token(nth)[2:-2] for nth in range(first, stop)) - {"yue"}


def _continues(word: str, piece: str, language: str) -> bool:
    """Whether a piece belongs to the word before it."""
    if piece[:1].isspace() or not piece:
        return not piece or not word.strip()
    if language not in UNSPACED:
        return True
    last, first = word[-1:], piece[0]
    latin = last.isascii() and first.isascii() and last.isalnum() and first.isalnum()
    opens = unicodedata.category(last or " ") in {"Ps", "Pi"}
    closes = not first.isalnum() and unicodedata.category(first) not in {"Ps", "Pi", "Mn", "Mc"}
    marks = unicodedata.category(first) in {"Mn", "Mc"}
    return latin or opens or closes or marks


def _joined(split: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Leave no word empty: its tokens go to the word before it, or after it at the beginning."""
    words: list[tuple[str, int]] = []
    spare = 0
    for word, count in split:
        if word:
            words.append((word, count + spare))
            spare = 0
        elif words:
            words[-1] = words[-1][0], words[-1][1] + count
        else:
            spare += count
    return words
