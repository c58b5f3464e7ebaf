"""The faster-whisper engine on models that are made here, of the right shape and no sense; and on a real one if given.

Real weights are looked for in the directory that VIVAVOCE_TEST_WHISPER names, a multilingual model.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
from faster_whisper import WhisperModel
from faster_whisper.feature_extractor import FeatureExtractor

from recordings import TRANSCRIPTS, wheel_recording
from vivavoce.engines import whisper_model, whisper_weights
from vivavoce.engines.faster_whisper import FasterWhisperEngine
from vivavoce.engines.moonshine import MoonshineEngine
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import LANGUAGES, SAMPLE_RATE, Clip, spread_words
from vivavoce.plugins import EngineSettings
from vivavoce.testing.engines import check_engine
from whisper_model import make_model

SPEECH = wheel_recording("two_cities")[: 3 * SAMPLE_RATE]
REAL = os.environ.get("VIVAVOCE_TEST_WHISPER")
needs_weights = pytest.mark.skipif(
    not REAL, reason="no Whisper weights: set VIVAVOCE_TEST_WHISPER to the directory of a multilingual model"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Give the directories of a multilingual model, an English one and one with Cantonese."""
    place = tmp_path_factory.mktemp("models")
    return {
        "many": make_model(place / "many"),
        "english": make_model(place / "english", multilingual=False),
        "cantonese": make_model(place / "cantonese", cantonese=True),
    }


@pytest.fixture(scope="module")
def engine(models):
    built = FasterWhisperEngine(EngineSettings(model=str(models["many"])))
    yield built
    built.close()


def final(samples, **more):
    return Clip(key="f", samples=samples, final=True, **more)


def partial(samples, key="p", **more):
    return Clip(key=key, samples=samples, final=False, **more)


def texts(hypothesis):
    return [word.text for word in hypothesis.words]


@pytest.mark.parametrize("name", ["many", "english"])
def test_it_keeps_the_engines_contract(models, name):
    """Every promise of `Engine` holds for every kind of model."""
    check_engine(lambda: FasterWhisperEngine(EngineSettings(model=str(models[name]))), SPEECH)


def test_the_default_engine_keeps_the_contract():
    """The checker asks of other engines nothing that the default one does not do."""
    check_engine(MoonshineEngine, SPEECH)


def test_languages_are_those_of_the_contract(engine, models):
    """A multilingual model knows the 99 codes that clients may send, an English one English, and none Cantonese."""
    assert engine.info.languages == LANGUAGES
    assert FasterWhisperEngine(EngineSettings(model=str(models["english"]))).info.languages == {"en"}
    assert FasterWhisperEngine(EngineSettings(model=str(models["cantonese"]))).info.languages == LANGUAGES


@pytest.mark.parametrize("name", ["whisper-distil-large-v3", "distil-large-v3.5-ct2"])
def test_a_distilled_model_knows_english_alone(models, tmp_path, name):
    """Whatever its tokens say, it has learnt nothing else; its name tells, which downloads give to the directory."""
    (tmp_path / name).symlink_to(models["many"])
    settings = EngineSettings(model=str(tmp_path / name))
    assert FasterWhisperEngine.describe(settings).languages == {"en"}
    made = FasterWhisperEngine(settings)
    assert made.info.languages == {"en"}
    (heard,) = made.transcribe([final(SPEECH)])
    assert heard.language == "en"


