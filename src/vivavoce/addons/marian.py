"""Translation models on this machine: Marian models in CTranslate2's form, one directory for each pair of languages.

A directory is named after its pair, such as `en-nl`, and holds what `ct2-transformers-converter` makes of a Marian
model, beside its SentencePiece files:

    model.bin  config.json  shared_vocabulary.json    the model, by the converter
    source.spm  target.spm                            how words are cut into pieces, from the original

Models are loaded when first needed and then kept; one serves all sessions and threads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from vivavoce.errors import AddonError, SetupError

BEAM = 4
"""Translations that are weighed against each other at each step; 6, Marian's own, is slower and hardly better."""

MAX_PIECES = 400
"""Pieces of one sentence that a model is shown at once; Marian models know 512 places."""

_NEEDED = ("model.bin", "config.json", "source.spm", "target.spm")
_PAIR = re.compile(r"([a-z]{2,3})-([a-z]{2,3})")
_END = "</s>"


class MarianModels:
    """The models in a directory; called from several threads at once."""

    def __init__(self, directory: Path, *, threads: int = 1) -> None:
        """Look for models, each of which will compute on `threads`; raises `SetupError` where one is not complete."""
        self._directory, self._threads = directory, threads
        self._models: dict[tuple[str, str], _Model] = {}
        self._lock = Lock()
        self.pairs = frozenset(_pairs(directory))
        """The languages that are translated, each with one that it is translated to."""

    def translate(self, source: str, target: str, texts: Sequence[str]) -> list[str]:
        """Give the translation of each sentence; blocks. Raises `AddonError`, also for a pair without a model."""
        if (source, target) not in self.pairs:
            raise AddonError(f"no model translates from {source} to {target}")
        model = self._model(source, target)
        try:
            return model.translate(texts)
        except Exception:  # noqa: BLE001 - the library's errors have no common class
            raise AddonError(f"the model that translates from {source} to {target} failed") from None

    def close(self) -> None:
        """Forget the models; calls that are out keep theirs."""
        with self._lock:
            self._models.clear()

    def _model(self, source: str, target: str) -> _Model:
        with self._lock:
            if (source, target) not in self._models:
                try:
                    model = _Model(self._directory / f"{source}-{target}", self._threads)
                except Exception:  # noqa: BLE001 - the libraries' errors have no common class
                    raise AddonError(f"the model that translates from {source} to {target} cannot be loaded") from None
                self._models[source, target] = model
            return self._models[source, target]


class _Model:
    """One loaded model."""

    def __init__(self, directory: Path, threads: int) -> None:
        # Imported here, so that servers without such models are spared the libraries.
        import ctranslate2  # noqa: PLC0415
        import sentencepiece  # noqa: PLC0415

        self._translator = ctranslate2.Translator(str(directory), device="cpu", intra_threads=threads)
        self._source = sentencepiece.SentencePieceProcessor(model_file=str(directory / "source.spm"))
        self._target = sentencepiece.SentencePieceProcessor(model_file=str(directory / "target.spm"))
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        # A Marian model expects the end of the sentence in what it is shown; some converters have the library add it.
        self._end = [] if config.get("add_source_eos") else [_END]

    def translate(self, texts: Sequence[str]) -> list[str]:
        cut = [[span + self._end for span in self._spans(text)] for text in texts]
        spans = [span for of_text in cut for span in of_text]
        if not spans:
            return ["" for _ in texts]
        # Twice the length is more than any pair of languages needs, and ends a model that repeats itself.
        longest = 2 * max(len(span) for span in spans) + 20
        results = self._translator.translate_batch(
            spans, beam_size=BEAM, max_decoding_length=longest, max_input_length=0, max_batch_size=16
        )
        # Pieces that only the other language's file knows keep their mark of a word's beginning.
        answers = iter(self._target.decode(result.hypotheses[0]).replace("\u2581", " ") for result in results)
        return [" ".join(" ".join(next(answers) for _ in of_text).split()) for of_text in cut]

    def _spans(self, text: str) -> list[list[str]]:
        pieces: list[str] = self._source.encode(text, out_type=str)
        return [pieces[at : at + MAX_PIECES] for at in range(0, len(pieces), MAX_PIECES)]


def _pairs(directory: Path) -> list[tuple[str, str]]:
    """Give the pairs that directories are named after; other names are passed over."""
    try:
        found = [(path, match) for path in sorted(directory.iterdir()) if (match := _PAIR.fullmatch(path.name))]
    except OSError as error:
        raise SetupError(f"--translation-models: cannot read {directory}: {error.strerror}") from error
    for path, _ in found:
        if missing := [name for name in _NEEDED if not (path / name).is_file()]:
            raise SetupError(f"--translation-models: {path} has no {' and no '.join(missing)}")
    return [(match[1], match[2]) for _, match in found]
