"""The jitter buffer gives the sender's audio in order and without holes, whatever the network did to its packets."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire.jitter import CONCEAL_S, DELAY_S, LEAP_S, MAX_HELD, JitterBuffer
from vivavoce.wire.rtp import COMFORT_NOISE, RtpPacket, payload_formats

RATE = 8000
PTIME_S = 0.02
PACKET = 160
FORMATS = payload_formats(["96=L16/8000", "97=L16/16000", "101=telephone-event"])


def sound(number):
    """Give the samples of one packet, which say who they are and are never silent."""
    return np.full(PACKET, number % 30_000 + 1, np.int16)


def packet(number, *, first=0, stamp=None, kind=96, payload=None, ssrc=1):
    """Give the packet with the `number`th 20 ms, counted from a stream's own beginning."""
    return RtpPacket(
        payload_type=kind,
        sequence=(first + number) % 65536,
        timestamp=(number * PACKET if stamp is None else stamp) % 2**32,
        ssrc=ssrc,
        payload=sound(number).astype(">i2").tobytes() if payload is None else payload,
    )


def heard(data):
    return np.frombuffer(data, "<i2")


def played(*arrivals, **options):
    """Give a buffer and all it says when (packet, moment) arrive in this order."""
    buffer = JitterBuffer(FORMATS, RATE, **options)
    out = b""
    for what, at in arrivals:
        buffer.feed(what, at)
        out += buffer.take(at)
    return buffer, heard(out + buffer.flush())


def steady(*numbers, **options):
    """Give arrivals of packets, each when it was sent."""
    return [(packet(number, **options), number * PTIME_S) for number in numbers]


def speech(*numbers):
    return np.concatenate([sound(number) for number in numbers])


@given(
    first=st.integers(0, 65535),
    stamp=st.integers(0, 2**32 - 1),
    delays=st.lists(st.floats(0, DELAY_S - 0.021), min_size=1, max_size=80),
    repeats=st.sets(st.integers(0, 79)),
)
def test_reordering_and_repeats_within_the_delay_change_nothing(first, stamp, delays, repeats):
    """Any jitter below the delay, from any place in both counters' turns, gives exactly what was sent."""
    sent = [
        (packet(number, first=first, stamp=stamp + number * PACKET), number * PTIME_S + delay_s)
        for number, delay_s in enumerate(delays)
    ]
    sent += [sent[number] for number in repeats if number < len(sent)]
    buffer, out = played(*sorted(sent, key=lambda arrival: arrival[1]))
    assert np.array_equal(out, speech(*range(len(delays))))
    assert buffer.counts.lost == buffer.counts.late == buffer.counts.silence == 0
    assert buffer.counts.duplicate == len([number for number in repeats if number < len(delays)])


@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.2))
def test_every_sample_keeps_its_place_whatever_is_lost(seed, loss, jitter_s):
    """The audio is as long as what was sent, and each packet that came in time stands where it stood."""
    dice = Random(seed)
    sent = [(number, number * PTIME_S + dice.uniform(0, jitter_s)) for number in range(100)]
    kept = [arrival for arrival in sent if arrival[0] in (0, 99) or dice.random() >= loss]
    buffer, out = played(*((packet(number), at) for number, at in sorted(kept, key=lambda arrival: arrival[1])))
    start = next(number for number in range(100) if (out[:PACKET] == sound(number)).all())
    assert len(out) == (100 - start) * PACKET
    right = sum(np.array_equal(out[at * PACKET :][:PACKET], sound(start + at)) for at in range(100 - start))
    assert right >= len(kept) - buffer.counts.late


def test_audio_in_order_comes_out_at_once():
    """After the first packets nothing waits that nothing is missing before."""
    buffer = JitterBuffer(FORMATS, RATE)
    buffer.feed(packet(0), 0.0)
    assert buffer.take(DELAY_S - 0.01) == b""
    assert len(buffer.take(DELAY_S)) == 2 * PACKET
    buffer.feed(packet(1), 0.2)
    assert heard(buffer.take(0.2)).tolist() == sound(1).tolist()


def test_a_missing_packet_is_waited_for_as_long_as_the_delay():
    """What follows a hole waits; then the hole is filled and the packet, should it come, is late."""
    buffer, _ = played(*steady(*range(10)))
    buffer.feed(packet(11), 1.0)
    assert buffer.take(1.0 + DELAY_S - 0.01) == b""
    assert len(buffer.take(1.0 + DELAY_S)) == 2 * 2 * PACKET
    buffer.feed(packet(10), 1.2)
    assert buffer.flush() == b""
    assert (buffer.counts.lost, buffer.counts.late, buffer.counts.duplicate) == (1, 1, 0)


def test_lost_audio_is_the_last_20_ms_fading_and_then_silence():
    """The first lost 20 ms repeat what was heard last, quieter and quieter, and after 60 ms there is nothing."""
    buffer, out = played(*steady(*range(9), 19))
    made = out[9 * PACKET : 19 * PACKET]
    fade = int(CONCEAL_S * RATE)
    assert made[0] == sound(8)[0]
    assert (np.diff(made[:fade]) <= 0).all()
    assert (made[:PACKET] > 0).all()
    assert (made[fade:] == 0).all()
    assert np.array_equal(out[19 * PACKET :], sound(19))
    assert (buffer.counts.concealed, buffer.counts.silence) == (10 * PACKET, 0)