@pytest.mark.parametrize("name", ["many", "english", "cantonese"])
def test_a_model_is_described_without_being_loaded(models, name):
    """What its files say is what the engine says of itself."""
    settings = EngineSettings(model=str(models[name]))
    assert FasterWhisperEngine.describe(settings) == FasterWhisperEngine(settings).info


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "/nowhere/at/all"}, "there is no such directory"),
        ({"model": "enormous"}, "no such directory, and no size of Whisper"),
        (
            {"model": "large-v1"},
            "no such directory, and not in the hub's cache here; get it with: .* download whisper-large-v1$",
        ),
        ({"model": "large"}, "get it with: vivavoce models download whisper-large-v3$"),
        ({"model": "me/mine"}, "download NAME --engine faster-whisper --hub me/mine$"),
        ({"model": "large-v1", "device": "cuda"}, "--device cuda: no CUDA device is found"),
        ({"model": "large-v1", "compute_type": "int3"}, "--compute-type int3: not on this CPU"),
    ],
)
def test_what_cannot_be_loaded_here_is_not_described(settings, line, monkeypatch):
    """Nobody takes it for installed, and the line says how to get it."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    with pytest.raises(SetupError, match=line):
        FasterWhisperEngine.describe(EngineSettings(**settings))


def test_an_empty_directory_is_not_described(tmp_path):
    """It is not taken for a model."""
    with pytest.raises(SetupError, match=r"has no model\.bin"):
        FasterWhisperEngine.describe(EngineSettings(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("whisper-distil-large-v3.5", {"en"}),
        ("faster-distil-whisper-large-v2", {"en"}),
        ("distil-large-v3-fr", LANGUAGES),
        ("undistilled", LANGUAGES),
    ],
)
def test_a_distilled_model_knows_what_it_has_learnt(models, tmp_path, name, languages):
    """English alone for the releases, whatever their tokens say; known ones keep their languages once installed."""
    settings = EngineSettings(model=str(shutil.copytree(models["many"], tmp_path / name)))
    assert FasterWhisperEngine.describe(settings).languages == languages
    if name.startswith("whisper"):
        engine = FasterWhisperEngine(settings)
        assert engine.info == FasterWhisperEngine.describe(settings)
        assert engine.transcribe([final(SPEECH)]) == engine.transcribe([final(SPEECH, languages=("nl",))])
        assert len(engine._model._spec("en").sot_sequence) == 3


def test_notes_in_the_directory_name_the_languages(models, tmp_path):
    """They go before the tokens, which a distilled model for one language has of all."""
    place = shutil.copytree(models["many"], tmp_path / "kotoba")
    (place / "vivavoce.toml").write_text('languages = ["ja"]\n', encoding="utf-8")
    settings = EngineSettings(model=str(place))
    assert FasterWhisperEngine.describe(settings) == FasterWhisperEngine(settings).info
    assert FasterWhisperEngine.describe(settings).languages == {"ja"}
    (place / "vivavoce.toml").write_text('languages = ["klingon"]\n', encoding="utf-8")
    with pytest.raises(SetupError, match="languages: 'klingon': not among the protocol's codes"):
        FasterWhisperEngine.describe(settings)
    shutil.copy(models["english"] / "vocabulary.json", place)
    (place / "vivavoce.toml").write_text('languages = ["ja"]\n', encoding="utf-8")
    with pytest.raises(SetupError, match="the model has no tokens for ja"):
        FasterWhisperEngine.describe(settings)


def test_every_size_is_known_once_with_its_place():
    """A size that is another name of the same repository is not offered twice."""
    known = FasterWhisperEngine.known()
    names = [each.name for each in known]
    assert {"whisper-tiny.en", "whisper-small", "whisper-large-v3-turbo"} <= set(names)
    assert len({each.repository for each in known}) == len(set(names)) == len(names)
    assert {each.languages for each in known if each.model.endswith(".en")} == {frozenset({"en"})}
    assert next(each for each in known if each.model == "small").languages == LANGUAGES


def test_a_language_is_detected_among_those_that_are_expected(engine):
    """The detected one is the likeliest of all, of two or of one; what a model does not know means any."""
    assert engine.transcribe([final(SPEECH)])[0].language in LANGUAGES
    for pair in (("nl", "fr"), ("zh", "yo")):
        assert engine.transcribe([final(SPEECH, languages=pair)])[0].language in pair
    assert engine.transcribe([final(SPEECH, languages=("nl",))])[0].language == "nl"
    assert engine.transcribe([final(SPEECH, languages=("xx",))]) == engine.transcribe([final(SPEECH)])


def test_every_language_is_written(engine):
    """Partials in all 99 languages come in the language that was asked for."""
    codes = sorted(LANGUAGES)
    for at in range(0, len(codes), engine.info.batch_size):
        group = codes[at : at + engine.info.batch_size]
        said = engine.transcribe([partial(SPEECH[:SAMPLE_RATE], f"l{code}", languages=(code,)) for code in group])
        assert [hypothesis.language for hypothesis in said] == group
        for code in group:
            engine.release(f"l{code}")


def test_words_come_from_the_models_attention(engine, answering):
    """A final's words have times and probabilities of their own; those of a partial share the clip's time."""
    assert engine.info.word_times
    words = engine.transcribe([final(SPEECH, languages=("en",))])[0].words
    assert len(words) > 5
    assert len({word.confidence for word in words}) > 5
    assert words != spread_words([word.text for word in words], [word.confidence for word in words], 0.0, 3.0)
    answering([300, 302, 304])
    loose = engine.transcribe([partial(SPEECH, languages=("nl",))])[0].words
    assert loose == spread_words([word.text for word in loose], [loose[0].confidence] * len(loose), 0.0, 3.0)
    assert loose
    engine.release("p")


def test_times_are_those_that_faster_whisper_reads(engine, models):
    """From the same attention its own reading gives the same words and times."""
    theirs = WhisperModel(str(models["many"]), device="cpu", compute_type="int8")
    model = engine._model
    heard = model.hear([SPEECH], whisper_model.FULL_FRAMES)
    (text,) = model.spell(heard, ["en"], [], beam=5, again=True)
    (read,) = theirs.find_alignment(model._spec("en"), [text.tokens], heard.memory, heard.frames[0])
    words = model.align(heard, text, "en", 3.0)
    assert len(words) > 5
    for word, other in zip(words, read, strict=False):
        assert (word.text, word.start, word.end) == (
            other["word"].strip(), pytest.approx(other["start"]), pytest.approx(other["end"])
        )  # fmt: skip
        assert word.confidence == pytest.approx(other["probability"], rel=1e-4)


def test_features_are_those_of_the_clip_with_silence_behind_it(engine):
    """Padding features costs nothing and gives what padding samples gives, as Whisper was trained."""
    padded = np.concatenate([SPEECH, np.zeros(27 * SAMPLE_RATE, np.float32)])
    wanted = FeatureExtractor()(padded, padding=0)[:, :3000]
    np.testing.assert_allclose(engine._model._padded(SPEECH, 3000), wanted, atol=1e-5)
    np.testing.assert_allclose(engine._model._padded(SPEECH, 400), wanted[:, :400], atol=1e-5)


def test_a_partial_is_encoded_in_what_there_is(engine, monkeypatch):
    """Two seconds are heard in three, not in thirty; a final in thirty."""
    seen = []
    hear = whisper_model.Model.hear
    monkeypatch.setattr(
        whisper_model.Model, "hear", lambda model, clips, frames: seen.append(frames) or hear(model, clips, frames)
    )
    engine.transcribe([partial(SPEECH[: 2 * SAMPLE_RATE])])
    engine.transcribe([final(SPEECH[: 2 * SAMPLE_RATE])])
    assert seen == [300, 3000]
    engine.release("p")


def test_partials_keep_their_language_until_they_are_released(engine):
    """From two seconds on the language stays, whatever follows; the next utterance begins anew."""
    noise = np.random.default_rng(7).normal(0, 0.2, 8 * SAMPLE_RATE).astype(np.float32)
    (first,) = engine.transcribe([partial(SPEECH[: 2 * SAMPLE_RATE])])
    grown = np.concatenate([SPEECH[: 2 * SAMPLE_RATE], noise])
    assert engine.transcribe([partial(grown)])[0].language == first.language
    assert engine._drafts.keys() == {"p"}
    engine.release("p")
    assert engine._drafts == {}


def test_a_short_partial_does_not_decide_the_language(engine, monkeypatch):
    """What is told from less than two seconds is told anew; from then on it is kept."""
    asked, told = [], iter(["nl", "fr", "fr"])

    def tell(heard, among):
        asked.append(len(among[0]))
        return [next(told)]

    monkeypatch.setattr(engine._model, "tell_languages", tell)
    stops = (SAMPLE_RATE, 2 * SAMPLE_RATE, 3 * SAMPLE_RATE)
    said = [engine.transcribe([partial(SPEECH[:stop])])[0].language for stop in stops]
    engine.release("p")
    assert said == ["nl", "fr", "fr"]
    assert asked == [len(LANGUAGES), len(LANGUAGES), 1]


def test_a_long_clip_is_heard_to_its_end(engine, monkeypatch):
    """A clip beyond 30 s is cut at quiet places; a partial decodes each complete piece once."""
    long = np.concatenate([wheel_recording("two_cities")[: 40 * SAMPLE_RATE], SPEECH, SPEECH])[: 36 * SAMPLE_RATE]
    seen = []
    hear = whisper_model.Model.hear
    monkeypatch.setattr(
        whisper_model.Model, "hear", lambda model, clips, frames: seen.append(frames) or hear(model, clips, frames)
    )
    words = engine.transcribe([final(long, languages=("en",))])[0].words
    assert seen == [3000, 3000]
    assert words[-1].end > 16
    seen.clear()
    before = engine.transcribe([partial(long, languages=("en",))])
    assert engine.transcribe([partial(long, languages=("en",))]) == before
    assert len(seen) == 3
    engine.release("p")


def test_hints_reach_the_model_as_far_as_there_is_room(engine):
    """Words to expect change what is written; a thousand of them are cut to what fits."""
    plain, hinted = (
        engine.transcribe([final(SPEECH, languages=("en",), hints=hints)])[0] for hints in ((), ("Femke", "Westeros"))
    )
    assert texts(plain) != texts(hinted)
    many = tuple(f"word{nth}" for nth in range(1000))
    assert len(engine._model.hint_tokens(many)) <= whisper_model.MOST_HINT_TOKENS
    assert engine._model.hint_tokens(many)[: len(engine._model.hint_tokens(many[:3]))] == engine._model.hint_tokens(
        many[:3]
    )
    assert len(engine.transcribe([final(SPEECH, languages=("en",), hints=many)])) == 1
    mixed = [partial(SPEECH, "a", hints=("Femke",)), partial(SPEECH, "b"), partial(SPEECH, "c", hints=many)]
    assert len(engine.transcribe(mixed)) == 3
    for key in "abc":
        engine.release(key)


@pytest.fixture
def answering(engine, monkeypatch):
    """Have the model say certain tokens, a second time others; give the options it was called with."""
    calls = []

    def script(*answers, no_speech=0.0, log=-0.1):
        waiting = list(answers)

        def write(name, *inputs, **options):
            if name != "generate":
                return call(name, *inputs, **options)
            calls.append(options)
            result = ctranslate2.models.WhisperGenerationResult
            tokens = waiting.pop(0)
            fields = {"sequences_ids": [tokens], "scores": [log], "no_speech_prob": no_speech}
            return [type(result.__name__, (), fields) for _ in inputs[1]]

        monkeypatch.setattr(engine._model, "_call", write)
        return calls

    call = engine._model._call
    return script


LOOP = [300, 301] * 6


def test_a_text_that_goes_round_in_circles_is_written_once_more(engine, answering):
    """A final's second try may not repeat three tokens; nothing is drawn at random."""
    calls = answering(LOOP, [300, 301, 302])
    (said,) = engine.transcribe([final(SPEECH, languages=("en",))])
    assert len(said.words) <= 3
    assert [options["no_repeat_ngram_size"] for options in calls] == [0, 3]
    assert all("sampling_temperature" not in options for options in calls)


