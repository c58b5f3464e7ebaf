"""Where a client's stream goes on: exactly the overlap is found, whatever was acknowledged and however it comes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.resume import MAX_HELD_SILENCE, Overlap


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


def test_silence_takes_the_shortest_match() -> None:
    """Identical bytes fit everywhere; one acknowledgment is taken for lost, so that not much more can be wrong."""
    found = overlap(bytes(100), [0, 50, 90, 100])
    assert found.feed(bytes(9)) == b""
    assert found.feed(bytes(100)) == bytes(99)
    assert (found.start, found.guessed) == (90, True)


def test_a_match_of_more_than_silence_is_certain() -> None:
    """Silence before and after some words does not hide that the words came again."""
    journal = bytes(100) + b"words" + bytes(100)
    found = overlap(journal, [0, 50, 80, 150, 200, 205])
    assert found.feed(bytes(20)) == b""
    assert found.feed(b"words" + bytes(100) + b"new") == b"new"
    assert (found.start, found.guessed) == (80, False)


def test_new_silence_is_not_held_back_for_ever() -> None:
    """A long silence is acknowledged though its beginning could repeat the one before the last words."""
    journal = bytes(4 * MAX_HELD_SILENCE) + b"words" + bytes(100)
    found = overlap(journal, [0, len(journal) - 10])
    new = b"".join(found.feed(bytes(1000)) for _ in range(2 * MAX_HELD_SILENCE // 1000))
    assert len(new) == 2 * MAX_HELD_SILENCE // 1000 * 1000 - 10


def test_thousands_of_acknowledgments_cost_few_reads() -> None:
    """The journal is read in blocks, not once for each start."""
    journal = random.Random(1).randbytes(4096 * 640)
    reads = []

    def read(offset: int, size: int) -> bytes:
        reads.append(size)
        return journal[offset : offset + size]

    found = Overlap(range(0, len(journal), 640), len(journal), read)
    assert found.feed(journal[-640:] + b"new") == b"new"
    assert sum(reads) < 2 * len(journal)
    assert len(reads) < 100


def test_a_stream_that_ends_undecided() -> None:
    """What was held back is decided by what there is, and is not doubled."""
    found = overlap(b"abcdefgh", [0, 4])
    assert found.feed(b"ab") == b""
    assert found.flush() == b""
    assert found.start == 0
