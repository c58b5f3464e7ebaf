"""Add-ons of one session: when they are asked, what becomes of slow, broken and hanging ones, and what is bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from vivavoce.config import load_settings
from vivavoce.errors import AddonError, Unsupported
from vivavoce.events import TranscriptExamined, UtteranceExamined
from vivavoce.model import (
    Entity,
    Feature,
    Finding,
    Sentiment,
    SessionOptions,
    Transcript,
    Translation,
    Utterance,
    Word,
)
from vivavoce.plugins import AddonParts
from vivavoce.runtime.addons import MAX_LOST, Addons
from vivavoce.runtime.examiner import MANY_WAIT, MAX_BEFORE, MAX_WAIT, Examiner

ENTITIES, SENTIMENTS = Feature.NAMED_ENTITY_RECOGNITION, Feature.SENTIMENT_ANALYSIS
TRANSLATIONS, SUMMARIES = Feature.TRANSLATION, Feature.SUMMARIZATION


def said(number: int = 1) -> Utterance:
    word = Word(text=f"w{number}", start=float(number), end=number + 0.5, confidence=0.5)
    return Utterance(
        id=f"00_{number:08}", channel=0, start=word.start, end=word.end, confidence=0.5, language="en", words=(word,)
    )


class Scripted:
    """An add-on, its parts and its looker at once; `answer` says what it finds."""

    def __init__(self, answer: Callable[..., Any], *, targets: Sequence[str] = ("",), threads: int = 1) -> None:
        self.answer, self.targets, self.threads = answer, targets, threads
        self.seen: list[tuple[Any, ...]] = []
        self.closed = False

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        if options.get("refuse"):
            raise Unsupported("not so")
        if options.get("break"):
            raise KeyError("a bug")
        if options.get("nothing"):
            return None  # type: ignore[return-value] - what a broken one does
        if options.get("whole"):
            return AddonParts(transcript=self)
        return AddonParts(by_target=dict.fromkeys(self.targets, self))

    def look(self, *shown: Any) -> Any:
        self.seen.append(shown)
        return self.answer(*shown)

    def close(self) -> None:
        self.closed = True


class Held:
    """Answers when it is let."""

    def __init__(self, found: Any = ()) -> None:
        self.gate = threading.Semaphore(0)
        self.found = found

    def __call__(self, *_shown: Any) -> Any:
        assert self.gate.acquire(timeout=60)
        return self.found


class Client:
    """A session's examiner, and what it said."""

    def __init__(self, addons: Addons, said: Sequence[str] = ()) -> None:
        self.addons = addons
        self.said: list[UtteranceExamined | TranscriptExamined] = []
        self._woken = asyncio.Event()
        self.examiner = Examiner(said=said, say=self.said.append, woken=self._woken.set)

    async def begin(self, finals: Sequence[Utterance] = (), **features: Mapping[str, Any]) -> None:
        options = SessionOptions(features={Feature(name): own for name, own in features.items()})
        self.examiner.begin(self.addons, await self.addons.open(options), finals)

    async def settled(self) -> list[Finding]:
        while not self.examiner.settled:
            self._woken.clear()
            await self._woken.wait()
        return self.findings

    async def got(self, count: int) -> list[Finding]:
        while len(self.said) < count:
            self._woken.clear()
            await self._woken.wait()
        return self.findings

    @property
    def findings(self) -> list[Finding]:
        return [event.finding for event in self.said]


@asynccontextmanager
async def client(
    said: Sequence[str] = (), *, deadline: float = 60, closing: float = 60, **installed: Scripted
) -> AsyncIterator[Client]:
    settings = load_settings(addon_deadline=deadline, closing_deadline=closing)
    addons = Addons(settings, {Feature(name): addon for name, addon in installed.items()}, {})
    made = Client(addons, said)
    try:
        yield made
    finally:
        made.examiner.close()
        await addons.close()


