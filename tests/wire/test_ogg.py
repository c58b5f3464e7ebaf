"""Ogg pages: every split gives the same packets, and what is no Ogg is refused without harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.errors import UnsupportedAudio
from vivavoce.wire.ogg import MAX_PACKET_BYTES, OggOpus


def page(packets, *, goes_on=False):
    """Give a page with these packets, the last of which may go on in the next page."""
    lengths = []
    for packet in packets:
        lengths += [255] * (len(packet) // 255) + [len(packet) % 255]
    if goes_on:
        assert lengths[-1] == 0, "a packet that goes on fills its segments"
        lengths.pop()
    return b"OggS" + bytes(22) + bytes([len(lengths), *lengths]) + b"".join(packets)


HEAD = page([b"OpusHead" + bytes(11)]) + page([b"OpusTags" + bytes(600)])


@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=4), max_size=5),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_any_split_gives_the_same_packets(pages, cuts):
    """Without the head packets, in order."""
    pages = [[packet for packet in packets if not packet.startswith(b"Opus")] for packets in pages]
    data = HEAD + b"".join(page(packets) for packets in pages)
    ogg, given_, at = OggOpus(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        given_ += ogg.feed(data[at:cut])
        at = max(at, cut)
    assert given_ == [packet for packets in pages for packet in packets]


def test_a_packet_may_go_on_in_the_next_page():
    """As encoders do with long ones."""
    first, rest = bytes(510), b"rest"
    assert OggOpus().feed(HEAD + page([b"one", first], goes_on=True) + page([rest, b"two"])) == [
        b"one",
        first + rest,
        b"two",
    ]


@pytest.mark.parametrize("junk", [b"RIFF", b"OggX", b"\0" * 100_000])
def test_what_is_no_ogg_is_refused(junk):
    """And nothing of it is kept, so that a stream that begins anew is read."""
    ogg = OggOpus()
    ogg.feed(HEAD)
    with pytest.raises(UnsupportedAudio):
        ogg.feed(junk)
    assert ogg.feed(page([b"again"])) == [b"again"]


def test_an_endless_packet_is_refused():
    """What could grow without a bound does not."""
    ogg, endless = OggOpus(), page([bytes(65_025)], goes_on=True)
    assert ogg.feed(endless) == []
    with pytest.raises(UnsupportedAudio):
        ogg.feed(endless)
    assert len(ogg._packet) <= MAX_PACKET_BYTES
