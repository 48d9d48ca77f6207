"""How fast a GPU trains by train.py and pretrain.py themselves, and how much of the time it computes."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

import pretrain
import train
from benchmarks.findings import Finding, call, on
from benchmarks.timing import with_range
from data.dataset import PrefetchBatches, ResidentBatches, TrainBatches
from engine.loop import Trainer

N_RECORDS = 4096
N_LONG = 1024  # for the predecessor's network, whose windows hold 16 times as many samples
EPOCHS = 6  # the first warms up, the last is profiled
PREDECESSOR = ("--encoder", "resnet", "--sample_freq", 400, "--seq_length", 4096)  # its sizes are the defaults


class Network(NamedTuple):
    """What is trained: by which script, with which flags and how many recordings."""

    name: str
    script: str
    flags: tuple
    n_records: int


NETWORKS = (
    Network("the default network", "train", (), N_RECORDS),
    Network("the predecessor's network", "train", PREDECESSOR, N_LONG),
    Network("pre-training", "pretrain", (), N_RECORDS),
)


def resident(*args: object) -> TrainBatches:
    """In place of `data.dataset.train_batches`: the training data on the device, however much room there is."""
    *args, device = args
    return ResidentBatches(*args, device=device)


def ahead(*args: object) -> TrainBatches:
    """In place of `data.dataset.train_batches`: batches prepared ahead, as of data that do not fit on the device."""
    return PrefetchBatches(*args[:-1])


VARIANTS = {
    "data on the GPU": (resident, ()),
    "batches prepared ahead": (ahead, ()),
    "data on the GPU, --compile": (resident, ("--compile",)),
}


def wait(device: str) -> None:
    """Until the device has done all that it was told to."""
    if device == "cuda":
        torch.cuda.synchronize()


class Epochs:
    """Stands in for `Trainer.train_one_epoch`: the same, with clocks read when the device has finished.

    Args:
        device: that trains.
        n: epochs of the run, of which the last is profiled.
    """

    def __init__(self, device: str, n: int):
        self.device = device
        self.n = n
        self.seconds = []  # of each epoch
        self.n_records = 0  # of an epoch
        self.busy = 0.0  # s of the last epoch in which the device computed
        self.train_one_epoch = Trainer.train_one_epoch

    def __call__(self, trainer: Trainer, batches: TrainBatches, epoch: int) -> dict[str, float]:
        self.n_records = len(batches) * batches.batch_size
        with self._profiler() if epoch == self.n else contextlib.nullcontext() as profiler:
            wait(self.device)
            start = time.perf_counter()
            row = self.train_one_epoch(trainer, batches, epoch)
            wait(self.device)
            self.seconds.append(time.perf_counter() - start)
        if profiler is not None:
            self.busy = busy_seconds(profiler, self.device)
        return row

    def _profiler(self) -> torch.profiler.profile:
        activity = torch.profiler.ProfilerActivity
        return torch.profiler.profile(activities=[activity.CUDA if self.device == "cuda" else activity.CPU])

    def findings(self, what: str) -> Iterator[Finding]:
        """Records a second and the share of the time that the device computes."""
        counted = self.seconds[1:-1]
        rates = sorted(self.n_records / seconds for seconds in counted)
        yield Finding(f"{what}: records/s", with_range(statistics.median(rates), (rates[0], rates[-1])))
        yield Finding(f"{what}: GPU busy", f"{100 * self.busy / statistics.median(counted):.0f} %")


def busy_seconds(profiler: torch.profiler.profile, device: str) -> float:
    """Seconds in which the device did something, by a profiler's trace."""
    kinds = ("kernel", "gpu_memcpy", "gpu_memset") if device == "cuda" else ("cpu_op",)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    return covered([(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in kinds]) / 1e6


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end)."""
    total = 0.0
    reached = float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def training(network: Network, variant: str, device: str, top: Path, n_epochs: int = EPOCHS) -> Iterator[Finding]:
    """One network trained by its script, with one of VARIANTS.

    Args:
        network: what is trained.
        variant: key of VARIANTS.
        device: "cuda"; or "cpu" to test this code.
        top: its folder in_N holds the N recordings; runs and caches go there.
        n_epochs: 3 or more: the first warms up, the last is profiled.
    """
    batches, flags = VARIANTS[variant]
    main = {"train": train.main, "pretrain": pretrain.main}[network.script]
    epochs = Epochs(device, n_epochs)
    data = ("--input_folder", top / f"in_{network.n_records}", "--cache", top / "cache", "--folder", top / "run")
    if network.script == "train":
        data += ("--valid_split", 0)  # validation is not what is measured; pre-training must have some
    torch.compiler.reset()
    with (
        mock.patch.object(Trainer, "train_one_epoch", lambda trainer, *args: epochs(trainer, *args)),
        mock.patch("engine.recordings.train_batches", batches),
    ):
        how = ("--epochs", n_epochs, "--overwrite", "--no-plots")
        call(main, *data, *network.flags, *how, *flags, *on(device), log=top / "log")
    if device == "cuda":
        torch.cuda.empty_cache()
    yield from epochs.findings(f"{network.name}, {variant}")
