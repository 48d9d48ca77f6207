"""Join finished runs into one run folder whose probabilities are the mean over its members.

    for k in 1 2 3 4 5; do python train.py --fold $k --n_folds 5 --folder runs/fold_$k; done
    python -m engine.ensemble runs/joined runs/fold_1 runs/fold_2 runs/fold_3 runs/fold_4 runs/fold_5

Every run has predicted the recordings that it never trained on. Together these out-of-fold predictions cover the
whole data: the ensemble's thresholds are chosen on them, its scores are reported on them, and they are kept as
valid_predictions.csv. Runs may differ in their windows: each member goes on reading those it was validated with.
`--odds SB=0.5` calls a class less (below 1) or more often (above 1) than its probability says.
"""

from __future__ import annotations

import argparse
import copy
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from data.labels import ClassSet
from engine.decision import decide
from engine.metrics import compute_scores, expected_calibration_error
from engine.run_folder import RunError, RunFolder
from engine.thresholds import choose_thresholds
from engine.trained_run import load_run, make_config
from engine.validation import SCORES, official_weights, prediction_rows

REPORTED = (*SCORES, "calibration_error")


def read_predictions(run: RunFolder, class_set: ClassSet) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """valid_predictions.csv of a run: {record: (its diagnoses, probabilities (C,))}; RunError if it cannot be read."""
    file = run / "valid_predictions.csv"
    if not file.exists():
        raise RunError(
            f"{file} is missing: the run trained on all recordings (--valid_split 0), or has not finished an epoch, so "
            f"nothing is known of how it does on others; to score its answers to some: python driver.py {run.path} IN "
            f"OUT, then python evaluate_12ECG_score.py IN OUT"
        )
    predictions = {}
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                dx = tuple(code for code in row["dx"].split("|") if code)
                y_score = np.array([float(row[code]) for code in class_set.codes])
                predictions[row["record"]] = (dx, y_score)
    except (OSError, KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise RunError(f"{file} cannot be read: {error!r}") from error
    return predictions


def out_of_fold(runs: Iterable[RunFolder], class_set: ClassSet) -> tuple[list[str], list[tuple[str, ...]], np.ndarray]:
    """Records, their diagnoses, and y_score (R, C): each recording's mean over the runs that validated it."""
    scores = defaultdict(list)
    dx = {}
    for run in runs:
        for record, (codes, y_score) in read_predictions(run, class_set).items():
            scores[record].append(y_score)
            dx[record] = codes
    records = sorted(scores)
    y_score = np.array([np.mean(scores[record], axis=0) for record in records])
    return records, [dx[record] for record in records], y_score


def with_odds(rule: dict, odds: Iterable[tuple[str, float]], class_set: ClassSet) -> dict:
    """A copy of a decision rule with other factors for the odds of some classes.

    Args:
        rule: see engine.decision.
        odds: pairs (class, factor).
        class_set: the classes of the rule.

    Returns:
        the new rule.

    Raises:
        RunError: a class is unknown, or the rule has no odds.
    """
    rule = copy.deepcopy(rule)
    for name, factor in odds:
        column = class_set.column(name)
        if column is None or "odds" not in rule:
            raise RunError(f"--odds {name}: no such class, or the runs decide by thresholds")
        rule["odds"][column] = factor
    return rule


def read_histories(runs: Iterable[RunFolder]) -> list[dict[str, str]]:
    """Rows of history.csv of all runs, each with the name of its run."""
    history = []
    for run in runs:
        with open(run / "history.csv", newline="", encoding="utf-8") as lines:
            history += [{"member": run.path.name, **row} for row in csv.DictReader(lines)]
    return history


def join(
    out: str | Path, folders: Sequence[str | Path], odds: Iterable[tuple[str, float]] = ()
) -> dict[str, float | np.ndarray]:
    """Write an ensemble of runs.

    Args:
        out: folder of the ensemble; a run that is in it is not overwritten.
        folders: finished run folders.
        odds: pairs (class, factor) for its decision rule.

    Returns:
        its out-of-fold scores, see engine.metrics.compute_scores, and calibration_error.

    Raises:
        RunError: a run cannot be read, the runs do not fit together, or there is a run in `out`.
    """
    target = RunFolder(out)
    there = [name for name in ("config.json", "model.pth") if (target / name).exists()]
    if there:
        raise RunError(f"{target / there[0]} is there already: name another folder, or remove the run in it")
    runs = [RunFolder(folder) for folder in folders]
    models, configs, contracts = [], [], []
    for folder in folders:
        members, _, signal, class_set, config = load_run(folder)
        models += members
        configs.append(config)
        contracts.append((signal, class_set, config["decision"]))
        if contracts[-1] != contracts[0]:
            raise RunError(
                f"{folder} has another signal configuration, other classes or another decision rule than {folders[0]}"
            )
    signal, class_set, rule = contracts[0]
    rule = with_odds(rule, odds, class_set)

    # Thresholds and scores, from what every run predicted of recordings that it was not trained on
    records, dx, y_score = out_of_fold(runs, class_set)
    y_true = class_set.encode_all(dx) > 0
    targets = class_set.encode_all(dx, training=True)
    weights, normal = official_weights(class_set)
    thresholds = choose_thresholds(targets > 0, y_score, weights, normal)
    for model in models:
        model.head.thresholds.copy_(torch.from_numpy(thresholds))
    scores = compute_scores(y_true, decide(y_score, thresholds, rule), y_score, weights, normal)
    scores["calibration_error"] = expected_calibration_error(y_true, y_score)

    config = make_config(
        signal,
        class_set,
        rule,
        [member for config in configs for member in config["members"]],
        {"members": [{"run": run.path.name, **config["training"]} for run, config in zip(runs, configs)]},
        {
            **configs[0]["data"],
            "n_train": len(records),
            "n_valid": len(records),
            "frequency": targets.mean(0).tolist(),
            "out_of_fold": {name: scores[name] for name in REPORTED},
        },
    )
    target.create()
    target.write_rows("history.csv", read_histories(runs))
    target.write_rows("valid_predictions.csv", prediction_rows(records, dx, class_set, y_score))
    target.save("model.pth", {"members": [model.state_dict() for model in models]})
    target.write_json("config.json", config)
    return scores


def class_and_factor(text: str) -> tuple[str, float]:
    """CLASS=FACTOR of the command line."""
    name, _, factor = text.partition("=")
    return name, float(factor)


def main(argv: list[str] | None = None) -> None:
    """Join the runs that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the ensemble")
    parser.add_argument("runs", nargs="+", help="finished run folders")
    parser.add_argument(
        "--odds",
        type=class_and_factor,
        nargs="+",
        default=[],
        metavar="CLASS=FACTOR",
        help="factors for the odds of classes when deciding",
    )
    args = parser.parse_args(argv)
    try:
        scores = join(args.out, args.runs, args.odds)
    except (RunError, OSError, ValueError, csv.Error) as error:
        sys.exit(f"ensemble: {error}")
    print("Out of fold: " + ", ".join(f"{name} {scores[name]:.4f}" for name in REPORTED))


if __name__ == "__main__":
    main()
