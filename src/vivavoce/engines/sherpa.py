"""Models of sherpa-onnx: streaming transducers, and the many that hear a whole clip at once.

A streaming transducer takes what is new of a clip with each partial; the stream is kept under the clip's key, and the
streams of a batch go through the model side by side. A final is heard anew from its whole clip in a stream of its own:
the sums of floats of a batch depend on its size, and a final must not depend on which partials ran. The other models
hear each clip whole, partial or final, and finals alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import Any

import numpy as np

from vivavoce.engines.sherpa_models import Model, find, languages_of, load, providers, run, tried
from vivavoce.engines.sherpa_words import by_script, timed_words, told_apart
from vivavoce.engines.spans import quiet_cuts
from vivavoce.errors import EngineError
from vivavoce.model import SAMPLE_RATE, Clip, Hypothesis
from vivavoce.plugins import EngineInfo, EngineSettings, KnownModel

MOST_STREAMS = 512
"""Clips whose streams are kept for their next partial; one that fell out is heard from its start again."""

_FEWEST_SAMPLES = SAMPLE_RATE // 10  # a tenth of a second holds no word, and some models fail on less
_LONGEST_SPAN = 29 * SAMPLE_RATE  # Whisper in sherpa-onnx drops what is beyond
_DEFAULTS = EngineSettings()

_INT8 = ("*.int8.onnx", "tokens.txt", "bpe.model")
_RELEASES = (
    ("csukuangfj/sherpa-onnx-streaming-zipformer-en-2023-06-26", "streaming-transducer", _INT8),
    (
        "csukuangfj/sherpa-onnx-streaming-zipformer-bilingual-zh-en-2023-02-20",
        "streaming-transducer",
        ("*coder-*.int8.onnx", "joiner-*.int8.onnx", "tokens.txt", "bpe.*"),
    ),
    (
        "csukuangfj2/sherpa-onnx-nemotron-speech-streaming-en-0.6b-560ms-int8-2026-04-25",
        "streaming-nemo-transducer",
        _INT8,
    ),
    (
        "csukuangfj2/sherpa-onnx-nemotron-3.5-asr-streaming-0.6b-560ms-int8-2026-06-11",
        "streaming-nemo-transducer",
        _INT8,
    ),
    ("csukuangfj/sherpa-onnx-nemo-parakeet-tdt-0.6b-v2-int8", "nemo-transducer", _INT8),
    ("csukuangfj/sherpa-onnx-nemo-parakeet-tdt-0.6b-v3-int8", "nemo-transducer", _INT8),
    ("csukuangfj/sherpa-onnx-sense-voice-zh-en-ja-ko-yue-2024-07-17", "sense-voice", _INT8),
    ("csukuangfj/sherpa-onnx-nemo-canary-180m-flash-en-es-de-fr-int8", "canary", _INT8),
    *(
        (f"csukuangfj2/sherpa-onnx-moonshine-{size}-quantized-2026-02-27", "moonshine-v2", ("*.ort", "tokens.txt"))
        for size in ("base-en", "base-es", "base-ja", "base-uk", "base-vi", "base-zh", "tiny-ko")
    ),
)
"""Repositories that the project's makers publish to, with the type of each and the files that the CPU takes."""


