"""How well do the recipe and its ablations diagnose? Every configuration, several seeds, fixed folds of patients.

    python -m benchmarks.accuracy --input_folder Training_WFDB --outside OTHER_HOSPITALS --out accuracy

trains every configuration below with seeds 1, 2, 3 on folds 1 to 7 of benchmarks/ptbxl_folds.csv and validates on
fold 8, as `train.py --valid_fold 8` does, then classifies the recordings in --outside, which no training sees. It
writes OUT/accuracy.csv (one row per run), OUT/accuracy.json and prints a table. Runs that are finished are not
repeated, so it can be interrupted.

AUROC is the mean over the scored classes with at least 5 positives among the recordings at hand; the Challenge metric
is that of the decisions that driver.py writes. Cells read: mean over seeds +- standard deviation (95 % interval of
the mean, a bootstrap over recordings); the seeds' probabilities averaged.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.runs import (
    CLASS_SET,
    Answers,
    add_input_folder,
    classify,
    is_finished,
    mean_and_sd,
    read_validation,
    run_on_folds,
    scores,
    training_seconds,
)
from engine.decision import decide, default_rule
from engine.run_folder import RunFolder
from engine.trained_run import load_run

SCORES = ("auroc", "challenge")
NO_AUGMENTATION = "--gain 0 --band 0 --wander 0 --noise 0 --lead_dropout 0 --mixup 0"
# {name: flags of train.py}
CONFIGURATIONS = {
    "recipe (the defaults)": "",
    "without rhythm, age and sex": "--no-covariates",
    "without auxiliary codes": "--auxiliary 0",
    "without recorder filters, wander, noise": "--band 0 --wander 0 --noise 0",
    "without mixup": "--mixup 0",
    "in float32": "--no-bf16",
    "8 s windows": "--seq_length 800 --first_stride 2",
    "plain ResNet, 10 s, nothing else": (
        "--encoder resnet --lengths 1024 256 64 16 4 --seq_length 1000 --epochs 15 --lr 0.001 "
        f"--no-covariates --auxiliary 0 {NO_AUGMENTATION}"
    ),
}


def train(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Train one configuration unless it is there -> run folder."""
    folder = args.out / f"{''.join(c if c.isalnum() else '_' for c in name)}_{seed}"
    if not is_finished(folder):
        flags = CONFIGURATIONS[name].split()
        run_on_folds("train.py", args.input_folder, folder, "--seed", seed, *flags, cache=args.out / "cache")
    return folder


def n_parameters(folder: Path) -> int:
    """Weights of a run's network."""
    models = load_run(folder)[0]
    return sum(p.numel() for p in models[0].parameters())


def bootstrap(runs: list[Answers], n: int = 200) -> dict[str, list[float]]:
    """95 % intervals of the mean over runs of each score, resampling the recordings (the same ones for all runs)."""
    rng = np.random.default_rng(0)
    n_records = len(runs[0])
    classes = runs[0].measurable()
    means = {score: [] for score in SCORES}
    for _ in range(n):
        rows = rng.integers(0, n_records, n_records)
        drawn = [scores(run[rows], classes) for run in runs]
        for score in SCORES:
            means[score].append(np.mean([found[score] for found in drawn]))
    return {score: np.percentile(means[score], (2.5, 97.5)).tolist() for score in SCORES}


def averaged(runs: list[Answers]) -> Answers:
    """The seeds' probabilities averaged, and what is decided by these."""
    y_score = np.mean([run.y_score for run in runs], axis=0)
    return Answers(runs[0].y_true, y_score, decide(y_score, None, default_rule(CLASS_SET)))


def summarise(name: str, args: argparse.Namespace) -> tuple[list[dict], dict]:
    """Train and score all seeds of a configuration -> rows for accuracy.csv, entry for accuracy.json."""
    rows = []
    runs = {"validation": []} | ({"outside": []} if args.outside else {})
    for seed in args.seeds:
        folder = train(name, seed, args)
        row = {"configuration": name, "seed": seed, "seconds": round(training_seconds(folder), 1)}
        row["parameters"] = n_parameters(folder)
        runs["validation"].append(read_validation(folder))
        if args.outside:
            runs["outside"].append(classify(folder, args.outside, folder / "outside"))
        for where, answers in runs.items():
            row |= {f"{where}_{score}": value for score, value in scores(answers[-1]).items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    entry = {
        "flags": CONFIGURATIONS[name].split(),
        "seeds": args.seeds,
        "parameters": rows[0]["parameters"],
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }
    for where, answers in runs.items():
        intervals = bootstrap(answers)
        together = scores(averaged(answers))
        for score in SCORES:
            entry[f"{where}_{score}"] = {
                **mean_and_sd([row[f"{where}_{score}"] for row in rows]),
                "interval": intervals[score],
                "averaged": together[score],
            }
    return rows, entry


def cell(entry: dict | None) -> str:
    """One score of the table."""
    if entry is None:
        return ""
    low, high = entry["interval"]
    return f"{entry['mean']:.3f} +- {entry['sd'] or 0:.3f} ({low:.3f} to {high:.3f}); {entry['averaged']:.3f}"


def table(summary: dict[str, dict]) -> str:
    """Markdown."""
    names = [f"{where}_{score}" for where in ("validation", "outside") for score in SCORES]
    titles = ["configuration", "parameters", "training, s", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, entry in summary.items():
        cells = [name, f"{entry['parameters']:,}", f"{entry['seconds']:.0f}", *(cell(entry.get(n)) for n in names)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Train, score and tabulate what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_input_folder(parser)
    parser.add_argument("--outside", default=None, help="folder of recordings from elsewhere (default: none)")
    parser.add_argument(
        "--out", type=Path, default=Path("accuracy"), help="folder for runs and results (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default: 1 2 3")
    parser.add_argument(
        "--only", nargs="+", default=list(CONFIGURATIONS), choices=list(CONFIGURATIONS), help="default: all"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    results = RunFolder(args.out)
    rows = []
    summary = {}
    for name in args.only:
        new, summary[name] = summarise(name, args)
        rows += new
        results.write_rows("accuracy.csv", rows)
        results.write_json("accuracy.json", summary)
    print(table(summary))


if __name__ == "__main__":
    main()
