"""The parameters of a call become an init request."""

from __future__ import annotations

import pytest

from vivavoce.errors import InvalidConfig, Unsupported, reason_of
from vivavoce.wire.call import NAMES, request_of
from vivavoce.wire.schema import Capabilities, parse_request


def of(parameters, **fields):
    return request_of(parameters, **{"encoding": "wav/ulaw", "sample_rate": 8000, "metadata": {}, **fields})


def test_a_call_without_parameters_asks_for_nothing_but_its_format():
    request = of({}, channels=2)
    options = parse_request(request, Capabilities(languages=frozenset({"en"}))).options
    assert (options.audio.encoding, options.audio.sample_rate, options.audio.channels) == ("ulaw", 8000, 2)
    assert set(request) == {"encoding", "sample_rate", "channels", "custom_metadata", "messages_config"}


def test_parameters_reach_the_request():
    request = of(
        {
            "language": "en, nl",
            "endpointing": "0.3",
            "model": "large",
            "custom_vocabulary": "Gladia, Westeros",
            "callback_url": "https://example.org/hook",
        }
    )
    assert request["language_config"] == {"languages": ["en", "nl"]}
    assert request["endpointing"] == 0.3
    assert request["model"] == "large"
    assert request["realtime_processing"]["custom_vocabulary_config"] == {"vocabulary": ["Gladia", "Westeros"]}
    assert request["callback_config"] == {"url": "https://example.org/hook"}


def test_the_calls_own_metadata_wins_over_what_it_asks_to_keep():
    request = of(
        {"metadata": '{"desk": 3, "callSid": "forged"}', "metadata.queue": "sales"}, metadata={"callSid": "CA1"}
    )
    assert request["custom_metadata"] == {"desk": 3, "queue": "sales", "callSid": "CA1"}


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"endpointing": "soon"}, "endpointing"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[" * 5000}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata.note": "x" * 2000}, "metadata"),
        ({"language": "en,klingon"}, "language"),
        ({"endpointing": "99"}, "endpointing"),
        ({"endpointing": "nan"}, "endpointing"),
        ({"callback_url": "ftp://example.org"}, "callback_url"),
        ({"custom_vocabulary": ",".join(["Krapp"] * 20_000)}, "custom_vocabulary"),
    ],
)
def test_a_parameter_that_no_session_can_have_is_named(parameters, field):
    """As the parameter, whatever v2 calls it."""
    with pytest.raises(InvalidConfig) as refused:
        of(parameters)
    assert refused.value.problems[0].startswith(f"{field} must")


@pytest.mark.parametrize(
    ("said", "codes"),
    [("en-US", ["en"]), ("EN, pt_BR", ["en", "pt"]), ("auto", None), ("Auto", None), ("en,auto", None), ("", None)],
)
def test_languages_may_have_a_region_or_be_left_to_the_server(said, codes):
    """As on the simple stream."""
    asked = of({"language": said}).get("language_config")
    assert asked == (None if codes is None else {"languages": codes})


def test_what_this_installation_lacks_is_named_as_the_parameter_too():
    """The schema knows the language, the engine does not."""
    with pytest.raises(Unsupported) as refused:
        parse_request(of({"language": "nl"}), Capabilities(languages=frozenset({"en"})))
    assert reason_of(refused.value, NAMES).startswith("language: ")
