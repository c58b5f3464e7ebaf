"""Ninety-nine languages by any Whisper model in CTranslate2's form, through faster-whisper.

A final is heard as Whisper was trained, in 30 s of which most are silence, written with a beam, and its words get their
times from the model's attention. It goes alone, since a sum of floats may depend on the shape of the batch, and twice
at most: sampling at random, the usual way out of a loop, would give another text for the same clip each time.

A partial is heard in what there is of it and a second of silence, which for two seconds of speech costs a small part
of the 30 s. Partials that arrive together are heard and written side by side, without a beam; words then share the time
of the clip. What a model writes in so short a window is a little worse than what it writes in a long one.

The language of a final is told from the final alone. Partials of an utterance keep the first one that was told from
`_TELLING_S`, so that their script does not change with every word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vivavoce.engines.spans import quiet_cuts
from vivavoce.engines.whisper_model import FRAMES_PER_S, FULL_FRAMES
from vivavoce.engines.whisper_weights import DEFAULT_SIZE, known_sizes, label, load, read_abilities
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis, Samples, Word
from vivavoce.plugins import EngineInfo, EngineSettings, KnownModel

BEAM = 5

_FEWEST_SAMPLES = SAMPLE_RATE // 10  # a tenth of a second holds no word
_LONGEST_SPAN = FULL_FRAMES * SAMPLE_RATE // FRAMES_PER_S
_SPARE_FRAMES = FRAMES_PER_S
_TELLING_S = 2.0
_DEFAULTS = EngineSettings()
_SECOND = np.zeros(SAMPLE_RATE, np.float32)


class FasterWhisperEngine:
    """Decode clips with one Whisper model, on the CPU or a GPU; implements `plugins.Engine`.

    A final depends on nothing but its samples, languages and hints; the same clip with only the language that was
    detected gives the same words. Clips below a tenth of a second have none.
    """

    def __init__(self, settings: EngineSettings = _DEFAULTS) -> None:
        """Load the model that the settings name and use it once; raises `SetupError`."""
        self._model = load(settings)
        self.info = _info(settings, self._model.languages, word_times=self._model.word_times)
        self._drafts: dict[str, _Draft] = {}
        try:
            # What is wrong with the files or the GPU shows here rather than in the first session.
            self._write([Clip(key="", samples=_SECOND, final=False)], [_Draft()], [_SECOND])
        except EngineError as error:
            raise SetupError(f"--model {settings.model or DEFAULT_SIZE} was loaded, but {error}") from error

    @classmethod
    def known(cls) -> Sequence[KnownModel]:
        """Give the sizes of Whisper."""
        return known_sizes()

    @classmethod
    def describe(cls, settings: EngineSettings) -> EngineInfo:
        """Say what the model in a directory can do, by the files beside its weights; raises `SetupError`."""
        languages, word_times = read_abilities(settings)
        return _info(settings, languages, word_times=word_times)

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. Raises `EngineError`."""
        found = {nth: self._final(clip) for nth, clip in enumerate(clips) if clip.final}
        # Prompts of one call are equally long.
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for nth, clip in enumerate(clips):
            if not clip.final:
                alike[clip.hints].append(nth)
        for group in alike.values():
            found.update(zip(group, self._partials([clips[nth] for nth in group]), strict=True))
        return [found[nth] for nth in range(len(clips))]

    def release(self, key: str) -> None:
        """Forget what was kept under `key`; a partial of that key still being decoded does not bring it back."""
        self._drafts.pop(key, None)

    def close(self) -> None:
        """Free the model; calls under way may raise `EngineError`, later ones do."""
        self._model.close()
        self._drafts.clear()

    def _final(self, clip: Clip) -> Hypothesis:
        among, words = self._among(clip), list[Word]()
        hints = self._model.hint_tokens(clip.hints)
        for start, stop in quiet_cuts(clip.samples, _LONGEST_SPAN):
            samples = clip.samples[start:stop]
            if len(samples) < _FEWEST_SAMPLES:
                continue
            heard = self._model.hear([samples], FULL_FRAMES)
            (language,) = self._model.tell_languages(heard, [among])
            among = frozenset({language})
            (text,) = self._model.spell(heard, [language], hints, beam=BEAM, again=True)
            span_s = len(samples) / SAMPLE_RATE
            if self._model.word_times:
                found = self._model.align(heard, text, language, span_s)
            else:
                found = self._model.spread(text, language, span_s)
            words += _shifted(found, start)
        return Hypothesis(words=tuple(words), language=min(among))

    def _partials(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Decode the last spans of clips with the same hints side by side, and the others where nobody has yet."""
        drafts = [self._drafts.setdefault(clip.key, _Draft()) for clip in clips]
        cuts = [list(quiet_cuts(clip.samples, _LONGEST_SPAN)) for clip in clips]
        for clip, draft, spans in zip(clips, drafts, cuts, strict=True):
            for start, stop in spans[:-1]:
                if start not in draft.complete:
                    (found,) = self._write([clip], [draft], [clip.samples[start:stop]])
                    draft.complete[start] = _shifted(found, start)
        lasts = [clip.samples[slice(*spans[-1])] for clip, spans in zip(clips, cuts, strict=True)]
        words = self._write(clips, drafts, lasts)
        return [
            Hypothesis(
                words=(
                    *(word for start, _ in spans[:-1] for word in draft.complete[start]),
                    *_shifted(last, spans[-1][0]),
                ),
                language=draft.language or min(self._among(clip)),
            )
            for clip, draft, spans, last in zip(clips, drafts, cuts, words, strict=True)
        ]

    def _write(self, clips: Sequence[Clip], drafts: Sequence[_Draft], spans: Sequence[Samples]) -> list[list[Word]]:
        """Give the words of one span of each clip."""
        long = [nth for nth, samples in enumerate(spans) if len(samples) >= _FEWEST_SAMPLES]
        words: list[list[Word]] = [[] for _ in clips]
        if not long:
            return words
        longest = max(len(spans[nth]) for nth in long) * FRAMES_PER_S // SAMPLE_RATE
        frames = min(longest + _SPARE_FRAMES, FULL_FRAMES)
        heard = self._model.hear([spans[nth] for nth in long], frames - frames % 2)
        known = [drafts[nth].kept for nth in long]
        among = [{code} if code else self._among(clips[nth]) for nth, code in zip(long, known, strict=True)]
        languages = self._model.tell_languages(heard, among)
        hints = self._model.hint_tokens(clips[0].hints)
        texts = self._model.spell(heard, languages, hints, beam=1, again=False)
        for nth, language, text in zip(long, languages, texts, strict=True):
            drafts[nth].language = language
            if len(spans[nth]) >= _TELLING_S * SAMPLE_RATE:
                drafts[nth].kept = language
            words[nth] = self._model.spread(text, language, len(spans[nth]) / SAMPLE_RATE)
        return words

    def _among(self, clip: Clip) -> frozenset[str]:
        """Give the languages that a clip may be in; all, where a session was begun with another model's."""
        return self.info.languages.intersection(clip.languages) or self.info.languages


def _info(settings: EngineSettings, languages: frozenset[str], *, word_times: bool) -> EngineInfo:
    return EngineInfo(
        name=f"faster-whisper-{label(settings)}",
        languages=languages,
        word_times=word_times,
        exact_batches=False,
        batch_size=8,
    )


@dataclass(slots=True)
class _Draft:
    """What partials leave for the next one: the words of complete spans by start, the last language, the one kept."""

    complete: dict[int, list[Word]] = field(default_factory=dict)
    language: str = ""
    kept: str = ""


def _shifted(words: Sequence[Word], by: int) -> list[Word]:
    return [replace(word, start=word.start + by / SAMPLE_RATE, end=word.end + by / SAMPLE_RATE) for word in words]
