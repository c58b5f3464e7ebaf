"""The sherpa-onnx engine on models that are made here, of the right shape and no sense; and on real ones if given.

Real weights are looked for in the directories that VIVAVOCE_SHERPA_MODEL names, separated as in PATH, of models that
know English.
"""

from __future__ import annotations

import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import TRANSCRIPTS, wheel_recording
from sherpa_model import SIGNS, bpe, moonshine, nemo_ctc, nemo_transducer, sense_voice, streaming, written
from vivavoce.engines import sherpa, sherpa_models
from vivavoce.engines.sherpa import SherpaEngine
from vivavoce.engines.sherpa_words import NO_CONFIDENCE, by_script, timed_words
from vivavoce.errors import EngineError, SetupError
from vivavoce.model import SAMPLE_RATE, Clip
from vivavoce.plugins import EngineSettings, plugin
from vivavoce.testing.engines import check_engine

SPEECH = wheel_recording("two_cities")[: 3 * SAMPLE_RATE]
REAL = [path for path in os.environ.get("VIVAVOCE_SHERPA_MODEL", "").split(os.pathsep) if path]
needs_weights = pytest.mark.skipif(
    not REAL, reason="no weights: set VIVAVOCE_SHERPA_MODEL to directories of sherpa-onnx models that know English"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Give the directories of a streaming transducer, one of Chinese characters, and two models for whole clips."""
    place = tmp_path_factory.mktemp("models")
    return {
        "streaming": streaming(place / "sherpa-onnx-streaming-zipformer-en-2023"),
        "signs": streaming(place / "sherpa-onnx-streaming-zipformer-zh", pieces=SIGNS),
        "ctc": nemo_ctc(place / "sherpa-onnx-nemo-ctc-en-de"),
        "sense": sense_voice(place / "sense"),
        "nemotron": nemo_transducer(place / "sherpa-onnx-nemotron-en", chunks=True),
        "parakeet": nemo_transducer(place / "sherpa-onnx-nemo-parakeet-tdt-0.6b-v3", chunks=False),
        "moonshine": moonshine(place / "sherpa-onnx-moonshine-tiny-en"),
    }


@pytest.fixture(scope="module")
def engines(models):
    built = {"streaming": SherpaEngine(EngineSettings(model=str(models["streaming"])))}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sherpa_models, "_trial", lambda *_: (None, True))
        for name in ("signs", "nemotron", "parakeet", "ctc", "sense"):
            built[name] = SherpaEngine(EngineSettings(model=str(models[name])))
    yield built
    for engine in built.values():
        engine.close()


@pytest.fixture
def trusting(monkeypatch):
    """Spare a test the child process that tries each model first."""
    monkeypatch.setattr(sherpa_models, "_trial", lambda *_: (None, True))


def final(samples, **more):
    return Clip(key="f", samples=samples, final=True, **more)


def partial(samples, key="p", **more):
    return Clip(key=key, samples=samples, final=False, **more)


def texts(hypothesis):
    return [word.text for word in hypothesis.words]


@pytest.mark.parametrize("name", ["streaming", "signs", "nemotron", "parakeet", "ctc", "sense", "moonshine"])
def test_it_keeps_the_engines_contract(models, name, trusting):
    """Every promise of `Engine` holds for streaming models and others."""
    check_engine(lambda: SherpaEngine(EngineSettings(model=str(models[name]))), SPEECH)


def test_it_is_found_by_its_name(models, engines):
    """The entry point gives it; its own name is that of the model."""
    assert plugin("engines", "sherpa-onnx") is SherpaEngine
    assert engines["streaming"].info.name == "sherpa-onnx-streaming-zipformer-en-2023"
    assert engines["sense"].info.name == "sherpa-onnx-sense"
    assert engines["streaming"].info.batch_size == 16


@pytest.mark.parametrize("name", ["streaming", "nemotron"])
@settings(max_examples=12, deadline=None)
@given(stops=st.lists(st.integers(0, len(SPEECH)), max_size=6))
def test_any_schedule_of_partials_gives_the_same_text(engines, name, stops):
    """The last partial is that of a clip heard at once, and the final the one without any partials."""
    engine = engines[name]
    for stop in sorted(stops):
        engine.transcribe([partial(SPEECH[:stop])])
    last = engine.transcribe([partial(SPEECH)])
    assert engine.transcribe([final(SPEECH)]) == engine.transcribe([Clip(key="p", samples=SPEECH, final=True)])
    engine.release("p")
    assert last == engine.transcribe([partial(SPEECH, "another")])
    assert len(last[0].words) > 2
    engine.release("another")


def test_a_partial_takes_only_what_is_new(engines):
    """What was heard before is not heard again, until the stream that was kept is released."""
    engine = engines["streaming"]
    engine.transcribe([partial(SPEECH[: 2 * SAMPLE_RATE])])
    changed = np.concatenate([np.zeros(2 * SAMPLE_RATE, np.float32), SPEECH[2 * SAMPLE_RATE :]])
    kept = engine.transcribe([partial(changed)])
    engine.release("p")
    afresh = engine.transcribe([partial(changed)])
    assert kept != afresh
    engine.release("p")
    assert kept == engine.transcribe([partial(SPEECH)])
    engine.release("p")
    assert engine._drafts == {}


def test_partials_of_many_clips_go_side_by_side(engines, monkeypatch):
    """Streams that have a chunk are decoded in one call, clips at different places included; answers are in order."""
    engine, seen = engines["streaming"], []

    class Counting:
        def __init__(self, recognizer):
            self._recognizer = recognizer

        def decode_streams(self, streams):
            seen.append(len(streams))
            self._recognizer.decode_streams(streams)

        def __getattr__(self, name):
            return getattr(self._recognizer, name)

    stops = [3 * SAMPLE_RATE, SAMPLE_RATE, 2 * SAMPLE_RATE, 0]
    alone = [engine.transcribe([partial(SPEECH[:stop], f"a{stop}")])[0] for stop in stops]
    monkeypatch.setattr(engine, "_recognizer", Counting(engine._recognizer))
    beside = engine.transcribe([partial(SPEECH[:stop], f"b{stop}") for stop in stops])
    assert [texts(said) for said in beside] == [texts(said) for said in alone]
    assert max(seen) == 3
    assert seen == sorted(seen, reverse=True)
    for stop in stops:
        engine.release(f"a{stop}")
        engine.release(f"b{stop}")


def test_a_model_for_one_clip_at_a_time_gets_one(tmp_path):
    """Where the child cannot decode two clips at once, the engine asks for one; what failed is heard from its start."""
    engine = SherpaEngine(EngineSettings(model=str(streaming(tmp_path / "lone-en", batch=1))))
    assert engine.info.batch_size == 1
    (known,) = engine.transcribe([partial(SPEECH)])
    assert known.words
    engine.transcribe([partial(SPEECH[:SAMPLE_RATE], "a")])
    with pytest.raises(EngineError):
        engine.transcribe([partial(SPEECH[: 2 * SAMPLE_RATE], key) for key in "ab"])
    assert [engine.transcribe([partial(SPEECH, key)]) for key in "ab"] == [[known], [known]]
    engine.close()


def test_no_more_streams_are_kept_than_the_bound(engines, monkeypatch):
    """The one unused for longest goes, and its clip is heard from its start again with the same words."""
    engine = engines["streaming"]
    monkeypatch.setattr(sherpa, "MOST_STREAMS", 2)
    for key in "abc":
        engine.transcribe([partial(SPEECH[:SAMPLE_RATE], key)])
    assert list(engine._drafts) == ["b", "c"]
    (again,) = engine.transcribe([partial(SPEECH, "a")])
    (whole,) = engine.transcribe([partial(SPEECH, "d")])
    assert again == whole
    for key in "abcd":
        engine.release(key)


def test_a_released_stream_does_not_come_back(engines, monkeypatch):
    """A partial that is being decoded while its key is released leaves nothing behind."""
    engine, run = engines["streaming"], sherpa.run
    monkeypatch.setattr(sherpa, "run", lambda *given: (engine.release("p"), run(*given)))
    assert engine.transcribe([partial(SPEECH)])[0].words
    assert engine._drafts == {}


def test_several_threads_may_ask_at_once(engines):
    """Partials of the same clips from many threads, in batches of any order, neither hang nor mix."""
    engine = engines["streaming"]
    (known,) = engine.transcribe([partial(SPEECH, "k")])

    def ask(nth):
        keys = "xyz" if nth % 2 else "zyx"
        return engine.transcribe([partial(SPEECH, key) for key in keys])

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(12)))
    assert all(texts(said) == texts(known) for answer in answers for said in answer)
    for key in "kxyz":
        engine.release(key)


def test_the_last_sounds_of_a_final_are_heard(tmp_path, trusting):
    """A final has what is said in the last chunk, of which partials wait for the rest; no word ends after the clip."""
    chatty = SherpaEngine(EngineSettings(model=str(streaming(tmp_path / "chatty-en", pause=-4.0))))
    (said,) = chatty.transcribe([final(SPEECH)])
    (so_far,) = chatty.transcribe([partial(SPEECH)])
    assert "".join(texts(said)).startswith("".join(texts(so_far)))
    assert so_far.words[-1].start < max(word.start for word in said.words if word.start < 3.0)
    assert said.words[-1].end <= 3.0


def test_hints_change_what_a_transducer_writes(engines, capfd):
    """Words to expect are spelled in the model's signs; what cannot be is left out and not printed anywhere."""
    engine = engines["signs"]
    (plain,) = engine.transcribe([final(SPEECH)])
    (hinted,) = engine.transcribe([final(SPEECH, hints=("好", "上"))])
    assert texts(hinted) != texts(plain)
    strange = ("Femke", "你們", "a/b", ":9", "#", "")
    assert engine.transcribe([final(SPEECH, hints=strange)]) == [plain]
    mixed = [partial(SPEECH, "a", hints=("好", "上")), partial(SPEECH, "b"), partial(SPEECH, "c", hints=strange)]
    said = engine.transcribe(mixed)
    assert texts(said[0]) != texts(said[1]) == texts(said[2])
    assert engines["streaming"].transcribe([final(SPEECH, hints=("one",))]) == engines["streaming"].transcribe(
        [final(SPEECH)]
    )
    for key in "abc":
        engine.release(key)
    assert capfd.readouterr() == ("", "")


def test_hints_are_spelled_in_pieces(tmp_path, trusting, capfd):
    """A `bpe.model` in the directory is enough; upper case is tried where the model has no lower case."""
    model, pieces = bpe(re.sub("[^A-Z ]", "", TRANSCRIPTS["two_cities"].upper()), 40)
    place = streaming(tmp_path / "bpe-en", pieces=pieces)
    (place / "bpe.model").write_bytes(model)
    engine = SherpaEngine(EngineSettings(model=str(place)))
    (plain,) = engine.transcribe([final(SPEECH)])
    (hinted,) = engine.transcribe([final(SPEECH, hints=("it was", "Jazz"))])
    assert texts(hinted) != texts(plain)
    assert engine.transcribe([final(SPEECH, hints=("IT WAS",))]) == [hinted]
    assert engine.transcribe([final(SPEECH, hints=("Jazz", "9", "a:b"))]) == [plain]
    assert capfd.readouterr() == ("", "")


def test_real_weights_write_what_was_said(models, trusting):
    """The default engine's weights, run by sherpa-onnx, give the words of a recording in partials and in finals."""
    engine = SherpaEngine(EngineSettings(model=str(models["moonshine"])))
    assert not engine.info.word_times
    wanted = TRANSCRIPTS["two_cities"].lower().replace(",", "").split()[:6]
    for clip in (final(SPEECH), partial(SPEECH)):
        (said,) = engine.transcribe([clip])
        assert [text.lower().strip(".,") for text in texts(said)][:6] == wanted
        assert said.language == "en"
    engine.close()


def test_a_long_clip_is_heard_to_its_end(engines):
    """A clip beyond 29 s goes through a model for whole clips in pieces, with times from the clip's start."""
    long = np.concatenate([wheel_recording("two_cities")[: 28 * SAMPLE_RATE], SPEECH])[: 31 * SAMPLE_RATE]
    (said,) = engines["ctc"].transcribe([final(long)])
    times = [time for word in said.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] > 25


def test_confidences_come_from_the_model_where_it_gives_them(engines):
    """A transducer's words have probabilities of their own; a model without has the same for all."""
    assert len({word.confidence for word in engines["streaming"].transcribe([final(SPEECH)])[0].words}) > 2
    assert {word.confidence for word in engines["ctc"].transcribe([final(SPEECH)])[0].words} == {NO_CONFIDENCE}


def test_parakeet_says_how_long_its_pieces_last(engines):
    """Words end with their last piece; 25 languages are known by the model's name."""
    assert len(engines["parakeet"].info.languages) == 25
    words = engines["parakeet"].transcribe([final(SPEECH)])[0].words
    assert {round(word.end - word.start, 2) for word in words[:-1]} <= {0.08, 0.16}
    assert len({word.confidence for word in words}) > 2


def test_languages_come_from_the_model_or_its_name(engines):
    """SenseVoice has four of the contract's; others those in the name of their directory."""
    assert engines["sense"].info.languages == {"zh", "en", "ja", "ko"}
    assert engines["streaming"].info.languages == {"en"}
    assert engines["ctc"].info.languages == {"en", "de"}


def test_a_model_that_cannot_tell_languages_apart_says_so(engines, tmp_path, trusting):
    """A tag or a script tells; of English and German nobody knows which one was heard."""
    assert {name for name, engine in engines.items() if not engine.info.detects} == {"ctc", "parakeet"}
    both = streaming(tmp_path / "zipformer-zh-en")
    assert SherpaEngine.describe(EngineSettings(model=str(both))).detects


def test_the_language_is_what_the_model_says(engines, tmp_path, trusting):
    """SenseVoice's tag counts where it is expected; a model without tags takes the first one expected."""
    assert engines["sense"].transcribe([final(SPEECH)])[0].language == "zh"
    assert engines["sense"].transcribe([final(SPEECH, languages=("en",))])[0].language == "en"
    english = SherpaEngine(EngineSettings(model=str(sense_voice(tmp_path / "english", language="en"))))
    assert english.transcribe([final(SPEECH, languages=("zh", "en"))])[0].language == "en"
    assert engines["ctc"].transcribe([final(SPEECH)])[0].language == "en"
    assert engines["ctc"].transcribe([final(SPEECH, languages=("de", "en"))])[0].language == "de"
    assert engines["ctc"].transcribe([final(SPEECH, languages=("xx",))])[0].language == "en"


@pytest.mark.parametrize(
    ("text", "among", "language"),
    [
        ("HELLO", ("zh", "en"), "en"),
        ("大家早上好", ("en", "zh"), "zh"),
        ("日本のカメラ", ("zh", "ja"), "ja"),
        ("日本", ("en", "ja"), "ja"),
        ("안녕", ("en", "ko"), "ko"),
        ("hello", ("zh",), "zh"),
        ("", ("zh", "en"), "zh"),
        ("大家", ("en", "de"), "en"),
    ],
)
def test_a_script_tells_a_language_where_nothing_else_does(text, among, language):
    """Of those expected, the first one that is written so."""
    assert by_script(text, among) == language


@pytest.mark.parametrize(
    ("tokens", "text", "expected"),
    [
        (["▁HE", "LLO", "▁WORLD"], " HELLO WORLD", [("HELLO", 0.0, 0.2), ("WORLD", 0.2, 0.6)]),
        ([" it", "'", "s", ".", " "], " it's. ", [("it's.", 0.0, 0.4)]),
        (["▁", "no"], "no", [("no", 0.1, 0.5)]),
        (["你", "好", "，", "▁i", "OS"], "你好，iOS", [("你", 0.0, 0.1), ("好，", 0.1, 0.3), ("iOS", 0.3, 0.8)]),  # noqa: RUF001
        (["ที่", "นี่"], "ที่นี่", [("ที่", 0.0, 0.1), ("นี่", 0.1, 0.5)]),
        (["<0xE4>", "<0xBD>", "<0xA0>"], "你", [("你", 0.0, 0.6)]),
        ([], "two words", [("two", 0.0, 0.4), ("words", 0.4, 1.0)]),
        ([], "", []),
    ],
)
def test_words_are_joined_from_pieces(tokens, text, expected):
    """Blanks and scripts without blanks part words, punctuation stays; a text that tokens do not spell is spread."""
    result = SimpleNamespace(text=text, tokens=tokens, timestamps=[nth / 10 for nth in range(len(tokens))])
    said = [(word.text, round(word.start, 2), round(word.end, 2)) for word in timed_words(result, 0.0, 1.0)]
    assert said == expected


@given(
    pieces=st.lists(
        st.sampled_from(["▁a", "b", " ", "▁", "c.", "\uff0c", "你", "的", "ที่", "'s", "<0xE4>", ""]), max_size=12
    ),
    steps=st.lists(st.floats(0.0, 1.0), min_size=12, max_size=12),
    asides=st.booleans(),
    end=st.floats(1.0, 9.0),
)
def test_words_lie_inside_their_piece_of_the_clip(pieces, steps, asides, end):
    """Whatever the pieces and their times, words are in order, say the whole text and have no blanks in them."""
    text = "".join(pieces).replace("▁", " ") + " and more" * asides
    times = np.cumsum(steps[: len(pieces)]).tolist()
    words = timed_words(SimpleNamespace(text=text, tokens=pieces, timestamps=times), 0.5, end)
    edges = [0.5, *(time for word in words for time in (word.start, word.end)), end + 1e-6]
    assert edges == sorted(edges)
    assert "".join(word.text for word in words) == "".join(text.split())
    assert all(word.text and not set(word.text) & {" ", "▁"} for word in words)


def test_a_pieces_own_duration_ends_its_word():
    """Parakeet says how long each piece lasts; log probabilities become confidences, by word."""
    result = SimpleNamespace(
        text="a bc",
        tokens=["▁a", "▁b", "c"],
        timestamps=[0.0, 0.5, 0.6],
        durations=[0.24, 0.1, 0.08],
        ys_log_probs=[np.log(0.5), np.log(0.9), np.log(0.4)],
    )
    first, second = timed_words(result, 1.0, 3.0)
    assert (first.start, round(first.end, 2), round(first.confidence, 2)) == (1.0, 1.24, 0.5)
    assert (second.start, round(second.end, 2), round(second.confidence, 2)) == (1.5, 1.68, 0.6)


JOINED = ("encoder.int8.onnx", "decoder.onnx", "joiner.int8.onnx")
PAIR = ("tiny.en-encoder.onnx", "tiny.en-decoder.onnx")
ONE = ("model.int8.onnx",)
FOUR = ("preprocess.onnx", "encode.int8.onnx", "uncached_decode.int8.onnx", "cached_decode.int8.onnx")
READY = ("encoder_model.ort", "decoder_model_merged.ort")

CACHED = {"cache_last_channel_dim1": "24"}
PROMPTED = CACHED | {"prompt_dictionary": '{"en-US": 0, "en-GB": 1, "de-DE": 3, "auto": 9}'}
RNNT = {"model_type": "EncDecRNNTBPEModel"}
V3 = RNNT | {"url": "https://x.org/nvidia/parakeet-tdt-0.6b-v3"}
ENGLISH_WHISPER = {"model_type": "whisper-tiny.en", "is_multilingual": "0"}
WHISPER = {"model_type": "whisper-tiny", "is_multilingual": "1", "all_language_codes": "en,zh,yue,de"}


@pytest.mark.parametrize(
    ("place", "parts", "facts", "found"),
    [
        ("zipformer-en", JOINED, {"model_type": "zipformer2", "decode_chunk_len": "32"}, ("streaming-transducer", 1)),
        ("nemotron-en", JOINED, CACHED, ("streaming-nemo-transducer", 1)),
        ("multi", JOINED, PROMPTED, ("streaming-nemo-transducer", 2)),
        ("parakeet-unified-en", JOINED, RNNT | {"streaming_model_type": "x"}, ("streaming-nemo-transducer", 1)),
        ("zipformer-ru", JOINED, {"model_type": "zipformer2"}, ("transducer", 1)),
        ("parakeet-tdt-0.6b-v2", JOINED, RNNT, ("nemo-transducer", 1)),
        ("mine", JOINED, V3, ("nemo-transducer", 25)),
        ("any", PAIR, ENGLISH_WHISPER, ("whisper", 1)),
        ("any", PAIR, WHISPER, ("whisper", 3)),
        ("any", PAIR, {"model_type": "EncDecMultiTaskModel"}, ("canary", 4)),
        ("any", ONE, {"model_type": "sense_voice_ctc", "lang_auto": "0"}, ("sense-voice", 4)),
        ("ctc-en", ONE, {"model_type": "EncDecCTCModelBPE"}, ("nemo-ctc", 1)),
        ("ctc-vi", ONE, {"model_type": "zipformer2_ctc"}, ("zipformer-ctc", 1)),
        ("ctc-vi", ONE, {"model_type": "zipformer2_ctc", "decode_chunk_len": "1"}, ("streaming-zipformer-ctc", 1)),
        ("ctc-en", ONE, {"model_type": "EncDecCTCModel", "window_size": "1"}, ("streaming-nemo-ctc", 1)),
        ("moonshine-tiny-en", FOUR, {}, ("moonshine", 1)),
        ("moonshine-base-es", READY, {}, ("moonshine-v2", 1)),
    ],
)
def test_the_type_is_read_from_the_files(tmp_path, place, parts, facts, found):
    """Every type is known by its files' names and by what its exporter wrote, and so are its languages."""
    for part in parts:
        written(tmp_path / place / part, **facts)
    (tmp_path / place / "tokens.txt").write_text("<blk> 0\n", encoding="utf-8")
    model = sherpa_models.find(EngineSettings(model=str(tmp_path / place)), "cpu")
    assert (model.name, len(model.languages)) == found
    assert len(model.files) == len(parts) + 1


FOUND = {"streaming-transducer": {"model_type": "zipformer2", "decode_chunk_len": "32"}, "nemo-transducer": RNNT}
FOUND |= {"streaming-nemo-transducer": CACHED, "canary": {"model_type": "EncDecMultiTaskModel"}}
FOUND |= {"sense-voice": {"lang_auto": "0"}, "moonshine-v2": {}}


@pytest.mark.parametrize("known", SherpaEngine.known(), ids=lambda known: known.name)
def test_a_release_is_what_it_is_said_to_be(known, tmp_path):
    """The files that are fetched of it are those that the engine needs, and give the languages that are listed."""
    kind = next(kind for repository, kind, _ in sherpa._RELEASES if repository == known.repository)
    parts = sherpa_models.KINDS[kind].files
    names = [READY, [f"{part}-epoch-99.int8.onnx" for part in parts]][kind != "moonshine-v2"]
    assert all(any(fnmatch(name, pattern) for pattern in known.files) for name in (*names, "tokens.txt"))
    for name in names:
        written(tmp_path / known.name / name, **(PROMPTED if known.languages is None else FOUND[kind]))
    (tmp_path / known.name / "tokens.txt").write_text("<blk> 0\n", encoding="utf-8")
    model = sherpa_models.find(EngineSettings(model=str(tmp_path / known.name)))
    assert model.name == kind
    assert known.languages in {None, frozenset(model.languages)}


def test_releases_have_names_of_their_own():
    """A name says what is fetched from where, and where it goes."""
    names = [known.name for known in SherpaEngine.known()]
    assert sorted(set(names)) == sorted(names)
    assert all(known.repository.endswith(f"/{known.name}") for known in SherpaEngine.known())


def test_a_model_is_described_before_it_is_loaded(models, engines, monkeypatch):
    """What its files tell is what the engine says of itself later, and the library is not needed for it."""
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    for name, engine in engines.items():
        assert SherpaEngine.describe(EngineSettings(model=str(models[name]))) == engine.info
    with pytest.raises(SetupError, match=r"--device cuda: .* built for the CPU alone"):
        SherpaEngine.describe(EngineSettings(model=str(models["ctc"]), device="cuda"))
    with pytest.raises(SetupError, match=r"no such directory; `vivavoce models list` names some"):
        SherpaEngine.describe(EngineSettings(model="/nowhere/at/all"))


def test_a_note_in_the_directory_goes_before(models, tmp_path):
    """`vivavoce.toml` names the type and the languages."""
    place = streaming(tmp_path / "mine", model_type="lstm")
    (place / "vivavoce.toml").write_text('languages = ["fo", "nl"]\ntype = "streaming-transducer"\n', encoding="utf-8")
    assert sherpa_models.find(EngineSettings(model=str(place)), "cpu").languages == ("fo", "nl")
    wrongs = "language = 'nl'", "type = 'best'", "type = 3", "languages = 'nl'", "languages = [3]", "= 3"
    for wrong in (*wrongs, "languages = ['klingon']", "languages = ['nl', 'English']"):
        (place / "vivavoce.toml").write_text(wrong, encoding="utf-8")
        with pytest.raises(
            SetupError, match=r"vivavoce\.toml(: languages: '(klingon|English)': not among| may have| is not TOML)"
        ) as refused:
            sherpa_models.find(EngineSettings(model=str(place)), "cpu")
        assert "\n" not in str(refused.value)


def test_numbers_are_chosen_by_device(tmp_path):
    """The CPU takes int8 where there is such a file, a GPU does not; a wish goes before."""
    place = tmp_path / "ctc-en"
    for name in ("model.onnx", "model.int8.onnx"):
        written(place / name, model_type="EncDecCTCModelBPE")
    (place / "tokens.txt").write_text("<blk> 0\n", encoding="utf-8")

    def chosen(provider, compute_type="auto"):
        return (
            sherpa_models.find(EngineSettings(model=str(place), compute_type=compute_type), provider)
            .files["model"]
            .name
        )

    assert (chosen("cpu"), chosen("cuda")) == ("model.int8.onnx", "model.onnx")
    assert (chosen("cpu", "float32"), chosen("cuda", "int8")) == ("model.onnx", "model.int8.onnx")
    with pytest.raises(SetupError, match=r"--compute-type float16: .* has float32, int8 alone"):
        chosen("cpu", "float16")
    with pytest.raises(SetupError, match=r"--compute-type int3: .* auto, int8, float16, float32"):
        chosen("cpu", "int3")


ENCODER, JOINER = "encoder-epoch-99-avg-1.onnx", "joiner-epoch-99-avg-1.onnx"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda at: (at / "tokens.txt").unlink(), "has no tokens, which a model of the type streaming-transducer"),
        (
            lambda at: (at / JOINER).unlink(),
            "no model of a known type .its parts: decoder, encoder, tokens; model_type: l",
        ),
        (lambda at: (at / ENCODER).write_bytes(b"\x08\x07" + b"<html>" * 9), "is not a whole ONNX file; get it again"),
        (lambda at: cut(at / ENCODER), "is not a whole ONNX file; get it again"),
        (lambda at: cut(at / JOINER), "cannot be used as streaming-transducer on the CPU: "),
        (lambda at: (at / "tokens.txt").write_text(""), "cannot be used as .*; get it again; `vivavoce "),
        (lambda at: at.rename(at.with_name("nameless")), 'which languages it knows; write languages = ."en".,'),
    ],
)
def test_a_directory_that_is_not_whole_is_refused(tmp_path, change, line):
    """One line names what is missing or damaged, and this process goes on."""
    place = streaming(tmp_path / "model-en")
    change(place)
    place = next(tmp_path.iterdir())
    with pytest.raises(SetupError, match=line) as refused:
        SherpaEngine(EngineSettings(model=str(place)))
    assert "\n" not in str(refused.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def test_a_model_that_ends_the_process_is_refused(tmp_path):
    """The library leaves at once where metadata are missing; the child tells why, and the server lives on."""
    place = streaming(tmp_path / "model-en", T="")
    with pytest.raises(SetupError, match=r"on the CPU: 'T' does not exist in the metadata; get it again; "):
        SherpaEngine(EngineSettings(model=str(place)))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "--engine sherpa-onnx needs a --model: the directory"),
        ({"model": "/nowhere/at/all"}, "there is no such directory"),
        ({"model": "/nowhere", "device": "cuda"}, "--device cuda: .* built for the CPU alone; install its CUDA build"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, line):
    """One line names the setting and what may stand there instead."""
    with pytest.raises(SetupError, match=line) as refused:
        SherpaEngine(EngineSettings(**options))
    assert "\n" not in str(refused.value)


