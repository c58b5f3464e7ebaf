"""The official Python SDK, unmodified, against the running program: sync and async, on real speech."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gladiaio_sdk import GladiaClient, HttpError, LiveV2ConnectSessionOptions
from gladiaio_sdk.v2.live.generated_types import (
    LiveV2InitRequest,
    LiveV2ListParams,
    LiveV2MessagesConfig,
    LiveV2Response,
    LiveV2UnknownWebSocketMessage,
    create_live_v2_web_socket_message_from_json,
)

from laws import MOMENT
from live import EVERYTHING, connected, mid_speech, once, open_session, pieces, transcribe, until_status
from recordings import TRANSCRIPTS, wheel_recording
from relay import bad_line
from server import Server, serving
from sound import interleave, pcm, share_of, with_wav_header
from vivavoce.model import SAMPLE_RATE

pytestmark = [
    # The SDK's own ways, which are not the server's: calls that its dependencies deprecate, sockets that it leaves to
    # the garbage collector, and a worker thread that raises what it has reported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHUNK = 3200
SPEED = 4.0
BECKETT = pcm(wheel_recording("beckett"))
AMID = 7 * 2 * SAMPLE_RATE
"""A byte within an utterance of the recording."""

SPEECH = pcm(wheel_recording("two_cities")[: 13 * SAMPLE_RATE])
TWO_CITIES_START = " ".join(TRANSCRIPTS["two_cities"].split()[:36])
ENDED_S = 90


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Collect what the SDK leaves behind before its warnings count again."""
    yield
    gc.collect()


def live_options() -> LiveV2InitRequest:
    """Give what a careful user of the typed SDK asks for: every message."""
    return LiveV2InitRequest(
        encoding="wav/pcm",
        bit_depth=16,
        sample_rate=16_000,
        channels=1,
        messages_config=LiveV2MessagesConfig(**EVERYTHING),
        custom_metadata={"made by": "the Python SDK"},
    )


class Story:
    """What a session tells its user."""

    def __init__(self, session: Any) -> None:
        self.messages: list[Any] = []
        self.errors: list[Exception] = []
        self.steps: list[str] = []
        self.end: Any = None
        self.ended = threading.Event()
        session.on("message", self.messages.append)
        session.on("error", self.errors.append)
        for step in ("started", "connecting", "connected", "ending"):
            session.on(step, lambda _, step=step: self.steps.append(step))
        session.on("ended", self._on_ended)

    def of(self, kind: str) -> list[Any]:
        """Give the messages of one type."""
        return [message for message in self.messages if message.type == kind]

    @property
    def finals(self) -> list[Any]:
        """The finals' data."""
        return [message.data for message in self.of("transcript") if message.data.is_final]

    @property
    def partials(self) -> list[Any]:
        """The partials' data."""
        return [message.data for message in self.of("transcript") if not message.data.is_final]

    @property
    def text(self) -> str:
        """What the finals say."""
        return "".join(final.utterance.text for final in self.finals).strip()

    async def until_ended(self) -> None:
        """Wait for the end on the event loop."""
        assert await asyncio.to_thread(self.ended.wait, ENDED_S), self.steps

    def _on_ended(self, message: Any) -> None:
        self.end = message
        self.steps.append("ended")
        self.ended.set()


def check_known(value: Any) -> None:
    """Assert that nothing in an SDK object, however deep, is unknown to the SDK."""
    assert not isinstance(value, LiveV2UnknownWebSocketMessage), value
    if is_dataclass(value):
        assert not value._unknown_fields, value
        for each in fields(value):
            check_known(getattr(value, each.name))
    elif isinstance(value, list):
        for item in value:
            check_known(item)


