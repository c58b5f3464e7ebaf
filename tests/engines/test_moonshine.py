"""The default engine on the recordings of the moonshine-voice wheel."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from recordings import TRANSCRIPTS, recording_path, wheel_recording
from vivavoce.engines import moonshine_model
from vivavoce.engines.loops import looped
from vivavoce.engines.moonshine import MoonshineEngine, read_pieces
from vivavoce.errors import EngineError
from vivavoce.model import SAMPLE_RATE, Clip
from vivavoce.plugins import EngineSettings

TWO_CITIES = TRANSCRIPTS["two_cities"]
CITIES = wheel_recording("two_cities")
# Stretches of speech between pauses, in seconds from the start.
PHRASES = {
    "cities": CITIES[: 5 * SAMPLE_RATE],
    "clone": wheel_recording("clone-test"),
    "nell": wheel_recording("endgame_nagg_nell")[: 6 * SAMPLE_RATE],
    "beckett": wheel_recording("beckett")[: 4 * SAMPLE_RATE],
}


@pytest.fixture(scope="module")
def engine():
    built = MoonshineEngine()
    yield built
    built.close()


def final(samples):
    return Clip(key="f", samples=samples, final=True)


def partial(samples, key="p"):
    return Clip(key=key, samples=samples, final=False)


def text(hypothesis):
    return " ".join(word.text for word in hypothesis.words)


def plain(said):
    return re.findall(r"[a-z']+", said.lower())


def word_errors(reference, said):
    """Give the fewest words to insert, delete or replace."""
    row = list(range(len(plain(said)) + 1))
    for i, wanted in enumerate(plain(reference), 1):
        above = row
        row = [i]
        for j, got in enumerate(plain(said), 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (wanted != got)))
    return row[-1]


@pytest.fixture(scope="module")
def alone(engine):
    """Give the finals of all phrases, each decoded before anything else ran beside it."""
    return {name: engine.transcribe([final(samples)])[0] for name, samples in PHRASES.items()}


def test_finals_are_right(alone):
    """Clear speech comes out in the words that were said."""
    assert plain(text(alone["cities"]))[:12] == plain(TWO_CITIES)[:12]
    assert word_errors("I do. I think that America could do it very well.", text(alone["clone"])) <= 1
    assert plain(text(alone["beckett"]))[:4] == plain(TRANSCRIPTS["beckett"])[:4]
    assert all(hypothesis.language == "en" for hypothesis in alone.values())


def test_a_minute_is_heard_to_its_end(engine):
    """A clip of 60 s, with a minute's known text, has few errors and does not stop half-way."""
    samples = np.concatenate([CITIES, CITIES])[: 60 * SAMPLE_RATE]
    said = text(engine.transcribe([final(samples)])[0])
    once = word_errors(TWO_CITIES, " ".join(plain(said)[: len(plain(TWO_CITIES))]))
    assert once <= 0.1 * len(plain(TWO_CITIES))
    assert len(plain(said)) > len(plain(TWO_CITIES)) + 25


def test_word_times_and_confidences_are_in_bounds(alone):
    """Words lie in order inside their clip, and each confidence is in (0, 1]."""
    for name, hypothesis in alone.items():
        times = [time for word in hypothesis.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0.0
        assert times[-1] <= len(PHRASES[name]) / SAMPLE_RATE + 1e-6
        assert all(0.0 < word.confidence <= 1.0 for word in hypothesis.words)
        assert all(word.text == word.text.strip() != "" for word in hypothesis.words)
    assert np.mean([word.confidence for word in alone["cities"].words]) > 0.8


def test_a_final_does_not_depend_on_its_partials(engine, alone):
    """A final after many partials under its key is the final without them, to the last bit of its confidences."""
    samples = PHRASES["clone"]
    for stop in range(4_800, len(samples), 4_800):
        engine.transcribe([Clip(key="f", samples=samples[:stop], final=False)])
    assert engine.transcribe([final(samples)]) == [alone["clone"]]
    engine.release("f")


def test_a_final_does_not_depend_on_its_neighbours(engine, alone):
    """Finals and partials in one call leave each final as it is alone, and answers keep the order of the clips."""
    mixed = [clip for name, samples in PHRASES.items() for clip in (partial(samples[:40_000], name), final(samples))]
    assert engine.transcribe(mixed)[1::2] == list(alone.values())
    for name in PHRASES:
        engine.release(name)


def test_a_final_does_not_depend_on_other_threads(engine, alone):
    """Four callers at once get what each would get alone."""
    work = list(PHRASES) * 3
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: engine.transcribe([final(PHRASES[name])])[0], work))
    assert answers == [alone[name] for name in work]


