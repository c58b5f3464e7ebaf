"""Spoken numbers, letters and symbols as they are written, each with the words that it was said in.

Two readings of a sentence serve the recognisers. `figures` writes every number phrase in digits and leaves the rest as
it stands ("the fifth of May" becomes "the 5th of May"): for amounts, dates and times. `units` goes word by word and
tells digits, spelled letters and symbols from other words ("double seven", "double u", "forward slash"): for whatever
is read out character by character.

What an engine writes is brought into one form first: one kind of dash and apostrophe, the digits and the punctuation of
any script as those of ASCII. A written word may be several units: `john@` two, a number with a unit glued to it too.

Number words are those that text2num knows, in the languages `NUMBER_LANGUAGES`; elsewhere only written digits count.
Punctuation that an engine puts between numbers keeps them apart in `figures`; in `units` it does not, since engines
write commas and stops into numbers that are read out slowly.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import cache, cached_property, lru_cache
from typing import Any

from text_to_num import find_numbers

from vivavoce.errors import AddonError
from vivavoce.model import Utterance

NUMBER_LANGUAGES = frozenset({"de", "en", "es", "fr", "it", "nl", "pt"})
"""Languages whose number words are read."""

OPENING = "\"'“‘«„‹([{<¿¡*#「『（【《"  # noqa: RUF001
CLOSING = "\"'”’»›)]}>.,;:!?…*-‐‑‒–—―」』）】》。．、，；：！？،؛؟۔।॥"  # noqa: RUF001
"""Punctuation that stands before and after a word without belonging to it."""

_LONGEST_WORD = 200  # nothing said is longer, and it bounds the work on each word
_BREAKS = frozenset(".,;:!?…")
_STOPS = frozenset(".;!?…")


@dataclass(frozen=True, slots=True)
class Piece:
    """A written form and the words `[first, stop)` that it was said in."""

    text: str
    first: int
    stop: int


class Reading:
    """Pieces as one text with single blanks between them; parts of the text lead back to the words."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self.text = " ".join(piece.text for piece in self.pieces)
        self._starts: list[int] = []
        at = 0
        for piece in self.pieces:
            self._starts.append(at)
            at += len(piece.text) + 1

    def words(self, start: int, stop: int) -> tuple[int, int]:
        """Give the words, first and after last, that the characters `[start, stop)` of the text were said in."""
        first, last = (max(0, bisect_right(self._starts, at) - 1) for at in (start, stop - 1))
        return self.pieces[first].first, self.pieces[last].stop


