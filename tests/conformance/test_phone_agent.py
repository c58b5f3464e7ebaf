"""examples/agent.py as its readers run it: a call in Twilio's format, real speech at its pace, and a scripted model."""

from __future__ import annotations

import ast
import base64
import hmac
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from example import EXAMPLES, Program, answering, calling, running
from live import until_status
from receiver import Receiver, receiving
from recordings import TRANSCRIPTS, wheel_recording
from sound import pcm, share_of, with_wav_header
from vivavoce.model import SAMPLE_RATE

SAYS = '<Response><Say>Yes &amp; no.</Say><Pause length="3600"/></Response>'
SILENT = '<Response><Pause length="3600"/></Response>'
FOUR_PHRASES = " ".join(TRANSCRIPTS["beckett"].split()[:8])
SLOW = "Let me see what I can find for you."
TWILIO = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "secret"}


@asynccontextmanager
async def phone_line(
    server, *model: str, twilio: Receiver, **environment: str
) -> AsyncIterator[tuple[Program, Program, str]]:
    """Start a model and an agent; give both, and the agent's address."""
    async with answering(*model) as (scripted, model_url):
        options = ["--port", "0", "--vivavoce", server.url, "--model-url", model_url, "--say"]
        api = twilio.url.removesuffix("/hook")
        async with running("agent.py", *options, "--twilio-api", api, **TWILIO, **environment) as agent:
            url = (await agent.until(lambda line: line.startswith("waits for calls on"))).split()[-1]
            yield scripted, agent, url


@pytest.fixture(scope="module")
def call(tmp_path_factory) -> Path:
    """A recording of four short phrases."""
    path = tmp_path_factory.mktemp("call") / "call.wav"
    path.write_bytes(with_wav_header(pcm(wheel_recording("beckett")[: round(6.2 * SAMPLE_RATE)])))
    return path


async def over(server) -> None:
    """Wait until the newest session is finished."""
    [newest] = server.get("/v2/live", limit=1)["items"]
    await until_status(server, newest["id"], "done")


def said(twilio: Receiver) -> list[str]:
    """Give the instructions that Twilio got, in order."""
    return [parse_qs(post.body)["Twiml"][0] for post in twilio.posts]


async def test_a_caller_is_answered(server, call):
    """What was said reaches the model, and its answer the caller, as Twilio's voice; new words silence that."""
    async with (
        receiving() as twilio,
        phone_line(server, "--reply", "Yes & no.", "--word-delay", "0.01", twilio=twilio) as (model, agent, url),
    ):
        async with calling(url, call, 2.0):
            await agent.until(lambda line: line.startswith("agent: "))
            await twilio.until(lambda _: SAYS in said(twilio) and SILENT in said(twilio)[said(twilio).index(SAYS) :])
        await over(server)
        asked = await model.until(lambda line: line.startswith("asked: "))
        await model.until(lambda line: line == "answered")

    assert agent.of("agent")[0] == "Yes & no."
    assert asked.removeprefix("asked: ") == agent.of("caller")[0]
    assert share_of("Ever tried", agent.of("caller")[0]) > 0.5
    assert agent.of("error") == []
    spoken = twilio.posts[said(twilio).index(SAYS)]
    assert spoken.path.startswith("/2010-04-01/Accounts/AC1/Calls/CA")
    assert spoken.headers["authorization"].startswith("Basic ")


@pytest.mark.slow
async def test_a_caller_who_goes_on_interrupts(server, call):
    """A slow answer is given up at a new phrase, and what was asked so far is asked again with it."""
    async with (
        receiving() as twilio,
        phone_line(server, "--reply", SLOW, "--word-delay", "0.6", twilio=twilio) as (model, agent, url),
    ):
        async with calling(url, call, 20.0):
            await agent.until(lambda line: line == f"agent: {SLOW}")
            await twilio.until(lambda _: bool(said(twilio)))
            await model.until(lambda line: line == "answered")
        await over(server)

    assert "interrupted" in model.lines
    assert model.of("asked")[-1] == " ".join(agent.of("caller"))
    assert share_of(FOUR_PHRASES, " ".join(agent.of("caller"))) > 0.7
    assert agent.of("agent") == [SLOW]
    assert agent.of("error") == []


async def test_only_calls_that_twilio_signed_are_taken():
    """With a public URL, a socket without Twilio's signature for it is refused before anything is spent on it."""
    url = "wss://agent.example/"
    right = base64.b64encode(hmac.digest(b"secret", url.encode(), "sha1")).decode()
    async with running("agent.py", "--port", "0", "--public-url", url, **TWILIO) as agent:
        local = (await agent.until(lambda line: line.startswith("waits for calls on"))).split()[-1]
        for signature in ("", "wrong"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(local, additional_headers={"X-Twilio-Signature": signature})
            assert refused.value.response.status_code == 403
        async with connect(local, additional_headers={"X-Twilio-Signature": right}) as socket:
            await socket.send('{"event": "stop"}')
            await socket.wait_closed()
            assert socket.close_code == 1000


@pytest.mark.parametrize("program", ["agent.py", "call.py", "scripted_model.py"])
def test_help_says_what_a_program_is(program):
    """`--help` shows the program's own explanation and every option."""
    command = [sys.executable, str(EXAMPLES / program), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert ast.get_docstring(ast.parse((EXAMPLES / program).read_text(encoding="utf-8"))) in shown
