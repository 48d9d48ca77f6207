"""MIMIC-IV-ECG as it is downloaded: WFDB records in a folder each, too many to be walked, and record_list.csv.

The list says where the recordings lie (`path`) and whose they are (`subject_id`, read by data.metadata). The leads, aVF
before aVL, are placed by name as everywhere.
"""

import csv
import os

from data.files import Listing
from data.headers import RecordError, printable
from data.recording import Record

LIST = "record_list.csv"
_COLUMNS = {"subject_id", "path"}


def is_listed(path: str, names: list[str]) -> bool:
    """Whether a folder has the list: its columns are those of MIMIC-IV-ECG."""
    if LIST not in names:
        return False
    try:
        with open(os.path.join(path, LIST), newline="", encoding="utf-8-sig") as file:
            return _COLUMNS <= set(next(csv.reader(file), ()))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def listed_records(listing: Listing) -> list[Record]:
    """The recordings of the list that are there; if some are not, one that says so. None if it is another list."""
    if not is_listed(listing.path, listing.names):
        return []
    file_path = os.path.join(listing.path, LIST)
    records = []
    missing = []
    with open(file_path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            inside = row["path"] or ""
            folder, _, name = inside.rpartition("/")
            if not name or os.path.isabs(inside) or ".." in folder.split("/"):
                raise RecordError(f"{file_path}, line {reader.line_num}: path {inside[:80]!r} is not one below")
            path = os.path.join(listing.path, inside)
            if os.path.lexists(path + ".hea"):
                source = printable("/".join(part for part in (listing.inside, folder) if part))
                records.append(Record(printable(name), path, source))
            else:
                missing.append(inside)
    if missing:
        fault = f"names {len(missing)} recordings that are not there, e.g. {missing[0]}: were they downloaded?"
        records.append(Record(f"{LIST}/", file_path, printable(listing.inside), fault))
    return records
