"""Header files: found among the names of a folder, opened and read; data.headers understands their lines."""

import os
import re

from data.files import link_note, open_regular, pointer_note
from data.headers import Header, RecordError, is_plain_name, parse_header, without_byte_order_mark

MAX_HEADER_BYTES = 2**20
SIGNAL_ENDINGS = ".mat", ".dat"  # of a signal file that has the name of its record
_USUAL_HEADER_BYTES = 2**14  # read first, for a buffer of the full size would cost more time than the file
_HEADER_ENDINGS = ".hea", ".HEA"  # tried where a record is named without
_SEGMENTED_RECORD = re.compile(r"[^\s/\\]+/\d{1,9}", re.ASCII)


def recording_headers(path: str | os.PathLike, names: list[str]) -> list[str]:
    """Those of the file names in the folder `path` that are headers of recordings: the one rule for which files are.

    A header ends in `.hea`, in small or capital letters. The segments and the layout header of a multi-segment record
    are no recordings of their own as long as the header that names them lies beside them. A broken link or an
    unreadable header counts: reading it will say so, and nothing is lost silently.

    Headers are opened only where they may name segments: where no signal file has their name, or where another header's
    name is theirs and an underscore more. So nothing is opened in the folders of the Challenges.
    """
    headers = [name for name in names if name.endswith(".hea") or name[-4:].lower() == ".hea"]
    with_signal = {name[:-4] for name in names if name.endswith(SIGNAL_ENDINGS)}
    stems = {name[:-4] for name in headers}
    roots = {stem.rpartition("_")[0] for stem in stems if "_" in stem}
    suspects = (stems - with_signal) | (stems & roots)
    multi_segment = set()
    segments = set()
    for name in headers if suspects else ():
        if name[:-4] in suspects:
            segmented, named = files_named(os.path.join(path, name))
            if segmented:
                multi_segment.add(name[:-4])
                segments.update(named)
    segments -= multi_segment  # one that names itself or another such record is found, and refused with its reason
    return [name for name in headers if name[:-4] not in segments] if segments else headers


def header_path(path: str | os.PathLike) -> str:
    """File of the header of the record at `path`, which is given with or without its ending, `.hea` in any case."""
    path = _with_ending(path)
    if not os.path.lexists(path):
        for ending in _HEADER_ENDINGS:
            if os.path.lexists(path[:-4] + ending):
                return path[:-4] + ending
    return path


def _with_ending(path):
    path = os.fspath(path)
    return path if path[-4:].lower() == ".hea" else path + ".hea"


def read_header(path: str | os.PathLike) -> Header:
    """-> Header of the record at `path` (with or without `.hea`). Raises RecordError if it is missing or not valid.

    Text is UTF-8 or latin-1, with any line ends and with or without a byte order mark. Links are followed.
    """
    path = _with_ending(path)
    try:
        return parse_header(_read_lines(path), path)
    except RecordError as error:
        other = header_path(path)
        if other != path:
            return read_header(other)
        raise RecordError(f"{error}{link_note(path)}") from None


def files_named(path: str | os.PathLike) -> tuple[bool, list[str]]:
    """What the header file at `path` names, read in a fraction of the time of parsing it and never an error:
    (whether that are segments, their names or those of the signal files).
    """
    try:
        lines = _read_lines(os.fspath(path))
    except RecordError:
        return False, []
    words = [line.split(None, 1)[0] for line in lines if line and not line.isspace()]
    words = [word for word in words if word[0] != "#"]
    if not words:
        return False, []
    segmented = _SEGMENTED_RECORD.fullmatch(without_byte_order_mark(words[0])) is not None
    return segmented, [name for name in dict.fromkeys(words[1:]) if name != "~" and is_plain_name(name)]


def _read_lines(path):
    """Lines of a header file; what cannot be one is a RecordError."""
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
    if note := pointer_note(content):
        raise RecordError(f"{path}: header {note}")
    if b"\0" in content:
        raise RecordError(f"{path}: header holds zero bytes: it is binary or UTF-16, WFDB headers are plain text")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n")
