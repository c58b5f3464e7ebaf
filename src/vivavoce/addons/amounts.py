"""Amounts of money, percentages, ordinals and postal addresses in a sentence whose numbers are written in digits.

The names and symbols of currencies are the CLDR's, from Babel, by their main word ("dollars" for "US dollars"). An
address needs a house number beside the name of a street with its kind of street ("12 Baker Street"), a British or
American postcode, or a post office box; kinds of street that are everyday words as well count only behind a name with a
capital.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from babel import Locale, UnknownLocaleError
from babel.numbers import get_currency_name, get_currency_symbol

from vivavoce.addons.spoken import Piece, Sentence, word_set

_CURRENCIES = word_set(
    """AED ARS AUD BRL CAD CHF CLP CNY COP CZK DKK EUR GBP HKD HUF IDR ILS INR JPY KES KRW MXN MYR NGN NOK NZD PHP
    PLN RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR"""
)
_NOUN_FIRST = frozenset({"fr", "es", "it", "pt"})  # "dollars américains"; elsewhere the noun comes last
_SHORTEST_NAME = 3


def find_amounts(sentence: Sentence) -> Iterator[tuple[str, Piece]]:
    """Give amounts of money, percentages, ordinals and addresses as kind and piece; they may overlap."""
    reading = sentence.figures
    if not _DIGIT.search(reading.text):
        return  # as in most sentences: every pattern has a number in it
    addresses = _ADDRESSES.get(sentence.language, ())
    for kind, pattern in (*money(sentence.language), ("PERCENT", _PERCENT), ("ORDINAL", _ORDINAL), *addresses):
        for match in pattern.finditer(reading.text):
            piece = Piece(match["it"], *reading.words(*match.span("it")))
            if kind == "ADDRESS" and not _is_address(match, cased=sentence.cased):
                continue
            if kind == "ORDINAL" and _is_fraction(sentence, piece):
                continue
            yield kind, piece


@cache
def range_words(language: str) -> frozenset[str]:
    """Give what stands between the two ends of an amount in a language; English where its words are not known."""
    words, _, last = _RANGES.get(language, _RANGES["en"])
    return frozenset((*words.split(), last))


def half_address(sentence: Sentence) -> Piece | None:
    """Give what may begin an address that goes on in the utterance after: "I live at 12 Baker"."""
    match = _HALF_ADDRESS.search(sentence.figures.text) if sentence.language == "en" else None
    if match is None or not (_NO_STREET | _NO_NAME).isdisjoint(match["it"].lower().split()):
        return None
    return Piece(match["it"], *sentence.figures.words(*match.span("it")))


@cache
def money(language: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Give the patterns of amounts of money in a language, each with its kind; English where the CLDR lacks it."""
    names, symbols = currency_words(language)
    name, symbol = _any(names), _any(symbols)
    small = (
        rf"(?: (?:and )?\d{{1,2}}(?: (?:{_SMALL_COINS})\b|(?=[.,;:!?]|$| (?:please|each|and|for|in|to|on|a|per)\b)))?"
    )
    words, before, last = _RANGES.get(language, _RANGES["en"])
    range_of = rf"(?:{_FIRST_END} (?:{words.replace(' ', '|')}) |(?<=\b{before} ){_FIRST_END} {last} )?"
    scaled = rf"{range_of}{_AMOUNT}(?: and a (?:half|quarter))?{_SCALE}"
    return tuple(
        ("MONEY", re.compile(rf"(?<![\w.,])(?P<it>{pattern})", re.IGNORECASE))
        for pattern in (
            rf"(?:half an? |an? )?{scaled} ?(?:[a-z]+ )?(?:{name})(?!\w){small}",
            rf"{scaled} ?(?:{symbol})(?!\w)",
            rf"(?:{symbol}) ?{scaled}(?: (?:{name})(?!\w))?",
            rf"{_AMOUNT} ?(?:{_SMALL_COINS})(?!\w)",
        )
    )


@cache
def currency_words(language: str) -> tuple[frozenset[str], frozenset[str]]:
    """Give what a language calls currencies, and their symbols and codes, all in lower case."""
    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        locale = Locale("en")
    names = set(_COLLOQUIAL.get(locale.language, "").split())
    symbols = {
        "$",
        "€",
        "£",
        "¥",
        "₹",
        "us$",
        "ca$",
        "c$",
        "au$",
        "a$",
        "nz$",
        "hk$",
        "mx$",
        "r$",
        *(code.lower() for code in _CURRENCIES),
    }
    for code in _CURRENCIES:
        symbols.add(get_currency_symbol(code, locale=locale).lower())
        for count in (1, 2):
            words = get_currency_name(code, count=count, locale=locale).lower().replace("-", " ").split()
            names.add(words[0] if locale.language in _NOUN_FIRST else words[-1])
    return frozenset(name for name in names if len(name) >= _SHORTEST_NAME), frozenset(symbols)


def _is_fraction(sentence: Sentence, ordinal: Piece) -> bool:
    """Tell whether an ordinal is a part of something: "two thirds", "a third of"."""
    before = sentence.lower[ordinal.first - 1] if ordinal.first else ""
    last = sentence.lower[ordinal.stop - 1]
    return last.endswith(("ds", "ths")) or (before in {"a", "one"} and not last[0].isdigit())


