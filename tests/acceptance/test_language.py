"""Translation and summaries through the real program, with a language model's endpoint that the test answers for."""

from __future__ import annotations

import json
from contextlib import contextmanager

from chat import KEY, chatting, fails, says
from live import transcribe
from recordings import wheel_recording
from server import serving
from sound import pcm
from vivavoce.model import SAMPLE_RATE

SPEECH = pcm(wheel_recording("two_cities")[: 10 * SAMPLE_RATE])
WANTED = {
    "realtime_processing": {
        "translation": True,
        "translation_config": {"target_languages": ["nl", "fr"], "context": "a novel"},
    },
    "post_processing": {"summarization": True, "summarization_config": {"type": "bullet_points"}},
}


def shouting(question):
    """Translate by shouting, and sum up in two points."""
    if "sentences" in question.given:
        shouted = [f"{question.given['to']} {text.upper()}" for text in question.given["sentences"]]
        return says(json.dumps({"translations": shouted}))
    return says('{"points": ["It was the best of times.", "It was the worst of times."]}')


@contextmanager
def serving_with(chat, place, *options):
    """Run a server that asks this endpoint."""
    endpoint = ["--llm-url", chat.url, "--llm-model", "m", "--llm-key", KEY, "--llm-retries", "0"]
    with serving(place, *endpoint, *options) as server:
        yield server


async def test_each_final_is_translated_and_the_whole_is_summed_up(tmp_path):
    """Every final comes in every language, with timed words, and the summary before the session ends; all is stored."""
    with chatting(shouting) as chat, serving_with(chat, tmp_path / "data", "--summarizer", "llm") as server:
        heard = await transcribe(server, [SPEECH], **WANTED)
        shown = server.result(heard.session_id)["result"]
    said = [message["data"] for message in heard.of("translation")]
    finals = {final["id"]: final["utterance"] for final in heard.finals}
    assert {(each["utterance_id"], each["target_language"]) for each in said} == {
        (final, target) for final in finals for target in ("nl", "fr")
    }
    for each in said:
        original, translated = finals[each["utterance_id"]], each["translated_utterance"]
        assert each["original_language"] == "en"
        assert translated["language"] == each["target_language"]
        assert translated["text"].startswith(f" {each['target_language']} IT WAS")
        assert (translated["start"], translated["end"]) == (original["start"], original["end"])
        times = [time for word in translated["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
    [summary] = heard.of("post_summarization")
    assert summary["data"] == {"results": "- It was the best of times.\n- It was the worst of times."}
    assert shown["summarization"]["results"] == summary["data"]["results"]
    assert {translation["languages"][0] for translation in shown["translation"]["results"]} == {"nl", "fr"}


async def test_a_failing_endpoint_fails_its_messages_and_nothing_else(tmp_path):
    """Finals come as ever; each translation says why there is none, and no log has the key or what was said."""
    with (
        chatting(lambda _: fails(401)) as chat,
        serving_with(chat, tmp_path / "data", "--log-level", "debug") as server,
    ):
        heard = await transcribe(server, [SPEECH], **WANTED)
        assert server.stop() == 0
        log = server.log
    assert heard.finals
    refused = {"message": "the language model endpoint refuses this server's key"}
    assert [(message["error"], message["data"]) for message in heard.of("translation")] == [(refused, None)] * (
        2 * len(heard.finals)
    )
    [summary] = heard.of("post_summarization")
    assert summary["data"]["results"].startswith("- It was the"), "sentences are picked without any endpoint"
    assert KEY not in log
    assert "times" not in log


def test_without_a_backend_translation_is_refused(server):
    """The answer names the settings that would help."""
    answer = server.http.post("/v2/live", json=WANTED)
    assert answer.status_code == 422
    assert "--llm-url with --llm-model, or --translation-models" in answer.json()["message"]
