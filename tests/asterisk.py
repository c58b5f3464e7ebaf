"""Asterisk itself as a peer: the one that `scripts/debian-asterisk` fetched, run from where it lies."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import wave
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).parent.parent / ".venvs" / "asterisk"
_LIBRARIES = ROOT / "usr" / "lib" / "x86_64-linux-gnu"
_LOADER = _LIBRARIES / "ld-linux-x86-64.so.2"
PATIENCE_S = 60.0

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
_HTTP = "[general]\nenabled = yes\nbindaddr = 127.0.0.1\nbindport = {port}\n"
_USER = ("tests", "of-vivavoce")
_ARI = f"[general]\nenabled = yes\n[{_USER[0]}]\ntype = user\npassword = {_USER[1]}\n"
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
    "app_stack",
    "app_stasis",
    "bridge_holding",
    "bridge_simple",
    "bridge_softmix",
    "chan_audiosocket",
    "chan_pjsip",
    "chan_rtp",
    "chan_websocket",
    "codec_alaw",
    "codec_resample",
    "codec_ulaw",
    "format_wav",
    "func_channel",
    "func_uuid",
    "pbx_config",
    "res_ari",
    "res_ari_applications",
    "res_ari_bridges",
    "res_ari_channels",
    "res_ari_events",
    "res_ari_model",
    "res_audiosocket",
    "res_clioriginate",
    "res_http_websocket",
    "res_pjproject",
    "res_pjsip",
    "res_pjsip_caller_id",
    "res_pjsip_header_funcs",
    "res_pjsip_outbound_authenticator_digest",
    "res_pjsip_pubsub",
    "res_pjsip_sdp_rtp",
    "res_pjsip_session",
    "res_rtp_asterisk",
    "res_rtp_multicast",
    "res_sorcery_astdb",
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_stasis",
    "res_stasis_answer",
    "res_stasis_playback",
    "res_stasis_recording",
    "res_stasis_snoop",
    "res_timing_timerfd",
    "res_websocket_client",
]


@dataclass(frozen=True)
class Asterisk:
    """A running Asterisk."""

    place: Path
    http_port: int

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

    @asynccontextmanager
    async def application(self, name: str) -> AsyncIterator[Application]:
        """Be an application of its REST interface (ARI) for the block."""
        address = f"127.0.0.1:{self.http_port}/ari"
        events = f"ws://{address}/events?app={name}&api_key={':'.join(_USER)}"
        async with (
            connect(events, proxy=None) as socket,
            httpx.AsyncClient(base_url=f"http://{address}", auth=_USER, timeout=PATIENCE_S, trust_env=False) as http,
        ):
            yield Application(name, http, socket)


@dataclass(frozen=True)
class Application:
    """An application that owns channels by ARI."""

    name: str
    http: httpx.AsyncClient
    events: ClientConnection

    async def ask(self, method: str, path: str, **params: Any) -> Any:
        """Make a request that must succeed; give what its answer holds."""
        answer = await self.http.request(method, path, params=params)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def channel(self, path: str, **params: Any) -> str:
        """Make a channel of this application's; give its id."""
        made: str = (await self.ask("POST", path, app=self.name, **params))["id"]
        return made

    async def variable(self, channel: str, name: str) -> str:
        """Give a variable of a channel."""
        value: str = (await self.ask("GET", f"/channels/{channel}/variable", variable=name))["value"]
        return value

    async def until(self, kind: str, *channels: str) -> None:
        """Read events until there was one of this kind for each of these channels."""
        missing = set(channels)
        async with asyncio.timeout(PATIENCE_S):
            while missing:
                event = json.loads(await self.events.recv())
                if event["type"] == kind:
                    missing.discard(event["channel"]["id"])


def write_sound(place: Path, name: str, samples: bytes, rate: int = 8000) -> Path:
    """Write a WAV file for `Playback`; give its path as a dialplan names it, without the ending."""
    with wave.open(str(place / f"{name}.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return place / name


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Give a port that nobody has at the moment, for a program that must be told one."""
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def calling(place: Path, files: Mapping[str, str]) -> Iterator[Asterisk]:
    """Run Asterisk with these configuration files for the block."""
    for directory in ("etc", "run", "log"):
        (place / directory).mkdir(parents=True)
    http_port = free_port()
    written = {
        "asterisk.conf": _SETTINGS.format(place=place, root=ROOT, libraries=_LIBRARIES),
        "modules.conf": "[modules]\nautoload=no\n" + "\n".join(f"load={name}.so" for name in _MODULES),
        "logger.conf": "[logfiles]\nfull => notice,warning,error,verbose\n",
        "http.conf": _HTTP.format(port=http_port),
        "ari.conf": _ARI,
        **files,
    }
    for name, text in written.items():
        (place / "etc" / name).write_text(text, encoding="utf-8")
    with (place / "log" / "console").open("w") as console:
        process = subprocess.Popen([*_program(place), "-f", "-n"], stdout=console, stderr=console)
    asterisk, deadline = Asterisk(place, http_port), time.monotonic() + PATIENCE_S
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
