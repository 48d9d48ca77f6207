"""Label headers and output CSVs -> arrays for the scorer, quickly.

The organisers' rules hold wherever their script gives an answer: blank lines and lines starting with # do not count;
an output file needs three lines (classes, decisions, scores) of equally many fields, and any other counts as all
negative; only 1, True, true, T and t are positive; what is not a number scores 0; columns that mean one class are
positive if any is, and score their mean; unknown classes are ignored, missing ones are negative. Where that script
crashes or mixes up recordings, ours reads on: `# Dx:`, several Dx lines (all count), nested folders, multi-segment
recordings (one label, one output). What was read and did not count is kept for `engine.score_checks`.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from data.files import FolderError, Listing, open_regular, walk_files
from data.header_files import recording_headers
from data.headers import printable
from data.labels import CPSC2018, NOT_A_DIAGNOSIS

DX_LINE = re.compile(rb"\n[ \t]*#[ \t]*[Dd][Xx][ \t]*:([^\n]*)")
POSITIVE = frozenset(("1", "True", "true", "T", "t"))
NEGATIVE = frozenset(("0", "False", "false", "F", "f"))
BLOCK = 1 << 16
MAX_BYTES = 1 << 24  # of a label header or an output file

Groups = Sequence[tuple[str, ...]]  # equivalent names of each column


class ScoreFileError(Exception):
    """Labels or outputs cannot be scored; the message names the file and the fault."""

    def __init__(self, message: str):
        super().__init__(printable(message))


@dataclass(frozen=True)
class Pairs:
    """Label headers, the output file of each, and the diagnoses of each (lists of codes or names); `unlabelled` are the
    CSV files that belong to no label header, relative to the output folder.
    """

    headers: list[str]
    outputs: list[str]
    dx: list[list[str]]
    unlabelled: list[str]

    @property
    def textual(self) -> bool:
        """Whether the labels are the first phase's: some of its nine names, and no SNOMED CT code anywhere."""
        words = {word for dx in self.dx for word in dx}
        return bool(words & set(CPSC2018)) and not any(word.isdigit() for word in words)

    def diagnoses(self) -> Counter:
        """How often each diagnosis stands in the labels; unknown ones do not count."""
        times = Counter(chain.from_iterable(self.dx))
        return Counter({word: n for word, n in times.items() if word.casefold() not in NOT_A_DIAGNOSIS})


@dataclass
class Outputs:
    """What R output files say about C classes."""

    y_pred: np.ndarray  # (R, C) bool
    y_score: np.ndarray  # (R, C) float64
    has_column: np.ndarray  # (R, C) bool: whether the file has a column of the class
    names: Counter = field(default_factory=Counter)  # {name of a column: number of files with it}
    malformed: list[str] = field(default_factory=list)  # paths; these files are all negative
    odd_decisions: list[tuple[str, str]] = field(default_factory=list)  # (path, field) that is neither 0 nor 1
    odd_scores: list[tuple[str, str]] = field(default_factory=list)  # (path, field) that is not a number


def find_pairs(label_folder: str | Path, output_folder: str | Path) -> Pairs:
    """Pairs of all recordings under `label_folder` (hidden ones skipped, sorted) with their CSV files: at the same
    place under `output_folder`, or at its top where no other recording has the same id. What is a recording is the rule
    of `data.header_files.recording_headers`, as for the driver. Raises ScoreFileError.
    """
    label_folder, output_folder = Path(label_folder), Path(output_folder)
    for folder in (label_folder, output_folder):
        if not folder.is_dir():
            raise ScoreFileError(f"{folder} is not a folder")
    labels = _read_headers(label_folder)
    headers = sorted(labels)
    if not headers:
        raise ScoreFileError(f"{label_folder}: no label files (.hea)")
    present = {_relative(listing, name) for listing in _listings(output_folder) for name in listing.names}
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
        outputs.append(found)
    unlabelled = sorted(name for name in present.difference(outputs) if _is_output(output_folder / name))
    for header in headers:
        if labels[header] is None:
            raise ScoreFileError(f"{label_folder / header}: no line with the diagnoses (#Dx: ...)")
    return Pairs(
        [f"{label_folder}/{name}" for name in headers],
        [f"{output_folder}/{name}" for name in outputs],
        [labels[name] for name in headers],
        unlabelled,
    )


