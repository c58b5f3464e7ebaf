"""What a seed stands for: a client, a recording, a pace, and what befalls each of its connections."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from faults.clients import CLIENTS, Pace, available
from faults.proxy import Fault, Kind
from recordings import pcm16, wheel_recording
from vivavoce.model import SAMPLE_RATE

BYTES_PER_S = 2 * SAMPLE_RATE
NOISE = 0.003
"""Amplitude of the noise in every recording: inaudible, and no two stretches of bytes are alike."""

RECORDINGS = ("beckett", "clone-test", "two_cities", "endgame_nagg_nell")
LONGEST_S = 8
MAX_CONNECTIONS_HIT = 5
SHARE = {Kind.RESET: 4, Kind.CLOSE: 2, Kind.HALF_OPEN: 2, Kind.LATE: 2, Kind.DEAF: 4}
NUISANCES = (Kind.STALL, Kind.SLOW, Kind.TINY)


@cache
def speech(number: int) -> bytes:
    """Give noisy speech as 16-bit PCM at 16 kHz: a few seconds of one of the recordings."""
    rng = np.random.default_rng(number)
    samples = wheel_recording(RECORDINGS[number % len(RECORDINGS)])
    length = min(int(rng.uniform(3, LONGEST_S) * SAMPLE_RATE), len(samples))
    start = int(rng.integers(0, len(samples) - length + 1))
    return pcm16(samples[start : start + length] + NOISE * rng.standard_normal(length).astype(np.float32))


SPEECHES = 12
"""How many different ones are used, so that each undisturbed run serves many schedules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One run; two with the same seed are alike as far as a network and two processes can be."""

    seed: int
    client: str
    speech: int
    pace: Pace
    plans: tuple[tuple[Fault, ...], ...]

    def __str__(self) -> str:
        """Tell all of it, one connection a line."""
        speed = self.pace.chunks_per_s * self.pace.chunk / BYTES_PER_S
        told = f"seed {self.seed}: {self.client}, speech {self.speech} ({len(speech(self.speech))} bytes)"
        lines = [f"{told}, chunks of {self.pace.chunk}, {speed:.1f} times real time"]
        for number, plan in enumerate(self.plans):
            faults = (f"{fault.kind} at {fault.at} for {fault.lasts_s:.2f} s size {fault.size}" for fault in plan)
            lines.append(f"  socket {number}: " + "; ".join(faults))
        return "\n".join(lines)


def schedule(seed: int) -> Schedule:
    """Give the schedule of a seed; a client that this machine cannot run is replaced by the SDK's asynchronous one."""
    rng = random.Random(seed)
    number = rng.randrange(SPEECHES)
    chunk = rng.choice((320, 640, 1600, 3200, 333, 4801, 8000))
    partials = rng.random() < 0.25
    client = rng.choice(tuple(CLIENTS))
    return Schedule(
        seed=seed,
        client=client if available(client) else "async",
        speech=number,
        pace=Pace(
            chunk=chunk,
            chunks_per_s=min(rng.uniform(3, 20) * BYTES_PER_S / chunk, 500),
            config={"messages_config": {"receive_partial_transcripts": partials}},
        ),
        plans=tuple(_plan(rng, len(speech(number))) for _ in range(rng.randint(1, MAX_CONNECTIONS_HIT))),
    )


def _plan(rng: random.Random, size: int) -> tuple[Fault, ...]:
    """Give what befalls one connection: at most two nuisances, and an end; often within what is sent again."""
    last = rng.choice((200, 4000, size // 8, size // 3))
    faults = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        kind = rng.choice(NUISANCES)
        sizes = {Kind.SLOW: rng.randrange(2_000, 100_000), Kind.TINY: rng.randrange(1, 40)}
        faults.append(Fault(kind=kind, at=rng.randrange(last), lasts_s=rng.uniform(0.05, 0.6), size=sizes.get(kind, 0)))
    kind = rng.choices(tuple(SHARE), tuple(SHARE.values()))[0]
    return (*faults, Fault(kind=kind, at=rng.randrange(last), lasts_s=rng.uniform(0.0, 0.8)))
