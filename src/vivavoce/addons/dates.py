"""Dates and times of day in a sentence whose numbers are written in digits.

The names of months and days are the CLDR's, from Babel; what joins them to numbers is listed here by language. A word
that is a month only sometimes ("may", "march") counts beside a day, a year or a preposition, never behind "I" or
"they", and only with a capital where the engine writes capitals. Two bare numbers are a time of day only behind a word
such as "at": "two to three" and "nine eleven" are none.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from babel import Locale, UnknownLocaleError

from vivavoce.addons.spoken import Piece, Sentence

_LEAP_YEAR = 2000  # whose February has every day that any has
_SHORTEST_NAME = 3  # "10月" and the like are read by their digits alone


def find_dates(sentence: Sentence) -> Iterator[tuple[str, Piece]]:
    """Give the dates and times of day as kind and piece; they may overlap."""
    reading = sentence.figures
    names = calendar_names(sentence.language)
    found = [("DATE", match) for match in _dates(sentence, names)]
    patterns = (*_TIMES["any"], *_TIMES.get(sentence.language, ()))
    found += [("TIME", match) for pattern in patterns for match in pattern.finditer(reading.text)]
    for kind, match in found:
        start, stop = match.span("it")
        yield kind, Piece(reading.text[start:stop], *reading.words(start, stop))


@dataclass(frozen=True, slots=True)
class CalendarNames:
    """What a language calls its months, lower-case with their numbers, and its days; `patterns` find them in dates."""

    months: dict[str, int]
    days: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]


@cache
def calendar_names(language: str) -> CalendarNames:
    """Give a language's names; English ones for a language that the CLDR lacks."""
    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        locale = Locale("en")
    forms = ("format", "stand-alone")
    months = {
        name.lower().rstrip("."): number
        for form in forms
        for width in ("abbreviated", "wide")
        for number, name in locale.months[form][width].items()
        if len(name) >= _SHORTEST_NAME and not name[0].isdigit()
    }
    days = frozenset(name.lower() for form in forms for name in locale.days[form]["wide"].values())
    return CalendarNames(months, days, _patterns(_any(months), _any(days)))


def _patterns(months: str, days: str) -> tuple[re.Pattern[str], ...]:
    month = rf"(?P<month>{months})\.?(?!\w)"
    year = rf"(?:,? {_OF}{_YEAR})?"
    weekday = rf"(?:(?:{days})(?!\w),? {_OF})?"
    return tuple(
        re.compile(rf"\b(?P<it>{pattern})", re.IGNORECASE)
        for pattern in (
            rf"{weekday}{_DAY},? {_OF}{month}{year}",
            rf"{weekday}{month},? {_OF}{_DAY}{year}",
            rf"{month},? {_OF}{_YEAR}",
            rf"(?:(?:next|last|this) )?(?:{days})(?!\w)",
            rf"(?P<alone>{months})(?!\w)",
        )
    )


def _dates(sentence: Sentence, names: CalendarNames) -> Iterator[re.Match[str]]:
    text = sentence.figures.text
    for pattern in names.patterns:
        for match in pattern.finditer(text):
            if _is_date(match, sentence, names):
                yield match
    for match in _NUMERIC.finditer(text):
        if _is_day(match["a"], match["b"]):
            yield match
    for match in _ISO.finditer(text):
        if int(match["day"]) <= calendar.monthrange(int(match["year"]), int(match["month"]))[1]:
            yield match
    for pattern in (_HAN, _YEAR_ALONE, _DECADE):
        yield from pattern.finditer(text)
    if relative := _RELATIVE.get(sentence.language):
        yield from relative.finditer(text)


def _is_date(match: re.Match[str], sentence: Sentence, names: CalendarNames) -> bool:
    """Tell whether the day exists and the month is meant as one."""
    groups = match.groupdict()
    name = groups.get("month") or groups.get("alone")
    if name is None:
        return True
    if "day" in groups:
        day, last = int(groups["day"]), calendar.monthrange(_LEAP_YEAR, names.months.get(name.lower(), 1))[1]
        if not 1 <= day <= last:
            return False
    if name.lower() not in _SOMETIMES_MONTHS.get(sentence.language, ()):
        return True
    before = match.string[: match.start()].lower()
    if (sentence.cased and name[0].islower()) or _PRONOUN.search(before):
        return False
    return "alone" not in groups or bool(_PREPOSITION.search(before))


def _is_day(one: str, other: str) -> bool:
    low, high = sorted((int(one), int(other)))
    return 1 <= low <= 12 and high <= 31  # noqa: PLR2004 - a day and a month in either order


def _any(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))


