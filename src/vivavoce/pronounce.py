"""How English words are said, in the phones of PocketSphinx's dictionary.

A written word is first turned into the words a reader says for it (`spoken`: numbers, money, initials, symbols), and
each of those into phones (`variants`): from the dictionary, else from dictionary words inside it, else by the rules of
English spelling at the end of this module. Nothing is downloaded and the same word always gives the same phones.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pocketsphinx
from num2words import num2words

Phones = tuple[str, ...]
"""ARPABET without stress digits: 39 phones, as in `HH AH L OW`."""

LONGEST = 40
"""Letters of a word that are looked at; nobody says more in one breath, and it bounds the work."""
LONGEST_NUMBER = 15
"""Digits of a number that is read as one; longer ones are read digit by digit."""

_SYMBOLS = {
    "%": "percent",
    "&": "and",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "#": "number",
    "°": "degrees",
    "/": "slash",
    "*": "star",
}
_CURRENCIES = {"$": "USD", "£": "GBP", "€": "EUR", "¥": "JPY"}
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}
_LONGEST_INITIALS = 4
"""A word in capitals of at most this length may be initials even where it is in the dictionary (`IT`, `WHO`)."""

_TRAILING_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z]{2,}$)")
_TOKEN = re.compile(
    r"(?P<money>[$£€¥]\d[\d,]*(?:\.\d+)?(?:(?:bn|[kmb])(?![a-z]))?)"
    r"|(?P<telephone>\d{3}-(?:\d{3}-)?\d{4}(?!\d))"
    r"|(?P<clock>\d{1,2}:\d\d)(?!\d)"
    r"|(?P<ordinal>\d[\d,]*(?:st|nd|rd|th)(?![a-z]))"
    r"|(?P<decade>\d+'?s(?![a-z]))"
    r"|(?P<number>\d[\d,]*(?:\.\d+)?)"
    r"|(?P<dotted>(?:[a-z]\.)+[a-z]\.?(?:'?s)?(?![a-z]))"
    r"|(?P<word>[a-z]+(?:'[a-z]+)*'?)"
    r"|(?P<symbol>.)",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)


@functools.cache
def dictionary() -> dict[str, tuple[str, ...]]:
    """Give PocketSphinx's English dictionary: each word's pronunciations as phones with blanks, the first one first."""
    words: dict[str, tuple[str, ...]] = {}
    path = Path(pocketsphinx.get_model_path("en-us")) / "cmudict-en-us.dict"
    for line in path.read_text(encoding="utf-8").splitlines():
        entry, said = line.split(" ", 1)
        word = entry.partition("(")[0] or entry
        words[word] = (*words.get(word, ()), said)
    return words


def phones(text: str) -> Phones:
    """Give the likeliest phones of a written word; none where nothing in it is said."""
    return tuple(phone for word in spoken(text) for phone in variants(word)[0])


def spoken(text: str) -> tuple[str, ...]:
    """Give the words said for a written one, each good for `variants`; none for bare punctuation.

    Case stays where it matters: a word in capitals may be initials.
    """
    plain = _latin(text)[: 2 * LONGEST].strip(" \"()[]{}<>,;:!?…-—_'")
    for whole in (plain, plain.rstrip(".")):
        if whole.lower() in dictionary():
            return (whole,)
    return tuple(word for match in _TOKEN.finditer(plain) for word in _said(match.lastgroup or "", match.group()))


def variants(word: str) -> tuple[Phones, ...]:
    """Give the ways to say a word that `spoken` gave, the likeliest first; at least one."""
    lower = word.lower()
    known = [tuple(said.split()) for said in dictionary().get(lower, ())]
    letters = lower.replace("'", "").replace(".", "")[:LONGEST]
    initials = len(letters) <= _LONGEST_INITIALS and (word.isupper() or not re.search("[aeiouy]", letters))
    if not known and not (initials and not _readable(lower)):
        known = [_inflected(lower) or _compound(lower) or by_rule(lower)]
    if (initials and word.isupper()) or not known:
        known.append(_spelled(letters))
    return tuple(dict.fromkeys(said for said in known if said)) or (_spelled(letters) or ("AH",),)


def by_rule(word: str) -> Phones:
    """Give the phones that English spelling suggests for a word of the letters a to z; others are silent."""
    letters = re.sub("[^a-z]", "", word.lower())[:LONGEST]
    said: list[str] = []
    at = 0
    while at < len(letters):
        for pattern, sounds in _rules()[letters[at]]:
            if found := pattern.match(letters, at):
                said += sounds
                at = found.end()
                break
        else:
            at += 1
    return tuple(phone for n, phone in enumerate(said) if n == 0 or phone != said[n - 1])


def _latin(text: str) -> str:
    """Give the text with plain apostrophes and without accents."""
    folded = unicodedata.normalize("NFKD", text.translate(str.maketrans("’‘`ʼßøØłŁ", "''''sooll")))  # noqa: RUF001
    return "".join(letter for letter in folded if not unicodedata.combining(letter))


def _said(kind: str, text: str) -> Iterator[str]:
    """Give the spoken words of one token of `_TOKEN`."""
    digits = re.sub("[^0-9.]", "", text)
    if kind == "word":
        yield from _TRAILING_CAPITALS.split(text.rstrip("'"))
    elif kind == "telephone" or len(digits) > LONGEST_NUMBER:
        yield from _digits(digits)
    elif kind == "dotted":
        yield text.replace(".", "").upper().replace("'S", "'s")
    elif kind == "symbol":
        yield from filter(None, [_SYMBOLS.get(text)])
    elif kind == "number":
        yield from _number(text)
    elif kind == "ordinal":
        yield from _read(num2words(int(digits), to="ordinal"))
    elif kind == "money":
        yield from _money(text, Decimal(digits.rstrip(".")))
    elif kind == "clock":
        yield from _clock(*text.split(":"))
    else:
        *first, last = _number(digits)
        yield from first
        yield last[:-1] + "ies" if last.endswith("y") else last + "s"


def _number(text: str) -> tuple[str, ...]:
    whole = text.replace(",", "")
    if whole.isdigit() and (len(whole) > 6 or (whole[0] == "0" and len(whole) > 1)) and "," not in text:  # noqa: PLR2004
        return _digits(whole)
    year = text.isdigit() and len(text) == 4 and 1100 <= int(text) <= 2099 and not 2000 <= int(text) <= 2009  # noqa: PLR2004
    return _read(num2words(int(text), to="year") if year else num2words(Decimal(whole)))


def _digits(text: str) -> tuple[str, ...]:
    return tuple(word for digit in text if digit != "." for word in _read(num2words(int(digit))))


def _money(text: str, amount: Decimal) -> tuple[str, ...]:
    currency = _CURRENCIES[text[0]]
    scale = re.sub("[^a-z]", "", text.lower())
    if currency == "JPY":
        return (*_number(str(amount)), "yen")
    if scale:
        unit = _read(num2words(Decimal(2), to="currency", currency=currency))[1]
        return (*_number(str(amount)), _SCALES[scale], unit)
    words = num2words(amount, to="currency", currency=currency)
    return _read(words if "." in text else words.partition(",")[0])


def _clock(hours: str, minutes: str) -> tuple[str, ...]:
    hour = _read(num2words(int(hours)))
    if minutes == "00":
        return (*hour, "o'clock")
    return (*hour, *(["oh"] if minutes[0] == "0" else []), *_read(num2words(int(minutes))))


def _read(words: str) -> tuple[str, ...]:
    """Give the words of a number; the `and` after hundreds is more often left out than said."""
    return tuple(word for word in re.findall("[a-z]+", words) if word != "and")


def _readable(word: str) -> bool:
    """Tell whether a word that the dictionary lacks can be read out rather than spelled."""
    return bool(re.search("[aeiouy]", word)) and not re.search("[^aeiouy]{4}", word)


def _spelled(letters: str) -> Phones:
    names = dictionary()
    return tuple(
        phone for letter in letters for phone in ("EY" if letter == "a" else names.get(letter, ("",))[0]).split()
    )


def _inflected(word: str) -> Phones | None:
    """Give a regular form of a dictionary word: possessive, plural, past, -ing, -er, -ly and the like."""
    for ending, sounds in _ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < 2 or stem == word:  # noqa: PLR2004
            continue
        for base in (stem, stem + "e", re.sub(r"(.)\1$", r"\1", stem), re.sub("i$", "y", stem)):
            if base in dictionary():
                said = tuple(dictionary()[base][0].split())
                return said + (sounds or _plural_or_past(ending[-1], said[-1]))
    return None


def _plural_or_past(ending: str, last: str) -> Phones:
    if ending == "d":
        return ("IH", "D") if last in {"T", "D"} else ("T",) if last in _VOICELESS else ("D",)
    return ("IH", "Z") if last in {"S", "Z", "SH", "ZH", "CH", "JH"} else ("S",) if last in _VOICELESS else ("Z",)


_VOICELESS = frozenset({"P", "T", "K", "F", "TH", "S", "SH", "CH"})
_ENDINGS: tuple[tuple[str, Phones], ...] = (
    ("'s", ()),
    ("s'", ()),
    ("es", ()),
    ("s", ()),
    ("ed", ()),
    ("ing", ("IH", "NG")),
    ("ings", ("IH", "NG", "Z")),
    ("er", ("ER",)),
    ("ers", ("ER", "Z")),
    ("ly", ("L", "IY")),
    ("ness", ("N", "AH", "S")),
    ("less", ("L", "AH", "S")),
    ("ful", ("F", "AH", "L")),
    ("able", ("AH", "B", "AH", "L")),
    ("ish", ("IH", "SH")),
    ("ism", ("IH", "Z", "AH", "M")),
    ("ist", ("IH", "S", "T")),
)


def _compound(word: str) -> Phones | None:
    """Give two dictionary words written as one (`voicemail`), cut where the shorter of them is longest."""
    said = dictionary()
    cuts = [at for at in range(3, len(word) - 2) if word[:at] in said and word[at:] in said]
    if not cuts:
        return None
    at = max(cuts, key=lambda cut: min(cut, len(word) - cut))
    return tuple(f"{said[word[:at]][0]} {said[word[at:]][0]}".split())


@functools.cache
def _rules() -> dict[str, list[tuple[re.Pattern[str], Phones]]]:
    """Give the spelling rules by their first letter, in the order in which they are tried."""
    rules: dict[str, list[tuple[re.Pattern[str], Phones]]] = {}
    for line in _SPELLING.strip().splitlines():
        for rule in line.split(" | "):
            written, *sounds = rule.split()
            letter = re.sub(r"\(\?<?[=!].*?\)", "", written).lstrip("^")[0]
            pattern = written.replace("V", "[aeiouy]").replace("C", "[^aeiouy]").replace("%", "(?:e|es|ed|er|ing|ely)$")
            rules.setdefault(letter, []).append((re.compile(pattern), tuple(sounds)))
    return rules


# One rule is a regular expression tried at the current letter and the phones it says; V is any vowel letter, C any
# consonant letter, % an ending that follows a silent e. The first match in a line, then the next line, wins.
_SPELLING = """
a(?=$) AH | augh AO | au AO | aw AO | air EH R | ai EY | ayer EY ER | ay EY | ae EY | aa AA | ah AA | ao AW
(?<=VC)age$ IH JH | (?<=VCC)age$ IH JH | (?<=VC)able$ AH B AH L | (?<=C)al$ AH L | (?<=VC)an$ AH N | (?<=VCC)an$ AH N
alk AO K | alm AA M | all AO L | a(?=l[td]) AO | are$ EH R | arr EH R | (?<=w)ar AO R | (?<=VC)ar$ ER | (?<=VCC)ar$ ER
ar(?=V) EH R | (?<=VC)ard$ ER D | (?<=VCC)ard$ ER D | ar AA R | (?<=w)a(?=[nst](?!V)) AA | a(?=nge) EY | a(?=ste) EY
a(?=tio) EY | a(?=C%) EY | a(?=Ci[aou]) EY | a(?=C.*[aiou]$) AA | (?<!V)a(?=Cy$) EY | ^a(?=C[^aeiouyrl]) AE
^a(?=CV) AH | (?<=VC)a(?=CV) AH | a AE
bb B | b(?=t$) | (?<=m)b(?=$|s$|ing$|ed$|er$) | b B
^ch(?=r) K | (?<=s)ch K | ch(?=[rlm]) K | ch CH | cc(?=[iey]) K S | cc K | ck K | (?<=s)c(?=[iey]) | c(?=i[aou]) SH
cqu K W | c(?=[iey]) S | cz CH | c K
dge JH | dg JH | dd D | (?<=V[kpfsxc])ed$ T | (?<=VC[kpfsxc])ed$ T | (?<=sh)ed$ T | (?<=ch)ed$ T | d D
^eu Y UW | eau OW | eer IY R | ee IY | (?<=V[td])ed$ IH D | (?<=VC[td])ed$ IH D | (?<=.C)e(?=d$) | ear(?=[ntlch]) ER
ear IY R | ea(?=d$|th|lth|sure|v[ey]) EH | ea IY | eigh EY | ei(?=gn) EY | eir EH R | ei AY | eur ER | eu UW | ewe UW
ew(?<=[rlcdjstn]ew) UW | ew Y UW | ey$ IY | eys$ IY Z | ey EY | ere$ IY R | err EH R | er(?=V) EH R | er ER
(?<=VCC)e(?=ly$|ment|ful|less) | (?<=VC)e(?=ly$|ment|ful|less) | (?<=V[cgszx])es$ IH Z | (?<=VC[cgszx])es$ IH Z
(?<=sh)es$ IH Z | (?<=ch)es$ IH Z | (?<=VC)es$ Z | (?<=VC)e$ | (?<=VCC)e$ | (?<=Vth)e$ | (?<=Cl)e$ | ^Ce$ IY | e$ IY
(?<=C)el$ AH L | (?<=VC)e(?=n$|ns$|nt$|nce$|ss$) AH | (?<=VCC)e(?=n$|ns$|nt$|nce$|ss$) AH | e(?=C%) IY | e(?=o) IY
(?<=^[dr])e(?=CV) IH | e(?=CiV) IY | e EH
ff F | f F
^gn N | gn(?=$|s$|ed$) N | ght T | (?<=[iu])gh | ^gh G | gh | gg G | gu(?=[eiy]) G | ^ge(?=[ot]) JH | g(?=et|iv|ir) G
(?<=n)g(?=er|le) G | g(?=[iey]) JH | (?<=n)g(?=$|s$|h|C) | g G
(?<=[kprtsgcx])h | h(?=$|C) | h HH
igh AY | ign$ AY N | ign(?=[es]) AY N | ind$ AY N D | ild$ AY L D | ier(?=$|s$) IY ER | ie$ IY | ies$ IY Z | ied$ IY D
ie(?=t) AY AH | ie IY | io(?<=tio)n AH N | io(?<=sio)n AH N | (?<=[cst])ious AH S | ious IY AH S | (?<=[ct])ia(?=l|n) AH
ique IY K | (?<=VC)ine$ IY N | (?<=VC)ite$ AY T | (?<=VC)ive$ IH V | (?<=VCC)ive$ IH V | (?<=VC)ice$ IH S
(?<=VCC)ice$ IH S | ir(?=V) IH R | ire$ AY ER | ir ER | i(?=C%) AY | ^i(?=[aeo]) AY | ^bi AY | (?<=^[bdhlt])i(?=V) AY
i(?=[aou]) IY | i$ IY | i(?=C.*[aiou]$) IY | i IH
j JH
^kn N | kh K | kk K | k K
ll L | (?<=C)le$ AH L | l L
^mc(?=k) M AH | ^mc M AH K | mm M | mb(?=$|s$) M | (?<=Vs)m$ AH M | m M
nn N | ng(?=berg) NG | ng(?=$|s$|h) NG | ng(?=[ei]) N JH | n(?=[gkqx]) NG | nk NG K | n N
ough(?=t) AO | ough$ OW | oul(?=d) UH | ould UH D | ous$ AH S | our AO R | ou(?=[nds]) AW | ou UW | oor AO R | ook UH K
oo UW | oa OW | oi OY | oy OY | ow(?=n|$|s$|ing|ed) OW | ow AW | oe$ OW | oes$ OW Z | ore AO R | orr AO R
(?<=w)or(?=[kdlmst]) ER | (?<=VCt)or$ ER | (?<=Vt)or$ ER | (?<=Vs)or$ ER
(?<=VC)or(?=s$) ER | (?<=VCC)or(?=s$) ER | or AO R | old OW L D
o(?=ll?$) OW | o(?=st$|lt) OW | (?<=VC)on$ AH N | (?<=VCC)on$ AH N | (?<=VC)om$ AH M | o(?=C%) OW | o$ OW | os$ OW Z
o(?=C.*[aiou]$) OW | o(?=V) OW | o(?=CiV) OW | o(?=th) AH | o(?=CV) OW | o AA
ph F | pp P | ^psy S AY | ^ps S | ^pn N | pf F | p P
qu(?=e$|es$) K | que K | qu K W | q K
rrh R | rr R | rh R | re$ ER | r R
sch(?=V) SH | sch SH | sh SH | (?<=s)sion SH AH N | ssion SH AH N | (?<=V)sion ZH AH N | sion SH AH N | ssu SH UW
ss S | sc(?=[iey]) S | (?<=V)sm$ Z AH M | (?<=V)s(?=ure) ZH | (?<=V)s(?=V) Z | (?<=[bdglmnrvw])s$ Z | (?<=[aeoiyu])s$ Z
stle S AH L | sten S AH N | szcz SH CH | sz SH | s S
tch CH | tion SH AH N | t(?=i[aou]) SH | (?<=s)tion CH AH N | th TH | tt T | tz T S | tsch CH | ture CH ER
t(?=u[aeo]) CH | t T
^un(?=C|in|de|ab|am|ex|ev) AH N | ur(?=V) Y UH R | ure ER | ur ER | uy AY | ui(?=C%) UW | (?<=[rljs])ui UW
ue$ UW | ues$ UW Z | (?<=g)u(?=[aeio]) W | (?<=[rljshnd])u(?=C%) UW | u(?=C%) Y UW
(?<=[bcfmpvhg])u(?=C[aeou]) Y UW | u(?=C.*[aiou]$) UW
u(?=C[aeioy]) UW | u$ UW | us$ AH S | (?<=V)u UW | u AH
vv V | v V
wh(?=o) HH | wh W | ^wr R | w(?=$|C|r) | w W
^x Z | x K S
(?<=C)y$ IY | ^y(?=C) IH | ^y Y | y(?=C%) AY | (?<=^.)y$ AY | y(?=[aeou]) Y | (?<=^.)y AY | y IH
zz Z | z Z
"""
