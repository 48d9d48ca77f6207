"""PTB-XL as it is downloaded: WFDB records without age, sex and diagnoses, which stand in ptbxl_database.csv.

Its patients, folds and heart axes are read from the same table by data.metadata, its two rates are told apart by
data.rates.
"""

import ast
import csv
import re

from data.formats.physical import number
from data.header_comments import known_age
from data.headers import RecordError
from data.recording import Facts
from data.statements import PREFIX, diagnosis_codes, statements

_NAME = re.compile(r"(\d{5})_(?:lr|hr)")
_SEXES = {0.0: "Male", 1.0: "Female"}


def key(record_id: str) -> str | None:
    """'00001' of 00001_hr or 00001_lr; None for the names of other recordings."""
    match = _NAME.fullmatch(record_id)
    return match and match[1]


def read_table(path: str) -> dict[str, Facts]:
    """{ecg_id with five digits: Facts}. Raises RecordError, naming file and line."""
    rows = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"ecg_id", "scp_codes"} - set(reader.fieldnames or ())
        if missing:
            raise RecordError(f"{path}, line 1: PTB-XL's table needs the column {' and '.join(sorted(missing))}")
        try:
            for row in reader:
                rows[f"{int(float(row['ecg_id'])):05d}"] = _facts(row)
        except (ValueError, SyntaxError, TypeError, csv.Error) as error:
            raise RecordError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def _facts(row):
    codes = ast.literal_eval(row["scp_codes"])
    if not isinstance(codes, dict) or not all(isinstance(acronym, str) for acronym in codes):
        raise ValueError(f"scp_codes {row['scp_codes'][:80]!r} is not a dict of statements")
    unknown = [acronym for acronym in codes if acronym not in statements()]
    warnings = (f"scp_codes holds what is not one of PTB-XL's statements: {', '.join(unknown)}"[:200],)
    return Facts(
        known_age(number(row.get("age", ""))),
        _SEXES.get(number(row.get("sex", ""))),
        tuple(code for code in diagnosis_codes(codes, row.get("heart_axis") or "") if code != PREFIX),
        warnings if unknown else (),
    )


def compare_statements(path: str) -> list[str]:
    """What PTB-XL's own scp_statements.csv says otherwise than the table of this repository, a line a difference.

    Raises RecordError if it is another table.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = {"", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"}
    if not rows or columns - set(rows[0]):
        raise RecordError(f"{path}, line 1: PTB-XL's statements need the columns {', '.join(sorted(columns))}")
    lines = []
    theirs = {row[""]: row for row in rows}
    for acronym in sorted(theirs.keys() ^ statements().keys()):
        lines.append(f"statement {acronym} is only in {path if acronym in theirs else 'the table of this repository'}")
    for acronym in sorted(theirs.keys() & statements().keys()):
        row, own = theirs[acronym], statements()[acronym]
        diagnostic = bool(number(row["diagnostic"]) == 1)
        pairs = {
            "diagnostic_class": (row["diagnostic_class"] if diagnostic else "", own.superclass),
            "diagnostic_subclass": (row["diagnostic_subclass"] if diagnostic else "", own.subclass),
            "form": (number(row["form"]) == 1, own.is_form),
            "rhythm": (number(row["rhythm"]) == 1, own.is_rhythm),
        }
        lines += [
            f"statement {acronym}: {column} is {there!r} in {path}, {here!r} here"
            for column, (there, here) in pairs.items()
            if there != here
        ]
    return lines
