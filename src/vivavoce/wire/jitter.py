"""A jitter buffer: packets as a network delivers them → the sender's audio without holes, in order, on its own clock.

Nothing is played here, so audio need not come out evenly: what is in order comes out at once, and only a hole makes the
rest wait. `feed` takes a packet with the moment it arrived, `take` gives the audio that is settled by a moment. Both
are functions of what they are fed; no clock is read.

* **Order** is by sequence number, unwrapped around the newest one. A packet that was missing for `delay_s` after a
  later one arrived is given up, and audio that comes after that is late: it is dropped, for its place is filled.
  The first packets wait as long, so that a stream may begin out of order.
* **Place** is by timestamp, so a pause of the sender (silence suppression, comfort noise, key presses) becomes silence
  of the same length, and the audio's time is the sender's clock, which is never stretched. A pause shows in timestamps
  alone; where sequence numbers are missing too, packets were lost.
* **Loss** is concealed: the last 20 ms are repeated while they fade out over `CONCEAL_S`, and silence follows.
* **Jumps.** Timestamps may not run ahead of the arrivals by more than `LEAP_S` in all, nor back; a sequence number far
  from the newest, or another SSRC, is believed once its successor comes. Each means a sender that began anew: its audio
  goes on where the arrivals put it. So no packet, however forged, makes more silence than time has passed.

Memory is bounded by `MAX_HELD` packets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivavoce.wire.rtp import PayloadFormat, RtpPacket, samples

DELAY_S = 0.1
REPEAT_S = 0.02
CONCEAL_S = 0.06
LEAP_S = 1.0
MAX_HELD = 512
"""Packets: ten seconds of the usual 20 ms, if nobody takes them."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""How far ahead of the newest packet, and behind it, a sequence number is taken at its word (RFC 3550, A.1)."""

_SEQUENCES = 1 << 16
_TIMESTAMPS = 1 << 32


@dataclass(slots=True)
class Counts:
    """What became of the packets and the time between them; samples at the stream's rate."""

    packets: int = 0
    lost: int = 0
    """Packets given up on."""
    late: int = 0
    duplicate: int = 0
    unreadable: int = 0
    """Packets of a type that is unknown or has another sample rate, and those that a full buffer dropped."""
    concealed: int = 0
    """Samples made up in place of lost ones."""
    silence: int = 0
    """Samples of the sender's pauses."""


@dataclass(frozen=True, slots=True)
class _Held:
    timestamp: int
    audio: NDArray[np.int16]
    at: float