async def test_every_add_on_sees_every_final_with_what_was_said_before() -> None:
    """One answer for each final, add-on and target; the context is bounded and ends with the newest."""
    sentiments, translations = Scripted(lambda *_: ()), Scripted(translated, targets=("fr", "de"))
    async with client(sentiment_analysis=sentiments, translation=translations) as one:
        await one.begin(sentiment_analysis={}, translation={})
        utterances = [said(number) for number in range(MAX_BEFORE + 3)]
        for utterance in utterances:
            one.examiner.examine(utterance)
        keys = [finding.key for finding in await one.settled()]
    expected = {
        Finding(feature=feature, utterance_id=utterance.id, target=target, found=None).key
        for utterance in utterances
        for feature, target in ((SENTIMENTS, ""), (TRANSLATIONS, "fr"), (TRANSLATIONS, "de"))
    }
    assert set(keys) == expected
    assert len(keys) == len(expected)
    contexts = {shown[0].id: list(shown[1]) for shown in sentiments.seen}
    assert contexts[utterances[0].id] == []
    assert contexts[utterances[-1].id] == utterances[-MAX_BEFORE - 1 : -1]


def translated(utterance: Utterance, _before: Sequence[Utterance]) -> Translation:
    return Translation(target="fr", utterance=utterance)


async def test_a_slow_add_on_keeps_no_other_waiting() -> None:
    """Each has threads of its own."""
    slow = Held()
    async with client(sentiment_analysis=Scripted(slow), named_entity_recognition=Scripted(lambda *_: ())) as one:
        await one.begin(sentiment_analysis={}, named_entity_recognition={})
        for number in range(5):
            one.examiner.examine(said(number))
        assert {finding.feature for finding in await one.got(5)} == {ENTITIES}
        slow.gate.release(5)
        await one.settled()


async def test_no_more_calls_run_at_once_than_an_add_on_allows() -> None:
    """The others wait for their turn, the oldest first."""
    held = Held()
    scripted = Scripted(held, threads=2)
    async with client(sentiment_analysis=scripted) as one:
        await one.begin(sentiment_analysis={})
        for number in range(6):
            one.examiner.examine(said(number))
        held.gate.release(1)
        await one.got(1)
        while len(scripted.seen) < 3:
            await asyncio.sleep(0)
        held.gate.release(5)
        await one.settled()
    assert sorted(shown[0].id for shown in scripted.seen[:3]) == [said(number).id for number in range(3)]


class Unprintable:
    """Not what any add-on is for."""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (AddonError("the endpoint is down"), "the endpoint is down"),
        (KeyError("what was said"), "sentiment_analysis failed"),
        (StopIteration("what was said"), "sentiment_analysis failed"),
        ([], "cannot be shown"),
        ("text", "cannot be shown"),
        (None, "cannot be shown"),
        ((Unprintable(),), "cannot be shown"),
        ((Entity(kind="A", text="b", start=0.0, end=1.0, first=0, stop=1),), "cannot be shown"),
        ((Sentiment(sentiment="a", emotion="b", text="c", start=float("nan"), end=1.0, channel=0),), "cannot be shown"),
        ((Sentiment(sentiment="a", emotion="b", text="\ud800", start=0.0, end=1.0, channel=0),), "cannot be shown"),
    ],
)
async def test_whatever_an_add_on_does_wrong_is_an_error_with_a_reason(answer, reason) -> None:
    """Its own words where it chose them, and nothing it did not choose; the next utterance is asked about as ever."""

    def look(utterance: Utterance, _before: Sequence[Utterance]) -> Any:
        if utterance == said(1):
            if isinstance(answer, Exception):
                raise answer
            return answer
        return ()

    async with client(sentiment_analysis=Scripted(look)) as one:
        await one.begin(sentiment_analysis={})
        one.examiner.examine(said(1))
        one.examiner.examine(said(2))
        failed, good = await one.settled()
    assert failed.found is None
    assert failed.error is not None
    assert reason in failed.error
    assert "what was said" not in failed.error
    assert (good.found, good.error) == ((), None)


