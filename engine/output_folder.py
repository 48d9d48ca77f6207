"""The folder that driver.py writes into: whether and where an answer may be written, and the lists beside them.

    OUT/ID.csv                the answer for one recording; OUT/SUBFOLDER/ID.csv where several sub-folders have the ID
    OUT/skipped_records.csv   record, stage, reason: recordings without an answer
    OUT/record_warnings.txt   record, warning: what is suspicious about readable recordings
    OUT/.answered_by.json     fingerprints of the models that answered there

A list is absent where there is nothing to list.
"""

import contextlib
import csv
import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np

from data.files import open_regular
from data.headers import printable
from data.labels import ClassSet
from data.records import Record
from engine.distributed import ProcessGroup
from engine.run_folder import RunError, RunFolder

SKIPPED = "skipped_records.csv"
WARNINGS = "record_warnings.txt"
ANSWERED_BY = ".answered_by.json"
JOURNAL = ".record_warnings.partial"  # what a call that is killed leaves of the second list; of process N with .N

# Errors that concern the name of one file: the others can still be written, so the driver goes on.
UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


def answer_files(records: Sequence[Record], folder: str | Path) -> list[Path]:
    """Where each record's answer goes: FOLDER/ID.csv, or FOLDER/SUBFOLDER/ID.csv if the ID occurs more than once."""
    times = Counter(record.record_id for record in records)
    names = [record.record_id if times[record.record_id] == 1 else record.name for record in records]
    return [Path(folder, f"{name}.csv") for name in names]


def answer_text(record_id: str, classes: Sequence[str], y_pred: np.ndarray, y_score: np.ndarray) -> str:
    """The Challenge's four lines.

    Args:
        record_id: the recording's name, which the first line carries.
        classes: names of the C columns.
        y_pred: (C,) bool or 0/1.
        y_score: (C,) probabilities; written with every digit, so that reading them gives the same numbers.
    """
    decisions = ",".join(str(int(label)) for label in y_pred)
    scores = ",".join(repr(float(score)) for score in y_score)
    return f"#{record_id}\n{','.join(classes)}\n{decisions}\n{scores}\n"


@contextlib.contextmanager
def open_share(path: str | Path, class_set: ClassSet, rank: int) -> Iterator["OutputFolder"]:
    """The `OutputFolder` of a process that helps the main one, which holds the lock and has begun; `share_out` tells
    it what to do.
    """
    output = OutputFolder(RunFolder(path, writer=f".{rank}"), [], class_set, set())
    with output.writing(f"{JOURNAL}.{rank}"):
        yield output


@contextlib.contextmanager
def open_output_folder(
    path: str | Path,
    records: Sequence[Record],
    class_set: ClassSet,
    model: str,
    skip_existing: bool = False,
    summary: Path | None = None,
) -> Iterator["OutputFolder"]:
    """An `OutputFolder` into which nobody else writes until the block ends.

    Args:
        path: the folder; it is made if it is not there.
        records: all recordings that were asked for.
        class_set: its C codes are the columns of an answer.
        model: fingerprint of the one that answers.
        skip_existing: leave recordings alone that have an answer already, and keep what was remarked upon them.
        summary: a further file that this call writes: no answer may be written over it.

    Raises:
        RunError: the folder cannot be made, another process writes into it, its list of warnings is not one, the
            summary has the name of a list, or `skip_existing` would keep answers of another model.
    """
    folder = RunFolder(path)
    folder.create()
    lists = {folder.path.resolve() / name for name in (SKIPPED, WARNINGS)}
    if summary is not None:
        summary = summary.parent.resolve() / summary.name
        if summary in lists:
            raise RunError(f"{summary}: a list of this name is written there; choose another name for the summary")
        lists.add(summary)
    with folder.only_writer():
        output = OutputFolder(folder, records, class_set, lists)
        output.answers_with(model, skip_existing)
        output.begin(skip_existing)
        with output.writing(JOURNAL):
            yield output


