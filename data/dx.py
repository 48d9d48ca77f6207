"""Diagnosis codes out of the `#Dx` comments of headers, as people write them.

The Challenges write SNOMED CT codes with commas between them, or in their first phase nine short names. Others separate
them by semicolons, bars or spaces, put them into brackets or quotes, let a table turn them into 426783006.0, or write
what they mean beside them. Whatever is a code beyond doubt is read, and the rest is handed back as a remark: a text
taken for a code would be a class that nobody has, and a recording with findings would count as healthy.
"""

import re
from functools import lru_cache

from data.labels import CPSC2018

MAX_CACHED = 1000  # characters of a comment that is worth remembering
_NOTHING = {"", "unknown", "nan", "none", "null", "na", "n/a"}  # said where nothing is known
_FIRST_PHASE = {name.casefold(): name for name in CPSC2018}

_AS_IN_THE_CHALLENGES = re.compile(r"\s*\d{1,18}(?:,\s*\d{1,18})*\s*", re.ASCII)
_COMMENT = re.compile(r"(?:^|\s)(?:#|//|--)")
_SEPARATOR = re.compile(r"[,;|\n，；、]|\band\b")
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|（[^（）]*）")
_WORD_BREAK = re.compile(r"[\s,;|/+&，；、]+")
_WRAPPING = " \t\xa0\"'`´“”‘’()[]{}<>"
_PUNCTUATION = _WRAPPING + ".:=&/+*-–—#"
_CODE = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)
# A number in a text: as long as SNOMED CT identifiers are, and no part of a word, a date or a fraction.
_CODE_IN_TEXT = re.compile(r"(?<![\w.+-])(\d{6,18})(?:\.0*)?(?!\w|[.-]\d)", re.ASCII)
_LEADING_CODES = re.compile(r"\d{6,18}(?:\.0*)?(?:[\s/+&]+\d{6,18}(?:\.0*)?(?!\w|[.-]\d))*(?!\w|[.-]\d)", re.ASCII)
_DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])", re.ASCII)
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|\d(?!\d{5})|[_-])+")
# What turns the meaning of a code round, or leaves it open: in front of it, and anywhere beside it.
_NEGATION = re.compile(r"\b(?:no|not|without|was|were|previous(?:ly)?|former(?:ly)?|prior|history)\b", re.IGNORECASE)
_DOUBT = re.compile(
    r"\?|%|[:=]\s*\d"  # a question, a likelihood
    r"|\b(?:not|or|versus|vs|possibl[ey]|probabl[ey]|suspected|excluded?|ruled?[ -]out|r/o|absent|denie[sd])\b",
    re.IGNORECASE,
)


def read_dx(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """-> codes that a `Dx` comment names, in order and without doubles; pieces of its text that are none.

    `text` is what follows the colon. A single word that is neither a SNOMED CT code nor a name of the first phase is
    kept among the codes if there is no number, for a class set may have words for codes, and is a piece as well.
    """
    return _remembered(text) if len(text) <= MAX_CACHED else _read(text)


def _read(text):
    if _AS_IN_THE_CHALLENGES.fullmatch(text):
        return tuple(dict.fromkeys(code.strip() for code in text.split(","))), ()
    comment = _COMMENT.search(text)
    pieces = [] if comment is None else [text[comment.end() :]]
    text = text if comment is None else text[: comment.start()]
    text = _BRACKETS.sub(_as_one_part, text)
    codes = []
    words = []
    for part in map(str.strip, _SEPARATOR.split(text)):
        if part.strip(_WRAPPING).casefold() in _NOTHING:
            continue
        found, rest = _numbers(part)
        codes += found
        if rest:
            words.append(rest)
    if not codes:
        codes, words = _names(words)
    pieces = [piece.strip(_PUNCTUATION) for piece in words + pieces]
    return tuple(dict.fromkeys(codes)), tuple(piece for piece in pieces if piece)


_remembered = lru_cache(maxsize=4096)(_read)


def _as_one_part(brackets):
    """A list in brackets stays; in other text in brackets nothing separates, so that it stays beside its code."""
    words = [word.strip(_WRAPPING).casefold() for word in _WORD_BREAK.split(brackets[0])]
    if all(word in _NOTHING or word in _FIRST_PHASE or _CODE.fullmatch(word) for word in words):
        return brackets[0]
    return _SEPARATOR.sub(" ", brackets[0])


def _numbers(part):
    """-> codes in a part between two separators, the text beside them ('' if there is none)."""
    alone = _CODE.fullmatch(part.strip(_WRAPPING))
    if alone is not None:
        return [alone[1]], ""
    found = list(_CODE_IN_TEXT.finditer(part))
    rest = _CODE_IN_TEXT.sub(" ", part)
    if not rest.strip(_PUNCTUATION):
        dates = [match[1] for match in found if _DATE.fullmatch(match[1]) and not has_check_digit(match[1])]
        return [match[1] for match in found if match[1] not in dates], " ".join(dates)
    if not found or _DOUBT.search(rest) or _NEGATION.search(part[: found[0].start()]):
        return [], part
    part = part.lstrip(_WRAPPING)
    first = _LEADING_CODES.match(part)
    if first is not None:
        return _CODE_IN_TEXT.findall(first[0]), " ".join(part[first.end() :].split())
    if len(found) == 1 and has_check_digit(found[0][1]):
        return [found[0][1]], " ".join(rest.split())
    return [], part


def _names(words):
    """-> codes of parts without numbers, parts that are text. A part of first-phase names only is their list."""
    codes = []
    texts = []
    for part in words:
        if _BRACKETS.fullmatch(part):
            part = part[1:-1]
        names = [name.strip(_WRAPPING).casefold() for name in _WORD_BREAK.split(_BRACKETS.sub(" ", part).strip())]
        if all(name in _FIRST_PHASE for name in names) and not _DOUBT.search(part):
            codes += [_FIRST_PHASE[name] for name in names]
            texts += _BRACKETS.findall(part)
            continue
        word = part.strip(_WRAPPING)
        texts.append(word)
        if _WORD.fullmatch(word) and not _NEGATION.fullmatch(word) and not _DOUBT.fullmatch(word):
            codes.append(word)
    return codes, texts


def has_check_digit(number: str) -> bool:
    """Whether the last digit is the one that SNOMED CT identifiers end with: Verhoeff's, of the dihedral group D5."""
    check = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[value]
        check = _times(check, value)
    return check == 0


def _times(a, b):
    """Product in D5: 0 to 4 turn a pentagon, 5 to 9 turn it over."""
    turn = (a + b if a < 5 else a - b) % 5
    return turn + 5 if (a < 5) != (b < 5) else turn
