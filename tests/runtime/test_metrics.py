"""Where the processor's time goes, as metrics tell it."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from vivavoce.runtime import metrics


async def spent() -> dict[str, float]:
    text = (await metrics.exposition()).decode()
    found = re.findall(r'^vivavoce_cpu_seconds_total{part="(.+)"} (\S+)$', text, re.MULTILINE)
    return {part: float(seconds) for part, seconds in found}


def work(until: threading.Event) -> None:
    while not until.is_set():
        sum(range(1000))


async def test_what_a_thread_spent_stays_with_its_part_when_it_ends():
    """The counter of a part grows while its threads work, and never falls."""
    before, enough = await spent(), threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="partials") as threads:
        threads.submit(work, enough)
        try:
            give_up = time.monotonic() + 60
            while (during := await spent())["partials"] <= before["partials"]:
                assert time.monotonic() < give_up
        finally:
            enough.set()
    after = await spent()
    assert after["partials"] >= during["partials"] > before["partials"]
    assert after["other"] >= 0
    assert set(after) == {*metrics.PARTS.values(), "workers", "other"}