def _read_headers(folder: Path) -> dict[str, list[str] | None]:
    """{header relative to the folder: its diagnoses, or None where it has no line of them} of all recordings below."""
    labels = {}
    for listing in _listings(folder):
        names = [name for name in listing.names if name[-4:].lower() == ".hea"]
        texts = {name: _read(f"{listing.path}/{name}") for name in names}
        # The rule opens every header without a signal file beside it, and labels often lie without. All are read here
        # anyway, so that it is only asked where one of them may name segments: that saves a sixth of the scorer's time.
        if any(_may_name_segments(text) for text in texts.values()):
            names = recording_headers(listing.path, listing.names)
        labels |= {_relative(listing, name): _diagnoses(texts[name]) for name in names}
    return labels


def read_labels(dx_lists: Iterable[Iterable[str]], groups: Groups) -> np.ndarray:
    """Diagnoses of R recordings -> (R, C) bool, one column per group of equivalent codes."""
    dx_lists = list(dx_lists)
    table = {code: column for column, group in enumerate(groups) for code in group}
    places = [(row, table[code]) for row, dx in enumerate(dx_lists) for code in dx if code in table]
    y_true = np.zeros((len(dx_lists), len(groups)), bool)
    y_true[tuple(np.array(places, int).reshape(-1, 2).T)] = True
    return y_true


