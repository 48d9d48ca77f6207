"""How long until a network diagnoses as well as the predecessor's does after some epochs?

    python -m benchmarks.time_to_score --input_folder Training_WFDB --epochs 5 --json time_to_score.json

trains the predecessor's network its way (eager float32, Adam, every recording read and resampled to 400 Hz in every
epoch) on folds 1 to 7 of benchmarks/ptbxl_folds.csv, and `train.py` with its defaults, on as many threads. After
every epoch both are scored on fold 8 by the official macro AUROC; only the seconds of training count. It prints when
ours first reaches what the predecessor's has reached. An hour or less; set OMP_NUM_THREADS=1 on a machine that others
use too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reference import PlainResNet, load_window
from benchmarks.runs import CLASS_SET, FOLDS, VALID_FOLD, add_input_folder, read_history, run_on_folds
from benchmarks.timing import machine
from data.records import find_records, read_header
from engine.metrics import compute_scores

BATCH = 32


def labels(paths: list[str]) -> np.ndarray:
    """(R, C) bool."""
    return CLASS_SET.encode_all([read_header(path).dx for path in paths]) > 0


def windows(paths: list[str]) -> Tensor:
    """(B, 12, 4096) mV, read and resampled."""
    return torch.from_numpy(np.stack([load_window(path) for path in paths]))


def split_by_fold(input_folder: str) -> tuple[list[str], list[str]]:
    """Paths of the recordings of benchmarks/ptbxl_folds.csv that train and that validate."""
    folds = pd.read_csv(FOLDS, dtype={"record": str}).set_index("record")["strat_fold"]
    train_paths, valid_paths = [], []
    for record in find_records(input_folder):
        if record.record_id in folds.index:
            part = valid_paths if folds[record.record_id] == VALID_FOLD else train_paths
            part.append(record.path)
    return train_paths, valid_paths


def answers(model: torch.nn.Module, paths: list[str]) -> np.ndarray:
    """(R, C) probabilities of the predecessor's network."""
    model.eval()
    with torch.inference_mode():
        parts = [torch.sigmoid(model(windows(paths[i : i + BATCH]))) for i in range(0, len(paths), BATCH)]
    return torch.cat(parts).numpy()


def plain(train_paths: list[str], valid_paths: list[str], epochs: int, seed: int = 0) -> Iterator[tuple[float, float]]:
    """Train the predecessor's network.

    Args:
        train_paths: of recordings.
        valid_paths: of those that are scored.
        epochs: number of epochs.
        seed: of weights and order.

    Returns:
        iterator of (seconds of training so far, AUROC on validation), an epoch each.
    """
    torch.manual_seed(seed)
    model = PlainResNet()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    y = torch.from_numpy(labels(train_paths)).float()  # (R, C)
    y_valid = labels(valid_paths)
    seconds = 0.0
    for _ in range(epochs):
        model.train()
        start = time.perf_counter()
        for rows in np.array_split(rng.permutation(len(y)), max(1, len(y) // BATCH)):
            optimizer.zero_grad()
            x = windows([train_paths[i] for i in rows])
            F.binary_cross_entropy_with_logits(model(x), y[rows]).backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        y_score = answers(model, valid_paths)
        yield seconds, compute_scores(y_valid, y_score > 0.5, y_score)["auroc"]


def ours(input_folder: str, folder: Path) -> list[tuple[float, float]]:
    """[(seconds of training so far, AUROC on validation)] of train.py with its defaults."""
    run_on_folds("train.py", input_folder, folder / "run", cache=folder / "cache")
    history = read_history(folder / "run")
    seconds = itertools.accumulate(row["seconds"] for row in history)
    return [(so_far, row["auroc"]) for so_far, row in zip(seconds, history)]


def main(argv: list[str] | None = None) -> None:
    """Train both, and tell when ours reached what the predecessor's has reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_input_folder(parser)
    parser.add_argument("--epochs", type=int, default=5, help="of the predecessor's network (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="store the curves in this file")
    args = parser.parse_args(argv)
    print(machine(), flush=True)
    train_paths, valid_paths = split_by_fold(args.input_folder)
    with tempfile.TemporaryDirectory() as folder:
        fast = ours(args.input_folder, Path(folder))
    print(f"train.py: AUROC {max(auroc for _, auroc in fast):.3f} within {fast[-1][0]:.0f} s", flush=True)
    print("| predecessor's AUROC | after, s | ours, s | ratio |\n|---|---|---|---|")
    slow = []
    for seconds, auroc in plain(train_paths, valid_paths, args.epochs):
        slow.append((seconds, auroc))
        reached = next((so_far for so_far, ours_then in fast if ours_then >= auroc), None)
        comparison = "not reached | " if reached is None else f"{reached:.1f} | {seconds / reached:.0f}"
        print(f"| {auroc:.3f} | {seconds:.0f} | {comparison} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "ours": fast, "predecessor": slow}, indent=1) + "\n")


if __name__ == "__main__":
    main()
