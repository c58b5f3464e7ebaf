"""Redaction: entities of chosen kinds leave and are stored only as markers or masks.

The rule knows one utterance at a time and nothing else, so that the same words always give the same text, on a replay
after a crash too; markers are therefore counted within their utterance. Where in doubt it hides:

- With any of `NUMBER_KINDS` chosen, every long number goes, also one that lacks a digit of being a card, and so do
  digits at the edges of an utterance, which may be the half of a number that was cut in two, and digits behind a word
  such as "account" or "password", which a quantity or counting would otherwise be left as. They are called NUMBER.
- With EMAIL_ADDRESS chosen, the half of an address at an edge goes too: "john dot smith at", "at example dot com".
- With ADDRESS chosen, a number at the end goes behind "I live at", with up to three words after it.
- In a partial, what may still become an entity is withheld with everything after it: the number or the address that the
  partial ends in, and with EMAIL_ADDRESS chosen the last word, which the next may make a mailbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from vivavoce.addons.amounts import half_address, range_words
from vivavoce.addons.codes import (
    FEWEST_DIGITS,
    LINKING,
    SHORTEST_IBAN,
    code_runs,
    digit_runs,
    is_announced,
    is_counted,
    is_counting,
    is_phrase,
    is_secret,
)
from vivavoce.addons.dates import calendar_names
from vivavoce.addons.entities import KINDS, pieces_of, warm
from vivavoce.addons.links import MAIL_CUES, find_links, links_in
from vivavoce.addons.names import NAME_KINDS, Names, pipeline_of
from vivavoce.addons.spoken import CLOSING, OPENING, Piece, Sentence, Sort, Unit, hesitations, word_set
from vivavoce.errors import InvalidConfig
from vivavoce.model import Utterance, Word
from vivavoce.plugins import AddonParts, AddonSettings

Style = Literal["marker", "mask"]

NUMBER_KINDS = frozenset({"CREDIT_CARD", "IBAN", "PHONE_NUMBER", "NUMBER"})
"""Kinds that bring broken and unknown long numbers with them."""

DEFAULT_KINDS = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN", "ADDRESS", "NUMBER")
"""What is redacted when nothing is chosen: what leads to a person or to money."""

FEWEST_EDGE_DIGITS = 4
"""Fewest digits at the edge of an utterance that may be a part of a longer number."""

MASK = "####"
"""What stands for an entity in the mask style; its length says nothing."""

_PATH = "realtime_processing.pii_redaction_config.entity_types"
_MARGIN_S = 0.1  # word times are right to about this much
_AT_EDGE = 2  # words beyond a run of digits that still leave it at the edge: "and four one one"
_MOST_COUNTED = 7  # digits in a row; telephone numbers are as long, and few count so far without saying so
_STREET_WORDS = 4  # a house number and at most three words come before the kind of street
_CURRENCY_WORDS = 2  # an amount and "Swiss", before "francs"
_NEAR = 40  # words at an edge in which an address may be cut
_CONTINUATIONS = tuple(
    tuple(words.split()) for words in (". com", "@ example . com", "com", "example . com", "example @ example . com")
)
_MAILBOX_MARKS = frozenset({".", "_", "-"})
_NO_CODE = re.compile(r"[A-Za-z]{2,}|\d+(?:st|nd|rd|th)", re.IGNORECASE)
_IBAN_START = re.compile(r"[A-Z]{2}\d\d")
_SHORTEST_GLUED = 10  # of an IBAN's end in one word
_CUE_WORDS = 6  # between such a word and the address it announces


class PiiRedaction:
    """Makes the rule of each session that asks for it; implements `plugins.Addon`."""

    threads = 1

    def __init__(self, settings: AddonSettings) -> None:
        """Raises `SetupError` where names are to be found by a pipeline that is not there."""
        self._names = pipeline_of(settings)

    def open(self, options: Mapping[str, Any], languages: Sequence[str]) -> AddonParts:
        """Give the rule, with its tables and models loaded; raises `InvalidConfig` for types that are not known."""
        warm(languages)
        style: Style = "mask" if options["processed_text_type"] == "MASK" else "marker"
        rule = Redaction(options["entity_types"], style, names=self._names)
        if self._names is not None and set(NAME_KINDS) & set(rule.kinds):
            self._names.load()
        return AddonParts(rule=rule, hides=rule.spans if options["redact_audio"] else None)

    def close(self) -> None:
        """Free nothing; the rules hold nothing."""


class Redaction:
    """Hide entities of chosen kinds in partials and finals; implements `plugins.TextRule`."""

    def __init__(
        self,
        entity_types: Sequence[str] = DEFAULT_KINDS,
        style: Style = "marker",
        *,
        regions: Sequence[str] = (),
        names: Names | None = None,
    ) -> None:
        """Take kinds of `entities.KINDS`; raises `InvalidConfig` for others, and for names without a model of them."""
        kinds = tuple(dict.fromkeys(entity_types)) or DEFAULT_KINDS
        known = KINDS if names else tuple(kind for kind in KINDS if kind not in NAME_KINDS)
        if unknown := [kind for kind in kinds if kind not in known]:
            problem = f"{_PATH} must be of {', '.join(known)}"
            if not set(unknown) <= set(KINDS):
                problem += f" (not: {', '.join(repr(kind) for kind in unknown)})"
            else:
                problem += "; names need the setting names, with a pipeline"
            raise InvalidConfig(problem, [problem])
        self.kinds = kinds
        self._style = style
        self._regions = tuple(regions)
        self._names = names
        self._last: tuple[Utterance | None, list[tuple[str, Piece]]] = None, []

    def rewrite(self, utterance: Utterance, *, final: bool) -> Utterance:
        """Give the utterance with one marker or mask, over the same time, for the words of each entity.

        A partial loses its end where that may yet become an entity; it may have no words left.
        """
        if final:
            hidden, stop = self._hidden_of(utterance), len(utterance.words)
        else:
            sentence = Sentence(utterance)
            hidden = self._hidden(sentence, final=False)
            stop = self._open_from(sentence, hidden)
        words: list[Word] = []
        counts: dict[str, int] = {}
        at = 0
        for kind, piece in (*hidden, ("", Piece("", stop, stop))):
            words += utterance.words[at : min(piece.first, stop)]
            if piece.stop > stop or not kind:
                break
            counts[kind] = counts.get(kind, 0) + 1
            marker = MASK if self._style == "mask" else f"[{kind}_{counts[kind]}]"
            words.append(_covering(marker, utterance.words[piece.first : piece.stop]))
            at = piece.stop
        end = utterance.end if final or stop == len(utterance.words) else max(utterance.start, _end(words, utterance))
        return replace(utterance, words=tuple(words), end=end)

    def spans(self, utterance: Utterance) -> list[tuple[float, float]]:
        """Give what to silence of a final as it was before `rewrite`: seconds from and to, in order, none overlapping.

        They reach a little beyond the words, whose times are not exact.
        """
        spans: list[tuple[float, float]] = []
        for _, piece in self._hidden_of(utterance):
            start = max(0.0, utterance.words[piece.first].start - _MARGIN_S)
            end = utterance.words[piece.stop - 1].end + _MARGIN_S
            if spans and start <= spans[-1][1]:
                start, end = spans[-1][0], max(end, spans[-1][1])
                spans.pop()
            spans.append((start, end))
        return spans

    def _hidden_of(self, utterance: Utterance) -> list[tuple[str, Piece]]:
        """Give what is hidden of a final; `spans` and `rewrite` ask about the same one, one after the other."""
        asked, found = self._last
        if asked is not utterance:
            found = self._hidden(Sentence(utterance), final=True)
            self._last = utterance, found
        return found

    def _hidden(self, sentence: Sentence, *, final: bool) -> list[tuple[str, Piece]]:
        """Give what is hidden, in order and not overlapping."""
        kinds = {*self.kinds, "NUMBER"} if NUMBER_KINDS & set(self.kinds) else set(self.kinds)
        hidden = pieces_of(sentence, tuple(kinds), self._regions, self._names)
        extra: list[tuple[str, Piece]] = []
        if NUMBER_KINDS & kinds:
            hidden, doubtful = _sifted(sentence, hidden)
            extra += [("NUMBER", piece) for piece in doubtful]
        if "IBAN" in kinds:
            extra += [("IBAN", piece) for piece in _broken_ibans(sentence)]
        if "EMAIL_ADDRESS" in kinds:
            extra += [("EMAIL_ADDRESS", piece) for piece in _first_half(sentence)]
            if final:  # the end of a partial is withheld
                extra += [("EMAIL_ADDRESS", piece) for piece in _last_half(sentence)]
        if "ADDRESS" in kinds and final and (piece := half_address(sentence)):
            extra.append(("ADDRESS", piece))
        return _merged(hidden, extra)

    def _open_from(self, sentence: Sentence, hidden: Sequence[tuple[str, Piece]]) -> int:
        """Give the word from which a partial may still change into something to hide."""
        near = _STREET_WORDS if "ADDRESS" in self.kinds else _CURRENCY_WORDS if "MONEY" in self.kinds else 0
        stop = _open_numbers(sentence, near)
        if {"EMAIL_ADDRESS", "URL"} & set(self.kinds):
            stop = min(stop, _open_links(sentence))
        if self._names and set(NAME_KINDS) & set(self.kinds):
            stop = min(stop, max(0, len(sentence.words) - 1))
        for _, piece in reversed(hidden):
            if piece.stop >= stop:
                stop = min(stop, piece.first)
        return stop


def _covering(marker: str, words: Sequence[Word]) -> Word:
    """Give one word for several, with the punctuation that stood around them, and as sure as the least sure."""
    first, last = words[0].text, words[-1].text
    head = first[: len(first) - len(first.lstrip(OPENING))]
    tail = last[len(last.rstrip(CLOSING)) :]
    confidence = min(word.confidence for word in words)
    return replace(words[0], text=head + marker + tail, end=words[-1].end, confidence=confidence)


def _end(words: Sequence[Word], utterance: Utterance) -> float:
    return words[-1].end if words else utterance.start


def _merged(hidden: Sequence[tuple[str, Piece]], extra: Sequence[tuple[str, Piece]]) -> list[tuple[str, Piece]]:
    """Join what overlaps; the kind is that of what was found surely, the longest first."""
    merged: list[tuple[str, Piece]] = []
    ranked = [(piece, kind, True) for kind, piece in hidden] + [(piece, kind, False) for kind, piece in extra]
    sure: list[tuple[bool, int]] = []
    for piece, kind, is_sure in sorted(ranked, key=lambda one: (one[0].first, -one[0].stop)):
        weight = (is_sure and kind != "NUMBER", piece.stop - piece.first)
        if merged and piece.first < merged[-1][1].stop:
            last_kind, last = merged[-1]
            name = kind if weight > sure[-1] else last_kind
            merged[-1] = (name, Piece("", last.first, max(last.stop, piece.stop)))
            sure[-1] = max(sure[-1], weight)
        else:
            merged.append((kind, piece))
            sure.append(weight)
    return merged


def _sifted(sentence: Sentence, hidden: list[tuple[str, Piece]]) -> tuple[list[tuple[str, Piece]], list[Piece]]:
    """Give what is hidden without numbers that are amounts or dates, and what else is in doubt.

    That is runs of digits at the edges or behind words that announce a number, digits in a row that are too many to be
    counted for no reason, and the whole of those that hold a number to hide.
    """
    runs = tuple(digit_runs(sentence))
    doubtful = [
        Piece("", run[0].first, run[-1].stop)
        for run in runs
        if _may_be_part(sentence, run) or _may_be_code(sentence, run)
    ]
    for run in runs:
        whole = Piece("", run[0].first, run[-1].stop)
        if any(kind in NUMBER_KINDS - {"NUMBER"} and _overlap(piece, whole) for kind, piece in hidden):
            doubtful.append(whole)
    if not doubtful and not any(kind == "NUMBER" for kind, _ in hidden):
        return hidden, []
    meant = [piece for _, piece in pieces_of(sentence, ("MONEY", "PERCENT", "DATE", "TIME"))]
    sure = [one for one in hidden if one[0] != "NUMBER" or not _is_meant(sentence, one[1], meant)]
    return sure, [piece for piece in doubtful if not _is_meant(sentence, piece, meant)]


def _is_meant(sentence: Sentence, number: Piece, meant: Sequence[Piece]) -> bool:
    """Tell whether a number is a part of an amount or a date; one that is announced is no first end of a range."""
    announced = is_announced(sentence, number.first) or is_secret(sentence, number.first)
    between = range_words(sentence.language) if announced else frozenset()
    return any(
        _covers(piece, number) and between.isdisjoint(sentence.lower[number.stop : piece.stop]) for piece in meant
    )


def _overlap(one: Piece, other: Piece) -> bool:
    return one.first < other.stop and other.first < one.stop


def _covers(one: Piece, other: Piece) -> bool:
    return one.first <= other.first and other.stop <= one.stop


def _may_be_part(sentence: Sentence, run: Sequence[Unit]) -> bool:
    """Tell whether a run at an edge looks like a code: "four one one one" or "0123", but not "two thousand"."""
    text = "".join(unit.text for unit in run if unit.text != "+")
    if len(text) < FEWEST_EDGE_DIGITS or (run[0].first > _AT_EDGE and run[-1].stop < len(sentence.words) - _AT_EDGE):
        return False
    return len(run) > 1 or text[0] == "0" or not (is_phrase(run) or text.endswith("000"))


def _may_be_code(sentence: Sentence, run: Sequence[Unit]) -> bool:
    """Tell whether digits anywhere are a code by what was said before, or for want of a word that somebody counts."""
    digits = [unit for unit in run if unit.text != "+"]
    length, first = sum(len(unit.text) for unit in digits), run[0].first
    if digits[0].grouped:  # "my account number is 12,345,678"
        return length >= _MOST_COUNTED and not digits[0].text.endswith("000") and is_announced(sentence, first)
    if is_phrase(digits):
        return False
    if is_secret(sentence, first):
        return length >= FEWEST_EDGE_DIGITS
    if is_announced(sentence, first):
        return length >= FEWEST_DIGITS
    return length >= _MOST_COUNTED and is_counting(run) and not is_counted(sentence, first)


def _broken_ibans(sentence: Sentence) -> Iterator[Piece]:
    """Give runs of letters and digits that may be a part of an IBAN at an edge, or one with a wrong character."""
    for run in code_runs(sentence):
        units = list(run)
        for end in (0, -1):
            while units and (units[end].text in {"a", "I"} or _NO_CODE.fullmatch(units[end].text)):
                units.pop(end)
        text = "".join(unit.text for unit in units).upper()
        digits = sum(letter.isdigit() for letter in text)
        glued = units and units[-1].stop - units[0].first == 1  # "1080p60"
        if digits == len(text) or (glued and len(text) < _SHORTEST_GLUED and not _IBAN_START.match(text)):
            continue
        begins = units[-1].stop >= len(sentence.words) - _AT_EDGE and _IBAN_START.match(text)
        ends = units[0].first <= _AT_EDGE and digits > FEWEST_EDGE_DIGITS
        if begins or ends or (len(text) >= SHORTEST_IBAN and digits > len(text) / 2):
            yield Piece("", units[0].first, units[-1].stop)


def _first_half(sentence: Sentence) -> Iterator[Piece]:
    """Give what may end an e-mail address that began in the utterance before: from an at sign or a dot on."""
    units = sentence.fluent
    if units and units[0].text == "@":
        for kind, piece in links_in((Unit(Sort.WORD, "mailbox", -1, 0), *units[:_NEAR])):
            if kind == "EMAIL_ADDRESS" and piece.first < 0:
                yield Piece("", 0, piece.stop)
    if units and units[0].text == ".":
        yield Piece("", 0, units[min(1, len(units) - 1)].stop)


def _last_half(sentence: Sentence) -> Iterator[Piece]:
    """Give what may begin an e-mail address that ends in the utterance after."""
    length = len(sentence.words)
    if not any(piece.stop == length for _, piece in find_links(sentence)):
        for kind, piece in _continued(sentence):
            if kind == "EMAIL_ADDRESS" and piece.first < length and _is_half(sentence, piece):
                yield Piece("", piece.first, length)


def _is_half(sentence: Sentence, piece: Piece) -> bool:
    """Tell whether words that might begin an e-mail address do: "john dot smith", not "what she is good at"."""
    mailbox = [unit for unit in sentence.fluent if unit.first >= piece.first]
    mailbox = mailbox[: next((at for at, unit in enumerate(mailbox) if unit.text == "@"), len(mailbox))]
    if any(unit.text in _MAILBOX_MARKS for unit in mailbox) and any(
        unit.sort is not Sort.DIGITS for unit in mailbox[:1]
    ):
        return True
    if sum(unit.sort is Sort.LETTERS for unit in mailbox) > 2:  # noqa: PLR2004 - more than "plan b" or "p m"
        return True
    before = sentence.lower[max(0, piece.first - _CUE_WORDS) : piece.first]
    return len(mailbox) < sum(unit.first >= piece.first for unit in sentence.fluent) and not MAIL_CUES.isdisjoint(
        before
    )


def _continued(sentence: Sentence) -> Iterator[tuple[str, Piece]]:
    """Give the links that would reach beyond the end of a sentence if one of `_CONTINUATIONS` followed."""
    length = len(sentence.words)
    for words in _CONTINUATIONS:
        after = [
            Unit(Sort.WORD if word.isalpha() else Sort.SYMBOL, word, at, at + 1)
            for at, word in enumerate(words, length)
        ]
        for kind, piece in links_in((*sentence.fluent[-_NEAR:], *after)):
            if piece.stop > length:
                yield kind, piece


def _open_links(sentence: Sentence) -> int:
    """Give the word from which the end of a sentence may become an e-mail or web address."""
    last = max(0, len(sentence.words) - 1)
    return min([last, *(piece.first for _, piece in _continued(sentence))])


def _open_numbers(sentence: Sentence, near: int) -> int:
    """Give the word from which the end of a sentence may be a number, an amount, a date or a time that goes on.

    A number within the last `near` words may become a part of something, whatever follows it.
    """
    length = len(sentence.words)
    numeric = {
        at for unit in sentence.units if unit.sort in {Sort.DIGITS, Sort.LETTERS} for at in range(unit.first, unit.stop)
    }
    numeric |= {
        at for piece in sentence.figures.pieces if re.search(r"\d", piece.text) for at in range(piece.first, piece.stop)
    }
    names = calendar_names(sentence.language)
    numeric |= {at for at, word in enumerate(sentence.lower) if word in names.months or word in names.days}
    joining = _joining(sentence.language)
    stop = length
    at = length - 1
    while at >= 0 and (at in numeric or not sentence.cores[at] or sentence.lower[at] in joining):
        if at in numeric or sentence.lower[at] in _OPENING_WORDS or (stop == at + 1 and sentence.lower[at] in _JOINING):
            stop = at
        at -= 1
    between = range_words(sentence.language)
    late = [at for at in sorted(numeric) if length - near <= at < stop]
    while late and (late[0] - 1 in numeric or (late[0] - 2 in numeric and sentence.lower[late[0] - 1] in between)):
        late.insert(0, late[0] - 1)
    return min([stop, *late])


@cache
def _joining(language: str) -> frozenset[str]:
    """Give the words that a number may go on behind; those that are not in `_JOINING` begin none."""
    return _JOINING | LINKING | range_words(language) | _DECIMAL_MARKS | hesitations(language)


_JOINING = word_set(
    """and of the to past a an half quarter point dot dash hyphen double triple treble plus minus oh hundred thousand
    million billion next last this um uh slash colon minutes o'clock p in at day as per pour por percentage second
    seconds"""
)
_DECIMAL_MARKS = word_set("comma komma virgule coma virgola vírgula")
_OPENING_WORDS = word_set("a an half quarter double triple treble plus minus next last this")