def test_a_partial_that_goes_round_in_circles_is_not_shown(engine, answering):
    """It costs one try, and says nothing."""
    calls = answering(LOOP)
    assert engine.transcribe([partial(SPEECH, languages=("en",))])[0].words == ()
    assert len(calls) == 1
    engine.release("p")


@pytest.mark.parametrize(("no_speech", "log", "heard"), [(0.9, -1.5, False), (0.9, -0.2, True), (0.1, -1.5, True)])
def test_silence_has_no_words(engine, answering, no_speech, log, heard):
    """What the model takes for silence and is unsure of is left out; either alone is not enough."""
    answering([300, 302, 304], no_speech=no_speech, log=log)
    (said,) = engine.transcribe([final(SPEECH, languages=("en",))])
    assert bool(said.words) is heard


def test_a_text_that_is_mostly_repetition_is_written_once_more(engine, answering):
    """Also where no loop stands at its end: it is compressed too well."""
    calls = answering([*LOOP, 310, 311], [300, 301, 302])
    (said,) = engine.transcribe([final(SPEECH, languages=("en",))])
    assert len(said.words) <= 3
    assert [call["no_repeat_ngram_size"] for call in calls] == [0, 3]


@pytest.mark.parametrize(("clip", "most"), [(final(SPEECH), 95), (partial(SPEECH[:SAMPLE_RATE]), 45)])
def test_a_text_has_no_more_tokens_than_fit_into_its_clip(engine, answering, clip, most):
    """25 for each second that was said, and a few; silence behind it does not count."""
    calls = answering([300])
    engine.transcribe([clip])
    engine.release(clip.key)
    assert [call["max_length"] for call in calls] == [2 * most]


