"""Ogg pages in, packets out: what a browser's recorder or an encoder sends when it says Opus (RFC 3533, RFC 7845).

A page is `OggS`, a head of 27 bytes in all, a table of up to 255 segment lengths, and the segments. A packet is the
segments up to and including one shorter than 255 bytes; it may go on in the next page. Pages may come in any pieces.
One logical stream is read, the first; a later one that takes its place is told by its head packets.
"""

from __future__ import annotations

from vivavoce.errors import UnsupportedAudio

CAPTURE = b"OggS"

MAX_PACKET_BYTES = 64 << 10
"""The longest that Opus can be is 61 kB (RFC 6716, 3.2.5)."""

_HEAD = 27
_FULL = 255
_HEADERS = (b"OpusHead", b"OpusTags")


class OggOpus:
    """Takes an Ogg stream apart, without its two head packets."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._packet = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Give the packets of audio that these bytes complete; raises `UnsupportedAudio` for anything but Ogg."""
        self._held += data
        packets: list[bytes] = []
        while (page := self._page()) is not None:
            packets += page
        return [packet for packet in packets if packet and not packet.startswith(_HEADERS)]

    def _page(self) -> list[bytes] | None:
        """Give the packets that the next page ends; None while it is not whole."""
        held = self._held
        if not CAPTURE.startswith(held[:4]):
            held.clear()
            self._packet.clear()
            raise UnsupportedAudio("the audio is not a whole Ogg stream: a page does not begin where it should")
        if len(held) < _HEAD or len(held) < (start := _HEAD + held[26]):
            return None
        lengths = bytes(held[_HEAD:start])
        if len(held) < start + sum(lengths):
            return None
        packets = []
        for length in lengths:
            self._packet += held[start : start + length]
            start += length
            if length < _FULL:
                packets.append(bytes(self._packet))
                self._packet.clear()
        del held[:start]
        if len(self._packet) > MAX_PACKET_BYTES:
            self._packet.clear()
            raise UnsupportedAudio("the Ogg stream holds a packet that is too long for Opus")
        return packets