async def test_an_add_on_that_takes_too_long_is_answered_for() -> None:
    """After its deadline there is an error, and the next call is made though the first has not come back."""
    held = Held()

    def look(utterance: Utterance, _before: Sequence[Utterance]) -> Any:
        return held() if utterance == said(1) else ()

    async with client(deadline=0.05, sentiment_analysis=Scripted(look)) as one:
        await one.begin(sentiment_analysis={})
        one.examiner.examine(said(1))
        one.examiner.examine(said(2))
        late, good = await one.settled()
        held.gate.release(1)
    assert late.error == "sentiment_analysis took longer than 0.05 s"
    assert good.found == ()


async def test_an_add_on_that_always_hangs_is_not_called_for_ever() -> None:
    """Threads that do not come back are bounded; when they do, the add-on is called again."""
    held = Held()
    scripted = Scripted(held)
    async with client(deadline=0.01, sentiment_analysis=scripted) as one:
        await one.begin(sentiment_analysis={})
        for number in range(MAX_LOST + 5):
            one.examiner.examine(said(number))
        findings = await one.settled()
        assert len(scripted.seen) == MAX_LOST
        assert [finding.error for finding in findings[MAX_LOST:]] == ["sentiment_analysis does not answer"] * 5
        held.gate.release(MAX_LOST)
        scripted.answer = lambda *_: ()
        while (await one.settled())[-1].error is not None:
            one.examiner.examine(said(99))
    assert one.findings[-1].found == ()


async def test_too_many_utterances_do_not_wait() -> None:
    """Beyond the limit there is an error at once; from far below it a fast sender is told to wait."""
    held = Held()
    async with client(sentiment_analysis=Scripted(held)) as one:
        await one.begin(sentiment_analysis={})
        for number in range(MANY_WAIT - 1):
            one.examiner.examine(said(number))
        assert not one.examiner.crowded
        for number in range(MANY_WAIT, MAX_WAIT + 4):
            one.examiner.examine(said(number))
        assert one.examiner.crowded
        assert [finding.error for finding in one.findings] == ["too many utterances wait for sentiment_analysis"] * 3
        held.gate.release(MAX_WAIT)
        await one.settled()
        assert len(one.findings) == MAX_WAIT + 3


async def test_one_slow_add_on_among_quick_ones_slows_a_fast_sender_down() -> None:
    """It is what each owes that counts, not what they owe together."""
    held = Held()
    quick = Scripted(lambda *_: ())
    async with client(sentiment_analysis=Scripted(held), named_entity_recognition=quick) as one:
        await one.begin(sentiment_analysis={}, named_entity_recognition={})
        for number in range(MANY_WAIT - 1):
            one.examiner.examine(said(number))
        assert not one.examiner.crowded
        one.examiner.examine(said(MANY_WAIT))
        await one.got(MANY_WAIT)
        assert one.examiner.crowded
        held.gate.release(MANY_WAIT)
        await one.settled()
        assert not one.examiner.crowded


async def test_the_end_waits_so_long_and_no_longer() -> None:
    """What is still owed when the time is over is answered with an error, and nothing comes after that."""
    held = Held()
    async with client(closing=0.05, sentiment_analysis=Scripted(held)) as one:
        await one.begin(sentiment_analysis={})
        for number in range(3):
            one.examiner.examine(said(number))
        one.examiner.hurry()
        one.examiner.hurry()
        findings = await one.settled()
        held.gate.release(3)
        await asyncio.sleep(0)
    assert [finding.error for finding in findings] == ["sentiment_analysis was not done when the session ended"] * 3
    assert len(one.said) == 3


async def test_a_summary_has_a_time_of_its_own() -> None:
    """The time for what finals are owed does not end while the transcript is read; its own does, however it waits."""
    held = Held("in short")
    summary = Scripted(held)
    loop = asyncio.get_running_loop()
    async with client(closing=0.2, sentiment_analysis=Scripted(lambda *_: ()), summarization=summary) as one:
        await one.begin(sentiment_analysis={}, summarization={"whole": True})
        one.examiner.examine(said(1))
        one.examiner.hurry()
        first_time_over = loop.time() + 0.2
        await one.settled()
        one.addons.closing_s = 60
        one.examiner.read(Transcript(utterances=(said(1),)))
        one.examiner.hurry()
        while loop.time() < first_time_over + 0.05:
            await asyncio.sleep(0.01)
        held.gate.release(1)
        assert (await one.settled())[-1].found == "in short"


