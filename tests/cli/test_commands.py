"""The commands as a user runs them: the real program, real speech, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pysubs2
import pytest
from filelock import FileLock

from recordings import recording_path
from server import Server, serving

PATIENCE_S = 200
FRIENDLY = {"ever", "tried", "failed", "matter", "again", "fail", "better"}
"""Words of `beckett`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A server that the tests of this file share."""
    with serving(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """The environment of a user with a temporary directory and a home of their own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VIVAVOCE_", "GLADIA_"))}
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    return inherited | {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home"), "COLUMNS": "80"}


@pytest.fixture
def cli(environment, tmp_path):
    """Run a command to its end, in an empty directory."""

    def run(*arguments: str, stdin: bytes = b"", **extra: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program(), *arguments],
            input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, cwd=tmp_path, env=environment | extra,
        )  # fmt: skip
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def program() -> str:
    return str(Path(sys.executable).with_name("vivavoce"))


def words(text: str) -> set[str]:
    return {word.strip(".,?!").lower() for word in text.split()}


def lines_are_clear(done: subprocess.CompletedProcess[str], *says: str) -> bool:
    """Tell whether a command failed with 1, nothing on stdout, and one line that says all of `says`."""
    one_line = done.stderr.startswith("vivavoce: ") and done.stderr.count("\n") == 1
    return (done.returncode, done.stdout, one_line) == (1, "", True) and all(each in done.stderr for each in says)


