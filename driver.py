"""Classify every recording of a folder: one CSV each.

    python driver.py IN OUT                   with the model shipped in mdl/
    python driver.py MODEL IN OUT             with a run folder, or a folder of run folders (an ensemble)
    python driver.py IN OUT --skip_existing   go on where an earlier call stopped
    python driver.py IN OUT --adapt           estimate how frequent each class is in IN, and adapt the probabilities to it

IN is searched at any depth for WFDB records. OUT/ID.csv has four lines: `#Record ID`, classes, 0/1 labels,
probabilities. Where an ID occurs in several sub-folders, those records are written to OUT/SUBFOLDER/ID.csv. A
recording that cannot be read is skipped and named at the end and in OUT/skipped_records.csv, with the reason; the
exit status is then 1. What is suspicious about readable recordings is listed in OUT/record_warnings.txt, and with
--strict the exit status is then 1 too.
"""

import argparse
import contextlib
import csv
import errno
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.files import open_regular
from data.headers import printable
from data.inputs import chunks, read_input
from data.records import RecordError, find_records
from engine.adapt import adapt_to_frequencies
from engine.inference import load_predictor
from engine.run_folder import RunError, RunFolder
from engine.script import clean_exit
from run_12ECG_classifier import DEFAULT_MODEL

BATCH = 64  # recordings
SKIPPED, WARNINGS = "skipped_records.csv", "record_warnings.txt"
JOURNAL = ".record_warnings.partial"  # what a call that is killed leaves of the second list
UNUSABLE_NAME = (
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ELOOP,
)  # of one file: the others can be written


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="+", metavar="[MODEL] IN OUT", help="model folder (optional), input folder, output folder"
    )
    parser.add_argument(
        "--skip_existing", action="store_true", help="leave recordings alone that already have an output"
    )
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="adapt the probabilities to the class frequencies of IN, estimated without labels",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 also if a readable recording is suspicious"
    )
    parser.add_argument("--cuda", action="store_true", help="use a GPU")
    parser.add_argument("--workers", type=int, default=2, help="reading threads (default: 2)")
    args = parser.parse_args(argv)
    if len(args.folders) not in (2, 3):
        parser.error("name IN OUT or MODEL IN OUT")
    if args.adapt and args.skip_existing:
        parser.error("--adapt needs all recordings of IN at once: leave out --skip_existing")
    if args.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA device (or a CPU build of PyTorch)")
    *model, args.input, args.output = args.folders
    args.model = model[0] if model else DEFAULT_MODEL
    return args


def output_files(records, output):
    """Where each record's answer goes: OUT/ID.csv, or OUT/SUBFOLDER/ID.csv if the ID occurs more than once."""
    times = Counter(record.record_id for record in records)
    return [Path(output, f"{r.record_id if times[r.record_id] == 1 else r.name}.csv") for r in records]


def output_conflicts(records, files, output):
    """{index: row of skipped_records.csv} of records whose answer would be a list, another record's answer or outside
    `output`.
    """
    root, lists, seen, inside, rows = (
        Path(output).resolve(),
        (Path(output, SKIPPED), Path(output, WARNINGS)),
        set(),
        {},
        {},
    )
    for i, (record, file) in enumerate(zip(records, files)):
        if file.parent not in inside:  # a link may lie in the output folder
            inside[file.parent] = file.parent.resolve().is_relative_to(root)
        fault = (
            "the name of a list"
            if file in lists
            else "that of another record"
            if file in seen
            else ""
            if inside[file.parent]
            else "outside the output folder"
        )
        if fault:
            rows[i] = {"record": record.name, "stage": "writing", "reason": f"its answer would be {file}, {fault}"}
        seen.add(file)
    return rows


def read(predictor, record):
    """(signal, covariates, warnings), or the RecordError that says why not."""
    try:
        signal, covariates, _, warnings = read_input(record, predictor.signal_config)
    except RecordError as error:
        return error
    return signal, covariates, warnings


def write_prediction(file, record_id, classes, y_pred, y_score):
    """The official four lines, written atomically."""
    lines = [
        f"#{record_id}",
        ",".join(classes),
        ",".join(str(int(label)) for label in y_pred),
        ",".join(repr(float(score)) for score in y_score),
    ]
    folder = RunFolder(file.parent)
    folder.create()
    folder.write_text(file.name, "\n".join(lines) + "\n")


