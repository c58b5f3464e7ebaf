"""`vivavoce twiml`: the instructions by which Twilio streams a call to this server.

The attributes are those of https://www.twilio.com/docs/voice/twiml/stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import typer

from vivavoce.reception.origin import host_of

PATH = "/bridges/twilio"

HOLD_S = 3600
"""How long a forked call is held where nobody is dialled."""

MAX_PARAMETER_CHARS = 500
"""What Twilio passes on of a parameter's name and value together."""

_SECURE = {"https", "wss"}


class Tracks(StrEnum):
    """The sides of a call that are streamed."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    BOTH = "both"


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    epilog = "Example: vivavoce twiml https://speech.example.net --tracks both --language en --dial +15550100"
    app.command("twiml", epilog=epilog, rich_help_panel="Server")(twiml)


def twiml(
    url: Annotated[str, typer.Argument(metavar="URL", help="How Twilio reaches the server, such as https://HOST.")],
    tracks: Annotated[
        Tracks, typer.Option(help="What is transcribed: the caller, what the caller hears, or both as two channels.")
    ] = Tracks.INBOUND,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Hand the call over to the stream (<Connect>) instead of forking it (<Start>)."),
    ] = False,
    dial: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Whom the caller is connected to while the call is streamed.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="API key that the call belongs to; it becomes part of the stream's address.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODES", help="Languages that are spoken, such as en or en,nl.")
    ] = None,
    endpointing: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds of silence that end an utterance.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model.")] = None,
    vocabulary: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Words and names to listen for, with commas between them.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What to keep with the session; may be repeated.")
    ] = None,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where messages are posted; the server needs --bridge-callbacks.")
    ] = None,
    status_callback: Annotated[
        str | None, typer.Option(metavar="URL", help="Where Twilio tells when the stream starts, ends and fails.")
    ] = None,
) -> None:
    """Print the TwiML that streams a call here: for a TwiML Bin, or as the answer of your voice webhook.

    The session's metadata gets the ids callSid and streamSid by itself. Without --dial a forked call is held for an
    hour, since Twilio hangs up where no instruction follows; with --connect it is held by the stream. Twilio connects
    only the caller's side, so --connect goes with --tracks inbound alone.
    """
    if connect and tracks is not Tracks.INBOUND:
        raise typer.BadParameter(
            "with --connect Twilio streams what the caller says, and nothing else", param_hint="--tracks"
        )
    parameters = {
        "language": language,
        "endpointing": None if endpointing is None else f"{endpointing:g}",
        "model": model,
        "custom_vocabulary": vocabulary,
        "callback_url": callback_url,
        **dict(_kept(metadata or [])),
    }
    given = {name: value for name, value in parameters.items() if value}
    _require_readable(given)
    attributes = {"url": _address(url, key), "track": f"{tracks}_track" if tracks is not Tracks.BOTH else "both_tracks"}
    if status_callback is not None:
        attributes["statusCallback"] = status_callback
    typer.echo(_document("Connect" if connect else "Start", attributes, given, dial))


def _document(verb: str, attributes: Mapping[str, str], parameters: Mapping[str, str], dial: str | None) -> str:
    response = ET.Element("Response")
    stream = ET.SubElement(ET.SubElement(response, verb), "Stream", dict(attributes))
    for name, value in parameters.items():
        if len(name) + len(value) > MAX_PARAMETER_CHARS:
            raise typer.BadParameter(
                f"{name} and its value are longer than the {MAX_PARAMETER_CHARS} characters Twilio takes"
            )
        ET.SubElement(stream, "Parameter", {"name": name, "value": value})
    if dial is not None:
        ET.SubElement(response, "Dial").text = dial
    elif verb == "Start":
        ET.SubElement(response, "Pause", {"length": str(HOLD_S)})
    ET.indent(response)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(response, encoding="unicode")


def _require_readable(parameters: Mapping[str, str]) -> None:
    """Refuse what the server would refuse each call for."""
    from vivavoce.errors import InvalidConfig, reason_of
    from vivavoce.wire.call import request_of

    try:
        request_of(parameters, encoding="wav/ulaw", sample_rate=8_000, metadata={})
    except InvalidConfig as error:
        raise typer.BadParameter(f"the server would refuse the call: {reason_of(error)}") from None


def _address(url: str, key: str | None) -> str:
    """Give the stream's address at a server; Twilio takes no query in it."""
    try:
        parts = urlsplit(url if "//" in url else f"https://{url}")
        named = parts.scheme in _SECURE and host_of(parts.netloc) and parts.port != 0
    except ValueError:
        named = False
    if not named or parts.query or parts.fragment or parts.path.rstrip("/") not in {"", PATH}:
        raise typer.BadParameter("must be like https://speech.example.net: Twilio takes TLS only", param_hint="URL")
    return f"wss://{parts.netloc}{PATH}" + (f"/{quote(key, safe='')}" if key else "")


def _kept(metadata: list[str]) -> Iterator[tuple[str, str]]:
    for entry in metadata:
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise typer.BadParameter("must be like desk=7", param_hint="--metadata")
        yield f"metadata.{name}", value
