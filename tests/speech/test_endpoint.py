"""Segments from probabilities and loudness: arithmetic, no audio."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.model import SAMPLE_RATE
from vivavoce.speech.audio import FRAME
from vivavoce.speech.endpoint import (
    BACKDATE,
    BLOCKS,
    FORESIGHT,
    SHORTEST,
    Closed,
    Endpointer,
    Foreseen,
    Mark,
    Opened,
    Paused,
)

LOUD, QUIET = -20.0, -70.0
SILENCE, MAXIMUM = SAMPLE_RATE // 4, 5 * SAMPLE_RATE


def run(frames: list[tuple[float, float]], *, silence: int = SILENCE, maximum: int = MAXIMUM) -> list[tuple[int, Mark]]:
    """Feed (probability, level) frames; give each mark with the sample position at which it was decided."""
    endpointer = Endpointer(threshold=0.6, silence=silence, maximum=maximum)
    decided = []
    for probability, level in [(0.0, QUIET), *frames]:
        marks = endpointer.step(probability, [level] * BLOCKS)
        decided += [(endpointer.at, mark) for mark in marks]
    return decided + [(endpointer.at, mark) for mark in endpointer.cut()]


def closed(decided: list[tuple[int, Mark]]) -> list[Closed]:
    return [mark for _, mark in decided if isinstance(mark, Closed)]


def test_speech_between_silences_is_one_segment() -> None:
    """A segment runs from the first frame of speech to the last loud one."""
    marks = closed(run([(0.9, LOUD)] * 20 + [(0.0, QUIET)] * 20))
    assert marks == [Closed(onset=FRAME, end=21 * FRAME, forced=False)]


def test_silence_counts_from_the_end_of_the_signal() -> None:
    """The delay of voice activity is not paid again on top of the silence."""
    late = [(0.9, LOUD)] * 20 + [(0.9, QUIET)] * 7 + [(0.0, QUIET)] * 20
    (at, mark) = next((at, mark) for at, mark in run(late) if isinstance(mark, Closed))
    assert mark.end == 21 * FRAME
    assert SILENCE <= at - mark.end < SILENCE + FRAME


def test_backdating_is_bounded() -> None:
    """Speech that was quiet for long before voice activity let go is not given up."""
    (mark,) = closed(run([(0.9, LOUD)] * 20 + [(0.9, QUIET)] * 60 + [(0.0, QUIET)] * 20))
    assert mark.end == 81 * FRAME - BACKDATE


def test_hysteresis_keeps_a_segment_together() -> None:
    """Between the thresholds speech goes on, and silence does too."""
    marks = closed(run([(0.9, LOUD)] * 10 + [(0.4, LOUD)] * 30 + [(0.9, LOUD)] * 10 + [(0.0, QUIET)] * 20))
    assert [mark.end - mark.onset for mark in marks] == [50 * FRAME]
    assert run([(0.5, LOUD)] * 50) == []


def test_a_pause_shorter_than_the_silence_does_not_close() -> None:
    """Speech that comes back in time goes on in the same segment."""
    pause = [(0.1, QUIET)] * (SILENCE // FRAME - 1)
    assert len(closed(run([(0.9, LOUD)] * 10 + pause + [(0.9, LOUD)] * 10 + [(0.0, QUIET)] * 20))) == 1


def test_a_possible_end_is_told_before_it_is_certain() -> None:
    """`Paused` comes once a tenth of a second is quiet, with the end that the segment then closes with."""
    marks = run([(0.9, LOUD)] * 20 + [(0.9, QUIET)] * 5 + [(0.0, QUIET)] * 20)
    told = [(at, mark) for at, mark in marks if isinstance(mark, Paused)]
    assert [mark.end for _, mark in told] == [21 * FRAME]
    assert told[0][0] - 21 * FRAME < SAMPLE_RATE // 10 + FRAME
    assert closed(marks)[0].end == 21 * FRAME


def test_a_tenth_of_a_second_is_needed() -> None:
    """A click that voice activity takes for speech is no segment and is never announced."""
    assert run([(0.9, LOUD)] * 3 + [(0.9, QUIET)] * 5 + [(0.0, QUIET)] * 40) == []
    assert 3 * FRAME < SHORTEST < 4 * FRAME


def test_a_long_segment_is_cut_at_its_quietest_moment() -> None:
    """The cut lies in a dip near the end, and the next segment starts there."""
    speech = [(0.9, LOUD)] * 140 + [(0.9, LOUD - 12)] * 2 + [(0.9, LOUD)] * 100 + [(0.0, QUIET)] * 20
    first, second = closed(run(speech))
    assert first.forced
    assert 141 * FRAME <= first.end <= 143 * FRAME
    assert first.end - first.onset <= MAXIMUM
    assert second.onset == first.end
    assert not second.forced


def test_a_cut_is_foretold_where_nothing_quieter_follows() -> None:
    """`Foreseen` comes before the cut is due, once, with the place where the segment is then cut."""
    marks = run([(0.9, LOUD)] * 140 + [(0.9, LOUD - 12)] * 2 + [(0.9, LOUD)] * 40)
    ((told_at, told),) = [(at, mark) for at, mark in marks if isinstance(mark, Foreseen)]
    cut_at, cut = next((at, mark) for at, mark in marks if isinstance(mark, Closed))
    assert cut.forced
    assert told.end == cut.end
    assert FORESIGHT - FRAME < cut_at - told_at <= FORESIGHT


def test_steady_noise_does_not_hide_the_end() -> None:
    """Over a background that is only 15 dB quieter than speech the end of the signal is still found."""
    noisy = [(0.0, LOUD - 15)] * 40 + [(0.9, LOUD)] * 30 + [(0.9, LOUD - 15)] * 6 + [(0.0, LOUD - 15)] * 30
    (mark,) = closed(run(noisy))
    assert mark.end == 71 * FRAME


frames = st.lists(st.tuples(st.floats(0, 1), st.floats(-90, 0)), max_size=400)


@given(frames=frames, silence=st.integers(1, SAMPLE_RATE), seconds=st.integers(1, 6))
def test_segments_alternate_and_never_overlap(frames: list[tuple[float, float]], silence: int, seconds: int) -> None:
    """Every `Opened` has one `Closed` with its onset; segments are in order and no longer than allowed."""
    maximum = seconds * SAMPLE_RATE
    decided = run(frames, silence=silence, maximum=maximum)
    marks = [mark for _, mark in decided if isinstance(mark, Opened | Closed)]
    assert len(marks) % 2 == 0
    before = 0
    for opened, end in zip(marks[::2], marks[1::2], strict=True):
        assert isinstance(opened, Opened)
        assert isinstance(end, Closed)
        assert end.onset == opened.onset >= before
        assert 0 < end.end - end.onset < maximum + FRAME
        before = end.end
