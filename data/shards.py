"""Shards of a signal cache: files of up to a thousand recordings, written by all cores and read where they are needed.

A recording lies in one shard as a whole. A shard is opened when the first of its recordings is asked for, and its
checksums are compared then; so a process that trains on some of the recordings never touches the others' files.
"""

import multiprocessing
import os
import signal
import threading
import zlib
from bisect import bisect_right
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from tqdm import tqdm

from data.covariates import N_COVARIATES
from data.files import open_regular, written
from data.inputs import chunks, read_input
from data.records import RecordError

N_RECORDS, N_BYTES = 1024, 2**27  # in a shard: recordings, and bytes of their signal files (or a single recording)
FEW = 4  # shards; so many are written here, for another process takes seconds to start


class ShardError(RuntimeError):
    """A shard is not what was written; the message says which recording."""


class Shards:
    """Signal files of a cache. first (S + 1,): rows of the recordings with which they begin; offsets (R + 1,): of all
    recordings one after another, in samples; crc (R,).
    """

    def __init__(self, folder, first, offsets, crc):
        self.folder, self.first, self.offsets, self.crc = folder, first.tolist(), offsets, crc
        self.maps = [None] * (len(first) - 1)

    def signal(self, i):
        """(12, T_i) int16 view in microvolts. Raises ShardError."""
        shard = bisect_right(self.first, i) - 1
        if self.maps[shard] is None:
            self.maps[shard] = self._opened(shard)
        start = self.offsets[self.first[shard]]
        return self.maps[shard][self.offsets[i] - start : self.offsets[i + 1] - start].reshape(12, -1)

    def open_all(self):
        for shard, (first, last) in enumerate(zip(self.first, self.first[1:])):
            if first < last and self.maps[shard] is None:
                self.maps[shard] = self._opened(shard)

    def check_sizes(self):
        """Raises ShardError, or OSError, unless every file is there and as long as its recordings."""
        for shard, (first, last) in enumerate(zip(self.first, self.first[1:])):
            file = shard_file(self.folder, shard)
            if os.stat(file).st_size != 2 * (self.offsets[last] - self.offsets[first]):
                raise ShardError(f"{file.name} has another size than when it was written")

    def _opened(self, shard):
        file, (first, last) = shard_file(self.folder, shard), self.first[shard : shard + 2]
        try:
            with open(
                file, "rb", opener=open_regular
            ) as stored:  # read rather than mapped: mapped pages would count as this process's memory
                for i, size in enumerate(np.diff(self.offsets[first : last + 1]).tolist(), first):
                    if zlib.crc32(stored.read(2 * size)) != self.crc[i]:
                        raise ShardError(f"recording {i} in {file.name} has another checksum than when it was written")
                return np.memmap(stored, dtype="<i2", mode="r").view(
                    np.ndarray
                )  # slices of a plain array take half the time
        except (OSError, ValueError) as error:
            raise ShardError(f"{file.name} cannot be read ({error})") from None


def shard_file(folder, shard):
    return folder / f"signals_{shard:05d}.i16"


def write_shards(records, config, folder, workers, quiet):
    """Write all recordings, in as many processes as `workers`; -> list of what `_write_shard` returns, one a shard."""
    tasks = [
        (chunk, config, shard_file(folder, shard)) for shard, chunk in enumerate(chunks(records, N_RECORDS, N_BYTES))
    ]
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


def _write_shard(records, config, file):
    """Write the signals of a shard one after another; -> dict of lists: names, dx, sizes and crc of the recordings
    that could be read and covariates (an array), skipped and warnings.
    """
    part = {name: [] for name in ("names", "dx", "sizes", "crc", "skipped", "warnings")}
    kept = np.empty(
        (len(records), N_COVARIATES), np.float32
    )  # not a list: small arrays between large ones would scatter the memory
    with written(file) as out:
        for record in records:
            try:
                microvolts, covariates, header, remarks = read_input(record, config)
            except RecordError as error:
                part["skipped"].append({"record": record.name, "stage": error.stage, "reason": str(error)})
                continue
            data = np.ascontiguousarray(microvolts, "<i2")
            out.write(data)
            kept[len(part["names"])] = covariates
            for name, value in zip(part, (record.name, header.dx, microvolts.size, zlib.crc32(data))):
                part[name].append(value)
            part["warnings"] += [(record.name, remark) for remark in remarks]
    return part | {"covariates": kept[: len(part["names"])]}
