"""The tracks of one call, put side by side: frames with timestamps in, interleaved audio out.

A telephone network sends each direction of a call as a track of small frames. A frame says when it was played, and in
which order it was sent; it may come late, twice or never, and a track may be silent for as long as it likes. `Tracks`
puts every frame where its timestamp says, fills what is left with silence, and gives the audio of all tracks as soon as
it cannot change any more.

* Audio is settled up to where every track has been heard, and never later than `LAG_S` behind the newest frame of any.
  So one track alone never waits, two wait for the slower one, and a track that is missing holds nobody up for long.
* A frame that starts about where the last one ended follows it without a seam: some senders stamp frames by the wall
  clock, a few milliseconds off. `_SLACK_S` is what counts as about, and `_JITTER_S` where the frames' numbers show that
  nothing is missing in between.
* A frame is dropped only if its place is taken and its number says that it is a repeat, or that later frames are
  already placed. A newer one is never dropped, whatever its timestamp says; its place is then behind the last one.
* A frame with a number and no timestamp waits for those before it, `LAG_S` of audio at most, and then follows them.
  Where more than `_MOST_LATE` in a row come after their turn, numbers stand still or began again, and count no more.
* A timestamp that is more than `_MAX_GAP_S` behind starts the clock anew, without a gap. That is also how timestamps
  that count from 1970 become a call's own. So does one by which there would be more silence than time has passed since
  the first frame, and `_LEAP_S`: what is stored of a call is what was sent and the time that it took, however frames
  are stamped. A gap longer than `_MAX_GAP_S` must also fit what has passed since the last frame, or what that time
  has room for beside all that was placed: minutes in which nothing was sent are kept, and a clock that was set makes
  none.

No clock is read here: how far a track is behind is told by timestamps alone, and whoever feeds `Tracks` says when a
frame arrived, and calls `settle` when nothing has come for a while.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

INBOUND, OUTBOUND = "inbound", "outbound"
TRACKS = (INBOUND, OUTBOUND)
"""What the caller says and what the caller hears, in the order of a session's channels."""

LAG_S = 0.2
"""The longest that one track is waited for, in seconds of audio."""