def test_a_pause_of_the_sender_is_silence_of_the_same_length_without_waiting():
    """Timestamps jump and sequence numbers do not: nothing was lost, so nothing is made up."""
    buffer = JitterBuffer(FORMATS, RATE)
    for number in range(8):
        buffer.feed(packet(number), number * PTIME_S)
    before = buffer.take(0.2)
    buffer.feed(packet(8, stamp=(8 + 50) * PACKET), 58 * PTIME_S)
    out = heard(before + buffer.take(58 * PTIME_S))
    assert len(out) == 59 * PACKET
    assert (out[8 * PACKET : 58 * PACKET] == 0).all()
    assert (buffer.counts.silence, buffer.counts.lost, buffer.counts.concealed) == (50 * PACKET, 0, 0)


@pytest.mark.parametrize("kind", [COMFORT_NOISE, 101])
def test_comfort_noise_and_key_presses_are_silence_and_no_loss(kind):
    """Packets without speech take their sequence numbers; the time they stand for is silent."""
    other = [(packet(number, kind=kind, stamp=5 * PACKET, payload=b"\x40"), number * PTIME_S) for number in (5, 6, 7)]
    buffer, out = played(*steady(*range(5)), *other, *steady(8, 9))
    assert np.array_equal(out, np.concatenate([speech(*range(5)), np.zeros(3 * PACKET), speech(8, 9)]))
    assert (buffer.counts.lost, buffer.counts.unreadable) == (0, 0)


def test_loss_just_before_comfort_noise_is_still_concealed():
    """A hole is a hole even where the next packet with sound comes later."""
    buffer, out = played(*steady(*range(5)), (packet(6, kind=COMFORT_NOISE, payload=b"@"), 0.12), *steady(7))
    assert buffer.counts.concealed == 2 * PACKET
    assert out[5 * PACKET] == sound(4)[0]


@pytest.mark.parametrize("kind", [97, 55])
def test_packets_that_cannot_be_read_leave_silence(kind):
    """An unknown type or another sample rate in the middle of a stream costs its own time only."""
    buffer, out = played(*steady(0, 1), (packet(2, kind=kind), 0.04), *steady(3))
    assert np.array_equal(out, np.concatenate([speech(0, 1), np.zeros(PACKET), speech(3)]))
    assert buffer.counts.unreadable == 1


def test_a_sender_that_begins_anew_is_followed():
    """Both counters jump far: two packets in sequence are believed, and audio goes on where their arrival puts it."""
    again = [(packet(n, first=40_000, stamp=123_456_789 + n * PACKET), 1.0 + n * PTIME_S) for n in range(5)]
    buffer, out = played(*steady(*range(10)), *again)
    assert np.array_equal(out[: 10 * PACKET], speech(*range(10)))
    assert np.array_equal(out[-5 * PACKET :], speech(*range(5)))
    assert len(out) / RATE == pytest.approx(1.0 + 5 * PTIME_S, abs=0.05)
    assert buffer.counts.lost == 0


def test_a_sender_that_changes_its_source_is_followed_too():
    """Another SSRC with counters that happen to fit is another clock: two packets in sequence are believed."""
    again = [(packet(n, first=3, stamp=n * PACKET, ssrc=2), 1.0 + n * PTIME_S) for n in range(5)]
    buffer, out = played(*steady(*range(10)), (packet(11, ssrc=3), 0.21), *again)
    assert np.array_equal(out[-5 * PACKET :], speech(*range(5)))
    assert len(out) / RATE == pytest.approx(1.0 + 5 * PTIME_S, abs=0.05)
    assert (buffer.counts.lost, buffer.counts.late, buffer.counts.duplicate) == (0, 0, 0)


def test_one_stray_packet_moves_nothing():
    """A single packet far from the others is taken for an error."""
    stray = packet(0, first=30_000)
    _, out = played(*steady(*range(6)), (stray, 0.11), *steady(*range(6, 12)))
    assert np.array_equal(out, speech(*range(12)))


@pytest.mark.parametrize("jump", [10 * RATE, 2**31 - 1, 2**31 + 5, 2**32 - 10 * RATE])
def test_no_timestamp_makes_more_silence_than_time_has_passed(jump):
    """A timestamp that leaps ahead or back costs at most the leap that is believed, and later audio is kept."""
    rest = [(packet(n, stamp=n * PACKET + jump), n * PTIME_S) for n in range(10, 20)]
    _, out = played(*steady(*range(10)), *rest)
    assert len(out) <= 20 * PACKET + LEAP_S * RATE
    assert np.array_equal(out[-10 * PACKET :], speech(*range(10, 20)))


def test_many_small_jumps_make_no_more_silence_than_one():
    """Each of two thousand packets claims that nearly a leap has passed since the one before, in no time."""
    step = int(0.9 * LEAP_S * RATE)
    _, audio = played(*((packet(number, stamp=number * step), 0.0) for number in range(2000)))
    assert len(audio) <= 2000 * PACKET + LEAP_S * RATE


def test_overlapping_packets_give_each_sample_once():
    """A packet that repeats the end of the one before adds only what is new."""
    _, out = played(*steady(0, 1), (packet(2, stamp=2 * PACKET - 40), 0.04), (packet(3, stamp=3 * PACKET - 40), 0.06))
    assert len(out) == 4 * PACKET - 40


def test_a_buffer_that_nobody_empties_stays_small():
    """Beyond its bound packets are dropped and counted; what was taken in comes out."""
    buffer = JitterBuffer(FORMATS, RATE)
    for number in range(MAX_HELD + 50):
        buffer.feed(packet(number), number * PTIME_S)
    assert buffer.counts.unreadable == 50
    assert len(buffer.take(100.0)) == 2 * MAX_HELD * PACKET
