"""Print what lost and delayed RTP packets do to the word error rate, with and without concealment.

    python scripts/packet_loss.py [SEEDS]

The recordings inside the moonshine-voice wheel, at 8 kHz µ-law, are cut into RTP packets of 20 ms. A network is played
out on paper: each packet is lost or delayed by chance, the jitter buffer takes the rest at simulated moments, and what
it gives goes through a live session of a server started for the purpose. The first row is the same audio without any
packets. Endpointing is 0.5 s, so that few words hang on where an utterance is cut. Each condition is played with
several seeds (3 by default), the same for each row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from random import Random

from word_error_rate import PHONE, PHRASES, audio, live, references

from vivavoce.bench.words import errors, words
from vivavoce.cli.embedded import embedded_process
from vivavoce.wire.jitter import CONCEAL_S, JitterBuffer
from vivavoce.wire.rtp import RtpPacket, payload_formats

RATE = 8000
PACKET = 160
LINEAR = PHRASES | {"sample_rate": RATE, "encoding": "wav/pcm", "bit_depth": 16}

Network = Callable[[Random], float | None]
"""Gives the seconds that a packet takes; None where it is lost."""


def lossy(share: float, delay: Callable[[Random], float] = lambda _: 0.05) -> Network:
    """Give a network that loses this share of packets, independently of each other."""
    return lambda dice: None if dice.random() < share else delay(dice)


NETWORKS: dict[str, Network] = {
    "no loss": lossy(0),
    "1 % lost": lossy(0.01),
    "5 % lost": lossy(0.05),
    "40 ms jitter (80 ms ± 40 ms)": lossy(0, lambda dice: dice.uniform(0.04, 0.12)),
    "40 ms jitter, exponential": lossy(0, lambda dice: dice.expovariate(1 / 0.04)),
    "5 % lost, 40 ms jitter (80 ms ± 40 ms)": lossy(0.05, lambda dice: dice.uniform(0.04, 0.12)),
}


def received(data: bytes, network: Network, seed: int, conceal_s: float) -> bytes:
    """Give the audio that comes out of the jitter buffer behind a network."""
    dice = Random(seed)  # noqa: S311 - a simulation that can be repeated
    buffer = JitterBuffer(payload_formats([]), RATE, conceal_s=conceal_s)
    arrivals = []
    for number, at in enumerate(range(0, len(data), PACKET)):
        delay_s = network(dice)
        if delay_s is not None:
            packet = RtpPacket(
                payload_type=0,
                sequence=number % 65536,
                timestamp=at,
                ssrc=1,
                payload=data[at : at + PACKET],
            )
            arrivals.append((at / RATE + delay_s, number, packet))
    out = []
    for at_s, _, packet in sorted(arrivals):
        buffer.feed(packet, at_s)
        out.append(buffer.take(at_s))
    return b"".join([*out, buffer.flush()])


def main() -> None:
    """Measure and print a table."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    phone = [(audio(path, RATE, "pcm_mulaw"), words(text)) for path, text in references(None)]
    total = sum(len(said) for _, said in phone)
    # A pause of a busy machine must not end an utterance that the audio goes on with.
    with embedded_process({"idle_cut": "60"}) as server:
        url = server.url
        wrong = sum(errors(said, words(live(url, PHRASES | PHONE, data))) for data, said in phone)
        print(f"{'without packets':42}{100 * wrong / total:6.1f} %", flush=True)
        print(f"{'':42}{'concealed':>12}{'silence':>12}")
        for name, network in NETWORKS.items():
            cells = []
            for conceal_s in (CONCEAL_S, 0.0):
                wrong = sum(
                    errors(said, words(live(url, LINEAR, received(data, network, seed, conceal_s))))
                    for seed in seeds
                    for data, said in phone
                )
                cells.append(f"{100 * wrong / total / len(seeds):10.1f} %")
            print(f"{name:42}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