def test_a_gpu_that_is_too_small_is_one_line(models, monkeypatch):
    """With the CUDA build the line says what else to do; where the choice is free, the CPU does it."""
    monkeypatch.setattr(sherpa_models, "version", lambda _: "2.0.1+cuda12.cudnn9")
    monkeypatch.setattr(
        sherpa_models, "_trial", lambda _, provider: ("CUDA out of memory" if provider == "cuda" else None, True)
    )
    line = r"on the CUDA: CUDA out of memory; use a smaller model, or --device cpu$"
    with pytest.raises(SetupError, match=line):
        SherpaEngine(EngineSettings(model=str(models["ctc"]), device="cuda"))
    assert sherpa_models.tried(EngineSettings(model=str(models["ctc"]))).provider == "cpu"


def test_without_the_package_one_line_says_how_to_get_it(models, monkeypatch):
    """The extra is named; the module itself is there without it."""
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    with pytest.raises(SetupError, match=r"sherpa-onnx is not installed; pip install 'vivavoce\[sherpa\]'$"):
        SherpaEngine(EngineSettings(model=str(models["ctc"])))


def test_failures_are_engine_errors_without_what_was_said(models, trusting, monkeypatch):
    """A closed engine says so; an error of the library is named by its kind alone."""
    one = SherpaEngine(EngineSettings(model=str(models["ctc"])))

    class Failing:
        def create_stream(self):
            raise RuntimeError("hello world")

    monkeypatch.setattr(one, "_recognizer", Failing())
    with pytest.raises(EngineError, match=r"^sherpa-onnx failed on a clip \(RuntimeError\)$"):
        one.transcribe([final(SPEECH)])
    one.close()
    with pytest.raises(EngineError, match="closed"):
        one.transcribe([final(SPEECH)])


