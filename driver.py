"""Classify every recording of a folder: one CSV each.

    python driver.py IN OUT                          with the model shipped in mdl/
    python driver.py RUN IN OUT                      with your own run folder, or a folder of run folders (an ensemble)
    python driver.py IN OUT --summary table.csv      also one table of all recordings, for pandas and spreadsheets
    python driver.py IN OUT --skip_existing          go on where an earlier call stopped
    python driver.py IN OUT --adapt                  estimate how frequent each class is in IN, and adapt to it
    python driver.py IN OUT --strict                 exit status 1 also if a readable recording is suspicious

IN is searched at any depth for WFDB records. OUT/ID.csv has four lines: `#Record ID`, classes, 0/1 labels,
probabilities. Where an ID occurs in several sub-folders, those records are written to OUT/SUBFOLDER/ID.csv. A
recording that cannot be read is skipped and named at the end and in OUT/skipped_records.csv, with the reason; the
exit status is then 1. What is suspicious about readable recordings is listed in OUT/record_warnings.txt, and with
--strict the exit status is then 1 too.

The table of --summary has one row per recording that has an answer (with --skip_existing also from earlier calls):

    record           its name, with the sub-folder: unique within IN
    diagnoses        abbreviations of the classes that were called, separated by |, as in AF|RBBB; empty if none was
    one per class    the probability, under the name of the diagnosis, as in `atrial fibrillation`
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from data.headers import printable
from data.inputs import chunks, read_input
from data.preprocess import SignalConfig
from data.records import Record, RecordError, find_records
from engine.adapt import adapt_to_frequencies
from engine.arguments import path_argument
from engine.inference import Predictor, load_predictor
from engine.output_folder import WARNINGS, OutputFolder, open_output_folder
from engine.run_folder import RunError
from engine.script import clean_exit
from engine.summary import prepare_summary_file, write_summary
from run_12ECG_classifier import DEFAULT_MODEL

BATCH = 64  # recordings


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders",
        nargs="+",
        type=path_argument,
        metavar="[RUN] IN OUT",
        help="model folder (optional), input folder, output folder",
    )
    answers = parser.add_argument_group("what is written")
    answers.add_argument(
        "--summary", type=path_argument, metavar="FILE.csv", help="also write one table of all recordings"
    )
    answers.add_argument(
        "--skip_existing", action="store_true", help="leave recordings alone that already have an output"
    )
    answers.add_argument(
        "--adapt",
        action="store_true",
        help="adapt the probabilities to the class frequencies of IN, estimated without labels",
    )
    answers.add_argument(
        "--strict", action="store_true", help="exit status 1 also if a readable recording is suspicious"
    )
    speed = parser.add_argument_group("how fast")
    speed.add_argument("--cuda", action="store_true", help="use a GPU")
    speed.add_argument("--workers", type=int, default=2, help="reading threads (default: %(default)s)")
    args = parser.parse_args(argv)
    if len(args.folders) not in (2, 3):
        parser.error("name IN OUT or RUN IN OUT")
    if args.adapt and args.skip_existing:
        parser.error("--adapt needs all recordings of IN at once: leave out --skip_existing")
    if args.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA device (or a CPU build of PyTorch)")
    *model, args.input, args.output = args.folders
    args.model = model[0] if model else DEFAULT_MODEL
    return args


@dataclass
class Batch:
    """Recordings that were read together. The first three lists have an entry for each readable one."""

    records: list[Record] = field(default_factory=list)
    signals: list[np.ndarray] = field(default_factory=list)  # (12, T_i) int16 microvolts
    covariates: list[np.ndarray] = field(default_factory=list)  # (N_COVARIATES,)
    warnings: list[dict[str, str]] = field(default_factory=list)  # rows (record, warning)
    errors: list[tuple[Record, RecordError]] = field(default_factory=list)  # of those that cannot be read

    def __len__(self) -> int:
        return len(self.records) + len(self.errors)


def read_ahead(records: Sequence[Record], config: SignalConfig, workers: int) -> Iterator[Batch]:
    """Yield the records batch by batch, each while the next one is being read by `workers` threads."""
    with (
        ThreadPoolExecutor(max(1, workers), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        tqdm(total=len(records), desc="Classifying", unit="rec") as bar,
    ):
        waiting = []
        for chunk in chunks(records, BATCH):
            before = waiting
            waiting = [(record, pool.submit(read_input, record, config)) for record in chunk]
            if before:
                yield gather(before)
                bar.update(len(before))
        if waiting:
            yield gather(waiting)
            bar.update(len(waiting))


def gather(waiting: Sequence[tuple[Record, Future]]) -> Batch:
    """A batch of what the threads made of its records."""
    batch = Batch()
    for record, future in waiting:
        try:
            signal, covariates, _, warnings = future.result()
        except RecordError as error:
            batch.errors.append((record, error))
            continue
        batch.records.append(record)
        batch.signals.append(signal)
        batch.covariates.append(covariates)
        batch.warnings += [{"record": record.name, "warning": text} for text in warnings]
    return batch


def classify(predictor: Predictor, batch: Batch) -> np.ndarray:
    """Probabilities (b, C) of the readable recordings. Raises RunError where the model has none."""
    y_score = predictor.predict(batch.signals, np.stack(batch.covariates))
    if not np.isfinite(y_score).all():
        raise RunError("the model's answers are not numbers: its weights are damaged")
    return y_score


def adapt(predictor: Predictor, y_score: np.ndarray) -> np.ndarray:
    """Probabilities (R, C) of the whole folder, adapted to how frequent each class is in it."""
    adapted, frequency = adapt_to_frequencies(y_score, predictor.frequency)
    for name, old, new in zip(predictor.class_set.abbreviations, predictor.frequency, frequency):
        print(f"  {printable(name)}: frequency {old:.3f} in training, {new:.3f} here")
    return adapted


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with clean_exit("driver.py", "go on with --skip_existing"):
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Everything that the flags ask for; returns the exit status."""
    predictor = load_predictor(args.model, "cuda" if args.cuda else "cpu")
    records = find_records(args.input)
    if args.summary:
        prepare_summary_file(args.summary)
    with open_output_folder(args.output, records, predictor.class_set, args.skip_existing, args.summary) as output:
        if args.skip_existing:
            print(f"{len(output.answered)} of {len(records)} recordings have an output already")
        held_back = []  # with --adapt: batches whose probabilities depend on those of all the others
        for batch in read_ahead(output.todo, predictor.signal_config, args.workers):
            output.add_warnings(batch.warnings)
            for record, error in batch.errors:
                output.skip(record, error.stage, str(error))
            if not batch.records:
                continue
            y_score = classify(predictor, batch)  # (b, C)
            if args.adapt:
                held_back.append((batch.records, y_score))
            else:
                output.write(batch.records, predictor.decide(y_score), y_score)
        if held_back:
            records = [record for batch_records, _ in held_back for record in batch_records]
            y_score = adapt(predictor, np.concatenate([scores for _, scores in held_back]))  # (R, C)
            output.write(records, predictor.decide(y_score), y_score)
        if args.summary:
            for record, reason in write_summary(args.summary, output.answers(), predictor.class_set):
                output.skip(record, "summary", reason)
        output.finish()
    return report(output, args.strict)


def report(output: OutputFolder, strict: bool) -> int:
    """Say what was done and what was not; returns the exit status."""
    print(
        f"{len(output.written)} recordings classified into {printable(str(output.path))}, "
        f"{len(output.skipped)} skipped, {len(output.warnings)} warnings"
    )
    for row in output.skipped:
        print(f"  skipped {row['record']}: {row['reason']}")
    if output.warnings:
        print(f"  warnings on readable recordings: {printable(str(output.path / WARNINGS))}")
    return 1 if output.skipped or (strict and output.warnings) else 0


if __name__ == "__main__":
    sys.exit(main())
