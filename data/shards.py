"""Shards of a signal cache: files of up to a thousand recordings, written by all cores and read where they are needed.

A recording lies in one shard as a whole. Of a large cache a shard is opened when the first of its recordings is asked
for, and its checksums are compared then; so a process that asks for some of the recordings only never touches the
others' files. Of several processes each asks for its own share in train.py, but for what --lead_subsets and a forest
measure before the first epoch; in pretrain.py every one asks for all that train or validate.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data.covariates import N_COVARIATES
from data.files import open_regular, written
from data.inputs import chunks, read_input
from data.preprocess import SignalConfig
from data.records import Facts, Record, RecordError, record_files

N_RECORDS = 1024  # in a shard at most
N_BYTES = 2**27  # of the signal files of its recordings (or a single recording)
FEW = 4  # shards; so many are written here, for another process takes seconds to start
HASH_BYTES = 16  # of a signal's hash: no two of any number of recordings share it by chance
STAMP_BYTES = 8  # of the hash of its files' sizes and times


class ShardError(RuntimeError):
    """A shard is not what was written; the message says which recording."""


class Shards:
    """Signal files of a cache.

    Args:
        folder: where they lie.
        n_leads: of every recording.
        first: (S + 1,) rows of the recordings with which they begin, and the number of all.
        offsets: (R + 1,) of all recordings one after another, in samples of any lead.
        crc: (R,) CRC-32 of the recordings.
    """

    def __init__(self, folder: Path, n_leads: int, first: np.ndarray, offsets: np.ndarray, crc: np.ndarray):
        self.folder = folder
        self.n_leads = n_leads
        self.first = first.tolist()
        self.offsets = offsets
        self.crc = crc
        self.maps = [None] * (len(first) - 1)

    def signal(self, i: int) -> np.ndarray:
        """(n_leads, T_i) int16 view in microvolts. Raises ShardError."""
        shard = self.shard_of(i)
        if self.maps[shard] is None:
            self.maps[shard] = self._opened(shard)
        start = self.offsets[self.first[shard]]
        return self.maps[shard][self.offsets[i] - start : self.offsets[i + 1] - start].reshape(self.n_leads, -1)

    def shard_of(self, i: int) -> int:
        return bisect_right(self.first, i) - 1

    def open_all(self) -> None:
        for shard, (first, last) in enumerate(zip(self.first, self.first[1:])):
            if first < last and self.maps[shard] is None:
                self.maps[shard] = self._opened(shard)

    def check_sizes(self) -> None:
        """Raises ShardError, or OSError, unless every file is there and as long as its recordings."""
        for shard, (first, last) in enumerate(zip(self.first, self.first[1:])):
            file = shard_file(self.folder, shard)
            if os.stat(file).st_size != 2 * (self.offsets[last] - self.offsets[first]):
                raise ShardError(f"{file.name} has another size than when it was written")

    def _opened(self, shard: int) -> np.ndarray:
        file = shard_file(self.folder, shard)
        first, last = self.first[shard : shard + 2]
        try:
            with open(file, "rb", opener=open_regular) as stored:
                # Read rather than mapped: mapped pages would count as this process's memory.
                for i, size in enumerate(np.diff(self.offsets[first : last + 1]).tolist(), first):
                    if zlib.crc32(stored.read(2 * size)) != self.crc[i]:
                        raise ShardError(f"recording {i} in {file.name} has another checksum than when it was written")
                # Slices of a plain array take half the time of a memmap's.
                return np.memmap(stored, dtype="<i2", mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise ShardError(f"{file.name} cannot be read ({error})") from None


class Entry(NamedTuple):
    """What a cache holds of a recording beside its signal."""

    crc: int
    signal_hash: bytes
    constant: bool
    covariates: np.ndarray  # (N_COVARIATES,)
    dx: Sequence[str]
    warnings: Sequence[str]


class Kept(NamedTuple):
    """A recording in an earlier cache, for the new one if its files are as they were."""

    file: Path  # of the shard
    start: int  # of the signal in it, in bytes
    size: int  # samples of all leads
    stamp: bytes
    entry: Entry


def layout_of(path: str, files: Sequence[str]) -> tuple[str, ...]:
    """The names of a recording's files as they follow from its own, so that those of a data set are mostly the same:
    ('/.hea', '/.mat'), where '/' stands for the recording's name.

    Args:
        path: of the recording, without ending.
        files: paths of its files, all in the folder of `path`.
    """
    stem = os.path.basename(path)
    names = [os.path.basename(file) for file in files]
    return tuple("/" + name[len(stem) :] if name.startswith(stem) else name for name in names)


def laid_out(path: str, layout: Sequence[str]) -> list[str]:
    """Paths of the files of a recording; the inverse of `layout_of`."""
    folder = os.path.dirname(path)
    return [path + name[1:] if name[0] == "/" else os.path.join(folder, name) for name in layout]


def shard_file(folder: Path, shard: int) -> Path:
    return folder / f"signals_{shard:05d}.i16"


def file_stamp(paths: Sequence[str], facts: Facts | None = None) -> bytes:
    """STAMP_BYTES bytes that change with the size or the time of change of any of the files, or if one goes, and with
    what a table says of the recording. Links are followed.
    """
    parts = [] if facts is None else [repr(facts)]
    for path in paths:
        try:
            stat = os.stat(path)
            parts.append(f"{stat.st_size} {stat.st_mtime_ns}")
        except OSError:
            parts.append("-")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=STAMP_BYTES).digest()


def skipped_row(record: Record, error: RecordError) -> dict:
    """Row of a recording in the list of those that could not be read."""
    return {"record": record.name, "stage": error.stage, "reason": str(error)}


def write_shards(
    records: Sequence[Record],
    config: SignalConfig,
    folder: Path,
    workers: int,
    quiet: bool,
    kept: Mapping[str, Kept],
) -> list[dict]:
    """Write the signals of all recordings.

    Args:
        records: what to read.
        config: how it is preprocessed.
        folder: where the shards are written.
        workers: processes, this one included.
        quiet: whether to show no progress.
        kept: recordings of an earlier cache by name, which need not be read again if their files have not changed.

    Returns:
        what `_write_shard` returns, one a shard.
    """
    tasks = []
    for shard, chunk in enumerate(chunks(records, N_RECORDS, N_BYTES)):
        known = {record.name: kept[record.name] for record in chunk if record.name in kept}
        tasks.append((chunk, config, shard_file(folder, shard), known))
    parts = [None] * len(tasks)
    threads = torch.get_num_threads()
    with tqdm(total=len(records), desc="Reading recordings", unit="rec", disable=quiet) as bar:
        torch.set_num_threads(1)  # every core has a process of its own
        try:
            if workers > 1 and len(tasks) > FEW and not multiprocessing.current_process().daemon:
                _write_together(tasks, parts, workers, bar)
            for shard, task in enumerate(tasks):
                if parts[shard] is None:
                    parts[shard] = _write_shard(*task)
                    bar.update(len(task[0]))
        finally:
            torch.set_num_threads(threads)
    return parts


def _write_together(tasks, parts, workers, bar):
    """Fill in `parts`, this process working from the last shard to the first while the others start and work from the
    first to the last. What is still missing when one of them dies is left to the caller.
    """
    pool = ProcessPoolExecutor(min(workers, len(tasks)) - 1, multiprocessing.get_context("spawn"), _begin_worker)
    try:
        futures = [pool.submit(_write_shard, *task) for task in tasks]
        for shard, (future, task) in reversed(list(enumerate(zip(futures, tasks)))):
            if future.cancel():
                parts[shard] = _write_shard(*task)
                bar.update(len(task[0]))
        for shard, (future, task) in enumerate(zip(futures, tasks)):
            if not future.cancelled():
                parts[shard] = future.result()
                bar.update(len(task[0]))
    except BrokenProcessPool:
        pass
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker():
    """In a new process: it leaves Ctrl-C to its parent, and ends with it however that dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _write_shard(
    records: Sequence[Record], config: SignalConfig, file: Path, kept: Mapping[str, Kept]
) -> dict[str, list | np.ndarray]:
    """Write the signals of a shard one after another.

    Args:
        records: what to read.
        config: how it is preprocessed.
        file: the shard.
        kept: recordings of an earlier cache by name.

    Returns:
        names, dx, layouts and sizes of the n recordings that could be read, skipped and warnings (lists); crc (n,),
        hashes (n, HASH_BYTES), stamps (n, STAMP_BYTES), constant (n,) and covariates (n, N_COVARIATES).
    """
    part = {name: [] for name in ("names", "dx", "layouts", "sizes", "skipped", "warnings")}
    # Arrays, not lists of them: small arrays between large ones would scatter the memory.
    arrays = {
        "crc": np.empty(len(records), np.uint32),
        "hashes": np.empty((len(records), HASH_BYTES), np.uint8),
        "stamps": np.empty((len(records), STAMP_BYTES), np.uint8),
        "constant": np.empty(len(records), bool),
        "covariates": np.empty((len(records), N_COVARIATES), np.float32),
    }
    with written(file) as out:
        for record in records:
            paths = record_files(record)
            # Before reading: what changes meanwhile is read again the next time.
            stamp = file_stamp(paths, record.facts)
            signal, entry = _from_earlier(kept.get(record.name), stamp)
            if signal is None:
                try:
                    signal, entry = _read_anew(record, config)
                except RecordError as error:
                    part["skipped"].append(skipped_row(record, error))
                    continue
            out.write(signal)
            row = len(part["names"])
            arrays["crc"][row] = entry.crc
            arrays["hashes"][row] = np.frombuffer(entry.signal_hash, np.uint8)
            arrays["stamps"][row] = np.frombuffer(stamp, np.uint8)
            arrays["constant"][row] = entry.constant
            arrays["covariates"][row] = entry.covariates
            part["names"].append(record.name)
            part["dx"].append(list(entry.dx))
            part["layouts"].append(layout_of(record.path, paths))
            part["sizes"].append(signal.size)
            part["warnings"] += [[record.name, warning] for warning in entry.warnings]
    return part | {name: values[: len(part["names"])] for name, values in arrays.items()}


def _read_anew(record: Record, config: SignalConfig) -> tuple[np.ndarray, Entry]:
    """-> signal (n_leads, T) '<i2' microvolts, what the cache holds beside it."""
    microvolts, covariates, header, warnings = read_input(record, config)
    signal = np.ascontiguousarray(microvolts, "<i2")
    return signal, Entry(
        crc=zlib.crc32(signal),
        signal_hash=hashlib.blake2b(signal, digest_size=HASH_BYTES).digest(),
        constant=not (signal != signal[:, :1]).any(),
        covariates=covariates,
        dx=header.dx,
        warnings=warnings,
    )


def _from_earlier(kept: Kept | None, stamp: bytes) -> tuple[np.ndarray, Entry] | tuple[None, None]:
    """-> signal (n_leads * T,) '<i2' microvolts and the rest as an earlier cache has them; None for both if that has
    none, an older one or a damaged one.
    """
    if kept is None or kept.stamp != stamp:
        return None, None
    try:
        signal = np.fromfile(kept.file, "<i2", kept.size, offset=kept.start)
    except (OSError, ValueError):
        return None, None
    if signal.size != kept.size or zlib.crc32(signal) != kept.entry.crc:
        return None, None
    return signal, kept.entry
