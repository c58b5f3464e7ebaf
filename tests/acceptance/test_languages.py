"""Languages through the real program, with a Whisper model of the right shape and no sense: what it says is made up,
but which language it says it in is decided like a real one's.
"""

from __future__ import annotations

import pytest

from live import STOP, connected, is_final, moved, open_session, pieces, transcribe
from recordings import wheel_recording
from server import serving, start
from sound import pcm
from vivavoce.model import LANGUAGES, SAMPLE_RATE
from whisper_model import make_model

CHUNK = 3200
SPEECH = pcm(wheel_recording("two_cities")[: 10 * SAMPLE_RATE])


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Give the options of a server with a multilingual model."""
    model = make_model(tmp_path_factory.mktemp("models") / "many")
    return ["--engine", "faster-whisper", "--model", str(model), "--decode-threads", "1"]


async def test_the_language_is_the_first_utterances_or_each_ones_own(options, tmp_path):
    """It is detected once and kept; with code switching each time; among those listed; or not at all if one is."""
    with serving(tmp_path / "data", *options) as server:
        default = server.get("/v1/models")["models"][0]
        assert default["name"] == default["engine"] == "faster-whisper"
        assert default["languages"] == sorted(LANGUAGES)
        detected = await transcribe(server, pieces(SPEECH, CHUNK))
        listed = await transcribe(server, [SPEECH], language_config={"languages": ["nl", "hi"], "code_switching": True})
        told = await transcribe(server, [SPEECH], language_config={"languages": ["nl"], "code_switching": True})
    assert len(detected.utterances) > 1
    assert len({utterance["language"] for utterance in detected.utterances}) == 1
    assert {utterance["language"] for utterance in listed.utterances} <= {"nl", "hi"}
    assert {data["utterance"]["language"] for data in told.transcripts} == {"nl"}
    (whole,) = told.of("post_final_transcript")
    assert whole["data"]["transcription"]["languages"] == ["nl"]
    for heard in (detected, listed, told):
        assert all(0 <= word["start"] <= word["end"] <= 10 for word in heard.words)


async def test_a_kept_language_outlives_a_killed_server(options, tmp_path):
    """What was decided before a crash is decided after it."""
    killed = start(tmp_path / "data", *options)
    opened = open_session(killed)
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[:200_000], CHUNK))
        first = await socket.until(is_final)
        await socket.acked_up_to(200_000)
        killed.process.kill()
        await socket.ended()
    killed.process.wait()
    killed.process.stdout.close()
    killed.http.close()
    with serving(tmp_path / "data", *options) as server:
        async with connected(moved(opened, server)) as socket:
            await socket.send(SPEECH[200_000:], STOP)
            assert await socket.ended() == 1000
        shown = server.result(opened.session_id)["result"]["transcription"]
    assert len(shown["utterances"]) > 1
    assert shown["languages"] == [first["data"]["utterance"]["language"]]


async def test_a_language_that_the_engine_lacks_is_refused(tmp_path_factory, tmp_path):
    """422 names those it has."""
    model = make_model(tmp_path_factory.mktemp("models") / "english", multilingual=False)
    with serving(tmp_path / "data", "--engine", "faster-whisper", "--model", str(model)) as server:
        refused = server.http.post("/v2/live", json={"language_config": {"languages": ["nl", "en"]}})
    assert refused.status_code == 422
    assert "does not know nl (it knows: en)" in refused.json()["message"]
