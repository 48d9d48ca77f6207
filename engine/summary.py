"""driver.py --summary: the answers of a folder as one table, for pandas and spreadsheets."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.files import write_atomically
from data.labels import ClassSet
from data.records import Record
from engine.run_folder import RunError, RunFolder
from engine.score_files import ScoreFileError, read_outputs

RECORD = "record"
DIAGNOSES = "diagnoses"
SEPARATOR = "|"  # where pandas' Series.str.get_dummies splits, and no abbreviation has one


def prepare_summary_file(file: Path) -> None:
    """Make the folder of the table, and refuse, before anything is computed, what could not be written at the end.

    Raises:
        RunError: the name does not end in .csv (so that no recording or model is overwritten by a slip), it is a
            folder, or its folder cannot be made.
    """
    if file.suffix.lower() != ".csv" or file.is_dir():
        raise RunError(f"--summary {file}: name a file that ends in .csv")
    RunFolder(file.parent).create()


def diagnosis_columns(class_set: ClassSet) -> list[str]:
    """A readable and unique name for each class: its diagnosis, else its abbreviation, else its code. A name that
    occurs twice is followed by the code.
    """
    names = zip(class_set.names, class_set.abbreviations, class_set.codes)
    readable = [name or abbreviation or code for name, abbreviation, code in names]
    times = Counter([RECORD, DIAGNOSES, *readable])
    return [name if times[name] == 1 else f"{name} ({code})" for name, code in zip(readable, class_set.codes)]


def write_summary(file: Path, answers: Sequence[tuple[Record, Path]], class_set: ClassSet) -> list[tuple[Record, str]]:
    """Write one row per record: `record` (its name, unique within the folder), `diagnoses` (abbreviations of the
    classes that were called, separated by |; empty where none was) and a column of probabilities for each class.

    The rows are read from the answers' own files, so that those of this call and of earlier ones go the same way.

    Args:
        file: the CSV to be written, whole or not at all.
        answers: records with the file of their answer.
        class_set: of the model; an answer of another model has no place in the table.

    Returns:
        (record, reason) of the answers that are left out, because they cannot be read or have other classes.

    Raises:
        RunError: the table cannot be written.
    """
    abbreviations = [short or code for short, code in zip(class_set.abbreviations, class_set.codes)]
    groups = [(code,) for code in class_set.codes]
    left_out = []
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([RECORD, DIAGNOSES, *diagnosis_columns(class_set)])
    for record, answer in answers:
        try:
            outputs = read_outputs([os.fspath(answer)], groups)
        except ScoreFileError as error:
            left_out.append((record, str(error)))
            continue
        if outputs.malformed or not outputs.has_column.all():
            left_out.append((record, f"{answer}: is not an answer with the classes of this model"))
            continue
        called = SEPARATOR.join(short for short, decided in zip(abbreviations, outputs.y_pred[0]) if decided)
        writer.writerow([record.name, called, *map(repr, outputs.y_score[0].tolist())])
    try:
        write_atomically(file, table.getvalue().encode("utf-8"))
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror}") from error
    return left_out
