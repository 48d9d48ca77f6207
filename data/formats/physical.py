"""What the readers of other formats share: a Header for values that are physical already, and missing libraries."""

import math
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from data.header_comments import SEXES, known_age
from data.headers import Header, Lead, RecordError

NO_INVALID_MARK = "8"  # the storage format of WFDB that has no value for 'no sample here': NaN says it


def physical_header(
    name: str,
    sample_freq: float,
    lead_names: Sequence[str],
    units: str | Sequence[str],
    n_samples: int,
    age: float = math.nan,
    sex: str | None = None,
    dx: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Header:
    """Header of a recording whose values are in their units already: gain 1, baseline 0.

    Args:
        name: of the recording, for messages.
        sample_freq: Hz.
        lead_names: as the file has them.
        units: of each lead, or the one of all: V, mV, uV or nV.
        n_samples: of each lead.
        age: years, nan if unknown.
        sex: 'Male', 'Female' or None.
        dx: diagnosis codes.
        warnings: what is odd about the file.
    """
    if isinstance(units, str):
        units = [units] * len(lead_names)
    leads = [
        Lead("~", NO_INVALID_MARK, 1, 0, 0, 1.0, 0, unit, 0, 0, None, None, 0, lead)
        for lead, unit in zip(lead_names, units, strict=True)
    ]
    return Header(
        name,
        1,
        len(leads),
        float(sample_freq),
        n_samples,
        tuple(leads),
        known_age(age),
        sex,
        tuple(dx),
        (),
        (),
        tuple(warnings),
    )


def sex_of(text: object) -> str | None:
    """'Male' or 'Female' as files write them, in any case or as M and F; None otherwise."""
    return SEXES.get(str(text).strip().lower())


def number(text: object) -> float:
    """A number as tables write it, nan where it is none."""
    try:
        return float(str(text).strip())
    except ValueError:
        return math.nan


def library(path: str, module: str, package: str) -> ModuleType:
    """An optional library. Raises RecordError that says what to install.

    Args:
        path: of the file that needs it.
        module: what is imported.
        package: what is installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise RecordError(f"{path}: reading it needs {package}: pip install {package}") from None