_SLACK_S = 0.01
_JITTER_S = 0.04
_MAX_GAP_S = 60.0
_LEAP_S = 1.0
_PIECE_S = 1.0
_MOST_LATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A frame of one track: where it begins in milliseconds, and its number in the order it was sent, where known.

    Without a timestamp a frame follows the one before, by its number where it has one; numbers grow from frame to frame
    of a track.
    """

    track: str
    payload: bytes
    timestamp_ms: int | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    at: int
    end: int
    number: int | None
    payload: bytes


@dataclass(slots=True)
class _Track:
    """One track: what is placed but not given out yet, and the frames that wait for those before them.

    `unplaced` are frames that only their numbers tell the place of, `late` how many of them in a row came after their
    turn, and `numbered` whether that is believed.
    """

    end: int = 0
    number: int | None = None
    placed: bytearray = field(default_factory=bytearray)
    waiting: list[_Frame] = field(default_factory=list)
    unplaced: list[Media] = field(default_factory=list)
    late: int = 0
    numbered: bool = True


class Tracks:
    """Aligns the tracks of one stream; `sample` is one sample of silence, whose length is that of every sample."""

    def __init__(self, names: Sequence[str], *, sample_rate: int, sample: bytes) -> None:
        self._named = {name: _Track() for name in names}
        self._tracks = tuple(self._named.values())
        self._rate = sample_rate
        self._silence = sample
        self._width = len(sample)
        self._lag, self._slack = round(LAG_S * sample_rate), round(_SLACK_S * sample_rate)
        self._jitter, self._max_gap = round(_JITTER_S * sample_rate), round(_MAX_GAP_S * sample_rate)
        self._leap, self._piece = round(_LEAP_S * sample_rate), round(_PIECE_S * sample_rate)
        self._origin = self._newest = self._settled = self._skipped = 0
        self._began_at: float | None = None
        self._arrived_at = 0.0

    def place(self, media: Media, arrived_at: float) -> Iterator[bytes]:
        """Take a frame that `arrived_at` (seconds of any steady clock), and give the audio that is settled by it.

        The tracks are interleaved, and often there is nothing yet. After a long pause it comes in many pieces, all of
        which must be taken before anything else is done. Raises `KeyError` for a track that was not announced. A sample
        that is cut off is left out.
        """
        track = self._named[media.track]
        if media.timestamp_ms is None and not track.numbered:
            media = replace(media, number=None)
        if media.timestamp_ms is None and media.number is not None:
            self._queue(track, media)
        else:
            self._put(track, media, self._position(track, media.timestamp_ms, arrived_at))
        yield from self._give(max(self._heard(), self._newest - self._lag))

    def _queue(self, track: _Track, media: Media) -> None:
        """Put a frame without a timestamp behind those with lower numbers."""
        if len(media.payload) < self._width:
            return
        late = track.number is not None and media.number is not None and media.number <= track.number
        late = late or any(media.number == other.number for other in track.unplaced)
        track.late = track.late + 1 if late else 0
        if track.late > _MOST_LATE:
            track.numbered = False
            self._put_unplaced(track)
            self._put(track, replace(media, number=None), track.end)
        if late:
            return
        insort(track.unplaced, media, key=attrgetter("number"))
        while track.unplaced and (self._is_next(track) or self._queued(track) > self._lag):
            self._put(track, track.unplaced.pop(0), track.end)

    def _is_next(self, track: _Track) -> bool:
        number = track.unplaced[0].number
        return number is not None and track.number is not None and number == track.number + 1

    def _queued(self, track: _Track) -> int:
        return sum(len(media.payload) for media in track.unplaced) // self._width

    def _put_unplaced(self, track: _Track) -> None:
        """Put the frames that wait for lower numbers as if none of those came."""
        for media in track.unplaced:
            self._put(track, media, track.end)
        track.unplaced.clear()

    def _put(self, track: _Track, media: Media, at: int) -> None:
        """Place a frame, or let it wait for those before it."""
        samples = len(media.payload) // self._width
        frame = _Frame(at, at + samples, media.number, media.payload[: samples * self._width])
        if not samples or self._is_old(track, frame):
            return
        if not track.waiting and self._follows(track, frame):
            self._append(track, frame)
        elif not any(frame.at == other.at and frame.number == other.number for other in track.waiting):
            insort(track.waiting, frame, key=attrgetter("end"))
            self._join(track)

    def settle(self, *, ahead_s: float = 0.0) -> bytes:
        """Give all audio that is held, as if nothing more were coming for the time that it covers.

        Audio is still held where the tracks are no more than `ahead_s` apart, since what belongs beside it is on its
        way.
        """
        for track in self._tracks:
            self._put_unplaced(track)
        apart = self._newest - self._heard()
        # A track alone is never ahead of itself, and may have been waiting for its own frames.
        stop = self._newest if apart > ahead_s * self._rate else self._heard()
        return b"".join(self._give(stop))

    def _position(self, track: _Track, timestamp_ms: int | None, arrived_at: float) -> int:
        """Give the sample at which a frame with this timestamp begins."""
        if self._began_at is None:
            self._began_at = self._arrived_at = arrived_at
        waited, self._arrived_at = arrived_at - self._arrived_at, arrived_at
        if timestamp_ms is None:
            return max(track.end, track.waiting[-1].end) if track.waiting else track.end
        stamped = timestamp_ms * self._rate // 1000
        ahead = stamped - self._origin - self._newest
        passed = round((arrived_at - self._began_at) * self._rate) + self._leap
        allowed = passed - self._skipped
        if ahead > self._max_gap:
            allowed = min(allowed, max(passed - self._newest, round(waited * self._rate) + self._leap))
        if ahead < -self._max_gap or ahead > max(allowed, 0):
            self._origin = stamped - self._newest
        else:
            self._skipped += max(ahead, 0)
        return stamped - self._origin

    def _join(self, track: _Track) -> None:
        """Place the frames that wait for nothing any more, but for repeats."""
        while track.waiting and self._follows(track, track.waiting[0]):
            frame = track.waiting.pop(0)
            if not self._is_old(track, frame):
                self._append(track, frame)
        # Anew, since a frame that was placed may end a little before where its timestamp put it.
        self._newest = max(each.waiting[-1].end if each.waiting else each.end for each in self._tracks)

    def _append(self, track: _Track, frame: _Frame) -> None:
        track.placed += frame.payload
        track.end += frame.end - frame.at
        track.number = frame.number
        self._newest = max(self._newest, track.end)

    def _is_old(self, track: _Track, frame: _Frame) -> bool:
        """Tell whether a frame's place is taken, by itself or by silence while later frames were placed."""
        if frame.number is None or track.number is None:
            return frame.end <= track.end
        return frame.number <= track.number and frame.end <= track.end + self._jitter

    def _follows(self, track: _Track, frame: _Frame) -> bool:
        """Tell whether a frame begins about where the track ends, or before."""
        next_one = frame.number is not None and track.number is not None and frame.number == track.number + 1
        return frame.at <= track.end + (self._jitter if next_one else self._slack)

    def _heard(self) -> int:
        """Give up to where every track has been heard."""
        return min(track.end for track in self._tracks)

    def _give(self, stop: int) -> Iterator[bytes]:
        """Fill every track up to `stop` and take what is new of all of them, piece by piece."""
        while self._settled < stop:
            until = min(stop, self._settled + self._piece)
            size = (until - self._settled) * self._width
            parts = []
            for track in self._tracks:
                self._fill(track, until)
                parts.append(bytes(track.placed[:size]))
                del track.placed[:size]
            self._settled = until
            yield _interleaved(parts, self._width)

    def _fill(self, track: _Track, stop: int) -> None:
        """Put silence where nothing has come, up to `stop` at least."""
        while track.end < stop:
            gap = min(stop, track.waiting[0].at if track.waiting else stop) - track.end
            track.placed += self._silence * gap
            track.end += gap
            self._join(track)


def _interleaved(parts: Sequence[bytes], width: int) -> bytes:
    """Weave channels of equal length together, sample by sample of `width` bytes."""
    if len(parts) == 1:
        return parts[0]
    woven, step = bytearray(sum(map(len, parts))), width * len(parts)
    for channel, part in enumerate(parts):
        for byte in range(width):
            woven[channel * width + byte :: step] = part[byte::width]
    return bytes(woven)
