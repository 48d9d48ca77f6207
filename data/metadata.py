"""Facts of recordings from a table beside them: whose they are, which fold, whether the heart axis was looked at.

A row belongs to the recording that it names, by any of these:

    record, filename_hr, filename_lr   its name, with or without folders and ending: R00, R00.hea, ./a/R00
    ecg_id                             PTB-XL's number n: HR0000n, 0000n_hr, 0000n_lr, or n itself

Capitals, spaces and hyphens in the names of columns do not matter. Columns are separated by commas, semicolons or tabs.
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data.record_names import NameIndex

NAME_COLUMNS = ("record", "filename_hr", "filename_lr")
FACT_COLUMNS = ("patient_id", "strat_fold", "heart_axis")
OTHER_WORDS = {
    "record_id": "record",
    "record_name": "record",
    "recording": "record",
    "filename": "record",
    "file_name": "record",
    "exam_id": "record",
    "patient": "patient_id",
    "patientid": "patient_id",
    "subject_id": "patient_id",
}
MISSING = {"", "nan", "na", "n/a", "<na>", "none", "null"}  # how tables say that they do not know
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
ENOUGH = 0.9  # share of the recordings with a row, below which a warning is due
N_EXAMPLES = 3
NO_FOLD = -1  # not a number that a table may hold: 0 is the first fold of scikit-learn


@dataclass(frozen=True)
class Metadata:
    """Facts of R recordings beside their headers, one row per recording in the order asked for."""

    patients: np.ndarray  # (R,) str: recordings with one of these never stand on both sides of a split
    folds: np.ndarray  # (R,) int, NO_FOLD where the table does not know it
    axis_unknown: np.ndarray  # (R,) bool, the heart axis was not annotated (an empty `heart_axis` field)
    patient_ids: np.ndarray  # (R,) str as in the table, the recording's own name where it has none
    found: np.ndarray  # (R,) bool, the table has a row for the recording
    file: str | None = None
    columns: tuple[str, ...] = ()  # of the table
    warnings: tuple[str, ...] = ()  # lines to be shown once

    def __len__(self) -> int:
        return len(self.patients)


def read_metadata(
    file: str | os.PathLike | None, names: Sequence[str], duplicates: Sequence[Sequence[str]] = ()
) -> Metadata:
    """Read what a table says about recordings. Without a table every recording is a patient of its own.

    Args:
        file: the table, or None.
        names: R names 'source/record_id'.
        duplicates: groups of these names whose signals are identical (`SignalCache.duplicates`): those, and all
            recordings of their patients, count as one patient.

    Returns:
        Metadata, its `warnings` still to be shown.

    Raises:
        ValueError: naming file and line, if the table has no column that is needed, if none of its rows names a
            recording, if a row may mean several recordings, or if two rows contradict each other.
    """
    if file is None:
        none = np.zeros(len(names), bool)
        own = np.array(names, str)
        return Metadata(_joined(own, names, duplicates), np.full(len(names), NO_FOLD), none, own, none)
    columns, rows = _read_table(Path(file))
    facts = _facts_of_recordings(file, rows, names, duplicates)
    patient_ids = np.array([row.get("patient_id") or name for row, name in zip(facts, names)], str)
    metadata = Metadata(
        patients=_joined(patient_ids, names, duplicates),
        folds=np.array([NO_FOLD if row.get("strat_fold", "") == "" else row["strat_fold"] for row in facts], int),
        axis_unknown=np.array([row.get("heart_axis") == "" for row in facts], bool),
        patient_ids=patient_ids,
        found=np.array([bool(row) for row in facts], bool),
        file=str(file),
        columns=columns,
    )
    return replace(metadata, warnings=tuple(_warnings(metadata, rows, names)))


@dataclass(frozen=True)
class _Row:
    line: int
    names: tuple[str, ...]  # what it calls the recording
    number: int | None  # PTB-XL's ecg_id
    facts: dict  # {column of FACT_COLUMNS: value}, "" where the table does not know it

    @property
    def title(self) -> str:
        return self.names[0] if self.names else f"ecg_id {self.number}"


def _read_table(file: Path) -> tuple[tuple[str, ...], list[_Row]]:
    """Names of the columns, and the rows."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is not a text in UTF-8 ({error}); save it as 'CSV UTF-8'") from None
    delimiter, columns = _header(file, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows, seen_header = [], False
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if not any(fields):
                continue
            if not seen_header:
                seen_header = True
                continue
            if len(fields) > len(columns):
                raise ValueError(f"has {len(fields)} fields for {len(columns)} columns")
            rows.append(_row(reader.line_num, dict(zip(columns, fields))))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{file}: has a line of columns, but no rows")
    return columns, rows


def _header(file: Path, text: str) -> tuple[str, tuple[str, ...]]:
    """Delimiter and columns, the ones that make the first line a header with the columns that are needed."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    found = {}
    try:
        for delimiter in DELIMITERS:
            found[delimiter] = _columns(next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), []))
    except csv.Error as error:
        raise ValueError(f"{file}, line 1: {error}") from None
    fitting = [d for d, columns in found.items() if _is_sufficient(columns)]
    if len(fitting) > 1:
        kinds = " or ".join(DELIMITERS[delimiter] for delimiter in fitting)
        raise ValueError(f"{file}, line 1: columns may be separated by {kinds}; use only one of them")
    if not fitting:
        most = max(found.values(), key=len)
        raise ValueError(
            f"{file}, line 1: needs a column that names the recording ({', '.join(NAME_COLUMNS)} or ecg_id) and one of "
            f"{', '.join(FACT_COLUMNS)}; its columns are: {', '.join(most)[:500] or 'none'}"
        )
    columns = found[fitting[0]]
    known = {*NAME_COLUMNS, *FACT_COLUMNS, "ecg_id"}
    twice = sorted(name for name in known if columns.count(name) > 1)
    if twice:
        raise ValueError(f"{file}, line 1: has two columns {twice[0]!r}")
    return fitting[0], columns


def _columns(fields: Sequence[str]) -> tuple[str, ...]:
    """Names of columns in lower case, with underscores, and in the words that are known here."""
    names = [re.sub(r"[\s-]+", "_", field.strip().casefold()) for field in fields]
    return tuple(name if OTHER_WORDS.get(name, name) in names else OTHER_WORDS.get(name, name) for name in names)


def _is_sufficient(columns: Sequence[str]) -> bool:
    return bool({*NAME_COLUMNS, "ecg_id"} & set(columns)) and bool(set(FACT_COLUMNS) & set(columns))


def _row(line: int, fields: dict) -> _Row:
    known = {name: "" if value.casefold() in MISSING else value for name, value in fields.items()}
    names = [known[column] for column in NAME_COLUMNS if known.get(column)]
    number = None
    ecg_id = known.get("ecg_id", "")
    if re.fullmatch(r"\d{1,9}(\.0*)?", ecg_id, re.ASCII):  # 7, 00007, and 7.0 as tables with gaps write it
        number = int(ecg_id.partition(".")[0])
    elif ecg_id:
        names.append(ecg_id)
    if not names and number is None:
        raise ValueError("the row does not name a recording")
    facts = {column: known[column] for column in FACT_COLUMNS if column in known}
    if facts.get("strat_fold"):
        facts["strat_fold"] = _fold(facts["strat_fold"])
    return _Row(line, tuple(names), number, facts)


def _fold(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}(\.0*)?", text, re.ASCII):
        raise ValueError(f"strat_fold {text[:40]!r} is not a whole number")
    return int(text.partition(".")[0])


def _facts_of_recordings(file, rows: Sequence[_Row], names: Sequence[str], duplicates) -> list[dict]:
    """What the rows say about each recording: R dictionaries, empty where there is no row."""
    index = NameIndex(names)
    copies = {name: group for group, members in enumerate(duplicates) for name in members}
    facts, source = [{} for _ in names], [None] * len(names)
    for row in rows:
        for hits in _hits(row, index):
            if len(hits) > 1 and len({copies.get(names[i], names[i]) for i in hits}) > 1:
                shown = " or ".join(names[i] for i in hits[:N_EXAMPLES])
                raise ValueError(
                    f"{file}, line {row.line}: {row.title!r} may mean {shown}; write the name with its folder"
                )
            for i in hits:
                if source[i] is not None and source[i] is not row:
                    _check_same(file, names[i], source[i], row)
                facts[i] = {**row.facts, **{column: value for column, value in facts[i].items() if value != ""}}
                source[i] = source[i] or row
    if rows and not any(source):
        raise ValueError(
            f"{file}: none of its {len(rows)} rows names one of the {len(names)} recordings. It has e.g. "
            f"{_examples(row.title for row in rows)}; the recordings are e.g. {_examples(names)}. Write these names "
            f"into a column 'record', or name another file with --metadata"
        )
    return facts


def _hits(row: _Row, index: NameIndex) -> Iterator[list[int]]:
    """For each way in which the row names recordings, the recordings that it may mean."""
    names = list(row.names)
    if row.number is not None:
        names += [f"HR{row.number:05d}", f"{row.number:05d}_hr", f"{row.number:05d}_lr"]
    found = [hits for name in names if (hits := index.rows(name))]
    if not found and row.number is not None:  # a bare number may mean anything, so it is the last resort
        plain = {str(row.number), f"{row.number:05d}"}
        found = [hits for name in sorted(plain) if (hits := index.rows(name))]
    yield from found


def _check_same(file, name: str, row: _Row, other: _Row) -> None:
    for column in FACT_COLUMNS:
        mine, theirs = row.facts.get(column, ""), other.facts.get(column, "")
        if mine != theirs and mine != "" and theirs != "":
            raise ValueError(
                f"{file}, lines {row.line} and {other.line}: {name} has {column} {mine!r} and {theirs!r}; keep one row"
            )


def _warnings(metadata: Metadata, rows: Sequence[_Row], names: Sequence[str]) -> Iterator[str]:
    n_found = int(metadata.found.sum())
    if n_found < ENOUGH * len(names) and not _is_of_some_sources(metadata, rows, names):
        index = NameIndex(names)
        without = _examples(name for name, found in zip(names, metadata.found) if not found)
        unused = _examples(row.title for row in rows if not any(_hits(row, index)))
        yield (
            f"{metadata.file} has a row for {n_found} of {len(names)} recordings only. Without a row: {without}; "
            f"rows that name no recording: {unused or 'none'}"
        )
    if "patient_id" not in metadata.columns:
        yield f"{metadata.file} has no column patient_id: every recording counts as a patient of its own"


def _is_of_some_sources(metadata: Metadata, rows: Sequence[_Row], names: Sequence[str]) -> bool:
    """Whether the table is meant for some of the folders: it has a row for every recording of these, and no other."""
    if len(rows) != metadata.found.sum():
        return False
    sources = np.array([name.rpartition("/")[0] for name in names])
    return not np.isin(sources[~metadata.found], sources[metadata.found]).any()


def _examples(names) -> str:
    shown = []
    for name in names:
        if len(shown) == N_EXAMPLES:
            return ", ".join([*shown, "..."])
        shown.append(repr(name))
    return ", ".join(shown)


def _joined(patients: np.ndarray, names: Sequence[str], duplicates: Sequence[Sequence[str]]) -> np.ndarray:
    """Patients (R,) where all that are linked by identical signals have one name, the first in the alphabet. Links
    reach further: if a recording of p equals one of q, and another of q equals one of r, all three are one.
    """
    if not duplicates:
        return patients
    row_of = {name: row for row, name in enumerate(names)}
    unique, patient = np.unique(patients, return_inverse=True)  # (P,) sorted, (R,)
    links = [(patient[row_of[group[0]]], patient[row_of[name]]) for group in duplicates for name in group[1:]]
    one, other = np.array(links).T
    graph = coo_array((np.ones(len(links)), (one, other)), shape=(len(unique), len(unique)))
    _, component = connected_components(graph, directed=False)  # (P,)
    first = np.unique(component, return_index=True)[1]  # of each component the first patient
    return unique[first[component]][patient]
