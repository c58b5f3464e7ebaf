"""Tracks of a call side by side: what comes out stands where its timestamp says, whatever becomes of its frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vivavoce.wire.tracks import LAG_S, Media, Tracks

RATE = 1000
"""One sample is a millisecond, which keeps the arithmetic of these tests in sight."""

FRAME = 20
LAG = round(LAG_S * RATE)
NAMES = ("inbound", "outbound")
SILENCE = b"\x00"


@dataclass(frozen=True)
class Frame:
    """One frame of a track on its way."""

    track: str
    slot: int
    number: int
    arrival: int

    @property
    def payload(self) -> bytes:
        return bytes([1 + self.slot]) * FRAME


def tracks(names=NAMES, sample=SILENCE):
    return Tracks(names, sample_rate=RATE, sample=sample)


def place(aligned, track, payload, timestamp_ms=None, number=None, *, arrived_at=0.0):
    media = Media(track=track, payload=payload, timestamp_ms=timestamp_ms, number=number)
    return b"".join(aligned.place(media, arrived_at))


def played(frames, names=NAMES, shift=0):
    """Give what comes out, one byte string per channel, and the length after each frame."""
    aligned, out, lengths = tracks(names), bytearray(), []
    for frame in frames:
        stamp, arrived_at = frame.slot * FRAME + shift, frame.arrival / 1000
        out += place(aligned, frame.track, frame.payload, stamp, frame.number, arrived_at=arrived_at)
        lengths.append(len(out) // len(names))
    out += aligned.settle()
    return [bytes(out[channel :: len(names)]) for channel in range(len(names))], lengths


def expected(frames, names=NAMES):
    """Give each channel as it was spoken: every frame in its place, silence elsewhere."""
    slots = 1 + max((frame.slot for frame in frames), default=-1)
    said = {(frame.track, frame.slot): frame.payload for frame in frames}
    return [b"".join(said.get((name, slot), SILENCE * FRAME) for slot in range(slots)) for name in names]


@st.composite
def journeys(draw, late=LAG - 2 * FRAME):
    """Frames of one or two tracks in the order in which they arrive: some lost, some twice, none later than `late`."""
    names = NAMES[: draw(st.integers(1, 2))]
    shared = draw(st.booleans())
    frames = []
    for index, name in enumerate(names):
        for slot in draw(st.sets(st.integers(0, 25))):
            number = 1 + (slot * len(names) + index if shared else slot)
            frame = Frame(name, slot, number, slot * FRAME + draw(st.integers(0, late)))
            frames += [frame] + [
                replace(frame, arrival=slot * FRAME + delay)
                for delay in draw(st.lists(st.integers(0, 4 * LAG), max_size=1))
            ]
    return names, sorted(frames, key=lambda frame: frame.arrival)


@given(journeys())
def test_whatever_is_lost_swapped_or_repeated_the_rest_stands_where_its_timestamp_says(journey):
    """Up to the lag, order does not matter; what is missing is silence; the length is that of what was said."""
    names, frames = journey
    heard, _ = played(frames, names)
    assert heard == expected(frames, names)


@given(journeys(late=3 * LAG))
def test_nothing_waits_longer_than_the_lag(journey):
    """However late a track is, audio is given out up to the lag behind the newest frame of any."""
    names, frames = journey
    _, lengths = played(frames, names)
    newest = 0
    for frame, length in zip(frames, lengths, strict=True):
        newest = max(newest, (frame.slot + 1) * FRAME)
        assert length >= newest - LAG


@given(journeys(late=8 * LAG))
def test_frames_that_come_far_too_late_still_come_in_order_and_once(journey):
    """Beyond the lag a frame may be left out, but none is heard twice, and none after a later one."""
    names, frames = journey
    for channel, said in zip(played(frames, names)[0], expected(frames, names), strict=True):
        assert len(channel) >= len(said)
        slots = [value for value in channel[::FRAME] if value]
        assert slots == sorted(set(slots))


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=50))
def test_stamps_a_little_off_make_no_seams(offsets):
    """Frames stamped by a clock on the wall follow each other as they were cut, without a sample between or missing."""
    aligned = tracks(("inbound",))
    frames = [bytes([1 + slot]) * FRAME for slot in range(len(offsets))]
    out = b"".join(
        place(aligned, "inbound", frame, max(slot * FRAME + offset, 0), slot + 1)
        for slot, (frame, offset) in enumerate(zip(frames, offsets, strict=True))
    )
    assert out + aligned.settle() == b"".join(frames)


@given(journeys())
def test_stamps_that_count_from_1970_give_the_same(journey):
    """The first frame of a stream starts the clock, wherever it stands."""
    names, frames = journey
    if frames and frames[0].slot == 0:
        heard, _ = played(frames, names, shift=1_795_000_000_000)
        assert heard == expected(frames, names)


def test_a_track_alone_never_waits():
    """With one track, each frame is given out as it comes."""
    aligned = tracks(("inbound",))
    for slot in range(5):
        frame = bytes([1 + slot]) * FRAME
        assert place(aligned, "inbound", frame, slot * FRAME, slot + 1) == frame


def test_two_tracks_wait_for_each_other():
    """What one track says is held until the other was heard, and then both come together, the caller first."""
    aligned = tracks()
    assert place(aligned, "outbound", b"\x02" * FRAME, 0) == b""
    assert place(aligned, "inbound", b"\x01" * FRAME, 0) == b"\x01\x02" * FRAME


def test_settling_gives_what_is_held():
    """When nothing comes any more, nothing is kept back; the missing track is silent."""
    aligned = tracks()
    place(aligned, "inbound", b"\x01" * FRAME, 0)
    assert aligned.settle() == b"\x01\x00" * FRAME
    assert aligned.settle() == b""


def test_a_pause_between_two_frames_that_take_turns_makes_no_silence():
    """Where one track is a frame ahead, the other's frame is on its way, however long it takes."""
    aligned = tracks()
    place(aligned, "inbound", b"\x01" * FRAME, 0, 1)
    assert aligned.settle(ahead_s=0.1) == b""
    assert place(aligned, "outbound", b"\x02" * FRAME, 0, 1) == b"\x01\x02" * FRAME
    place(aligned, "inbound", b"\x03" * 6 * FRAME, FRAME, 2)
    assert aligned.settle(ahead_s=0.1) == b"\x03\x00" * 6 * FRAME