def test_a_final_does_not_depend_on_the_number_of_threads(alone):
    """Two computing threads write the same words as one."""
    two = MoonshineEngine(EngineSettings(engine_threads=2))
    assert {name: text(two.transcribe([final(PHRASES[name])])[0]) for name in PHRASES} == {
        name: text(hypothesis) for name, hypothesis in alone.items()
    }
    two.close()


def stream(engine, samples, key):
    """Give the texts of partials at steps of 0.3 s."""
    stops = range(4_800, len(samples) + 1, 4_800)
    said = [text(engine.transcribe([partial(samples[:stop], key)])[0]) for stop in stops]
    engine.release(key)
    return said


def test_drafts_save_steps_and_keep_the_words(engine, alone, monkeypatch):
    """Partials in a row need far fewer passes than fresh ones, and the last one says what the final says."""
    passes = []
    run = moonshine_model._run
    monkeypatch.setattr(moonshine_model, "_run", lambda *inputs: passes.append(1) or run(*inputs))
    samples = PHRASES["cities"]
    drafted = stream(engine, samples, "d")
    with_drafts = len(passes)
    passes.clear()
    for stop in range(4_800, len(samples) + 1, 4_800):
        engine.transcribe([partial(samples[:stop])])
        engine.release("p")
    assert with_drafts < 0.75 * len(passes)
    assert word_errors(text(alone["cities"]), drafted[-1]) <= 2


def test_partials_in_a_batch_say_what_they_say_alone(engine):
    """Partials of unequal lengths in one call, drafts included, differ from lone ones in few words."""
    rows = {f"b{stop}": CITIES[:stop] for stop in range(48_000, 80_000, 4_000)}
    for _ in range(2):
        together = engine.transcribe([partial(samples, key) for key, samples in rows.items()])
    errors = words = 0
    for key, hypothesis in zip(rows, together, strict=True):
        engine.release(key)
        said = text(engine.transcribe([partial(rows[key], key)])[0])
        engine.release(key)
        errors += word_errors(said, text(hypothesis))
        words += len(plain(said))
    assert words > 40
    # One of these clips ends within a word, on which the model repeats itself in one way or another.
    assert errors <= words // 5


def test_complete_spans_of_a_long_partial_do_not_change(engine):
    """What was said before a cut is decoded once: later partials repeat its words exactly."""
    early, late = (engine.transcribe([partial(CITIES[: s * SAMPLE_RATE])])[0].words for s in (22, 26))
    engine.release("p")
    settled = [word for word in early if word.end < 10.0]
    assert len(settled) > 15
    assert list(late[: len(settled)]) == settled


def test_release_forgets(engine):
    """Nothing is kept under a released key, released keys may be unknown, and finals keep nothing."""
    engine.transcribe([partial(PHRASES["clone"]), Clip(key="other", samples=PHRASES["clone"], final=True)])
    assert set(engine._drafts) == {"p"}
    engine.release("p")
    engine.release("never seen")
    assert engine._drafts == {}


def test_a_release_during_a_partial_wins(engine, monkeypatch):
    """A key released while its partial is being decoded is not kept afterwards."""
    run = moonshine_model._run

    def release_midway(*inputs):
        engine.release("p")
        return run(*inputs)

    monkeypatch.setattr(moonshine_model, "_run", release_midway)
    assert engine.transcribe([partial(PHRASES["clone"])])[0].words
    assert engine._drafts == {}


@pytest.mark.parametrize("size", [0, 1, 894, 895, 1_599, 1_600, 2_000])
@pytest.mark.parametrize("is_final", [True, False])
def test_the_shortest_clips_are_no_error(engine, size, is_final):
    """Any length works; below a tenth of a second there are no words."""
    clip = Clip(key="short", samples=CITIES[16_000 : 16_000 + size], final=is_final)
    (hypothesis,) = engine.transcribe([clip])
    engine.release("short")
    assert size >= 1_600 or hypothesis.words == ()


