"""What is known of a recording before it is read."""

from typing import NamedTuple


class Facts(NamedTuple):
    """What a table beside the recordings says about one of them; it counts more than the recording's own header."""

    age: float  # years, nan if unknown
    sex: str | None  # 'Male', 'Female' or None
    dx: tuple[str, ...]  # diagnosis codes
    warnings: tuple[str, ...] = ()  # what is odd about the row


class Record(NamedTuple):
    """One recording: `path + ending` is its file, a WFDB header unless `format` says otherwise. Or, with a `fault`, a
    folder that may hold some.
    """

    record_id: str
    path: str
    source: str  # folder relative to the one scanned, with forward slashes; '' for that folder itself
    fault: str = ""  # why reading it is in vain
    ending: str = ".hea"  # as it is spelt
    format: str = ""  # the module of data.formats that reads it; '' is WFDB
    part: int | None = None  # row in a file that holds several recordings
    facts: Facts | None = None

    @property
    def name(self) -> str:
        """'source/record_id': unique within a scan, while an id alone may occur in several folders."""
        return f"{self.source}/{self.record_id}" if self.source else self.record_id

    @property
    def header_path(self) -> str:
        return self.path + self.ending
