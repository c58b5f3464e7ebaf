"""What scenarios make of a run."""

from __future__ import annotations

import os

from vivavoce.bench.load import Run
from vivavoce.bench.scenarios import cores_of_others
from vivavoce.bench.usage import Look


def look(at: float, *, cpu_s: float, idle_s: float) -> Look:
    return Look(at=at, cpu_s=cpu_s, memory=0, machine_s=at * CORES, machine_idle_s=idle_s)


CORES = os.cpu_count() or 1


def test_what_other_processes_take_is_told_from_what_the_server_and_the_bench_use() -> None:
    """All that is neither idle nor theirs, in cores; not known where nobody looked."""
    looks = [look(0.0, cpu_s=0.0, idle_s=0.0), look(10.0, cpu_s=2.0, idle_s=10.0 * CORES - 7.0)]
    assert cores_of_others(Run(looks=looks, bench_cpu_s=1.0, wall_s=10.0)) == 0.4
    assert cores_of_others(Run(looks=looks, bench_cpu_s=6.0, wall_s=10.0)) == 0.0
    assert cores_of_others(Run()) is None
