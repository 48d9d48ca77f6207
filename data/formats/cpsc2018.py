"""CPSC 2018 as its organisers published it: MATLAB files with a struct ECG (sex, age, data), and REFERENCE.csv.

500 Hz, millivolts, the twelve leads in standard order, as the organisers state. REFERENCE.csv names up to three
labels, 1 to 9.
"""

import csv
import os

import numpy as np
from scipy.io import loadmat

from data.formats.physical import number, physical_header, sex_of
from data.headers import Header, RecordError
from data.labels import CPSC2018
from data.leads import LEADS
from data.recording import Facts

SAMPLE_FREQ = 500.0  # Hz
# The order of the labels 1 to 9: normal, AF, I-AVB, LBBB, RBBB, PAC, PVC, STD, STE.
LABELS = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")


def key(record_id: str) -> str | None:
    return record_id


def read_table(path: str) -> dict[str, Facts] | None:
    """{recording: Facts} of REFERENCE.csv; None if it is another table. Raises RecordError for a label that is none."""
    rows = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        columns = [name.strip().lower() for name in next(reader, [])]
        if columns[:2] != ["recording", "first_label"]:
            return None
        for row in filter(None, reader):
            labels = [text.strip() for text in row[1:4] if text.strip() and text.strip().lower() != "nan"]
            codes = []
            for label in labels:
                value = number(label)
                if not (value.is_integer() and 1 <= value <= len(LABELS)):
                    raise RecordError(f"{path}, line {reader.line_num}: label {label!r} is not 1 to {len(LABELS)}")
                codes.append(CPSC2018[LABELS[int(value) - 1]][0])
            rows[row[0].strip()] = Facts(float("nan"), None, tuple(codes))
    return rows


def read(path: str, part: None = None) -> tuple[np.ndarray, Header]:
    """-> values (12, n_samples) float64 mV, Header. Raises RecordError."""
    content = loadmat(path, variable_names=["ECG"], squeeze_me=True, struct_as_record=True)
    if "ECG" not in content or not {"data", "sex", "age"} <= set(content["ECG"].dtype.names or ()):
        raise RecordError(f"{path}: holds no struct ECG with sex, age and data")
    ecg = content["ECG"]
    values = np.asarray(ecg["data"].item(), np.float64)  # (12, n_samples)
    if values.ndim != 2 or values.shape[0] != len(LEADS):
        raise RecordError(f"{path}: ECG.data is {values.shape}, not {len(LEADS)} leads x samples")
    name = os.path.splitext(os.path.basename(path))[0]
    return values, physical_header(
        name,
        SAMPLE_FREQ,
        LEADS,
        "mV",
        values.shape[1],
        number(ecg["age"].item()),
        sex_of(ecg["sex"].item()),
    )
