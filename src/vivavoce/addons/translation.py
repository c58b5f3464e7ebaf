"""Each utterance in other languages, by a language model or by models on this machine.

With both, `base` takes the local model of the pair of languages where there is one, and `enhanced` the language model.
An utterance goes sentence by sentence where translations are to match the original, so that every translated sentence
lies over its own: its words share that sentence's time by their letters. Otherwise it goes in one piece, its words
share the whole of the utterance's time, and the translator may order sentences as the other language would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from typing import Any, Protocol

from vivavoce.addons.llm import Answer, Llm, connect
from vivavoce.addons.llm_findings import texts_before
from vivavoce.addons.marian import MarianModels
from vivavoce.addons.sentences import ends, sentences
from vivavoce.errors import AddonMissing, Unsupported
from vivavoce.model import Translation, Utterance, Word, spread_words
from vivavoce.plugins import AddonParts, AddonSettings

LOCAL_CALLS = 2
"""Utterances that local models translate at once."""

MAX_CONTEXT = 2_000
"""Letters of a client's `context` that a language model is shown."""

_REMEDY = "translation needs --llm-url with --llm-model, or --translation-models"


class Translator(Protocol):
    """Turns texts into another language; called from several threads at once."""

    def translate(self, piece: Piece) -> list[str]:
        """Give the translations, one for each text or one for all of them; blocks. Raises `AddonError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is to be translated: `texts` from `source` to `target`, said after `before`."""

    source: str
    target: str
    texts: tuple[str, ...]
    before: tuple[str, ...] = ()
    context: str = ""
    informal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a session wants its translations, by the contract's names."""

    match_original_utterances: bool = True
    context_adaptation: bool = True
    context: str = ""
    informal: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Manner:
        """Read the options of a session; what they do not name is as by default."""
        known = {"match_original_utterances", "context_adaptation", "informal"}
        given = {name: bool(value) for name, value in options.items() if name in known and value is not None}
        return cls(context=str(options.get("context") or "")[:MAX_CONTEXT], **given)


class UtteranceTranslation:
    """Translate utterances into one language; implements `plugins.UtteranceAddon`.

    An utterance in that language already is its own translation. In languages that are written without blanks, each
    piece of a translation is one word.
    """

    def __init__(self, target: str, choose: Callable[[str, str], Translator], manner: Manner) -> None:
        """Translate to `target` by whom `choose` names for a pair of languages."""
        self._target, self._choose, self._manner = target, choose, manner

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> Translation:
        """Give the translation; blocks. Raises `AddonError`."""
        if utterance.language == self._target or not utterance.words:
            return Translation(target=self._target, utterance=replace(utterance, language=self._target))
        pieces = sentences(utterance.words) if self._manner.match_original_utterances else [utterance.words]
        texts = tuple(replace(utterance, words=tuple(words)).text for words in pieces)
        piece = Piece(
            source=utterance.language,
            target=self._target,
            texts=texts,
            before=tuple(texts_before(before)) if self._manner.context_adaptation else (),
            context=self._manner.context,
            informal=self._manner.informal,
        )
        translated = self._choose(utterance.language, self._target).translate(piece)
        words = _timed(utterance, pieces, translated)
        return Translation(target=self._target, utterance=replace(utterance, language=self._target, words=words))


class _Texts(Answer):
    translations: tuple[str, ...]


class LlmTranslator:
    """Translate by a language model, which is told what was said before and how listeners are addressed."""

    def __init__(self, llm: Llm, *, within_s: float) -> None:
        """Ask `llm`, which has `within_s` for an answer."""
        self._llm, self._within_s = llm, within_s

    def translate(self, piece: Piece) -> list[str]:
        """Give one translation for each text, or all in one where the model does not keep them apart."""
        given = {
            "from": piece.source,
            "to": piece.target,
            "register": "informal" if piece.informal else "as spoken",
            **({"context": piece.context} if piece.context else {}),
            **({"before": list(piece.before)} if piece.before else {}),
            "sentences": list(piece.texts),
        }
        # No language needs several times as many letters; a model that was talked into something else may.
        longest = 200 + 6 * sum(map(len, piece.texts))

        def fits(answer: _Texts) -> bool:
            return any(map(str.strip, answer.translations)) and sum(map(len, answer.translations)) <= longest

        answer = self._llm.ask("translation", given, _Texts, fits=fits, within_s=self._within_s)
        if len(answer.translations) == len(piece.texts):
            return list(answer.translations)
        return [" ".join(answer.translations)]


