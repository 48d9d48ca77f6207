"""Recordings in other formats than WFDB, found by what lies in the folder; one module a format.

A module whose files hold recordings has

    read(path, part)        -> values (n_leads, n_samples), Header
    parts(path)             -> {record id: part}, if a file holds several
    is_own(stem, names)     whether a file is one of them, given those beside it, if its ending is not enough

and one of a data set with a table beside its recordings

    read_table(path)        -> {key: Facts}, or None if the file is another of that name
    key(record_id)          -> what the table calls a recording, or None where it cannot mean it
    chosen(records)         those to be read, if the data set has ECGs twice

Libraries are imported when a recording is read, for most data need none.
"""

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np

from data.files import Listing, walk_files
from data.headers import Header, RecordError, printable
from data.recording import Facts, Record
from data.signal_files import check_file

WFDB_ENDINGS = {".hea", ".mat", ".dat"}
FILES = {".edf": "edf", ".bdf": "edf", ".dcm": "dicom", ".hdf5": "code15", ".h5": "code15"}  # {ending: format}
ARRAYS = (".npy", ".npz", ".parquet")  # say neither rate nor unit: data.convert reads them
TABLES = {  # {name of the file in small letters: format}
    "ptbxl_database.csv": "ptbxl",
    "exams.csv": "code15",
    "reference.csv": "cpsc2018",
    "diagnostics.xlsx": "chapman",
}
LISTED_FILES = {"cpsc2018": ".mat", "chapman": ".csv"}  # are recordings where the table of their data set names them
TABLE_OF_WFDB = "ptbxl"  # the one table that belongs to WFDB records


class TableFile(NamedTuple):
    """A table that was found in a folder of recordings."""

    format: str
    path: str
    inside: str  # its folder relative to the one walked


def module_of(format: str) -> ModuleType:
    return import_module(f"data.formats.{format}")


def foreign_names(names: Iterable[str]) -> list[str]:
    """Those of a folder's files that are not WFDB's."""
    return [name for name in names if name[-4:] not in WFDB_ENDINGS]


def tables_in(listing: Listing, names: Iterable[str]) -> list[TableFile]:
    """The tables among some files of a folder."""
    found = [(TABLES.get(name.lower()), name) for name in names]
    return [TableFile(format, os.path.join(listing.path, name), listing.inside) for format, name in found if format]


def records_in(listing: Listing, names: Iterable[str], taken: set[str]) -> list[Record]:
    """The recordings among some files of a folder; where an id is taken, the ending is part of it."""
    records = []
    for name in sorted(names):
        stem, ending = os.path.splitext(name)
        format = FILES.get(ending.lower())
        if format and _is_own(format, stem, names):
            records += _records_of_file(listing, stem, ending, format)
    for place, record in enumerate(records):
        if record.record_id in taken:
            records[place] = record._replace(record_id=record.record_id + record.ending)
        taken.add(records[place].record_id)
    return records


def _is_own(format, stem, names):
    module = module_of(format)
    return not hasattr(module, "is_own") or module.is_own(stem, names)


def _records_of_file(listing: Listing, stem: str, ending: str, format: str) -> list[Record]:
    path = os.path.join(listing.path, stem)
    whole = Record(printable(stem), path, printable(listing.inside), ending=ending, format=format)
    if not hasattr(module_of(format), "parts"):
        return [whole]
    try:
        parts = _opened(format, whole.header_path, "parts")
    except RecordError as error:
        return [whole._replace(fault=str(error).removeprefix(f"{path}: "))]
    return [whole._replace(record_id=record_id, part=part) for record_id, part in parts.items()]


def formats_without_table(tables: Sequence[TableFile], records: Sequence[Record]) -> set[str]:
    """Formats that some records may be of whose table is not among these; not those whose table tells what a recording
    is.
    """
    missing = set(TABLES.values()) - set(LISTED_FILES) - {table.format for table in tables}
    return {format for format in missing if _may_name_some(format, records)}


