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

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from data.labels import load_class_set
from data.records import find_records, read_header
from engine.decision import decide, default_rule
from engine.ensemble import read_predictions
from engine.inference import load_predictor
from engine.metrics import auroc_per_class, challenge_metric
from engine.run_folder import RunFolder, load_run
from engine.validation import official_weights

ROOT = Path(__file__).resolve().parent.parent
FOLDS = Path(__file__).resolve().parent / "ptbxl_folds.csv"
MIN_POSITIVES = 5
CLASS_SET = load_class_set("cinc2020")
PLAIN = [
    "--n_covariates",
    "0",
    "--auxiliary",
    "0",
    "--gain",
    "0",
    "--band",
    "0",
    "--wander",
    "0",
    "--noise",
    "0",
    "--lead_dropout",
    "0",
    "--mixup",
    "0",
]
CONFIGURATIONS = {
    "recipe (the defaults)": [],
    "without rhythm, age and sex": ["--n_covariates", "0"],
    "without auxiliary codes": ["--auxiliary", "0"],
    "without recorder filters, wander, noise": ["--band", "0", "--wander", "0", "--noise", "0"],
    "without mixup": ["--mixup", "0"],
    "in float32": ["--no-bf16"],
    "8 s windows": ["--seq_length", "800", "--first_stride", "2"],
    "plain ResNet, 10 s, nothing else": [
        "--encoder",
        "resnet",
        "--lengths",
        "1024",
        "256",
        "64",
        "16",
        "4",
        "--seq_length",
        "1000",
        "--epochs",
        "15",
        "--lr",
        "0.001",
        *PLAIN,
    ],
}


def run_folder(out, name, seed):
    return out / f"{''.join(c if c.isalnum() else '_' for c in name)}_{seed}"


def train(name, flags, seed, args):
    """Train one configuration unless it is there; -> (run folder, seconds of training)."""
    folder = run_folder(args.out, name, seed)
    if not (folder / "final_model.pth").exists():
        command = [
            sys.executable,
            ROOT / "train.py",
            "--input_folder",
            args.input_folder,
            "--metadata",
            FOLDS,
            "--valid_fold",
            "8",
            "--seed",
            seed,
            "--folder",
            folder,
            "--overwrite",
            "--cache",
            args.out / "cache",
            *flags,
        ]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = (folder / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("seconds")
    return folder, sum(float(row.split(",")[column]) for row in history[1:])


def read_validation(folder):
    """(y_true, y_score, y_pred), all (R, C), of a run's validation recordings."""
    predictor = load_predictor(folder)
    rows = read_predictions(RunFolder(folder), predictor.class_set)
    y_score = np.array([score for _, score in rows.values()])
    return CLASS_SET.encode_all([dx for dx, _ in rows.values()]) > 0, y_score, predictor.decide(y_score)


def read_outside(folder, output, outside):
    """The same for the recordings in `outside`, through driver.py."""
    subprocess.run(
        [sys.executable, str(ROOT / "driver.py"), str(folder), str(outside), str(output)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return read_outputs(outside, output)


def read_outputs(inputs, output):
    """(y_true, y_score, y_pred), all (R, C), of the answers that driver.py wrote into `output`."""
    records = find_records(inputs)
    answers = [(output / f"{record.record_id}.csv").read_text().splitlines() for record in records]
    return (
        CLASS_SET.encode_all([read_header(record.path).dx for record in records]) > 0,
        np.array([answer[3].split(",") for answer in answers], float),
        np.array([answer[2].split(",") for answer in answers], int) > 0,
    )


def scores(y_true, y_score, y_pred, class_set, rows=slice(None), classes=None):
    """{auroc, challenge} on some rows; `classes` fixes which classes count. AUROC is NaN where none has enough
    positives.
    """
    weights, normal = official_weights(class_set)
    classes = y_true.sum(0) >= MIN_POSITIVES if classes is None else classes
    auroc = auroc_per_class(y_true[rows][:, classes], y_score[rows][:, classes])
    return {
        "auroc": float(np.nanmean(auroc)) if np.isfinite(auroc).any() else float("nan"),
        "challenge": challenge_metric(y_true[rows], y_pred[rows], weights, normal),
    }


def bootstrap(runs, n=200):
    """95 % intervals of the mean over runs of each score, resampling the recordings (the same ones for all runs)."""
    rng, n_records = np.random.default_rng(0), len(runs[0][0])
    classes = runs[0][0].sum(0) >= MIN_POSITIVES
    draws = [rng.integers(0, n_records, n_records) for _ in range(n)]
    means = [
        {k: np.mean([scores(*run, CLASS_SET, rows, classes)[k] for run in runs]) for k in ("auroc", "challenge")}
        for rows in draws
    ]
    return {k: [float(v) for v in np.percentile([m[k] for m in means], (2.5, 97.5))] for k in ("auroc", "challenge")}


def summarise(name, flags, args):
    """Train and score all seeds of a configuration; -> (rows for accuracy.csv, entry for accuracy.json)."""
    rows, runs = [], {"validation": [], "outside": []}
    for seed in args.seeds:
        folder, seconds = train(name, flags, seed, args)
        row = {
            "configuration": name,
            "seed": seed,
            "seconds": round(seconds, 1),
            "parameters": sum(p.numel() for p in load_run(folder)[0][0].parameters()),
        }
        for where, found in (
            ("validation", read_validation(folder)),
            ("outside", args.outside and read_outside(folder, folder / "outside", args.outside)),
        ):
            if found:
                runs[where].append(found)
                row |= {f"{where}_{k}": v for k, v in scores(*found, CLASS_SET).items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    entry = {
        "flags": flags,
        "seeds": args.seeds,
        "parameters": rows[0]["parameters"],
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }
    for where in runs:
        for score in ("auroc", "challenge") if runs[where] else ():
            values = [row[f"{where}_{score}"] for row in rows]
            entry[f"{where}_{score}"] = {
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        if runs[where]:
            for score, interval in bootstrap(runs[where]).items():
                entry[f"{where}_{score}"]["interval"] = interval
            y_true, y_score = runs[where][0][0], np.mean([run[1] for run in runs[where]], axis=0)
            together = scores(y_true, y_score, decide(y_score, None, default_rule(CLASS_SET)), CLASS_SET)
            for score in together:
                entry[f"{where}_{score}"]["averaged"] = together[score]
    return rows, entry


def table(summary):
    """Markdown."""

    def cell(value):
        return (
            ""
            if value is None
            else f"{value['mean']:.3f} +- {value['sd'] or 0:.3f} ({value['interval'][0]:.3f} to {value['interval'][1]:.3f}); {value['averaged']:.3f}"
        )

    names = ("validation_auroc", "validation_challenge", "outside_auroc", "outside_challenge")
    lines = [
        "| configuration | parameters | training, s | " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "|---" * 7 + "|",
    ]
    for name, entry in summary.items():
        lines.append(
            f"| {name} | {entry['parameters']:,} | {entry['seconds']:.0f} | "
            + " | ".join(cell(entry.get(n)) for n in names)
            + " |"
        )
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--input_folder",
        default="Training_WFDB",
        help="the PTB-XL recordings of benchmarks/ptbxl_folds.csv (default: %(default)s)",
    )
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
    rows, summary = [], {}
    for name in args.only:
        new, summary[name] = summarise(name, CONFIGURATIONS[name], args)
        rows += new
        RunFolder(args.out).write_rows("accuracy.csv", rows)
        RunFolder(args.out).write_json("accuracy.json", summary)
    print(table(summary))


if __name__ == "__main__":
    main()