def without_nulls(value: Any) -> Any:
    """Give JSON without the nulls that the SDK does not write."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def check_whole(story: Story, sent: bytes, heard_plainly: list[dict[str, Any]]) -> None:
    """Assert that a session told all that it should, in the SDK's types, and the same as on a bare socket."""
    for message in story.messages:
        check_known(message)
        assert MOMENT.fullmatch(message.created_at)
    assert story.errors == []
    assert story.end.code == 1000
    assert story.steps == ["started", "connecting", "connected", "ending", "ended"]
    assert [without_nulls(final.to_dict()) for final in story.finals] == heard_plainly
    assert {partial.id for partial in story.partials} <= {final.id for final in story.finals}
    assert story.partials
    assert len(story.of("speech_start")) == len(story.of("speech_end")) == len(story.finals)
    assert all(final.utterance.text.startswith(" ") for final in story.finals)
    assert all(word.word.startswith(" ") for final in story.finals for word in final.utterance.words)
    acks = story.of("audio_chunk")
    assert all(ack.acknowledged for ack in acks)
    assert max(ack.data.byte_range[1] for ack in acks) == len(sent)
    assert story.of("stop_recording")[0].acknowledged
    order = ["start_session", "start_recording", "end_recording", "post_transcript", "post_final_transcript"]
    assert [message.type for message in story.messages if message.type in {*order, "end_session"}] == [
        *order,
        "end_session",
    ]


def check_stored(shown: LiveV2Response, story: Story, session_id: str) -> None:
    """Assert that the stored session is whole, typed, and what the socket told."""
    check_known(shown)
    assert (shown.id, shown.status, shown.kind, shown.version) == (session_id, "done", "live", 2)
    assert shown.request_id == f"G-{session_id[:8]}"
    assert shown.custom_metadata == {"made by": "the Python SDK"}
    assert shown.completed_at >= shown.created_at
    assert shown.result.transcription == story.of("post_transcript")[0].data
    assert shown.result.transcription.utterances == [final.utterance for final in story.finals]
    assert shown.result.transcription == story.of("post_final_transcript")[0].data.transcription
    assert shown.result.metadata == story.of("post_final_transcript")[0].data.metadata
    for message in shown.result.messages:
        check_known(create_live_v2_web_socket_message_from_json(message))
    assert shown.request_params.messages_config.receive_acknowledgments is True


@pytest.fixture
async def heard_plainly(server) -> list[dict[str, Any]]:
    """The finals of the recording on a bare socket, at wire speed."""
    heard = await transcribe(server, pieces(BECKETT, CHUNK))
    return heard.finals


def client_of(url: str) -> GladiaClient:
    """Give the SDK's entry point."""
    return GladiaClient(api_key="any", api_url=url)


def play(session: Any, data: bytes, speed: float) -> None:
    """Send audio as a microphone does, at `speed` times real time."""
    started = time.monotonic()
    for i, chunk in enumerate(pieces(data, CHUNK)):
        time.sleep(max(0.0, started + i * 0.1 / speed - time.monotonic()))
        session.send_audio(chunk)


async def play_async(session: Any, data: bytes, speed: float) -> None:
    """Send audio as a microphone does, at `speed` times real time, on the event loop."""
    started = time.monotonic()
    for i, chunk in enumerate(pieces(data, CHUNK)):
        await asyncio.sleep(max(0.0, started + i * 0.1 / speed - time.monotonic()))
        session.send_audio(chunk)


def test_sync_client_does_a_whole_session(server, heard_plainly):
    """Start, stream, hear partials, finals, speech events and acknowledgments, stop, get, download and delete."""
    live = client_of(server.url).live_v2()
    session = live.start_session(live_options())
    story = Story(session)
    assert session.wait_until_ready(ENDED_S)
    for piece, pause_s in mid_speech(BECKETT, AMID, lambda: story.partials):
        session.send_audio(piece)
        time.sleep(pause_s)
    session.stop_recording()
    assert story.ended.wait(ENDED_S)
    assert session.join(ENDED_S)

    check_whole(story, BECKETT, heard_plainly)
    assert share_of(TRANSCRIPTS["beckett"], story.text) > 0.75
    shown = live.get(session.session_id)
    check_stored(shown, story, session.session_id)
    assert without_nulls(shown.to_dict()) == without_nulls(server.result(session.session_id))
    assert live.get_file(session.session_id) == with_wav_header(BECKETT)
    assert live.delete(session.session_id) is True
    for gone in (live.get, live.get_file, live.delete):
        with pytest.raises(HttpError) as refusal:
            gone(session.session_id)
        assert refusal.value.status == 404


