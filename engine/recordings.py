"""The recordings of a training: opened, split, listed."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import torch

from data.cache import CacheError, NothingReadable, SignalCache, open_cache
from data.dataset import Dataset, TrainBatches, train_batches
from data.headers import printable
from data.labels import PTBXL
from data.metadata import Metadata, read_metadata
from data.preprocess import SignalConfig
from data.rates import one_rate_only
from data.records import Record, RecordError, find_with_table_above
from data.splits import share_of, take_out_fold
from engine.distributed import ProcessGroup
from engine.handover import Pretrained
from engine.initial_run import InitialRun
from engine.run_folder import RunFolder

MAX_SHOWN = 20  # lines of what --strict refuses


def open_recordings(args: Namespace, signal_config: SignalConfig, run: RunFolder, group: ProcessGroup) -> SignalCache:
    """The recordings that the flags name, preprocessed; says what was skipped. The main process builds the cache.

    Args:
        args: input_folder, metadata, records, n_total, seed, cache, workers, strict. Without metadata, they become the
            table above the input folder that told of its recordings.
        signal_config: how to preprocess.
        run: gets the list of skipped recordings if not one of them can be read.
        group: the processes that train together.

    Raises:
        RecordError: the folder holds no recording, or --strict refuses one.
        CacheError: not one recording can be read, or the cache cannot be written.
    """
    records, table = find_with_table_above(args.input_folder)
    if table is not None:
        print(f"{printable(table)} tells of the recordings in {args.input_folder}")
        if args.metadata is None:  # what says who is ill must also say whose the recordings are
            args.metadata = table
    records, left_out = one_rate_only(records, args.records)
    if left_out:
        print(left_out)
    records = _drawn(records, args.n_total, args.seed)
    try:
        with group.main_process_first():
            cache = open_cache(records, signal_config, args.cache, args.workers, not group.is_main, group.is_main)
    except NothingReadable as error:
        write_skipped(run, error.skipped_rows)
        raise CacheError(f"{error}; all are listed in {run / 'skipped_records.csv'}") from None
    if len(set(group.all_gather_object(cache.path.name))) > 1:
        raise CacheError(f"--cache {args.cache}: the processes see different recordings; start again")
    print(
        f"{len(cache)} recordings in {args.input_folder}, {len(cache.skipped)} skipped, {len(cache.warnings)} warnings"
    )
    if args.strict:
        _refuse_suspicious(cache)
    return cache


def _drawn(records: list[Record], n: int | None, seed: int) -> list[Record]:
    """n of the records, in their order, or all."""
    if n is None or n >= len(records):
        return records
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))
    return [records[i] for i in sorted(order[:n].tolist())]


def _refuse_suspicious(cache: SignalCache) -> None:
    """Raises RecordError if a recording was skipped, is suspicious or lies there twice."""
    faults = [*cache.skipped, *cache.warnings]
    faults += [(group[0], f"the same signal as {', '.join(group[1:])}") for group in cache.duplicates]
    if not faults:
        return
    for name, reason in faults[:MAX_SHOWN]:
        print(f"  {printable(f'{name}: {reason}')}")
    name, reason = faults[0]
    raise RecordError(
        f"--strict: {len(cache.skipped)} recordings skipped, {len(cache.warnings)} warnings, "
        f"{len(cache.duplicates)} groups of duplicates; the first is {name}: {reason}"
    )


def write_skipped(run: RunFolder, rows: list[dict]) -> None:
    """List of the recordings that could not be read."""
    run.write_rows("skipped_records.csv", rows, ["record", "stage", "reason"])


def read_own_metadata(args: Namespace, cache: SignalCache) -> Metadata:
    """What the table of --metadata, or the one that was found, says of the recordings of a cache.

    Raises:
        ValueError: as `read_metadata`; of a table that was found, it says so and what to do if it is not meant.
    """
    try:
        return read_metadata(args.metadata, cache.names, cache.duplicates)
    except ValueError as error:
        if "metadata" in args.explicit:
            raise
        raise ValueError(
            f"{error}. No --metadata was given: this file was found in or near the input folder {args.input_folder}. "
            f"If it is not meant, give it another name, or name the right one with --metadata FILE"
        ) from None


def split_recordings(
    args: Namespace,
    data: Dataset,
    start: Pretrained | InitialRun | None = None,
    classes: str | None = None,
    train_share: float = 1.0,
) -> TrainValid:
    """Divide the recordings as the flags say, and as the pre-training did where an encoder is taken over.

    Args:
        args: split_by, test_fold, seed.
        data: all recordings.
        start: where the encoder comes from, or None.
        classes: what is learned; recordings without any class of a task of PTB-XL's benchmark are left out, as there.
        train_share: of the training recordings, drawn by the seed.

    Raises:
        ValueError, RunError: a side is empty, or a patient would be on both; it says why and what to do.
    """
    for line in data.metadata.warnings:
        print(line)
    train, valid = args.split_by.rows(data.targets, data.cache.sources, data.metadata, args.seed)
    train, valid, test = take_out_fold(args.test_fold, data.metadata, train, valid)
    if start is not None:
        train, valid = start.split(data.cache, data.metadata.patients, train, valid)
        start.warn_of_test(data.cache, test)
    if classes in PTBXL:
        labelled = data.y_true.any(1)
        train, valid, test = (rows[labelled[rows]] for rows in (train, valid, test))
        print(f"{(~labelled).sum()} recordings have no class of {classes} and are left out, as in its benchmark")
    chosen = share_of(train, train_share, args.seed)
    return TrainValid(data.cache, chosen, valid, len(train), test)


@dataclass(frozen=True)
class TrainValid:
    """Recordings of a cache, split into those that train, those that validate and those that are kept out."""

    cache: SignalCache
    train: np.ndarray  # rows of the cache
    valid: np.ndarray
    n_windows: int  # in an epoch: as many with a share of the recordings as with all
    test: np.ndarray  # rows that are scored after training, often none

    @property
    def train_windows(self) -> np.ndarray:
        """Row of each window of an epoch."""
        return np.resize(self.train, self.n_windows)

    def batches(self, data: Dataset, args: Namespace, group: ProcessGroup) -> TrainBatches:
        """The batches of an epoch of seq_length, batch_size and seed; of several processes, each has its own windows
        of them.
        """
        return train_batches(
            data,
            self.train_windows,
            args.seq_length,
            args.batch_size,
            args.seed,
            group.rank,
            group.world_size,
            group.device,
        )

    def names(self, rows: np.ndarray) -> list[str]:
        """'source/record_id' of each row."""
        return [self.cache.names[i] for i in rows]

    def info(self) -> dict:
        """What config.json says about the recordings."""
        kept_out = {"n_test": len(self.test)} if len(self.test) else {}
        return kept_out | {
            "n_train": len(self.train),
            "n_valid": len(self.valid),
            "n_skipped": len(self.cache.skipped),
            "sources": sorted(set(self.cache.sources)),
        }

    def digest(self) -> str:
        """What the recordings contain, signals and diagnoses, whatever they are called and wherever they lie."""
        sha = hashlib.sha256()
        for rows in (self.train, self.valid):
            sha.update(b"part")
            for i in rows:
                sha.update(f"{self.cache.hashes[i]} {','.join(self.cache.dx[i])}\n".encode())
        return sha.hexdigest()

    def write_lists(self, run: RunFolder) -> None:
        """Which recordings train, validate and are kept out, which were skipped, and what is suspicious."""
        parts = {"train": self.train, "valid": self.valid}
        if len(self.test):
            parts["test"] = self.test
        for part, rows in parts.items():
            run.write_text(f"{part}_ids.txt", "".join(f"{name}\n" for name in self.names(rows)))
        write_skipped(run, self.cache.skipped_rows)
        warnings = [{"record": name, "warning": text} for name, text in self.cache.warnings]
        run.write_rows("record_warnings.txt", warnings, ["record", "warning"])

    def write_hashes(self, run: RunFolder) -> None:
        """recordings.csv: which recordings train and validate, by what they contain."""
        rows = [
            {"record": self.cache.names[i], "part": part, "hash": self.cache.hashes[i]}
            for part, chosen in (("train", self.train), ("valid", self.valid))
            for i in chosen
        ]
        run.write_rows("recordings.csv", rows, ["record", "part", "hash"])
