"""Asterisk itself as a peer: the one that `scripts/debian-asterisk` fetched, run from where it lies."""

from __future__ import annotations

import subprocess
import time
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent / ".venvs" / "asterisk"
_LIBRARIES = ROOT / "usr" / "lib" / "x86_64-linux-gnu"
_LOADER = _LIBRARIES / "ld-linux-x86-64.so.2"
PATIENCE_S = 30.0

MISSING = (
    None
    if (_LIBRARIES / "asterisk" / "modules" / "chan_websocket.so").exists() and _LOADER.exists()
    else ("there is no Asterisk; make test-slow fetches one")
)

_SETTINGS = """
[directories]
astetcdir => {place}/etc
astmoddir => {libraries}/asterisk/modules
astvarlibdir => {place}/run
astdbdir => {place}/run
astkeydir => {place}/run
astdatadir => {root}/usr/share/asterisk
astspooldir => {place}/run
astrundir => {place}/run
astlogdir => {place}/log
[options]
verbose = 3
"""
_MODULES = [
    "app_audiosocket",
    "app_chanspy",
    "app_dial",
    "app_echo",
    "app_exec",
    "app_originate",
    "app_playback",
    "app_senddtmf",
    "app_sendtext",
    "bridge_simple",
    "bridge_softmix",
    "chan_audiosocket",
    "chan_websocket",
    "codec_alaw",
    "codec_resample",
    "codec_ulaw",
    "format_wav",
    "func_uuid",
    "func_channel",
    "pbx_config",
    "res_audiosocket",
    "res_clioriginate",
    "res_http_websocket",
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_timing_timerfd",
    "res_websocket_client",
]


@dataclass(frozen=True)
class Asterisk:
    """A running Asterisk."""

    place: Path

    @property
    def log(self) -> str:
        """All that it has logged so far."""
        path = self.place / "log" / "full"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def command(self, text: str) -> str:
        """Say something on its command line; give the answer."""
        ended = subprocess.run(
            [*_program(self.place), "-rx", text], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return ended.stdout + ended.stderr

    def call(self, caller: str, callee: str) -> None:
        """Connect two extensions of the dialplan's context `test`."""
        self.command(f"channel originate Local/{caller}@test/n extension {callee}@test")


def write_sound(place: Path, name: str, samples: bytes, rate: int = 8000) -> Path:
    """Write a WAV file for `Playback`; give its path as a dialplan names it, without the ending."""
    with wave.open(str(place / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return place / name


@contextmanager
def calling(place: Path, files: Mapping[str, str]) -> Iterator[Asterisk]:
    """Run Asterisk with these configuration files for the block."""
    for directory in ("etc", "run", "log"):
        (place / directory).mkdir(parents=True)
    written = {
        "asterisk.conf": _SETTINGS.format(place=place, root=ROOT, libraries=_LIBRARIES),
        "modules.conf": "[modules]\nautoload=no\n" + "\n".join(f"load={name}.so" for name in _MODULES),
        "logger.conf": "[logfiles]\nfull => notice,warning,error,verbose\n",
        **files,
    }
    for name, text in written.items():
        (place / "etc" / name).write_text(text, encoding="utf-8")
    with (place / "log" / "console").open("w") as console:
        process = subprocess.Popen([*_program(place), "-f", "-n"], stdout=console, stderr=console)
    asterisk, deadline = Asterisk(place), time.monotonic() + PATIENCE_S
    try:
        while "Asterisk Ready" not in asterisk.log:
            assert process.poll() is None, (place / "log" / "console").read_text()
            assert time.monotonic() < deadline, asterisk.log
            time.sleep(0.05)
        yield asterisk
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _program(place: Path) -> list[str]:
    paths = f"{_LIBRARIES}:{_LIBRARIES}/asterisk:{_LIBRARIES}/pulseaudio"
    program = ROOT / "usr" / "sbin" / "asterisk"
    return [str(_LOADER), "--library-path", paths, str(program), "-C", str(place / "etc" / "asterisk.conf")]