def test_frames_without_stamps_follow_each_other():
    """A network that stamps nothing sends everything in order, also pieces that are equal to the letter."""
    aligned = tracks(("inbound",))
    assert b"".join(place(aligned, "inbound", b"\x05\x06") for _ in range(3)) == b"\x05\x06" * 3


@pytest.mark.parametrize("names", [("inbound",), NAMES])
@given(order=st.permutations(range(9)), step=st.integers(1, 3))
def test_frames_without_stamps_follow_each_other_by_their_numbers(names, order, step):
    """Whatever the order in which they come within the lag, whether or not other messages count too."""
    aligned = tracks(names)
    out = b"".join(place(aligned, "inbound", bytes([1 + slot]) * FRAME, None, step * slot) for slot in order)
    out += place(aligned, "inbound", b"\x01" * FRAME, None, step * order[-1]) + aligned.settle()
    assert out[:: len(names)] == b"".join(bytes([1 + slot]) * FRAME for slot in range(9))


@pytest.mark.parametrize("numbers", [[7] * 50, [*range(1, 26), *range(1, 26)]], ids=["one for all", "anew"])
def test_numbers_that_do_not_grow_cost_a_few_frames_at_most(numbers):
    """What is left then is the order in which frames come."""
    aligned = tracks(("inbound",))
    out = b"".join(
        place(aligned, "inbound", bytes([slot]) * FRAME, None, number) for slot, number in enumerate(numbers)
    )
    heard = list(dict.fromkeys(out + aligned.settle()))
    assert heard == sorted(heard)
    assert len(heard) >= len(numbers) - 3


def test_a_frame_without_a_stamp_waits_no_longer_than_the_lag():
    """The one before it is lost, and it was first of all that came."""
    aligned, out = tracks(("inbound",)), b""
    for number in range(7, 7 + LAG // FRAME + 1):
        assert out == b""
        out = place(aligned, "inbound", b"\x01" * FRAME, None, number)
    assert len(out) == LAG + FRAME
    assert place(aligned, "inbound", b"\x02" * FRAME, None, number + 1) == b"\x02" * FRAME


def test_a_clock_that_stands_still_loses_no_audio():
    """A newer frame is placed behind the last one, though its timestamp says otherwise."""
    aligned = tracks(("inbound",))
    out = b"".join(place(aligned, "inbound", bytes([number]) * FRAME, 0, number) for number in (1, 2))
    assert out == b"\x01" * FRAME + b"\x02" * FRAME


def test_a_clock_that_jumps_makes_no_hours_of_silence():
    """A timestamp a day ahead starts the clock anew, where the audio ends."""
    aligned = tracks(("inbound",))
    out = place(aligned, "inbound", b"\x01" * FRAME, 0, 1)
    out += place(aligned, "inbound", b"\x02" * FRAME, 86_400_000, 2)
    out += place(aligned, "inbound", b"\x03" * FRAME, 86_400_000 + FRAME, 3)
    assert out == b"\x01" * FRAME + b"\x02" * FRAME + b"\x03" * FRAME


@example([("inbound", 59_000, 0)] * 1000)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(-70_000, 70_000), st.integers(0, 5000)), max_size=50))
def test_timestamps_make_no_more_silence_than_time_has_passed_and_a_second(steps):
    """However far ahead each frame says that it is, what is stored is what was sent and the time that it took."""
    aligned, length, stamp, now_ms = tracks(), 0, 0, 0
    for number, (track, ahead, later) in enumerate(steps):
        stamp, now_ms = max(stamp + ahead, 0), now_ms + later
        length += len(place(aligned, track, b"\x01" * FRAME, stamp, number, arrived_at=now_ms / 1000))
    length += len(aligned.settle())
    passed = now_ms - (steps[0][2] if steps else 0)
    assert length // len(NAMES) <= len(steps) * FRAME + passed + 1000


