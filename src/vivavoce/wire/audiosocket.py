"""AudioSocket, by which Asterisk hands over a call's audio on a TCP connection, pure: bytes in, events out.

A connection is a row of frames: one byte of kind, two of length (big-endian), and a payload. The first frame must hold
the call's UUID, so whatever is no AudioSocket is told by its first three bytes. Then come audio (16 bit, mono,
little-endian, at the rate that the frame's kind stands for) and the digits that the caller presses. A frame of a kind
that is not known is skipped: its length says where the next one begins. The same bytes give the same events however
they are cut.

Published at docs.asterisk.org, Configuration / Channel Drivers / AudioSocket. Observed of Asterisk 22.10: it closes the
connection at a hang-up without a frame that says so, goes on in its dialplan where we close it or send a frame of kind
0, and hangs up on the caller where we send one of kind 255. Its application also gives up after two seconds in which
neither side sends anything, as while a caller is on hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from uuid import UUID

RATES = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
"""Kinds of audio frames, and the rates of their samples in Hz."""

HANG_UP = bytes(3)
"""The frame that ends a connection in peace; what Asterisk's dialplan says next is done."""

_HEAD = Struct(">BH")
_UUID_BYTES = 16
_SAMPLE_BYTES = 2
_MAX_CODE_BYTES = 4


SILENCE_S = 0.02
"""Length of a frame of silence, that of Asterisk's own frames."""


class _Kind(IntEnum):
    """Kinds of frames beside those of audio."""

    HANG_UP = 0x00
    UUID = 0x01
    DIGIT = 0x03
    ERROR = 0xFF


class Fault(IntEnum):
    """Why a connection is refused, as its error frame says; codes are the application's own."""

    MALFORMED = 0x10
    """The bytes are no AudioSocket, or go against it."""
    RATE = 0x11
    """The audio's rate is none that a session can have, or changed."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The call's name; the first event of a connection, and there once."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class Audio:
    """Whole samples, at `rate` Hz."""

    rate: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Digit:
    """A key that the caller pressed, or a tone that passes for one, as Asterisk writes it."""

    key: str


@dataclass(frozen=True, slots=True)
class HungUp:
    """The peer ends the call; the last event of its connection."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer gives up; the last event of its connection. `code` is its own, in hexadecimal, and may be empty."""

    code: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """The bytes cannot be AudioSocket; the last event of its connection."""

    reason: str


Event = Identified | Audio | Digit | HungUp | Failed | Malformed


class AudioSocket:
    """One connection's bytes as events; holds less than one frame of them, so at most 64 KiB."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._identified = False
        self._over = False

    @property
    def in_frame(self) -> bool:
        """Whether the bytes so far end inside a frame, so that a connection which ends here was cut off."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[Event]:
        """Give what the next bytes say, in order; nothing any more after the last event."""
        self._rest += data
        return list(self._events())

    def _events(self) -> Iterator[Event]:
        at = 0
        while not self._over and at + _HEAD.size <= len(self._rest):
            kind, size = _HEAD.unpack_from(self._rest, at)
            event: Event | None
            if not self._identified and (kind, size) != (_Kind.UUID, _UUID_BYTES):
                event = Malformed(f"the first frame is of kind {kind} and {size} bytes, not a UUID")
            elif at + _HEAD.size + size > len(self._rest):
                break
            else:
                start = at + _HEAD.size
                event = self._event(kind, bytes(self._rest[start : start + size]))
            at += _HEAD.size + size
            if event is not None:
                self._over = isinstance(event, HungUp | Failed | Malformed)
                yield event
        del self._rest[: len(self._rest) if self._over else at]

    def _event(self, kind: int, payload: bytes) -> Event | None:
        """Read one whole frame; None where it says nothing to us."""
        match kind:
            case _Kind.HANG_UP:
                return HungUp()
            case _Kind.UUID:
                return self._identify(payload)
            case _Kind.DIGIT:
                return _digit(payload)
            case _Kind.ERROR:
                return Failed(payload[:_MAX_CODE_BYTES].hex())
            case _:
                return _audio(RATES[kind], payload) if kind in RATES else None

    def _identify(self, payload: bytes) -> Event:
        if self._identified:
            return Malformed("the connection is named twice")
        self._identified = True
        return Identified(UUID(bytes=payload))


def error_frame(fault: Fault) -> bytes:
    """Give the frame that refuses a connection; Asterisk ends the call at it."""
    return _HEAD.pack(_Kind.ERROR, 1) + bytes([fault])


def silence_frame(rate: int) -> bytes:
    """Give a frame of silence at one of `RATES`, which shows a quiet peer that we are there."""
    kind = next(kind for kind, each in RATES.items() if each == rate)
    size = round(rate * SILENCE_S) * _SAMPLE_BYTES
    return _HEAD.pack(kind, size) + bytes(size)


def _audio(rate: int, payload: bytes) -> Event | None:
    if len(payload) % _SAMPLE_BYTES:
        return Malformed(f"an audio frame of {len(payload)} bytes ends inside a sample")
    return Audio(rate, payload) if payload else None


def _digit(payload: bytes) -> Event:
    if len(payload) != 1:
        return Malformed(f"a digit of {len(payload)} bytes")
    return Digit(payload.decode("latin-1"))