@pytest.mark.parametrize("seconds", [0.5, 5, 15])
def test_noise_never_runs_away(engine, seconds):
    """Silence and noise give a short text at most, for loops are cut; hum, which the model notes as music, none."""
    size = int(seconds * SAMPLE_RATE)
    hum = 0.05 * np.sin(2 * np.pi * 50 * np.arange(size) / SAMPLE_RATE).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.01, size).astype(np.float32)
    quiet, noisy, humming = engine.transcribe([final(np.zeros(size, np.float32)), final(noise), final(hum)])
    assert len(quiet.words) <= 2
    assert len(noisy.words) <= 20
    assert humming.words == ()


def test_no_clips_give_no_hypotheses(engine):
    """An empty call is fine."""
    assert engine.transcribe([]) == []


def test_a_failing_model_is_an_engine_error(monkeypatch):
    """The runtime's own error is the cause, and no text or audio is in the message."""
    broken = MoonshineEngine()
    broken._model._decoder = broken._model._encoder
    with pytest.raises(EngineError, match="speech model failed") as caught:
        broken.transcribe([final(PHRASES["clone"])])
    assert caught.value.__cause__ is not None


def test_a_closed_engine_says_so():
    """After `close` a call is an `EngineError`, not a crash."""
    closed = MoonshineEngine()
    closed.close()
    closed.release("p")
    with pytest.raises(EngineError, match="closed"):
        closed.transcribe([final(PHRASES["clone"])])


def test_loops_are_found_by_their_repeats():
    """A phrase three or four times in a row is a loop once it is long enough; a little repetition is speech."""
    assert looped([5, 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8, 9]) == 9
    assert looped([5, 5, 5, 5, 5, 5, 5, 5]) == 7
    assert looped([1, 2, 1, 2, 1, 2]) == 0
    assert looped([5, 5, 5, 5]) == 0
    assert looped([7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8]) == 0
    assert looped([1, 2, 3, 4, 5, 6] * 3) == 12
    assert looped([1, 2, 3, 4, 5] * 3) == 0
    assert looped([]) == 0


def test_pieces_spell_any_text():
    """The vocabulary has all tokens in order; text cut into its pieces and joined again is the text."""
    pieces = read_pieces(recording_path("beckett").parent / "tiny-en" / "tokenizer.bin")
    assert len(pieces) == 32_768
    assert pieces[:3] == [b"", b"", b""]
    known = {piece for piece in pieces if piece}
    rest, cut = " It was the best of times — naïve café, isn't it? ♪".encode(), []
    while rest:
        cut.append(next(rest[:size] for size in range(len(rest), 0, -1) if rest[:size] in known))
        rest = rest[len(cut[-1]) :]
    assert b"".join(cut).decode() == " It was the best of times — naïve café, isn't it? ♪"
    assert len(cut) < 30


def test_lengths_of_two_bytes_are_read(tmp_path):
    """Pieces of 128 bytes and more have a length of two bytes; an empty piece has length 0."""
    long = b"x" * 300
    (tmp_path / "t.bin").write_bytes(b"\x01a\x01b\x01c\x00\x01d" + bytes([300 % 128 + 128, 300 // 128]) + long)
    assert read_pieces(tmp_path / "t.bin") == [b"", b"", b"", b"", b"d", long]


def test_loading_does_not_import_the_package_that_carries_the_weights():
    """The weights' package stays unimported: it would load its native library."""
    code = "import sys, vivavoce.engines.moonshine as m; m.MoonshineEngine(); print('moonshine_voice' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_of_a_final_the_engine_tells_how_likely_other_texts_are(engine):
    """What the model wrote has even odds against itself, another name has worse ones, and what `mend` gives is said."""
    asked = []

    def mend(words, language, weigh):
        own = [word.text for word in words]
        asked.append((language, weigh([" ".join(own), " ".join(["Thessaloniki", *own[1:]])])))
        return words[:2]

    clip = replace(final(PHRASES["clone"]), mend=mend)
    (mended,) = engine.transcribe([clip])
    (plainly,) = engine.transcribe([final(PHRASES["clone"])])
    assert mended.words == plainly.words[:2]
    ((language, (same, other)),) = asked
    assert language == "en"
    assert same == pytest.approx(0.0, abs=0.5)
    assert other < -5


def test_partials_and_clips_without_words_are_not_mended(engine):
    """Only a final's text is decided on, and there is nothing to ask about without one."""

    def mend(words, language, weigh):
        raise AssertionError(words)

    engine.transcribe([replace(partial(PHRASES["clone"]), mend=mend)])
    engine.release("p")
    engine.transcribe([replace(final(np.zeros(160, np.float32)), mend=mend)])
