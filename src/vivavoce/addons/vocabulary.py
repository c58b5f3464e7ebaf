"""Custom vocabulary: entries are heard where the words of an utterance sound like them and look misheard.

How that is told is in `likenesses`; here is what a session asks for. The rule hears every partial and final, and knows
nothing but their words. Of finals, an engine that can tell how likely a whole text is hears of the likeliest entries
first (`Vocabulary.mend`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vivavoce.addons import rewriting
from vivavoce.addons.likenesses import DEFAULT_INTENSITY, English, Entry, Foreign, Listener
from vivavoce.model import Utterance, Weigh, Word
from vivavoce.plugins import AddonParts, AddonSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyEntry:
    """A word or phrase to listen for.

    `intensity` is how eagerly, from 0 (nothing but the same sound) to 1. `pronunciations` are other ways to say it,
    spelled like words. With a `language` it is looked for in utterances of that language only.
    """

    value: str
    intensity: float | None = None
    pronunciations: tuple[str, ...] = ()
    language: str | None = None


class VocabularyAddon:
    """Custom vocabulary for all sessions; implements `plugins.Addon`."""

    threads = 1

    def __init__(self, settings: AddonSettings) -> None:
        """Load the dictionary and the language model, so that no session waits for them."""
        del settings
        Vocabulary([], DEFAULT_INTENSITY)

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        """Give the rule of a session's `vocabulary`, and its entries for engines that take hints."""
        rule = Vocabulary.from_options(options)
        return AddonParts(rule=rule, hints=rule.hints(languages), mend=rule.mend)

    def close(self) -> None:
        """Do nothing."""


class Vocabulary:
    """Write the entries of a vocabulary where they were misheard; implements `plugins.TextRule`.

    Punctuation and a possessive `'s` around an entry stay. Entries of another language than the utterance's are not
    looked for. The first one made in a process loads a dictionary and a language model, which takes a fraction of a
    second and some 40 MB; each hundred entries take some 10 ms.
    """

    def __init__(self, entries: Sequence[VocabularyEntry], default_intensity: float) -> None:
        """Take the entries; those that state no intensity have the default one."""
        self._entries = [
            Entry(
                text=text,
                intensity=default_intensity if entry.intensity is None else entry.intensity,
                said=(text, *entry.pronunciations),
                language=entry.language,
            )
            for entry in entries
            if (text := " ".join(entry.value.split()))
        ]
        self._by_language: dict[str, Listener] = {}
        self._listener("en")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Vocabulary:
        """Take the entries as the contract writes them: `vocabulary`, of texts and objects, and `default_intensity`."""
        entries = [
            VocabularyEntry(value=item)
            if isinstance(item, str)
            else VocabularyEntry(
                value=item["value"],
                intensity=item.get("intensity"),
                pronunciations=tuple(item.get("pronunciations") or ()),
                language=item.get("language"),
            )
            for item in options["vocabulary"]
        ]
        return cls(entries, options.get("default_intensity", DEFAULT_INTENSITY))

    def hints(self, languages: Sequence[str]) -> tuple[str, ...]:
        """Give the entries as they are written, each once, that a session of these languages, or any, is to expect.

        Those of other languages are none of them, and those with an intensity of 0 are not to be listened for.
        """
        return tuple(
            dict.fromkeys(
                entry.text
                for entry in self._entries
                if entry.intensity > 0 and (not languages or entry.language in {None, *languages})
            )
        )

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:  # noqa: ARG002 - partials are heard alike
        """Give the utterance with the entries that were heard in it; words elsewhere are the same objects as before."""
        found = self._listener(utterance.language).find(utterance.words)
        return rewriting.apply(utterance, found) if found else utterance

    def mend(self, words: tuple[Word, ...], language: str, weigh: Weigh) -> tuple[Word, ...]:
        """Give a final's words with the entries that the engine itself finds likely, once asked; no others are new.

        Nothing is asked where no entry is near.
        """
        listener = self._listener(language)
        doubts = listener.doubts(words)
        if not doubts:
            return words
        heard = Utterance(id="", channel=0, start=0.0, end=0.0, confidence=0.0, language=language, words=words)
        odds = weigh([rewriting.apply(heard, [doubt.replacement]).text for doubt in doubts])
        found = listener.settled(doubts, odds)
        return rewriting.apply(heard, found).words if found else words

    def _listener(self, language: str) -> Listener:
        if language not in self._by_language:
            entries = [entry for entry in self._entries if entry.language in {None, language}]
            self._by_language[language] = English(entries) if language == "en" else Foreign(entries)
        return self._by_language[language]
