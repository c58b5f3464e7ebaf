"""Named entities: what in the words is an address, a number, an amount, a date or a name.

Several recognisers look at the sentence, each by rules of its own: `links`, `codes`, `amounts`, `dates`, and a model
for names where there is one. What they find may overlap; `find` keeps, of any that do, the one with the most words,
then the one that stands first in `KINDS`. A NUMBER, which is any long number, yields to all others. The same utterance
always gives the same entities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vivavoce.addons.amounts import find_amounts
from vivavoce.addons.codes import find_codes
from vivavoce.addons.dates import find_dates
from vivavoce.addons.links import find_links
from vivavoce.addons.llm import connect
from vivavoce.addons.llm_findings import LlmEntities
from vivavoce.addons.names import NAME_KINDS, Names, pipeline_of
from vivavoce.addons.spoken import CLOSING, OPENING, Piece, Reading, Sentence
from vivavoce.errors import SetupError
from vivavoce.model import Entity, Utterance, spread_words
from vivavoce.plugins import AddonParts, AddonSettings

RULE_KINDS = (
    "CREDIT_CARD",
    "IBAN",
    "EMAIL_ADDRESS",
    "URL",
    "PHONE_NUMBER",
    "ADDRESS",
    "MONEY",
    "PERCENT",
    "DATE",
    "TIME",
    "ORDINAL",
    "NUMBER",
)
"""What is found without a model."""

KINDS = (*RULE_KINDS, *NAME_KINDS)
"""Every kind of entity; of two with as many words the one that stands first here is kept."""

_WEAK = "NUMBER"
_EVERYTHING = ["call", "0123456789", "or", "write", "to", "a@example.com", "by", "May", "5", "for", "$5"]


class NamedEntities:
    """Finds entities by rules, and names by whatever the settings say; implements `plugins.Addon`.

    It is the looker of all its sessions at once.
    """

    def __init__(self, settings: AddonSettings) -> None:
        """Raises `SetupError` where names are to be found by what is not there."""
        self.threads = 1
        self._pipeline = pipeline_of(settings)
        self._llm = None
        self._namer: LlmEntities | None = None
        if settings.names == "llm":
            if settings.llm is None:
                raise SetupError("--names llm needs --llm-url with --llm-model")
            self._llm = connect(settings.llm)
            self._namer = LlmEntities(self._llm, within_s=settings.addon_deadline)
            self.threads = self._llm.concurrency

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:  # noqa: ARG002 - there are none
        """Give the looker, with its tables and models loaded; raises `AddonError`."""
        warm(languages)
        if self._pipeline is not None:
            self._pipeline.load()
        return AddonParts(by_target={"": self})

    def look(self, utterance: Utterance, before: Sequence[Utterance]) -> tuple[Entity, ...]:
        """Give the entities in the order of their words, none overlapping; raises `AddonError` where names fail."""
        found = find(utterance, names=self._pipeline)
        if self._namer is None:
            return found
        taken = {at for entity in found for at in range(entity.first, entity.stop)}
        named = self._namer.look(utterance, before)
        apart = [one for one in named if taken.isdisjoint(range(one.first, one.stop))]
        return tuple(sorted((*found, *apart), key=lambda entity: entity.first))

    def close(self) -> None:
        """Free the connections."""
        if self._llm is not None:
            self._llm.close()


def warm(languages: Sequence[str] = ()) -> None:
    """Load the tables of some languages, English where none is named, so that no utterance waits for them; blocks."""
    for language in languages or ("en",):
        words = spread_words(_EVERYTHING, [1.0] * len(_EVERYTHING), 0.0, 1.0)
        find(Utterance(id="", channel=0, start=0.0, end=1.0, confidence=1.0, language=language, words=words))


def find(
    utterance: Utterance,
    kinds: Sequence[str] = KINDS,
    *,
    regions: Sequence[str] = (),
    names: Names | None = None,
) -> tuple[Entity, ...]:
    """Give the entities of some kinds in the order of their words, none overlapping; other kinds hide none of these."""
    sentence = Sentence(utterance)
    return tuple(entity_of(utterance, kind, piece) for kind, piece in pieces_of(sentence, kinds, regions, names))


def pieces_of(
    sentence: Sentence, kinds: Sequence[str], regions: Sequence[str] = (), names: Names | None = None
) -> list[tuple[str, Piece]]:
    """Give the kinds and pieces of `find`."""
    found = [one for one in _candidates(sentence, set(kinds), regions, names) if one[0] in kinds]
    found.sort(key=lambda one: (one[0] == _WEAK, one[1].first - one[1].stop, KINDS.index(one[0]), one[1].first))
    free = [True] * len(sentence.words)
    kept = []
    for kind, piece in found:
        if all(free[piece.first : piece.stop]):
            free[piece.first : piece.stop] = [False] * (piece.stop - piece.first)
            kept.append((kind, piece))
    return sorted(kept, key=lambda one: one[1].first)


def entity_of(utterance: Utterance, kind: str, piece: Piece) -> Entity:
    """Give the entity in a piece's words, without the punctuation around them."""
    words = utterance.words[piece.first : piece.stop]
    text = " ".join(word.text for word in words)
    inner = text.lstrip(OPENING)
    if not inner.lower().endswith(".m."):
        inner = inner.rstrip(CLOSING)
    return Entity(
        kind=kind,
        text=inner or text,
        start=words[0].start,
        end=words[-1].end,
        first=piece.first,
        stop=piece.stop,
    )


def _candidates(
    sentence: Sentence, kinds: set[str], regions: Sequence[str], names: Names | None
) -> Iterator[tuple[str, Piece]]:
    if kinds & {"EMAIL_ADDRESS", "URL"}:
        yield from find_links(sentence)
    if kinds & {"CREDIT_CARD", "IBAN", "PHONE_NUMBER", "ADDRESS", "NUMBER"}:
        yield from find_codes(sentence, regions)
    if kinds & {"MONEY", "PERCENT", "ORDINAL", "ADDRESS"}:
        yield from find_amounts(sentence)
    if kinds & {"DATE", "TIME"}:
        yield from find_dates(sentence)
    if names is not None and kinds & set(NAME_KINDS):
        reading = Reading([Piece(word, at, at + 1) for at, word in enumerate(sentence.words) if word])
        for kind, start, stop in names.find(reading.text, sentence.language):
            if 0 <= start < stop <= len(reading.text):
                yield kind, Piece(reading.text[start:stop], *reading.words(start, stop))