def left_behind(environment: dict[str, str]) -> list[str]:
    """Give what an embedded server left in the temporary directory, once its process is gone."""
    deadline = time.monotonic() + PATIENCE_S
    directory = Path(environment["TMPDIR"])
    while any(directory.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [path.name for path in directory.iterdir()]


@contextmanager
def running(environment: dict[str, str], *arguments: str, **streams: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside the block, and make sure that it ends."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    process = subprocess.Popen([program(), *arguments], env=environment, **pipes)
    late = threading.Timer(PATIENCE_S, process.kill)
    late.start()
    try:
        yield process
    finally:
        late.cancel()
        process.kill()
        process.communicate()


class TestTranscribe:
    """`vivavoce transcribe`."""

    def test_text_from_an_embedded_server(self, cli, environment):
        """Without any server a file becomes text on stdout, nothing else there or on stderr, and nothing is left."""
        done = cli("transcribe", str(recording_path("beckett")))
        assert (done.returncode, done.stderr) == (0, "")
        assert len(words(done.stdout) & FRIENDLY) >= 4
        assert left_behind(environment) == []

    def test_every_format_from_a_running_server(self, cli, server):
        """Text, JSON, SRT and WebVTT hold the same words; subtitles are within the recording and in order."""
        path, at = str(recording_path("beckett")), ("--server", server.url)
        text = cli("transcribe", path, *at).stdout
        result = json.loads(cli("transcribe", path, *at, "--format", "json").stdout)
        assert result["transcription"]["full_transcript"].split() == text.split()
        assert result["metadata"]["audio_duration"] == pytest.approx(9.96, abs=0.05)
        for name in ("srt", "vtt"):
            shown = pysubs2.SSAFile.from_string(cli("transcribe", path, *at, "--format", name).stdout)
            assert " ".join(event.plaintext for event in shown).split() == text.split()
            times = [edge for event in shown for edge in (event.start, event.end)]
            assert times == sorted(times)
            assert times[-1] <= 11_000

    def test_stdin_and_file_give_the_same(self, cli, server):
        """`-` reads the recording from standard input."""
        path = recording_path("beckett")
        from_file = cli("transcribe", str(path), "--server", server.url)
        from_stdin = cli("transcribe", "-", "--server", server.url, stdin=path.read_bytes())
        assert from_stdin.returncode == 0
        assert from_stdin.stdout == from_file.stdout

    def test_output_goes_to_a_file(self, cli, server, tmp_path):
        """With --output nothing is printed."""
        target = tmp_path / "beckett.srt"
        done = cli("transcribe", str(recording_path("beckett")), "-f", "srt", "-o", str(target), "--server", server.url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert target.read_text(encoding="utf-8").startswith("1\n00:00:0")

    def test_separate_channels(self, cli, server, tmp_path):
        """A stereo file kept apart gives each channel's own lines; the silent channel has none."""
        stereo = tmp_path / "stereo.wav"
        with wave.open(str(recording_path("beckett"))) as source, wave.open(str(stereo), "wb") as target:
            target.setparams((2, 2, source.getframerate(), 0, "NONE", ""))
            mono = source.readframes(source.getnframes())
            target.writeframes(b"".join(b"\0\0" + mono[at : at + 2] for at in range(0, len(mono), 2)))
        done = cli("transcribe", str(stereo), "--channels", "separate", "--server", server.url)
        assert done.returncode == 0
        assert len(words(done.stdout) & FRIENDLY) >= 4
        assert {line.split(":")[0] for line in done.stdout.splitlines()} == {"Channel 2"}

    def test_real_time_pace_takes_the_time_it_takes(self, cli, server):
        """Ten seconds of speech at real-time pace take ten seconds at least."""
        begin = time.monotonic()
        done = cli("transcribe", str(recording_path("beckett")), "--pace", "realtime", "--server", server.url)
        assert done.returncode == 0
        assert time.monotonic() - begin >= 9.9

    def test_the_servers_reasons_are_shown(self, cli, server):
        """What the server refuses is told in its own words, in one line."""
        path, at = str(recording_path("beckett")), ("--server", server.url)
        assert lines_are_clear(cli("transcribe", path, *at, "--endpointing", "20"), "endpointing must")
        assert lines_are_clear(cli("transcribe", path, *at, "--language", "fr"), "the server refused")

    def test_a_refusal_leaves_no_server(self, cli, environment):
        """Where the embedded server refuses a request, it is gone afterwards too."""
        done = cli("transcribe", str(recording_path("beckett")), "--endpointing", "20")
        assert lines_are_clear(done, "endpointing must")
        assert left_behind(environment) == []

    def test_an_embedded_server_that_cannot_start_says_why(self, cli, environment):
        """The reason of a server that fails at start reaches the user in one line."""
        done = cli("transcribe", str(recording_path("beckett")), VIVAVOCE_ENGINE="nosuch")
        assert lines_are_clear(done, "embedded server did not start", "nosuch")
        assert left_behind(environment) == []

    def test_settings_of_another_server_do_not_reach_the_embedded_one(self, cli, tmp_path):
        """A configuration that serves the world does not stop, or open, the server of one command."""
        own = {
            "VIVAVOCE_HOST": "0.0.0.0",
            "VIVAVOCE_PORT": "1",
            "VIVAVOCE_DATA_DIR": str(tmp_path / "precious"),
            "VIVAVOCE_PUBLIC_URL": "https://speech.example.net",
        }
        done = cli("transcribe", str(recording_path("beckett")), **own)
        assert (done.returncode, done.stderr) == (0, "")
        assert not (tmp_path / "precious").exists()

    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (signal.SIGINT, 130),
            pytest.param(signal.SIGTERM, -15, marks=pytest.mark.slow),
            pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
        ],
    )
    def test_no_end_leaves_anything(self, environment, number, code):
        """Ctrl-C ends quietly with 130; that, and any other death in mid-session, takes the server along."""
        path = str(recording_path("two_cities"))
        with running(environment, "transcribe", path, "--pace", "realtime") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().strip()
            assert any(Path(environment["TMPDIR"]).iterdir())
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == code
            assert process.stderr.read() == b""
        assert left_behind(environment) == []

    def test_live_input_is_heard_while_it_is_made(self, environment, server):
        """Text of a stream on standard input appears before the stream ends."""
        arguments = ("transcribe", "-", "--server", server.url)
        with running(environment, *arguments, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            # Written at once and left open: the first of these phrases is long over when the data ends.
            process.stdin.write(recording_path("two_cities").read_bytes())
            process.stdin.flush()
            first = process.stdout.readline().decode()
            process.stdin.close()
            process.stdin = None
            assert "best of times" in first

    def test_a_server_that_dies_is_one_line(self, environment, tmp_path):
        """Where the server is killed in mid-session, the command says so and ends."""
        with serving(tmp_path / "data", exit_code=-signal.SIGKILL) as victim:
            arguments = ("transcribe", str(recording_path("two_cities")), "--pace", "realtime", "--server", victim.url)
            with running(environment, *arguments) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                assert process.stdout.readline().strip()
                victim.process.kill()
                assert process.wait(PATIENCE_S) == 1
                message = process.stderr.read().decode()
            assert message.startswith("vivavoce: the server")
            assert message.count("\n") == 1

    def test_a_terminal_shows_progress_and_partials(self, environment, server):
        """On a terminal the words are seen before they are final, and the progress of the audio below them."""
        master, terminal = pty.openpty()
        # One utterance of 3.5 s, so that a slow machine has the time for a partial too.
        arguments = ("transcribe", str(recording_path("clone-test")), "--pace", "realtime", "--server", server.url)
        with running(environment | {"TERM": "xterm"}, *arguments, stderr=terminal) as process:
            os.close(terminal)
            shown = read_terminal(master)
            assert process.stdout is not None
            text = process.stdout.read().decode()
            assert process.wait() == 0
        assert "transcribed" in shown
        assert "…" in shown
        assert len(words(text) & {"think", "america", "could", "very", "well"}) >= 4
        assert "\x1b" not in text


def read_terminal(master: int) -> str:
    """Give all that was written to a terminal, until its last user closed it."""
    found = b""
    try:
        while data := os.read(master, 65_536):
            found += data
    except OSError:
        # Linux reports a closed terminal as an error.
        pass
    os.close(master)
    return found.decode(errors="replace")


class TestListen:
    """`vivavoce listen`."""

    @pytest.fixture
    def microphone(self) -> dict[str, str]:
        """What makes a recording the microphone of a command."""
        return {"PYTHONPATH": str(Path(__file__).parent / "microphone"), "MICROPHONE": str(recording_path("beckett"))}

    def test_ctrl_c_lets_the_last_words_settle(self, environment, server, microphone):
        """Text comes line by line while one speaks; Ctrl-C in mid-speech loses none of it, and ends with 0."""
        with running(environment | microphone, "listen", "--server", server.url) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline().decode()
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read().decode()
            assert process.wait(PATIENCE_S) == 0
            assert process.stderr.read() == b""
        assert words(first + rest) & FRIENDLY

    def test_a_microphone_at_another_rate_is_used_as_it_is(self, environment, server, microphone):
        """Where a microphone knows no 16 kHz its own rate is sent."""
        at_48_khz = microphone | {"MICROPHONE": str(recording_path("two_cities"))}
        with running(environment | at_48_khz, "listen", "--device", "1", "--server", server.url) as process:
            assert process.stdout is not None
            assert "best of times" in process.stdout.readline().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0

    def test_devices_are_listed_and_wrong_ones_refused(self, cli, microphone):
        """Only microphones are listed; one that does not exist is refused in one line that says how to list them."""
        assert cli("listen", "--list-devices", **microphone).stdout == "  1  Recording\n"
        assert lines_are_clear(cli("listen", "--device", "7", **microphone), "'7'", "--list-devices")


class TestServe:
    """`vivavoce serve`."""

    def test_one_line_when_ready(self, environment, tmp_path):
        """The ready line tells URL, data directory and whether keys are needed; SIGTERM ends with 0."""
        arguments = ("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        with running(environment, *arguments) as process:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            assert process.stdout.read() == b""
        assert re.match(r"vivavoce listens on http://127\.0\.0\.1:\d+ · data in .*/data · no key is needed", line)

    def test_a_taken_port_and_directory_are_one_line(self, cli, server, tmp_path):
        """A second server on the same port or directory is refused with the reason."""
        port = server.url.rsplit(":", 1)[1]
        same_port = cli("serve", "--port", port, "--data-dir", str(tmp_path / "other"))
        same_directory = cli("serve", "--port", "0", "--data-dir", str(server.data_dir))
        assert lines_are_clear(same_port, f"127.0.0.1:{port}")
        assert lines_are_clear(same_directory, str(server.data_dir))


class TestKeys:
    """`vivavoce keys`."""

    def test_a_key_from_creation_to_revocation(self, cli, tmp_path):
        """A created key is printed alone, opens the server at once, is listed without itself, and can be revoked."""
        where = ("--data-dir", str(tmp_path / "data"))
        with serving(tmp_path / "data") as server:
            created = cli("keys", "create", "--name", "phones", *where)
            secret = created.stdout.strip()
            assert (created.returncode, created.stdout) == (0, f"{secret}\n")
            listed = cli("keys", "list", *where).stdout
            assert "phones" in listed
            assert "valid" in listed
            assert secret not in listed
            ask = ("sessions", "list", "--server", server.url)
            assert lines_are_clear(cli(*ask), "valid API key")
            assert lines_are_clear(cli(*ask, "--key", "wrong"), "valid API key")
            assert cli(*ask, GLADIA_API_KEY=secret).returncode == 0
            key_id = listed.split()[0]
            assert cli("keys", "revoke", key_id, *where).returncode == 0
            assert lines_are_clear(cli(*ask, "--key", secret), "valid API key")
            assert "revoked" in cli("keys", "list", *where).stdout
            assert lines_are_clear(cli("keys", "revoke", key_id, *where), key_id)
        with serving(tmp_path / "data") as server:
            assert lines_are_clear(cli("sessions", "list", "--server", server.url), "valid API key")

    def test_no_keys_is_said(self, cli, tmp_path):
        """An empty list is explained on stderr and prints nothing."""
        done = cli("keys", "list", "--data-dir", str(tmp_path / "data"))
        assert (done.returncode, done.stdout) == (0, "")
        assert "no keys" in done.stderr


class TestSessions:
    """`vivavoce sessions`."""

    def test_a_session_from_list_to_deletion(self, cli, server, tmp_path):
        """A transcribed file is listed, shown in every format, downloaded and deleted."""
        at = ("--server", server.url)
        text = cli("transcribe", str(recording_path("beckett")), *at).stdout
        listed = cli("sessions", "list", "--limit", "1", "--status", "done", *at).stdout
        session_id = listed.split()[0]
        assert "10.0 s" in listed
        assert cli("sessions", "show", session_id, *at).stdout == text
        assert "-->" in cli("sessions", "show", session_id, "-f", "vtt", *at).stdout
        assert words(cli("sessions", "watch", session_id, *at).stdout) == words(text)
        told = cli("sessions", "watch", session_id, "--json", "--from", "2", *at).stdout.splitlines()
        assert [json.loads(line)["seq"] for line in told] == list(range(2, len(told) + 2))
        assert lines_are_clear(cli("sessions", "watch", "nobody", *at), "refused: there is no live session")
        assert lines_are_clear(cli("sessions", "watch", "no/body", *at), "no session can have the id no/body")

        assert cli("sessions", "download", session_id, *at).returncode == 0
        with wave.open(str(tmp_path / f"{session_id}.wav")) as audio, wave.open(str(recording_path("beckett"))) as sent:
            assert audio.readframes(audio.getnframes()) == sent.readframes(sent.getnframes())

        assert cli("sessions", "delete", session_id, *at).returncode == 0
        assert lines_are_clear(cli("sessions", "show", session_id, *at), "refused")
        assert lines_are_clear(cli("sessions", "delete", session_id, *at), "refused")


class TestDoctor:
    """`vivavoce doctor`."""

    def test_a_fit_machine_passes(self, cli, tmp_path):
        """Everything is looked at, nothing fails, and nothing is made on the way."""
        data_dir = tmp_path / "data"
        done = cli("doctor", "--data-dir", str(data_dir), VIVAVOCE_PORT="0")
        assert done.returncode == 0, done.stdout
        for name in (
            "Python",
            "onnxruntime",
            "PyAV",
            "PortAudio",
            "speech engine",
            "voice activity",
            "word times",
            "add-ons",
        ):
            assert name in done.stdout
        assert "fail" not in done.stdout
        assert not data_dir.exists()

    def test_problems_come_with_their_way_out(self, cli, tmp_path):
        """A missing engine and an impossible data directory fail, with what to do about each."""
        (tmp_path / "file").write_bytes(b"")
        done = cli("doctor", "--data-dir", str(tmp_path / "file" / "data"), VIVAVOCE_ENGINE="nosuch")
        assert done.returncode == 1
        failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
        assert len(failed) == 2
        assert done.stdout.count("→") >= 2

    def test_a_directory_and_a_port_in_use_are_warnings(self, cli, tmp_path):
        """A running server is no illness."""
        (tmp_path / "data").mkdir()
        with FileLock(tmp_path / "data" / "lock"), socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = cli("doctor", "--data-dir", str(tmp_path / "data"), VIVAVOCE_PORT=port)
        assert done.returncode == 0
        assert re.search(r"warn +data directory .*in use", done.stdout)
        assert re.search(rf"warn +port .*{port}", done.stdout)

    def test_wrong_settings_fail(self, cli):
        """Settings that `serve` would refuse are found here too."""
        done = cli("doctor", VIVAVOCE_PORT="abc")
        assert done.returncode == 1
        assert "--port" in done.stdout


class TestDemo:
    """`vivavoce demo`."""

    @pytest.mark.slow
    def test_plain_lines_without_a_terminal(self, cli, environment):
        """Partials and finals are lines, the stored result and the latencies follow, 80 columns are enough."""
        done = cli("demo")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        finals = [line for line in lines if line.startswith("✓ ")]
        assert len(finals) >= 3
        assert any(line.startswith("… ") for line in lines)
        assert "best of times" in done.stdout
        assert "stored result" in done.stdout
        assert len(re.findall(r"│ +-?\d+ ms │ +-?\d+ ms │", done.stdout)) == 3
        assert max(len(line) for line in lines if not line.startswith(("✓", "…"))) <= 80
        assert left_behind(environment) == []

    @pytest.mark.slow
    def test_a_terminal_shows_text_in_place(self, environment):
        """On a terminal partials are rewritten in place: the cursor goes back, and finals are marked."""
        master, terminal = pty.openpty()
        with running(environment | {"TERM": "xterm"}, "demo", stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            shown = read_terminal(master)
            assert process.wait() == 0
        assert "\x1b[2K" in shown
        assert "✓" in shown
        assert "stored result" in shown
