"""E-mail addresses and web addresses, written or said ("john at example dot com").

A host is labels with dots between them, the last one a top-level domain; a label is a word, or letters and digits that
are read out one by one. An `at` before a host makes an e-mail address when what stands before the `at` can be a
mailbox; "see us at" makes none. What was pieced together counts only if linkify takes the whole of it for a link.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache, lru_cache

from linkify_it import LinkifyIt
from linkify_it.tlds import TLDS

from vivavoce.addons.spoken import Piece, Sentence, Sort, Unit, word_set

_TOP_LEVEL = frozenset(name.lower() for name in TLDS)
_MAILBOX_MARKS = frozenset({".", "_", "-", "+"})
_JOINTS = frozenset({"-", "_"})
_NAME_WORDS = 3  # "john smith at": a mailbox is said in two or three words at most
_HOST_WORDS = 3  # "at my company dot com"
_LONGEST = 60  # units of one address
_WHOLE = re.compile(r"\w@\w|://|\w\.\w+/")
_CONTRACTED = re.compile(r"\w'(?:s|m|re|ve|ll|d)$", re.IGNORECASE)  # "my email's", "that's", "I'm"
_OTHER_LETTERS = re.compile(r"[^\W\d_a-zA-Z]|'")
_ATOM = re.compile(r"[^\W_](?:[\w'+.-]*[^\W_])?")
_LABELS = re.compile(r"[^\W_](?:[\w-]*[^\W_])?(?:[._][^\W_](?:[\w-]*[^\W_])?)*")


def find_links(sentence: Sentence) -> Iterator[tuple[str, Piece]]:
    """Give the e-mail and web addresses as kind and piece."""
    return links_in(sentence.fluent)


def links_in(units: Sequence[Unit]) -> Iterator[tuple[str, Piece]]:
    """Give the e-mail and web addresses in fluent units, as `find_links` does in a sentence."""
    if not any("." in unit.text or "@" in unit.text for unit in units):
        return  # as in most sentences: no link is without a dot
    taken: dict[int, int] = {}
    ats = {at for at, unit in enumerate(units) if unit.text == "@"}
    # All mail first: half a mailbox may look like a host, "john dot cool at example dot com".
    for seek, places in ((_written, range(len(units))), (_mail, ats), (_web, _web_starts(units))):
        at = floor = 0
        while at < len(units):
            if at in taken:
                at = floor = taken[at]
            elif at in places and (link := seek(units, at, floor)):
                kind, piece = link
                yield kind, piece
                start = floor
                while units[start].first < piece.first:
                    start += 1
                while at < len(units) and units[at].first < piece.stop:
                    at += 1
                taken[start] = floor = at
            else:
                at += 1


@cache
def _linkify() -> LinkifyIt:
    return LinkifyIt().tlds(list(TLDS), True)


@lru_cache(maxsize=256)
def _kind(text: str) -> str | None:
    """Give what linkify takes a text for, if it takes the whole of it.

    It knows no apostrophes and only unaccented letters in a mailbox, so an `x` stands for others.
    """
    mailbox, at, host = text.rpartition("@")
    text = _OTHER_LETTERS.sub("x", mailbox) + at + host
    for match in _linkify().match(text) or ():
        if match.index == 0 and match.last_index == len(text):
            return "EMAIL_ADDRESS" if match.schema == "mailto:" else "URL"
    return None


def _checked(text: str, first: Unit, last: Unit) -> tuple[str, Piece] | None:
    kind = _kind(text)
    return (kind, Piece(text, first.first, last.stop)) if kind else None


def _written(units: Sequence[Unit], at: int, _floor: int) -> tuple[str, Piece] | None:
    """Give an address that is one written word with an at sign or a scheme in it."""
    unit = units[at]
    if unit.sort is not Sort.WORD or not _WHOLE.search(unit.text):
        return None
    return _checked(unit.text, unit, unit)


def _mail(units: Sequence[Unit], at: int, floor: int) -> tuple[str, Piece] | None:
    """Give the e-mail address whose at sign is the unit `at`; its mailbox begins at the unit `floor` or later."""
    if units[at].text != "@" or not floor < at < len(units) - 1:
        return None
    for words in range(1, _HOST_WORDS + 1):
        host = _host(units, at + 1, words)
        if not host:
            continue
        start = _mailbox(units, at, floor)
        if start is None:
            return None
        mailbox = "".join(unit.text for unit in units[start:at])
        return _checked(f"{mailbox}@{host[0]}".lower(), units[start], units[host[1] - 1])
    return None


def _web(units: Sequence[Unit], at: int, _floor: int) -> tuple[str, Piece] | None:
    """Give the web address that begins at a unit, with its path."""
    start = at
    scheme = ""
    if after := _scheme(units, at):
        scheme, at = "".join(unit.text for unit in units[at:after]).lower(), after
    host = _host(units, at, 1)
    if not host or units[at].text.lower() in _NO_LABEL:
        return None
    text, stop = host
    while stop + 1 < len(units) and units[stop].text == "/" and not units[stop - 1].ends:
        end = _label(units, stop + 1)
        if end is None:
            break
        text += "/" + "".join(unit.text for unit in units[stop + 1 : end])
        stop = end
    return _checked(scheme + text.lower(), units[start], units[stop - 1])


def _web_starts(units: Sequence[Unit]) -> Collection[int]:
    """Give the units at which a host may begin: those with a label behind which a dot comes; sought once for all."""
    if any(unit.text == ":" for unit in units):
        return range(len(units))  # perhaps a scheme, which may be spelled
    starts = set()
    for at, unit in enumerate(units):
        if "." not in unit.text:
            continue
        start = at if unit.sort is Sort.WORD else at - 1
        while start >= 0:
            starts.add(start)
            joined = start > 0 and units[start - 1].text in _JOINTS
            if units[start].sort is Sort.WORD and not joined:
                break
            if units[start].sort is Sort.SYMBOL and units[start].text not in _JOINTS:
                break
            start -= 1
    return starts


def _scheme(units: Sequence[Unit], at: int) -> int | None:
    """Give the unit after `http://` or `https://`."""
    if units[at].text[0] not in "hH":
        return None
    for length in (4, 5, 6, 7, 8):
        if "".join(unit.text for unit in units[at : at + length]).lower() in {"http://", "https://"}:
            return at + length
    return None


def _host(units: Sequence[Unit], at: int, words: int) -> tuple[str, int] | None:
    """Give the longest host from a unit on, whose first label is said in `words` words, and the unit after it."""
    stop = _label(units, at, words)
    if stop is None:
        return None
    text = "".join(unit.text for unit in units[at:stop])
    best = (text, stop) if _is_host(text) else None
    while stop + 1 < len(units) and stop - at < _LONGEST and units[stop].text == ".":
        start, end = stop + 1, _label(units, stop + 1)
        if end is None:
            break
        for cut in range(end, start, -1):
            longer = f"{text}." + "".join(unit.text for unit in units[start:cut])
            if _is_host(longer.lower()):
                best = (longer, cut)
                break
        text, stop = f"{text}." + "".join(unit.text for unit in units[start:end]), end
        if units[stop - 1].ends:
            break
    return best


def _is_host(text: str) -> bool:
    """Tell whether labels make a host; `like it.So` is the end of one sentence and the start of another."""
    labels = text.split(".")
    if len(labels) == 1 or not all(labels) or (labels[-1][0].isupper() and labels[-2][0].islower()):
        return False
    return labels[-1].lower() in _TOP_LEVEL


def _label(units: Sequence[Unit], at: int, words: int = 1) -> int | None:
    """Give the unit after a label: letters and digits, or `words` words and digits; hyphens may join several."""
    stop = at
    while stop < len(units):
        part = _part(units, stop, words)
        if part is None:
            return None
        stop = part
        if stop + 1 < len(units) and units[stop].text in _JOINTS and not units[stop - 1].ends:
            stop += 1
            continue
        return stop
    return None


def _part(units: Sequence[Unit], at: int, words: int) -> int | None:
    stop = at
    if units[at].sort is Sort.WORD:
        while stop < len(units) and stop - at < words:
            if units[stop].sort is not Sort.WORD or not _LABELS.fullmatch(units[stop].text):
                return None
            if units[stop].ends and stop - at + 1 < words:
                return None
            stop += 1
        # "studio fifty four dot com", but "the number is fifty four dot com".
        glued = set() if units[stop - 1].text.lower() in _CUES | _NO_LABEL else {Sort.DIGITS}
    elif words > 1:
        return None
    else:
        glued = {Sort.DIGITS, Sort.LETTERS}
    while stop < len(units) and units[stop].sort in glued and not (stop > at and units[stop - 1].ends):
        stop += 1
    if _is_split(units, at, stop):
        stop += 1
    return stop if stop > at else None


def _is_split(units: Sequence[Unit], at: int, stop: int) -> bool:
    """Tell whether letters are the beginning of the label that goes on with the next word: "g mail dot com"."""
    if units[at].sort is not Sort.LETTERS:
        return False
    following = units[stop : stop + 2]
    return (
        at < stop
        and all(unit.sort is Sort.LETTERS and not unit.ends for unit in units[at:stop])
        and [unit.text for unit in following[1:]] == ["."]
        and following[0].sort is Sort.WORD
        and bool(_LABELS.fullmatch(following[0].text))
    )


def _mailbox(units: Sequence[Unit], at: int, floor: int) -> int | None:
    """Give the first unit of the mailbox before an at sign, or None where "at" is the preposition."""
    start = _atom(units, at, floor)
    if start is None:
        return None
    while start - 2 >= floor and units[start - 1].text in _MAILBOX_MARKS and not units[start - 2].ends:
        before = _atom(units, start - 1, floor)
        if before is None:
            break
        start = before
    alone = units[start]
    if start == at - 1 and alone.sort is Sort.WORD:
        word = alone.text.lower()
        if word in _NO_MAILBOX or (word in _SELDOM_MAILBOX and not _is_announced(units[floor:start])):
            return None
        return _name(units, start, floor)
    return start


def _is_announced(before: Sequence[Unit]) -> bool:
    """Tell whether nothing but a mailbox can come behind some units: "my email is", "my email's"."""
    words = [unit.text.lower() for unit in before[-2:]]
    if words and words[-1].endswith("'s"):
        return words[-1].removesuffix("'s") in MAIL_CUES
    return len(words) > 1 and words[-1] in _IS and words[-2] in MAIL_CUES


def _atom(units: Sequence[Unit], stop: int, floor: int) -> int | None:
    """Give the first unit of the letters and digits, or of the word and digits, that end before `stop`."""
    start = stop
    while start > floor and units[start - 1].sort in {Sort.DIGITS, Sort.LETTERS} and not _parted(units, start, stop):
        start -= 1
    spelled = any(unit.sort is Sort.LETTERS for unit in units[start:stop])
    if start == floor or spelled or _parted(units, start, stop):
        return start if start < stop else None
    word = units[start - 1]
    if (
        word.sort is Sort.WORD
        and _ATOM.fullmatch(word.text)
        and not _CONTRACTED.search(word.text)
        and (start == stop or word.text.lower() not in _CUES | _NO_LABEL)
    ):
        start -= 1
        while start > floor and units[start - 1].sort is Sort.LETTERS and units[start - 1].text not in {"a", "I"}:
            start -= 1
    return start if start < stop else None


def _parted(units: Sequence[Unit], start: int, stop: int) -> bool:
    return start < stop and units[start - 1].ends


def _name(units: Sequence[Unit], start: int, floor: int) -> int:
    """Give the first word of a mailbox that is a name in several words: only words up to a cue such as "is" belong."""
    first = start
    while first > floor and start - first < _NAME_WORDS:
        before = units[first - 1]
        is_cue = before.text.lower() in _CUES or bool(_CONTRACTED.search(before.text))
        if before.sort is not Sort.WORD or before.ends or is_cue:
            return first if is_cue else start
        first -= 1
    return start


_NO_LABEL = word_set(
    """the a an of to and or for that this with from by on in as be no le la les el los las der die das il lo de"""
)
_CUES = word_set(
    """is it's to email mail e-mail address me him her us them contact cc write send and or the my his our their your
    was est ist es é è su mi mon son mein meine correo adresse dirección direccion"""
)
MAIL_CUES = word_set("email e-mail mail address correo adresse mailadresse indirizzo endereço mailadres")
"""What an e-mail address is called."""

_IS = word_set("is was ist est es é è")
_NO_MAILBOX = word_set(
    """looking looked available is are was were be online works working worked arrived living based down also and or
    then going registered hosted listed found"""
)
_SELDOM_MAILBOX = word_set(
    """me us him her them it you look shop shops website site store page people visit find more here there work book
    booking order check see details arrive meet stay live lives up out back over today tomorrow now that this learn
    read go"""
)