class SherpaEngine:
    """Decode clips with one model of sherpa-onnx; implements `plugins.Engine`.

    A final depends on nothing but its samples, languages and hints. Clips below a tenth of a second have no words.
    Where a model does not say which language it heard, it is the first of those expected whose script the text has.
    """

    def __init__(self, settings: EngineSettings = _DEFAULTS) -> None:
        """Try the model that the settings name in a child, then load it; raises `SetupError`."""
        self._model = tried(settings)
        self._recognizer: Any = load(self._model)
        self.info = _info(self._model)
        self._tongue = _Tongue()
        self._drafts: dict[str, _Draft] = {}
        self._guard = Lock()

    @classmethod
    def known(cls) -> Sequence[KnownModel]:
        """Give some releases of the project, of each sort one or two; any other is fetched by its repository."""
        return [_known(repository, kind, files) for repository, kind, files in _RELEASES]

    @classmethod
    def describe(cls, settings: EngineSettings) -> EngineInfo:
        """Say what the model in a directory can do, by its files; raises `SetupError`.

        Only a trial tells of a model that takes one clip at a time: until then it counts as one that takes several.
        """
        return _info(find(settings, providers(settings.device)[0]))

    def transcribe(self, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Give one hypothesis per clip, in order; blocks. Raises `EngineError`."""
        recognizer = self._recognizer
        if recognizer is None:
            raise EngineError("the engine is closed")
        partials = [clip for clip in clips if not clip.final]
        try:
            if self._model.kind.streaming:
                told = iter(self._go_on(recognizer, partials))
                return [self._anew(recognizer, clip) if clip.final else next(told) for clip in clips]
            told = iter(self._whole(recognizer, partials))
            return [self._whole(recognizer, [clip])[0] if clip.final else next(told) for clip in clips]
        except Exception as error:
            raise EngineError(f"sherpa-onnx failed on a clip ({type(error).__name__})") from error

    def release(self, key: str) -> None:
        """Forget the stream kept under `key`; a partial of that key still being decoded does not bring it back."""
        with self._guard:
            self._drafts.pop(key, None)

    def close(self) -> None:
        """Free the model when the calls under way have ended; later ones raise `EngineError`."""
        self._recognizer = None
        with self._guard:
            self._drafts.clear()

    def _stream(self, recognizer: Any, clip: Clip) -> Any:
        hints = "/".join(spelled for hint in clip.hints if (spelled := self._model.spelling.fit(hint)))
        return recognizer.create_stream(hints) if hints else recognizer.create_stream()

    def _go_on(self, recognizer: Any, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Decode what is new of streamed clips, side by side."""
        drafts = [self._draft(clip) for clip in clips]
        with ExitStack() as held:
            for draft in sorted(set(drafts), key=id):  # in the same order everywhere, so that nobody waits in a circle
                held.enter_context(draft.lock)
            held.enter_context(_whole_or_not(drafts))
            for clip, draft in zip(clips, drafts, strict=True):
                if draft.stream is None:
                    draft.stream, draft.fed = self._stream(recognizer, clip), 0
                if len(clip.samples) > draft.fed:
                    draft.stream.accept_waveform(SAMPLE_RATE, np.ascontiguousarray(clip.samples[draft.fed :]))
                    draft.fed = len(clip.samples)
            run(recognizer, [draft.stream for draft in set(drafts)])
            results = [recognizer.get_result_all(draft.stream) for draft in drafts]
        return [self._hypothesis(clip, [(0, result)]) for clip, result in zip(clips, results, strict=True)]

    def _draft(self, clip: Clip) -> _Draft:
        with self._guard:
            draft = self._drafts.pop(clip.key, None)
            if draft is None or draft.hints != clip.hints:
                draft = _Draft(clip.hints)
            self._drafts[clip.key] = draft
            while len(self._drafts) > MOST_STREAMS:
                del self._drafts[next(iter(self._drafts))]
            return draft

    def _anew(self, recognizer: Any, clip: Clip) -> Hypothesis:
        """Decode a whole clip in a stream of its own, with as much silence behind it as pushes the last sound out."""
        if len(clip.samples) < _FEWEST_SAMPLES:
            return self._hypothesis(clip, [])
        stream = self._stream(recognizer, clip)
        stream.accept_waveform(SAMPLE_RATE, np.ascontiguousarray(clip.samples))
        stream.accept_waveform(SAMPLE_RATE, np.zeros(round(self._model.tail_s * SAMPLE_RATE), np.float32))
        stream.input_finished()
        run(recognizer, [stream])
        return self._hypothesis(clip, [(0, recognizer.get_result_all(stream))])

    def _whole(self, recognizer: Any, clips: Sequence[Clip]) -> list[Hypothesis]:
        """Decode clips side by side, long ones in pieces that are cut at quiet places."""
        heard: list[tuple[int, int, Any]] = []
        for nth, clip in enumerate(clips):
            for start, stop in quiet_cuts(clip.samples, _LONGEST_SPAN):
                if stop - start >= _FEWEST_SAMPLES:
                    stream = self._stream(recognizer, clip)
                    stream.accept_waveform(SAMPLE_RATE, np.ascontiguousarray(clip.samples[start:stop]))
                    heard.append((nth, start, stream))
        if self._model.kind.told:
            for nth, _, stream in heard:
                self._tell(recognizer, clips[nth], stream)
        elif self._model.batches and heard:
            recognizer.decode_streams([stream for *_, stream in heard])
        else:
            for *_, stream in heard:
                recognizer.decode_stream(stream)
        return [
            self._hypothesis(clip, [(start, stream.result) for at, start, stream in heard if at == nth])
            for nth, clip in enumerate(clips)
        ]

    def _tell(self, recognizer: Any, clip: Clip, stream: Any) -> None:
        """Decode a stream by a recognizer whose language is a setting: what it detects, or the first one expected."""
        among = self._among(clip)
        detects = self._model.name == "whisper"
        with self._tongue.speaking(recognizer, self._model.name, "" if detects else among[0]):
            recognizer.decode_stream(stream)
        if detects and _heard(stream.result) not in ("", *among):
            with self._tongue.speaking(recognizer, self._model.name, among[0]):
                recognizer.decode_stream(stream)

    def _among(self, clip: Clip) -> tuple[str, ...]:
        """Give the languages that a clip may be in; all, where a session was begun with another model's."""
        return tuple(code for code in clip.languages if code in self.info.languages) or self._model.languages

    def _hypothesis(self, clip: Clip, results: Sequence[tuple[int, Any]]) -> Hypothesis:
        """Put together what was heard in the pieces of a clip, each with the sample that it begins at."""
        stops = [start for start, _ in results[1:]] + [len(clip.samples)]
        words = [
            word
            for (start, result), stop in zip(results, stops, strict=False)
            for word in timed_words(result, start / SAMPLE_RATE, stop / SAMPLE_RATE)
        ]
        among = self._among(clip)
        told = _heard(results[0][1]) if results else ""
        language = told if told in among else by_script("".join(word.text for word in words), among)
        return Hypothesis(words=tuple(words), language=language)


def _info(model: Model) -> EngineInfo:
    return EngineInfo(
        name="sherpa-onnx-" + model.directory.name.removeprefix("sherpa-onnx-"),
        languages=frozenset(model.languages),
        word_times=model.kind.word_times,
        exact_batches=False,
        batch_size=(16 if model.kind.streaming else 4) if model.batches else 1,
        detects=model.kind.tells or told_apart(model.languages),
    )


def _known(repository: str, kind: str, files: tuple[str, ...]) -> KnownModel:
    """Describe a release; one whose name does not say its languages has them in its files."""
    name = repository.partition("/")[2]
    languages = frozenset(languages_of(kind, name, {})) or None
    return KnownModel(name=name, model=name, languages=languages, repository=repository, files=files)


@dataclass(slots=True, eq=False)
class _Draft:
    """What is kept of a clip between its partials: its hints, its stream, and how many samples that was given."""

    hints: tuple[str, ...]
    stream: Any = None
    fed: int = 0
    lock: Lock = field(default_factory=Lock)


@contextmanager
def _whole_or_not(drafts: Sequence[_Draft]) -> Iterator[None]:
    """Drop the streams of a batch that fails: the library takes their state out first, and would crash without it."""
    try:
        yield
    except BaseException:
        for draft in drafts:
            draft.stream = None
        raise


class _Tongue:
    """Lets calls in one language decode side by side, where the language is a setting of the whole recognizer."""

    def __init__(self) -> None:
        self._turn, self._idle = Lock(), Condition()
        self._language: str | None = None
        self._speakers = 0

    @contextmanager
    def speaking(self, recognizer: Any, name: str, language: str) -> Iterator[None]:
        """Wait until nobody decodes in another language, and keep it while the block runs."""
        with self._turn, self._idle:  # who waits for others to end holds back those who come later
            self._idle.wait_for(lambda: not self._speakers or self._language == language)
            if self._language != language:
                model = getattr(recognizer.config.model_config, name)
                if name == "canary":
                    model.src_lang = model.tgt_lang = language
                else:
                    model.language = language
                recognizer.recognizer.set_config(recognizer.config)
                self._language = language
            self._speakers += 1
        try:
            yield
        finally:
            with self._idle:
                self._speakers -= 1
                self._idle.notify_all()


def _heard(result: Any) -> str:
    """Give the language that a model says it heard, by the contract's codes, which count Cantonese as Chinese."""
    return re.sub(r"\W", "", getattr(result, "lang", "")).replace("yue", "zh")
