"""What the comments of a Challenge header say of the patient: #Age, #Sex, #Dx."""

import math
import re
from collections.abc import Iterable
from functools import lru_cache

from data.dx import read_dx

MAX_SHOWN = 80  # characters of a piece of a #Dx comment in a warning
MAX_TEXTS = 5  # pieces of a #Dx comment in a warning
MAX_AGE = 150  # years; beyond it the age counts as unknown (PTB-XL writes 300 for "over 89")
SEXES = {"m": "Male", "f": "Female", "male": "Male", "female": "Female"}  # as people write them, in any case
NUMBER = r"[+-]?(?:\d{1,18}\.?\d{0,18}|\.\d{1,18})(?:[eE][+-]?\d{1,3})?"
_DX_COMMENT = re.compile(r"dx(?![^\W_])\s*[:：=]?", re.IGNORECASE)


def parse_comments(comments: Iterable[str]) -> tuple[float, str | None, tuple[str, ...], tuple[str, ...]]:
    """What a header's comments say, without their '#': age (NaN if unknown), sex ('Male', 'Female' or None), diagnosis
    codes, warnings. What is not a number of years, or neither male nor female, is unknown.
    """
    age = math.nan
    sex = None
    dx = {}
    texts = {}
    for comment in comments:
        key = comment[:2].lower()
        if key == "dx":
            match = _DX_COMMENT.match(comment)
            if match is not None:
                codes, others = read_dx(comment[match.end() :])
                dx.update(dict.fromkeys(codes))
                texts.update(dict.fromkeys(others))
        elif key == "ag" and (value := _value(comment, "age")) is not None:
            age = _age(value)
        elif key == "se" and (value := _value(comment, "sex")) is not None:
            sex = SEXES.get(value.lower())
    return age, sex, tuple(dx), _dx_warnings(list(texts)) if texts else ()


def _value(comment, key):
    """Text of a comment 'key: text', or None if it is another one."""
    before, _, value = comment.partition(":")
    return value.strip() if before.rstrip().lower() == key else None


def _dx_warnings(texts):
    shown = ", ".join(repr(text[:MAX_SHOWN]) for text in texts[:MAX_TEXTS])
    more = f" and {len(texts) - MAX_TEXTS} more" if len(texts) > MAX_TEXTS else ""
    return (f"#Dx holds what is not a diagnosis code: {shown}{more}",)


@lru_cache(maxsize=1024)
def _age(text):
    if not re.fullmatch(NUMBER, text, re.ASCII):
        return math.nan
    return known_age(float(text))


def known_age(age: float) -> float:
    """An age in years as it was written, NaN where it is none, such as PTB-XL's 300 for "over 89"."""
    return age if 0 <= age <= MAX_AGE else math.nan
