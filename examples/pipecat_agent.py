"""A phone agent with Pipecat: its Gladia service, unmodified, listens through vivavoce.

    python pipecat_agent.py --vivavoce http://127.0.0.1:8080 --model-url http://127.0.0.1:11434/v1 --model qwen3:8b

Twilio, or `call.py`, connects to ws://127.0.0.1:8070/. Answers are printed; put a text-to-speech service where the
pipeline says so to have them heard. vivavoce's own voice activity decides on turns, so Pipecat needs no detector.
"""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from loguru import logger
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.gladia.config import LanguageConfig, MessagesConfig
from pipecat.services.gladia.stt import GladiaSTTService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_start import ExternalUserTurnStartStrategy
from pipecat.turns.user_stop import ExternalUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

PROMPT = "You answer telephone calls. Reply in one or two short sentences that sound well when they are spoken."
TURNS = LLMUserAggregatorParams(
    user_turn_strategies=UserTurnStrategies(
        start=[ExternalUserTurnStartStrategy()],
        # Pipecat's own 0.5 s are for finals that come in pieces; an utterance has one here.
        stop=[ExternalUserTurnStopStrategy(timeout=0.1)],
    )
)


def listener(options: argparse.Namespace) -> GladiaSTTService:
    """Give the service that listens."""
    return GladiaSTTService(
        url=f"{options.vivavoce}/v2/live",
        api_key=os.environ.get("GLADIA_API_KEY", "any"),
        settings=GladiaSTTService.Settings(
            language_config=LanguageConfig(languages=["en"]),
            endpointing=options.endpointing,
            maximum_duration_without_endpointing=15,
            messages_config=MessagesConfig(receive_partial_transcripts=True),
            enable_vad=True,
        ),
    )


async def answer(websocket: WebSocket, options: argparse.Namespace) -> None:
    """Hold one call."""
    await websocket.accept()
    _, call = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        call.stream_id, call.call_id, params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    params = FastAPIWebsocketParams(serializer=serializer, audio_in_enabled=True)
    transport = FastAPIWebsocketTransport(websocket, params)
    model = OpenAILLMService(
        base_url=options.model_url,
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        settings=OpenAILLMService.Settings(model=options.model, system_instruction=PROMPT),
    )
    caller, agent = LLMContextAggregatorPair(LLMContext(), user_params=TURNS)
    caller.add_event_handler("on_user_turn_message_added", lambda _, added: tell("caller", added.content))
    agent.add_event_handler("on_assistant_turn_stopped", lambda _, turn: tell("agent", turn.content))
    pipeline = Pipeline(
        [
            transport.input(),
            listener(options),
            caller,
            model,
            # a text-to-speech service, and `audio_out_enabled=True` above
            transport.output(),
            agent,
        ]
    )
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=8000, audio_out_sample_rate=8000))

    async def hang_up(*_: object) -> None:
        await worker.stop_when_done()

    transport.add_event_handler("on_client_disconnected", hang_up)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def tell(who: str, text: str) -> None:
    """Print what somebody said."""
    print(f"{who}: {text}", flush=True)


def main() -> None:
    """Read the command line and answer calls until the program is ended."""
    shown = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown.add_argument("--vivavoce", default="http://127.0.0.1:8080", help="its URL, default: %(default)s")
    shown.add_argument("--endpointing", type=float, default=0.3, help="seconds of silence that end a question")
    shown.add_argument("--model-url", default="http://127.0.0.1:11434/v1", help="default: %(default)s")
    shown.add_argument("--model", default="qwen3:8b", help="default: %(default)s; its key is OPENAI_API_KEY")
    shown.add_argument("--port", type=int, default=8070, help="default: %(default)s")
    options = shown.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    app = FastAPI()

    @app.websocket("/")
    async def call(websocket: WebSocket) -> None:
        await answer(websocket, options)

    print(f"waits for calls on ws://127.0.0.1:{options.port}/", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
