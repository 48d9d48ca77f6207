"""Recordings on disk: find them, read their headers and their samples."""

import os
from operator import attrgetter
from typing import NamedTuple

from data.files import open_regular
from data.headers import Header, Lead, RecordError, parse_header, printable
from data.signal_files import read_samples, read_segments

__all__ = [
    "Header",
    "Lead",
    "Record",
    "RecordError",
    "find_records",
    "parse_header",
    "read_header",
    "read_record",
    "read_signal",
]

MAX_HEADER_BYTES = 2**20
MAX_FOLDERS = 100_000  # in a scan: folders that link to each other may have endlessly many paths
_USUAL_HEADER_BYTES = 2**14  # read first, for a buffer of the full size would cost more time than the file


class Record(NamedTuple):
    """One WFDB recording: `path + '.hea'` is its header. Or, with a `fault`, a folder that may hold some."""

    record_id: str
    path: str
    source: str  # folder relative to the one scanned, with forward slashes; '' for that folder itself
    fault: str = ""  # why reading it is in vain

    @property
    def name(self):
        """'source/record_id': unique within a scan, while an id alone may occur in several folders."""
        return f"{self.source}/{self.record_id}" if self.source else self.record_id


def find_records(folder):
    """All recordings below `folder`, at any depth: list of Record, sorted by source and id.

    Names that begin with a dot are skipped. Linked folders are followed, except into one that contains them. A folder
    below that cannot be listed stands in the list, its id ending in '/', and reading it says why: so it is skipped
    like a recording. Raises RecordError if the folder is missing, is not a folder, has too many folders in it, or if
    no header is found. Characters of a name that cannot be printed are escapes in the id and the source.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise RecordError(f"{folder}: {'is no folder' if os.path.lexists(folder) else 'folder is missing'}")
    records, unlisted = [], []
    pending = [(folder, "", ())]
    n_folders = 0
    while pending:
        path, source, above = pending.pop()
        n_folders += 1
        if n_folders > MAX_FOLDERS:
            raise RecordError(f"{folder}: more than {MAX_FOLDERS} folders in it: do links lead from one to another?")
        try:
            identity = _identity(path)
            if identity not in above:
                pending += [
                    (entry.path, f"{source}/{entry.name}" if source else entry.name, above + (identity,))
                    for entry in _scan(path, source, records)
                ]
        except OSError as error:
            above_it, _, name = printable(source).rpartition("/")
            unlisted.append(Record(f"{name or '.'}/", path, above_it, f"folder cannot be listed: {error.strerror}"))
    if not records:
        found = "".join(f"; {record.path}: {record.fault}" for record in unlisted[:1])
        raise RecordError(f"{folder}: holds no WFDB header (*.hea), at any depth{found}")
    records += unlisted
    records.sort(key=attrgetter("source", "record_id"))
    return records


def _scan(path, source, records):
    """Appends the records of one folder; -> its subfolders."""
    subfolders = []
    source = printable(source)
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                subfolders.append(entry)
            elif name.endswith(".hea"):  # a broken link as well: reading it will say so, nothing is lost silently
                records.append(Record(printable(name[:-4]), entry.path[:-4], source))
    return subfolders


def _identity(path):
    info = os.stat(path)
    return info.st_dev, info.st_ino


def read_header(path):
    """-> Header of the recording at `path` (with or without `.hea`). Raises RecordError if it is missing or not valid.

    Text is UTF-8 or latin-1, with any line ends and with or without a byte order mark.
    """
    path = _stem(path) + ".hea"
    try:
        file = open_regular(path)
        try:
            content = os.read(file, _USUAL_HEADER_BYTES)
            if len(content) == _USUAL_HEADER_BYTES:
                content += os.read(file, MAX_HEADER_BYTES)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise RecordError(f"{path}: header is missing") from None
    except OSError as error:
        raise RecordError(f"{path}: header cannot be read: {error.strerror}") from None
    if not content.strip():
        raise RecordError(f"{path}: header is empty")
    if len(content) > MAX_HEADER_BYTES:
        raise RecordError(f"{path}: header exceeds {MAX_HEADER_BYTES} bytes")
    if b"\0" in content:
        raise RecordError(f"{path}: header holds zero bytes: it is binary or UTF-16, WFDB headers are plain text")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        return parse_header(text.split("\n"), path)
    except RecordError:
        if os.path.realpath(path).endswith(".hea"):
            raise
        raise RecordError(
            f"{path}: is a link to a file that is no valid header"
        ) from None  # and its content is shown to nobody


def read_signal(path, header, warnings=None):
    """-> adc (n_leads, n_samples): the stored ADC values, int16 where the file is of format 16.

    Args: path of the record, without extension; its Header; `warnings`, a list that receives a text per lead whose
    stored first value or checksum is not that of the samples read (the check is made only if a list is given).

    Raises RecordError if a signal file is missing, is shorter (or, in format 16, longer) than the header announces,
    lies outside the folder, or is no file that WFDB knows.
    """
    path = _stem(path)
    if header.segments:
        return read_segments(path, header, read_header)[0]
    return read_samples(path, header, warnings)


def read_record(record, warnings=None):
    """-> adc (n_leads, n_samples), Header, of a Record or a path without extension. Errors as in `read_signal`.

    The header is complete: the length is filled in where the file left it open, and a multi-segment record, put
    together, has the leads of its segments.
    """
    if isinstance(record, Record):
        if record.fault:
            raise RecordError(f"{record.path}: {record.fault}")
        record = record.path
    path = _stem(record)
    header = read_header(path)
    if header.segments:
        return read_segments(path, header, read_header)
    adc = read_samples(path, header, warnings)
    return adc, header if header.n_samples else header._replace(n_samples=adc.shape[1])


def _stem(path):
    return os.fspath(path).removesuffix(".hea")
