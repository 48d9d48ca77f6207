"""The recordings of a training: opened, split, listed."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import torch

from data.cache import CacheError, NothingReadable, SignalCache, open_cache
from data.dataset import Dataset
from data.headers import printable
from data.preprocess import SignalConfig
from data.rates import one_rate_only
from data.records import Record, RecordError, find_records
from data.splits import share_of
from engine.distributed import ProcessGroup
from engine.handover import Pretrained
from engine.run_folder import RunFolder

MAX_SHOWN = 20  # lines of what --strict refuses


def open_recordings(args: Namespace, signal_config: SignalConfig, run: RunFolder, group: ProcessGroup) -> SignalCache:
    """The recordings that the flags name, preprocessed; says what was skipped. The main process builds the cache.

    Args:
        args: input_folder, n_total, seed, cache, workers, strict.
        signal_config: how to preprocess.
        run: gets the list of skipped recordings if not one of them can be read.
        group: the processes that train together.

    Raises:
        RecordError: the folder holds no recording, or --strict refuses one.
        CacheError: not one recording can be read, or the cache cannot be written.
    """
    records, left_out = one_rate_only(find_records(args.input_folder), args.records)
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


def split_recordings(args: Namespace, data: Dataset, pretrained: Pretrained | None = None) -> TrainValid:
    """Divide the recordings as the flags say, and as the pre-training did where an encoder is taken over.

    Args:
        args: split_by, train_share, seed.
        data: all recordings.
        pretrained: where the encoder comes from, or None.

    Raises:
        ValueError, RunError: a side is empty, or a patient would be on both; it says why and what to do.
    """
    for line in data.metadata.warnings:
        print(line)
    train, valid = args.split_by.rows(data.targets, data.cache.sources, data.metadata, args.seed)
    if pretrained is not None:
        train, valid = pretrained.split(data.cache, data.metadata.patients, train, valid)
    return TrainValid(data.cache, share_of(train, getattr(args, "train_share", 1.0), args.seed), valid, len(train))


@dataclass(frozen=True)
class TrainValid:
    """Recordings of a cache, split into those that train and those that validate."""

    cache: SignalCache
    train: np.ndarray  # rows of the cache
    valid: np.ndarray
    n_windows: int  # in an epoch: as many with a share of the recordings as with all

    @property
    def train_windows(self) -> np.ndarray:
        """Row of each window of an epoch."""
        return np.resize(self.train, self.n_windows)

    def names(self, rows: np.ndarray) -> list[str]:
        """'source/record_id' of each row."""
        return [self.cache.names[i] for i in rows]

    def info(self) -> dict:
        """What config.json says about the recordings."""
        return {
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
        """Which recordings train and validate, which were skipped, and what is suspicious about others."""
        for part, rows in (("train", self.train), ("valid", self.valid)):
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
