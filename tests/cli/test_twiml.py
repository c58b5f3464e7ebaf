"""`vivavoce twiml` prints what Twilio's own library would, and refuses what Twilio would not do."""

from __future__ import annotations

from xml.etree.ElementTree import canonicalize

import pytest
from twilio.twiml.voice_response import VoiceResponse
from typer.testing import CliRunner

from vivavoce.cli import app, run

SERVER = "https://speech.example.net"


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["twiml", *arguments])
    assert result.exit_code == 0, result.output
    return canonical(result.stdout)


def canonical(document: str) -> str:
    """Give a document without what makes no difference."""
    return canonicalize(document, strip_text=True)


def test_a_forked_call_with_everything():
    """Options become parameters, whatever signs they hold, and the key part of the address."""
    response = VoiceResponse()
    stream = response.start().stream(
        url="wss://speech.example.net/bridges/twilio/vv_key",
        track="both_tracks",
        status_callback="https://example.net/status?a=1&b=2",
    )
    values = {
        "language": "en,nl",
        "endpointing": "0.5",
        "model": "large",
        "custom_vocabulary": "Gladia",
        "callback_url": "https://example.net/hook",
        "metadata.desk": '<7> & "8"',
        "metadata.x": "a=b",
    }
    for name, value in values.items():
        stream.parameter(name=name, value=value)
    response.dial("+15550100")
    assert printed(
        SERVER, "--tracks", "both", "--key", "vv_key", "--status-callback", "https://example.net/status?a=1&b=2",
        "--language", "en,nl", "--endpointing", "0.5", "--model", "large", "--vocabulary", "Gladia",
        "--callback-url", "https://example.net/hook", "--metadata", 'desk=<7> & "8"', "--metadata", "x=a=b",
        "--dial", "+15550100",
    ) == canonical(str(response))  # fmt: skip


@pytest.mark.parametrize("url", [SERVER, "wss://speech.example.net/", f"{SERVER}/bridges/twilio", "speech.example.net"])
def test_a_connected_call(url):
    """The address is the stream's, however the server is named."""
    response = VoiceResponse()
    response.connect().stream(url="wss://speech.example.net/bridges/twilio", track="inbound_track")
    assert printed(url, "--connect") == canonical(str(response))


def test_a_forked_call_is_held():
    """Twilio hangs up where nothing follows the fork."""
    assert printed(SERVER).endswith('<Pause length="3600"></Pause></Response>')


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://speech.example.net"], "TLS only"),
        (["https://speech.example.net?key=7"], "must be like"),
        (["https://speech.example.net/other"], "must be like"),
        ([SERVER, "--connect", "--tracks", "both"], "what the caller says"),
        ([SERVER, "--metadata", "desk"], "desk=7"),
        ([SERVER, "--vocabulary", "x" * 490], "500 characters"),
        (["https://speech .example.net"], "must be like"),
        (["https://me:secret@speech.example.net"], "must be like"),
        (["https://speech.example.net:99999999"], "must be like"),
        (["https://[::1"], "must be like"),
        ([SERVER, "--language", "klingon"], "language must be one of"),
        ([SERVER, "--endpointing", "99"], "endpointing must not be greater than 10"),
    ],
)
def test_what_twilio_would_not_do_is_refused_with_the_way_out(arguments, says, capsys):
    """A mistake is one line on standard error, and nothing is printed."""
    assert run(["twiml", *arguments]) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""