class OutputFolder:
    """The answers of one call and its two lists; made by `open_output_folder`.

    Attributes:
        conflicts: {index of a record: why its answer must not be written}.
        todo: records to be classified, in order.
        answered: records that an earlier call answered.
        written: records that this call answered.
        skipped, warnings: rows of the two lists.
        of_another_model: whether answers of another model were there.
    """

    def __init__(self, folder: RunFolder, records: Sequence[Record], class_set: ClassSet, lists: set[Path]):
        self.folder = folder
        self.path = folder.path
        self.class_set = class_set
        self.records = list(records)
        self.files = answer_files(records, folder.path)
        self.conflicts = self._find_conflicts(lists)
        self.todo: list[Record] = []
        self.answered: list[Record] = []
        self.written: list[Record] = []
        self.skipped: list[dict[str, str]] = []
        self.warnings: list[dict[str, str]] = []
        self.of_another_model = False
        self.journal: TextIO | None = None
        self._file_of: dict[Record, Path] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._being_written: list[tuple[Record, Future]] = []

    def _find_conflicts(self, lists: set[Path]) -> dict[int, str]:
        """Records whose answer would be one of the lists, another record's answer or outside the folder."""
        root = self.path.resolve()
        resolved: dict[Path, Path] = {}  # folders: a link that leads out may lie in the output folder
        seen = set()
        conflicts = {}
        for index, file in enumerate(self.files):
            if file.parent not in resolved:
                resolved[file.parent] = file.parent.resolve()
            target = resolved[file.parent] / file.name
            fault = ""
            if target in lists:
                fault = "the name of a list"
            elif target in seen:
                fault = "that of another record"
            elif not target.is_relative_to(root):
                fault = "outside the output folder"
            if fault:
                conflicts[index] = f"its answer would be {printable(str(file))}, {fault}"
            seen.add(target)
        return conflicts

    def answers_with(self, model: str, skip_existing: bool) -> None:
        """Note which model answers, by its fingerprint; RunError where answers of another one could stay in place. The
        others stay on the list: a call that is killed replaces some of their answers only.
        """
        models = self._earlier_models()
        self.of_another_model = any(earlier != model for earlier in models)
        if self.of_another_model and skip_existing:
            raise RunError(
                f"{self.path} holds answers of another model, too ({ANSWERED_BY}): name another output folder, "
                "or leave out --skip_existing to answer anew"
            )
        self.folder.write_json(ANSWERED_BY, {"models": list(dict.fromkeys([*models, model]))})

    def _earlier_models(self) -> list[str]:
        """Fingerprints of the models that answered before; none where nobody knows of one."""
        try:
            with open(self.folder / ANSWERED_BY, encoding="utf-8", opener=open_regular) as file:
                return [str(model) for model in json.load(file)["models"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(f"{self.path / ANSWERED_BY} is not what this program wrote: remove it ({error})") from error

    def begin(self, skip_existing: bool) -> None:
        """Decide which records are to be classified, and bring the list of warnings into the state before them."""
        for index, (record, file) in enumerate(zip(self.records, self.files)):
            if index in self.conflicts:
                self.skip(record, "writing", self.conflicts[index])
            elif skip_existing and os.path.isfile(file):
                self.answered.append(record)
                self._file_of[record] = file
            else:
                self.todo.append(record)
                self._file_of[record] = file
        self.warnings = self._earlier_warnings({record.name for record in self.answered})
        self._write_list(WARNINGS, self.warnings)
        self._remove_journals()

    @contextlib.contextmanager
    def writing(self, journal: str) -> Iterator[None]:
        """Within the block answers can be written, and the journal of this name is open. What was begun is finished."""
        with (
            open(self.folder / journal, "a", newline="", encoding="utf-8") as self.journal,
            ThreadPoolExecutor(1) as self._writer,  # one: where two answers have one place, the first gets it
        ):
            yield

    def share_out(self, group: ProcessGroup) -> None:
        """The main process tells the others which records are to be done, and where their answers go."""
        if group.world_size > 1:
            self.todo, files = group.broadcast((self.todo, [self._file_of[record] for record in self.todo]))
            self._file_of.update(zip(self.todo, files))

    def collect(self, group: ProcessGroup) -> None:
        """The main process hears what the others did, and lists it in the order of the records, as if it were its
        own.
        """
        if group.world_size == 1:
            return
        parts = group.all_gather_object((self.written, self.skipped, self.warnings))
        place = {record.name: i for i, record in enumerate(self.todo)}
        self.written = sorted((record for part in parts for record in part[0]), key=lambda record: place[record.name])
        # What is not to be done stands before the rest: conflicts, and what earlier calls remarked upon.
        self.skipped = sorted((row for part in parts for row in part[1]), key=lambda row: place.get(row["record"], -1))
        self.warnings = sorted((row for part in parts for row in part[2]), key=lambda row: place.get(row["record"], -1))

    def _journals(self) -> list[Path]:
        """Those of all processes of this call and of earlier ones."""
        return sorted(self.path.glob(f"{JOURNAL}*"))

    def _remove_journals(self) -> None:
        for journal in self._journals():
            journal.unlink(missing_ok=True)

    def _earlier_warnings(self, names: set[str]) -> list[dict[str, str]]:
        """What earlier calls remarked upon the records of these names: in their list, and in the journal of one that
        was killed.
        """
        found = []
        for file in (self.folder / WARNINGS, *self._journals()):
            try:
                with open(file, newline="", encoding="utf-8", opener=open_regular) as lines:
                    found += [(row[0], row[1]) for row in csv.reader(lines) if len(row) == 2 and row[0] in names]
            except FileNotFoundError:
                continue
            except (csv.Error, UnicodeDecodeError) as error:
                raise RunError(f"{file} is not a list of warnings: {error}") from error
        return [{"record": name, "warning": text} for name, text in dict.fromkeys(found)]

    def skip(self, record: Record, stage: str, reason: str) -> None:
        """Note that a record has no answer: `stage` is 'reading', 'preprocessing', 'writing' or 'summary'."""
        self.skipped.append({"record": record.name, "stage": stage, "reason": printable(reason)})

    def add_warnings(self, rows: list[dict[str, str]]) -> None:
        """Keep rows (record, warning). They reach the disk at once, before the answers that they belong to: a call that
        goes on after a kill does not look at these recordings again.
        """
        if not rows:
            return
        self.warnings += rows
        writer = csv.writer(self.journal, lineterminator="\n")
        writer.writerows([row["record"], row["warning"]] for row in rows)
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def write(self, records: Sequence[Record], y_pred: np.ndarray, y_score: np.ndarray) -> None:
        """Begin to write the answers for some of the records to be done, in a thread, for each waits for the disk;
        `wait` waits for them. An answer is written whole or not at all.

        Args:
            records: R of `todo`.
            y_pred: (R, C) decisions.
            y_score: (R, C) probabilities.
        """
        for record, decisions, scores in zip(records, y_pred, y_score):
            text = answer_text(record.record_id, self.class_set.codes, decisions, scores)
            self._being_written.append((record, self._writer.submit(self._write_answer, record, text)))

    def wait(self) -> None:
        """Wait until the answers that `write` was given are on the disk. A record whose file cannot have its name is
        skipped. Raises RunError where nothing can be written, say because the disk is full.
        """
        for record, future in self._being_written:
            try:
                future.result()
            except RunError as error:
                if getattr(error.__cause__, "errno", None) not in UNUSABLE_NAME:
                    raise
                self.skip(record, "writing", str(error))
            else:
                self.written.append(record)
        self._being_written.clear()

    def _write_answer(self, record: Record, text: str) -> None:
        file = self._file_of[record]
        folder = RunFolder(file.parent, writer=self.folder.writer)
        folder.create()
        folder.write_text(file.name, text)

    def answers(self) -> list[tuple[Record, Path]]:
        """Every record that has an answer now, from this call or an earlier one, in order, with its file. A file that
        an earlier call wrote for a record that this one could not read is none of them.
        """
        have_one = {*self.answered, *self.written}
        return [(record, file) for record, file in self._file_of.items() if record in have_one]

    def finish(self) -> None:
        """Write the two lists; the journals are not needed any more."""
        self._write_list(SKIPPED, self.skipped)
        self._write_list(WARNINGS, self.warnings)
        self.journal.close()
        self._remove_journals()

    def _write_list(self, name: str, rows: list[dict[str, str]]) -> None:
        """A CSV of what went wrong; none where nothing did."""
        if rows:
            self.folder.write_rows(name, rows)
        else:
            self.folder.remove(name)