async def test_a_summary_that_waits_for_its_turn_is_given_up_in_time() -> None:
    """Another session's holds the only thread; this one ends all the same."""
    held = Held("in short")
    async with client(closing=60, summarization=Scripted(held)) as one:
        other = Client(one.addons)
        for each in (other, one):
            await each.begin(summarization={"whole": True})
        other.examiner.read(Transcript(utterances=(said(1),)))
        one.addons.closing_s = 0.05
        one.examiner.read(Transcript(utterances=(said(1),)))
        one.examiner.hurry()
        (finding,) = await one.settled()
        assert finding.error == "summarization was not done when the session ended"
        held.gate.release(1)
        await other.settled()


async def test_nobody_waits_for_a_turn_for_ever() -> None:
    """Whoever had none while the closing deadline passed hears so, and whoever holds it has their answer."""
    held = Held()
    async with client(closing=0.05, sentiment_analysis=Scripted(held)) as one:
        await one.begin(sentiment_analysis={})
        one.examiner.examine(said(1))
        one.examiner.examine(said(2))
        (late,) = await one.got(1)
        assert (late.utterance_id, late.error) == (said(2).id, "sentiment_analysis had no time for this in 0.05 s")
        held.gate.release(1)
        assert (await one.settled())[-1].found == ()


class Mute(AddonError):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("what was said")


class Endless(tuple[Any, ...]):
    """An answer that cannot even be looked at."""

    __slots__ = ()

    def __iter__(self) -> Any:
        raise RecursionError("what was said")


