"""What a process and all its children use of the machine, and how much of the machine is idle."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What was used between two looks: seconds of CPU and of clock, bytes of memory, share of all cores idle."""

    cpu_s: float
    wall_s: float
    memory: int
    idle: float

    @property
    def cores(self) -> float:
        """Cores in use, on average."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The state of a process tree at one moment."""

    at: float
    cpu_s: float
    memory: int
    machine_s: float
    machine_idle_s: float

    def since(self, earlier: Look) -> Used:
        """Give what was used since an earlier look; memory is that of now."""
        machine_s = self.machine_s - earlier.machine_s
        return Used(
            cpu_s=self.cpu_s - earlier.cpu_s,
            wall_s=self.at - earlier.at,
            memory=self.memory,
            idle=(self.machine_idle_s - earlier.machine_idle_s) / machine_s if machine_s > 0 else 0.0,
        )


def look(pid: int) -> Look:
    """Look at a process and its children; what has ended counts nothing."""
    cpu_s, memory = 0.0, 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                cpu_s += times.user + times.system
                memory += process.memory_info().rss
    machine = psutil.cpu_times()
    return Look(
        at=time.monotonic(),
        cpu_s=cpu_s,
        memory=memory,
        machine_s=sum(machine) - getattr(machine, "guest", 0.0) - getattr(machine, "guest_nice", 0.0),
        machine_idle_s=machine.idle + getattr(machine, "iowait", 0.0),
    )
