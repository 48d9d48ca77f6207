"""The whole check of the code on a GPU in one command of at most ten minutes: python -m benchmarks.gpu

It compares with the processor what the shipped model answers, what a training without chance comes to, and what
driver.py writes; it measures training by train.py and pretrain.py themselves, and the share of the time in which the
GPU computes. With two GPUs, two processes share the work by NCCL. One Markdown table for docs/clusters.md comes out.
What fails, or would begin after eight minutes, is a line of the table like the rest. The exit status is 1 if a check
failed, or if there is no GPU and so nothing was measured.

How it is measured: the GPU is waited for before a clock is read; the first epoch, which warms up and compiles, does not
count; figures are the median of the next ones with the lowest and highest. "Busy" is the time covered by kernels and
copies in one more epoch, which torch.profiler watches and which does not count either (watched, it takes longer),
divided by the time of the median one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import torch

import pretrain
import train
from benchmarks.recordings import SAMPLE, of_10_s_at_500_hz, replicate
from benchmarks.runs import ROOT, read_history, run_python
from benchmarks.timing import machine, with_range
from data.dataset import PrefetchBatches, ResidentBatches, TrainBatches
from data.inputs import read_input
from data.records import find_records
from engine.explain import attribute
from engine.inference import load_predictor
from engine.loop import Trainer
from run_12ECG_classifier import DEFAULT_MODEL

NO_GPU = "benchmarks.gpu: there is no CUDA device (or this is a CPU build of PyTorch): nothing was measured"
LAST_START = 480  # s after which nothing is begun: so it ends within ten minutes
CLOSE = 1e-4  # between probabilities on the GPU and on the processor, in float32
TRAINED_CLOSE = 1e-2  # between losses of the two after some steps, relative: rounding grows from step to step
N_RECORDS = 4096
N_LONG = 1024  # for the predecessor's network, whose windows hold 16 times as many samples
EPOCHS = 6  # the first warms up, the last is profiled
WITHOUT_CHANCE = tuple(
    "--epochs 3 --no-bf16 --dropout 0 --head_dropout 0 --hide_covariates 0 --mixup 0 --gain 0 --band 0 --wander 0 "
    "--noise 0 --lead_dropout 0 --no-plots".split()
)
PREDECESSOR = ("--encoder", "resnet", "--sample_freq", 400, "--seq_length", 4096)  # its sizes are the defaults


class Finding(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    expected: str = ""
    passed: bool = True


def at_most(what: str, value: float, limit: float) -> Finding:
    """A figure that must not exceed a limit; NaN does."""
    return Finding(what, f"{value:.1e}", f"at most {limit:g}", value <= limit)


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


def on(device: str) -> tuple[str, ...]:
    """The flag that makes the scripts use a device."""
    return ("--cuda",) if device == "cuda" else ()


def wait(device: str) -> None:
    """Until the device has done all that it was told to."""
    if device == "cuda":
        torch.cuda.synchronize()


# ---- equal answers


def answers(device: str, folder: Path, model: Path = DEFAULT_MODEL) -> Iterator[Finding]:
    """The shipped model on a device beside the processor: probabilities, features and explanations.

    Args:
        device: "cuda"; or "cpu" to test this code.
        folder: of the recordings.
        model: another one to test this code.
    """
    host = load_predictor(model)
    there = load_predictor(model, device)
    read = [read_input(record, host.signal_config) for record in find_records(folder)]
    signals = [signal for signal, *_ in read]
    covariates = np.stack([row for _, row, *_ in read])  # (R, N_COVARIATES)
    expected = host.predict(signals, covariates)  # (R, C)
    found = there.predict(signals, covariates)
    n_other = int((there.decide(found) != host.decide(expected)).any(1).sum())
    about = f"shipped model, {len(signals)} recordings"
    yield at_most(f"{about}: probabilities apart from the processor's, float32", largest(found, expected), CLOSE)
    yield Finding(f"{about}: recordings with other diagnoses", str(n_other), "0", n_other == 0)
    features = largest(there.embed(signals[:20]), host.embed(signals[:20]))
    yield at_most("features of 20 recordings, apart, float32", features, 1e-3)
    column = int(expected[0].argmax())
    maps = [attribute(predictor, signals[0], covariates[0], column) for predictor in (there, host)]
    yield at_most("explanation of a recording, apart, logits", largest(*maps), 1e-3)
    with mock.patch("engine.windows.full_float32", lambda device: contextlib.nullcontext()):
        tf32 = there.predict(signals, covariates)
        with torch.autocast(device, torch.bfloat16):
            bf16 = there.predict(signals, covariates)
    yield Finding("for comparison: probabilities apart in TF32", f"{largest(tf32, expected):.1e}", "not used")
    yield Finding("for comparison: probabilities apart in bfloat16", f"{largest(bf16, expected):.1e}", "not used")


def largest(a: np.ndarray, b: np.ndarray) -> float:
    """How far two arrays are apart at most; NaN where either holds one."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