async def test_async_client_does_a_whole_session(server, heard_plainly):
    """The same with the asynchronous client."""
    live = client_of(server.url).live_v2_async()
    session = live.start_session(live_options())
    story = Story(session)
    session_id = await session.get_session_id()
    for piece, pause_s in mid_speech(BECKETT, AMID, lambda: story.partials):
        session.send_audio(piece)
        await asyncio.sleep(pause_s)
    session.stop_recording()
    await story.until_ended()

    check_whole(story, BECKETT, heard_plainly)
    shown = await live.get(session_id)
    check_stored(shown, story, session_id)
    assert await live.get_file(session_id) == with_wav_header(BECKETT)
    assert await live.delete(session_id) is True
    for gone in (live.get, live.get_file, live.delete):
        with pytest.raises(HttpError) as refusal:
            await gone(session_id)
        assert refusal.value.status == 404


def test_a_file_sent_before_the_socket_is_open_arrives(server, heard_plainly):
    """Audio and stop that the sync client was given at once are delivered once it is connected; acknowledgments, which
    it always asks for, stay out of sight of a user who did not.
    """
    live = client_of(server.url).live_v2()
    session = live.start_session({"messages_config": {"receive_lifecycle_events": True}})
    story = Story(session)
    session.send_audio(BECKETT)
    session.stop_recording()
    assert story.ended.wait(ENDED_S)

    assert story.end.code == 1000
    assert [without_nulls(final.to_dict()) for final in story.finals] == heard_plainly
    assert story.of("audio_chunk") == story.of("stop_recording") == story.partials == []
    assert live.get_file(session.session_id)[44:] == BECKETT


async def test_every_frame_survives_the_sdks_types(server):
    """Each frame of a session that has reason for every type, read and written again by the SDK, is what it was; so is
    what REST shows of it.
    """
    two = interleave([wheel_recording("beckett"), wheel_recording("clone-test")])
    options = {"channels": 2, "custom_metadata": {"nested": {"a": [1, "b", None]}}, "endpointing": 0.3}
    async with connected(open_session(server, **options)) as socket:
        await socket.send("what?", '{"type": "audio_chunk", "data": {"chunk": "?"}}')
        await socket.play(pcm(two), 4 * SAMPLE_RATE, speed=SPEED, chunk=6400)
        await socket.send('{"type": "stop_recording"}')
        assert await socket.ended() == 1000

    for frame in socket.frames:
        message = create_live_v2_web_socket_message_from_json(frame)
        assert without_nulls(message.to_dict()) == without_nulls(json.loads(frame))
        if message.type != "error":
            check_known(message)
    types = {message["type"] for message in socket.messages}
    assert len(types) == 11
    shown = server.result(socket.session_id)
    typed = LiveV2Response.from_dict(shown)
    check_known(typed)
    assert without_nulls(typed.to_dict()) == without_nulls(shown)


def test_connect_session_joins_what_a_backend_created(server):
    """With acknowledgments switched off by the backend, a browser's side needs only id and URL, and loses nothing."""
    opened = open_session(server, messages_config={**EVERYTHING, "receive_acknowledgments": False})
    live = client_of(server.url).live_v2()
    session = live.connect_session(LiveV2ConnectSessionOptions(id=opened.session_id, url=opened.url))
    story = Story(session)
    assert session.wait_until_ready(ENDED_S)
    play(session, BECKETT, SPEED)
    session.stop_recording()
    assert story.ended.wait(ENDED_S)

    assert story.end.code == 1000
    assert session.session_id == opened.session_id
    assert not [message for message in story.messages if hasattr(message, "acknowledged")]
    assert share_of(TRANSCRIPTS["beckett"], story.text) > 0.75
    assert live.get_file(opened.session_id)[44:] == BECKETT


