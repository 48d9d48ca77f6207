"""Does pre-training help? The same encoder from scratch, frozen and fine-tuned, at 1, 10 and 100 % of the labels.

    python -m benchmarks.pretraining --input_folder Training_WFDB --out pretraining
    python -m benchmarks.pretraining --out with_covariates --flags --covariates    told age, sex and rhythm too

pre-trains once on folds 1 to 7 of benchmarks/ptbxl_folds.csv (or takes --pretrained RUN), then trains on these shares
of the same recordings with seeds 1, 2, 3 and validates on fold 8. Everything else is equal: encoder, flags, number of
steps, augmentation, and the best epoch on validation is kept. A seed draws the same recordings for all three. Runs
that are finished are not repeated.

It writes OUT/pretraining.csv (one row per run), OUT/pretraining.json and prints a table: macro AUROC over the classes
with at least 5 positives in fold 8, and what fine-tuned gains over scratch, seed by seed; mean and standard deviation
over the seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.runs import (
    add_input_folder,
    is_finished,
    mean_and_sd,
    read_validation,
    run_on_folds,
    scores,
    training_seconds,
)
from engine.handover import MAY_DIFFER, Pretrained, read_pretrained
from engine.run_folder import RunFolder

SHARES = (0.01, 0.1, 1.0)
MODES = {"scratch": [], "frozen": ["--freeze_encoder"], "fine-tuned": []}  # {name: flags of train.py}


def encoder_flags(pretrained: Pretrained) -> list:
    """The flags that give a network from scratch the encoder of the pre-training."""
    flags = ["--sample_freq", pretrained.signal.sample_freq]
    for name, value in pretrained.encoder.items():
        if name not in MAY_DIFFER:
            flags += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return flags


def train(mode: str, share: float, seed: int, pretrained: Pretrained, args: argparse.Namespace) -> Path:
    """Train one network unless it is there.

    Args:
        mode: one of MODES.
        share: of the labels.
        seed: draws the recordings, the same for all modes.
        pretrained: the encoder to begin with, or from scratch to build again.
        args: of the command line.

    Returns:
        the run folder.
    """
    folder = args.out / f"{mode}_{share:g}_{seed}"
    if is_finished(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--seed", seed, "--train_share", share, "--lr", args.lr, "--epochs", args.epochs]
    flags += [*MODES[mode], *args.flags]
    if mode == "scratch":
        flags += encoder_flags(pretrained)
    else:
        for file in pretrained.run.path.glob("pretrain_*"):
            shutil.copy(file, folder)
    run_on_folds("train.py", args.input_folder, folder, *flags, cache=args.out / "cache", log=f"{folder}.log")
    return folder


def summarise(rows: Sequence[dict]) -> dict[str, dict[str, dict]]:
    """{share: {mode: {"mean", "sd", "values"}}} of the AUROC, for the runs that are there."""
    summary = {}
    for row in rows:
        summary.setdefault(f"{row['share']:g}", {}).setdefault(row["mode"], []).append(row["auroc"])
    for modes in summary.values():
        for mode, values in modes.items():
            modes[mode] = {**mean_and_sd(values), "values": values}
    return summary


def gain(modes: dict[str, dict]) -> dict[str, float | None] | None:
    """Fine-tuned beyond scratch, seed by seed, for both drew the same recordings: {"mean", "sd"}, or None while runs
    are missing.
    """
    scratch, tuned = (modes.get(mode, {"values": []})["values"] for mode in ("scratch", "fine-tuned"))
    if not scratch or len(scratch) != len(tuned):
        return None
    return mean_and_sd(np.subtract(tuned, scratch))


def cell(entry: dict | None, sign: str = "") -> str:
    """One mean of the table; `sign` "+" shows that of positive ones too."""
    if entry is None:
        return ""
    mean = f"{entry['mean']:{sign}.3f}"
    return mean if entry["sd"] is None else f"{mean} +- {entry['sd']:.3f}"


def table(summary: dict[str, dict[str, dict]]) -> str:
    """Markdown."""
    lines = ["| labels | " + " | ".join(MODES) + " | gain |", "|---" * (len(MODES) + 2) + "|"]
    for share, modes in summary.items():
        cells = [f"{float(share):.0%}", *(cell(modes.get(mode)) for mode in MODES), cell(gain(modes), "+")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def settings_of(args: argparse.Namespace, pretrained: Pretrained) -> dict:
    """What all runs of a folder have in common; the encoder by the checksum of its weights."""
    weights = (pretrained.run / "model.pth").read_bytes()
    return {
        "flags": list(map(str, args.flags)),
        "lr": args.lr,
        "epochs": args.epochs,
        "encoder_sha256": hashlib.sha256(weights).hexdigest(),
    }


def check_settings(file: Path, settings: dict) -> None:
    """Finished runs are not repeated, so they must have had the same settings."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else settings
    different = [f"{name} {found.get(name)!r}" for name in settings if found.get(name) != settings[name]]
    if different:
        raise SystemExit(f"{file} was made with other settings, {', '.join(different)}: name another --out")


def main(argv: list[str] | None = None) -> None:
    """Pre-train if needed, train, score and tabulate what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_input_folder(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("pretraining"), help="folder for runs and results (default: %(default)s)"
    )
    parser.add_argument(
        "--pretrained",
        default=None,
        help="run folder of pretrain.py --valid_fold 8 (default: OUT/pretrained, made with pretrain.py's defaults)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the labels (default: 0.01 0.1 1)")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), help="default: all")
    parser.add_argument("--lr", type=float, default=2e-3, help="of all networks (default: %(default)s)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=8,
        help="of all networks, each as many steps as one epoch on all labels (default: %(default)s)",
    )
    parser.add_argument(
        "--flags",
        nargs=argparse.REMAINDER,
        default=["--no-covariates"],
        help="further flags of train.py for all networks, last on the line; by default the networks "
        "see the signal alone, for age, sex and rhythm hide how well it is read (default: --flags --no-covariates)",
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.pretrained is None:
        args.pretrained = args.out / "pretrained"
        if not is_finished(args.pretrained, "pretrain_"):
            log = f"{args.pretrained}.log"
            run_on_folds("pretrain.py", args.input_folder, args.pretrained, cache=args.out / "cache", log=log)
    pretrained = read_pretrained(args.pretrained)
    settings = settings_of(args, pretrained)
    check_settings(args.out / "pretraining.json", settings)
    results = RunFolder(args.out)
    rows = []
    for share, mode, seed in itertools.product(args.shares, args.modes, args.seeds):
        folder = train(mode, share, seed, pretrained, args)
        found = scores(read_validation(folder)) | {"seconds": round(training_seconds(folder), 1)}
        rows.append({"share": share, "mode": mode, "seed": seed, **found})
        print(json.dumps(rows[-1]), flush=True)
        results.write_rows("pretraining.csv", rows)
        results.write_json("pretraining.json", {**settings, "auroc": summarise(rows)})
    print(table(summarise(rows)))


if __name__ == "__main__":
    main()
