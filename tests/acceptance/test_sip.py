"""SIP: sipp and baresip, both unmodified, call the real program."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live import pieces, transcribe
from server import Server, serving
from sound import g711, pcm, recording_at, with_wav_header
from vivavoce.bench.words import errors, words

PATIENCE_S = 60
SPEECH_S = 8
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
    """A server that answers calls with a password on loopback."""
    data = tmp_path_factory.mktemp("sip") / "data"
    with serving(data, "--sip-listen", "127.0.0.1:0", "--sip-users", "alice:secret") as running:
        yield running


@pytest.fixture(scope="module")
def port(server) -> str:
    """The port that the server says it listens on."""
    found = re.search(r"listening for SIP.*127\.0\.0\.1:(\d+)", server.log)
    assert found is not None, server.log
    return found[1]


def run(*command, **options):
    """Run a program to its end and give what it wrote."""
    done = subprocess.run(command, timeout=PATIENCE_S, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def calls_to(server, wanted, count):
    """Give the sessions whose metadata are wanted, once there are `count` and all are done."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        listed = server.get("/v2/live", limit=100)["items"]
        found = [each for each in listed if wanted(each.get("custom_metadata", {}))]
        if len(found) >= count and all(each["status"] == "done" for each in found):
            return found
        time.sleep(0.1)
    raise AssertionError(server.log)


@pytest.mark.skipif(shutil.which("sipp") is None, reason="needs sipp; see scripts/debian-packages")
def test_sipp_calls_holds_asks_and_hangs_up(server, port, tmp_path):
    """Ten whole calls, half of them at a time: each has its own session, which ends with BYE."""
    scenario = str(Path(__file__).with_name("sip_call.xml"))
    where = ["-sf", scenario, f"127.0.0.1:{port}", "-i", "127.0.0.1", "-nostdin", "-timeout", "40", "-timeout_error"]
    run("sipp", *where, "-m", "10", "-r", "10", "-l", "5", "-trace_err", cwd=tmp_path)
    calls = calls_to(server, lambda metadata: metadata.get("test") == "sipp", 10)
    assert len({each["custom_metadata"]["sip_call_id"] for each in calls}) == len(calls) == 10


@pytest.mark.skipif(shutil.which("baresip") is None, reason="needs baresip; see scripts/debian-packages")
async def test_what_is_said_into_baresip_becomes_the_text_of_the_same_call_given_directly(server, port, tmp_path):
    """Eight seconds of speech through a telephone that knows a password: three words of a hundred may differ."""
    speech = recording_at("two_cities", 8000)[: SPEECH_S * 8000]
    recording = tmp_path / "speech.wav"
    recording.write_bytes(with_wav_header(pcm(speech), rate=8000))
    account = f"<sip:alice@127.0.0.1:{port}>;auth_user=alice;auth_pass=secret;regint=0;audio_codecs=PCMU"
    (tmp_path / "accounts").write_text(account + "\n")
    (tmp_path / "config").write_text(CONFIG.format(recording=recording, modules=BARESIP))
    (tmp_path / "contacts").touch()
    dial = f"/dial sip:baresip@127.0.0.1:{port}"
    await asyncio.to_thread(run, "baresip", "-f", str(tmp_path), "-t", str(SPEECH_S + 3), "-e", dial)

    (call,) = calls_to(server, lambda metadata: metadata.get("sip_to", "").startswith("sip:baresip@"), 1)
    heard = await transcribe(
        server, pieces(g711(speech, "mulaw"), 800), encoding="wav/ulaw", bit_depth=8, sample_rate=8000
    )
    result = server.result(call["id"])
    direct, text = words(heard.text()), words(result["result"]["transcription"]["full_transcript"])
    assert direct[:6] == ["it", "was", "the", "best", "of", "times"]
    assert errors(direct, text) <= 0.03 * len(direct)
    assert result["custom_metadata"]["sip_from"] == f"sip:alice@127.0.0.1:{port}"
    assert "secret" not in server.log