_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th|\.|er|[eºª°]|de|ste|ème)?(?!\w)"
_YEAR = r"(?P<year>(?:1[5-9]|20) \d\d|(?:1[5-9]|20)\d\d)(?!\w)"
_OF = r"(?:(?:of|de|del|du|des|di|van|el|le|den|dem|am) |d')?(?:the |of )?"
_NUMERIC = re.compile(
    r"(?<![\w./-])(?P<it>(?P<a>\d{1,2})(?P<s>[/.-]| slash )(?P<b>\d{1,2})(?P=s)(?:\d\d ?)?\d\d)(?!\w)"
)
_ISO = re.compile(r"(?<!\w)(?P<it>(?P<year>(?:19|20)\d\d)-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01]))(?!\w)")
_HAN = re.compile(r"(?<!\d)(?P<it>(?:19|20)\d\d ?年(?: ?1?\d ?月(?: ?[1-3]?\d ?日)?)?)")
_DECADE = re.compile(
    r"\b(?:the )?(?P<it>(?:1[89]|20)\d0s"
    r"|(?<=the )(?:twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties))\b"
)
_YEAR_ALONE = re.compile(
    rf"\b(?:in|since|from|until|till|during|year|born|depuis|en|seit|im jahr|desde|dal|nel|sinds|em) (?P<it>{_YEAR})"
    r"(?! (?:minute|second|hour|day|week|month|year|people|percent|euro|dollar|pound|time))",
    re.IGNORECASE,
)
_RELATIVE = {
    language: re.compile(rf"\b(?P<it>{words})\b", re.IGNORECASE)
    for language, words in {
        "en": r"the day (?:after tomorrow|before yesterday)|today|tomorrow|yesterday"
        r"|(?:next|last|this) (?:week(?:end)?|month|year|quarter)",
        "fr": r"après-demain|avant-hier|aujourd'hui|demain|hier",
        "de": r"übermorgen|vorgestern|heute|gestern",
        "es": r"pasado mañana|anteayer|hoy|ayer",
        "it": r"dopodomani|oggi|domani|ieri",
        "nl": r"overmorgen|eergisteren|vandaag|gisteren",
        "pt": r"anteontem|hoje|amanhã|ontem",
    }.items()
}
_SOMETIMES_MONTHS = {
    "en": {"may", "march", "mar", "jun", "sep", "dec", "jan"},
    "fr": {"mars", "mai", "août", "sept"},
    "es": {"mar", "set", "ago"},
    "it": {"set", "mar", "dic", "ago", "lug"},
    "pt": {"mar", "set", "out", "dez", "ago", "fev"},
    "nl": {"mei", "mrt", "maart", "dec"},
    "de": {"mai", "mär", "dez", "sep", "okt"},
}
_PRONOUN = re.compile(r"\b(?:i|you|we|they|he|she|it|who|that|this|there|which|to|people)\W+$")
_PREPOSITION = re.compile(
    r"\b(?:in|since|until|till|by|last|next|early|late|mid|of|from|during|en|de|depuis|im|seit|bis|desde|a|di|da|em)\W+$"
)

_HOUR, _MINUTE = r"(?:1[0-2]|0?[1-9])(?![\w])", r"(?:0\d|[1-5]\d)(?![\w])"
_AFTER_TIME = "on|tomorrow|today|tonight|sharp|this|next|and|or|then|but|please|if|so|in|for|with|i|we|is|would|to"
_TIMES = {
    language: tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
    for language, patterns in {
        "any": (r"(?<![\w:])(?P<it>(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?: ?[ap](?:\.m\.?|\.? ?m\b))?)(?!\w)",),
        "en": (
            rf"\b(?P<it>(?:1[0-2]|0?[1-9])(?:[ .:]{_MINUTE})? ?[ap](?:\.m\.?|\.? ?m\b))",
            rf"\b(?P<it>{_HOUR}(?: {_MINUTE})? (?:o'?clock|in the (?:morning|afternoon|evening)|at night))\b",
            rf"\b(?P<it>(?:half|quarter|[1-5]?\d(?: minutes)?) past {_HOUR})",
            rf"\b(?P<it>(?:quarter|[1-5]?\d minutes) (?:to|till|before|after|of) {_HOUR})",
            rf"\b(?:at|by|until|till|it's|around|about|before|after) (?P<it>(?:5|10|20|25) to {_HOUR})",
            rf"\b(?:at|by|until|till|before|after|around|from|it's) (?P<it>{_HOUR} {_MINUTE})(?! (?:to|per|\d))",
            rf"\bat (?P<it>{_HOUR})(?=[.,;?!]|$| (?:{_AFTER_TIME})\b)",
            r"\b(?P<it>noon|midnight|midday)\b",
        ),
        "fr": (
            r"\b(?P<it>(?:[01]?\d|2[0-3]) ?h(?:eures?)?(?: [0-5]\d| et demie| et quart| moins (?:le quart|\d+))?)\b",
            r"\b(?P<it>midi|minuit)\b",
        ),
        "de": (
            r"\b(?P<it>(?:[01]?\d|2[0-3]) uhr(?: [0-5]?\d)?)\b",
            r"\b(?P<it>(?:halb|viertel (?:vor|nach)|\d{1,2} (?:minuten )?(?:vor|nach)) (?:halb )?1?\d)\b",
        ),
        "es": (r"\ba (?P<it>las? 1?\d(?: y (?:media|cuarto|[1-5]?\d)| menos (?:cuarto|\d+))?)\b",),
        "it": (r"\balle (?P<it>(?:[01]?\d|2[0-3])(?: e (?:mezza|un quarto|[1-5]?\d))?)\b",),
        "nl": (
            r"\b(?P<it>(?:half|kwart (?:over|voor)|\d{1,2} (?:over|voor)) 1?\d)\b",
            r"\b(?P<it>(?:[01]?\d|2[0-3]) uur(?: [0-5]?\d)?)\b",
        ),
        "pt": (r"\b(?:às|as) (?P<it>(?:[01]?\d|2[0-3])(?: horas)?(?: e (?:meia|[1-5]?\d))?)\b",),
    }.items()
}
