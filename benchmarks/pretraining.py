"""Does pre-training help? The same encoder from scratch, frozen and fine-tuned, at 1, 10 and 100 % of the labels.

    python -m benchmarks.pretraining --input_folder Training_WFDB --out pretraining
    python -m benchmarks.pretraining --out signal_alone --epochs 8 --flags --n_covariates 0     what the encoder sees, without age, sex and rhythm

pre-trains once on folds 1 to 7 of benchmarks/ptbxl_folds.csv (or takes --pretrained RUN), then trains on these shares
of the same recordings with seeds 1, 2, 3 and validates on fold 8. Everything else is equal: encoder, flags, number of
steps, augmentation, and the best epoch on validation is kept. A seed draws the same recordings for all three. Runs
that are finished are not repeated.

It writes OUT/pretraining.csv (one row per run), OUT/pretraining.json and prints a table: macro AUROC over the classes
with at least 5 positives in fold 8, and what fine-tuned gains over scratch, seed by seed; mean and standard deviation
over the seeds.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.accuracy import CLASS_SET, FOLDS, ROOT, read_validation, scores
from engine.handover import MAY_DIFFER, read_pretrained
from engine.run_folder import RunFolder

SHARES = (0.01, 0.1, 1.0)
MODES = {"scratch": [], "frozen": ["--freeze_encoder"], "fine-tuned": []}


def run_script(script, folder, args, *flags):
    """Run a training script on the benchmark's recordings and folds; its messages go to FOLDER.log."""
    command = [
        sys.executable,
        ROOT / script,
        "--input_folder",
        args.input_folder,
        "--metadata",
        FOLDS,
        "--valid_fold",
        8,
        "--folder",
        folder,
        "--overwrite",
        "--cache",
        args.out / "cache",
        *flags,
    ]
    with open(f"{folder}.log", "w", encoding="utf-8") as log:
        subprocess.run(list(map(str, command)), check=True, stdout=log, stderr=subprocess.STDOUT)


def encoder_flags(pretrained):
    """The flags that give a network from scratch the encoder of the pre-training."""
    flags = ["--sample_freq", pretrained.signal.sample_freq]
    for name, value in pretrained.encoder.items():
        if name not in MAY_DIFFER:
            flags += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return flags


def train(mode, share, seed, pretrained, args):
    """Train one network unless it is there; -> {"auroc", "challenge"} on fold 8 and the seconds that training took."""
    folder = args.out / f"{mode}_{share:g}_{seed}"
    if not (folder / "final_model.pth").exists():
        folder.mkdir(parents=True, exist_ok=True)
        flags = [
            "--seed",
            seed,
            "--train_share",
            share,
            "--lr",
            args.lr,
            "--epochs",
            args.epochs,
            *MODES[mode],
            *args.flags,
        ]
        if mode == "scratch":
            flags += encoder_flags(pretrained)
        else:
            for file in pretrained.run.path.glob("pretrain_*"):
                shutil.copy(file, folder)
        run_script("train.py", folder, args, *flags)
    history = (folder / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("seconds")
    return scores(*read_validation(folder), CLASS_SET) | {
        "seconds": round(sum(float(row.split(",")[column]) for row in history[1:]), 1)
    }


def mean_and_sd(values):
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def summarise(rows):
    """{share: {mode: {"mean", "sd", "values"}}} of the AUROC, for the runs that are there."""
    summary = {}
    for row in rows:
        summary.setdefault(f"{row['share']:g}", {}).setdefault(row["mode"], []).append(row["auroc"])
    return {
        share: {mode: {**mean_and_sd(values), "values": values} for mode, values in modes.items()}
        for share, modes in summary.items()
    }


def gain(modes):
    """Fine-tuned beyond scratch, seed by seed, for both drew the same recordings: {"mean", "sd"}, or None while runs
    are missing.
    """
    scratch, tuned = (modes.get(mode, {"values": []})["values"] for mode in ("scratch", "fine-tuned"))
    if not scratch or len(scratch) != len(tuned):
        return None
    return mean_and_sd(np.subtract(tuned, scratch))


def table(summary):
    """Markdown."""

    def cell(entry, sign=""):
        return (
            ""
            if entry is None
            else f"{entry['mean']:{sign}.3f}" + ("" if entry["sd"] is None else f" +- {entry['sd']:.3f}")
        )

    lines = ["| labels | " + " | ".join(MODES) + " | gain |", "|---" * (len(MODES) + 2) + "|"]
    for share, modes in summary.items():
        lines.append(
            f"| {float(share):.0%} | "
            + " | ".join(cell(modes.get(mode)) for mode in MODES)
            + f" | {cell(gain(modes), '+')} |"
        )
    return "\n".join(lines)


def settings_of(args, pretrained):
    """What all runs of a folder have in common; the encoder by the checksum of its weights."""
    weights = (pretrained.run / "model.pth").read_bytes()
    return {
        "flags": list(map(str, args.flags)),
        "lr": args.lr,
        "epochs": args.epochs,
        "encoder_sha256": hashlib.sha256(weights).hexdigest(),
    }


def check_settings(file, settings):
    """Finished runs are not repeated, so they must have had the same settings."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else settings
    different = [f"{name} {found.get(name)!r}" for name in settings if found.get(name) != settings[name]]
    if different:
        raise SystemExit(f"{file} was made with other settings, {', '.join(different)}: name another --out")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input_folder",
        default="Training_WFDB",
        help="the PTB-XL recordings of benchmarks/ptbxl_folds.csv (default: %(default)s)",
    )
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
        default=["--n_covariates", "0"],
        help="further flags of train.py for all networks, last on the line; by default the encoders "
        "see the signal alone, for age, sex and rhythm hide how well it is read (default: --flags --n_covariates 0)",
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.pretrained is None:
        args.pretrained = args.out / "pretrained"
        if not (args.pretrained / "pretrain_final_model.pth").exists():
            run_script("pretrain.py", args.pretrained, args)
    pretrained, rows = read_pretrained(args.pretrained), []
    settings = settings_of(args, pretrained)
    check_settings(args.out / "pretraining.json", settings)
    for share in args.shares:
        for mode in args.modes:
            for seed in args.seeds:
                rows.append({"share": share, "mode": mode, "seed": seed, **train(mode, share, seed, pretrained, args)})
                print(json.dumps(rows[-1]), flush=True)
                RunFolder(args.out).write_rows("pretraining.csv", rows)
                RunFolder(args.out).write_json("pretraining.json", {**settings, "auroc": summarise(rows)})
    print(table(summarise(rows)))


if __name__ == "__main__":
    main()
