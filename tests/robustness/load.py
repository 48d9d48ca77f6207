"""Many recordings and readers: time and memory of finding, caching and classifying, and whether all readers agree.

    python tests/robustness/load.py     1,000, 10,000 and 100,000 recordings, 200 readers, a day of signal
    python tests/robustness/load.py --sizes 1000 --readers 20 --hours 1 --classify 100

The recordings are links to those of data/sample. Every step is a process of its own, whose peak resident memory is
printed beside that of the same process with a single recording: the programs and the model themselves. The model is a
small network, trained here for an epoch, so that reading and writing are what is measured. The exit status is 1 if a
step needs more than 1.5 GiB beyond that (and, for the day, twice the size of its file), if a number of files or
recordings is wrong, or if readers disagree.
"""

import argparse
import os
import re
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch
from conftest import fake_ecg, write_record

import driver
import train
from data.cache import open_cache
from data.preprocess import SignalConfig
from data.records import find_records

SAMPLE = ROOT / "data" / "sample"
LIMIT = 1.5 * 2**30  # bytes beside the program and the model
TINY = ["--stem", "8", "--widths", "8", "8", "--depths", "1", "1", "--epochs", "1", "--no-plots"]


def replicate(folder, n):
    """n recordings, links to those of the sample, each name once in a sub-folder; -> folder."""
    originals = sorted(SAMPLE.rglob("*.hea"))
    for i in range(n):
        header = originals[i % len(originals)]
        place = folder / f"{i // len(originals):05d}"
        place.mkdir(parents=True, exist_ok=True)
        for file in (header, header.with_suffix(".mat")):
            (place / file.name).symlink_to(file)
    return folder


def in_process(function, *args, log=os.devnull):
    """function(*args) in a forked process, its output in `log`; -> (seconds, peak resident bytes). AssertionError
    unless it ends with status 0.
    """
    begin = time.perf_counter()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            status = int(function(*args) or 0)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, f"{function.__name__}{args}: status {status}\n{Path(log).read_text()[-2000:]}"
    return time.perf_counter() - begin, usage.ru_maxrss * 1024


def find(folder, n):
    assert len(find_records(folder)) == n


def cache(folder, n, place):
    assert len(open_cache(find_records(folder), SignalConfig(sample_freq=100.0), place, workers=os.cpu_count())) == n


def classify(model, folder, out):
    return driver.main([str(model), str(folder), str(out)])


def told_the_truth(log, n):
    """Whether the progress bar never went back, and its last count and its total are n."""
    counts = [tuple(map(int, pair)) for pair in re.findall(r"(\d+)/(\d+) \[", log.read_text())]
    totals = {total for _, total in counts}
    return counts[-1] == (n, n) and totals == {n} and counts == sorted(counts)


def measure(steps, base, limit=LIMIT):
    """Run (name, n, function, args, log) one after another and print seconds and memory; `base` are the bytes of each
    function alone.
    """
    for name, n, function, args, log in steps:
        seconds, peak = in_process(function, *args, log=log)
        more = peak - base.get(function, 0)
        print(
            f"{name:<10} {n:>7} recordings {seconds:8.1f} s {n / seconds:8.0f} a second   "
            f"peak {peak / 2**20:6.0f} MiB, {more / 2**20:6.0f} more than for one",
            flush=True,
        )
        assert more < limit, f"{name}: needs more than {limit / 2**30:.1f} GiB"


def read_cache(folder, place, pipe):
    """Open a cache (or build it), read all of it and write its checksum into the pipe."""
    opened = open_cache(find_records(folder), SignalConfig(sample_freq=100.0), place, workers=1, quiet=True)
    total = 0
    for i in np.random.default_rng(os.getpid()).permutation(len(opened)):  # each in another order
        total ^= zlib.crc32(opened.signal(i), i)
    os.write(pipe, f"{total}\n".encode())


def agree(folder, place, n):
    """n processes at once read a cache that none of them finds ready: they must agree, and leave one cache."""
    read, write = os.pipe()
    pids = []
    for _ in range(n):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                read_cache(folder, place, write)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert not any(os.waitpid(pid, 0)[1] for pid in pids), "a reader failed"
    os.close(write)
    with os.fdopen(read) as answers:
        answers = answers.read().split()
    assert len(answers) == n and len(set(answers)) == 1, "readers disagree"
    assert len(list(place.iterdir())) == 1, "there are other files beside the cache"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[1000, 10_000, 100_000],
        help="numbers of recordings (default: 1000 10000 100000)",
    )
    parser.add_argument(
        "--classify",
        type=int,
        default=100_000,
        help="classify folders of at most so many recordings (default: %(default)s)",
    )
    parser.add_argument("--readers", type=int, default=200, help="of one cache at once (default: %(default)s)")
    parser.add_argument(
        "--hours", type=float, default=24, help="length of a long recording at 500 Hz (default: %(default)s)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # the first optimizer imports for a second
    with tempfile.TemporaryDirectory() as top:
        measure_all(Path(top), args)


def measure_all(top, args):
    """Everything that the flags ask for, in the folder `top`."""
    log = top / "log"
    model = top / "model"
    single = top / "single"
    rng = np.random.default_rng(0)
    training = ["--input_folder", str(SAMPLE), "--folder", str(model), "--cache", str(top / "cache"), *TINY]
    in_process(train.main, training, log=log)
    write_record(single, "x", fake_ecg(rng))
    base = {
        find: in_process(find, single, 1)[1],
        cache: in_process(cache, single, 1, top / "cache_1")[1],
        classify: in_process(classify, model, single, top / "out_1", log=log)[1],
    }
    peaks = ", ".join(f"{step.__name__} {peak / 2**20:.0f} MiB" for step, peak in base.items())
    print(f"for one recording: {peaks}", flush=True)
    for n in args.sizes:
        folder = replicate(top / f"in_{n}", n)
        out = top / f"out_{n}"
        caching = (folder, n, top / f"cache_{n}")
        steps = [("find", n, find, (folder, n), log), ("cache", n, cache, caching, log)]
        steps += [("open cache", n, cache, caching, log)]
        measure(steps, base)
        if n <= args.classify:
            measure([("driver.py", n, classify, (model, folder, out), log)], base)
            assert told_the_truth(log, n), "the progress bar counts wrongly"
            answers = [file for file in out.rglob("*.csv") if file.name != "skipped_records.csv"]
            assert len(answers) == n, "not every recording has an answer"
    if args.readers:
        agree(SAMPLE, top / "shared_cache", args.readers)
        print(f"{args.readers} processes read one cache, built while they opened it, and agree", flush=True)
    if args.hours:
        write_record(top / "long", "x", np.tile(fake_ecg(rng, 60), int(args.hours * 60)))
        size = (top / "long" / "x.mat").stat().st_size
        measure([("driver.py", 1, classify, (model, top / "long", top / "out_long"), log)], base, LIMIT + 2 * size)
        print(f"    that one was {args.hours:g} h at 500 Hz, a file of {size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
