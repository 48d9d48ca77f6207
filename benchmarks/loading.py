"""Headers, samples, resampling, cache, batches: python -m benchmarks.loading"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import scipy.signal
import torch
import wfdb

from benchmarks.growth import replicate
from benchmarks.reference import load_recording
from benchmarks.timing import compare, report
from data.cache import open_cache
from data.dataset import TrainBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig, preprocess
from data.records import find_records, read_header, read_record
from data.resample import resample

N_HEADERS, N_FEW, N_READ, N_CACHE, N_CACHE_TOGETHER = 88_253, 200, 200, 2000, 20_000


def headers(records, folder):
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


def reading(records):
    """Rows of reading recordings of 10 s at 500 Hz to float32 mV."""
    config, paths = SignalConfig(sample_freq=500.0), [record.path for record in records]

    def ours():
        for record in records:
            preprocess(*read_record(record), config)

    args = {"n": len(records), "limit": "18,300/s, header known"}
    yield compare(
        "read 500 Hz to float32 mV",
        ours,
        lambda: [wfdb.rdrecord(path) for path in paths],
        reference_name="wfdb.rdrecord",
        goal="30x",
        **args,
    )
    yield compare(
        "read 500 Hz to float32 mV",
        ours,
        lambda: [load_recording(path) for path in paths],
        reference_name="loadmat and header",
        goal="3x",
        **args,
    )


def resampling():
    """Rows of resampling 12 leads of 10 s from 500 Hz to 100 Hz."""
    x = np.random.default_rng(0).standard_normal((12, 5000)).astype(np.float32)
    error = np.abs(
        resample(x, 500, 100)[:, 50:-50] - scipy.signal.resample_poly(x.astype(float), 1, 5, axis=1)[:, 50:-50]
    ).max()
    for name, function in (
        ("resample_poly", lambda: scipy.signal.resample_poly(x, 1, 5, axis=1)),
        ("decimate", lambda: scipy.signal.decimate(x, 5, axis=1)),
    ):
        yield compare(
            f"resample 500 to 100 Hz (apart from resample_poly by {error:.0e} within)",
            lambda: resample(x, 500, 100),
            function,
            n=1,
            reference_name=name,
            goal="2.5x" if name == "resample_poly" else "",
            repetitions=30,
        )


def cache_and_batches(records, folder):
    """Rows of building a cache of recordings that are linked, and of cutting batches from it."""
    replicate(records, folder / "in", N_CACHE_TOGETHER)
    linked, caches = find_records(folder / "in"), iter(range(100))

    def build(n, workers):
        place = folder / f"cache{next(caches)}"
        open_cache(linked[:n], SignalConfig(sample_freq=100.0), place, workers, quiet=True)
        shutil.rmtree(place)

    n_cores = os.cpu_count()
    yield compare(
        f"build a cache of {N_CACHE:,} recordings, one core",
        lambda: build(N_CACHE, 1),
        n=N_CACHE,
        goal="1,500/s",
        repetitions=3,
    )
    yield compare(
        f"build a cache of {N_CACHE_TOGETHER:,} recordings, {n_cores} cores",
        lambda: build(N_CACHE_TOGETHER, n_cores),
        n=N_CACHE_TOGETHER,
        goal=f"{1500 * n_cores:,}/s",
        repetitions=3,
    )
    cache = open_cache(linked[:N_CACHE], SignalConfig(sample_freq=100.0), folder / "cache", 1, quiet=True)
    data = unlabelled_dataset(cache, read_metadata(None, cache.names))
    for seq_length in (250, 1000):
        batches = TrainBatches(data, np.arange(len(data)), seq_length, 64, 1)
        yield compare(
            f"batches of {seq_length} samples, one thread",
            lambda: sum(1 for _ in batches.epoch(1)),
            n=len(batches) * 64,
            goal="20,000/s",
        )


def measure(folder):
    """Headers, samples, resampling, cache, batches."""
    records = find_records(folder)[:N_READ]
    with tempfile.TemporaryDirectory() as top:
        for name in ("headers", "cache"):
            Path(top, name).mkdir()
        yield from headers(records, Path(top, "headers"))
        at_500_hz = [
            record
            for record in records
            if read_header(record.path).sample_freq == 500 and read_header(record.path).n_samples == 5000
        ]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield from reading(at_500_hz)
        yield from resampling()
        yield from cache_and_batches(at_500_hz, Path(top, "cache"))
        torch.set_num_threads(threads)


if __name__ == "__main__":
    report(measure)