def test_text_without_a_letter_has_no_words(engine, answering):
    """Dots and notes alone are nothing that was said."""
    dots = engine._model.hint_tokens(["..."])
    answering(dots)
    assert engine.transcribe([final(SPEECH, languages=("en",))])[0].words == ()


@pytest.mark.parametrize(
    ("language", "said", "expected"),
    [
        ("en", " Hello, it's  me.", ["Hello,", "it's", "me."]),
        ("es", " ¿Qué? Sí.", ["¿Qué?", "Sí."]),
        ("zh", "你好，iPhone 14「世界」。", ["你", "好，", "iPhone", "14", "「世", "界」。"]),  # noqa: RUF001
        ("th", "ที่นี่", ["ที่", "นี่"]),
    ],
)
def test_words_are_cut_as_each_language_is_written(engine, answering, language, said, expected):
    """Blanks cut words, with their punctuation; where there are none every character is a word, marks included."""
    answering(engine._model._tokenizer.encode(said, add_special_tokens=False).ids)
    (heard,) = engine.transcribe([partial(SPEECH, languages=(language,))])
    assert texts(heard) == expected
    engine.release("p")


def test_words_that_begin_when_the_clip_is_over_are_left_out(engine, answering, monkeypatch):
    """What the attention finds only in the silence behind the clip was not said."""
    tokens = engine._model._tokenizer.encode(" one two", add_special_tokens=False).ids
    answering(tokens)
    call = engine._model._call
    fields = {"text_token_probs": [0.5] * len(tokens)}

    def align(name, *inputs, **options):
        if name != "align":
            return call(name, *inputs, **options)
        places = [(nth, 10 if nth < 4 else 200) for nth in range(len(tokens) + 1)]
        return [type("Alignment", (), {**fields, "alignments": places})]

    monkeypatch.setattr(engine._model, "_call", align)
    assert texts(engine.transcribe([final(SPEECH, languages=("en",))])[0]) == ["one"]


