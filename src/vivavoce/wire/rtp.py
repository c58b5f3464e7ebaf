"""RTP packets and the audio in them, pure (RFC 3550, RFC 3551, RFC 5761).

`read` takes one datagram apart: a packet of media, the goodbye of an RTCP packet that shares the port, or nothing of
interest. Datagrams come from anyone, so every length in them is checked against the bytes that are there, and what does
not fit is no packet. It never raises.

What a payload type means is a table: the static types of RFC 3551 and those that a setting adds (`payload_formats`).
`samples` decodes a payload by that table. Comfort noise and telephone events carry no sound that anyone said; they
only take their place in the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vivavoce.model import G711

VERSION = 2
MAX_DATAGRAM_BYTES = 8192
"""Longer datagrams are no audio packets: 40 ms of the widest format that is taken are 3840 bytes."""

COMFORT_NOISE = 13
EVENTS = "telephone-event"
_GOODBYE = 203
_RTCP = range(192, 224)
"""Second bytes that RFC 5761 sets aside for RTCP on a port that RTP shares."""

_HEADER = Struct("!BBHII")
_WORD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RtpPacket:
    """One packet; `sequence` has 16 bits and `timestamp` 32, both wrap."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender has ended these streams."""

    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How the payloads of one type are to be read: mono, L16 in network order."""

    name: Literal["PCMU", "PCMA", "L16"]
    sample_rate: int = 8000


STATIC_FORMATS: Mapping[int, PayloadFormat | None] = MappingProxyType(
    {0: PayloadFormat("PCMU"), 8: PayloadFormat("PCMA"), 11: PayloadFormat("L16", 44_100), COMFORT_NOISE: None}
)
"""The types of RFC 3551, table 4, that are taken; None is a type that carries no speech."""


def payload_formats(entries: Iterable[str]) -> dict[int, PayloadFormat | None]:
    """Give the table of the static types and of entries such as `97=L16/16000` or `101=telephone-event`.

    An entry may give a static type another meaning, for there are senders that do. Entries have been checked when the
    settings were read (`config.Settings.rtp_types`).
    """
    table = dict(STATIC_FORMATS)
    for entry in entries:
        number, _, what = entry.partition("=")
        name, _, rate = what.partition("/")
        match name.upper():
            case "PCMU" | "PCMA" | "L16" as codec:
                table[int(number)] = PayloadFormat(codec, int(rate))
            case _:
                table[int(number)] = None
    return table


def read(datagram: bytes) -> RtpPacket | Goodbye | None:
    """Take a datagram apart; None where it is neither an RTP packet nor an RTCP goodbye."""
    if not _HEADER.size - _WORD <= len(datagram) <= MAX_DATAGRAM_BYTES or datagram[0] >> 6 != VERSION:
        return None
    if datagram[1] in _RTCP:
        return _goodbye(datagram)
    return _packet(datagram) if len(datagram) >= _HEADER.size else None


def samples(payload: bytes, form: PayloadFormat) -> NDArray[np.int16]:
    """Decode a payload; an odd byte behind the last whole sample is left out."""
    if form.name == "L16":
        return np.frombuffer(payload, ">i2", len(payload) // 2).astype(np.int16)
    law: Literal["ulaw", "alaw"] = "ulaw" if form.name == "PCMU" else "alaw"
    return G711[law][np.frombuffer(payload, np.uint8)]


def _packet(datagram: bytes) -> RtpPacket | None:
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(datagram)
    start, stop = _HEADER.size + _WORD * (first & 0x0F), len(datagram)
    if first & 0x10:  # a header extension: two bytes of profile, two of length in words
        words = int.from_bytes(datagram[start + 2 : start + _WORD], "big")
        if start + _WORD > stop:
            return None
        start += _WORD + _WORD * words
    if first & 0x20:  # padding, which counts itself in its last byte
        if not datagram[-1]:
            return None
        stop -= datagram[-1]
    if start > stop:
        return None
    return RtpPacket(
        payload_type=second & 0x7F, sequence=sequence, timestamp=timestamp, ssrc=ssrc, payload=datagram[start:stop]
    )


def _goodbye(datagram: bytes) -> Goodbye | None:
    """Give all that the goodbyes of a compound RTCP packet name."""
    at, named = 0, list[int]()
    while at + _WORD <= len(datagram):
        count, kind = datagram[at] & 0x1F, datagram[at + 1]
        size = _WORD + _WORD * int.from_bytes(datagram[at + 2 : at + _WORD], "big")
        if datagram[at] >> 6 != VERSION or at + size > len(datagram):
            return None
        if kind == _GOODBYE:
            words = [datagram[i : i + _WORD] for i in range(at + _WORD, at + size, _WORD)][:count]
            named += [int.from_bytes(word, "big") for word in words]
        at += size
    return Goodbye(tuple(named)) if named else None