class Tongued:
    """Stands for a recognizer whose language is a setting: says which one it was set to, and hears Dutch by itself."""

    def __init__(self):
        self.config = SimpleNamespace(model_config=SimpleNamespace(whisper=SimpleNamespace(language="")))
        self.config.model_config.canary = SimpleNamespace(src_lang="", tgt_lang="")
        self.recognizer, self.busy, self.set = self, set(), []

    def set_config(self, config):
        assert not self.busy
        self.set.append(config.model_config.canary.src_lang or config.model_config.whisper.language)

    def create_stream(self):
        return SimpleNamespace(accept_waveform=lambda *_: None, result=None)

    def decode_stream(self, stream):
        self.busy.add(stream_id := id(stream))
        language = self.set[-1]
        stream.result = SimpleNamespace(text=f"in {language}", lang=language or "nl", tokens=[], timestamps=[])
        for _ in range(50):
            time.sleep(0)  # lets other threads on
        assert self.set[-1] == language
        self.busy.remove(stream_id)


def tongued(monkeypatch, engine, name, languages):
    monkeypatch.setattr(
        engine, "_model", SimpleNamespace(kind=sherpa_models.KINDS[name], name=name, languages=languages)
    )
    monkeypatch.setattr(engine, "_recognizer", Tongued())
    monkeypatch.setattr(engine, "info", SimpleNamespace(languages=frozenset(languages)))
    monkeypatch.setattr(engine._model, "spelling", sherpa_models.Spelling(), raising=False)
    return engine