def test_a_model_without_alignment_heads_spreads_its_words(models, tmp_path):
    """Such a model says that its word times are not measured, and works all the same."""
    shutil.copytree(models["many"], tmp_path / "plain")
    config = tmp_path / "plain" / "config.json"
    config.write_text(config.read_text().replace("alignment_heads", "no_heads"))
    plain = FasterWhisperEngine(EngineSettings(model=str(tmp_path / "plain")))
    assert not plain.info.word_times
    assert plain.transcribe([final(SPEECH, languages=("en",))])[0].words


def test_a_closed_engine_and_a_failing_model_say_so(models, monkeypatch):
    """Failures are EngineErrors with a reason, and a full GPU is told from others."""
    one = FasterWhisperEngine(EngineSettings(model=str(models["many"])))

    class Failing:
        def encode(self, features):
            raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr(one._model, "_whisper", Failing())
    with pytest.raises(EngineError, match="GPU is out of memory; see --compute-type"):
        one.transcribe([final(SPEECH)])
    one.close()
    with pytest.raises(EngineError, match="closed"):
        one.transcribe([final(SPEECH)])


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_directory_that_lacks_a_file_is_refused(models, tmp_path, name):
    """One line names the file and where it comes from."""
    shutil.copytree(models["english"], tmp_path / "part")
    (tmp_path / "part" / name).unlink()
    with pytest.raises(SetupError, match=rf"has no {name}: ") as refused:
        FasterWhisperEngine(EngineSettings(model=str(tmp_path / "part")))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "enormous"}, "no such directory, and no size of Whisper; the sizes are tiny.en, tiny"),
        ({"model": "/nowhere/at/all"}, "there is no such directory"),
        ({"model": "tiny", "compute_type": "int3"}, "--compute-type int3: not on this CPU, which has: auto, default"),
        ({"model": "tiny", "device": "cuda"}, "--device cuda: no CUDA device is found; .* or use --device cpu"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, line, monkeypatch):
    """One line names the setting and what may stand there instead."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 0)
    with pytest.raises(SetupError, match=line) as refused:
        FasterWhisperEngine(EngineSettings(**settings))
    assert "\n" not in str(refused.value)


def test_a_damaged_model_is_refused(models, tmp_path):
    """A cut-off download is one line, not a crash."""
    shutil.copytree(models["english"], tmp_path / "cut")
    weights = tmp_path / "cut" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SetupError, match=r"on the CPU as int8: .*; get it again; `vivavoce models verify"):
        FasterWhisperEngine(EngineSettings(model=str(tmp_path / "cut")))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("CUDA failed with error out of memory", "the GPU has too little free memory for it as float16; use a smaller"),
        ("Library libcublas.so.12 is not found", "--device cuda: Library .* install CUDA 12 and cuDNN 9"),
    ],
)
def test_a_gpu_that_cannot_is_one_line(models, monkeypatch, error, line):
    """Memory and missing libraries each have a way out."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda device: {"float16", "int8"})

    def fail(*_, device, compute_type, **__):
        assert (device, compute_type) == ("cuda", "float16")
        raise RuntimeError(error)

    monkeypatch.setattr(whisper_weights.ctranslate2.models, "Whisper", fail)
    with pytest.raises(SetupError, match=line):
        FasterWhisperEngine(EngineSettings(model=str(models["many"])))


