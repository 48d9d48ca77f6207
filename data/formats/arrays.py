"""Arrays, in memory or in NumPy, CSV and Parquet files, one recording each. They say neither rate nor unit nor leads; a
user does.
"""

import csv
import math
import os
from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np

from data.formats.physical import library, physical_header
from data.header_comments import MAX_AGE, SEXES
from data.headers import MAX_FREQ, MILLIVOLTS, Header, RecordError
from data.leads import lead_name
from data.signal_files import check_file

ENDINGS = (".npy", ".npz", ".csv", ".parquet")


class ArrayLayout(NamedTuple):
    """What the files do not say."""

    sample_freq: float  # Hz
    unit: str
    leads: tuple[str, ...]  # in the order of the array


def read_array(path: str, layout: ArrayLayout) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) float64, Header.

    Args:
        path: of the file.
        layout: what it does not say.

    Raises:
        RecordError: it is not a matrix of numbers with so many leads on one side only, or its columns have the names of
            other leads than the layout.
    """
    check_file(path)
    ending = os.path.splitext(path)[1].lower()
    try:
        values, names = _READERS[ending](path)
    except RecordError:
        raise
    except Exception as error:  # there is no end to what libraries raise on a damaged or foreign file
        raise RecordError(f"{path}: cannot be read as {ending}: {type(error).__name__}: {error}") from error
    n_leads = len(layout.leads)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise RecordError(f"{path}: holds {values.ndim}-dimensional {values.dtype}, not leads x samples of numbers")
    _check_names(path, names, layout.leads)
    if (values.shape[0] == n_leads) == (values.shape[1] == n_leads):
        raise RecordError(f"{path}: is {values.shape[0]} x {values.shape[1]}, --leads names {n_leads} leads")
    values = values if values.shape[0] == n_leads else values.T
    name = os.path.splitext(os.path.basename(path))[0]
    header = physical_header(name, layout.sample_freq, layout.leads, layout.unit, values.shape[1])
    return np.ascontiguousarray(values, np.float64), header


def array_header(
    n_samples: int,
    sample_freq: float,
    leads: Sequence[str],
    unit: str,
    age: float | None = None,
    sex: str | None = None,
) -> Header:
    """The Header of samples in an array, in a unit of their own, from what a user says of them.

    Args:
        n_samples: per lead.
        sample_freq: Hz.
        leads: names of the rows.
        unit: V, mV, uV or nV, of all rows.
        age: years, or None or NaN if unknown.
        sex: Male, Female, M or F in any case, or None if unknown.

    Raises:
        RecordError: rate, age, sex or unit is not one.
    """
    if isinstance(sample_freq, bool) or not isinstance(sample_freq, Real) or not 0 < sample_freq <= MAX_FREQ:
        raise RecordError(f"array: sample_freq {sample_freq!r} is not a rate in Hz, above 0 and up to {MAX_FREQ:g}")
    if not isinstance(unit, str) or unit.lower() not in MILLIVOLTS:
        raise RecordError(f"array: unit {unit!r} is not V, mV, uV or nV")
    age = math.nan if age is None else age
    if not isinstance(age, Real) or not (math.isnan(age) or 0 <= age <= MAX_AGE):
        raise RecordError(f"array: age {age!r} is not a number of years from 0 to {MAX_AGE}, or None")
    if sex is not None and str(sex).lower() not in SEXES:
        raise RecordError(f"array: sex {sex!r} is not Male, Female, M or F, or None")
    sex = None if sex is None else SEXES[str(sex).lower()]
    return physical_header("array", sample_freq, [str(name) for name in leads], unit, n_samples, float(age), sex)


def _check_names(path, names, leads):
    """Raise RecordError if all the names of a file's columns are those of leads, but not of the stated ones in their
    order. Others, such as the V1 ... V12 that R writes of its own, say nothing.
    """
    named = [lead_name(name) for name in names]
    if named and None not in named and named != [lead_name(lead) for lead in leads]:
        raise RecordError(
            f"{path}: its columns are named {' '.join(named)[:200]}, --leads says {' '.join(leads)}: "
            "name in --leads what the columns hold, in that order, or rename the columns if their names are wrong"
        )


# Each returns the values and the names of the columns, () if there are none.


def _read_npy(path):
    return np.load(path, allow_pickle=False), ()


def _read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise RecordError(f"{path}: holds {len(archive.files)} arrays ({', '.join(archive.files)[:200]}), not one")
        return archive[archive.files[0]], ()


def _read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), [])
    has_names = _is_counted(first) or not any(_is_number(text) for text in first)
    values = np.loadtxt(path, delimiter=",", skiprows=int(has_names), encoding="utf-8-sig", ndmin=2)
    return values, [text.lstrip("# ") for text in first] if has_names else ()  # numpy.savetxt begins it with '# '


def _is_counted(first):
    """Whether a line is 0, 1, 2 ..., as pandas names columns without names. A lone 0 may as well be a sample."""
    return len(first) > 1 and first == [str(number) for number in range(len(first))]


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path):
    table = library(path, "pyarrow.parquet", "pyarrow").read_table(path)
    return np.stack([column.to_numpy() for column in table.columns], axis=1), table.column_names


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
