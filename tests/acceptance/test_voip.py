"""RTP and SIP: FFmpeg, sipp and baresip, all unmodified, against the real program."""

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
from pathlib import Path
from struct import pack
from unittest.mock import ANY

import numpy as np
import pytest

from live import pieces, transcribe
from recordings import TRANSCRIPTS, recording_path
from server import Server, serving
from sound import g711, pcm, recording_at, with_wav_header
from vivavoce.bench.words import errors, words
from vivavoce.model import G711

PATIENCE_S = 60
PACKET = 160
SPEECH_S = 5
BARESIP = Path("/usr/lib/baresip/modules")


CONFIG = """
sip_listen 127.0.0.1:0
audio_player aubridge,nil
audio_alert aubridge,nil
audio_source aufile,{recording}
ausrc_srate 8000
auplay_srate 8000
module_path {modules}
module g711.so
module aufile.so
module aubridge.so
module_tmp account.so
module_app menu.so
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server with an RTP port, whose streams end after a second, and a SIP port for a caller with a password."""
    data = tmp_path_factory.mktemp("voip") / "data"
    rtp = ("--rtp-listen", "127.0.0.1:0", "--rtp-timeout", "1", "--bridge-parameters", "metadata.line=7")
    with serving(data, *rtp, "--sip-listen", "127.0.0.1:0", "--sip-users", "alice:secret") as running:
        yield running


def listening(server, what) -> int:
    """Give the port that the server says it listens on."""
    found = re.search(rf"listening for {what}.*127\.0\.0\.1:(\d+)", server.log)
    assert found is not None, server.log
    return int(found[1])


@pytest.fixture(scope="module")
def port(server) -> int:
    """The port for plain RTP."""
    return listening(server, "RTP")


@pytest.fixture(scope="module")
def sip_port(server) -> int:
    """The port for SIP."""
    return listening(server, "SIP")


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A source of packets with a port of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        yield opened


def packet(number, payload=b"\xff" * PACKET, *, ssrc=1, kind=0):
    return pack("!BBHII", 0x80, kind, number, number * PACKET, ssrc) + payload


def source_of(sender):
    """Give the metadata of streams from a socket."""
    return "rtp_source", f"127.0.0.1:{sender.getsockname()[1]}"


def done(server, entry, count=1):
    """Give the results of the sessions with this entry of metadata, once there are `count` and all are done."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        listed = server.get("/v2/live", limit=100)["items"]
        found = [each for each in listed if entry in each.get("custom_metadata", {}).items()]
        if len(found) >= count and all(each["status"] == "done" for each in found):
            return [server.result(each["id"]) for each in found]
        time.sleep(0.1)
    raise AssertionError(f"{count} sessions with {entry} are not done: {server.log}")


def run(*command, **options):
    """Run a program to its end and give what it wrote."""
    ended = subprocess.run(command, timeout=PATIENCE_S, capture_output=True, check=False, **options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def stored(server, result):
    """Give the samples that a session has kept."""
    with wave.open(io.BytesIO(server.file(result["id"]))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg; see scripts/debian-packages")
async def test_a_stream_from_ffmpeg_becomes_the_text_of_the_same_call_given_directly(server, port, sender):
    """Speech at its own pace: not a sample differs, nor do more than three words of a hundred."""
    source = source_of(sender)
    own_port = sender.getsockname()[1]
    sender.close()
    speech = ["ffmpeg", "-loglevel", "error", "-re", "-t", str(SPEECH_S), "-i", str(recording_path("two_cities"))]
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
    assert result["custom_metadata"] == dict([source, ("rtp_ssrc", ANY), ("line", "7")])


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
    """Noise, cut headers, single packets of many sources leave no session and no log line; unknown types leave one."""
    before, lines = len(server.get("/v2/live", limit=100)["items"]), server.log.count("\n")
    for number in range(2000):
        sender.sendto(packet(number, ssrc=number), ("127.0.0.1", port))
        sender.sendto(packet(number, ssrc=1, kind=77), ("127.0.0.1", port))
        sender.sendto(packet(number)[: number % 12], ("127.0.0.1", port))
        sender.sendto(bytes([number % 256]) * (number % 1400), ("127.0.0.1", port))
    server.get("/health/ready")
    assert len(server.get("/v2/live", limit=100)["items"]) == before
    assert server.log.count("\n") <= lines + 1
    assert "payload type 77 is not known" in server.log


@pytest.mark.skipif(shutil.which("sipp") is None, reason="needs sipp; see scripts/debian-packages")
def test_sipp_calls_holds_asks_and_hangs_up(server, sip_port, tmp_path):
    """Ten whole calls, half of them at a time: each has its own session, which ends with BYE."""
    scenario = str(Path(__file__).with_name("sip_call.xml"))
    where = [
        "-sf",
        scenario,
        f"127.0.0.1:{sip_port}",
        "-i",
        "127.0.0.1",
        "-nostdin",
        "-timeout",
        "40",
        "-timeout_error",
    ]
    run("sipp", *where, "-m", "10", "-r", "10", "-l", "5", "-trace_err", cwd=tmp_path)
    calls = done(server, ("test", "sipp"), 10)
    assert len({each["custom_metadata"]["sip_call_id"] for each in calls}) == len(calls) == 10


@pytest.mark.skipif(shutil.which("baresip") is None, reason="needs baresip; see scripts/debian-packages")
async def test_what_is_said_into_baresip_becomes_the_text_of_the_same_call_given_directly(server, sip_port, tmp_path):
    """Speech through a telephone that knows a password: three words of a hundred may differ."""
    speech = recording_at("two_cities", 8000)[: SPEECH_S * 8000]
    recording = tmp_path / "speech.wav"
    recording.write_bytes(with_wav_header(pcm(speech), rate=8000))
    account = f"<sip:alice@127.0.0.1:{sip_port}>;auth_user=alice;auth_pass=secret;regint=0;audio_codecs=PCMU"
    (tmp_path / "accounts").write_text(account + "\n")
    (tmp_path / "config").write_text(CONFIG.format(recording=recording, modules=BARESIP))
    (tmp_path / "contacts").touch()
    dial = f"/dial sip:baresip@127.0.0.1:{sip_port}"
    await asyncio.to_thread(run, "baresip", "-f", str(tmp_path), "-t", str(SPEECH_S + 3), "-e", dial)

    (result,) = done(server, ("sip_to", f"sip:baresip@127.0.0.1:{sip_port}"))
    heard = await transcribe(
        server, pieces(g711(speech, "mulaw"), 800), encoding="wav/ulaw", bit_depth=8, sample_rate=8000
    )
    direct, text = words(heard.text()), words(result["result"]["transcription"]["full_transcript"])
    assert direct[:6] == ["it", "was", "the", "best", "of", "times"]
    assert errors(direct, text) <= 0.03 * len(direct)
    assert result["custom_metadata"]["sip_from"] == f"sip:alice@127.0.0.1:{sip_port}"
    assert "secret" not in server.log
