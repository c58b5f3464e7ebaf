"""One channel of a session: frames in, speech events and requests for decoding out, answers back in.

`feed` and `cut` bring audio time forward and give `Step`s: events to publish and `Ask`s for the decode pool. The
answer to every ask that was not withdrawn comes back through `resolve`, which gives the events it makes possible. That
is the only loop on the road.

An utterance's clip is `[onset - PREROLL, end of speech + TAIL)`, or to a forced cut, and never reaches back into the
clip before it. Asks for a final are made as soon as the endpointer tells a possible end of speech; if the segment then
closes with the same clip, the answer is already there or on its way, otherwise it is withdrawn and the new clip asked
for. So a final depends on its clip alone and never on which partials or guesses ran. While the segment is open, such an
answer serves as a partial; where speech goes on before it is there, it is not worth waiting for and withdrawn. Where a
segment is about to be cut for its length, its final is asked for up to the place that is foreseen. Finals leave in
segment order; an utterance without words leaves none.

Such an answer is also what a hint at the end of a turn rests on, so hints cost nothing and change no final. A hint is
given once, when it is answered and the silence is long enough, and withdrawn as soon as the final can be no other than
a new one: where speech is heard behind its clip, the segment closes with another, or the final is asked for again. One
that is not withdrawn is the final, to the word.

A channel that is to keep its language takes that of the first final with words; from then on only that one is asked
for. What was asked for earlier and came in another language is asked for again, so that the order of answers, and how
many were out at a time, change nothing.

A final leaves with the channel's state at the moment its segment closed. A new channel that is given this state and fed
the same stream from `kept_from` on does and says from there what the first one did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivavoce.events import Final, Partial, SpeechEnded, SpeechStarted, TurnContinued, TurnEndLikely
from vivavoce.model import SAMPLE_RATE, Hypothesis, Samples, Utterance, Word
from vivavoce.speech.audio import FRAME
from vivavoce.speech.endpoint import TAIL, Closed, Endpointer, Foreseen, Mark, Opened, Paused, levels
from vivavoce.speech.speakers import Speakers

PREROLL = SAMPLE_RATE // 5
MOST_PARTIALS_OUT = 4
"""Partials of a channel whose answers are expected; older ones are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A clip to decode; `number` names the ask on its channel, `utterance` the utterance it belongs to.

    One of the `languages` is spoken, any if there are none. With `again`, the utterance ended when it was asked for
    before.
    """

    channel: int
    number: int
    utterance: str
    start: int
    samples: Samples
    final: bool
    languages: tuple[str, ...] = ()
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """The answer to this ask is no longer worth any work; where it comes all the same, `resolve` knows what it is."""

    channel: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """A channel right after a segment closed, open segments excluded.

    `kept_from` is the first sample that a later clip may reach back to, `origin` what the caller said of the frames,
    `speakers` who was heard up to and with the final that this was stored with, `language` the one that is kept.
    """

    kept_from: int
    free_from: int
    endpointer: Mapping[str, Any]
    origin: Any
    speakers: Sequence[Any] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A final, and the channel's state to store with it."""

    final: Final
    state: ChannelState


Outcome = SpeechStarted | SpeechEnded | Partial | TurnEndLikely | TurnContinued | Settled
Step = Outcome | Ask | Withdraw


@dataclass(slots=True, kw_only=True)
class _Guess:
    """An ask for a final up to `stop`, and its answer once there; with `cut`, one in mid-speech, which goes on."""

    ask: Ask
    stop: int
    cut: bool = False
    answer: Hypothesis | None = None
    answered: bool = False
    withdrawn: bool = False
    hinted: bool = False
    state: ChannelState | None = None


@dataclass(slots=True, kw_only=True)
class _Segment:
    """The open segment: its clip's start, what was asked for, how far partials reach.

    Partials are due at whole intervals from `due_from` on, and asked for with the next frames that come.
    """

    utterance: str
    start: int
    guess: _Guess | None = None
    due_from: int = 0
    asked_to: int = 0
    shown_to: int = 0


