"""Classify every recording of a folder: one CSV each.

    python driver.py IN OUT                          with the model shipped in mdl/
    python driver.py RUN IN OUT                      with your own run folder, or a folder of run folders (an ensemble)
    python driver.py IN OUT --summary table.csv      also one table of all recordings, for pandas and spreadsheets
    python driver.py IN OUT --skip_existing          go on where an earlier call stopped
    python driver.py IN OUT --strict                 exit status 1 also if a readable recording is suspicious
    python driver.py IN OUT --embeddings FILE.npz    also the features of every recording, for a linear probe
    torchrun --nproc_per_node 8 driver.py IN OUT     eight processes share IN; with --cuda each has a GPU

IN is searched at any depth for WFDB records. OUT/ID.csv has four lines: `#Record ID`, classes, 0/1 labels,
probabilities. Where an ID occurs in several sub-folders, those records are written to OUT/SUBFOLDER/ID.csv. Answers
that are in OUT already are replaced where IN has the same ID, and stay otherwise: take a new OUT for each model. A
recording that cannot be read is skipped and named at the end and in OUT/skipped_records.csv, with the reason; the
exit status is then 1. What is suspicious about readable recordings is listed in OUT/record_warnings.txt, and with
--strict the exit status is then 1 too.

The table of --summary has one row per recording that has an answer (with --skip_existing also from earlier calls):

    record           its name, with the sub-folder: unique within IN
    diagnoses        abbreviations of the classes that were called, separated by |, as in AF|RBBB; empty if none was
    one per class    the probability, under the name of the diagnosis, as in `atrial fibrillation`

The file of --embeddings holds the arrays `record` (R,) as in that table, `features` (R, D), `member` (D,), the network
of the ensemble that a feature belongs to, and `covariates` (R, 23), age, sex and rhythm. docs/python.md has an example.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, islice

import numpy as np
import torch
from tqdm import tqdm

from data.covariates import N_COVARIATES
from data.headers import printable
from data.inputs import chunks, read_input
from data.labels import ClassSet
from data.leads import LEADS
from data.measures import N_NUMBERS
from data.preprocess import MISSING_LEADS
from data.records import Record, RecordError, find_records
from engine.arguments import path_argument
from engine.distributed import ProcessGroup, process_group
from engine.embeddings import Embedded, prepare_embeddings_file, write_embeddings
from engine.inference import Predictor, fingerprint, load_predictor
from engine.output_folder import WARNINGS, OutputFolder, open_output_folder, open_share
from engine.run_folder import RunError
from engine.script import clean_exit
from engine.summary import prepare_summary_file, write_summary
from run_12ECG_classifier import DEFAULT_MODEL

BATCH = 64  # recordings
PART = 16  # of them that a thread reads and measures at once


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
        "--embeddings", type=path_argument, metavar="FILE.npz", help="also write the features of all recordings"
    )
    answers.add_argument(
        "--skip_existing", action="store_true", help="leave recordings alone that already have an output"
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
    if args.embeddings and args.skip_existing:
        parser.error("--embeddings needs all recordings of IN at once: leave out --skip_existing")
    if args.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA device (or a CPU build of PyTorch)")
    *model, args.input, args.output = args.folders
    args.model = model[0] if model else DEFAULT_MODEL
    return args


@dataclass
class Batch:
    """Recordings that were read together. The first four lists have an entry for each readable one."""

    records: list[Record] = field(default_factory=list)
    signals: list[np.ndarray] = field(default_factory=list)  # (n_leads, T_i) int16 microvolts
    covariates: list[np.ndarray] = field(default_factory=list)  # (N_COVARIATES,)
    numbers: list[np.ndarray] = field(default_factory=list)  # (N_NUMBERS,), for a model with a forest
    warnings: list[dict[str, str]] = field(default_factory=list)  # rows (record, warning)
    errors: list[tuple[Record, RecordError]] = field(default_factory=list)  # of those that cannot be read

    def __len__(self) -> int:
        return len(self.records) + len(self.errors)

    def extend(self, other: Batch) -> None:
        """Append the recordings of another."""
        for name, entries in vars(other).items():
            getattr(self, name).extend(entries)


def read_ahead(records: Sequence[Record], predictor: Predictor, workers: int, group: ProcessGroup) -> Iterator[Batch]:
    """Yield the records batch by batch, each while the next one is being read by `workers` threads. Several processes
    take turns: the batches, and so the answers, are the same for any number of them.
    """
    with (
        ThreadPoolExecutor(max(1, workers), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        tqdm(total=len(records), desc="Classifying", unit="rec", disable=not group.is_main) as bar,
    ):
        waiting = []
        for chunk in own_chunks(records, group):
            before = waiting
            parts = [chunk[begin : begin + PART] for begin in range(0, len(chunk), PART)]
            waiting = [pool.submit(read, part, predictor) for part in parts]
            if before:
                batch = gather(before)
                yield batch
                bar.update(group.count(len(batch)) - bar.n)  # all that all processes have done
        if waiting:
            batch = gather(waiting)
            yield batch
            group.count(len(batch))
        group.barrier()  # others may still be at work
        bar.update(group.count(0) - bar.n)


def own_chunks(records: Sequence[Record], group: ProcessGroup) -> Iterator[Sequence[Record]]:
    """The records of each batch that this process reads."""
    if group.world_size == 1:
        yield from chunks(records, BATCH)
        return
    # The main process looks at the files for all: where one is still being written, others might see another size.
    sizes = group.broadcast([len(chunk) for chunk in chunks(records, BATCH)] if group.is_main else None)
    ends = list(accumulate(sizes))
    for begin, end in islice(zip([0, *ends], ends), group.rank, None, group.world_size):
        yield records[begin:end]


def read(records: Sequence[Record], predictor: Predictor) -> Batch:
    """Read some records, and measure on them what the model wants to know."""
    batch = Batch()
    for record in records:
        try:
            signal, covariates, _, warnings = read_input(record, predictor.signal_config)
        except RecordError as error:
            batch.errors.append((record, error))
            continue
        batch.records.append(record)
        batch.signals.append(signal)
        batch.covariates.append(covariates)
        batch.warnings += [{"record": record.name, "warning": text} for text in warnings]
    if predictor.has_forest and batch.records:
        batch.numbers += list(predictor.measure(batch.signals, np.array(batch.covariates)))
    return batch


def gather(waiting: Sequence[Future]) -> Batch:
    """A batch of what the threads read."""
    batch = Batch()
    for future in waiting:
        batch.extend(future.result())
    return batch


def classify(predictor: Predictor, batch: Batch) -> np.ndarray:
    """Probabilities (b, C) of the readable recordings. Raises RunError where the model has none."""
    covariates = np.reshape(batch.covariates, (-1, N_COVARIATES))  # (b, N_COVARIATES), b may be 0
    numbers = np.reshape(batch.numbers, (-1, N_NUMBERS)) if predictor.has_forest else None
    y_score = predictor.predict(batch.signals, covariates, numbers)
    if not np.isfinite(y_score).all():
        raise RunError("the model's answers are not numbers: its weights are damaged")
    return y_score


def needs_rows(predictor: Predictor, batch: Batch) -> list[dict[str, str]]:
    """Rows (record, warning) on what cannot be established for lack of leads."""
    return [
        {"record": record.name, "warning": text}
        for record, signal in zip(batch.records, batch.signals)
        for text in predictor.needs_warnings(signal)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    elsewhere = "leave out --cuda" if args.cuda else "use a machine with more of it"
    if_full = f"{elsewhere}, or end other programs that hold it; then go on with --skip_existing"
    with clean_exit("driver.py", "go on with --skip_existing", if_full), process_group(args.cuda) as group:
        return run(args, group)


def run(args: argparse.Namespace, group: ProcessGroup) -> int:
    """Everything that the flags ask for; returns the exit status."""
    predictor = load_predictor(args.model, group.device)
    with contextlib.ExitStack() as opened:
        with group.main_process_first():
            output = opened.enter_context(open_output(args, predictor.class_set, group))
        if args.skip_existing:
            print(f"{len(output.answered)} of {len(output.records)} recordings have an output already")
        if output.of_another_model:
            print(f"{printable(str(output.path))} holds answers of another model: those of other recordings stay there")
        output.share_out(group)
        embedded = []  # with --embeddings
        for batch in read_ahead(output.todo, predictor, args.workers, group):
            y_score = classify(predictor, batch)  # (b, C), while the answers before are written
            output.wait()
            output.add_warnings(batch.warnings + needs_rows(predictor, batch))
            for record, error in batch.errors:
                output.skip(record, error.stage, str(error))
            if not batch.records:
                continue
            output.write(batch.records, predictor.decide(y_score), y_score)
            if args.embeddings:
                names = [record.name for record in batch.records]
                embedded.append(Embedded(names, predictor.embed(batch.signals), np.stack(batch.covariates)))
        output.wait()
        output.collect(group)
        embedded = group.gather_in_turns(embedded)
        if not group.is_main:
            return 0
        if args.embeddings:
            write_embeddings(args.embeddings, embedded, predictor.feature_members)
        if args.summary:
            for record, reason in write_summary(args.summary, output.answers(), predictor.class_set):
                output.skip(record, "summary", reason)
        output.finish()
    return report(output, predictor, args.strict)


def open_output(
    args: argparse.Namespace, class_set: ClassSet, group: ProcessGroup
) -> contextlib.AbstractContextManager[OutputFolder]:
    """The output folder, for the main process with all that is to be done, found and checked."""
    if not group.is_main:
        return open_share(args.output, class_set, group.rank)
    records = find_records(args.input)
    if args.summary:
        prepare_summary_file(args.summary)
    if args.embeddings:
        prepare_embeddings_file(args.embeddings)
    model = fingerprint(args.model)
    return open_output_folder(args.output, records, class_set, model, args.skip_existing, args.summary)


def report(output: OutputFolder, predictor: Predictor, strict: bool) -> int:
    """Say what was done and what was not; returns the exit status."""
    print(
        f"{len(output.written)} recordings classified into {printable(str(output.path))}, "
        f"{len(output.skipped)} skipped, {len(output.warnings)} warnings"
    )
    missing = [row["warning"] for row in output.warnings if row["warning"].startswith(MISSING_LEADS)]
    if missing:
        print(f"  leads are missing in {len(missing)} recordings, {most_often(missing)}: {predictor.without_leads}")
    for row in output.skipped:
        print(f"  skipped {row['record']}: {row['reason']}")
    if output.warnings:
        print(f"  warnings on readable recordings: {printable(str(output.path / WARNINGS))}")
    return 1 if output.skipped or (strict and output.warnings) else 0


def most_often(warnings: Sequence[str]) -> str:
    """'most often V1, V2 (in 7)', from warnings on missing leads."""
    count = Counter(name for text in warnings for name in text.removeprefix(f"{MISSING_LEADS}: ").split(", "))
    largest = max(count.values())
    return f"most often {', '.join(name for name in LEADS if count[name] == largest)} (in {largest})"


if __name__ == "__main__":
    sys.exit(main())
