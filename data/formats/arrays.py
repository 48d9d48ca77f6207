"""Arrays: NumPy, CSV and Parquet files, one recording each. They say neither rate nor unit nor leads; a user does."""

import csv
import os
from typing import NamedTuple

import numpy as np

from data.formats.physical import library, physical_header
from data.headers import Header, RecordError
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
        RecordError: it is not a matrix of numbers with so many leads on one side only.
    """
    check_file(path)
    ending = os.path.splitext(path)[1].lower()
    try:
        values = _READERS[ending](path)
    except RecordError:
        raise
    except Exception as error:  # there is no end to what libraries raise on a damaged or foreign file
        raise RecordError(f"{path}: cannot be read as {ending}: {type(error).__name__}: {error}") from error
    n_leads = len(layout.leads)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise RecordError(f"{path}: holds {values.ndim}-dimensional {values.dtype}, not leads x samples of numbers")
    if (values.shape[0] == n_leads) == (values.shape[1] == n_leads):
        raise RecordError(f"{path}: is {values.shape[0]} x {values.shape[1]}, --leads names {n_leads} leads")
    values = values if values.shape[0] == n_leads else values.T
    name = os.path.splitext(os.path.basename(path))[0]
    header = physical_header(name, layout.sample_freq, layout.leads, layout.unit, values.shape[1])
    return np.ascontiguousarray(values, np.float64), header


def _read_npy(path):
    return np.load(path, allow_pickle=False)


def _read_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        if len(archive.files) != 1:
            raise RecordError(f"{path}: holds {len(archive.files)} arrays ({', '.join(archive.files)[:200]}), not one")
        return archive[archive.files[0]]


def _read_csv(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = next(csv.reader(file), [])
    has_names = not any(_is_number(text) for text in first)
    return np.loadtxt(path, delimiter=",", skiprows=int(has_names), encoding="utf-8-sig", ndmin=2)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path):
    table = library(path, "pyarrow.parquet", "pyarrow").read_table(path)
    return np.stack([column.to_numpy() for column in table.columns], axis=1)  # (n_samples, n_leads)


_READERS = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
