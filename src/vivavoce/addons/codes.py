"""What is read out digit by digit: telephone numbers, payment cards, IBANs, and other long numbers.

Digits that follow each other, however they are grouped, are one run, also with an "okay" between groups that are read
out; a run with letters in it may hold an IBAN. Inside
a run the recognisers look at every stretch of whole units, so that a number said before or after does not hide one.
A card needs its maker's prefix, its length and its check digit; an IBAN its country's length and check digits; a
telephone number must be one that is in use in its country, or stand behind a word such as "phone".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import iban, luhn

from vivavoce.addons.amounts import find_amounts
from vivavoce.addons.spoken import Piece, Reading, Sentence, Sort, Unit, hesitations, word_set

FEWEST_DIGITS = 5
"""Digits of the shortest number that is an entity in itself."""

_LONGEST_RUN = 80  # units; longer ones are looked at in parts, which bounds the work
_PARTS = frozenset({"-", "/", "."})
_FILLERS = word_set("dash hyphen space")
_ANSWERS = word_set(
    """okay ok yes yeah yep right correct mhm ja genau richtig oké juist goed oui d'accord voilà exact sí vale sì sim
    isso certo"""
)
_CONJUNCTIONS = word_set("and then und dann et puis y luego e poi depois en dan")
LINKING = _FILLERS | _ANSWERS | _CONJUNCTIONS
"""What may be said inside a number that is read out, besides hesitations."""

_MOST_LINKING = 2  # "yes and"
_FEWEST_IN_GROUP = 3
_FEWEST_WRITTEN = 7  # digits in all of groups that are written with "okay" between
_FEWEST_READ_OUT = 4  # "one two three" is counting, a code is longer
_CUE_WORDS = 8
_ROUND_DIGITS = 4  # "1250000" may be a quantity, "12345000" hardly
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[0-9]|2[2-7])\d{14}|6\d{11,18}|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11}|35\d{14}"
)
_IBAN = re.compile(r"[A-Z]{2}\d\d[A-Z0-9]{11,30}")
_POSTCODE = re.compile(r"[A-Z]{1,2}\d[A-Z\d]?\d[ABD-HJLNP-UW-Z]{2}")
SHORTEST_IBAN, _LONGEST_IBAN = 15, 34

REGIONS = {
    "en": ("US", "GB", "AU", "IE", "NZ", "IN"),
    "de": ("DE", "AT", "CH"),
    "es": ("ES", "MX", "AR", "CO"),
    "fr": ("FR", "BE", "CH", "CA"),
    "it": ("IT", "CH"),
    "nl": ("NL", "BE"),
    "pt": ("PT", "BR"),
}
"""Countries whose national telephone numbers are tried for a language, in this order."""


def find_codes(sentence: Sentence, regions: Sequence[str] = ()) -> Iterator[tuple[str, Piece]]:
    """Give telephone, card, account and other numbers as kind and piece; they may overlap.

    `regions` are the countries (`GB`) whose national telephone numbers count; those of the language where there are
    none.
    """
    regions = regions or REGIONS.get(sentence.language, ())
    for run in code_runs(sentence):
        yield from _ibans(run)
        yield from _postcodes(run)
    for run in digit_runs(sentence):
        if is_counting(run) and not is_announced(sentence, run[0].first):
            continue
        cards = list(_cards(run))
        yield from cards
        if any((piece.first, piece.stop) == (run[0].first, run[-1].stop) for _, piece in cards):
            continue
        yield from _telephones(run, regions, cued=_is_cued(sentence, run[0].first))
        if piece := long_number(run):
            yield "NUMBER", piece


def digit_runs(sentence: Sentence) -> Iterator[Sequence[Unit]]:
    """Give the units of each run of digits; groups of digits with a word or two of `LINKING` between them are one.

    Years that stand alone, `1914-1918`, are none unless they are announced as a number.
    """
    for run in _joined(sentence):
        years = all(unit.years for unit in run)
        if not years or is_announced(sentence, run[0].first) or is_secret(sentence, run[0].first):
            yield run


def _joined(sentence: Sentence) -> Iterator[Sequence[Unit]]:
    groups: list[Sequence[Unit]] = []
    for run in _runs(sentence, {Sort.DIGITS}):
        if groups and not _goes_on(sentence, groups, run):
            yield from _as_one(sentence, groups)
            groups = []
        groups.append(run)
    yield from _as_one(sentence, groups)


def _as_one(sentence: Sentence, groups: Sequence[Sequence[Unit]]) -> Iterator[Sequence[Unit]]:
    """Give groups as one run, unless they were written and may be quantities: "is it 500? yes, 600"."""
    if len(groups) == 1:
        yield groups[0]
    elif groups:
        units = tuple(unit for group in groups for unit in group)
        if (
            all(_is_group(group, written=False) for group in groups)
            or is_announced(sentence, units[0].first)
            or (
                sum(len(unit.text) for unit in units) >= _FEWEST_WRITTEN and any(unit.text[0] in "+0" for unit in units)
            )
            or any(_cards(units))
        ):
            yield units
        else:
            yield from groups


def code_runs(sentence: Sentence) -> Iterator[Sequence[Unit]]:
    """Give the units of each run of digits, spelled letters and codes such as `GB29`."""
    for run in _runs(sentence, {Sort.DIGITS, Sort.LETTERS, Sort.WORD}):
        if any(unit.years for unit in run) and all(unit.years or unit.text.isalpha() for unit in run):
            continue
        yield run


def _runs(sentence: Sentence, sorts: set[Sort]) -> Iterator[Sequence[Unit]]:
    """Give stretches of units of some sorts; single dashes and hesitations inside are left out.

    Digits in thousands are a stretch of their own.
    """
    hesitating = hesitations(sentence.language)
    run: list[Unit] = []
    pending = 0
    for unit in sentence.units:
        if unit.grouped:
            yield from _closed(run)
            yield (unit,)
            run = []
        elif unit.text == "+" and Sort.LETTERS not in sorts:
            yield from _closed(run)
            run = [unit]
        elif unit.sort in sorts and (unit.sort is not Sort.WORD or _is_code(unit.text)):
            run.append(unit)
        elif run and not pending and (unit.text in _PARTS or unit.text.lower() in _FILLERS | hesitating):
            pending = 1
            continue
        elif run:
            yield from _closed(run)
            run = []
        pending = 0
        if len(run) == _LONGEST_RUN:
            yield from _closed(run)
            run = []
    yield from _closed(run)


def _goes_on(sentence: Sentence, groups: Sequence[Sequence[Unit]], after: Sequence[Unit]) -> bool:
    """Tell whether a run is the next group of the number before it: "four five three, okay, two one nine"."""
    before = groups[-1]
    stop, first = before[-1].stop, after[0].first
    between = {*sentence.lower[stop:first]}
    if not between or not between <= LINKING or first - stop > _MOST_LINKING:
        return False
    if sum(map(len, groups)) + len(after) > _LONGEST_RUN:
        return False
    if all(_is_group(run, written=False) for run in (before, after)):
        return True
    if not between <= _ANSWERS or not all(_is_group(run, written=True) for run in (before, after)):
        return False
    tail = sentence.tails[stop - 1]
    if "?" in tail or ("." in tail and not is_announced(sentence, groups[0][0].first)):
        return False
    return not any(kind in {"MONEY", "PERCENT"} and piece.first == first for kind, piece in find_amounts(sentence))


def _is_group(run: Sequence[Unit], *, written: bool) -> bool:
    """Tell whether digits are said one by one, or, with `written`, written in groups; years and times are neither."""
    texts = [unit.text for unit in run if unit.text != "+"]
    if all(len(text) == 1 or text[0] == "0" for text in texts):
        return sum(map(len, texts)) >= _FEWEST_IN_GROUP
    return written and all(len(unit.text) >= _FEWEST_IN_GROUP and not is_phrase([unit]) for unit in run)


def _closed(run: Sequence[Unit]) -> Iterator[Sequence[Unit]]:
    if any(unit.text != "+" for unit in run):
        yield tuple(run)


def _is_code(word: str) -> bool:
    """Tell whether a written word may be a part of an IBAN, such as `GB29` or `NWBK`."""
    return word.isascii() and word.isalnum() and (word.isupper() or not word.isalpha())


def is_counting(run: Sequence[Unit]) -> bool:
    """Tell whether somebody may be counting: one two three four, or down to one; nobody counts from seven on."""
    values = [int(unit.text) for unit in run if unit.text.isdigit()]
    steps = {after - before for before, after in pairwise(values)}
    if len(values) <= 2 or len(steps) > 1:  # noqa: PLR2004
        return False
    return (1 in steps and values[0] <= 1) or (-1 in steps and values[-1] <= 1)


def is_announced(sentence: Sentence, first: int) -> bool:
    """Tell whether a word shortly before says that a number comes which is read out, and none that somebody counts."""
    before = _before(sentence, first)
    return not _NUMBER_CUES.isdisjoint(before) and not is_counted(sentence, first)


def is_secret(sentence: Sentence, first: int) -> bool:
    """Tell whether a word shortly before says that a password or the like comes, which may be short."""
    return not _SECRET_CUES.isdisjoint(_before(sentence, first))


def is_counted(sentence: Sentence, first: int) -> bool:
    """Tell whether a word shortly before says that somebody counts."""
    return not _COUNTING.isdisjoint(_before(sentence, first))


def _before(sentence: Sentence, first: int) -> Sequence[str]:
    return sentence.lower[max(0, first - _CUE_WORDS) : first]


def _is_cued(sentence: Sentence, first: int) -> bool:
    """Tell whether a word shortly before says that a telephone number comes: "call", or "my number", not any number."""
    before = _before(sentence, first)
    pairs = pairwise(before)
    return not _TELEPHONE_CUES.isdisjoint(before) or any(
        whose in _WHOSE and word in {"number", "numéro", "nummer", "número", "numero"} for whose, word in pairs
    )


def _ibans(run: Sequence[Unit]) -> Iterator[tuple[str, Piece]]:
    for start, unit in enumerate(run):
        if not unit.text[0].isalpha():
            continue
        text = ""
        for last in run[start:]:
            text += last.text.upper()
            if len(text) > _LONGEST_IBAN:
                break
            if len(text) >= SHORTEST_IBAN and _IBAN.fullmatch(text) and iban.is_valid(text):
                yield "IBAN", Piece(text, unit.first, last.stop)


def _postcodes(run: Sequence[Unit]) -> Iterator[tuple[str, Piece]]:
    """Give British postcodes that are spelled out; written ones are found with the addresses."""
    for start, unit in enumerate(run):
        for stop in range(start + _FEWEST_READ_OUT, min(start + 8, len(run) + 1)):
            text = "".join(part.text for part in run[start:stop]).upper()
            if _POSTCODE.fullmatch(text):
                yield "ADDRESS", Piece(text, unit.first, run[stop - 1].stop)


def _cards(run: Sequence[Unit]) -> Iterator[tuple[str, Piece]]:
    for start, unit in enumerate(run):
        text = ""
        for last in run[start:]:
            text += last.text
            if _CARD.fullmatch(text) and luhn.is_valid(text):
                yield "CREDIT_CARD", Piece(text, unit.first, last.stop)


def _telephones(run: Sequence[Unit], regions: Sequence[str], *, cued: bool) -> Iterator[tuple[str, Piece]]:
    if sum(len(unit.text) for unit in run) < FEWEST_DIGITS or (run[0].grouped and not cued):
        return
    international = run[0].text == "+"
    reading = Reading([Piece(unit.text, unit.first, unit.stop) for unit in run])
    text = reading.text.replace("+ ", "+", 1)
    skipped = len(reading.text) - len(text)
    for start, raw in _telephones_in(text, (None,) if international else tuple(regions), is_cued=cued):
        first, stop = reading.words(start + (skipped if start else 0), start + len(raw) + skipped)
        yield "PHONE_NUMBER", Piece(raw, first, stop)


@lru_cache(maxsize=256)
def _telephones_in(text: str, regions: Sequence[str | None], *, is_cued: bool) -> Sequence[tuple[int, str]]:
    """Give where telephone numbers begin, and their texts, by the first country that has any.

    A number is in many partials and in its final, and to look at it takes a millisecond.
    """
    leniency = Leniency.POSSIBLE if is_cued else Leniency.VALID
    for region in regions:
        if found := [(match.start, match.raw_string) for match in PhoneNumberMatcher(text, region, leniency=leniency)]:
            return found
    return ()


def is_phrase(digits: Sequence[Unit]) -> bool:
    """Tell whether digits were said as one number of several words, or written in thousands, as quantities are."""
    return len(digits) == 1 and (digits[0].grouped or digits[0].stop - digits[0].first > 1)


def long_number(run: Sequence[Unit]) -> Piece | None:
    """Give a whole run that is a long number: read out in pieces, or written as no quantity is."""
    digits = [unit for unit in run if unit.text != "+"]
    text = "".join(unit.text for unit in digits)
    if len(text) < FEWEST_DIGITS:
        return None
    if len(digits) == 1 and text[0] != "0":
        rounded = text.endswith("000") and len(text.rstrip("0")) <= _ROUND_DIGITS
        if rounded or is_phrase(digits) or len(text) == FEWEST_DIGITS:
            return None
    return Piece(text, run[0].first, run[-1].stop)


_TELEPHONE_CUES = word_set(
    """phone telephone mobile cell cellphone call tel dial ring fax landline whatsapp téléphone appelez portable
    teléfono móvil llame telefon telefonnummer handy telefone celular telefono cellulare chiamare telefoonnummer
    mobiel bel"""
)
_SECRET_CUES = word_set(
    """password passwords passcode passphrase pin pins code cvv cvc otp kennwort passwort geheimzahl mdp
    contraseña clave senha codice código wachtwoord pincode"""
)
_NUMBER_CUES = (
    _TELEPHONE_CUES
    | _SECRET_CUES
    | word_set(
        """number numbers account accounts card reference ref order policy invoice booking ticket case customer member
        membership passport licence license serial id identification iban sort routing insurance social tax numéro
        compte carte référence commande facture dossier nummer konto kontonummer karte bestellung rechnung
        rechnungsnummer kundennummer número cuenta tarjeta pedido factura referencia numero conto carta ordine fattura
        conta cartão pedido fatura rekening rekeningnummer kaart bestelling factuur klantnummer"""
    )
)
_COUNTING = word_set(
    """count counts counted counting countdown zähle zählen zählt gezählt comptez compter compté contar contamos contare
    contiamo tellen telt geteld"""
)
_WHOSE = word_set("my your his her our their mon mi meine minha mio mijn")
