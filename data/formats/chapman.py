"""Chapman-Shaoxing as first published: ECGData/*.csv with a line of lead names, and Diagnostics.xlsx.

500 Hz, microvolts, as the data set's paper states (Zheng et al., Scientific Data 7, 48, 2020). ECGDataDenoised, which
holds the same ECGs without names of leads, is left out where the originals are there.
"""

import csv
import os

import numpy as np

from data.formats.physical import library, number, physical_header, sex_of
from data.header_comments import known_age
from data.headers import Header, RecordError
from data.leads import lead_name
from data.recording import Facts, Record

SAMPLE_FREQ = 500.0  # Hz
DENOISED = "denoised"  # in the name of the folder that has the same ECGs again
# Acronyms of its rhythms and conditions -> SNOMED CT. VPB and the rest as the data set's later WFDB edition and the
# Challenge 2021 code them; several acronyms share a code there.
CODES = {
    "SB": "426177001",
    "SR": "426783006",
    "AFIB": "164889003",
    "ST": "427084000",
    "AF": "164890007",  # atrial flutter
    "SA": "427393009",
    "SVT": "426761007",
    "AT": "713422000",
    "AVNRT": "251166008",
    "AVRT": "233897008",
    "SAAWR": "195101003",
    "1AVB": "270492004",
    "2AVB": "195042002",
    "2AVB1": "54016002",
    "2AVB2": "426183003",
    "3AVB": "27885002",
    "ABI": "251173003",
    "ALS": "39732003",
    "APB": "284470004",
    "AQW": "164917005",
    "ARS": "47665007",
    "AVB": "233917008",
    "CCR": "251199005",
    "CR": "251198002",
    "ERV": "428417006",
    "FQRS": "164942001",
    "IDC": "698252002",
    "IVB": "698252002",
    "JEB": "426995002",
    "JPT": "251164006",
    "LBBB": "164909002",
    "LBBBB": "164909002",
    "LFBBB": "164909002",
    "LVH": "164873001",
    "LVQRSAL": "251146004",
    "LVQRSCL": "251148003",
    "LVQRSLL": "251147008",
    "MI": "164865005",
    "MIBW": "164865005",
    "MIFW": "164865005",
    "MILW": "164865005",
    "MISW": "164865005",
    "PRIE": "164947007",
    "PWC": "164912004",
    "QTIE": "111975006",
    "RAH": "446358003",
    "RBBB": "59118001",
    "RVH": "89792004",
    "STDD": "429622005",
    "STE": "164930006",
    "STTC": "428750005",
    "STTU": "164931005",
    "TWC": "164934002",
    "TWO": "59931005",
    "UW": "164937009",
    "VB": "11157007",
    "VEB": "75532003",
    "VFW": "13640000",
    "VPB": "17338001",
    "VPE": "195060002",
    "VET": "251180001",
    "WAVN": "195101003",
    "WPW": "74390002",
}
_NOTHING = {"", "NONE", "NAN"}
_COLUMNS = {"filename", "rhythm", "beat"}


def key(record_id: str) -> str | None:
    return record_id


def chosen(records: list[Record]) -> list[Record]:
    """The originals, and of the denoised ECGs those that are not among them."""
    originals = [record for record in records if DENOISED not in record.source.lower()]
    names = {record.record_id for record in originals}
    return originals + [
        record for record in records if DENOISED in record.source.lower() and record.record_id not in names
    ]


def read_table(path: str) -> dict[str, Facts] | None:
    """{recording: Facts} of Diagnostics.xlsx; None if it is another table. Raises RecordError without openpyxl."""
    openpyxl = library(path, "openpyxl", "openpyxl")
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        lines = book.active.iter_rows(values_only=True)
        columns = [str(name or "").strip().lower() for name in next(lines, ())]
        if not _COLUMNS <= set(columns):
            return None
        rows = [dict(zip(columns, line)) for line in lines]
    finally:
        book.close()
    return {str(row["filename"]): _facts(row) for row in rows if row["filename"]}


def _facts(row):
    words = f"{row['rhythm'] or ''} {row['beat'] or ''}".upper().split()
    words = [word for word in words if word not in _NOTHING]
    unknown = [word for word in words if word not in CODES]
    return Facts(
        known_age(number(row.get("patientage"))),
        sex_of(row.get("gender")),
        tuple(dict.fromkeys(CODES[word] for word in words if word in CODES)),
        (f"not known as a diagnosis, left out: {', '.join(unknown)}"[:200],) if unknown else (),
    )


def read(path: str, part: None = None) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) float64 uV, Header. Raises RecordError."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        names = [name.strip() for name in next(csv.reader(file), [])]
    if not any(map(lead_name, names)):
        raise RecordError(f"{path}, line 1: does not name the leads, so their order is unknown")
    values = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T  # (n_leads, n_samples)
    return values, physical_header(
        os.path.splitext(os.path.basename(path))[0], SAMPLE_FREQ, names, "uV", values.shape[1]
    )