class JitterBuffer:
    """The stream of one sender; `formats` say what its payload types mean, `sample_rate` is that of the first."""

    def __init__(
        self,
        formats: Mapping[int, PayloadFormat | None],
        sample_rate: int,
        *,
        delay_s: float = DELAY_S,
        conceal_s: float = CONCEAL_S,
    ) -> None:
        self.counts = Counts()
        self._formats, self._rate, self._delay_s = formats, sample_rate, delay_s
        self._held: dict[int, _Held] = {}
        self._newest: int | None = None
        self._ssrc = 0
        self._next: int | None = None
        """The sequence number, unwrapped, that goes out next; None before the first."""
        self._stamp = 0
        """The timestamp, unwrapped, at which the next sample goes out."""
        self._heard_at = 0.0
        self._jumped = False
        """Whether the next timestamp has nothing to do with those before."""
        self._missed = False
        """Whether packets were lost since the last audio."""
        self._settled: deque[int] = deque(maxlen=MAX_MISORDER)
        self._stranger: tuple[RtpPacket, float] | None = None
        self._began_at = 0.0
        self._concealer = _Concealer(int(REPEAT_S * sample_rate), int(conceal_s * sample_rate))
        self._out: list[NDArray[np.int16]] = []

    def feed(self, packet: RtpPacket, at: float) -> None:
        """Take a packet that arrived `at` (seconds of any steady clock)."""
        self.counts.packets += 1
        number = self._unwrapped(packet, at)
        if number is None:
            return
        if self._next is not None and number < self._next:
            again = number in self._settled
            self.counts.duplicate += again
            self.counts.late += not again
        elif number in self._held:
            self.counts.duplicate += 1
        elif len(self._held) >= MAX_HELD:
            self.counts.unreadable += 1
        else:
            self._held[number] = _Held(packet.timestamp, self._audio(packet), at)

    def take(self, at: float) -> bytes:
        """Give the 16-bit little-endian audio that is settled by `at` and was not given before."""
        while self._held:
            number = min(self._held)
            waited_s = at - min(held.at for held in self._held.values())
            if number != self._next and waited_s < self._delay_s and len(self._held) < MAX_HELD:
                break
            self._settle(number, self._held.pop(number))
        return self._taken()

    def flush(self) -> bytes:
        """Give all audio that is still held, as at the end of the stream."""
        for number in sorted(self._held):
            self._settle(number, self._held.pop(number))
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = self._out, []
        return np.concatenate(out).astype("<i2").tobytes() if out else b""

    def _audio(self, packet: RtpPacket) -> NDArray[np.int16]:
        form = self._formats.get(packet.payload_type)
        if form is not None and form.sample_rate == self._rate:
            return samples(packet.payload, form)
        if form is not None or packet.payload_type not in self._formats:
            self.counts.unreadable += 1
        return np.zeros(0, np.int16)

    def _unwrapped(self, packet: RtpPacket, at: float) -> int | None:
        """Give the place of a packet in the order of all; None while it is too strange to have one."""
        if self._newest is None:
            self._newest, self._ssrc = packet.sequence, packet.ssrc
        ahead = _nearest(packet.sequence - self._newest, _SEQUENCES)
        if packet.ssrc == self._ssrc and -MAX_MISORDER <= ahead <= MAX_DROPOUT:
            self._stranger = None
            number = self._newest + ahead
            self._newest = max(self._newest, number)
            return number
        before, self._stranger = self._stranger, (packet, at)
        if before is None or before[0].ssrc != packet.ssrc or (packet.sequence - before[0].sequence) % _SEQUENCES != 1:
            return None
        self._stranger = None
        return self._begin_anew(before)

    def _begin_anew(self, before: tuple[RtpPacket, float]) -> int:
        """Go on with a sender that has jumped: `before` follows all that is held; give the place behind it."""
        for number in sorted(self._held):
            self._settle(number, self._held.pop(number))
        assert self._newest is not None
        # Any whole turn of the counter keeps unwrapped numbers rising.
        first = (self._newest // _SEQUENCES + 1) * _SEQUENCES + before[0].sequence
        self._settled.clear()
        packet, at = before
        self._next, self._newest, self._ssrc, self._jumped = first, first + 1, packet.ssrc, True
        self._held[first] = _Held(packet.timestamp, self._audio(packet), at)
        return first + 1

    def _settle(self, number: int, held: _Held) -> None:
        """Put a packet behind all before it, with what belongs between them."""
        if self._next is None:
            self._next, self._stamp, self._heard_at = number, held.timestamp, held.at
            self._began_at = held.at
        missing = number - self._next
        self.counts.lost += missing
        self._missed |= missing > 0
        self._settled.append(number)
        self._next = number + 1
        if not len(held.audio):
            return
        gap = self._gap(held)
        if gap > 0:
            self._fill(gap)
        self._missed = False
        fresh = held.audio[max(-gap, 0) :]
        self._concealer.hear(fresh)
        self._out.append(fresh)
        self._stamp += max(gap, 0) + len(fresh)
        self._heard_at = held.at

    def _gap(self, held: _Held) -> int:
        """Give the samples between the audio so far and a packet; less than none where they overlap."""
        gap = _nearest(held.timestamp - self._stamp, _TIMESTAMPS)
        passed = max(int((held.at - self._heard_at) * self._rate), 0)
        leap = int(LEAP_S * self._rate)
        # Over the whole stream, so that many small jumps come to no more than one.
        room = int((held.at - self._began_at) * self._rate) + leap - self.counts.silence - self.counts.concealed
        if not self._jumped and -leap < gap <= min(passed + leap, room):
            return gap
        self._jumped = False
        gap = max(passed - len(held.audio), 0)
        self._stamp = held.timestamp - gap
        return gap

    def _fill(self, gap: int) -> None:
        if self._missed:
            self.counts.concealed += gap
            self._out.append(self._concealer.conceal(gap))
        else:
            self.counts.silence += gap
            self._out.append(np.zeros(gap, np.int16))


class _Concealer:
    """Makes up lost audio from what was heard last."""

    def __init__(self, repeat: int, fade: int) -> None:
        self._last = np.zeros(0, np.int16)
        self._repeat, self._fade = repeat, fade

    def hear(self, audio: NDArray[np.int16]) -> None:
        self._last = np.concatenate([self._last, audio])[-self._repeat :]

    def conceal(self, gap: int) -> NDArray[np.int16]:
        made = np.zeros(gap, np.int16)
        sound = min(gap, self._fade)
        if sound and len(self._last):
            made[:sound] = np.resize(self._last, sound) * np.linspace(1, 0, self._fade, endpoint=False)[:sound]
        return made


def _nearest(difference: int, turn: int) -> int:
    """Give the difference of two counters that wrap after `turn`, taken the short way round."""
    return (difference + turn // 2) % turn - turn // 2
