"""Where a client's stream goes on: exactly the overlap is found, whatever was acknowledged and however it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.resume import Overlap


def overlap(journal: bytes, starts: list[int]) -> Overlap:
    return Overlap(starts, len(journal), lambda offset, size: journal[offset : offset + size])


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@given(
    journal=st.binary(min_size=200, max_size=400),
    acks=st.sets(st.integers(0, 400), min_size=1, max_size=6),
    fresh=st.binary(max_size=100),
    piece=st.integers(1, 120),
    data=st.data(),
)
def test_exactly_the_overlap_is_dropped(
    journal: bytes, acks: set[int], fresh: bytes, piece: int, data: st.DataObject
) -> None:
    """From any acknowledged offset on, in pieces of any size, what the journal has is dropped and the rest is kept.

    Noise longer than a few bytes never matches in two places; where it does, the stored stream is the same anyway.
    """
    starts = sorted(min(ack, len(journal)) for ack in acks)
    start = data.draw(st.sampled_from(starts))
    resent = journal[start:] + fresh
    found = overlap(journal, starts)
    new = b"".join(found.feed(part) for part in in_pieces(resent, piece)) + found.flush()
    earlier = [each for each in starts if each < start and resent.startswith(journal[each:])]
    if not earlier and found.start == start:
        assert new == fresh
    assert journal[: found.start] + journal[found.start :] + new == journal + new
    assert resent.endswith(new)


def test_the_common_case() -> None:
    """One lost acknowledgment: the last chunk comes again and is dropped."""
    journal = bytes(range(200))
    found = overlap(journal, [100, 150, 200])
    assert found.feed(journal[150:]) == b""
    assert found.feed(b"new") == b"new"
    assert found.start == 150


def test_nothing_to_compare_decides_at_once() -> None:
    """A first socket, or one whose client saw every acknowledgment, waits for nothing."""
    found = overlap(b"abc", [3])
    assert found.start == 3
    assert found.feed(b"abc") == b"abc"


def test_bytes_that_differ_are_new() -> None:
    """A stream that matches no acknowledged offset goes on at the end."""
    found = overlap(b"abcdefgh", [0, 4])
    assert found.feed(b"x") == b"x"
    assert found.start == 8


def test_silence_takes_the_longest_match() -> None:
    """Identical bytes fit everywhere; the earliest start is taken, so that nothing is doubled."""
    found = overlap(bytes(100), [0, 50, 100])
    assert found.feed(bytes(99)) == b""
    assert found.feed(bytes(10)) == bytes(9)
    assert found.start == 0


def test_a_stream_that_ends_undecided() -> None:
    """What was held back is decided by what there is, and is not doubled."""
    found = overlap(b"abcdefgh", [0, 4])
    assert found.feed(b"ab") == b""
    assert found.flush() == b""
    assert found.start == 0
