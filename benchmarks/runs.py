"""Train and classify as a user does, through the scripts, and score what they answer."""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.labels import load_class_set
from data.records import find_records, read_header
from engine.ensemble import read_predictions
from engine.inference import load_predictor
from engine.metrics import auroc_per_class, challenge_metric
from engine.run_folder import RunFolder
from engine.validation import official_weights

ROOT = Path(__file__).resolve().parent.parent
FOLDS = Path(__file__).resolve().parent / "ptbxl_folds.csv"
VALID_FOLD = 8
CLASS_SET = load_class_set("cinc2020")
MIN_POSITIVES = 5  # recordings with a class, below which its AUROC says nothing


def add_input_folder(parser: argparse.ArgumentParser) -> None:
    """--input_folder of a benchmark on the folds of PTB-XL."""
    parser.add_argument(
        "--input_folder",
        default="Training_WFDB",
        help="the PTB-XL recordings of benchmarks/ptbxl_folds.csv (default: %(default)s)",
    )


def run_python(*args: object, log: str | Path | None = None, cwd: Path | None = None) -> None:
    """Run Python with these arguments.

    Args:
        args: of the command line.
        log: file for what it prints, or None.
        cwd: working directory, or None for this process's own.

    Raises:
        RuntimeError: it failed; the message ends with the last lines that it printed.
    """
    command = [sys.executable, *map(str, args)]
    with open(log, "w+", encoding="utf-8") if log else tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        status = subprocess.run(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT).returncode
        if status:
            out.seek(0)
            last = "".join(out.readlines()[-10:])
            raise RuntimeError(f"{' '.join(command)} ended with status {status}:\n{last}")


def run_on_folds(
    script: str,
    input_folder: str | Path,
    folder: Path,
    *flags: object,
    cache: Path,
    log: str | Path | None = None,
) -> None:
    """Run a training script on folds 1 to 7 of benchmarks/ptbxl_folds.csv, validating on fold 8, as a new run.

    Args:
        script: train.py or pretrain.py.
        input_folder: the recordings.
        folder: the run folder.
        flags: further flags.
        cache: folder for the preprocessed signals.
        log: file for the script's messages, or None.
    """
    data = ("--input_folder", input_folder, "--metadata", FOLDS, "--valid_fold", VALID_FOLD, "--cache", cache)
    run_python(ROOT / script, *data, "--folder", folder, "--overwrite", *flags, log=log)


def is_finished(folder: Path, prefix: str = "") -> bool:
    """Whether a run's training has come to its end; runs that have are not repeated."""
    return (folder / f"{prefix}final_model.pth").exists()


def read_history(folder: Path) -> list[dict[str, float]]:
    """history.csv of a run: a dictionary an epoch."""
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def training_seconds(folder: Path) -> float:
    """Seconds that a run's training took, validation left out."""
    return sum(row["seconds"] for row in read_history(folder))


@dataclass(frozen=True)
class Answers:
    """What a model said of R recordings, and what is true."""

    y_true: np.ndarray  # (R, C) bool
    y_score: np.ndarray  # (R, C) probabilities
    y_pred: np.ndarray  # (R, C) bool

    def __len__(self) -> int:
        return len(self.y_true)

    def __getitem__(self, rows: np.ndarray) -> Answers:
        return Answers(self.y_true[rows], self.y_score[rows], self.y_pred[rows])

    def measurable(self, n_positives: int = MIN_POSITIVES) -> np.ndarray:
        """(C,) bool: the classes that enough recordings have."""
        return self.y_true.sum(0) >= n_positives


def joined(parts: Sequence[Answers]) -> Answers:
    """All recordings of several Answers."""
    return Answers(
        np.concatenate([part.y_true for part in parts]),
        np.concatenate([part.y_score for part in parts]),
        np.concatenate([part.y_pred for part in parts]),
    )


def read_validation(folder: Path) -> Answers:
    """Answers on a run's validation recordings."""
    predictor = load_predictor(folder)
    predictions = read_predictions(RunFolder(folder), predictor.class_set).values()
    y_score = np.array([score for _, score in predictions])
    y_true = CLASS_SET.encode_all([dx for dx, _ in predictions]) > 0
    return Answers(y_true, y_score, predictor.decide(y_score))


def classify(folder: Path, inputs: str | Path, output: Path, *flags: str) -> Answers:
    """Classify recordings with driver.py.

    Args:
        folder: the run folder.
        inputs: folder of the recordings.
        output: folder for the answers.
        flags: further flags of driver.py.
    """
    run_python(ROOT / "driver.py", folder, inputs, output, *flags)
    y_true, y_score, y_pred = [], [], []
    for record in find_records(inputs):
        lines = (output / f"{record.record_id}.csv").read_text(encoding="utf-8").splitlines()
        y_true.append(CLASS_SET.encode(read_header(record.path).dx))
        y_score.append(lines[3].split(","))
        y_pred.append(lines[2].split(","))
    return Answers(np.array(y_true) > 0, np.array(y_score, float), np.array(y_pred, int) > 0)


def mean_auroc(answers: Answers, classes: np.ndarray) -> float:
    """Macro AUROC over the classes (C,) bool, NaN where it is not defined for any."""
    auroc = auroc_per_class(answers.y_true[:, classes], answers.y_score[:, classes])
    return float(np.nanmean(auroc)) if np.isfinite(auroc).any() else float("nan")


def scores(answers: Answers, classes: np.ndarray | None = None) -> dict[str, float]:
    """{"auroc", "challenge"}; `classes` (C,) bool are those whose AUROC counts, by default the measurable ones."""
    if classes is None:
        classes = answers.measurable()
    weights, normal = official_weights(CLASS_SET)
    return {
        "auroc": mean_auroc(answers, classes),
        "challenge": challenge_metric(answers.y_true, answers.y_pred, weights, normal),
    }


def mean_and_sd(values: Sequence[float]) -> dict[str, float | None]:
    """{"mean", "sd"} over seeds; of one seed there is no standard deviation."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd}