class LocalTranslator:
    """Translate by the models on this machine, sentence by sentence; they know no context and no form of address."""

    def __init__(self, models: MarianModels) -> None:
        """Use the models of a directory."""
        self._models = models

    def translate(self, piece: Piece) -> list[str]:
        """Give one translation for each text."""
        # The models were made for single sentences and leave some out of several.
        cut = [_split(text) for text in piece.texts]
        answers = iter(self._models.translate(piece.source, piece.target, list(chain.from_iterable(cut))))
        return [" ".join(next(answers) for _ in parts).strip() for parts in cut]


class TranslationAddon:
    """Translation for all sessions; implements `plugins.Addon`."""

    def __init__(self, settings: AddonSettings) -> None:
        """Use what the settings name; raises `AddonMissing` where that is nothing, and `SetupError`."""
        if settings.llm is None and settings.translation_models is None:
            raise AddonMissing(_REMEDY)
        self._models = MarianModels(settings.translation_models) if settings.translation_models else None
        self._llm = connect(settings.llm) if settings.llm else None
        self._within_s = settings.addon_deadline
        self.threads = self._llm.concurrency if self._llm else LOCAL_CALLS
        """How many utterances may be translated at once."""

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        """Give what translates to each of the `target_languages`; raises `Unsupported` for one that nothing can."""
        manner = Manner.of(options)
        choose = partial(self._choose, prefers_llm=options.get("model") == "enhanced")
        targets = tuple(dict.fromkeys(options["target_languages"]))
        for target in targets:
            self._require(target, languages)
        return AddonParts(by_target={target: UtteranceTranslation(target, choose, manner) for target in targets})

    def close(self) -> None:
        """Free the models and the connections."""
        if self._models is not None:
            self._models.close()
        if self._llm is not None:
            self._llm.close()

    def _choose(self, source: str, target: str, *, prefers_llm: bool) -> Translator:
        """Give the translator for a pair of languages; one that cannot translate it says so when it is asked."""
        if self._models is not None and (
            self._llm is None or ((source, target) in self._models.pairs and not prefers_llm)
        ):
            return LocalTranslator(self._models)
        assert self._llm is not None
        return LlmTranslator(self._llm, within_s=self._within_s)

    def _require(self, target: str, languages: Sequence[str]) -> None:
        """Check that something translates to `target` from each of the languages, or from any where none is named."""
        if self._models is None or self._llm is not None:
            return
        sources = [source for source, to in self._models.pairs if to == target]
        lacking = [source for source in languages if source != target and source not in sources]
        if lacking or not (sources or languages):
            pair = f"{lacking[0] if lacking else 'any language'} to {target}"
            raise Unsupported(f"nothing here translates from {pair}: {_REMEDY} with a model for it")


def _split(text: str) -> list[str]:
    """Give the sentences of a text."""
    words = text.split()
    return [" ".join(words[first:stop]) for first, stop in pairwise([0, *ends(words)])]


def _timed(utterance: Utterance, pieces: Sequence[Sequence[Word]], translated: Sequence[str]) -> tuple[Word, ...]:
    """Spread the words of each translation over the time of its piece, or of the whole where there is one for all."""
    if len(pieces) == 1 or len(translated) != len(pieces):
        spans = [(utterance.start, utterance.end)]
        translated = [" ".join(translated)]
    else:
        spans = [(words[0].start, words[-1].end) for words in pieces]
    found: list[Word] = []
    for text, (start, end) in zip(translated, spans, strict=True):
        texts = text.split()
        spread = spread_words(texts, [utterance.confidence] * len(texts), start, end)
        found += (replace(word, speaker=utterance.speaker) for word in spread)
    return tuple(found)