def equal_training(device: str, folder: Path, top: Path, flags: Sequence[object] = ()) -> Iterator[Finding]:
    """train.py without dropout and augmentation on a device and on the processor: the same losses.

    Args:
        device: "cuda"; or "cpu" to test this code.
        folder: of the recordings.
        top: where the runs and the cache go; the device's run is top/there.
        flags: further flags of train.py.
    """
    histories = []
    for name, flag in {"here": (), "there": on(device)}.items():
        common = ("--input_folder", folder, "--cache", top / "cache", "--folder", top / name)
        call(train.main, *common, *WITHOUT_CHANCE, *flags, *flag, log=top / "log")
        histories.append(read_history(top / name))
    yield same_history("train.py without chance: losses apart from the processor's, relative", *histories)


def same_history(what: str, a: list[dict], b: list[dict]) -> Finding:
    """The largest relative difference of the losses of two trainings, which have as many epochs."""
    losses = [np.array([row["train_loss"] for row in rows]) for rows in (a, b)]
    return at_most(what, largest(losses[0] / losses[1], np.ones(len(losses[1]))), TRAINED_CLOSE)


def call(main: Callable, *argv: object, log: Path) -> None:
    """A script's main in this process; what it prints goes into a file."""
    with open(log, "a", encoding="utf-8") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main([str(word) for word in argv])


# ---- speed


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


def classify(device: str, inputs: Path, output: Path, n_processes: int = 1) -> tuple[float, pd.DataFrame]:
    """driver.py in processes of its own -> seconds, and the table of its answers."""
    launcher = torchrun(n_processes) if n_processes > 1 else ()
    start = time.perf_counter()
    run_python(*launcher, ROOT / "driver.py", inputs, output, "--summary", output / "all.csv", *on(device))
    seconds = time.perf_counter() - start
    return seconds, pd.read_csv(output / "all.csv", index_col="record", keep_default_na=False)


def torchrun(n_processes: int) -> tuple[object, ...]:
    """Arguments of Python that start a script so many times."""
    return "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", n_processes


def same_answers(what: str, found: pd.DataFrame, expected: pd.DataFrame, limit: float) -> Iterator[Finding]:
    """Two tables of driver.py --summary."""
    same_rows = found.index.equals(expected.index)
    difference = largest(found.iloc[:, 1:], expected.iloc[:, 1:]) if same_rows else float("nan")
    yield at_most(f"{what}: probabilities apart", difference, limit)
    n_other = int((found["diagnoses"].to_numpy() != expected["diagnoses"].to_numpy()).sum()) if same_rows else -1
    yield Finding(f"{what}: recordings with other diagnoses", str(n_other), "0", n_other == 0)


def driver(device: str, one: Path, inputs: Path, top: Path) -> Iterator[Finding]:
    """driver.py with the shipped model, with and without the GPU.

    Args:
        device: "cuda"; or "cpu" to test this code.
        one: folder with one recording, which tells how long the start takes.
        inputs: folder with many.
        top: where the answers go.
    """
    tables = []
    for name, where in {"the processor": "cpu", "the GPU": device}.items():
        start, _ = classify(where, one, top / f"one {name}")
        seconds, table = classify(where, inputs, top / f"all {name}")
        tables.append(table)
        rate = (len(table) - 1) / max(seconds - start, 1e-9)
        yield Finding(f"driver.py on {name}: start, and one recording", f"{start:.1f} s")
        yield Finding(f"driver.py on {name}: records/s after the start", f"{rate:.0f}")
    yield from same_answers("driver.py on the GPU and on the processor", tables[1], tables[0], CLOSE)


