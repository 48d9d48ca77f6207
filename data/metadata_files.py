"""Which table beside recordings is read where none is named. data.metadata says what stands in it."""

import csv
import os
from pathlib import Path

DOWNLOADED = {  # tables of data sets as they are downloaded, with a column that tells them from others of the name
    "ptbxl_database.csv": "ecg_id",
    "record_list.csv": "subject_id",
    "exams.csv": "exam_id",
}


def find_table(folder: str | os.PathLike) -> Path | None:
    """The table that is read where none is named: metadata.csv in the folder, or that of a data set as it is
    downloaded, in the folder or, where they hold only one of them, in one of its folders.
    """
    folder = Path(folder)
    if (folder / "metadata.csv").is_file():
        return folder / "metadata.csv"
    for places in ([folder], sorted(place for place in folder.iterdir() if place.is_dir())):
        found = [place / name for place in places for name in DOWNLOADED if _is_downloaded(place / name)]
        if len(found) == 1:
            return found[0]
    return None


def may_find_table(folder: str | os.PathLike, table: str | os.PathLike) -> bool:
    """Whether a table with this path may be one that was found by itself for a folder, by its name and place: neither
    needs to be there any more. A data set's table may also lie above the folder, where a part of it was named.
    """
    folder, table = Path(folder), Path(table)
    if table.name == "metadata.csv":
        return table.parent == folder
    if table.name not in DOWNLOADED:
        return False
    return folder in (table.parent, table.parent.parent) or table.parent in Path(os.path.abspath(folder)).parents


def _is_downloaded(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            return DOWNLOADED[file.name] in next(csv.reader(lines), ())
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
