"""What is sent to find out what audio costs, and how costs are shown."""

import io

import numpy as np
from rich.console import Console

from vivavoce.bench.conversation import Conversation
from vivavoce.bench.costs import CHANNELS, CHUNKS_S, Cost, Plan, plays
from vivavoce.bench.load import Pacing
from vivavoce.bench.report import costs_table, plot_costs
from vivavoce.model import SAMPLE_RATE

HEADER_BYTES = 8
"""Of a masked frame with up to 64 KiB."""


def talk(nth: int, seconds: float) -> Conversation:
    """Give a conversation whose samples are all the same, and another for each number."""
    return Conversation(samples=np.full(round(seconds * SAMPLE_RATE), (nth + 1) / 64, np.float32), turns=())


def planned(longest_min: float = 1) -> dict[tuple[str, float], object]:
    return {
        (play.grown, play.size): play
        for play in plays(Plan(talk=talk, seconds=1.0, longest_min=longest_min, pacing=Pacing()))
    }


def test_each_thing_is_grown_alone_and_sessions_no_longer_than_asked_for():
    """Chunks, channels, and lengths up to the longest."""
    found = [name for name, _ in planned(longest_min=15)]
    assert found == ["chunk_ms"] * len(CHUNKS_S) + ["channels"] * len(CHANNELS) + ["minutes"] * 2


def test_channels_lie_sample_by_sample_beside_each_other():
    """Every channel has its own conversation, and a chunk as long a piece of each."""
    (chunks,) = planned()["channels", 4].sessions
    samples = np.frombuffer(chunks[0][HEADER_BYTES:], "<i2").reshape(-1, 4)
    assert len(samples) == SAMPLE_RATE // 10
    assert (samples == [512, 1024, 1536, 2048]).all()


def test_a_long_session_is_as_long_as_it_says():
    """What is repeated adds up to the length."""
    play = planned(longest_min=60)["minutes", 60]
    (chunks,) = play.sessions
    assert play.audio_s == 3600
    assert sum(len(chunk) - HEADER_BYTES for chunk in chunks) == 3600 * SAMPLE_RATE * 2


def cost(grown: str, size: float, **parts: float) -> Cost:
    return Cost(grown=grown, size=size, audio_s=10.0, wall_s=5.0, parts={"other": 0.0, **parts}, memory=3 << 20)


def test_costs_are_for_a_second_of_audio(tmp_path):
    """In milliseconds, in the table, the JSON and the plot; what cost nothing has no column."""
    costs = [cost("channels", size, finals=0.2, partials=0.3 * size) for size in (1, 2)]
    costs += [cost("chunk_ms", 20, finals=0.5, partials=0.1), cost("minutes", 1, finals=0.5, partials=0.0)]
    out = io.StringIO()
    Console(file=out, width=100).print(costs_table(costs))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["2", "channels", "80.0", "20.0", "60.0", "3"] in lines
    assert not any("other" in line for line in lines)
    assert costs[1].as_json()["cpu_ms_per_audio_s"] == {"other": 0.0, "finals": 20.0, "partials": 60.0}
    plot_costs(tmp_path / "costs.svg", costs)
    assert "<svg" in (tmp_path / "costs.svg").read_text()
