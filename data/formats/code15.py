"""CODE-15 % (and SaMi-Trop) as downloaded: HDF5 files with `tracings` (N, 4096, 12) and `exam_id`, and exams.csv.

400 Hz, leads in the order below. The tracings are twice the millivolts: their producers wrote them with a scale of 2.
Shorter exams are padded with zeros on both sides, which are cut off.
"""

import csv
from collections.abc import Sequence

import numpy as np

from data.formats.physical import library, number, physical_header
from data.header_comments import known_age
from data.headers import Header, RecordError
from data.leads import LEADS
from data.recording import Facts

SAMPLE_FREQ = 400.0  # Hz
SCALE = 2.0  # of the tracings, per mV
CODES = {
    "1davb": "270492004",
    "rbbb": "59118001",
    "lbbb": "164909002",
    "sb": "426177001",
    "st": "427084000",
    "af": "164889003",
    "normal_ecg": "426783006",  # a normal ECG has a sinus rhythm, as the Challenges code it
}
_TRUE = {"true", "1", "1.0"}
_SEXES = {"true": "Male", "1": "Male", "1.0": "Male", "false": "Female", "0": "Female", "0.0": "Female"}


def key(record_id: str) -> str | None:
    """The exam's number, which is the recording's name."""
    return record_id if record_id.isdigit() else None


def is_own(stem: str, names: Sequence[str]) -> bool:
    """Whether an HDF5 file is one of these: others may lie among recordings, such as the weights of a network."""
    return stem.lower().startswith("exams") or "exams.csv" in names


def parts(path: str) -> dict[str, int]:
    """{exam_id: row}. The files end with a row that is no exam, number 0. Raises RecordError."""
    with _open(path) as file:
        tracings = file["tracings"]
        if tracings.ndim != 3 or tracings.shape[2] != len(LEADS):
            raise RecordError(f"{path}: tracings are {tracings.shape}, not exams x samples x {len(LEADS)} leads")
        if "exam_id" not in file:
            return {f"{row}": row for row in range(len(tracings))}
        numbers = file["exam_id"][: len(tracings)]
        return {str(int(exam)): row for row, exam in enumerate(numbers) if int(exam)}


def read(path: str, part: int | None) -> tuple[np.ndarray, Header]:
    """-> values (12, n_samples) float64 mV, Header. Raises RecordError."""
    if part is None:
        raise RecordError(f"{path}: holds many recordings: name its folder")
    with _open(path) as file:
        tracing = np.asarray(file["tracings"][part], np.float64).T / SCALE  # (12, 4096)
    used = np.flatnonzero(tracing.any(axis=0))
    if len(used):
        tracing = tracing[:, used[0] : used[-1] + 1]
    return tracing, physical_header(f"{path}, row {part}", SAMPLE_FREQ, LEADS, "mV", tracing.shape[1])


def _open(path):
    return library(path, "h5py", "h5py").File(path, "r")


def read_table(path: str) -> dict[str, Facts] | None:
    """{exam_id: Facts} of exams.csv; None if it is another table. Columns that are absent are unknown."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = {name: name.strip().lower() for name in reader.fieldnames or ()}
        if "exam_id" not in columns.values():
            return None
        rows = {}
        for row in reader:
            row = {columns[name]: (value or "").strip() for name, value in row.items() if name in columns}
            codes = tuple(code for name, code in CODES.items() if row.get(name, "").lower() in _TRUE)
            age = known_age(number(row.get("age", "")))
            sex = _SEXES.get(row.get("is_male", "").lower())
            rows[row["exam_id"].partition(".")[0]] = Facts(age, sex, codes)
        return rows
