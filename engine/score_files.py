"""Label headers and output CSVs -> arrays for the scorer, quickly.

The organisers' rules hold wherever their script gives an answer: blank lines and lines starting with # do not count;
an output file needs three lines (classes, decisions, scores) of equally many fields, and any other counts as all
negative; only 1, True, true, T and t are positive; what is no number scores 0; columns that mean one class are
positive if any is, and score their mean; unknown classes are ignored, missing ones are negative. Where that script
crashes or mixes up recordings, ours reads on: `# Dx:`, several Dx lines (all count), nested folders.
"""

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.files import open_regular
from data.headers import printable
from data.labels import CPSC2018, NOT_A_DIAGNOSIS

DX_LINE = re.compile(rb"\n[ \t]*#[ \t]*[Dd][Xx][ \t]*:([^\n]*)")
POSITIVE = frozenset(("1", "True", "true", "T", "t"))
BLOCK = 1 << 16
MAX_BYTES = 1 << 24  # of a label header or an output file
MAX_FOLDERS = 100_000  # folders that link to each other may have endlessly many paths


class ScoreFileError(Exception):
    """Labels or outputs cannot be scored; the message names the file and the fault."""


@dataclass(frozen=True)
class Pairs:
    """Label headers, the output file of each, and the diagnoses of each (lists of codes or names)."""

    headers: list
    outputs: list
    dx: list

    @property
    def textual(self):
        """Whether the labels are the first phase's: some of its nine names, and no SNOMED CT code anywhere."""
        words = {word for dx in self.dx for word in dx}
        return bool(words & set(CPSC2018)) and not any(word.isdigit() for word in words)


def find_pairs(label_folder, output_folder):
    """Pairs of all `.hea` files under `label_folder` (hidden ones skipped, sorted) with their CSV files: at the same
    place under `output_folder`, or at its top where no other recording has the same id. Raises ScoreFileError.
    """
    label_folder, output_folder = Path(label_folder), Path(output_folder)
    for folder in (label_folder, output_folder):
        if not folder.is_dir():
            raise ScoreFileError(f"{folder} is not a folder")
    headers = [name for name in _files(label_folder) if name.lower().endswith(".hea")]
    if not headers:
        raise ScoreFileError(f"{label_folder}: no label files (.hea)")
    present = set(_files(output_folder))
    stems = [printable(name[: -len(".hea")]) for name in headers]  # as driver.py names its answers
    ids = [stem.rpartition("/")[2] for stem in stems]
    n_records = Counter(ids)
    outputs = []
    for header, stem, record_id in zip(headers, stems, ids):
        places = [f"{stem}.csv"] + [f"{record_id}.csv"] * (n_records[record_id] == 1)
        found = next((place for place in places if place in present), None)
        if found is None:
            raise ScoreFileError(
                f"{output_folder / places[0]}: no output file for the label file {label_folder / header}"
            )
        outputs.append(f"{output_folder}/{found}")
    headers = [f"{label_folder}/{name}" for name in headers]
    return Pairs(headers, outputs, [_read_dx(header) for header in headers])


def read_labels(dx_lists, groups):
    """Diagnoses of R recordings -> (R, C) bool, one column per group of equivalent codes."""
    table = {code: column for column, group in enumerate(groups) for code in group}
    places = [(row, table[code]) for row, dx in enumerate(dx_lists) for code in dx if code in table]
    y_true = np.zeros((len(dx_lists), len(groups)), bool)
    y_true[tuple(np.array(places, int).reshape(-1, 2).T)] = True
    return y_true


def read_outputs(paths, groups):
    """Output files of R recordings -> decisions (R, C) bool, scores (R, C) float64, and the paths of malformed files,
    which are all negative.
    """
    tables, malformed = defaultdict(list), []  # line of classes -> [(row, line of decisions, line of scores)]
    for row, path in enumerate(paths):
        lines = [line for line in _lines(path) if line and not line.isspace() and not line.lstrip().startswith("#")]
        if len(lines) < 3 or len({line.count(",") for line in lines}) > 1:
            malformed.append(path)
        else:
            tables[lines[0]].append((row, lines[1], lines[2]))
    y_pred = np.zeros((len(paths), len(groups)), bool)
    y_score = np.zeros((len(paths), len(groups)))
    for classes, table in tables.items():
        names = [name.strip() for name in classes.split(",")]
        rows, decisions, scores = zip(*table)
        rows = np.array(rows)  # (r,)
        decisions = _decisions(decisions).reshape(-1, len(names))  # (r, k)
        scores = _numbers(scores).reshape(-1, len(names))  # (r, k)
        for column, group in enumerate(groups):
            places = [place for place, name in enumerate(names) if name in group]
            if places:
                y_pred[rows, column] = decisions[:, places].any(axis=1)
                y_score[rows, column] = _mean_of_numbers(scores[:, places])
    return y_pred, y_score, malformed