@pytest.mark.parametrize("wrong", [Mute(), Endless()], ids=["error", "answer"])
async def test_a_bug_in_an_add_on_is_its_own_error(wrong: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Logged with the way it came and no word of what was said; the session and the next question go on."""

    def look(utterance: Utterance, _before: Sequence[Utterance]) -> Any:
        if utterance == said(2):
            return ()
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    async with client(sentiment_analysis=Scripted(look)) as one:
        await one.begin(sentiment_analysis={})
        one.examiner.examine(said(1))
        one.examiner.examine(said(2))
        failed, good = await one.settled()
    assert (failed.found, failed.error) == (None, "sentiment_analysis failed")
    assert good.found == ()
    logged = capsys.readouterr()
    assert "an add-on failed" in logged.out + logged.err
    assert "what was said" not in logged.out + logged.err


async def test_no_thread_to_be_had_is_an_error_of_the_add_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at its limits costs an answer, not the session."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with client(sentiment_analysis=Scripted(lambda *_: ())) as one:
        await one.begin(sentiment_analysis={})
        with monkeypatch.context() as patched:
            patched.setattr("vivavoce.runtime.addons.Thread.start", start)
            one.examiner.examine(said(1))
            (failed,) = await one.settled()
        one.examiner.examine(said(2))
        assert (failed.error, (await one.settled())[-1].found) == ("sentiment_analysis failed", ())


async def test_a_session_that_rests_says_nothing_more() -> None:
    """What is on its way is given up in silence: the next process asks again."""
    held = Held()
    async with client(sentiment_analysis=Scripted(held)) as one:
        await one.begin(sentiment_analysis={})
        one.examiner.examine(said(1))
        one.examiner.close()
        held.gate.release(1)
        assert one.examiner.settled
    assert one.said == []


async def test_only_what_is_missing_is_asked_again() -> None:
    """A session taken up asks about old finals what nobody has answered, and shows them as context."""
    sentiments, entities = Scripted(lambda *_: ()), Scripted(lambda *_: ())
    known = [Finding(feature=SENTIMENTS, utterance_id=said(1).id, found=()).key]
    async with client(known, sentiment_analysis=sentiments, named_entity_recognition=entities) as one:
        await one.begin([said(1), said(2)], sentiment_analysis={}, named_entity_recognition={})
        keys = {finding.key for finding in await one.settled()}
    assert [shown[0].id for shown in sentiments.seen] == [said(2).id]
    assert sentiments.seen[0][1] == (said(1),)
    assert keys == {
        f"sentiment_analysis/{said(2).id}/",
        f"named_entity_recognition/{said(1).id}/",
        f"named_entity_recognition/{said(2).id}/",
    }


async def test_a_transcript_is_summarized_once() -> None:
    """The whole transcript is shown, unless its summary was said; a failure is an answer too."""
    summary = Scripted(lambda transcript: transcript.text)
    transcript = Transcript(utterances=(said(1), said(2)))
    async with client(summarization=summary) as one:
        await one.begin(summarization={"whole": True})
        one.examiner.read(transcript)
        (finding,) = await one.settled()
        assert (finding.key, finding.found) == ("summarization//", "w1 w2")
    async with client([finding.key], summarization=summary) as again:
        await again.begin(summarization={"whole": True})
        again.examiner.read(transcript)
        assert await again.settled() == []


async def test_what_is_not_installed_any_more_fails_in_every_message() -> None:
    """A session of an earlier process that had the add-ons goes on without them, and says so."""
    async with client() as one:
        await one.begin(translation={"target_languages": ["fr", "de"]}, sentiment_analysis={}, summarization={})
        one.examiner.examine(said(1))
        findings = await one.settled()
        assert {(finding.feature, finding.target) for finding in findings} == {
            (TRANSLATIONS, "fr"), (TRANSLATIONS, "de"), (SENTIMENTS, "")
        }  # fmt: skip
        one.examiner.read(Transcript(utterances=(said(1),)))
        findings = await one.settled()
        assert findings[-1].feature is SUMMARIES
        assert all("not available on this server any more" in (finding.error or "") for finding in findings)


async def test_a_rule_that_is_not_installed_any_more_hides_what_it_was_to_hide() -> None:
    """Redaction that is gone raises, so that nothing is shown."""
    async with client() as one:
        opened = await one.addons.open(SessionOptions(features={Feature.PII_REDACTION: {}}))
        with pytest.raises(AddonError):
            opened.rules[Feature.PII_REDACTION].rewrite(said(1), final=True)


async def test_what_an_add_on_refuses_is_told_when_the_session_is_made() -> None:
    """An add-on may find fault with what it is asked for, and everything is closed in the end."""
    scripted = Scripted(lambda *_: ())
    async with client(sentiment_analysis=scripted) as one:
        with pytest.raises(Unsupported, match="not so"):
            await one.addons.open(SessionOptions(features={SENTIMENTS: {"refuse": True}}))
    assert scripted.closed


@pytest.mark.parametrize("how", ["refuse", "break", "nothing"])
async def test_a_session_taken_up_goes_on_without_what_is_refused_now(how: str) -> None:
    """What refuses, or breaks, answers with errors, redaction hides everything, and the others work as ever."""
    refused, redaction = Scripted(lambda *_: ()), Scripted(lambda *_: ())
    async with client(
        sentiment_analysis=refused, pii_redaction=redaction, named_entity_recognition=Scripted(lambda *_: ())
    ) as one:
        asked = {SENTIMENTS: {how: True}, Feature.PII_REDACTION: {how: True}, ENTITIES: {}}
        opened = await one.addons.open(SessionOptions(features=asked), taken_up=True)
        one.examiner.begin(one.addons, opened, [said(1)])
        findings = {finding.feature: finding for finding in await one.settled()}
        with pytest.raises(AddonError):
            opened.rules[Feature.PII_REDACTION].rewrite(said(1), final=True)
    assert "not available on this server any more" in (findings[SENTIMENTS].error or "")
    assert findings[ENTITIES].found == ()
    assert refused.seen == []
