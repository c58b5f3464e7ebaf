"""What the process counts and times, in a registry of its own, and how Prometheus reads it.

Counters and histograms stand here as constants, so that a hook on the road is one line and costs about a microsecond.
What can be read off live objects (sessions by state, lengths of queues) is not counted but asked for when somebody
reads: an owner of such objects gives a function to `watch`. Labels are closed sets; no session, key, address or word
ever becomes one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# When each counter began is told nobody: it would double the length of what is read.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"vivavoce_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
    return Histogram(f"vivavoce_{name}", text, labels, registry=REGISTRY, buckets=tuple(buckets))


AUDIO_RECEIVED = _counter("audio_received_seconds", "Audio taken from clients for the first time.")
AUDIO_HEARD = _counter("audio_heard_seconds", "Audio that went through voice activity, every channel counted.")
SPEECH_TRANSCRIBED = _counter("speech_transcribed_seconds", "Speech decoded for final transcripts.")

ACK_SECONDS = _histogram("ack_seconds", "From the arrival of audio until it is durable and acknowledged.", _FAST)
ANSWER_SECONDS = _histogram(
    "answer_seconds", "From the request for a transcript until it is there: waiting, decoding, aligning.", _SLOW, "kind"
)
DECODE_SECONDS = _histogram("decode_seconds", "What the engine took for one batch.", _SLOW, "kind")
DECODE_BATCH = _histogram("decode_batch_size", "Clips in one batch.", _SIZES, "kind")
DECODE_FAILURES = _counter("decode_failures", "Batches that the engine failed on.")
ADDON_SECONDS = _histogram("addon_seconds", "What an add-on took, by feature and outcome.", _SLOW, "addon", "outcome")

CALLS = _counter("calls", "Calls that came to a bridge, by bridge and what became of them.", "bridge", "outcome")
RESUMES = _counter("resumes", "Sockets that took a session up again.")
RESUMES_AMBIGUOUS = _counter("resumes_ambiguous", "Resumes whose first bytes fit in several places, as silence does.")
SOCKETS_CLOSED = _counter("sockets_closed", "Sockets that the server closed, by reason.", "reason")
SESSIONS_ENDED = _counter("sessions_ended", "Sessions that are over, by how they ended.", "status")
SESSIONS_FORGOTTEN = _counter("sessions_forgotten", "Sessions deleted because their retention is over.")
REFUSALS = _counter("refusals", "Requests and connections refused because of a limit.", "limit")
HTTP_RESPONSES = _counter("http_responses", "HTTP responses by status.", "status")
CALLBACKS = _counter("callbacks", "Attempts to deliver a callback or webhook, by outcome.", "outcome")

# Shown from the start, so that a rate over them is never missing.
for _kind in ("partial", "final"):
    for _each in (ANSWER_SECONDS, DECODE_SECONDS, DECODE_BATCH):
        _each.labels(_kind)

ProcessCollector(registry=REGISTRY, namespace="vivavoce")

PARTS = {
    "MainThread": "event loop",
    "ears": "hearing",
    "finals": "finals",
    "partials": "partials",
    "store-write": "database",
    "store-read": "database",
}
"""What threads work on, by what their names begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """A value read off a live object: `values` by the value of the only `label`, or under "" without one."""

    name: str
    text: str
    values: dict[str, float]
    label: str | None = None


class _Watched(Collector):
    """Turns what a function gives into metrics, each time somebody reads."""

    def __init__(self, read: Callable[[], Iterable[Gauge]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Say nothing: without this, registering would read, before there is anything to read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give what can be read now."""
        for gauge in self._read():
            labels = [gauge.label] if gauge.label else []
            family = GaugeMetricFamily(f"vivavoce_{gauge.name}", gauge.text, labels=labels)
            for value, number in gauge.values.items():
                family.add_metric([value] if gauge.label else [], number)
            yield family


_Spender = tuple[str, int, object]
"""A part, and a thread of it by its number and name, or a process by its number and when it began."""


class _Work(Collector):
    """Tells where the processor's time goes, as the system counts it for each thread and worker, at the last `look`.

    What a thread or worker that has ended had spent, as far as it was seen, stays with its part: counters never fall.
    """

    def __init__(self) -> None:
        self._seen: dict[_Spender, float] = {}
        self._ended = dict.fromkeys([*PARTS.values(), "workers"], 0.0)
        self._whole_s = 0.0
        self._looking = threading.Lock()

    def look(self) -> None:
        """Read what was spent so far; takes longer the more processes this machine has."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        process = psutil.Process()
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        seen: dict[_Spender, float] = {}
        for each in process.threads():
            name = names.get(each.id, "")
            if (part := PARTS.get(name.rpartition("_")[0] or name)) is not None:
                seen[part, each.id, name] = each.user_time + each.system_time
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                times = child.cpu_times()
                seen["workers", child.pid, child.create_time()] = times.user + times.system
        whole = process.cpu_times()
        for spender in self._seen.keys() - seen.keys():
            self._ended[spender[0]] += self._seen[spender]
        self._seen, self._whole_s = seen, whole.user + whole.system

    def describe(self) -> Iterable[Metric]:
        """Say nothing, as `_Watched`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Give the seconds of each part."""
        seconds = dict(self._ended)
        for (part, *_), spent in self._seen.items():
            seconds[part] += spent
        seconds["other"] = max(self._whole_s - sum(seconds.values()) + seconds["workers"], 0.0)
        text = "Processor time by what it was spent on; workers are processes, of the aligner and the diarizer."
        family = CounterMetricFamily("vivavoce_cpu_seconds", text, labels=["part"])
        for part, spent in seconds.items():
            family.add_metric([part], spent)
        yield family


_WORK = _Work()
REGISTRY.register(_WORK)


def watch(read: Callable[[], Iterable[Gauge]]) -> Callable[[], None]:
    """Ask `read` for gauges whenever metrics are read; give a function that ends this."""
    watched = _Watched(read)
    REGISTRY.register(watched)
    return lambda: REGISTRY.unregister(watched)


async def exposition() -> bytes:
    """Write all metrics in Prometheus' text format (`CONTENT_TYPE`)."""
    await asyncio.to_thread(_WORK.look)
    return generate_latest(REGISTRY)
