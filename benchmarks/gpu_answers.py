"""Does a GPU answer what the processor answers? The shipped model, a training without chance, driver.py, and two
processes by NCCL.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

import train
from benchmarks.findings import Finding, at_most, call, on
from benchmarks.runs import ROOT, read_history, run_python
from data.inputs import read_input
from data.records import find_records
from engine.explain import attribute
from engine.inference import load_predictor
from run_12ECG_classifier import DEFAULT_MODEL

CLOSE = 1e-4  # between probabilities on the GPU and on the processor, in float32
TRAINED_CLOSE = 1e-2  # between losses of the two after some steps, relative: rounding grows from step to step
WITHOUT_CHANCE = tuple(
    "--epochs 3 --no-bf16 --dropout 0 --head_dropout 0 --hide_covariates 0 --mixup 0 --gain 0 --band 0 --wander 0 "
    "--noise 0 --lead_dropout 0 --no-plots".split()
)


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