def _may_name_some(format, records):
    """Whether the table of a format may have rows for some records."""
    key, own = module_of(format).key, _own(format)
    return any(record.format == own and key(record.record_id) is not None for record in records)


def _own(format):
    """`Record.format` of those that the table of a format tells of."""
    return "" if format == TABLE_OF_WFDB else format


def tells_of(table: TableFile, records: Sequence[Record]) -> bool:
    """Whether a table, the only one of its format, told of some records."""
    return any(record.facts is not None and record.format == _own(table.format) for record in records)


def with_tables(folder: str | None, tables: Sequence[TableFile], records: list[Record]) -> list[Record]:
    """The recordings with what tables say of them, and those that only a table tells from other files.

    Args:
        folder: where these are looked for; None: nowhere.
        tables: what `tables_in` found.
        records: that are recordings without a table.
    """
    by_format = {}
    for table in tables:
        by_format.setdefault(table.format, []).append(table)
    for format, found in by_format.items():
        module = module_of(format)
        own = _own(format)
        if format not in LISTED_FILES and not _may_name_some(format, records):
            continue
        rows = []
        for table in found:
            try:
                if contents := _opened(format, table.path, "read_table"):
                    rows.append((table.inside, contents))
            except RecordError as error:
                if format not in LISTED_FILES:
                    raise
                fault = str(error).removeprefix(f"{table.path}: ")  # it may be another's table: the rest goes on
                name = printable(os.path.basename(table.path))
                records = [*records, Record(f"{name}/", table.path, printable(table.inside), fault)]
        if not rows:
            continue
        if format in LISTED_FILES and folder is not None:
            records = records + _listed_records(folder, format, rows)
        records = [
            record._replace(facts=_facts(record, module, rows)) if record.format == own else record
            for record in records
        ]
    return records


def nothing_found(names: Sequence[str]) -> str:
    """What to say of a folder without a recording, given its files that are not WFDB's."""
    text = "holds no WFDB header (*.hea), at any depth"
    arrays = [name for name in names if name.lower().endswith(ARRAYS)]
    if not arrays:
        return text
    return (
        f"{text}, but arrays such as {arrays[0]!r}, which say neither rate nor unit: "
        f"python -m data.convert IN OUT --sample_freq_in HZ --unit mV --leads I II III ... writes them as WFDB"
    )


def _listed_records(folder, format, rows):
    """Records of the files that one of the tables names."""
    ending = LISTED_FILES[format]
    named = {key for _, table in rows for key in table}
    records = []
    for listing in walk_files(folder):
        names = set(listing.names)
        for name in listing.names:
            stem = name[: -len(ending)]
            if name.lower().endswith(ending) and stem in named and f"{stem}.hea" not in names:
                path = os.path.join(listing.path, stem)
                records.append(Record(stem, path, printable(listing.inside), "", name[-len(ending) :], format))
    return getattr(module_of(format), "chosen", list)(records)


def _facts(record: Record, module: ModuleType, tables: Sequence[tuple[str, dict[str, Facts]]]) -> Facts | None:
    """What the nearest of some tables says of a recording."""
    key = module.key(record.record_id)
    known = [(os.path.commonprefix([inside, record.source]), rows[key]) for inside, rows in tables if key in rows]
    return max(known, key=lambda pair: len(pair[0]))[1] if known else None


def record_of_file(path: str) -> Record | None:
    """The Record of a file in another format than WFDB; None if its ending is not that of one."""
    stem, ending = os.path.splitext(path)
    format = FILES.get(ending.lower())
    return format and Record(printable(os.path.basename(stem)), stem, "", ending=ending, format=format)


def read_foreign(record: Record) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) in the units of the Header. Raises RecordError."""
    check_file(record.header_path)
    return _opened(record.format, record.header_path, "read", record.part)


def _opened(format, path, function, *args):
    try:
        return getattr(module_of(format), function)(path, *args)
    except (RecordError, MemoryError):
        raise
    except Exception as error:  # there is no end to what libraries raise on a damaged or foreign file
        raise RecordError(f"{path}: cannot be read as {format}: {type(error).__name__}: {error}") from error