def read_ahead(predictor, records, workers):
    """Yield the records batch by batch, each with what `read` says of it, while the next batch is being read."""
    with ThreadPoolExecutor(max(1, workers), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = None
        for chunk in chunks(records, BATCH):
            before, waiting = waiting, [(record, pool.submit(read, predictor, record)) for record in chunk]
            if before:
                yield [(record, future.result()) for record, future in before]
        if waiting:
            yield [(record, future.result()) for record, future in waiting]


def classify(predictor, records, workers, done, remark):
    """Call done(indices, y_score (b, C)) for one batch of recordings after another, and before it remark(rows) with
    their warnings; returns the rows of the two lists: of recordings that could not be read or, says `done`, written,
    and of warnings.
    """
    skipped, warnings, start = [], [], 0
    with tqdm(total=len(records), desc="Classifying", unit="rec") as bar:
        for batch in read_ahead(predictor, records, workers):
            good, remarks = {}, []
            for i, (record, item) in enumerate(batch, start):
                if isinstance(item, RecordError):
                    skipped.append({"record": record.name, "stage": item.stage, "reason": str(item)})
                else:
                    good[i] = item[:2]
                    remarks += [{"record": record.name, "warning": text} for text in item[2]]
            warnings += remarks
            remark(remarks)
            if good:
                signals, covariates = zip(*good.values())
                y_score = predictor.predict(signals, np.stack(covariates))  # (b, C)
                if not np.isfinite(y_score).all():
                    raise RunError("the model's answers are no numbers: its weights are damaged")
                skipped += done(list(good), y_score) or ()
            start += len(batch)
            bar.update(len(batch))
    return skipped, warnings


def classify_folder(predictor, records, files, workers, adapt, remark):
    """Write all predictions, batch by batch, or at the end if they are adapted to the folder; returns what `classify`
    does."""

    def write(indices, y_score):
        failed = []
        for i, y_pred, score in zip(indices, predictor.decide(y_score), y_score):
            try:
                write_prediction(files[i], records[i].record_id, predictor.class_set.codes, y_pred, score)
            except RunError as error:
                if getattr(error.__cause__, "errno", None) not in UNUSABLE_NAME:
                    raise
                failed.append({"record": records[i].name, "stage": "writing", "reason": str(error)})
        return failed

    if not adapt:
        return classify(predictor, records, workers, write, remark)
    kept, scores = [], []

    def keep(indices, y_score):
        kept.extend(indices), scores.append(y_score)

    skipped, warnings = classify(predictor, records, workers, keep, remark)
    if kept:
        y_score, frequency = adapt_to_frequencies(np.concatenate(scores), predictor.frequency)
        skipped += write(kept, y_score)
        for name, old, new in zip(predictor.class_set.abbreviations, predictor.frequency, frequency):
            print(f"  {printable(name)}: frequency {old:.3f} in training, {new:.3f} here")
    return skipped, warnings


def earlier_warnings(folder, answered):
    """Rows of an earlier call's warnings on the records named in the set `answered`: of its list, and of its journal
    if it was killed.
    """
    found = []
    for name in (WARNINGS, JOURNAL):
        with (
            contextlib.suppress(FileNotFoundError),
            open(folder / name, newline="", encoding="utf-8", opener=open_regular) as lines,
        ):
            try:
                found += [(row[0], row[1]) for row in csv.reader(lines) if len(row) == 2 and row[0] in answered]
            except (csv.Error, UnicodeDecodeError) as error:
                raise RunError(f"{folder / name} is no list of warnings: {error}") from error
    return [{"record": record, "warning": text} for record, text in dict.fromkeys(found)]


@contextlib.contextmanager
def journal(folder):
    """Yields a function that keeps rows of warnings at once: they reach the disk before the answers of their batch
    do.
    """
    with open(folder / JOURNAL, "a", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")

        def remark(rows):
            if rows:
                writer.writerows([row["record"], row["warning"]] for row in rows)
                out.flush()
                os.fsync(out.fileno())

        yield remark


def write_list(folder, name, rows):
    """A CSV of what went wrong; none where nothing did."""
    if rows:
        folder.write_rows(name, rows)
    else:
        (folder / name).unlink(missing_ok=True)


def main(argv=None):
    with clean_exit("driver.py", "go on with --skip_existing"):
        return run(parse_args(argv))


def run(args):
    """Everything that the flags ask for; returns the exit status."""
    predictor = load_predictor(args.model, "cuda" if args.cuda else "cpu")
    records = find_records(args.input)
    files, out = output_files(records, args.output), RunFolder(args.output)
    out.create()
    with out.only_writer():
        taken = output_conflicts(records, files, args.output)
        answered = {i for i, file in enumerate(files) if args.skip_existing and i not in taken and os.path.isfile(file)}
        if args.skip_existing:
            print(f"{len(answered)} of {len(records)} recordings have an output already")
        earlier = earlier_warnings(out, {records[i].name for i in answered})
        todo = [i for i in range(len(records)) if i not in taken and i not in answered]
        records, files = [records[i] for i in todo], [files[i] for i in todo]
        write_list(out, WARNINGS, earlier)
        out.remove(JOURNAL)
        with journal(out) as remark:
            skipped, warnings = classify_folder(predictor, records, files, args.workers, args.adapt, remark)
        n_classified, skipped, warnings = len(records) - len(skipped), [*taken.values(), *skipped], earlier + warnings
        write_list(out, SKIPPED, skipped)
        write_list(out, WARNINGS, warnings)
        out.remove(JOURNAL)
    print(f"{n_classified} recordings classified into {args.output}, {len(skipped)} skipped, {len(warnings)} warnings")
    for row in skipped:
        print(f"  skipped {row['record']}: {row['reason']}")
    if warnings:
        print(f"  warnings on readable recordings: {out / WARNINGS}")
    return 1 if skipped or (args.strict and warnings) else 0


if __name__ == "__main__":
    sys.exit(main())
