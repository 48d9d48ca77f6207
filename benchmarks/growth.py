"""What 1,000, 10,000 and 100,000 recordings cost, in time and memory: python -m benchmarks.growth

The recordings are links to those of the input folder, hard ones where the file system can, for a symbolic link costs
a look-up of its own. Every step is a process of its own; its memory is the most that it had at once, beyond the
program itself. Workers that build a cache have each as much as one recording and the program.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import torch

from benchmarks.recordings import SAMPLE, replicate
from benchmarks.timing import machine
from data.cache import SignalCache, open_cache
from data.dataset import TrainBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig
from data.records import find_records, read_header

SIZES = (1000, 10_000, 100_000)
COLUMNS = ("recordings", "step", "seconds", "seconds of all cores", "recordings a second", "memory, MiB")


def find(folder: Path, cache: Path) -> None:
    """Find all recordings."""
    find_records(folder)


def parse_headers(folder: Path, cache: Path) -> None:
    """Find all recordings and parse their headers."""
    for record in find_records(folder):
        read_header(record.path)


def open_signals(folder: Path, cache: Path) -> SignalCache:
    """Find all recordings and open their cache, which is built if it is not there."""
    return open_cache(find_records(folder), SignalConfig(), cache, workers=os.cpu_count(), quiet=True)


def one_epoch(folder: Path, cache: Path) -> np.ndarray:
    """Batches of all recordings, as train.py cuts them -> where the clocks stood when the cache was open."""
    signals = open_signals(folder, cache)
    data = unlabelled_dataset(signals, read_metadata(None, signals.names))
    batches = TrainBatches(data, np.arange(len(signals)), 250, 64, 1)
    begin = clocks()
    for _ in batches.epoch(1):
        pass
    return begin


# {step: function}: one after another, so the cache is built by the third and found by the others.
STEPS: dict[str, Callable] = {
    "find": find,
    "find, parse headers": parse_headers,
    "find, build the cache": open_signals,
    "find, open the cache": open_signals,
    "one epoch of batches": one_epoch,
}


def peak() -> int:
    """Most bytes of this process so far."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clocks() -> np.ndarray:
    """Seconds on the wall, and of all cores for this process and those that it started."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def run(step: str, folder: Path, cache: Path, answers: SimpleQueue) -> None:
    """Take one step, and put (seconds, seconds of all cores, bytes) into `answers`.

    Args:
        step: one of STEPS.
        folder: the recordings.
        cache: folder for the preprocessed signals.
        answers: a queue.
    """
    torch.set_num_threads(1)
    before = peak()
    begin = clocks()
    result = STEPS[step](folder, cache)
    if isinstance(result, np.ndarray):
        begin = result  # opening the cache is a step of its own
    seconds, cores = clocks() - begin
    answers.put((seconds, cores, peak() - before))


def measure(folder: Path, sizes: Sequence[int]) -> Iterator[dict]:
    """Yield a dict of each step and number of recordings."""
    originals = find_records(folder)
    spawn = multiprocessing.get_context("spawn")
    for n in sizes:
        with tempfile.TemporaryDirectory() as top:
            replicate(originals, Path(top, "in"), n)
            for step in STEPS:
                answers = spawn.SimpleQueue()
                process = spawn.Process(target=run, args=(step, Path(top, "in"), Path(top, "cache"), answers))
                process.start()
                process.join()
                if process.exitcode:
                    raise RuntimeError(f"{step} of {n} recordings failed")
                seconds, cores, memory = answers.get()
                yield {
                    "recordings": n,
                    "step": step,
                    "seconds": seconds,
                    "core_seconds": cores,
                    "per_second": n / seconds,
                    "bytes": memory,
                }


def line(row: dict) -> str:
    """Markdown."""
    cells = (
        f"{row['recordings']:,}",
        row["step"],
        f"{row['seconds']:.2f}",
        f"{row['core_seconds']:.2f}",
        f"{row['per_second']:,.0f}",
        f"{row['bytes'] / 2**20:,.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print and store the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input_folder", type=Path, default=SAMPLE, help="recordings in the Challenge's layout (default: data/sample)"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="numbers of recordings (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="store the rows in this file")
    args = parser.parse_args()
    print(f"{machine()}; {os.cpu_count()} cores\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    rows = []
    for row in measure(args.input_folder, args.sizes):
        rows.append(row)
        print(line(row), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
