"""Recordings on disk: find them, read their headers and their samples."""

import os
from operator import attrgetter
from typing import NamedTuple

from data.headers import Header, Lead, RecordError, parse_header, printable
from data.signal_files import read_samples, read_segments

__all__ = ['Header', 'Lead', 'Record', 'RecordError', 'find_records', 'parse_header', 'read_header', 'read_record',
           'read_signal']

MAX_HEADER_BYTES = 2**20
MAX_FOLDERS = 100_000  # in a scan: folders that link to each other may have endlessly many paths
# Unbuffered and not blocking: a pipe in place of the file must not stop a scan.
_OPEN = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
_USUAL_HEADER_BYTES = 2**14  # read first, for a buffer of the full size would cost more time than the file


class Record(NamedTuple):
    """One WFDB recording: `path + '.hea'` is its header."""

    record_id: str
    path: str
    source: str  # folder relative to the one scanned, with forward slashes; '' for that folder itself

    @property
    def name(self):
        """'source/record_id': unique within a scan, while an id alone may occur in several folders."""
        return f'{self.source}/{self.record_id}' if self.source else self.record_id


def find_records(folder):
    """All recordings below `folder`, at any depth: list of Record, sorted by source and id.

    Names that begin with a dot are skipped. Linked folders are followed, except into one that contains them. Raises
    RecordError if the folder is missing, is not a folder, cannot be listed, has too many folders in it or holds no header.
    Characters of a name that cannot be printed are escapes in the id and the source.
    """
    folder = os.fspath(folder)
    if not os.path.isdir(folder):
        raise RecordError(f"{folder}: {'is no folder' if os.path.lexists(folder) else 'folder is missing'}")
    records = []
    pending = [(folder, '', ())]
    n_folders = 0
    while pending:
        path, source, above = pending.pop()
        n_folders += 1
        if n_folders > MAX_FOLDERS:
            raise RecordError(f'{folder}: more than {MAX_FOLDERS} folders in it: do links lead from one to another?')
        try:
            subfolders = _scan(path, source, records)
            if subfolders:
                above += (_identity(path),)
            for entry in subfolders:
                if not (entry.is_symlink() and _identity(entry.path) in above):
                    pending.append((entry.path, f'{source}/{entry.name}' if source else entry.name, above))
        except OSError as error:
            raise RecordError(f'{path}: cannot be listed: {error.strerror}') from None
    if not records:
        raise RecordError(f'{folder}: holds no WFDB header (*.hea), at any depth')
    records.sort(key=attrgetter('source', 'record_id'))
    return records


def _scan(path, source, records):
    """Appends the records of one folder; -> its subfolders."""
    subfolders = []
    source = printable(source)
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith('.'):
                continue
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                subfolders.append(entry)
            elif name.endswith('.hea'):  # a broken link as well: reading it will say so, nothing is lost silently
                records.append(Record(printable(name[:-4]), entry.path[:-4], source))
    return subfolders


def _identity(path):
    info = os.stat(path)
    return info.st_dev, info.st_ino


def read_header(path):
    """-> Header of the recording at `path` (with or without `.hea`). Raises RecordError if it is missing or not valid.

    Text is UTF-8 or latin-1, with any line ends and with or without a byte order mark.
    """
    path = _stem(path) + '.hea'
    try:
        file = os.open(path, _OPEN)
        try:
            content = os.read(file, _USUAL_HEADER_BYTES)
            if len(content) == _USUAL_HEADER_BYTES:
                content += os.read(file, MAX_HEADER_BYTES)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise RecordError(f'{path}: header is missing') from None
    except OSError as error:
        raise RecordError(f'{path}: header cannot be read: {error.strerror}') from None
    if not content.strip():
        raise RecordError(f'{path}: header is empty')
    if len(content) > MAX_HEADER_BYTES:
        raise RecordError(f'{path}: header exceeds {MAX_HEADER_BYTES} bytes')
    if b'\0' in content:
        raise RecordError(f'{path}: header holds zero bytes: it is binary or UTF-16, WFDB headers are plain text')
    try:
        text = content.decode('utf-8')
    except UnicodeDecodeError:
        text = content.decode('latin-1')
    if '\r' in text:
        text = text.replace('\r\n', '\n').replace('\r', '\n')
    return parse_header(text.split('\n'), path)


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
    path = _stem(record.path if isinstance(record, Record) else record)
    header = read_header(path)
    if header.segments:
        return read_segments(path, header, read_header)
    adc = read_samples(path, header, warnings)
    return adc, header if header.n_samples else header._replace(n_samples=adc.shape[1])


def _stem(path):
    return os.fspath(path).removesuffix('.hea')
