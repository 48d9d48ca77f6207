"""Recordings on disk: find them, read their headers and their samples."""

import contextlib
import math
import os
from operator import attrgetter

import numpy as np

from data import formats
from data.files import FolderError, Listing, walk_files
from data.formats import mimic
from data.header_files import files_named, header_path, read_header, recording_headers
from data.headers import Header, Lead, RecordError, parse_header, printable
from data.recording import Facts, Record
from data.segments import read_segments
from data.signal_files import read_samples

__all__ = [
    "Facts",
    "Header",
    "Lead",
    "Record",
    "RecordError",
    "find_records",
    "find_with_table_above",
    "parse_header",
    "read_facts_above",
    "read_header",
    "read_record",
    "record_files",
    "record_header",
    "recording_headers",
]

MAX_ABOVE = 3  # folders that are looked through for the table of a data set: above records500/00000/00001_hr, say


def find_records(folder: str | os.PathLike) -> list[Record]:
    """All recordings below `folder`, at any depth, sorted by source and id: WFDB records, and those of data.formats.

    Names that begin with a dot are skipped, and so are the segments of a multi-segment record. Linked folders are
    followed, except into one that contains them. A folder below that cannot be listed stands in the list, its id ending
    in '/', and reading it says why: so it is skipped like a recording. Raises RecordError if the folder is missing, is
    not a folder, has too many folders in it, or if no recording is found.
    Characters of a name that cannot be printed are escapes in the id and the source.

    Where PTB-XL's or CODE-15's table is not inside, the three folders above `folder` are looked through for it, so that
    a part of the data set has the ages, sexes and diagnoses of the whole. The other tables (CPSC 2018, Chapman) say
    which files are recordings, and count inside only.
    """
    return find_with_table_above(folder)[0]


def find_with_table_above(folder: str | os.PathLike) -> tuple[list[Record], str | None]:
    """The same, and the path of the table above `folder` that told of some of them, or None."""
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise RecordError(f"{folder}: {'is not a folder' if os.path.lexists(folder) else 'folder is missing'}")
    records = []
    unlisted = []
    tables = []
    others = []
    try:
        for listing in walk_files(folder, mimic.is_listed):
            if listing.fault:
                unlisted.append(_unlisted(listing))
                continue
            source = printable(listing.inside)
            prefix = os.path.join(listing.path, "")
            found = []
            for name in recording_headers(listing.path, listing.names):
                stem = name[:-4]
                found.append(Record(printable(stem), prefix + stem, source, "", name[-4:]))
            if foreign := formats.foreign_names(listing.names):
                found += formats.records_in(listing, foreign, {record.record_id for record in found})
                tables += formats.tables_in(listing, foreign)
                others += foreign
                if mimic.LIST in foreign:
                    found += mimic.listed_records(listing)
            records += found
        missing = formats.formats_without_table(tables, records)
        above = _tables_from(os.path.dirname(os.path.abspath(folder)), MAX_ABOVE, missing) if missing else []
        if tables or above:
            records = formats.with_tables(folder, tables + above, records)
    except FolderError as error:
        raise RecordError(str(error)) from None
    if not records:
        found = "".join(f"; {record.path}: {record.fault}" for record in unlisted[:1])
        raise RecordError(f"{folder}: {formats.nothing_found(others)}{found}")
    records += unlisted
    records.sort(key=attrgetter("source", "record_id"))
    telling = [table.path for table in above if formats.tells_of(table, records)]
    return records, telling[0] if telling else None


def _unlisted(listing):
    above, _, name = printable(listing.inside).rpartition("/")
    return Record(f"{name or '.'}/", listing.path, above, listing.fault)


def record_files(record: Record) -> list[str]:
    """Paths of all files that decide what a recording holds, its header first: the signal files that the header names,
    and for a multi-segment record its segments' headers and their signal files. They need not exist, nothing is
    refused here, and nothing outside of the record's folder is named.
    """
    if record.fault:
        return [record.path]
    if record.format:
        return [record.header_path]
    folder = os.path.dirname(record.path)
    segmented, names = files_named(record.header_path)
    if not segmented:
        return [record.header_path, *(os.path.join(folder, name) for name in names)]
    paths = [record.header_path]
    for name in names:
        segment = header_path(os.path.join(folder, name))
        nested, files = files_named(segment)
        paths.append(segment)
        paths += [] if nested else [os.path.join(folder, file) for file in files]
    return list(dict.fromkeys(paths))


def read_record(record: Record | str | os.PathLike, check_sums: bool = False) -> tuple[np.ndarray, Header]:
    """Read a recording.

    Args:
        record: A Record, or a path with or without `.hea`.
        check_sums: Whether to compare first values and checksums with those in the header.

    Returns:
        adc (n_leads, n_samples), the stored ADC values, int16 where the file is of format 16; and its Header, which is
        complete: rate and length are those of adc where leads have several samples a frame or the file left the length
        open, a multi-segment record has the leads of its segments, and what was odd stands in `warnings`.

    Raises:
        RecordError: Header or signal files are missing, not valid, or not what the other announces.
    """
    if not isinstance(record, Record):
        record = os.fspath(record)
        record = formats.record_of_file(record) or record
    if not isinstance(record, Record):
        return _read_wfdb(record, check_sums)
    if record.fault:
        raise RecordError(f"{record.path}: {record.fault}")
    adc, header = formats.read_foreign(record) if record.format else _read_wfdb(record.header_path, check_sums)
    return adc, header if record.facts is None else with_facts(header, record.facts)


def _read_wfdb(path, check_sums):
    header = read_header(path)
    read = read_segments if header.segments else read_samples
    return read(path[:-4] if path[-4:].lower() == ".hea" else path, header, check_sums)


def record_header(record: Record) -> Header:
    """The Header of a recording, of WFDB without reading its samples. Raises RecordError."""
    if record.fault or record.format:
        return read_record(record)[1]
    header = read_header(record.header_path)
    return header if record.facts is None else with_facts(header, record.facts)


def with_facts(header: Header, facts: Facts) -> Header:
    """The header with what a table knows, which counts more."""
    return header._replace(
        age=header.age if math.isnan(facts.age) else facts.age,
        sex=facts.sex or header.sex,
        dx=facts.dx or header.dx,
        warnings=header.warnings + facts.warnings,
    )


def read_facts_above(record: Record) -> Record:
    """A single recording with what a table says that lies in its folder or in one of the three above."""
    tables = _tables_from(os.path.dirname(os.path.abspath(record.path)), MAX_ABOVE + 1, formats.TABLES.values())
    return formats.with_tables(None, tables, [record])[0] if tables else record


def _tables_from(folder, n_folders, kinds):
    """The nearest table of each of some formats in a folder and those above it; those that cannot be listed are
    skipped.
    """
    kinds = set(kinds)
    tables = []
    for _ in range(n_folders):
        with contextlib.suppress(OSError):
            found = formats.tables_in(Listing(folder, "", []), sorted(os.listdir(folder)))
            tables += [table for table in found if table.format in kinds]
            kinds -= {table.format for table in found}
        below, folder = folder, os.path.dirname(folder)
        if folder == below:
            break
    return tables