def two_processes(
    device: str, n_devices: int, folder: Path, top: Path, flags: Sequence[object] = ()
) -> Iterator[Finding]:
    """train.py and driver.py as two processes of torchrun against one, which `equal_training` ran.

    Args:
        device: "cuda", where they talk by NCCL; or "cpu" to test this code, by Gloo.
        n_devices: number of them.
        folder: of the recordings.
        top: of `equal_training`.
        flags: further flags of train.py, as there.
    """
    if n_devices < 2:
        yield Finding("two processes by NCCL", f"not measured: there is {n_devices} GPU")
        return
    common = ("--input_folder", folder, "--cache", top / "cache", "--folder", top / "two")
    run_python(*torchrun(2), ROOT / "train.py", *common, *WITHOUT_CHANCE, *flags, *on(device))
    what = "two processes by NCCL, train.py without chance: losses apart from one's, relative"
    yield same_history(what, read_history(top / "two"), read_history(top / "there"))
    _, one = classify(device, folder, top / "answers of one")
    _, two = classify(device, folder, top / "answers of two", 2)
    yield from same_answers("two processes by NCCL, driver.py and one process", two, one, 0.0)


# ---- all of it


Stage = tuple[str, Callable[[], Iterator[Finding]]]


def stages(device: str, n_devices: int, folder: Path, top: Path) -> Iterator[Stage]:
    """(name, what yields its Findings) of everything, what matters most first.

    Args:
        device: "cuda".
        n_devices: number of them.
        folder: of recordings.
        top: a folder to work in.
    """
    yield "answers", functools.partial(answers, device, folder)
    yield "equal training", functools.partial(equal_training, device, folder, top)
    yield "driver.py", functools.partial(driver, device, top / "in_1", top / f"in_{N_LONG}", top)
    for variant in VARIANTS:
        for network in NETWORKS:
            name = f"{network.name}, {variant}"
            yield name, functools.partial(training, network, variant, device, top)
        if variant == "batches prepared ahead":  # compiling, which takes longest, comes last
            yield "two processes", functools.partial(two_processes, device, n_devices, folder, top)


def findings(name: str, measure: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The Findings of a stage; if it fails, one that says why: the other stages go on."""
    try:
        yield from measure()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        yield Finding(name, f"{type(error).__name__}: {lines[-1][:200]}".replace("|", "/"), "no error", False)


def measured(stages: Iterator[Stage], clock: Callable[[], float] = time.monotonic) -> Iterator[Finding]:
    """The Findings of all stages, those left out that would begin after LAST_START."""
    start = clock()
    for name, measure in stages:
        if clock() - start > LAST_START:
            yield Finding(name, f"not measured: {LAST_START // 60} minutes were over")
            continue
        yield from findings(name, measure)


def table(rows: Sequence[Finding]) -> str:
    """Markdown."""
    lines = ["| check | found | expected |", "|---|---|---|"]
    for row in rows:
        verdict = row.expected if row.passed else f"{row.expected}: **failed**"
        lines.append(f"| {row.what} | {row.found} | {verdict} |")
    return "\n".join(lines)


def gpu() -> str:
    """What the figures were taken on."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cudnn = torch.backends.cudnn.version()
    return f"{', '.join(names)}; torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}; {machine()}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_folder", type=Path, default=SAMPLE, help="recordings (default: data/sample)")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit(NO_GPU)
    print(gpu(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as top:
        originals = of_10_s_at_500_hz(find_records(args.input_folder))
        for n in (1, N_LONG, N_RECORDS):
            replicate(originals, Path(top) / f"in_{n}", n)
        for row in measured(stages("cuda", torch.cuda.device_count(), args.input_folder, Path(top))):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    print(f"\n{gpu()}\n\n{table(rows)}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