async def test_async_connect_session_joins_what_a_backend_created(server):
    """The same with the asynchronous client, and a user who switched acknowledgments off on his side."""
    opened = open_session(server)
    live = client_of(server.url).live_v2_async()
    flags = LiveV2MessagesConfig(receive_acknowledgments=False)
    session = live.connect_session(
        LiveV2ConnectSessionOptions(id=opened.session_id, url=opened.url, messages_config=flags)
    )
    story = Story(session)
    while "connected" not in story.steps:
        await asyncio.sleep(0.01)
    session.send_audio(BECKETT)
    session.stop_recording()
    await story.until_ended()

    assert story.end.code == 1000
    assert not [message for message in story.messages if hasattr(message, "acknowledged")]
    assert share_of(TRANSCRIPTS["beckett"], story.text) > 0.75


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server that does not wait long for anybody."""
    data_dir = tmp_path_factory.mktemp("hasty") / "data"
    with serving(data_dir, "--grace", "2", "--idle-timeout", "4") as running:
        yield running


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_end_session_skips_post_processing(hasty, kind):
    """After `end_session` the server waits for the grace, then finishes with what it has and without `post_*`."""
    client = client_of(hasty.url)
    live = client.live_v2() if kind == "sync" else client.live_v2_async()
    session = (
        await asyncio.to_thread(live.start_session, live_options())
        if kind == "sync"
        else live.start_session(live_options())
    )
    story = Story(session)
    await play_async(session, BECKETT, SPEED)
    while not story.finals or max((ack.data.byte_range[1] for ack in story.of("audio_chunk")), default=0) < len(
        BECKETT
    ):
        assert not story.ended.is_set()
        await asyncio.sleep(0.02)
    session.end_session()

    assert story.end.code == 1000
    assert hasty.result(session.session_id)["status"] == "processing"
    shown = await until_status(hasty, session.session_id, "done")
    assert share_of(TRANSCRIPTS["beckett"], shown["result"]["transcription"]["full_transcript"]) > 0.75
    types = [json.loads(message)["type"] for message in shown["result"]["messages"]]
    assert types[-2:] == ["end_recording", "end_session"]
    assert not [kind for kind in types if kind.startswith("post_")]


async def test_async_stop_before_the_socket_is_open(hasty):
    """The asynchronous SDK may forget such a stop; the server ends the idle session itself, with all its results."""
    live = client_of(hasty.url).live_v2_async()
    session = live.start_session(live_options())
    story = Story(session)
    session.send_audio(BECKETT)
    session.stop_recording()
    await story.until_ended()

    assert story.end.code == 1000
    assert (await live.get(session.session_id)).status == "done"
    assert share_of(TRANSCRIPTS["beckett"], story.text) > 0.75


async def test_async_sdk_resumes_on_a_bad_line(server):
    """A session whose connection breaks three times is whole: the file, every final, and a closing with 1000.

    A final that was on its way when the line broke may come again, to the letter.
    """
    plain = await transcribe(server, pieces(SPEECH, CHUNK))
    async with bad_line(server.url, [60_000, 150_000, 300_000]) as line:
        live = client_of(line.url).live_v2_async()
        session = live.start_session(live_options())
        story = Story(session)
        await play_async(session, SPEECH, SPEED)
        session.stop_recording()
        await story.until_ended()
        assert line.drops == 3

    assert story.end.code == 1000
    assert story.steps.count("connected") >= 3
    assert server.file(session.session_id)[44:] == SPEECH
    assert once(without_nulls(final.to_dict()) for final in story.finals) == plain.finals
    for message in story.messages:
        check_known(message)


async def test_sync_sdk_resumes_on_a_bad_line(server):
    """The threaded SDK may itself send a chunk twice on reconnecting; nothing worse happens to its session."""
    async with bad_line(server.url, [60_000, 150_000, 300_000]) as line:
        live = client_of(line.url).live_v2()
        session = await asyncio.to_thread(live.start_session, live_options())
        story = Story(session)
        await asyncio.to_thread(session.wait_until_ready, 10)
        await asyncio.to_thread(play, session, SPEECH, SPEED)
        session.stop_recording()
        await story.until_ended()
        assert line.drops == 3

    assert story.end.code == 1000
    assert share_of(TWO_CITIES_START, story.text) > 0.8
    assert 0 <= len(server.file(session.session_id)) - 44 - len(SPEECH) <= 3 * 2 * CHUNK
    assert len({final.id for final in story.finals}) == len(once(final.to_dict() for final in story.finals))


@pytest.fixture(scope="module")
def listed(server) -> list[str]:
    """Ids of five finished sessions, newest first: three of one desk, and two of another."""
    ids = []
    for i in range(5):
        opened = open_session(server, custom_metadata={"desk": "north" if i % 2 else "south", "batch": "list"})
        asyncio.run(_finish(opened))
        ids.append(opened.session_id)
    return ids[::-1]


async def _finish(opened: Any) -> None:
    async with connected(opened) as socket:
        await socket.send('{"type": "stop_recording"}')
        assert await socket.ended() == 1000


def test_list_filters_by_everything_the_sdk_offers(server, listed):
    """Status, metadata and dates, alone and together, as typed parameters and as a plain dict."""
    live = client_of(server.url).live_v2()
    today = datetime.now(UTC).date()
    batch = {"batch": "list"}

    def ids(**params: Any) -> list[str]:
        shown = live.list(LiveV2ListParams(custom_metadata=params.pop("custom_metadata", batch), **params))
        check_known(shown)
        return [item.id for item in shown.items]

    assert ids() == listed
    assert ids(custom_metadata={**batch, "desk": "north"}) == [listed[1], listed[3]]
    assert ids(custom_metadata={"batch": "none"}) == []
    assert ids(status=["done"]) == listed
    assert ids(status=["queued", "processing", "error"]) == []
    assert ids(status=["error", "done"], limit=2) == listed[:2]
    assert ids(date=today.isoformat()) == listed
    assert ids(date=(today - timedelta(days=1)).isoformat()) == []
    assert ids(after_date=today.isoformat(), before_date=(today + timedelta(days=1)).isoformat()) == listed
    assert ids(before_date=today.isoformat()) == []
    assert [item.id for item in live.list({"custom_metadata": batch, "offset": 3}).items] == listed[3:]
    assert live.list({"custom_metadata": batch}).items[0] == live.get(listed[0])


async def test_list_pages_lead_from_first_to_last(server, listed):
    """Following `next` by its URL gives every session once, and `first` and `current` lead where they say."""
    live = client_of(server.url).live_v2_async()
    page = await live.list({"limit": 2, "custom_metadata": {"batch": "list"}})
    first, seen = page, [item.id for item in page.items]
    while page.next:
        page = await live.list({"url": page.next})
        again = await live.list(LiveV2ListParams(url=page.current))
        assert again.items == page.items
        seen += [item.id for item in page.items]

    assert seen == listed
    assert (await live.list({"url": page.first})).items == first.items
    assert page.next is None


@pytest.mark.parametrize("extra", [{}, {"http_headers": {"x-gladia-version": "mine/1"}}, {"region": "eu-west"}])
def test_options_of_the_client_are_no_obstacle(server, extra):
    """Regions, headers and websocket-schemed URLs, as the SDK allows them, create sessions like any other."""
    live = GladiaClient(api_key="any", api_url=f"ws{server.url.removeprefix('http')}", **extra).live_v2()
    session = live.start_session({})
    story = Story(session)
    session.stop_recording()
    assert story.ended.wait(ENDED_S)
    assert story.end.code == 1000


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"endpointing": 11}, 400, "endpointing"),
        ({"sample_rate": "high"}, 400, "sample_rate"),
        ({"langauge_config": {}}, 400, "langauge_config"),
        ({"language_config": {"languages": ["tlh"]}}, 400, "language_config"),
        ({"language_config": {"languages": ["nl"]}}, 422, "nl"),
        (
            {"realtime_processing": {"translation": True, "translation_config": {"target_languages": ["fr"]}}},
            422,
            "translation",
        ),
    ],
)
def test_refused_options_reach_the_user_as_they_are(server: Server, options, status, said):
    """The SDK's error names status, field and reason, and the session ends without a retry."""
    live = client_of(server.url).live_v2()
    session = live.start_session(options)
    story = Story(session)
    assert session.join(ENDED_S)

    assert story.end is not None
    refusal = next(error for error in story.errors if isinstance(error, HttpError))
    assert refusal.status == status
    assert said in str(refusal)
    assert bool(refusal.invalid_parameters) == (status == 400)