def read_outputs(paths: Sequence[str], groups: Groups) -> Outputs:
    """What R output files say, one column per group of equivalent codes. Files with the same line of classes, nearly
    always all of them, are parsed together.
    """
    tables, malformed = defaultdict(list), []  # line of classes -> [(row, line of decisions, line of scores)]
    for row, path in enumerate(paths):
        lines = [line for line in _lines(path) if line and not line.isspace() and not line.lstrip().startswith("#")]
        if len(lines) < 3 or len({line.count(",") for line in lines}) > 1:
            malformed.append(path)
        else:
            tables[lines[0]].append((row, lines[1], lines[2]))
    shape = (len(paths), len(groups))
    outputs = Outputs(np.zeros(shape, bool), np.zeros(shape), np.zeros(shape, bool), malformed=malformed)
    for classes, table in tables.items():
        names = [name.strip() for name in classes.split(",")]
        rows, decisions, scores = zip(*table)
        files = [paths[row] for row in rows]
        y_pred, odd = _decisions(decisions)
        outputs.odd_decisions += [(files[place // len(names)], text) for place, text in odd]
        y_pred = y_pred.reshape(-1, len(names))  # (r, k)
        y_score, odd = _numbers(scores)
        outputs.odd_scores += [(files[place // len(names)], text) for place, text in odd]
        y_score = y_score.reshape(-1, len(names))  # (r, k)
        outputs.names.update(dict.fromkeys(names, len(rows)))
        rows = np.array(rows)  # (r,)
        for column, group in enumerate(groups):
            places = [place for place, name in enumerate(names) if name in group]
            if places:
                outputs.has_column[rows, column] = True
                outputs.y_pred[rows, column] = y_pred[:, places].any(axis=1)
                outputs.y_score[rows, column] = _mean_of_numbers(y_score[:, places])
    return outputs


def read_first_phase(pairs: Pairs) -> tuple[list[str], Outputs]:
    """Outputs for textual labels -> (classes, what the files say about them). The classes are all that stand in labels
    or outputs, sorted. The first phase's files have the recording in the first line, then classes, decisions and
    scores; its scorer accepts nothing else, so any other file raises ScoreFileError.
    """
    tables = [_read_strictly(path) for path in pairs.outputs]
    names = Counter(name for table in tables for name in table.names)
    classes = sorted({*pairs.diagnoses(), *names})
    if not names.keys() & {*pairs.diagnoses(), *CPSC2018}:  # codes, say: listing what is missing would say less
        raise ScoreFileError(nothing_shared(pairs.diagnoses(), names))
    shape = (len(tables), len(classes))
    outputs = Outputs(np.zeros(shape, bool), np.zeros(shape), np.ones(shape, bool), names)
    for row, table in enumerate(tables):
        if len(table.names) != len(set(table.names)) or set(table.names) != set(classes):
            raise ScoreFileError(
                f"{pairs.outputs[row]}: the classes must be {','.join(classes)}, not {','.join(table.names)}"
            )
        order = [table.names.index(name) for name in classes]
        outputs.y_pred[row] = np.array(table.decisions)[order]
        outputs.y_score[row] = np.array(table.scores)[order]
    return classes, outputs


@dataclass(frozen=True)
class _Table:
    """One output file of the first phase: k classes, their decisions and scores."""

    names: list[str]
    decisions: list[bool]
    scores: list[float]


def _read_strictly(path):
    lines = [line for line in _lines(path)[1:4] if line.strip()]
    fields = [[word.strip() for word in line.split(",")] for line in lines]
    if len(fields) != 3 or len({len(line) for line in fields}) > 1:
        raise ScoreFileError(f"{path}: lines 2 to 4 must hold classes, decisions and scores, equally many")
    try:
        decisions = [int(word) != 0 for word in fields[1]]
        scores = [float(word) for word in fields[2]]
    except ValueError as error:
        raise ScoreFileError(f"{path}: a decision or score is not a number ({error})") from None
    if np.isnan(scores).any():
        raise ScoreFileError(f"{path}: a score is NaN")
    return _Table(fields[0], decisions, scores)


def nothing_shared(diagnoses: Counter, names: Counter) -> str:
    """Message for labels and outputs that have no class in common, from how often each occurs."""
    if not names:
        return "no output file is well-formed: three lines are needed, classes, decisions and scores, comma-separated"
    if not diagnoses:
        return "no label file has a diagnosis (#Dx): there is nothing to score"
    return (
        f"labels and outputs share no class: the labels have {_some(diagnoses)}, the outputs {_some(names)}. "
        "Both must name classes by SNOMED CT code, or both as in the Challenge's first phase (AF, I-AVB, ...)"
    )


def _some(words, n=3):
    """The most frequent of the words, for a message."""
    shown = ", ".join(word[:80] for word, _ in words.most_common(n))
    return f"{shown}, ..." if len(words) > n else shown


def _listings(folder: Path) -> Iterator[Listing]:
    """The walk through a folder, in which everything must be readable: a score over the rest would look fine."""
    try:
        for listing in walk_files(folder):
            if listing.fault:
                raise ScoreFileError(f"{listing.path}: {listing.fault}")
            yield listing
    except FolderError as error:
        raise ScoreFileError(str(error)) from None


def _relative(listing, name):
    return f"{listing.inside}/{name}" if listing.inside else name


def _is_output(path):
    """Whether a file begins as output files do; what lies beside them (lists, tables, scores) begins otherwise."""
    if not path.name.endswith(".csv"):
        return False
    try:
        with open(path, "rb", opener=open_regular) as file:
            return file.read(1) == b"#"
    except OSError:
        return False  # nobody asked for it


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


def _may_name_segments(header):
    """Whether a header may be that of a multi-segment record, which has a slash in its first line but for comments."""
    first = header.partition(b"\n")[0].strip()
    return b"/" in first or not first or first.startswith(b"#")


def _diagnoses(header):
    found = DX_LINE.findall(b"\n" + header)
    if not found:
        return None
    return [code.strip() for line in found for code in line.decode("utf-8", "replace").split(",")]


def _lines(path):
    return _read(path).decode("utf-8", "replace").split("\n")


def _decisions(lines):
    """Lines of comma-separated decisions -> one bool per field, and [(place, field)] of those that are neither yes nor
    no.
    """
    text = ",".join(lines)
    marks = np.frombuffer(text.encode(), np.uint8)
    yes = marks[::2] == ord("1")
    no = marks[::2] == ord("0")
    # Single digits and commas in turn, as nearly all files have them, need no splitting.
    if len(marks) % 2 and (yes | no).all() and (marks[1::2] == ord(",")).all():
        return yes, []
    fields = [word.strip() for word in text.split(",")]
    odd = [(place, word) for place, word in enumerate(fields) if word not in POSITIVE and word not in NEGATIVE]
    return np.array([word in POSITIVE for word in fields]), odd


def _numbers(lines):
    """Lines of comma-separated scores -> one float per field, 0 where it is not a number, and [(place, field)] of
    those and of NaN.
    """
    fields = ",".join(lines).split(",")
    try:
        values = np.array(list(map(float, fields)))
        odd = np.flatnonzero(np.isnan(values))
    except ValueError:
        numbers = [_number(word) for word in fields]
        odd = [place for place, number in enumerate(numbers) if number is None or np.isnan(number)]
        values = np.array([0.0 if number is None else number for number in numbers])
    return values, [(int(place), fields[place].strip()) for place in odd]


def _number(word):
    try:
        return float(word)
    except ValueError:
        return None


def _mean_of_numbers(values):
    """(r, k) -> (r,) mean of what is not NaN; 0 where nothing is, or where infinities cancel."""
    is_number = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means = np.where(is_number, values, 0).sum(axis=1) / np.maximum(is_number.sum(axis=1), 1)
    return np.where(np.isnan(means), 0, means)
