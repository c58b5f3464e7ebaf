"""Add-ons through the real program: what they say of finals, and what is stored of it."""

from __future__ import annotations

import json

from live import STOP, connected, open_session, transcribe
from recordings import wheel_recording
from sound import pcm
from vivavoce.model import SAMPLE_RATE

SPEECH = pcm(wheel_recording("two_cities")[: 10 * SAMPLE_RATE])


async def test_each_final_is_judged_and_the_judgments_are_stored(server):
    """Every sentence of every final has a sentiment: over the socket right after the final, and over REST as JSON."""
    heard = await transcribe(server, [SPEECH], realtime_processing={"sentiment_analysis": True})
    said = [message["data"] for message in heard.of("sentiment_analysis")]
    assert len(said) == len(heard.finals) > 1
    assert {each["utterance_id"] for each in said} == {final["id"] for final in heard.finals}
    for each in said:
        text = " ".join(result["text"] for result in each["results"])
        assert f" {text}" == each["utterance"]["text"]
        assert each["results"][0]["start"] == each["utterance"]["start"]
    sentiments = [result["sentiment"] for each in said for result in each["results"]]
    assert {"positive", "negative"} <= set(sentiments), "the best of times, the worst of times"
    shown = server.result(heard.session_id)["result"]["sentiment_analysis"]
    results = json.loads(shown.pop("results"))
    assert results == [
        result for each in sorted(said, key=lambda each: each["utterance_id"]) for result in each["results"]
    ]
    assert shown.pop("exec_time") > 0
    assert shown == {"success": True, "is_empty": False, "error": None}
    (final,) = heard.of("post_final_transcript")
    assert json.loads(final["data"]["sentiment_analysis"]["results"]) == results


async def test_add_ons_can_be_asked_for_without_their_messages(server):
    """A client that wants none of the messages still finds the results over REST."""
    opened = open_session(
        server,
        messages_config={"receive_realtime_processing_events": False},
        realtime_processing={"sentiment_analysis": True},
    )
    async with connected(opened) as socket:
        await socket.send(SPEECH, STOP)
        assert await socket.ended() == 1000
    assert socket.of("sentiment_analysis") == []
    shown = server.result(opened.session_id)["result"]
    assert json.loads(shown["sentiment_analysis"]["results"])
    assert not any('"type":"sentiment_analysis"' in message for message in shown["messages"])


async def test_silence_leaves_empty_results(server):
    """A feature that had nothing to look at succeeded, and found nothing."""
    heard = await transcribe(server, [bytes(SAMPLE_RATE)], realtime_processing={"sentiment_analysis": True})
    assert server.result(heard.session_id)["result"]["sentiment_analysis"] == {
        "success": True, "is_empty": True, "exec_time": 0.0, "error": None, "results": "[]"
    }  # fmt: skip


async def test_vocabulary_and_spelling_change_what_everybody_sees(server):
    """Partials, finals, other add-ons and the store have the same text, with the spoken words' times."""
    plain = await transcribe(server, [SPEECH])
    heard = await transcribe(
        server,
        [SPEECH],
        realtime_processing={
            "custom_vocabulary": True,
            "custom_vocabulary_config": {
                "vocabulary": [{"value": "Wurst", "intensity": 0.9, "pronunciations": ["worst"]}]
            },
            "custom_spelling": True,
            "custom_spelling_config": {"spelling_dictionary": {"T.I.M.E.S.": ["times"], "Wurstel": ["wurst"]}},
            "sentiment_analysis": True,
        },
    )
    assert "the Wurstel of T.I.M.E.S" in heard.text(), heard.text()
    assert "worst" not in heard.text()
    for message in heard.of("transcript"):
        assert " worst" not in message["data"]["utterance"]["text"]
    judged = " ".join(
        result["text"] for message in heard.of("sentiment_analysis") for result in message["data"]["results"]
    )
    assert judged == heard.text()
    assert server.result(heard.session_id)["result"]["transcription"]["utterances"] == heard.utterances
    times = [(word["start"], word["end"]) for word in plain.words]
    assert [(word["start"], word["end"]) for word in heard.words] == times


async def test_a_summary_is_made_of_what_was_said(server):
    """By default it is picked from the transcript, announced between the transcript and the result, and stored."""
    heard = await transcribe(server, [SPEECH], post_processing={"summarization": True})
    (summary,) = heard.of("post_summarization")
    assert summary["error"] is None
    assert summary["data"]["results"]
    types = [kind for kind in heard.types if kind.startswith("post_")]
    assert types == ["post_transcript", "post_summarization", "post_final_transcript"]
    shown = server.result(heard.session_id)["result"]["summarization"]
    assert (shown["success"], shown["results"]) == (True, summary["data"]["results"])


def test_translation_without_a_backend_says_which_setting_provides_it(server):
    """422 rather than a session whose translations never come."""
    body = {"realtime_processing": {"translation": True, "translation_config": {"target_languages": ["fr"]}}}
    answer = server.http.post("/v2/live", json=body)
    assert answer.status_code == 422
    assert "--llm-url" in answer.json()["message"]
    assert "--translation-models" in answer.json()["message"]
