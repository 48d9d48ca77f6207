"""Headers, samples, resampling, cache, batches: python -m benchmarks.loading"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.signal
import torch
import wfdb

from benchmarks.recordings import of_10_s_at_500_hz, replicate
from benchmarks.reference import load_recording
from benchmarks.timing import Row, compare, report
from data.cache import open_cache
from data.dataset import TrainBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig, preprocess
from data.records import Record, find_records, read_header, read_record
from data.resample import resample

N_HEADERS = 88_253  # as many as the Challenge of 2021 has
N_FEW = 200  # headers for the slow reader
N_READ = 200  # recordings that are read
N_CACHE = 2000  # by one core
N_CACHE_TOGETHER = 20_000  # by all


def headers(records: Sequence[Record], folder: Path) -> Iterator[Row]:
    """Rows of finding and parsing as many headers as the Challenge of 2021 has."""
    texts = [Path(f"{record.path}.hea").read_bytes() for record in records]
    for i in range(N_HEADERS):
        place = folder / f"g{i // 1000}"
        place.mkdir(exist_ok=True)
        (place / f"x{i:06d}.hea").write_bytes(texts[i % len(texts)])

    def scan():
        for record in find_records(folder):
            read_header(record.path)

    few = [record.path for record in find_records(folder)[:N_FEW]]
    yield compare(
        f"find and parse {N_HEADERS:,} headers",
        scan,
        lambda: [wfdb.rdheader(path) for path in few],
        n=N_HEADERS,
        n_reference=N_FEW,
        reference_name="wfdb.rdheader",
        goal="80x, 35,300/s (2.5 s)",
        limit="154,000/s to open and read",
        repetitions=3,
    )


def reading(records: Sequence[Record]) -> Iterator[Row]:
    """Rows of reading recordings of 10 s at 500 Hz to float32 mV."""
    config = SignalConfig(sample_freq=500.0)
    paths = [record.path for record in records]

    def ours():
        for record in records:
            preprocess(*read_record(record), config)

    references = {
        "wfdb.rdrecord": (lambda: [wfdb.rdrecord(path) for path in paths], "30x"),
        "loadmat and header": (lambda: [load_recording(path) for path in paths], "3x"),
    }
    for name, (reference, goal) in references.items():
        yield compare(
            "read 500 Hz to float32 mV",
            ours,
            reference,
            n=len(records),
            reference_name=name,
            goal=goal,
            limit="18,300/s, header known",
        )


def resampling() -> Iterator[Row]:
    """Rows of resampling 12 leads of 10 s from 500 Hz to 100 Hz."""
    x = np.random.default_rng(0).standard_normal((12, 5000)).astype(np.float32)
    exact = scipy.signal.resample_poly(x.astype(float), 1, 5, axis=1)
    error = np.abs(resample(x, 500, 100) - exact)[:, 50:-50].max()  # away from the ends
    references = {
        "resample_poly": (lambda: scipy.signal.resample_poly(x, 1, 5, axis=1), "2.5x"),
        "decimate": (lambda: scipy.signal.decimate(x, 5, axis=1), ""),
    }
    for name, (reference, goal) in references.items():
        yield compare(
            f"resample 500 to 100 Hz (apart from resample_poly by {error:.0e} within)",
            lambda: resample(x, 500, 100),
            reference,
            reference_name=name,
            goal=goal,
            repetitions=30,
        )


def cache_and_batches(records: Sequence[Record], folder: Path) -> Iterator[Row]:
    """Rows of building a cache of recordings that are linked, and of cutting batches from it."""
    replicate(records, folder / "in", N_CACHE_TOGETHER)
    linked = find_records(folder / "in")
    config = SignalConfig(sample_freq=100.0)

    def build(n, workers):
        place = folder / "built"
        open_cache(linked[:n], config, place, workers, quiet=True)
        shutil.rmtree(place)

    n_cores = os.cpu_count()
    for n, workers, cores in ((N_CACHE, 1, "one core"), (N_CACHE_TOGETHER, n_cores, f"{n_cores} cores")):
        yield compare(
            f"build a cache of {n:,} recordings, {cores}",
            functools.partial(build, n, workers),
            n=n,
            goal=f"{1500 * workers:,}/s",
            repetitions=3,
        )
    cache = open_cache(linked[:N_CACHE], config, folder / "cache", 1, quiet=True)
    data = unlabelled_dataset(cache, read_metadata(None, cache.names))
    for seq_length in (250, 1000):
        batches = TrainBatches(data, np.arange(len(data)), seq_length, 64, 1)
        yield compare(
            f"batches of {seq_length} samples, one thread",
            functools.partial(_use_up, batches),
            n=len(batches) * 64,
            goal="20,000/s",
        )


def _use_up(batches):
    for _ in batches.epoch(1):
        pass


def measure(folder: Path) -> Iterator[Row]:
    """Headers, samples, resampling, cache, batches."""
    records = find_records(folder)[:N_READ]
    with tempfile.TemporaryDirectory() as top:
        for name in ("headers", "cache"):
            Path(top, name).mkdir()
        yield from headers(records, Path(top, "headers"))
        at_500_hz = of_10_s_at_500_hz(records)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield from reading(at_500_hz)
        yield from resampling()
        yield from cache_and_batches(at_500_hz, Path(top, "cache"))
        torch.set_num_threads(threads)


if __name__ == "__main__":
    report(measure)
