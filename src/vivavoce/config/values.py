"""Settings' values as text has them, read and checked; mistakes are told as what a value must be."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import NoDecode

MAX_DAYS = 36_500
MAX_PORT = 65_535
MAX_PAYLOAD_TYPE = 127
MIN_RATE, MAX_RATE = 8_000, 48_000

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*", re.IGNORECASE)

_PAYLOAD_TYPE = re.compile(
    r"(?P<number>[0-9]{1,3})=((pcmu|pcma|l16)/(?P<rate>[0-9]{4,5})|telephone-event|cn)", re.IGNORECASE
)


def _split(value: object) -> object:
    """Take `a, b` for a list, as an environment variable or an option has to write it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("must be an IP address or a network such as 10.0.0.0/8") from None


def _host_name(value: str) -> str:
    name = value.strip().removeprefix("[").removesuffix("]").lower()
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("must be a host name or address without scheme, port or path")
    return name


def _origin(value: str) -> str:
    """Check that a URL is a bare web origin: every path is ours, and the JS SDK drops a prefix."""
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL such as https://speech.example.net") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not _HOST_NAME.fullmatch(parts.hostname):
        raise ValueError("must be a URL such as https://speech.example.net")
    if parts.username is not None or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError("must be scheme, host and port only, such as https://speech.example.net")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL such as https://hooks.example.net/speech") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ValueError("must be a URL such as https://hooks.example.net/speech")
    return value.strip()


def _with_endpoint(value: str | None, info: ValidationInfo) -> str | None:
    if not value and info.data.get("llm_url") is not None:
        raise ValueError("must name the endpoint's model where --llm-url is given")
    return value or None


def _endpoint(value: object) -> object:
    """Read `address:port`, or `[address]:port` for IPv6."""
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if address is None or not port.isdecimal() or int(port) > MAX_PORT:
        raise ValueError("must be an IP address and a port, such as 127.0.0.1:5004")
    return str(address), int(port)


def _ports(value: object) -> object:
    if not isinstance(value, str):
        return value
    low, _, high = value.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 0 < int(low) <= int(high) <= MAX_PORT):
        raise ValueError("must be a range of ports, such as 20000-20999")
    return int(low), int(high)


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _users(value: SecretStr) -> SecretStr:
    if not all(name and password for name, _, password in users_in(value)):
        raise ValueError("must be names and passwords, such as alice:secret,bob:secret")
    return value


def users_in(value: SecretStr) -> list[tuple[str, str, str]]:
    """Give each entry of `sip_users` as name, colon and password."""
    return [part.strip().partition(":") for part in value.get_secret_value().split(",")]


def _payload_type(value: str) -> str:
    match = _PAYLOAD_TYPE.fullmatch(value)
    if match is None or int(match["number"]) > MAX_PAYLOAD_TYPE:
        raise ValueError("must be payload types such as 97=L16/16000, 98=PCMU/8000 or 101=telephone-event")
    if match["rate"] and not MIN_RATE <= int(match["rate"]) <= MAX_RATE:
        raise ValueError(f"must have sample rates from {MIN_RATE} to {MAX_RATE}")
    return value


def _parameters(value: str) -> str:
    try:
        parse_qsl(value, keep_blank_values=True, strict_parsing=bool(value), max_num_fields=100)
    except ValueError:
        raise ValueError("must be parameters such as language=en&endpointing=0.3") from None
    return value


def _header_text(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("must be printable ASCII without blanks")
    return value


def _days(value: object) -> object:
    """Read a number of days, or `forever`, which becomes None."""
    if value is None or (isinstance(value, str) and value.strip().lower() == "forever"):
        return None
    try:
        days = float(str(value))
    except ValueError:
        days = -1.0
    if not 0 <= days <= MAX_DAYS or isinstance(value, bool):
        raise ValueError(f"must be a number of days between 0 and {MAX_DAYS}, or forever")
    return days


def _directory(value: Path) -> Path:
    return value.expanduser().absolute()


Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]
Endpoint = Annotated[tuple[str, int], NoDecode, BeforeValidator(_endpoint)]
Text = Annotated[str, Field(min_length=1)]
HostName = Annotated[str, AfterValidator(_host_name)]
HostNames = Annotated[tuple[HostName, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[tuple[Annotated[Network, BeforeValidator(_network)], ...], NoDecode, BeforeValidator(_split)]
IpAddress = Annotated[str, AfterValidator(_ip_address)]
Ports = Annotated[tuple[int, int], NoDecode, BeforeValidator(_ports)]
WebOrigin = Annotated[str, AfterValidator(_origin)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Secret = Annotated[SecretStr, AfterValidator(_header_text)]
Users = Annotated[SecretStr, AfterValidator(_users)]
Parameters = Annotated[str, AfterValidator(_parameters)]
PayloadTypes = Annotated[tuple[Annotated[str, AfterValidator(_payload_type)], ...], NoDecode, BeforeValidator(_split)]
Days = Annotated[float | None, BeforeValidator(_days)]
AbsolutePath = Annotated[Path, AfterValidator(_directory)]
LlmModel = Annotated[str | None, AfterValidator(_with_endpoint)]