def test_a_long_pause_is_silence_of_its_length():
    """Also where the network held back what came after it, and then sent all at once."""
    aligned = tracks(("inbound",))
    out = b"".join(
        place(aligned, "inbound", b"\x01" * FRAME, stamp, number, arrived_at=arrived_at)
        for number, (stamp, arrived_at) in enumerate([(0, 7), (30_000, 37), (40_000, 57), (50_000, 57)])
    )
    out += aligned.settle()
    gap = SILENCE * (10_000 - FRAME)
    assert out == b"\x01" * FRAME + SILENCE * (30_000 - FRAME) + (b"\x01" * FRAME + gap) * 2 + b"\x01" * FRAME


@pytest.mark.parametrize(
    ("stamp", "arrived_at", "silent_ms"),
    [
        (70_000, 70, 70_000 - FRAME),
        (600_000, 600, 600_000 - FRAME),
        (71_000, 70, 71_000 - FRAME),
        (72_000, 70, 0),
        (70_000, 30, 0),
        (600_000, 70, 0),
    ],
)
def test_minutes_without_a_frame_are_silence_where_they_have_passed(stamp, arrived_at, silent_ms):
    """What follows stands where its timestamp says; where they have not, it follows at once."""
    aligned = tracks(("inbound",))
    out = place(aligned, "inbound", b"\x01" * FRAME, 0, 1)
    out += place(aligned, "inbound", b"\x02" * FRAME, stamp, 2, arrived_at=arrived_at)
    out += place(aligned, "inbound", b"\x03" * FRAME, stamp + FRAME, 3, arrived_at=arrived_at)
    out += aligned.settle()
    assert out == b"\x01" * FRAME + SILENCE * silent_ms + b"\x02" * FRAME + b"\x03" * FRAME


def test_a_long_pause_keeps_its_length_where_the_first_frames_came_all_at_once():
    """As they do where the session was made meanwhile."""
    aligned = tracks(("inbound",))
    for slot in range(250):
        place(aligned, "inbound", b"\x01" * FRAME, slot * FRAME, slot, arrived_at=4.9)
    out = place(aligned, "inbound", b"\x02" * FRAME, 68_000, 250, arrived_at=68) + aligned.settle()
    assert out == SILENCE * 63_000 + b"\x02" * FRAME


def test_hours_of_silence_come_in_pieces():
    """None is longer than a second, whatever the pause."""
    aligned = tracks()
    for at, stamp in enumerate((0, 7_200_000)):
        media = Media(track="inbound", payload=b"\x01" * FRAME, timestamp_ms=stamp, number=at)
        pieces = [len(piece) for piece in aligned.place(media, stamp / 1000)]
    assert max(pieces) <= len(NAMES) * RATE
    assert sum(pieces) == len(NAMES) * (7_200_000 + FRAME - LAG)


def test_a_clock_that_is_set_in_mid_call_makes_no_silence():
    """The time that has passed is full of audio already."""
    aligned = tracks(("inbound",))
    stamps = [*range(0, 90_000, FRAME), *range(170_000, 171_000, FRAME)]
    out = b"".join(
        place(aligned, "inbound", b"\x01" * FRAME, stamp, number, arrived_at=number * FRAME / 1000)
        for number, stamp in enumerate(stamps)
    )
    assert out == b"\x01" * FRAME * len(stamps)


def test_samples_of_several_bytes_stay_whole():
    """Linear samples are woven two bytes at a time, and one that is cut off is left out."""
    aligned = tracks(sample=b"\x00\x00")
    place(aligned, "inbound", b"aAbB", 0)
    assert place(aligned, "outbound", b"cCdDe", 0) == b"aAcCbBdD"


def test_an_unannounced_track_is_an_error():
    """Only tracks that were announced have a channel."""
    with pytest.raises(KeyError):
        place(tracks(("inbound",)), "outbound", b"\x01")


def test_a_flood_of_one_frame_is_held_once():
    """Frames that wait are bounded by the lag: the same one again takes no room."""
    aligned = tracks()
    for _ in range(1000):
        place(aligned, "inbound", b"\x01" * FRAME, 100, 7)
    assert len(aligned.settle()) == 2 * (100 + FRAME)
