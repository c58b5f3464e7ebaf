"""A voice agent with LiveKit: its Gladia plugin, unmodified, listens through vivavoce.

    export LIVEKIT_URL=ws://127.0.0.1:7880 LIVEKIT_API_KEY=devkey LIVEKIT_API_SECRET=secret
    python livekit_agent.py dev

VIVAVOCE_URL names the server (http://127.0.0.1:8080), GLADIA_API_KEY its key; OPENAI_BASE_URL, OPENAI_API_KEY and MODEL
name the model. Answers go to the room as text; give the session a `tts` to have them heard. vivavoce's finals decide on
turns, so no other detector is needed.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentServer,
    AgentSession,
    APIConnectionError,
    ChatMessage,
    ConversationItemAddedEvent,
    JobContext,
    ModelSettings,
    TurnHandlingOptions,
    cli,
    stt,
)
from livekit.plugins import gladia, openai

PROMPT = "You answer telephone calls. Reply in one or two short sentences that sound well when they are spoken."

server = AgentServer()


class Receptionist(Agent):
    """Answers in short sentences, and keeps listening when the connection to vivavoce is lost."""

    def __init__(self) -> None:
        super().__init__(instructions=PROMPT)

    async def stt_node(
        self, audio: AsyncIterable[rtc.AudioFrame], settings: ModelSettings
    ) -> AsyncIterator[stt.SpeechEvent]:
        """Listen; a stream that ends before the call does is an error, after which the session opens a new one.

        The plugin's streams end without a word when their connection is lost. Left at that, the agent would hear
        nothing for the rest of the call.
        """
        async for event in Agent.default.stt_node(self, audio, settings):
            yield event
        raise APIConnectionError("the stream of transcripts ended")


def conversation() -> AgentSession:
    """Give a session that listens through vivavoce and asks an OpenAI-compatible model."""
    server_url = os.environ.get("VIVAVOCE_URL", "http://127.0.0.1:8080")
    session = AgentSession(
        stt=gladia.STT(
            base_url=f"{server_url}/v2/live",
            api_key=os.environ.get("GLADIA_API_KEY", "any"),
            languages=["en"],
            code_switching=False,
            endpointing=0.3,
            maximum_duration_without_endpointing=15,
        ),
        llm=openai.LLM(model=os.environ.get("MODEL", "qwen3:8b")),
        vad=None,
        turn_handling=TurnHandlingOptions(turn_detection="stt", endpointing={"min_delay": 0.0}),
    )
    session.on("conversation_item_added", tell)
    return session


def tell(added: ConversationItemAddedEvent) -> None:
    """Print what somebody said."""
    if isinstance(added.item, ChatMessage):
        print(f"{'caller' if added.item.role == 'user' else 'agent'}: {added.item.text_content}", flush=True)


@server.rtc_session()
async def answer(job: JobContext) -> None:
    """Hold one conversation in a room."""
    await conversation().start(Receptionist(), room=job.room)


if __name__ == "__main__":
    cli.run_app(server)
