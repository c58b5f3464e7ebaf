"""Plain RTP: what FFmpeg sends to the UDP port becomes the text of the same call given directly."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import socket
import subprocess
import time
import wave
from collections.abc import Iterator
from struct import pack
from unittest.mock import ANY

import numpy as np
import pytest

from live import pieces, transcribe
from recordings import TRANSCRIPTS, recording_path
from server import Server, serving
from vivavoce.bench.words import errors, words
from vivavoce.model import G711

PATIENCE_S = 60
PACKET = 160


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server with an RTP port on loopback, whose streams end after a second."""
    data = tmp_path_factory.mktemp("rtp") / "data"
    options = ("--rtp-listen", "127.0.0.1:0", "--rtp-timeout", "1", "--rtp-parameters", "metadata.line=7")
    with serving(data, *options) as running:
        yield running


@pytest.fixture(scope="module")
def port(server) -> int:
    """The port that the server says it listens on."""
    found = re.search(r"listening for RTP.*127\.0\.0\.1:(\d+)", server.log)
    assert found is not None, server.log
    return int(found[1])


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A source of packets with a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


def packet(number, payload=b"\xff" * PACKET, *, ssrc=1, kind=0):
    return pack("!BBHII", 0x80, kind, number, number * PACKET, ssrc) + payload


def source_of(sender):
    return f"127.0.0.1:{sender.getsockname()[1]}"


def sessions_from(server, source):
    """Give the sessions of the streams from one address, newest first."""
    listed = server.get("/v2/live", limit=100)["items"]
    return [each for each in listed if each.get("custom_metadata", {}).get("rtp_source") == source]


def done(server, source, count=1):
    """Give the results of an address's sessions once there are `count` and all are done."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = sessions_from(server, source)
        if len(found) >= count and all(each["status"] == "done" for each in found):
            return [server.result(each["id"]) for each in found]
        time.sleep(0.1)
    raise AssertionError(f"{count} sessions of {source} are not done: {server.log}")


def run(*command):
    """Run a program to its end and give what it wrote."""
    return subprocess.run(command, check=True, timeout=PATIENCE_S, capture_output=True).stdout


def stored(server, result):
    """Give the samples that a session has kept."""
    with wave.open(io.BytesIO(server.file(result["id"]))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg; see scripts/debian-packages")
async def test_a_stream_from_ffmpeg_becomes_the_text_of_the_same_call_given_directly(server, port, sender):
    """Eight seconds at their own pace: not a sample differs, nor do more than three words of a hundred."""
    source = source_of(sender)
    own_port = sender.getsockname()[1]
    sender.close()
    speech = ["ffmpeg", "-loglevel", "error", "-re", "-t", "8", "-i", str(recording_path("two_cities"))]
    law = ["-ar", "8000", "-ac", "1", "-acodec", "pcm_mulaw"]
    url = f"rtp://127.0.0.1:{port}?localrtpport={own_port}&pkt_size=172"
    await asyncio.to_thread(run, *speech, *law, "-f", "rtp", url)
    (result,) = done(server, source)

    speech.remove("-re")
    whole = await asyncio.to_thread(run, *speech, *law, "-f", "mulaw", "-")
    heard = await transcribe(server, pieces(whole, 800), encoding="wav/ulaw", bit_depth=8, sample_rate=8000)

    assert np.array_equal(stored(server, result), G711["ulaw"][np.frombuffer(whole, np.uint8)])
    text, said = result["result"]["transcription"]["full_transcript"], words(TRANSCRIPTS["two_cities"])[:24]
    assert words(heard.text())[:6] == said[:6]
    assert errors(words(heard.text()), words(text)) <= 0.03 * len(words(heard.text()))
    assert result["custom_metadata"] == {"rtp_source": source, "rtp_ssrc": ANY, "line": "7"}


@pytest.mark.parametrize(
    ("kind", "payloads"),
    [
        (0, [bytes([n]) * PACKET for n in range(50)]),
        (8, [bytes([n]) * PACKET for n in range(50)]),
        (118, [pack("!h", 600 * n - 15_000) * 2 * PACKET for n in range(50)]),
    ],
    ids=["PCMU", "PCMA", "L16"],
)
def test_each_format_is_kept_sample_by_sample_whatever_its_order(server, port, sender, kind, payloads):
    """Swapped and repeated packets are put right, at both rates, and reports among them do not matter."""
    rate = 16_000 if kind == 118 else 8000
    order = [0, 1, 3, 2, 5, 4, 4, *range(6, 50)]
    for number in order:
        size = rate // 50
        header = pack("!BBHII", 0x80, kind, (65_530 + number) % 65_536, (2**32 - 960 + number * size) % 2**32, 7)
        sender.sendto(header + payloads[number], ("127.0.0.1", port))
        sender.sendto(pack("!BBH", 0x80, 200, 6) + bytes(24), ("127.0.0.1", port))
    (result,) = done(server, source_of(sender))
    data = b"".join(payloads)
    if kind == 118:
        expected = np.frombuffer(data, ">i2")
    else:
        expected = G711["ulaw" if kind == 0 else "alaw"][np.frombuffer(data, np.uint8)]
    assert result["request_params"]["sample_rate"] == rate
    assert np.array_equal(stored(server, result), expected)


def test_lost_packets_leave_no_hole_in_time(server, port, sender):
    """A lost packet and a pause of the sender keep their lengths in the session's audio."""
    for number in (0, 1, 2, 4, 5, 30, 31):
        header = pack("!BBHII", 0x80, 0, number if number < 6 else number - 24, number * PACKET, 9)
        sender.sendto(header + b"\x20" * PACKET, ("127.0.0.1", port))
    (result,) = done(server, source_of(sender))
    assert len(stored(server, result)) == 32 * PACKET


def test_a_goodbye_ends_the_call_and_another_source_begins_one(server, port, sender):
    """RTCP BYE on the same port hangs up; a new SSRC from the same address is a session of its own."""
    for ssrc in (0xA, 0xB):
        for number in range(5):
            sender.sendto(packet(number, ssrc=ssrc), ("127.0.0.1", port))
        sender.sendto(pack("!BBHI", 0x81, 203, 1, ssrc), ("127.0.0.1", port))
    results = done(server, source_of(sender), count=2)
    assert {each["custom_metadata"]["rtp_ssrc"] for each in results} == {"0000000a", "0000000b"}
    assert all(len(stored(server, each)) == 5 * PACKET for each in results)


def test_floods_of_anything_but_streams_open_nothing(server, port, sender):
    """Noise, cut headers, single packets of many sources and unknown payload types leave no session and no log line."""
    before, lines = len(server.get("/v2/live", limit=100)["items"]), server.log.count("\n")
    for number in range(2000):
        sender.sendto(packet(number, ssrc=number), ("127.0.0.1", port))
        sender.sendto(packet(number, ssrc=1, kind=77), ("127.0.0.1", port))
        sender.sendto(packet(number)[: number % 12], ("127.0.0.1", port))
        sender.sendto(bytes([number % 256]) * (number % 1400), ("127.0.0.1", port))
    server.get("/health/ready")
    assert len(server.get("/v2/live", limit=100)["items"]) == before
    assert server.log.count("\n") == lines
