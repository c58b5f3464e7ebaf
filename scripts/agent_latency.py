"""Print how long a caller waits: from the end of the last word to the final, and from there to the model's first word.

    python scripts/agent_latency.py [--seconds 120] [--model-url http://127.0.0.1:11434/v1 --model qwen3:8b]

Real turns of the recordings inside the moonshine-voice wheel go at the pace of speech, as 8 kHz µ-law in chunks of 20
ms, through a server started for the purpose, once for each setting. Each final is a question to the model at once, as
an agent would ask it. Without `--model-url` it is examples/scripted_model.py, which answers at once, so that what is
left is the agent's own part. Where the last word of a turn ends is told by an alignment of the known text, not by the
server.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gladiaio_sdk import GladiaClient
from openai import AsyncOpenAI

from vivavoce.bench.conversation import Conversation, Format, chunks, conversation, encode
from vivavoce.bench.corpus import turns
from vivavoce.bench.lags import Pace, percentiles
from vivavoce.cli.embedded import embedded_process
from vivavoce.plugins import plugin

CHUNK_S = 0.02
SOON_S = 0.5
EARLY_S = 0.5
SETTINGS: list[tuple[str, Mapping[str, str], Mapping[str, Any]]] = [
    ("0.05, at most 5 s", {}, {"endpointing": 0.05, "maximum_duration_without_endpointing": 5}),
    ("0.3, at most 15 s", {}, {"endpointing": 0.3, "maximum_duration_without_endpointing": 15}),
    ("0.05 to the letter", {"min_silence": "0"}, {"endpointing": 0.05, "maximum_duration_without_endpointing": 5}),
]
"""What is measured: a name, settings of the server, fields of the request. The first is what LiveKit asks for, and what
Pipecat leaves to the server.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn brought, in seconds: its finals, from speech end to the last one, and to the model's first word."""

    finals: int
    final_s: float
    first_word_s: float


@dataclass(slots=True)
class Final:
    """A final: where it begins in the audio, when it came, and when the model's first word did."""

    start: float
    at: float
    first_word: float = float("nan")


class Listener:
    """One session, whose every final is asked about at once."""

    def __init__(self, model: AsyncOpenAI, name: str) -> None:
        self._model, self._name = model, name
        self._asking: set[asyncio.Task[None]] = set()
        self.finals: list[Final] = []
        self.over = asyncio.Event()

    def take(self, message: Any) -> None:
        """Take a message of the server's."""
        if message.type == "transcript" and message.data.is_final:
            final = Final(message.data.utterance.start, time.monotonic())
            self.finals.append(final)
            task = asyncio.create_task(self._ask(final, message.data.utterance.text))
            self._asking.add(task)

    async def warm_up(self) -> None:
        """Ask once, so that connecting to the model is not measured."""
        await self._ask(Final(0.0, 0.0), "Hello.")

    async def _ask(self, final: Final, text: str) -> None:
        question: Any = [{"role": "user", "content": text}]
        async with await self._model.chat.completions.create(
            model=self._name, messages=question, stream=True
        ) as stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    final.first_word = time.monotonic()
                    return

    async def answered(self) -> None:
        """Wait for the session's end and for all answers."""
        await asyncio.wait_for(self.over.wait(), 30)
        await asyncio.gather(*self._asking)


async def play(url: str, asked: Mapping[str, Any], talk: Conversation, model: AsyncOpenAI, name: str) -> list[Turn]:
    """Play a conversation and give what its turns brought."""
    listener = Listener(model, name)
    request = {**Format.ULAW8K.request, **asked}
    session = GladiaClient(api_key="any", api_url=url).live_async().start_session(request)
    connected = asyncio.Event()
    session.on("connected", lambda _: connected.set())
    session.on("message", listener.take)
    session.on("ended", lambda _: listener.over.set())
    await listener.warm_up()
    await asyncio.wait_for(connected.wait(), 30)
    pace = Pace(start=time.monotonic() + SOON_S, chunk_s=CHUNK_S)
    for number, data in enumerate(chunks(encode(talk.samples, Format.ULAW8K), Format.ULAW8K, CHUNK_S)):
        await asyncio.sleep(pace.due(number) - time.monotonic())
        session.send_audio(data)
    session.stop_recording()
    await listener.answered()
    return list(turns_of(talk, listener.finals, pace))


def turns_of(talk: Conversation, finals: list[Final], pace: Pace) -> Iterator[Turn]:
    """Give what each turn brought that has a final."""
    for turn in talk.turns:
        last_word = turn.said[-1].end
        held = [each for each in finals if turn.start - EARLY_S <= each.start < last_word]
        if held:
            ended = pace.sent_at(last_word)
            yield Turn(len(held), held[-1].at - ended, held[-1].first_word - ended)


@contextmanager
def scripted_model() -> Iterator[str]:
    """Run the model that answers at once for the block; give its URL."""
    program = Path(__file__).parent.parent / "examples" / "scripted_model.py"
    command = [sys.executable, str(program), "--port", "0", "--word-delay", "0", "--reply", "Certainly."]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as model:  # noqa: S603 - the example beside
        assert model.stdout is not None
        yield model.stdout.readline().split()[-1]
        model.kill()


def shown(lags: list[float]) -> str:
    """Give the median and the 95th percentile in milliseconds."""
    p50, p95, _ = percentiles(lags)
    return f"{1000 * p50:.0f} / {1000 * p95:.0f}"


def measure(options: argparse.Namespace, model_url: str) -> None:
    """Measure every setting and print a row for each."""
    talk = conversation(turns(None, plugin("aligners", "pocketsphinx")()), options.seconds, seed=1)
    print("| settings | turns | finals a turn | to the final, p50 / p95 ms | to the first word | final to first word |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, settings, asked in SETTINGS:
        with embedded_process(settings) as server:
            model = AsyncOpenAI(base_url=model_url, api_key="none")
            heard = asyncio.run(play(server.url, asked, talk, model, options.model))
        finals = sum(turn.finals for turn in heard) / max(len(heard), 1)
        lags = [turn.final_s for turn in heard], [turn.first_word_s for turn in heard]
        own = [turn.first_word_s - turn.final_s for turn in heard]
        row = [name, str(len(heard)), f"{finals:.1f}", *(shown(each) for each in (*lags, own))]
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--model-url")
    parser.add_argument("--model", default="scripted")
    options = parser.parse_args()
    if options.model_url:
        measure(options, options.model_url)
    else:
        with scripted_model() as url:
            measure(options, url)


if __name__ == "__main__":
    main()