def test_whisper_is_told_a_language_where_it_hears_another(models, trusting, monkeypatch):
    """It detects first, and is made to write one of those expected only if it heard none of them."""
    engine = tongued(monkeypatch, SherpaEngine(EngineSettings(model=str(models["ctc"]))), "whisper", ("en", "nl", "fr"))
    (free,) = engine.transcribe([final(SPEECH)])
    assert (free.language, texts(free)) == ("nl", ["in"])
    assert engine.transcribe([final(SPEECH, languages=("nl",))]) == [free]
    (told,) = engine.transcribe([final(SPEECH, languages=("fr", "en"))])
    assert (told.language, texts(told)) == ("fr", ["in", "fr"])


def test_canary_writes_the_first_language_expected(models, trusting, monkeypatch):
    """It cannot detect: English if nobody says otherwise; calls in several languages at once do not disturb another."""
    engine = tongued(monkeypatch, SherpaEngine(EngineSettings(model=str(models["ctc"]))), "canary", ("en", "de", "fr"))
    assert engine.transcribe([final(SPEECH)])[0].language == "en"
    codes = ["de", "fr", "en"] * 8
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda code: engine.transcribe([final(SPEECH, languages=(code,))])[0], codes))
    assert [texts(each) for each in said] == [["in", code] for code in codes]


@needs_weights
@pytest.mark.parametrize("path", REAL)
def test_a_real_model_writes_what_was_said(path):
    """The words come out in partials and finals, whatever their case."""
    engine = SherpaEngine(EngineSettings(model=path, engine_threads=2))
    wanted = TRANSCRIPTS["two_cities"].lower().replace(",", "").split()[:5]
    for clip in (final(SPEECH, languages=("en",)), partial(SPEECH, languages=("en",))):
        (said,) = engine.transcribe([clip])
        assert wanted[1:] == " ".join(texts(said)).lower().replace(",", "").split()[1:5]
    check_engine(lambda: SherpaEngine(EngineSettings(model=path)), SPEECH)
