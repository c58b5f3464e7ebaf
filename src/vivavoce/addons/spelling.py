"""Custom spelling: exact rules of what to write for what.

A variant is found in whole words, whatever their case, and the spelling is written as it was given. The longest variant
wins at each place, from the left, and what was written is not looked at again, so rules cannot feed each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vivavoce.addons import rewriting
from vivavoce.model import Utterance
from vivavoce.plugins import AddonParts, AddonSettings


class SpellingAddon:
    """Custom spelling for all sessions; implements `plugins.Addon`."""

    threads = 1

    def __init__(self, settings: AddonSettings) -> None:
        """Need nothing of the settings."""

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:  # noqa: ARG002 (the protocol's)
        """Give the rule of a session's `spelling_dictionary`."""
        return AddonParts(rule=Spelling.from_options(options))

    def close(self) -> None:
        """Do nothing."""


class Spelling:
    """Write the spellings of a dictionary for their variants; implements `plugins.TextRule`.

    Punctuation around a variant stays, that within it has to be there. Of two spellings with the same variant the first
    one counts. Spellings and variants of nothing but blanks are left out.
    """

    def __init__(self, dictionary: Mapping[str, Sequence[str]]) -> None:
        """Take the wanted spellings, each with the variants that it replaces."""
        self._variants = rewriting.Phrases()
        for spelling, variants in dictionary.items():
            for variant in variants:
                self._variants.add(variant, spelling)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Spelling:
        """Take the rules as the contract writes them: `spelling_dictionary`."""
        return cls(options["spelling_dictionary"])

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:  # noqa: ARG002 - a partial is spelled alike
        """Give the utterance in the wanted spelling; words that match no rule are the same objects as before."""
        found = self._variants.find([word.text for word in utterance.words])
        return rewriting.apply(utterance, found) if found else utterance