def _is_address(match: re.Match[str], *, cased: bool) -> bool:
    """Tell whether what looks like a street is one."""
    groups = match.groupdict()
    street = groups.get("street")
    if street is None:
        return True
    words = street.lower().replace(",", " ").split()
    if not _NO_STREET.isdisjoint(words):
        return False
    if cased and groups["sort"]:
        return all(word[0].isupper() or word[0].isdigit() for word in street.split())
    return (groups["sort"] or "").lower() not in _EVERYDAY


def _any(names: frozenset[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))


_DIGIT = re.compile(r"\d")
_AMOUNT = r"\d+(?:[.,]\d+)*"
_FIRST_END = r"(?:\d{1,3}(?:[.,]\d{3})*|\d{1,4}|[1-9]\d{0,3}00+)(?:[.,]\d{1,2})?"  # round: no number of an account
_RANGES = {
    "en": ("to or", "between", "and"),
    "de": ("bis oder", "zwischen", "und"),
    "fr": ("à ou", "entre", "et"),
    "es": ("a o", "entre", "y"),
    "it": ("a o", "[tf]ra", "e"),
    "nl": ("tot of", "tussen", "en"),
    "pt": ("a ou", "entre", "e"),
}  # what stands between the ends, or before the first and between
_SCALE = (
    r"(?: ?(?:k|m|bn|mio\.?|1000(?:000){0,3}|thousand|million|billion|tausend|millionen|mille|millones|milioni)(?!\w))?"
    r"(?: de| of)?"
)
_SMALL_COINS = r"cents?|pence|p(?!\.| m\b)|centimes?|céntimos?|centesimi|centesimo|centavos?|cêntimos?|pennies|penny"
_COLLOQUIAL = {"en": "buck bucks quid grand sterling", "nl": "pond ponden", "de": "pfund franken"}
_PERCENT = re.compile(
    r"(?<![\w.,])(?P<it>(?:minus |plus |a (?=100))?\d+(?:[.,]\d+)?(?: and a half)? ?"
    r"(?:%|per ?cent(?:age points?)?|percentage points?|pour cents?|pour 100|por ciento|por 100|por cento|per cento"
    r"|per 100|prozent|procent)(?!\w))",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?<![\w.,])(?P<it>\d{1,3}(?:st|nd|rd|th|ème))(?!\w)", re.IGNORECASE)

_SORTS = (
    "street|st|road|rd|avenue|ave|boulevard|blvd|lane|drive|highway|parkway|terrace|crescent|mews|gardens|alley|plaza"
    "|court|place|square|way|close|row|hill|grove"
)
_EVERYDAY = word_set("court place square way close row hill drive st terrace gardens grove lane")
_NO_STREET = word_set(
    """the of to in on down up my a an for from at by this that your our their his her and or with off into per
    minutes more other people percent cars miles hours days years times is was are"""
)
_NO_NAME = word_set("o'clock blocks doors streets houses floors kilometers kilometres away over summers")
_HALF_ADDRESS = re.compile(
    r"\b(?:(?:live|lives|living|lived) at|address(?: is|'s)(?: at)?) (?P<it>\d{1,5}[a-z]?(?: [\w'-]+){0,3})\W*$",
    re.IGNORECASE,
)
_UNIT = r"(?:,? (?:apartment|apt\.?|flat|suite|unit|number|floor) [\w-]+)?"
_TOWN = r"(?:,? (?:[A-Z][\w'-]+,? ){1,3}(?:[A-Z]{2} )?\d{5}(?:-\d{4})?)?"
_HOUSE = r"(?<![\w.,])(?<!\ba )(?P<it>\d{1,5}[a-zA-Z]?"
_STREET = rf"(?P<street>(?:[\w'.-]+ ){{1,3}})(?P<sort>(?i:{_SORTS}))(?!\w)\.?(?: (?i:north|south|east|west))?"
_ROMANCE_NAME = r"(?: (?:d[aeou]|del|des|la|le|l[eao]s|della|[ld]'\w+))* [\w'-]+(?: [A-Z][\w'-]+)*"
_ADDRESSES = {
    language: tuple(("ADDRESS", re.compile(pattern)) for pattern in patterns)
    for language, patterns in {
        "en": (
            rf"{_HOUSE},? {_STREET}{_UNIT}{_TOWN})",
            r"(?P<it>\b(?:[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})\b)",
            r"(?P<it>\b[A-Z]{2} \d{5}(?:-\d{4})?)(?!\w)",
            r"(?P<it>\b(?i:p\.? ?o\.? box|post office box) \d[\d ]*)\b",
        ),
        "fr": (
            (
                r"(?P<it>\b\d{1,4}(?: (?:bis|ter))?,? "
                rf"(?i:rue|avenue|boulevard|place|chemin|allée|impasse|quai|cours){_ROMANCE_NAME})"
            ),
        ),
        "de": (r"(?P<it>\b[A-ZÄÖÜ][\w-]*(?:straße|strasse|weg|platz|allee|gasse),? \d{1,4}[a-z]?\b)",),
        "es": (rf"(?P<it>\b(?i:calle|avenida|plaza|paseo){_ROMANCE_NAME},? (?:número )?\d{{1,4}}\b)",),
        "it": (rf"(?P<it>\b(?i:via|viale|piazza|corso){_ROMANCE_NAME},? (?:numero )?\d{{1,4}}\b)",),
        "pt": (rf"(?P<it>\b(?i:rua|avenida|praça){_ROMANCE_NAME},? (?:número )?\d{{1,4}}\b)",),
        "nl": (r"(?P<it>\b[A-Z][\w-]*(?:straat|weg|plein|laan|gracht),? \d{1,4}[a-z]?\b)",),
    }.items()
}
