"""A small phone agent: calls from Twilio, words from vivavoce, answers from any OpenAI-compatible model.

    caller -> Twilio -- Media Streams --> agent.py -- audio --> vivavoce
                ^                          |    ^------ text -----'
                '------- <Say> over REST --'----> model

Each call is a WebSocket from Twilio. Its µ-law audio goes to a vivavoce session as it is. A final transcript is a
question to the model. Words that come while an answer is being made or said interrupt it; a question whose answer was
never said is asked again together with them. Answers are printed, and with `--say` Twilio's voice reads them out.

Twilio needs this TwiML; `<Start>` leaves the call free for `<Say>`, and the inbound track carries only the caller:

    <Response><Start><Stream url="wss://your.host/" track="inbound_track"/></Start><Pause length="3600"/></Response>
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hmac
import json
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

import httpx
from gladiaio_sdk import GladiaClient
from openai import AsyncOpenAI, OpenAIError
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

PROMPT = "You answer telephone calls. Reply in one or two short sentences that sound well when they are spoken."
PAUSE = '<Pause length="3600"/>'
PHONE = {"encoding": "wav/ulaw", "bit_depth": 8, "sample_rate": 8000, "channels": 1}
LISTENING = {"maximum_duration_without_endpointing": 15, "messages_config": {"receive_partial_transcripts": True}}

Say = Callable[[str, str], Coroutine[None, None, None]]


class Call:
    """One caller: listens, asks the model, and answers."""

    def __init__(self, options: argparse.Namespace, model: AsyncOpenAI, say: Say | None, sid: str) -> None:
        self._options, self._model, self._say, self._sid = options, model, say, sid
        self._messages: list[Any] = [{"role": "system", "content": options.prompt}]
        self._answering: asyncio.Task[None] | None = None
        self._silencing: asyncio.Task[None] | None = None
        self._saying, self._gone, self._ended = False, False, asyncio.Event()
        client = GladiaClient(api_key=options.key, api_url=options.vivavoce)
        asked = {**PHONE, **LISTENING, "endpointing": options.endpointing, "custom_metadata": {"callSid": sid}}
        self._speech = client.live_async().start_session(asked)
        self._speech.on("message", self._on_message)
        self._speech.on("error", lambda error: tell("error", error))
        self._speech.on("ended", lambda _: self._ended.set())

    def hear(self, audio: bytes) -> None:
        """Take the caller's audio, 8 kHz µ-law."""
        self._speech.send_audio(audio)

    async def hang_up(self) -> None:
        """End the call: nobody waits for an answer any more, but the last words are still told."""
        self._gone, self._saying = True, False
        self._interrupt()
        self._speech.stop_recording()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout=10)

    def _on_message(self, message: Any) -> None:
        if message.type != "transcript" or not (text := message.data.utterance.text.strip()):
            return
        self._interrupt()
        if not message.data.is_final:
            return
        tell("caller", text)
        if self._messages[-1]["role"] == "user":
            self._messages[-1]["content"] += f" {text}"
        else:
            self._messages.append({"role": "user", "content": text})
        if not self._gone:
            self._answering = asyncio.create_task(self._answer())

    def _interrupt(self) -> None:
        if self._answering:
            self._answering.cancel()
        if self._say and self._saying:
            self._saying = False
            self._silencing = asyncio.create_task(self._say(self._sid, ""))

    async def _answer(self) -> None:
        chat, text = self._model.chat.completions, ""
        try:
            stream = await chat.create(model=self._options.model, messages=self._messages, stream=True)
            async with stream:  # leaving it, by a cancellation too, lets the model stop
                async for chunk in stream:
                    text += "".join(choice.delta.content or "" for choice in chunk.choices)
        except OpenAIError as error:
            tell("error", f"the model does not answer: {error}")
            return
        self._messages.append({"role": "assistant", "content": text})
        tell("agent", text)
        if self._say:
            self._saying = True
            await self._say(self._sid, text)


def tell(who: str, text: object) -> None:
    """Print what somebody said."""
    print(f"{who}: {text}", flush=True)


