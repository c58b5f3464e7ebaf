"""The search for the capacity finds the edge of systems that are known to hold so many streams."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.bench.capacity import find_capacity, following
from vivavoce.bench.lags import ACK, COVERAGE, DECISION, FINAL, WORD, Measured
from vivavoce.bench.load import BenchError
from vivavoce.bench.report import plot
from vivavoce.bench.result import Limits, Result, Usage


def result(
    streams: int,
    *,
    word_s: float = 0.5,
    final_s: float = 0.3,
    cost: float = 0.1,
    refused: int = 0,
    problems: int = 0,
    unanswered: int = 0,
    rise_s: float = 0.0,
) -> Result:
    """Give a run of so many streams, all of whose lags are the same."""
    turns = 10 * streams
    return Result(
        streams=streams,
        measured=Measured(
            lags={WORD: [word_s] * 20, FINAL: [final_s] * 20, COVERAGE: [0.2], DECISION: [], ACK: []},
            turns=turns,
            unanswered=unanswered,
            final_trend_s=rise_s,
        ),
        refused=("503",) * refused,
        problems=("closed",) * problems,
        given_up=False,
        late_p99_s=0.0,
        bench_cores=0.0,
        usage=Usage(cpu_s=1.0, cores=1.0, cores_per_stream=cost, memory_mb=1.0, memory_mb_per_stream=1.0, idle=0.5),
    )


def search(edge: int, cost: float, until: float = float("inf")):
    """Search a system that is fast up to `edge` streams."""
    tried: list[int] = []

    def probe(streams, limits):
        assert (limits is None) == (streams == 1)
        tried.append(streams)
        return result(streams, word_s=0.5 if streams <= edge else 0.9, cost=cost)

    return find_capacity(probe, cores=2, until=until, on_result=lambda *_: None), tried


@given(st.integers(1, 400), st.floats(0.001, 3.0))
def test_the_search_ends_at_the_edge_whatever_it_guesses(edge, cost):
    """What is found did hold, and a sixteenth more did not, after few probes and none of them twice."""
    found, tried = search(edge, cost)
    assert found.complete
    assert found.streams <= edge < found.streams + max(found.streams // 16, 1) + 1
    assert found.streams in tried
    assert len(set(tried)) == len(tried) <= 25
    assert all(streams > edge for streams in found.failures)


def test_a_search_without_time_tells_so():
    """What held so far is given, and that it may be too low."""
    found, tried = search(40, 0.1, until=time.monotonic() - 1)
    assert tried == [1]
    assert (found.streams, found.complete) == (1, False)


@pytest.mark.parametrize("broken", [{"refused": 1}, {"problems": 1}, {"word_s": float("nan")}])
def test_a_system_that_does_not_even_hold_one_stream_is_an_error(broken):
    """No ratio is made of nothing."""
    with pytest.raises(BenchError, match="not even one stream"):
        find_capacity(lambda *_: result(1, **broken), cores=2, until=float("inf"), on_result=lambda *_: None)


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        ({"word_s": 0.81}, "word lag p95 810 > 800 ms"),
        ({"final_s": 0.61}, "final lag p95 610 > 600 ms"),
        ({"refused": 1}, "refused: 503"),
        ({"problems": 1}, "problems: closed"),
        ({"unanswered": 5}, "5 of 40 turns unanswered"),
        ({"rise_s": 0.31}, "backlog grows"),
    ],
)
def test_each_part_of_the_rule_can_fail_a_run(worse, says):
    """A run at the limits holds, and one beyond any of them does not, and says which."""
    limits = Limits.of(result(1))
    assert limits.broken(result(4, word_s=0.8, final_s=0.6, rise_s=0.3, unanswered=1)) == []
    assert [reason for reason in limits.broken(result(4, **worse)) if says in reason]


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_next_number_lies_between_what_held_and_what_failed(held, gap):
    """The search only ever narrows, or ends."""
    following_number = following(held, held + gap)
    assert following_number is None or held < following_number < held + gap
    assert following(held, None) > held


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_what_was_found_is_drawn(tmp_path, ending):
    """Lags against streams, each system in a colour of its own, in the form that the file's name asks for."""
    path = tmp_path / f"bench.{ending}"
    plot(
        path,
        {"vivavoce": [result(1), result(2, word_s=0.7)], "moonshine": [result(1)]},
        {"vivavoce": Limits.of(result(1))},
    )
    drawn = path.read_bytes()
    assert drawn.startswith({"svg": b"<?xml", "png": b"\x89PNG"}[ending])
