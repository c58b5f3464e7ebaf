"""FreeSWITCH's audio WebSockets: what a query and the first text frame say of a call."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import InvalidConfig
from vivavoce.wire.call import request_of
from vivavoce.wire.freeswitch import MAX_METADATA_CHARS, Opening, open_call

CALL = "7dd5e34e-5db4-4edb-a166-757e5d29b941"

JAMBONZ = {
    "callSid": CALL,
    "direction": "inbound",
    "from": "+15083084809",
    "to": "+15083728363",
    "sampleRate": 16000,
    "mixType": "stereo",
    "sip": {"headers": {"user-agent": "gateway"}},
}
"""The first frame of jambonz' listen, by its documentation."""


def opened(query=None, **metadata):
    return open_call(query or {}, json.dumps(metadata))


def request_for(opening):
    return request_of(
        opening.parameters,
        encoding="wav/pcm",
        sample_rate=opening.sample_rate,
        channels=opening.channels,
        metadata={"call": opening.call_id},
    )


@pytest.mark.parametrize("metadata", [None, "", "  "])
def test_a_call_that_says_nothing_is_what_the_modules_do_by_themselves(metadata):
    """One channel at 8 kHz, without a name."""
    assert open_call({}, metadata) == Opening(call_id="", sample_rate=8000, channels=1, parameters={})


@pytest.mark.parametrize(
    ("said", "rate", "channels"),
    [
        ({"rate": "8k", "mix": "mono"}, 8000, 1),
        ({"rate": "16k", "mix": "stereo"}, 16000, 2),
        ({"sample_rate": "16000", "mix": "mixed"}, 16000, 1),
        ({"rate": "48000", "channels": "2"}, 48000, 2),
        ({"rate": "16K", "mix": "STEREO"}, 16000, 2),
    ],
)
def test_rate_and_channels_come_by_query_or_metadata(said, rate, channels):
    """In the words of the modules' own commands, or as numbers."""
    for opening in (open_call(said, None), opened(None, **said)):
        assert (opening.sample_rate, opening.channels) == (rate, channels)


def test_numbers_are_taken_as_json_has_them():
    """Metadata may say 16000 and 2 without quotes."""
    opening = opened(sample_rate=16000, channels=2)
    assert (opening.sample_rate, opening.channels) == (16000, 2)


def test_jambonz_says_everything_by_itself():
    """Its rate, its channels and its call are read out, and the rest is kept."""
    opening = open_call({}, json.dumps(JAMBONZ))
    assert (opening.call_id, opening.sample_rate, opening.channels) == (CALL, 16000, 2)
    assert request_for(opening)["custom_metadata"] == {
        "direction": "inbound",
        "from": "+15083084809",
        "to": "+15083728363",
        "sip": {"headers": {"user-agent": "gateway"}},
        "call": CALL,
    }


def test_options_in_metadata_become_the_session_s():
    """By the names that every bridge knows; lists and numbers are fine."""
    request = request_for(
        opened(uuid=CALL, language=["en", "nl"], endpointing=0.3, custom_vocabulary="Krapp,Beckett", agent="7")
    )
    assert request["language_config"] == {"languages": ["en", "nl"]}
    assert request["endpointing"] == 0.3
    assert request["realtime_processing"]["custom_vocabulary_config"]["vocabulary"] == ["Krapp", "Beckett"]
    assert request["custom_metadata"] == {"agent": "7", "call": CALL}


def test_the_query_goes_before_metadata():
    """The URL is what the operator wrote."""
    opening = opened(
        {"rate": "16k", "language": "en", "call": "a", "metadata.team": "blue"}, rate="8k", language="nl", call="b"
    )
    assert (opening.call_id, opening.sample_rate) == ("a", 16000)
    request = request_for(opening)
    assert request["language_config"] == {"languages": ["en"]}
    assert request["custom_metadata"] == {"team": "blue", "call": "a"}


def test_a_metadata_object_inside_is_kept_as_its_entries():
    """As the parameters of the other bridges name it."""
    assert request_for(opened(metadata={"team": "blue"}, agent="7"))["custom_metadata"] == {
        "agent": "7",
        "team": "blue",
        "call": "",
    }


@pytest.mark.parametrize("text", ["hello there", "5", '["a"]', "{"])
def test_text_that_is_no_object_is_kept_as_it_is(text):
    """FreeSWITCH sends what the dialplan gives it."""
    assert request_for(open_call({"call": "a"}, text))["custom_metadata"] == {"text": text, "call": "a"}


@pytest.mark.parametrize(
    "said",
    [{name: "vv_secret"} for name in ("api_key", "x_gladia_key", "x-gladia-key", "X-Gladia-Key", "token")]
    + [{"metadata": {"api_key": "vv_secret"}}],
)
def test_a_key_in_metadata_is_taken_out_and_never_shown(said):
    """By whatever name a door of ours knows; it is kept with no session and printed in no log."""
    opening = opened(**said, agent="7")
    assert opening.key == "vv_secret"
    assert "vv_secret" not in repr(opening)
    assert "vv_secret" not in json.dumps(request_for(opening))


def test_metadata_that_is_too_much_is_left_out_piece_by_piece():
    """The call is more than what is said about it: entries that fit stay, the others are counted."""
    opening = opened(small="a", large="x" * 3000, last="z")
    assert request_for(opening)["custom_metadata"] == {"small": "a", "last": "z", "call": ""}
    assert opening.left_out == 1
    assert open_call({}, "x" * 3000).left_out == 1


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"rate": "fast"}, "sample_rate"),
        ({"mix": "surround"}, "mix"),
        ({"channels": 3}, "mix"),
        ({"language": {"a": 1}}, "language"),
        ({"endpointing": True}, "endpointing"),
        ({"model": None}, "model"),
    ],
)
def test_what_cannot_be_followed_is_refused(said, problem):
    """A wrong rate would turn speech into noise without a word."""
    with pytest.raises(InvalidConfig) as caught:
        opened(**said)
    assert problem in caught.value.problems[0]


def test_endless_metadata_is_refused_unread():
    """Whatever it holds."""
    with pytest.raises(InvalidConfig):
        open_call({}, "{" + " " * MAX_METADATA_CHARS + "}")


values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["rate", "mix", "channels", "uuid", "language", "metadata", "api_key", "agent"])


@given(
    metadata=st.one_of(st.text(max_size=30), st.dictionaries(names, values, max_size=5).map(json.dumps)),
    query=st.dictionaries(names, st.text(max_size=8), max_size=4),
)
def test_every_first_frame_has_an_answer(metadata, query):
    """An opening or one refusal, and nothing else."""
    try:
        opening = open_call(query, metadata)
    except InvalidConfig:
        return
    assert opening.channels in {1, 2}
    assert all(isinstance(value, str) for value in opening.parameters.values())