def twilio_says(api: str, account: str, token: str) -> Say:
    """Give what makes Twilio say a text in a call, instead of what it says there now; no text makes it fall silent."""
    twilio = httpx.AsyncClient(base_url=api, auth=(account, token), timeout=10)

    async def say(sid: str, text: str) -> None:
        twiml = f"<Response>{f'<Say>{escape(text)}</Say>' if text else ''}{PAUSE}</Response>"
        try:
            answer = await twilio.post(f"/2010-04-01/Accounts/{account}/Calls/{sid}.json", data={"Twiml": twiml})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            tell("error", f"Twilio does not take the answer: {error}")

    return say


def only_signed(url: str, token: str) -> Callable[[ServerConnection, Request], Response | None]:
    """Give what refuses sockets that Twilio has not signed for this URL."""
    wanted = base64.b64encode(hmac.digest(token.encode(), url.encode(), "sha1"))

    def admit(_: ServerConnection, request: Request) -> Response | None:
        if hmac.compare_digest(request.headers.get("x-twilio-signature", "").encode(), wanted):
            return None
        return Response(HTTPStatus.FORBIDDEN, "Forbidden", Headers(), b"not signed by Twilio\n")

    return admit


async def take_call(socket: ServerConnection, begin: Callable[[str], Call]) -> None:
    """Follow one media stream to its end."""
    call: Call | None = None
    try:
        async for frame in socket:
            match json.loads(frame):
                case {"event": "start", "start": {"callSid": str(sid)}} if call is None:
                    call = begin(sid)
                case {"event": "media", "media": {"payload": str(payload)}} if call:
                    call.hear(base64.b64decode(payload))
                case {"event": "stop"}:
                    break
    except (ConnectionClosed, ValueError) as error:
        tell("error", f"the media stream broke off: {error}")
    finally:
        if call:
            await call.hang_up()


async def run(options: argparse.Namespace) -> None:
    """Answer calls until the program is ended."""
    account, token = os.environ.get("TWILIO_ACCOUNT_SID", ""), os.environ.get("TWILIO_AUTH_TOKEN", "")
    if (options.say or options.public_url) and not (account and token):
        sys.exit("--say and --public-url need TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN in the environment")
    model = AsyncOpenAI(base_url=options.model_url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=30)
    say = twilio_says(options.twilio_api, account, token) if options.say else None
    admit = only_signed(options.public_url, token) if options.public_url else None
    take = partial(take_call, begin=partial(Call, options, model, say))
    async with serve(take, options.host, options.port, process_request=admit) as server:
        print(f"waits for calls on ws://{options.host}:{server.sockets[0].getsockname()[1]}/", flush=True)
        await server.serve_forever()


def main() -> None:
    """Read the command line and run."""
    shown = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = partial(shown.add_argument, metavar="VALUE")
    add("--vivavoce", default="http://127.0.0.1:8080", help="its URL, default: %(default)s")
    add("--key", default=os.environ.get("GLADIA_API_KEY", "any"), help="its key, default: GLADIA_API_KEY")
    add("--endpointing", type=float, default=0.3, help="seconds of silence that end a question, default: %(default)s")
    add("--model-url", default="http://127.0.0.1:11434/v1", help="default: %(default)s; its key is OPENAI_API_KEY")
    add("--model", default="qwen3:8b", help="default: %(default)s")
    add("--prompt", default=PROMPT, help="what the model is told first")
    add("--host", default="127.0.0.1", help="where to wait for calls, default: %(default)s")
    add("--port", type=int, default=8070, help="default: %(default)s; 0 takes a free one")
    add("--public-url", help="the wss:// URL in the TwiML: takes only calls that Twilio signed for it")
    shown.add_argument("--say", action="store_true", help="have Twilio say the answers, as TWILIO_ACCOUNT_SID")
    add("--twilio-api", default="https://api.twilio.com", help="default: %(default)s")
    with suppress(KeyboardInterrupt):
        asyncio.run(run(shown.parse_args()))


if __name__ == "__main__":
    main()
