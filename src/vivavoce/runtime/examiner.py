"""What add-ons say of one session.

Each final is shown to every add-on that the session asked for, the moment it is out; what they say is an event that
follows the final, in whatever order they answer. Nothing waits for that but the session's end, and that not for ever.
How many utterances may wait for an add-on is bounded too: those beyond are answered with an error at once. A client
that sends a recording faster than real time gets there easily, so such a session is heard no further while many wait
(`crowded`); a live one is never held up.

What add-ons said is stored as it is said, under a key. After a crash, or a drain, which gives up what is on its way,
the next process asks again for just what is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from vivavoce.events import TranscriptExamined, UtteranceExamined
from vivavoce.model import Feature, Finding, Findings, Transcript, Utterance
from vivavoce.runtime.addons import Addons, Answer
from vivavoce.runtime.opened import Opened

MAX_BEFORE = 10
"""Finals that an add-on is shown as context."""

MANY_WAIT, MAX_WAIT = 32, 256
"""Answers that one add-on may owe a session: from where a fast sender is slowed down, and at most."""


class Examiner:
    """Asks a session's add-ons; everything of it lives on the event loop."""

    _addons: Addons

    def __init__(
        self,
        *,
        said: Collection[str],
        say: Callable[[UtteranceExamined | TranscriptExamined], None],
        woken: Callable[[], None],
    ) -> None:
        """Tell `say` what they find, but for what is `said`, and call `woken` whenever an answer has come."""
        self._opened = Opened()
        self._said, self._say, self._woken = said, say, woken
        self._before: deque[Utterance] = deque(maxlen=MAX_BEFORE)
        self._owed: dict[_Question, asyncio.Task[None]] = {}
        self._closing: asyncio.TimerHandle | None = None

    def begin(self, addons: Addons, opened: Opened, finals: Iterable[Utterance]) -> None:
        """Ask from here on, first about the `finals` that were said before."""
        self._addons, self._opened = addons, opened
        for utterance in finals:
            self.examine(utterance)

    @property
    def settled(self) -> bool:
        """Whether no add-on owes an answer."""
        return not self._owed

    @property
    def crowded(self) -> bool:
        """Whether an add-on owes so many answers that a session that is ahead of its time should wait."""
        if len(self._owed) < MANY_WAIT:
            return False
        waiting = Counter((question.feature, question.target) for question in self._owed)
        return max(waiting.values()) >= MANY_WAIT

    def examine(self, utterance: Utterance) -> None:
        """Show a final that is out to every add-on that has not spoken of it."""
        before = tuple(self._before)
        self._before.append(utterance)
        for (feature, target), looker in self._opened.lookers.items():
            question = _Question(feature=feature, target=target, utterance=utterance)
            if self._was_answered(question):
                continue
            if self._waiting_for(feature, target) >= MAX_WAIT:
                self._tell(question, Answer(error=f"too many utterances wait for {feature}"))
                continue
            self._ask(question, partial(looker.look, utterance, before), self._addons.deadline_s)

    def read(self, transcript: Transcript) -> None:
        """Show the whole transcript to every add-on that has not spoken of it; `hurry` gives it a time of its own."""
        self._stop_hurrying()
        for feature, reader in self._opened.readers.items():
            question = _Question(feature=feature)
            if not self._was_answered(question):
                self._ask(question, partial(reader.look, transcript), self._addons.closing_s)

    def hurry(self) -> None:
        """Answer what is still owed some time from now, however that goes; asking again changes nothing."""
        if self._closing is None and self._owed:
            self._closing = asyncio.get_running_loop().call_later(self._addons.closing_s, self._give_up)

    def close(self) -> None:
        """Give up what is owed without a word; another process may ask again."""
        self._stop_hurrying()
        for task in self._owed.values():
            task.cancel()
        self._owed.clear()

    def _ask(self, question: _Question, look: Callable[[], Findings], deadline_s: float) -> None:
        name = f"{question.feature}-{question.utterance.id if question.utterance else 'transcript'}"
        self._owed[question] = asyncio.create_task(self._answer(question, look, deadline_s), name=name)

    async def _answer(self, question: _Question, look: Callable[[], Findings], deadline_s: float) -> None:
        answer = await self._addons.answer(question.feature, look, deadline_s)
        del self._owed[question]
        self._tell(question, answer)
        self._woken()

    def _tell(self, question: _Question, answer: Answer) -> None:
        finding = question.finding(answer)
        if question.utterance is None:
            self._say(TranscriptExamined(finding=finding))
        else:
            self._say(UtteranceExamined(utterance=question.utterance, finding=finding))

    def _stop_hurrying(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _give_up(self) -> None:
        self._closing = None
        owed = list(self._owed)
        for task in self._owed.values():
            task.cancel()
        self._owed.clear()
        for question in owed:
            self._tell(question, Answer(error=f"{question.feature} was not done when the session ended"))
        self._woken()

    def _was_answered(self, question: _Question) -> bool:
        return question.finding(Answer()).key in self._said

    def _waiting_for(self, feature: Feature, target: str) -> int:
        return sum(question.feature is feature and question.target == target for question in self._owed)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Question:
    """What an add-on is asked about: an utterance, or the whole transcript."""

    feature: Feature
    target: str = ""
    utterance: Utterance | None = None

    def finding(self, answer: Answer) -> Finding:
        return Finding(
            feature=self.feature,
            utterance_id=self.utterance.id if self.utterance else "",
            target=self.target,
            found=answer.found,
            error=answer.error,
            spent_s=answer.spent_s,
        )
