"""One channel: what it asks for, what it says, and that answers in any order change neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vivavoce.events import Final, Partial, SpeechEnded, SpeechStarted, TurnContinued, TurnEndLikely
from vivavoce.model import SAMPLE_RATE, Diarization, Hypothesis, Voice, Word, spread_words
from vivavoce.speech.audio import FRAME
from vivavoce.speech.channel import PREROLL, Ask, Channel, ChannelState, Settled, Step, Withdraw
from vivavoce.speech.endpoint import TAIL, Endpointer
from vivavoce.speech.speakers import Speakers


def channel(*, partial_every: int | None = SAMPLE_RATE // 5, **more: Any) -> Channel:
    endpointer = Endpointer(threshold=0.6, silence=SAMPLE_RATE // 4, maximum=5 * SAMPLE_RATE)
    return Channel(0, endpointer, partial_every=partial_every, **more)


def signal(pattern: str) -> tuple[np.ndarray, np.ndarray]:
    """`#` is a frame of speech, `.` one of silence; samples carry their own position, so clips can be checked."""
    loud = np.array([mark == "#" for mark in pattern])
    samples = np.repeat(np.where(loud, 0.5, 1e-5), FRAME) * (1 + np.arange(len(pattern) * FRAME) / 1e7)
    return samples.astype(np.float32), loud.astype(np.float32)


def answer(ask: Ask) -> Hypothesis:
    """A word per tenth of a second, in one of three voices, so that both show the clip's length."""
    clip_s = len(ask.samples) / SAMPLE_RATE
    count = max(int(clip_s * 10), 1)
    texts = [f"w{i}" for i in range(count)]
    embedding = np.eye(3)[len(ask.samples) // FRAME % 3]
    voice = Voice(spans=((0.0, clip_s),), alone_s=clip_s, embedding=tuple(embedding.tolist()))
    return Hypothesis(words=spread_words(texts, [0.5] * count, 0.0, clip_s), language="en", voices=(voice,))


def play(
    track: Channel, pattern: str, piece: int = 1, start: int = 0, reply: Callable[[Ask], Hypothesis] = answer
) -> list[Step]:
    """Feed from frame `start` on and answer every ask at once; give all steps and events in order."""
    samples, speech = signal(pattern)
    out: list[Step] = []

    def follow(steps: list[Step]) -> None:
        out.extend(steps)
        for step in steps:
            if isinstance(step, Ask):
                follow(track.resolve(step.number, reply(step)))

    for i in range(start, len(speech), piece):
        follow(track.feed(samples[i * FRAME : (i + piece) * FRAME], speech[i : i + piece]))
    follow(track.cut())
    return out


def finals_of(steps: Sequence[object]) -> list[Final]:
    return [step.final for step in steps if isinstance(step, Settled)]


PHRASE = "." * 10 + "#" * 30 + "." * 20


def test_one_phrase() -> None:
    """Speech is announced, shown while it lasts, ended, and finished under one id, in this order."""
    events = [step for step in play(channel(), PHRASE) if not isinstance(step, Ask | Withdraw)]
    assert isinstance(events[0], SpeechStarted)
    assert events[0].at_s == 10 * FRAME / SAMPLE_RATE
    assert all(isinstance(event, Partial) for event in events[1:-2])
    assert len(events) > 5
    assert isinstance(events[-2], SpeechEnded)
    assert events[-2].at_s == 40 * FRAME / SAMPLE_RATE
    assert isinstance(events[-1], Settled)
    assert events[-1].final.utterance.id == "00_00000320"
    assert {event.utterance.id for event in events if isinstance(event, Partial)} == {"00_00000320"}


def test_the_finals_clip_is_exact() -> None:
    """The clip runs from 0.2 s before the onset to 0.1 s after the end of speech, to the sample."""
    samples, _ = signal(PHRASE)
    finals = [step for step in play(channel(), PHRASE) if isinstance(step, Ask) and step.final]
    start, stop = 10 * FRAME - PREROLL, 40 * FRAME + TAIL
    assert finals[-1].start == start
    assert np.array_equal(finals[-1].samples, samples[start:stop])


def test_a_final_is_asked_for_before_it_is_due() -> None:
    """The ask for the final comes before the end is decided, and only once."""
    steps = play(channel(partial_every=None), PHRASE)
    kinds = [type(step).__name__ for step in steps]
    assert kinds == ["SpeechStarted", "Ask", "SpeechEnded", "Settled"]


def test_the_final_of_a_cut_is_asked_for_before_it_is_due() -> None:
    """What is cut for its length was asked for while it was still spoken, once, and speech after it changes nothing."""
    samples, speech = signal("." * 10 + "#" * 180)
    track, asked, ended_at = channel(partial_every=None), list[tuple[int, Ask]](), 0
    for i in range(len(speech)):
        for step in track.feed(samples[i * FRAME : (i + 1) * FRAME], speech[i : i + 1]):
            assert not isinstance(step, Withdraw)
            if isinstance(step, Ask):
                asked.append((i, step))
            elif isinstance(step, SpeechEnded):
                ended_at = i
    ((at, ask),) = asked
    assert ask.final
    assert at < ended_at


def test_clips_do_not_overlap() -> None:
    """A pre-roll never reaches back into the clip before."""
    steps = play(channel(), ("." * 9 + "#" * 20) * 3 + "." * 30)
    spans: dict[str, tuple[int, int]] = {}
    for ask in (step for step in steps if isinstance(step, Ask) and step.final):
        spans[ask.utterance] = (ask.start, ask.start + len(ask.samples))
    ordered = sorted(spans.values())
    assert len(ordered) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def test_without_partials_none_are_asked_for() -> None:
    """A session that wants no partials costs none."""
    steps = play(channel(partial_every=None), PHRASE)
    assert not any(isinstance(step, Partial) for step in steps)
    assert all(step.final for step in steps if isinstance(step, Ask))


def test_finals_say_who_speaks_and_partials_do_not() -> None:
    """Numbers go by finals that left, in their order; a channel that was not asked says nothing."""
    pattern = PHRASE + "#" * 31 + "." * 20 + PHRASE
    said = play(channel(speakers=Speakers(Diarization())), pattern)
    assert [final.utterance.speaker for final in finals_of(said)] == [0, 1, 0]
    assert {event.utterance.speaker for event in said if isinstance(event, Partial)} == {None}
    assert {final.utterance.speaker for final in finals_of(play(channel(), pattern))} == {None}


def hints_of(steps: Sequence[object]) -> list[TurnEndLikely | TurnContinued]:
    return [step for step in steps if isinstance(step, TurnEndLikely | TurnContinued)]


def test_the_end_of_a_turn_is_told_ahead_of_the_final_with_its_text() -> None:
    """At the first silent frames, while the utterance is still open, and only where somebody asks."""
    steps = play(channel(turn_silence=TAIL), PHRASE)
    (hint,) = hints_of(steps)
    assert isinstance(hint, TurnEndLikely)
    assert hint.at_s == 40 * FRAME / SAMPLE_RATE
    assert TAIL / SAMPLE_RATE <= hint.silence_s < (TAIL + FRAME) / SAMPLE_RATE
    assert hint.utterance == finals_of(steps)[0].utterance
    names = [type(step).__name__ for step in steps]
    assert names.index("TurnEndLikely") < names.index("SpeechEnded")
    assert hints_of(play(channel(), PHRASE)) == []


def test_a_hint_waits_for_as_much_silence_as_it_is_asked_to() -> None:
    """A pause that is shorter gives none; neither does one that ends the utterance first."""
    pattern = "." * 10 + "#" * 30 + "." * 5 + "#" * 30 + "." * 20
    assert len(hints_of(play(channel(turn_silence=TAIL), pattern))) == 3
    (hint,) = hints_of(play(channel(turn_silence=SAMPLE_RATE // 5), pattern))
    assert hint.silence_s >= 0.2
    assert hints_of(play(channel(turn_silence=SAMPLE_RATE), pattern)) == []


def test_a_hint_is_withdrawn_as_soon_as_speech_goes_on() -> None:
    """Before anything else is said of the utterance, and once; the next pause gives a new one of all of it."""
    pattern = "." * 10 + "#" * 30 + "." * 5 + "#" * 30 + "." * 20
    steps = play(channel(partial_every=None, turn_silence=TAIL), pattern)
    first, withdrawn, second = hints_of(steps)
    assert isinstance(withdrawn, TurnContinued)
    assert withdrawn == TurnContinued(utterance_id=first.utterance.id, channel=0)
    assert len(second.utterance.words) > len(first.utterance.words)
    assert [second.utterance] == [final.utterance for final in finals_of(steps)]


def test_what_was_not_understood_is_no_end_of_a_turn() -> None:
    """Neither noise nor a failed decode gives a hint."""
    for nothing in (None, Hypothesis(words=(), language="en")):
        track = channel(partial_every=None, turn_silence=TAIL)
        samples, speech = signal(PHRASE[:45])
        (ask,) = [step for step in track.feed(samples, speech) if isinstance(step, Ask)]
        assert track.resolve(ask.number, nothing) == []


def test_an_utterance_without_words_leaves_no_final() -> None:
    """The engine heard nothing: speech events only."""
    track = channel(partial_every=None)
    samples, speech = signal(PHRASE)
    steps = track.feed(samples, speech)
    asks = [step for step in steps if isinstance(step, Ask)]
    assert track.resolve(asks[-1].number, Hypothesis(words=(), language="en")) == []
    assert not track.busy


def test_a_failed_decode_blocks_nothing() -> None:
    """An utterance that could not be decoded is left out and the ones after it come."""
    track = channel(partial_every=None)
    samples, speech = signal(PHRASE * 2)
    first, second = [step for step in track.feed(samples, speech) if isinstance(step, Ask)]
    assert track.resolve(second.number, answer(second)) == []
    finals = track.resolve(first.number, None)
    assert [event.final.utterance.id for event in finals if isinstance(event, Settled)] == [second.utterance]


def test_times_are_the_sessions() -> None:
    """Word times count from the start of the channel, not of the clip."""
    (final,) = finals_of(play(channel(), PHRASE))
    assert final.utterance.start == (10 * FRAME - PREROLL) / SAMPLE_RATE
    assert final.utterance.end == (40 * FRAME + TAIL) / SAMPLE_RATE
    assert all(isinstance(word, Word) for word in final.utterance.words)


def polyglot(ask: Ask) -> Hypothesis:
    """Speak by the clip's length one of three languages, out of those that are asked for."""
    among = ask.languages or ("nl", "fr", "tr")
    return replace(answer(ask), language=among[len(ask.samples) // FRAME % len(among)])


def languages_of(steps: Sequence[object]) -> list[str]:
    return [final.utterance.language for final in finals_of(steps)]


LANGUAGES = "".join("#" * size + "." * 20 for size in (30, 31, 32, 33))


def test_the_first_final_decides_the_language() -> None:
    """The first one is looked for among those expected, later ones in its language; with code switching all are."""
    plain = play(channel(partial_every=None), LANGUAGES, reply=polyglot)
    (language,) = set(languages_of(plain))
    asked = [step.languages for step in plain if isinstance(step, Ask)]
    assert asked == [(), *[(language,)] * 3]
    mixed = play(channel(partial_every=None, code_switching=True), LANGUAGES, reply=polyglot)
    assert len(set(languages_of(mixed))) == 3
    assert {step.languages for step in mixed if isinstance(step, Ask)} == {()}
    pair = play(channel(languages=("nl", "fr")), LANGUAGES, reply=polyglot)
    assert len(set(languages_of(pair))) == 1
    assert set(languages_of(pair)) <= {"nl", "fr"}


def test_an_utterance_without_words_decides_nothing() -> None:
    """A cough in no language leaves the choice to what is said first."""

    def reply(ask: Ask) -> Hypothesis:
        first = ask.utterance == "00_00000000"
        return Hypothesis(words=(), language="cy") if first else polyglot(ask)

    assert set(languages_of(play(channel(), LANGUAGES, reply=reply))).isdisjoint({"cy"})


def test_the_language_outlives_a_crash() -> None:
    """A channel that goes on from a final's state asks for the language that was decided before."""
    whole = play(channel(partial_every=None), LANGUAGES, reply=polyglot)
    for nth, settled in enumerate(step for step in whole if isinstance(step, Settled)):
        restored = channel(partial_every=None)
        restored.restore(settled.state)
        rest = play(restored, LANGUAGES, start=settled.state.kept_from // FRAME, reply=polyglot)
        assert finals_of(rest) == finals_of(whole)[nth + 1 :]


patterns = st.lists(st.tuples(st.sampled_from("#."), st.integers(1, 60)), min_size=1, max_size=12).map(
    lambda runs: "".join(mark * count for mark, count in runs)
)


@given(pattern=patterns, piece=st.integers(1, 40))
def test_any_split_gives_the_same_finals(pattern: str, piece: int) -> None:
    """How many frames come at once changes nothing about finals and speech events."""

    def kept(steps: list[Step]) -> tuple[list[Step], list[Final]]:
        # An answer comes when it comes: finals are in order among themselves.
        speech = [step for step in steps if isinstance(step, SpeechStarted | SpeechEnded)]
        return speech, finals_of(steps)

    assert kept(play(channel(), pattern, piece)) == kept(play(channel(), pattern))


@settings(max_examples=60)
@given(pattern=patterns, order=st.randoms(use_true_random=False), held=st.floats(0, 1))
def test_answers_in_any_order_give_the_same_finals_in_order(pattern: str, order: object, held: float) -> None:
    """Late, early and reordered answers give the same finals, once each, in segment order and in the first one's
    language; partials only go forward.
    """
    track, samples_speech = channel(turn_silence=TAIL), signal(pattern)
    waiting: list[Ask] = []
    events: list[object] = []

    def follow(steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, Ask):
                waiting.append(step)
            elif isinstance(step, Withdraw):
                waiting[:] = [ask for ask in waiting if ask.number != step.number]
            else:
                events.append(step)

    def resolve_some(share: float) -> None:
        track.partial_every = order.choice([None, SAMPLE_RATE // 5])
        order.shuffle(waiting)
        for _ in range(round(len(waiting) * share)):
            ask = waiting.pop()
            follow(track.resolve(ask.number, polyglot(ask)))

    samples, speech = samples_speech
    for i in range(len(speech)):
        follow(track.feed(samples[i * FRAME : (i + 1) * FRAME], speech[i : i + 1]))
        resolve_some(1 - held)
    follow(track.cut())
    while waiting:
        resolve_some(1.0)
    assert finals_of(events) == finals_of(play(channel(), pattern, reply=polyglot))
    assert not track.busy
    assert_only_forward(events)


def assert_only_forward(events: Sequence[object]) -> None:
    shown: dict[str, float] = {}
    for event in events:
        if isinstance(event, Partial):
            assert event.utterance.end >= shown.get(event.utterance.id, 0.0)
            shown[event.utterance.id] = event.utterance.end
    assert_hints_hold(events)


def assert_hints_hold(events: Sequence[object]) -> None:
    """A hint is withdrawn or comes true to the word, and nothing is withdrawn that was not said."""
    held: dict[str, object] = {}
    for event in events:
        match event:
            case TurnEndLikely(utterance=utterance):
                assert utterance.id not in held
                held[utterance.id] = utterance
            case TurnContinued(utterance_id=name):
                del held[name]
            case Settled(final=Final(utterance=utterance)):
                assert held.pop(utterance.id, utterance) == utterance
    assert not held


@given(pattern=patterns, piece=st.integers(1, 40))
def test_hints_change_nothing_else(pattern: str, piece: int) -> None:
    """Nothing more is asked for because of them, and nothing less."""
    plain, hinted = play(channel(), pattern, piece), play(channel(turn_silence=TAIL), pattern, piece)
    kinds = [type(step) for step in hinted if not isinstance(step, TurnEndLikely | TurnContinued)]
    assert kinds == [type(step) for step in plain]
    assert finals_of(hinted) == finals_of(plain)
    assert_hints_hold(hinted)


@example(LANGUAGES)
@given(pattern=patterns)
def test_hints_hold_where_the_language_is_decided_late(pattern: str) -> None:
    """The first utterance is answered last; what was heard in another language than its own is withdrawn."""
    track = channel(partial_every=None, turn_silence=TAIL)
    first: list[Ask] = []
    events: list[Step] = []

    def follow(steps: list[Step]) -> None:
        for step in steps:
            if not isinstance(step, Ask):
                events.append(step)
            elif not first or step.utterance == first[0].utterance:
                first.append(step)
            else:
                follow(track.resolve(step.number, polyglot(step)))

    samples, speech = signal(pattern)
    for i in range(len(speech)):
        follow(track.feed(samples[i * FRAME : (i + 1) * FRAME], speech[i : i + 1]))
    follow(track.cut())
    for ask in first:
        follow(track.resolve(ask.number, polyglot(ask)))
    assert finals_of(events) == finals_of(play(channel(), pattern, reply=polyglot))
    assert_hints_hold(events)


@settings(max_examples=60)
@given(pattern=patterns, data=st.data())
def test_a_restored_channel_goes_on_as_the_first_would_have(pattern: str, data: st.DataObject) -> None:
    """From the state stored with any final, fed from where it says, the rest comes out the same and nothing twice."""
    steps = play(channel(speakers=Speakers(Diarization())), pattern)
    settled = [step for step in steps if isinstance(step, Settled)]
    if not settled:
        return
    chosen = data.draw(st.sampled_from(range(len(settled))))
    state: ChannelState = settled[chosen].state
    again = channel(speakers=Speakers(Diarization()))
    again.restore(state)
    rest = play(again, pattern, start=state.kept_from // FRAME)
    assert finals_of(rest) == finals_of(steps)[chosen + 1 :]