def load_elsewhere(place, model, **environment):
    """Load an engine in a process that has no hub."""
    program = (
        "import sys\n"
        "from vivavoce.engines.faster_whisper import FasterWhisperEngine\n"
        "from vivavoce.errors import SetupError\n"
        "from vivavoce.plugins import EngineSettings\n"
        "try:\n"
        "    print(FasterWhisperEngine(EngineSettings(model=sys.argv[1])).info.name)\n"
        "except SetupError as error:\n"
        "    print(error)\n"
    )
    env = {**os.environ, "HF_HOME": str(place), "HF_ENDPOINT": "http://127.0.0.1:1", **environment}
    ended = subprocess.run(
        [sys.executable, "-c", program, model], env=env, capture_output=True, text=True, timeout=200, check=True
    )
    return (ended.stderr + ended.stdout).strip()


def test_without_a_hub_one_line_says_what_to_do(tmp_path):
    """A size that is not on the machine needs the hub, a mirror, or a directory."""
    line = load_elsewhere(tmp_path, "tiny")
    assert line.startswith("--model tiny is not on this machine: it is being downloaded from the hub\n")
    line = line.partition("\n")[2]
    assert line.startswith("--model tiny: not on this machine, and the hub does not give it (")
    assert line.endswith("name a directory that has it with --model, or a mirror of the hub with HF_ENDPOINT")


def test_what_is_in_the_hubs_cache_needs_no_hub(models, tmp_path):
    """A model that was downloaded once is loaded by its size without a network."""
    cached = tmp_path / "hub" / "models--Systran--faster-whisper-tiny"
    shutil.copytree(models["many"], cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert load_elsewhere(tmp_path, "tiny") == "faster-whisper-tiny"


@needs_weights
def test_a_real_model_writes_what_was_said():
    """The words come out, in English, in finals and in partials that are encoded in a few seconds."""
    one = FasterWhisperEngine(EngineSettings(model=REAL, engine_threads=2))
    wanted = " ".join(TRANSCRIPTS["two_cities"].lower().replace(",", "").split()[:5])
    for clip in (final(SPEECH), partial(SPEECH)):
        (said,) = one.transcribe([clip])
        assert said.language == "en"
        assert wanted in " ".join(texts(said)).lower().replace(",", "")
    one.close()


@needs_weights
def test_a_real_model_keeps_the_contract():
    """The checker's promises hold for real weights."""
    check_engine(lambda: FasterWhisperEngine(EngineSettings(model=REAL, engine_threads=2)), SPEECH)


def test_real_weights_are_looked_for_where_the_documentation_says():
    """The variable of this module stands in the how-to."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "faster-whisper.md"
    assert "VIVAVOCE_TEST_WHISPER" in page.read_text(encoding="utf-8")
