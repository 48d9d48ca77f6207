"""PTB-XL's SCP statements: what they are called, what they mean in SNOMED CT, and the class sets of its benchmark.

`ptbxl_statements.csv` has the 71 statements with the groups of the data set's paper (Wagner et al., Scientific Data 7,
154, 2020, tables 6 to 8) and the SNOMED CT code that the Challenge 2020 assigns. A statement counts with any
likelihood, 0 included, which PTB-XL writes where the report gives none: so do the Challenge and the benchmark
(Strodthoff et al., IEEE J Biomed Health Inform 25, 1519, 2021). Ten statements have no code (DIG, EL, ANEUR, HVOLT,
PRC(S) and the five of subendocardial injury).
"""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).resolve().parent / "ptbxl_statements.csv"
PREFIX = "scp:"  # before a statement among the diagnosis codes of a recording, where SNOMED CT codes stand too
TASKS = ("all", "diagnostic", "subdiagnostic", "superdiagnostic", "form", "rhythm")
AXES = {  # {heart_axis: SNOMED CT code of the deviation}
    "LAD": "39732003",
    "ALAD": "39732003",
    "RAD": "47665007",
    "ARAD": "47665007",
    "AXL": "251200008",
    "AXR": "251200008",
    "SAG": "251200008",
}
SUPERCLASSES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST-T changes",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
SUBCLASSES = {
    "LAFB/LPFB": "left anterior or posterior fascicular block",
    "_AVB": "AV block",
    "AMI": "anterior myocardial infarction, anteroseptal and anterolateral included",
    "IMI": "inferior myocardial infarction, inferolateral and inferoposterior included",
    "STTC": "other ST-T changes",
    "ISCA": "ischemic changes in anterior leads",
    "ISCI": "ischemic changes in inferior leads",
}


class Statement(NamedTuple):
    """A row of the table."""

    name: str
    superclass: str  # '' if it is not diagnostic
    subclass: str
    is_form: bool
    is_rhythm: bool
    snomed: str  # '' if the Challenge has no code for it


@cache
def statements() -> dict[str, Statement]:
    """{acronym: Statement} of all 71, diagnostic ones first."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        return {
            row["statement"]: Statement(
                row["name"], row["superclass"], row["subclass"], row["form"] == "1", row["rhythm"] == "1", row["snomed"]
            )
            for row in csv.DictReader(file)
        }


def task_classes(task: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Classes of one of the benchmark's TASKS: {class: (what it is called, acronyms that it stands for)}."""
    table = statements()
    if task in ("subdiagnostic", "superdiagnostic"):
        field, names = ("subclass", SUBCLASSES) if task == "subdiagnostic" else ("superclass", SUPERCLASSES)
        groups = {}
        for acronym, statement in table.items():
            if getattr(statement, field):
                groups.setdefault(getattr(statement, field), []).append(acronym)
        return {
            group: (names[group] if group in names else table[group].name, tuple(members))
            for group, members in groups.items()
        }
    belongs = {
        "all": lambda statement: True,
        "diagnostic": lambda statement: bool(statement.superclass),
        "form": lambda statement: statement.is_form,
        "rhythm": lambda statement: statement.is_rhythm,
    }[task]
    return {acronym: (row.name, (acronym,)) for acronym, row in table.items() if belongs(row)}


def diagnosis_codes(acronyms: Iterable[str], heart_axis: str = "") -> tuple[str, ...]:
    """Diagnoses of a recording: the Challenge's SNOMED CT codes for its statements and its heart axis, then the
    statements themselves with PREFIX, those too that the table does not know.
    """
    acronyms = list(acronyms)
    table = statements()
    codes = [table[acronym].snomed for acronym in acronyms if acronym in table]
    codes.append(AXES.get(heart_axis, ""))
    return tuple(dict.fromkeys([code for code in codes if code] + [PREFIX + acronym for acronym in acronyms]))
