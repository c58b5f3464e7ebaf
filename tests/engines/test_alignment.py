"""Word times by forced alignment, on real speech."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vivavoce.engines import alignment
from vivavoce.engines.alignment import PocketSphinxAligner
from vivavoce.model import SAMPLE_RATE, Samples


def _script(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


word_edges = _script("word_edges")

TWO_CITIES = [
    (0.99, 4.90, "It was the best of times, it was the worst of times."),
    (4.80, 6.56, "It was the age of wisdom,"),
    (6.43, 8.54, "It was the age of foolishness,"),
    (8.58, 10.62, "it was the epoch of belief,"),
    (10.53, 13.12, "it was the epoch of incredulity,"),
    (17.31, 20.80, "it was the spring of hope, it was the winter of despair,"),
    (20.99, 24.35, "we had everything before us, we had nothing before us,"),
    (28.86, 32.64, "In short, the period was so far like the present period,"),
    (
        32.51,
        41.98,
        "that some of its noisiest authorities insisted on its being received, for good or for evil, "  # noqa: ISC004
        "in the superlative degree of comparison only.",
    ),
]
"""Where phrases of the recording lie, in seconds with some silence at both ends, and what is said there."""

Times = list[tuple[float, float]]


@pytest.fixture(scope="module")
def aligner() -> PocketSphinxAligner:
    return PocketSphinxAligner()


def _clip(samples: Samples, start_s: float, end_s: float) -> Samples:
    return samples[int(start_s * SAMPLE_RATE) : int(end_s * SAMPLE_RATE)]


def _check(times: Times | None, words: list[str], clip: Samples) -> None:
    assert times is not None
    assert len(times) == len(words)
    edges = [edge for pair in times for edge in pair]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= len(clip) / SAMPLE_RATE


def test_boundaries_beside_pauses_lie_at_the_edges_of_the_sound(
    aligner: PocketSphinxAligner, two_cities: Samples
) -> None:
    """Word boundaries beside pauses are within 60 ms (median) and 100 ms (nine in ten) of the signal's own edges."""
    errors: list[float] = []
    for start, end, text in TWO_CITIES:
        clip = _clip(two_cities, start, end)
        words = text.split()
        times = aligner.align(clip, words)
        _check(times, words, clip)
        assert times is not None
        timed = [(word, *span) for word, span in zip(words, times, strict=True)]
        errors += word_edges.edge_errors(timed, word_edges.pauses(clip))
    assert len(errors) >= 15
    assert np.median(errors) <= 0.060
    assert np.percentile(errors, 90) <= 0.100


def test_a_short_tail_of_silence_is_not_taken_into_the_last_word(
    aligner: PocketSphinxAligner, two_cities: Samples
) -> None:
    """A clip that ends 0.1 s after its speech, as finals do, has its last word end where the longer clip has it."""
    start, _, text = TWO_CITIES[1]
    long = aligner.align(_clip(two_cities, start, 6.56), text.split())
    assert long is not None
    short = aligner.align(_clip(two_cities, start, start + long[-1][1] + 0.1), text.split())
    assert short is not None
    assert short[-1][1] == pytest.approx(long[-1][1], abs=0.04)


def test_times_do_not_depend_on_what_was_aligned_before(two_cities: Samples, endgame: Samples) -> None:
    """The same clip and words get the same times, to the bit, from a fresh aligner and from one that has worked."""
    fresh, worn = PocketSphinxAligner(), PocketSphinxAligner()
    noise = np.random.default_rng(5).normal(0, 0.2, 3 * SAMPLE_RATE).astype(np.float32)
    for start, end, text in TWO_CITIES[:6]:
        clip = _clip(two_cities, start, end)
        worn.align(_clip(endgame, 0.0, 1.4), ["Do", "you", "hear", "me?"])
        worn.align(noise, ["zyxquil", "noise"])
        assert fresh.align(clip, text.split()) == worn.align(clip, text.split())


