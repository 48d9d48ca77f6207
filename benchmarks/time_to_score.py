"""How long until a network diagnoses as well as the predecessor's does after some epochs?

    python -m benchmarks.time_to_score --input_folder Training_WFDB --epochs 5 --json time_to_score.json

trains the predecessor's network its way (eager float32, Adam, every recording read and resampled to 400 Hz in every
epoch) on folds 1 to 7 of benchmarks/ptbxl_folds.csv, and `train.py` with its defaults, on as many threads. After
every epoch both are scored on fold 8 by the official macro AUROC; only the seconds of training count. It prints when
ours first reaches what the predecessor's has reached. An hour or less; set OMP_NUM_THREADS=1 on a machine that others
use too.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from benchmarks.accuracy import CLASS_SET, FOLDS, ROOT
from benchmarks.reference import PlainResNet, load_window
from benchmarks.timing import machine
from data.records import find_records, read_header
from engine.metrics import compute_scores

VALID_FOLD, BATCH = 8, 32


def labels(paths):
    return CLASS_SET.encode_all([read_header(path).dx for path in paths]) > 0  # (R, C)


def windows(paths):
    return torch.from_numpy(np.stack([load_window(path) for path in paths]))  # (B, 12, 4096)


def plain(train_paths, valid_paths, epochs, seed=0):
    """Yield (seconds of training so far, AUROC on validation) after each epoch of the predecessor's network."""
    torch.manual_seed(seed)
    model, rng, seconds = PlainResNet(), np.random.default_rng(seed), 0.0
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    y, y_valid = torch.from_numpy(labels(train_paths)).float(), labels(valid_paths)
    for _ in range(epochs):
        model.train()
        start = time.perf_counter()
        for rows in np.array_split(rng.permutation(len(y)), len(y) // BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(windows([train_paths[i] for i in rows])), y[rows]).backward()
            optimizer.step()
        seconds += time.perf_counter() - start
        model.eval()
        with torch.inference_mode():
            y_score = torch.cat(
                [torch.sigmoid(model(windows(valid_paths[i : i + BATCH]))) for i in range(0, len(valid_paths), BATCH)]
            ).numpy()
        yield seconds, compute_scores(y_valid, y_score > 0.5, y_score)["auroc"]


def ours(input_folder, folder):
    """[(seconds of training so far, AUROC on validation)] of train.py with its defaults."""
    command = [
        sys.executable,
        ROOT / "train.py",
        "--input_folder",
        input_folder,
        "--metadata",
        FOLDS,
        "--valid_fold",
        VALID_FOLD,
        "--folder",
        folder / "run",
        "--cache",
        folder / "cache",
    ]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(folder / "run" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return list(zip(np.cumsum([float(row["seconds"]) for row in rows]).tolist(), [float(row["auroc"]) for row in rows]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input_folder",
        default="Training_WFDB",
        help="the PTB-XL recordings of benchmarks/ptbxl_folds.csv (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, default=5, help="of the predecessor's network (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="store the curves in this file")
    args = parser.parse_args(argv)
    print(machine(), flush=True)
    folds = pd.read_csv(FOLDS, dtype={"record": str}).set_index("record")["strat_fold"]
    records = [record for record in find_records(args.input_folder) if record.record_id in folds.index]
    paths = {
        part: [r.path for r in records if (folds[r.record_id] == VALID_FOLD) == (part == "valid")]
        for part in ("train", "valid")
    }
    with tempfile.TemporaryDirectory() as folder:
        fast = ours(args.input_folder, Path(folder))
    print(f"train.py: AUROC {max(auroc for _, auroc in fast):.3f} within {fast[-1][0]:.0f} s", flush=True)
    slow = []
    print("| predecessor's AUROC | after, s | ours, s | ratio |\n|---|---|---|---|")
    for seconds, auroc in plain(paths["train"], paths["valid"], args.epochs):
        slow.append((seconds, auroc))
        reached = next((s for s, a in fast if a >= auroc), None)
        print(
            f"| {auroc:.3f} | {seconds:.0f} | "
            + ("not reached | |" if reached is None else f"{reached:.1f} | {seconds / reached:.0f} |"),
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "ours": fast, "predecessor": slow}, indent=1) + "\n")


if __name__ == "__main__":
    main()
