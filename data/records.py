"""Recordings on disk: find them, read their headers and their samples."""

import os
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from data.files import FolderError, walk_files
from data.headers import (
    Header,
    Lead,
    RecordError,
    files_named,
    header_path,
    parse_header,
    printable,
    read_header,
    recording_headers,
)
from data.segments import read_segments
from data.signal_files import read_samples

__all__ = [
    "Header",
    "Lead",
    "Record",
    "RecordError",
    "find_records",
    "parse_header",
    "read_header",
    "read_record",
    "record_files",
    "recording_headers",
]


class Record(NamedTuple):
    """One WFDB recording: `path + ending` is its header. Or, with a `fault`, a folder that may hold some."""

    record_id: str
    path: str
    source: str  # folder relative to the one scanned, with forward slashes; '' for that folder itself
    fault: str = ""  # why reading it is in vain
    ending: str = ".hea"  # as it is spelt

    @property
    def name(self) -> str:
        """'source/record_id': unique within a scan, while an id alone may occur in several folders."""
        return f"{self.source}/{self.record_id}" if self.source else self.record_id

    @property
    def header_path(self) -> str:
        return self.path + self.ending


def find_records(folder: str | os.PathLike) -> list[Record]:
    """All recordings below `folder`, at any depth, sorted by source and id.

    Names that begin with a dot are skipped, and so are the segments of a multi-segment record. Linked folders are
    followed, except into one that contains them. A folder below that cannot be listed stands in the list, its id ending
    in '/', and reading it says why: so it is skipped like a recording. Raises RecordError if the folder is missing, is
    not a folder, has too many folders in it, or if no header is found. Characters of a name that cannot be printed are
    escapes in the id and the source.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise RecordError(f"{folder}: {'is not a folder' if os.path.lexists(folder) else 'folder is missing'}")
    records = []
    unlisted = []
    try:
        for listing in walk_files(folder):
            if listing.fault:
                unlisted.append(_unlisted(listing))
                continue
            source = printable(listing.inside)
            prefix = os.path.join(listing.path, "")
            for name in recording_headers(listing.path, listing.names):
                stem = name[:-4]
                records.append(Record(printable(stem), prefix + stem, source, "", name[-4:]))
    except FolderError as error:
        raise RecordError(str(error)) from None
    if not records:
        found = "".join(f"; {record.path}: {record.fault}" for record in unlisted[:1])
        raise RecordError(f"{folder}: holds no WFDB header (*.hea), at any depth{found}")
    records += unlisted
    records.sort(key=attrgetter("source", "record_id"))
    return records


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
    if isinstance(record, Record):
        if record.fault:
            raise RecordError(f"{record.path}: {record.fault}")
        record = record.header_path
    path = os.fspath(record)
    header = read_header(path)
    read = read_segments if header.segments else read_samples
    return read(path[:-4] if path[-4:].lower() == ".hea" else path, header, check_sums)