def utterance_name(channel: int, onset: int) -> str:
    """Name the utterance whose speech begins at a sample; no other one of its session has that name."""
    return f"{channel:02}_{onset * 1000 // SAMPLE_RATE:08}"


class Channel:
    """One track, from 0; pure, and but for which partials it asks for the same for every split of the same frames.

    A partial is asked for up to the last frame that was fed: one that ended before it would be behind at once.
    """

    def __init__(
        self,
        index: int,
        endpointer: Endpointer,
        *,
        partial_every: int | None,
        speakers: Speakers | None = None,
        turn_silence: int | None = None,
        languages: tuple[str, ...] = (),
        code_switching: bool = False,
    ) -> None:
        """Start at sample 0; `partial_every` samples of new speech ask for a partial, never if None.

        That may change at any time, since no final depends on it. Where `speakers` are told apart, finals say who they
        are. After `turn_silence` samples without speech a turn is likely to be over; with None nothing is said of it.
        One of the `languages` is spoken, any if there are none: the same one all the time, or each utterance in another
        with `code_switching`.
        """
        self._index = index
        self._languages = languages
        self._keeps_language = not code_switching
        self._language: str | None = None
        self._speakers = speakers
        self._endpointer = endpointer
        self.partial_every = partial_every
        self._turn_silence = turn_silence
        self._frames: deque[Samples] = deque()
        self._kept_from = 0
        self._free_from = 0
        self._numbers = count()
        self._segment: _Segment | None = None
        self._closed: deque[_Guess] = deque()
        self._partials: dict[int, Ask] = {}
        self._origin: Any = None

    @property
    def busy(self) -> bool:
        """Whether a segment is open or a final is still out."""
        return self._endpointer.onset is not None or bool(self._closed)

    @property
    def open(self) -> bool:
        """Whether an utterance is open."""
        return self._segment is not None

    @property
    def at(self) -> int:
        """The first sample that was not fed yet."""
        return self._kept_from + len(self._frames) * FRAME

    @property
    def decided_to(self) -> int:
        """The first sample that nothing was decided about yet; beyond `at` only after `restore`."""
        return self._endpointer.at

    def restore(self, state: ChannelState) -> None:
        """Go on from a state; feed the stream from `state.kept_from` on."""
        self._endpointer.restore(state.endpointer)
        self._kept_from, self._free_from = state.kept_from, state.free_from
        self._language = state.language
        if self._speakers is not None:
            self._speakers.restore(state.speakers)

    def feed(self, samples: Samples, probabilities: NDArray[np.float32], origin: Any = None) -> list[Step]:
        """Take the next whole frames with a probability each; `origin` comes back in states that rest on them."""
        self._origin = origin
        frames = samples.reshape(-1, FRAME)
        steps: list[Step] = []
        for frame, probability, blocks in zip(frames, probabilities.tolist(), levels(frames), strict=True):
            known = self.at < self.decided_to
            self._frames.append(frame)
            if known:
                continue
            for mark in self._endpointer.step(probability, blocks):
                steps += self._on_mark(mark)
            if self._segment is not None:
                steps += self._withdraw_guess()
                steps += self._hint()
        steps += self._partial()
        if self.at >= self.decided_to:
            self._forget()
        return steps

    def cut(self) -> list[Step]:
        """Close the open segment at the end of the frames so far, at a stop or where the stream stalls."""
        if self.at < self.decided_to:
            return []
        steps = [step for mark in self._endpointer.cut() for step in self._on_mark(mark)]
        self._forget()
        return steps

    def resolve(self, number: int, answer: Hypothesis | None) -> list[Step]:
        """Take the answer to an ask (None where decoding failed) and give the events it makes possible.

        Now and then it makes another ask necessary.
        """
        if ask := self._partials.pop(number, None):
            return self._show(ask, answer)
        guess = next((each for each in self._guesses() if each.ask.number == number), None)
        if guess is None:
            return []
        guess.answer, guess.answered = answer, True
        if self._segment and guess is self._segment.guess:
            return [*self._show(guess.ask, answer), *self._hint()]
        return self._settle()

    def _guesses(self) -> list[_Guess]:
        current = self._segment.guess if self._segment else None
        return [*self._closed, current] if current else [*self._closed]

    def _on_mark(self, mark: Mark) -> list[Step]:
        match mark:
            case Opened(onset=onset):
                start = max(onset - PREROLL, self._free_from, self._kept_from)
                name = utterance_name(self._index, onset)
                self._segment = _Segment(utterance=name, start=start, due_from=onset, asked_to=onset, shown_to=onset)
                return [SpeechStarted(channel=self._index, at_s=onset / SAMPLE_RATE)]
            case Paused(end=end):
                return self._ask_final(end + TAIL)
            case Foreseen(end=end):
                return self._ask_final(end, cut=True)
            case Closed():
                return self._on_closed(mark)

    def _on_closed(self, mark: Closed) -> list[Step]:
        stop = mark.end if mark.forced else min(mark.end + TAIL, self._endpointer.at)
        steps = self._ask_final(stop)
        segment, self._segment = self._segment, None
        assert segment is not None
        assert segment.guess is not None
        self._free_from = stop
        segment.guess.state = ChannelState(
            kept_from=self._needed_from() // FRAME * FRAME,
            free_from=stop,
            endpointer=self._endpointer.save(),
            origin=self._origin,
        )
        self._closed.append(segment.guess)
        steps += [Withdraw(channel=self._index, number=number) for number in self._partials]
        self._partials.clear()
        return [*steps, SpeechEnded(channel=self._index, at_s=mark.end / SAMPLE_RATE), *self._settle()]

    def _ask_final(self, stop: int, *, cut: bool = False) -> list[Step]:
        """Ask for the open segment's final up to `stop`, unless that very clip was asked for."""
        segment = self._segment
        assert segment is not None
        steps: list[Step] = []
        if segment.guess is not None:
            if segment.guess.stop == stop:
                return []
            steps += self._withdraw(segment.guess)
        ask = self._ask(stop, final=True)
        segment.guess = _Guess(ask=ask, stop=stop, cut=cut)
        if not cut:
            segment.due_from = segment.asked_to = stop
        return [*steps, ask]

    def _withdraw_guess(self) -> list[Step]:
        """Withdraw the guess at a final once there is speech behind it."""
        guess = self._segment.guess if self._segment else None
        if guess is None or guess.cut or self._endpointer.last_loud <= guess.stop:
            return []
        return self._withdraw(guess)

    def _withdraw(self, guess: _Guess) -> list[Step]:
        if guess.hinted:
            guess.hinted = False
            return [TurnContinued(utterance_id=guess.ask.utterance, channel=self._index)]
        if guess.answered or guess.withdrawn:
            return []
        guess.withdrawn = True
        return [Withdraw(channel=self._index, number=guess.ask.number)]

    def _hint(self) -> list[Outcome]:
        """Say that a turn is likely to be over, once, when it is silent for long enough and known what was said."""
        guess = self._segment.guess if self._segment else None
        if guess is None or guess.cut or guess.hinted or guess.answer is None or not guess.answer.words:
            return []
        end = guess.stop - TAIL
        silence = self._endpointer.at - end
        if self._turn_silence is None or silence < self._turn_silence or self._endpointer.last_loud > guess.stop:
            return []
        guess.hinted = True
        said = self._utterance(guess.ask, guess.answer)
        return [TurnEndLikely(utterance=said, at_s=end / SAMPLE_RATE, silence_s=silence / SAMPLE_RATE)]

    def _partial(self) -> list[Step]:
        segment, last_loud = self._segment, self._endpointer.last_loud
        if segment is None or self.partial_every is None:
            return []
        stop = self._endpointer.at
        due, before = ((at - segment.due_from) // self.partial_every for at in (stop, segment.asked_to))
        if due <= before or last_loud <= segment.asked_to:
            return []
        ask = self._ask(stop, final=False)
        self._partials[ask.number] = ask
        while len(self._partials) > MOST_PARTIALS_OUT:
            # Replaced by a newer one while it waited, so it is never answered.
            del self._partials[next(iter(self._partials))]
        segment.asked_to = stop
        return [ask]

    def _ask(self, stop: int, *, final: bool) -> Ask:
        assert self._segment is not None
        start = self._segment.start
        first, last = (start - self._kept_from) // FRAME, -(-(stop - self._kept_from) // FRAME)
        joined = np.concatenate([self._frames[i] for i in range(first, last)])
        offset = start - self._kept_from - first * FRAME
        return Ask(
            channel=self._index,
            number=next(self._numbers),
            utterance=self._segment.utterance,
            start=start,
            samples=joined[offset : offset + stop - start],
            final=final,
            languages=self._expected,
        )

    @property
    def _expected(self) -> tuple[str, ...]:
        """The languages to ask for now."""
        return self._languages if self._language is None else (self._language,)

    def _needed_from(self) -> int:
        """Give the first sample that a clip may still need."""
        if self._segment is not None:
            return self._segment.start
        onset = self._endpointer.onset
        return max((self._endpointer.at if onset is None else onset) - PREROLL, self._free_from, self._kept_from)

    def _forget(self) -> None:
        """Drop frames that no clip can need any more."""
        while self._frames and self._kept_from + FRAME <= self._needed_from():
            self._frames.popleft()
            self._kept_from += FRAME

    def _show(self, ask: Ask, answer: Hypothesis | None) -> list[Step]:
        """Give a partial, unless a later one was shown or there is nothing to show."""
        stop = ask.start + len(ask.samples)
        segment = self._segment
        if segment is None or segment.utterance != ask.utterance or stop <= segment.shown_to:
            return []
        if self.partial_every is None or answer is None or not answer.words:
            return []
        segment.shown_to = stop
        return [Partial(utterance=self._utterance(ask, answer))]

    def _settle(self) -> list[Step]:
        """Give the finals that are answered and have no unanswered one before them."""
        steps: list[Step] = []
        while self._closed and self._closed[0].answered:
            guess = self._closed[0]
            if self._is_in_another_language(guess):
                return [*steps, *self._ask_again(guess)]
            self._closed.popleft()
            if guess.answer is not None and guess.answer.words:
                steps.append(self._settled(guess, guess.answer))
        return steps

    def _is_in_another_language(self, guess: _Guess) -> bool:
        """Whether a final was asked for before the channel's language was known, and came in another."""
        if self._language is None or guess.answer is None or guess.ask.languages == self._expected:
            return False
        return guess.answer.language != self._language

    def _ask_again(self, guess: _Guess) -> list[Step]:
        """Ask for a final in the channel's language; what was hinted at in another is withdrawn."""
        steps = self._withdraw(guess)
        guess.ask = replace(guess.ask, number=next(self._numbers), languages=self._expected, again=True)
        guess.answer, guess.answered = None, False
        return [*steps, guess.ask]

    def _settled(self, guess: _Guess, answer: Hypothesis) -> Settled:
        utterance, state = self._utterance(guess.ask, answer), guess.state
        assert state is not None
        if self._keeps_language:
            self._language = self._language or answer.language
            state = replace(state, language=self._language)
        if self._speakers is not None:
            utterance = self._speakers.attribute(utterance, answer.voices, guess.ask.start / SAMPLE_RATE)
            state = replace(state, speakers=self._speakers.save())
        return Settled(final=Final(utterance=utterance), state=state)

    def _utterance(self, ask: Ask, answer: Hypothesis) -> Utterance:
        shift = ask.start / SAMPLE_RATE
        words = tuple(_shifted(word, shift) for word in answer.words)
        return Utterance(
            id=ask.utterance,
            channel=self._index,
            start=words[0].start,
            end=words[-1].end,
            confidence=sum(word.confidence for word in words) / len(words),
            language=answer.language,
            words=words,
        )


def _shifted(word: Word, by_s: float) -> Word:
    return replace(word, start=word.start + by_s, end=word.end + by_s)