class Sort(IntEnum):
    """What a unit is."""

    DIGITS = auto()
    LETTERS = auto()
    SYMBOL = auto()
    WORD = auto()


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that was said, as written: `text` in the words `[first, stop)`; after it a sentence may end.

    Digits are `grouped` that are written in thousands, as quantities are: `12,345,678`. They are `years` where they are
    written as a time from a year to a later one: `1914-1918`.
    """

    sort: Sort
    text: str
    first: int
    stop: int
    ends: bool = False
    grouped: bool = False
    years: bool = False


@dataclass(frozen=True, slots=True)
class _Token:
    """A word as text2num takes it."""

    core: str
    apart: bool
    barred: bool

    def text(self) -> str:
        return self.core

    def nt_separated(self, _previous: object) -> bool:
        return self.apart

    def not_a_number_part(self) -> bool:
        return self.barred


class Sentence:
    """An utterance's words in the readings that the recognisers take; each is made once, when it is asked for."""

    def __init__(self, utterance: Utterance) -> None:
        self.utterance = utterance
        self.language = re.split("[-_]", utterance.language.lower())[0]
        self.words = tuple(_plain(word.text[:_LONGEST_WORD]) for word in utterance.words)
        self.cores = tuple(bare(word) for word in self.words)
        self.lower = tuple(core.lower() for core in self.cores)
        self.tails = tuple(_tail(word) for word in self.words)

    @cached_property
    def cased(self) -> bool:
        """Whether the engine writes capitals, so that a lower-case word is no name."""
        return any(letter.isupper() for word in self.words for letter in word)

    @cached_property
    def figures(self) -> Reading:
        """The sentence with its number phrases in digits; punctuation stays behind the words."""
        pieces: list[Piece] = []
        at = 0
        for number in (*self._numbers(close=False), None):
            until = number.first if number else len(self.words)
            pieces += [Piece(self.words[index].lstrip(OPENING), index, index + 1) for index in range(at, until)]
            if number:
                pieces.append(Piece(number.text + self.tails[number.stop - 1], number.first, number.stop))
                at = number.stop
        return Reading([piece for piece in pieces if piece.text])

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The sentence as digits, spelled letters, symbols and other words, in order; bare punctuation is left out."""
        return tuple(self._units())

    @cached_property
    def fluent(self) -> tuple[Unit, ...]:
        """The units without hesitations, as addresses are read; "at um dot edu" is a host."""
        units, skipped = self.units, hesitations(self.language)
        if skipped.isdisjoint(self.lower):
            return units
        return tuple(
            unit
            for at, unit in enumerate(units)
            if unit.text.lower() not in skipped
            or [one.text for one in units[max(0, at - 1) : at + 2 : 2]] == ["@", "."]
        )

    def _numbers(self, *, close: bool) -> list[Piece]:
        """Give the number phrases; with `close`, punctuation does not part them and a hundred takes nothing more."""
        if self.language not in NUMBER_LANGUAGES:
            return []
        tokens = []
        for index, core in enumerate(self.lower):
            before = index - 1
            apart = before >= 0 and (
                self.lower[before] == "hundred" and core not in _SCALES
                if close
                else bool(_BREAKS & set(self.tails[before]))
            )
            written = any(letter.isdigit() for letter in core)
            barred = not core or written or (core.startswith("second") and not self._counted(index))
            tokens.append(_Token("o" if core == "oh" and self.language == "en" else core, apart, barred))
        found = _find_numbers(tokens, self.language)
        pieces = [Piece(number.text, number.start, number.end) for number in found]
        return [piece for at, piece in enumerate(pieces) if self._said(piece, pieces, at)]

    def _counted(self, index: int) -> bool:
        """Tell whether `second` is an ordinal here, not the unit of time."""
        before = self.lower[index - 1] if index else ""
        after = self.lower[index + 1] if index + 1 < len(self.lower) else ""
        if self.lower[index] != "second" or after == "of" or after in _SECOND_OF:
            return self.lower[index] == "second"
        return before in _DETERMINERS

    def _said(self, piece: Piece, pieces: Sequence[Piece], at: int) -> bool:
        """Tell whether a phrase is a number: "oh" and "o" are zeros only beside other numbers, or doubled."""
        if any(core not in {"oh", "o"} for core in self.lower[piece.first : piece.stop]):
            return True
        if piece.first and self.lower[piece.first - 1] in _TIMES.get(self.language, {}):
            return True
        before = pieces[at - 1].stop == piece.first if at else False
        return before or (at + 1 < len(pieces) and pieces[at + 1].first == piece.stop)

    def _units(self) -> Iterator[Unit]:
        numbers = {number.first: number for number in self._numbers(close=True) if number.text.isdigit()}
        at = 0
        while at < len(self.words):
            unit = self._symbol(at) or self._repeated(at, numbers)
            units = (unit,) if unit else self._units_at(at, numbers)
            at = units[-1].stop
            yield from (unit for unit in units if unit.text)

    def _make(self, sort: Sort, text: str, first: int, stop: int) -> Unit:
        stops = _STOPS & set(self.tails[stop - 1])
        if sort is Sort.LETTERS and text != "I":
            stops -= {"."}  # "J. O. H. N."
        return Unit(sort, text, first, stop, bool(stops))

    def _units_at(self, at: int, numbers: dict[int, Piece]) -> Sequence[Unit]:
        """Give the unit of a number phrase or of a spelled letter, or the units of one other word."""
        core = self.cores[at]
        if number := numbers.get(at):
            return (self._make(Sort.DIGITS, number.text, at, number.stop),)
        if core.isalnum() and core.isascii():
            return (self._unit(core, at),)
        if spelled := _hyphened(self.lower[at], self.language):
            return tuple(self._make(Sort.DIGITS, digits, at, at + 1) for digits in spelled)
        return tuple(self._unit(part, at) for part in _parts(core))

    def _unit(self, part: str, at: int) -> Unit:
        if _is_letter(part):
            following = self.lower[at + 1 : at + 4]
            if (
                self.language == "en"
                and following[:2] == ("as", "in")
                and following[2:]
                and following[2][:1] == part.lower()
            ):
                return self._make(Sort.LETTERS, part, at, at + 4)
            return self._make(Sort.LETTERS, part, at, at + 1)
        if (years := _YEARS.fullmatch(part)) and years[1] < years[2]:
            return Unit(Sort.DIGITS, years[1] + years[2], at, at + 1, years=True)
        if _WRITTEN_DIGITS.fullmatch(part) and not _NO_CODE.fullmatch(part):
            return self._make(Sort.DIGITS, re.sub(r"[^\d+]", "", part), at, at + 1)
        if _THOUSANDS.fullmatch(part):
            return Unit(Sort.DIGITS, part.replace(",", ""), at, at + 1, grouped=True)
        return self._make(Sort.SYMBOL if part == "@" else Sort.WORD, part, at, at + 1)

    def _symbol(self, at: int) -> Unit | None:
        table = _SYMBOLS.get(self.language, _SYMBOLS["en"])
        for length in (2, 1):
            if text := table.get(" ".join(self.lower[at : at + length])):
                return self._make(Sort.SYMBOL, text, at, min(at + length, len(self.words)))
        written = self.words[at].strip()
        return self._make(Sort.SYMBOL, written, at, at + 1) if written in _WRITTEN_SYMBOLS else None

    def _repeated(self, at: int, numbers: dict[int, Piece]) -> Unit | None:
        """Give `double seven`, `triple w`, `double u`."""
        times = _TIMES.get(self.language, {}).get(self.lower[at])
        if not times or at + 1 >= len(self.words):
            return None
        if self.language == "en" and times == 2 and self.lower[at + 1] in {"u", "you"}:  # noqa: PLR2004
            return self._make(Sort.LETTERS, "w", at, at + 2)
        repeated = self._units_at(at + 1, numbers)[0]
        if repeated.sort is Sort.LETTERS or (
            repeated.sort is Sort.DIGITS and (len(repeated.text) == 1 or repeated.text[0] == "0")
        ):
            return self._make(repeated.sort, repeated.text[0] * (times - 1) + repeated.text, at, repeated.stop)
        return None


def _find_numbers(tokens: list[_Token], language: str) -> list[Any]:
    """Call text2num, whose panics are no `Exception`s and would end more than this call."""
    try:
        found: list[Any] = find_numbers(tokens, language, threshold=0.0)
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise AddonError("the numbers in an utterance cannot be read") from error
    return found


def word_set(words: str) -> frozenset[str]:
    """Give the words of a text as a set."""
    return frozenset(words.split())


@cache
def hesitations(language: str) -> frozenset[str]:
    """Give the sounds that people make in a language before they go on."""
    return _HESITATIONS | _ENGLISH_HESITATIONS if language == "en" else _HESITATIONS


def bare(word: str) -> str:
    """Give a word without the punctuation around it."""
    return word.lstrip(OPENING).rstrip(CLOSING)


def _plain(word: str) -> str:
    """Give a written form with the signs of ASCII for those that mean the same; a range as it is: "20–30"."""  # noqa: RUF002
    if word.isascii() or _RANGE.search(word):
        return word
    return unicodedata.normalize("NFC", word.translate(_SIGNS))


def _is_letter(part: str) -> bool:
    """Tell whether a part is a letter that may be spelled: of a script with capitals, where no letter is a word."""
    return len(part) == 1 and part.lower() != part.upper()


@lru_cache(maxsize=1024)
def _parts(core: str) -> Sequence[str]:
    """Give what a written word consists of: at least one part, itself unless things are glued together in it."""
    if "–" in core or _QUANTITY.fullmatch(core) or _COMPOUND.fullmatch(core):  # noqa: RUF001 - a range, see `_plain`
        return (core,)
    parts: list[str] = []
    for chunk in _CHUNKS.findall(core):
        if _LINK.search(chunk):
            parts += _BETWEEN_MAILS.split(chunk)
        elif "@" in chunk:
            parts += re.split("(@)", chunk)
        else:
            number = _GENITIVE.sub("", chunk)
            many = sum(letter.isdecimal() for letter in number) >= _FEWEST_DIGITS
            whole = not many or _WRITTEN_DIGITS.fullmatch(number) or _QUANTITY.fullmatch(number)
            parts += [number if many else chunk] if whole else _TOKENS.findall(number)
    return tuple(part for part in parts if part) or (core,)


@lru_cache(maxsize=1024)
def _hyphened(word: str, language: str) -> Sequence[str]:
    """Give the digits of three or more numbers with hyphens between, `four-five-three-two`; none of other words."""
    words = word.split("-")
    if len(words) == 1 or language not in NUMBER_LANGUAGES or not all(map(str.isalpha, words)):
        return ()
    table = _DIGIT_WORDS[language]
    if all(part in table for part in words):
        return tuple(str(table.index(part)) for part in words) if len(words) > 2 else ()  # noqa: PLR2004
    found = _find_numbers([_Token(part, apart=False, barred=False) for part in words], language)
    whole = sum(number.end - number.start for number in found) == len(words)
    digits = tuple(number.text for number in found)
    return digits if whole and len(digits) > 2 and all(map(str.isdigit, digits)) else ()  # noqa: PLR2004 - "fifty-fifty"


def _tail(word: str) -> str:
    return word[len(word.rstrip(CLOSING)) :]


_HESITATIONS = word_set("uh uhm erm eh ehm hm hmm euh heu äh ähm öh")
_ENGLISH_HESITATIONS = word_set("um umm er")  # elsewhere words: "um zehn", "er ist"
_DIGIT_WORDS = {
    "de": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "es": ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
    "fr": ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"],
    "it": ["zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
    "nl": ["nul", "een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen"],
    "pt": ["zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove"],
}  # those from zero on, which need no grammar
_DETERMINERS = word_set("the my your his her its our their every")
_SECOND_OF = word_set(
    "january february march april may june july august september october november december floor time"
)
_SCALES = frozenset({"thousand", "million", "billion"})
_TIMES = {
    "en": {"double": 2, "triple": 3, "treble": 3},
    "fr": {"double": 2, "triple": 3},
    "es": {"doble": 2, "triple": 3},
    "de": {"doppel": 2, "zweimal": 2, "dreimal": 3},
    "it": {"doppio": 2, "doppia": 2, "triplo": 3, "tripla": 3},
    "nl": {"dubbel": 2, "dubbele": 2},
    "pt": {"duplo": 2, "dobro": 2, "triplo": 3},
}
_WRITTEN_SYMBOLS = frozenset("@./-_+:")
_SYMBOLS = {
    "en": {
        "at": "@", "at sign": "@", "dot": ".", "full stop": ".", "dash": "-", "hyphen": "-", "minus": "-",
        "underscore": "_", "under score": "_", "slash": "/", "forward slash": "/", "colon": ":", "plus": "+",
    },
    "fr": {
        "arobase": "@", "at": "@", "point": ".", "tiret": "-", "tiret bas": "_", "underscore": "_", "slash": "/",
        "dot": ".", "barre oblique": "/", "deux points": ":", "plus": "+",
    },
    "es": {
        "arroba": "@", "punto": ".", "guion": "-", "guión": "-", "guion bajo": "_", "guión bajo": "_", "barra": "/",
        "dos puntos": ":", "más": "+",
    },
    "de": {
        "at": "@", "ät": "@", "klammeraffe": "@", "punkt": ".", "bindestrich": "-", "minus": "-", "unterstrich": "_",
        "dot": ".", "schrägstrich": "/", "slash": "/", "doppelpunkt": ":", "plus": "+",
    },
    "pt": {
        "arroba": "@", "ponto": ".", "traço": "-", "hífen": "-", "sublinhado": "_", "underscore": "_", "barra": "/",
        "dois pontos": ":", "mais": "+",
    },
    "it": {
        "chiocciola": "@", "punto": ".", "trattino": "-", "trattino basso": "_", "underscore": "_", "barra": "/",
        "slash": "/", "due punti": ":", "più": "+",
    },
    "nl": {
        "apenstaartje": "@", "at": "@", "punt": ".", "dot": ".", "streepje": "-", "underscore": "_", "slash": "/",
        "schuine streep": "/", "dubbele punt": ":", "plus": "+",
    },
}  # fmt: skip
_WRITTEN_DIGITS = re.compile(r"\+?\(?\d+(?:[-./_()]{1,2}\d+)*\)?")
_NO_CODE = re.compile(r"(?:0|[1-9]\d*)\.\d+|[0-3]\d\.[0-5]\d|(?!0\d\d)\d{1,4}(?:/\d{1,4}){1,2}|\d{4}-\d{1,2}-\d{1,2}")
_YEARS = re.compile(r"((?:1[5-9]|20)\d\d)-((?:1[5-9]|20)\d\d)")
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")
_QUANTITY = re.compile(
    r"\W?(?:\d{1,3}(?:,\d{2,3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3})*,\d+|\d+\.\d+|\d{1,2}:\d\d:\d\d)\D{0,4}"
    r"|[$€£¥₹][\d.,]+\w?|[\d.,]+[$€£¥₹%]"
)
_EVIDENT = r"(?:\d{1,3}(?:[.,]\d{3})+|\d{1,2}h\d\d|\d{4}s)"  # a quantity, a time or a decade, and no code
_COMPOUND = re.compile(
    rf"{_EVIDENT}(?:[-/x](?:{_EVIDENT}|\d{{1,4}}))+|\d{{1,4}}[-/x]{_EVIDENT}"
    r"|(?:\d{1,5}|\d{1,3}(?:[.,]\d{3})+)(?:-[^\W\d_]{3,})+"
    r"|[^\W\d_]+-\d{1,5}:(?:19|20)\d\d|[^\W\d_]+(?:-\w{1,3})?-20\d\d-[01]\d-[0-3]\d"
    r"|(?!(?:\D*\d){9})(?:\d\d|(?:19|20)\d\d)(?:/(?:\d\d|(?:19|20)\d\d|[^\W\d_]{2,}))+"
)
_FEWEST_DIGITS = 5  # in a word that things are glued to; "covid-19" is one word
_RANGE = re.compile(
    r"(?<![\d–-])(?:\d{1,3}–\d{1,3}|(?:1[5-9]|20)\d\d–\d\d)(?![\d–-])"  # noqa: RUF001
)
_LINK = re.compile(r"\w@\w.*\.\w|://|\w\.\w+/|\w\.[^\W\d_]{2}")
_BETWEEN_MAILS = re.compile(r"(?<![:/])/(?=[^/]*@)")
_GENITIVE = re.compile(r"'[a-z]*$")
_TOKENS = re.compile(r"\+?[^\W_]+")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_CHUNKS = re.compile(rf"[{_UNSPACED}]+|[^{_UNSPACED},;!?]+")
_SIGNS = {
    **{at: chr(at - 0xFEE0) for at in range(0xFF01, 0xFF5F)},
    **{at: str(unicodedata.decimal(chr(at))) for at in range(0x0660, 0x1C60) if chr(at).isdecimal()},
    **dict.fromkeys(map(ord, "‐‑‒–−"), "-"),  # noqa: RUF001
    **dict.fromkeys(map(ord, "—―،、"), ","),
    **dict.fromkeys(map(ord, "’‘ʼ"), "'"),  # noqa: RUF001
    **dict.fromkeys(map(ord, "。।॥۔"), "."),  # noqa: RUF001
    **dict.fromkeys((0x00AD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF), None),
    ord("؛"): ";",
    ord("؟"): "?",
}