def test_a_decoder_that_knows_enough_words_is_replaced_without_a_trace(
    two_cities: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: past the limit of words a fresh decoder gives the same times."""
    start, end, text = TWO_CITIES[0]
    clip, words = _clip(two_cities, start, end), text.split()
    aligner = PocketSphinxAligner()
    expected = aligner.align(clip, words)
    monkeypatch.setattr(alignment, "KNOWN_WORDS", 2)
    for phrase_start, phrase_end, phrase in TWO_CITIES[1:4]:
        aligner.align(_clip(two_cities, phrase_start, phrase_end), phrase.split())
        assert len(aligner._searches[0]._tokens) <= 8
    assert aligner.align(clip, words) == expected


def test_every_given_word_gets_a_time(aligner: PocketSphinxAligner, two_cities: Samples) -> None:
    """Punctuation standing alone has no length; numbers, hyphens and unknown words are aligned as they are said."""
    start, end, _ = TWO_CITIES[1]
    clip = _clip(two_cities, start, end)
    words = ["—", "It", "was", "the", "-", "age", "of", "wizdumm", "..."]
    times = aligner.align(clip, words)
    _check(times, words, clip)
    assert times is not None
    plain = aligner.align(clip, ["It", "was", "the", "age", "of", "wisdom"])
    assert plain is not None
    assert times[0][0] == times[0][1]
    assert times[4][0] == times[4][1]
    assert times[7] == pytest.approx(plain[5], abs=0.05)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(0, np.float32), ["hello"]),
        (np.zeros(SAMPLE_RATE, np.float32), ["hello"]),
        (np.full(SAMPLE_RATE, 1e-5, np.float32), ["hello"]),
        (np.full(SAMPLE_RATE, np.nan, np.float32), ["hello"]),
        (np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE).astype(np.float32), []),
        (np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE).astype(np.float32), ["—", ""]),
        (np.random.default_rng(1).normal(0, 0.1, SAMPLE_RATE).astype(np.float32), ["incomprehensibilities"] * 4),
        (np.random.default_rng(1).normal(0, 0.1, 91 * SAMPLE_RATE).astype(np.float32), ["hello"]),
    ],
    ids=["empty", "silence", "near silence", "not a number", "no words", "nothing said", "too many words", "too long"],
)
def test_what_cannot_be_aligned_gets_none(aligner: PocketSphinxAligner, samples: Samples, words: list[str]) -> None:
    """Silence, no words, more words than fit, and clips past the limit are refused at once."""
    assert aligner.align(samples, words) is None


def test_a_minute_of_speech_is_aligned(aligner: PocketSphinxAligner, two_cities: Samples, two_cities_text: str) -> None:
    """The longest utterances work: a reading of 44 s in one piece, last word included."""
    words = two_cities_text.split()
    clip = _clip(two_cities, 0.8, 43.0)
    times = aligner.align(clip, words)
    _check(times, words, clip)
    assert times is not None
    assert times[-1][1] + 0.8 == pytest.approx(41.7, abs=0.3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["it", "was", "WISDOM,", "$5", "—", "zqx", "1984"]), max_size=12), st.data())
def test_any_words_give_ordered_times_or_none(
    aligner: PocketSphinxAligner, two_cities: Samples, words: list[str], data: st.DataObject
) -> None:
    """Wrong words over any piece of speech give None, or one span a word, in order and inside the clip."""
    start = data.draw(st.integers(0, 40 * SAMPLE_RATE))
    clip = two_cities[start : start + data.draw(st.integers(0, 3 * SAMPLE_RATE))]
    times = aligner.align(clip, words)
    if times is not None:
        _check(times, words, clip)


def test_pauses_are_found_between_known_bursts() -> None:
    """Edges of a synthetic signal are found within a step; short gaps and faint clicks make no pause and no edge."""
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE) * 0.3).astype(np.float32)
    sound = np.zeros(5 * SAMPLE_RATE, np.float32)
    sound[SAMPLE_RATE : 2 * SAMPLE_RATE] = tone
    sound[int(1.5 * SAMPLE_RATE) : int(1.55 * SAMPLE_RATE)] = 0
    sound[int(2.3 * SAMPLE_RATE) : int(2.35 * SAMPLE_RATE)] = 0.02
    sound[3 * SAMPLE_RATE : 4 * SAMPLE_RATE] = tone
    found = word_edges.pauses(sound)
    assert [edge for pause in found for edge in pause] == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.011)


def test_errors_are_measured_on_both_sides_of_a_pause() -> None:
    """Each pause gives the distance of the word before it and of the word after it; the ends have one side only."""
    words = [("a", 1.02, 1.5), ("b", 1.5, 1.95), ("c", 3.1, 4.0)]
    assert word_edges.edge_errors(words, [(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)]) == pytest.approx([0.02, 0.05, 0.1, 0.0])
    stretched = [("a", 1.0, 2.9), ("c", 3.0, 4.0)]
    assert max(word_edges.edge_errors(stretched, [(2.0, 3.0)])) == pytest.approx(0.9)
