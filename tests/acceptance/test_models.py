"""Several models in one server, through the real program; what a made-up Whisper says is nonsense."""

from __future__ import annotations

import pytest

from live import STOP, connected, is_final, moved, open_session, pieces, transcribe
from recordings import wheel_recording
from server import serving, start
from sound import pcm
from vivavoce.model import LANGUAGES, SAMPLE_RATE
from whisper_model import make_model

CHUNK = 3200
SPEECH = pcm(wheel_recording("two_cities")[: 8 * SAMPLE_RATE])
DUTCH = {"languages": ["nl"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Give what the file says of a multilingual model."""
    model = make_model(tmp_path_factory.mktemp("models") / "many")
    return f'engine = "faster-whisper"\nmodel = "{model}"\n'


async def test_each_session_has_the_model_that_it_names(table, tmp_path):
    """Loaded when it is first asked for, listed with its languages before; what it lacks is refused, by name."""
    (tmp_path / "models.toml").write_text(f'[many]\n{table}\n[pair]\n{table}partials = "moonshine"\n')
    options = ["--models-file", str(tmp_path / "models.toml"), "--decode-threads", "1"]
    with serving(tmp_path / "data", *options) as server:
        before = server.get("/v1/models")["models"]
        english = await transcribe(server, [SPEECH], model="solaria-1")
        dutch = await transcribe(server, [SPEECH], model="many", language_config=DUTCH)
        opened = open_session(server, model="pair", language_config={"languages": ["en"]})
        async with connected(opened) as pair:
            await pair.send(*pieces(SPEECH[:64_000], CHUNK))
            quick = await pair.until(lambda message: message["type"] == "transcript" and not is_final(message))
            await pair.send(STOP)
            assert await pair.ended() == 1000
        refused = server.http.post("/v2/live", json={"language_config": DUTCH})
        after = {model["name"]: model for model in server.get("/v1/models")["models"]}
        assert server.result(dutch.session_id)["request_params"]["model"] == "many"
    assert [model["name"] for model in before[:3]] == ["moonshine", "many", "pair"]
    assert [model["loaded"] for model in before[:3]] == [True, False, False]
    assert before[1]["languages"] == sorted(LANGUAGES)
    assert "best of times" in english.text().lower()
    assert {utterance["language"] for utterance in dutch.utterances} == {"nl"}
    assert "it was" in quick["data"]["utterance"]["text"].lower()
    assert pair.text()
    assert "it was" not in pair.text().lower()
    assert refused.status_code == 422
    assert "does not know nl (it knows: en)" in refused.json()["message"]
    assert after["many"]["loaded"]
    assert after["whisper-small"]["get"] == "vivavoce models download whisper-small"
    assert not after["whisper-small"]["installed"]


async def test_a_session_is_taken_up_with_its_model_after_a_crash(table, tmp_path):
    """The next process loads it for what is left of the session."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "models.toml").write_text(f"[many]\n{table}")
    killed = start(data, "--decode-threads", "1")
    opened = open_session(killed, model="many", language_config=DUTCH)
    async with connected(opened) as socket:
        await socket.send(*pieces(SPEECH[:128_000], CHUNK))
        await socket.until(is_final)
        await socket.acked_up_to(128_000)
        killed.process.kill()
        await socket.ended()
    killed.process.wait()
    killed.process.stdout.close()
    killed.http.close()
    with serving(data, "--decode-threads", "1") as server:
        async with connected(moved(opened, server)) as socket:
            await socket.send(SPEECH[128_000:], STOP)
            assert await socket.ended() == 1000
        shown = server.result(opened.session_id)["result"]["transcription"]
    assert len(shown["utterances"]) > 1
    assert shown["languages"] == ["nl"]
