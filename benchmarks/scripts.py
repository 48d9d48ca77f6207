"""driver.py, run_12ECG_classifier.py and the evaluator as whole processes: python -m benchmarks.scripts"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.recordings import of_10_s_at_500_hz, replicate
from benchmarks.reference import PlainResNet, load_window
from benchmarks.runs import ROOT, run_python
from benchmarks.timing import Row, compare, report
from data.records import Record, find_records
from engine.metrics import load_weights
from run_12ECG_classifier import DEFAULT_MODEL, load_12ECG_model, run_12ECG_classifier

MODELS = {"the shipped ensemble": DEFAULT_MODEL / "ensemble", "the shipped model": DEFAULT_MODEL}
N_RECORDS = 1000
N_FEW = 20  # recordings for the slow way


def call(*args: object) -> None:
    """Python with these arguments, in the repository."""
    run_python(*args, cwd=ROOT)


def driver(records: Sequence[Record], top: Path) -> Iterator[Row]:
    """Rows of driver.py: all recordings, less what one takes."""
    replicate(records, top / "in", N_RECORDS)
    replicate(records, top / "one", 1)
    plain = PlainResNet().eval()

    def predecessor():
        with torch.inference_mode():
            for record in records[:N_FEW]:
                torch.sigmoid(plain(torch.from_numpy(load_window(record.path))[None]))

    for name, model in MODELS.items():
        start = compare(
            f"driver.py with {name}: start, and one recording",
            functools.partial(call, "driver.py", model, top / "one", top / "out"),
            unit="s",
            goal="2 s",
            repetitions=3,
        )
        yield start
        whole = compare(
            f"driver.py with {name}: {N_RECORDS} recordings after start-up",
            functools.partial(call, "driver.py", model, top / "in", top / "out"),
            predecessor,
            n=N_RECORDS,
            n_reference=N_FEW,
            reference_name="predecessor's network and loading, one by one",
            goal="20x",
            repetitions=2,
        )
        yield without_start(whole, start.ours)


def without_start(row: Row, seconds: float) -> Row:
    """A row of N_RECORDS items per second, the seconds of the start left out."""
    low, high = (N_RECORDS / (N_RECORDS / rate - seconds) for rate in row.ours_range)
    ours = N_RECORDS / (N_RECORDS / row.ours - seconds)
    return dataclasses.replace(row, ours=ours, ours_range=(low, high))


def one_recording(path: str) -> Iterator[Row]:
    """Row of run_12ECG_classifier on samples that are read, as the organisers' driver calls it."""
    lines = Path(f"{path}.hea").read_text().splitlines(keepends=True)
    adc = np.fromfile(f"{path}.mat", "<i2", offset=24).reshape(-1, 12).T  # (12, n)
    for name, folder in MODELS.items():
        model = load_12ECG_model(folder)
        yield compare(
            f"run_12ECG_classifier, {name}",
            lambda model=model: run_12ECG_classifier(adc, lines, model),
            unit="s",
            goal="0.015 s",
            repetitions=20,
        )


def write_answers(labels: Path, outputs: Path, n: int, rng: np.random.Generator) -> None:
    """Write n recordings' diagnoses and a classifier's answers, both drawn at random.

    Args:
        labels: folder for the headers.
        outputs: folder for the answers.
        n: number of recordings.
        rng: what draws.
    """
    codes = [code for group in load_weights(2020)[0] for code in group]
    labels.mkdir()
    outputs.mkdir()
    for i in range(n):
        name = f"R{i:05d}"
        dx = rng.choice(codes, rng.integers(1, 4), replace=False)
        scores = rng.random(len(codes))
        (labels / f"{name}.hea").write_text(f"{name} 12 500 5000\n#Age: 60\n#Dx: {','.join(dx)}\n")
        rows = [codes, (scores > 0.8).astype(int), scores.round(4)]
        lines = [f"#{name}", *(",".join(map(str, row)) for row in rows)]
        (outputs / f"{name}.csv").write_text("\n".join(lines) + "\n")


def evaluator(top: Path) -> Iterator[Row]:
    """Rows of the evaluator against loops, both as whole processes."""
    rng = np.random.default_rng(0)
    for n, goal in ((6877, "8x"), (20_000, "13x")):
        labels = top / f"labels_{n}"
        outputs = top / f"outputs_{n}"
        write_answers(labels, outputs, n, rng)
        yield compare(
            f"evaluate {n:,} recordings, whole process",
            functools.partial(call, "evaluate_12ECG_score.py", labels, outputs, top / "scores.csv"),
            functools.partial(call, "-m", "benchmarks.loops", labels, outputs, top / "loops.csv"),
            unit="s",
            reference_name="plain loops, whole process",
            goal=goal,
            repetitions=3,
        )


def measure(folder: Path) -> Iterator[Row]:
    """driver.py, run_12ECG_classifier.py and the evaluator."""
    records = of_10_s_at_500_hz(find_records(folder))[:200]
    with tempfile.TemporaryDirectory() as top:
        yield from evaluator(Path(top))
        yield from one_recording(records[0].path)
        yield from driver(records, Path(top))


if __name__ == "__main__":
    report(measure)
