"""What 1,000, 10,000 and 100,000 recordings cost, in time and memory: python -m benchmarks.growth

The recordings are links to those of the input folder, hard ones where the file system can, for a symbolic link costs
a look-up of its own. Every step is a process of its own; its memory is the most that it had at once, beyond the
program itself. Workers that build a cache have each as much as one recording and the program.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import machine
from data.cache import open_cache
from data.dataset import TrainBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig
from data.records import find_records, read_header

SIZES = 1000, 10_000, 100_000
SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"


def replicate(originals, folder, n):
    """n recordings, links to the original ones, each name once in a sub-folder."""
    for number, record in zip(range(n), itertools.cycle(originals)):
        place = folder / f"{number // len(originals):05d}"
        place.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".mat"):
            original, link = os.path.abspath(record.path + ending), place / (record.record_id + ending)
            try:
                os.link(original, link)
            except OSError:
                os.symlink(original, link)


def find(folder, cache):
    return find_records(folder)


def parse_headers(folder, cache):
    for record in find_records(folder):
        read_header(record.path)


def build_cache(folder, cache):
    return open_cache(find_records(folder), SignalConfig(), cache, workers=os.cpu_count(), quiet=True)


def open_built_cache(folder, cache):
    return build_cache(folder, cache)


def epoch(folder, cache):
    """Batches of all recordings, as train.py cuts them; -> where the clocks stood when the cache was open."""
    opened = build_cache(folder, cache)
    batches = TrainBatches(
        unlabelled_dataset(opened, read_metadata(None, opened.names)), np.arange(len(opened)), 250, 64, 1
    )
    begin = clocks()
    for _ in batches.epoch(1):
        pass
    return begin


EPOCH = "one epoch of batches"
STEPS = {
    "find": find,
    "find, parse headers": parse_headers,
    "find, build the cache": build_cache,
    "find, open the cache": open_built_cache,
    EPOCH: epoch,
}


def peak():
    """Most bytes of this process so far."""
    try:
        return next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def clocks():
    """Seconds on the wall, and of all cores for this process and those that it started."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def run(step, folder, cache, answers):
    torch.set_num_threads(1)
    before, begin = peak(), clocks()
    result = STEPS[step](folder, cache)
    seconds, cores = clocks() - (result if step == EPOCH else begin)
    answers.put((seconds, cores, peak() - before))


def measure(folder, sizes):
    """Yield a dict of each step and number of recordings."""
    originals, spawn = find_records(folder), multiprocessing.get_context("spawn")
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input_folder", type=Path, default=SAMPLE, help="recordings in the Challenge's layout (default: data/sample)"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="numbers of recordings (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="store the rows in this file")
    args = parser.parse_args()
    rows = []
    print(
        f"{machine()}; {os.cpu_count()} cores\n\n| recordings | step | seconds | seconds of all cores | recordings a second | memory, MiB |\n|---|---|---|---|---|---|"
    )
    for row in measure(args.input_folder, args.sizes):
        rows.append(row)
        print(
            f"| {row['recordings']:,} | {row['step']} | {row['seconds']:.2f} | {row['core_seconds']:.2f} | {row['per_second']:,.0f} | {row['bytes'] / 2**20:,.0f} |",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