def read_first_phase(pairs):
    """Pairs with textual labels -> classes (sorted: all that stand in labels or outputs), y_true, y_pred (R, C) bool
    and y_score (R, C). The first phase's files have the recording in the first line, then classes, decisions and
    scores; its scorer accepts nothing else, so any other file raises ScoreFileError.
    """
    tables = [_read_strictly(path) for path in pairs.outputs]
    classes = {word for dx in pairs.dx for word in dx if word.casefold() not in NOT_A_DIAGNOSIS}
    classes = sorted(classes.union(*(names for names, _, _ in tables)))
    groups = [(name,) for name in classes]
    y_pred, y_score = np.zeros((2, len(tables), len(classes)))
    for row, (names, decisions, scores) in enumerate(tables):
        if len(names) != len(set(names)) or set(names) != set(classes):
            raise ScoreFileError(
                f"{pairs.outputs[row]}: the classes must be {','.join(classes)}, not {','.join(names)}"
            )
        order = [names.index(name) for name in classes]
        y_pred[row], y_score[row] = np.array(decisions)[order], np.array(scores)[order]
    return groups, read_labels(pairs.dx, groups), y_pred > 0, y_score


def _read_strictly(path):
    lines = [line for line in _lines(path)[1:4] if line.strip()]
    fields = [[field.strip() for field in line.split(",")] for line in lines]
    if len(fields) != 3 or len({len(line) for line in fields}) > 1:
        raise ScoreFileError(f"{path}: lines 2 to 4 must hold classes, decisions and scores, equally many")
    try:
        decisions, scores = [int(field) != 0 for field in fields[1]], list(map(float, fields[2]))
    except ValueError as error:
        raise ScoreFileError(f"{path}: a decision or score is no number ({error})") from None
    if np.isnan(scores).any():
        raise ScoreFileError(f"{path}: a score is NaN")
    return fields[0], decisions, scores


def _files(folder):
    """Relative paths ('/' between folders) of the files under a folder, sorted, hidden ones skipped. Linked folders are
    followed, except into one that contains them."""
    names, pending, n_folders = [], [("", ())], 0
    while pending:
        inside, above = pending.pop()
        n_folders += 1
        if n_folders > MAX_FOLDERS:
            raise ScoreFileError(f"{folder}: more than {MAX_FOLDERS} folders in it: do links lead from one to another?")
        above += (_identity(folder / inside),)
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                linked = entry.is_symlink() and os.path.isdir(entry.path)
                if linked and _identity(entry.path) in above:
                    continue
                if linked or entry.is_dir(follow_symlinks=False):
                    pending.append((f"{inside}{entry.name}/", above))
                else:
                    names.append(inside + entry.name)
    return sorted(names)


def _identity(path):
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _read(path):
    """Bytes of a file, line ends made uniform. Half of the scorer's time goes into opening files: plain system calls
    take a third of what a file object does.
    """
    try:
        descriptor = open_regular(path)
        try:
            data = part = os.read(descriptor, BLOCK)
            while len(part) == BLOCK:
                if len(data) > MAX_BYTES:
                    raise ScoreFileError(f"{path} has more than {MAX_BYTES} bytes")
                part = os.read(descriptor, BLOCK)
                data += part
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ScoreFileError(f"{path} cannot be read: {error.strerror}") from None
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _read_dx(path):
    found = DX_LINE.findall(b"\n" + _read(path))
    if not found:
        raise ScoreFileError(f"{path}: no line with the diagnoses (#Dx: ...)")
    return [code.strip() for line in found for code in line.decode("utf-8", "replace").split(",")]


def _lines(path):
    return _read(path).decode("utf-8", "replace").split("\n")


def _decisions(lines):
    """Lines of comma-separated decisions -> one bool per field."""
    text = ",".join(lines)
    marks = np.frombuffer(text.encode(), np.uint8)
    yes, no = marks[::2] == ord("1"), marks[::2] == ord("0")
    if (
        len(marks) % 2 and (yes | no).all() and (marks[1::2] == ord(",")).all()
    ):  # single digits and commas in turn, as nearly all write them
        return yes
    return np.array([field.strip() in POSITIVE for field in text.split(",")])


def _numbers(lines):
    """Lines of comma-separated scores -> one float per field; 0 for a field that is no number."""
    fields = ",".join(lines).split(",")
    try:
        return np.array(list(map(float, fields)))
    except ValueError:
        return np.array([_number(field) for field in fields])


def _number(field):
    try:
        return float(field)
    except ValueError:
        return 0.0


def _mean_of_numbers(values):
    """(r, k) -> (r,) mean of what is not NaN; 0 where nothing is, or where infinities cancel."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(np.isnan(means), 0, means)
