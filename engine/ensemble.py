"""Join finished runs into one run folder whose probabilities are the mean over its members.

    for k in 1 2 3 4 5; do python train.py --fold $k --n_folds 5 --folder runs/fold_$k; done
    python -m engine.ensemble mdl runs/fold_1 runs/fold_2 runs/fold_3 runs/fold_4 runs/fold_5

Every run has predicted the recordings that it never trained on. Together these out-of-fold predictions cover the
whole data: the ensemble's thresholds are chosen on them, its scores are reported on them, and they are kept as
valid_predictions.csv. `--odds SB=0.5` calls a class less (below 1) or more often (above 1) than its probability says.
"""

import argparse
import copy
import csv
import sys
from collections import defaultdict

import numpy as np
import torch

from engine.decision import decide
from engine.metrics import choose_thresholds, compute_scores, expected_calibration_error
from engine.run_folder import RunError, RunFolder, load_run, make_config
from engine.validation import SCORES, official_weights, prediction_rows


def read_predictions(run, class_set):
    """valid_predictions.csv of a run: {record: (dx tuple, probabilities (C,))}."""
    file = run / "valid_predictions.csv"
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            return {
                row["record"]: (
                    tuple(filter(None, row["dx"].split("|"))),
                    np.array([float(row[code]) for code in class_set.codes]),
                )
                for row in csv.DictReader(lines)
            }
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{file} cannot be read: {error!r}") from error


def out_of_fold(runs, class_set):
    """(records, dx lists, y_score (R, C)): each recording's mean over the runs that validated it."""
    scores, dx = defaultdict(list), {}
    for run in runs:
        for record, (codes, y_score) in read_predictions(run, class_set).items():
            scores[record].append(y_score)
            dx[record] = codes
    records = sorted(scores)
    return records, [dx[r] for r in records], np.array([np.mean(scores[r], axis=0) for r in records])


def join(out, folders, odds=()):
    """Write the ensemble of the run `folders` into the folder `out`, with `odds`, pairs (class, factor), in its
    decision rule; -> its out-of-fold scores.
    """
    runs, loaded = [RunFolder(folder) for folder in folders], [load_run(folder) for folder in folders]
    _, _, signal, class_set, first = loaded[0]
    rule = copy.deepcopy(first["decision"])
    for folder, (_, _, other_signal, other_classes, config) in zip(folders, loaded):
        if (other_signal, other_classes, config["decision"]) != (signal, class_set, first["decision"]):
            raise RunError(
                f"{folder} has another signal configuration, other classes or another decision rule than {folders[0]}"
            )
    for name, factor in odds:
        if class_set.column(name) is None or "odds" not in rule:
            raise RunError(f"--odds {name}: no such class, or the runs decide by thresholds")
        rule["odds"][class_set.column(name)] = factor
    records, dx, y_score = out_of_fold(runs, class_set)
    y_true, (weights, normal) = class_set.encode_all(dx) > 0, official_weights(class_set)
    thresholds = choose_thresholds(class_set.encode_all(dx, training=True) > 0, y_score, weights, normal)
    scores = compute_scores(y_true, decide(y_score, thresholds, rule), y_score, weights, normal)
    scores["calibration_error"] = expected_calibration_error(y_true, y_score)

    models, history = [], []
    for folder, run, (members, *_) in zip(folders, runs, loaded):
        models += members
        with open(run / "history.csv", newline="", encoding="utf-8") as lines:
            history += [{"member": RunFolder(folder).path.name, **row} for row in csv.DictReader(lines)]
    for model in models:
        model.head.thresholds.copy_(torch.from_numpy(thresholds))
    configs = [config for *_, config in loaded]
    config = make_config(
        signal,
        class_set,
        rule,
        [member for c in configs for member in c["members"]],
        {"members": [{"run": RunFolder(f).path.name, **c["training"]} for f, c in zip(folders, configs)]},
        {
            **configs[0]["data"],
            "n_train": len(records),
            "n_valid": len(records),
            "frequency": class_set.encode_all(dx, training=True).mean(0).tolist(),
            "out_of_fold": {name: scores[name] for name in (*SCORES, "calibration_error")},
        },
    )
    target = RunFolder(out)
    target.path.mkdir(parents=True, exist_ok=True)
    target.write_rows("history.csv", history)
    target.write_rows("valid_predictions.csv", prediction_rows(records, dx, class_set, y_score))
    target.save("model.pth", {"members": [model.state_dict() for model in models]})
    target.write_json("config.json", config)
    return scores


def class_and_factor(text):
    name, _, factor = text.partition("=")
    return name, float(factor)


def main(argv=None):
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
    print("Out of fold: " + ", ".join(f"{name} {scores[name]:.4f}" for name in (*SCORES, "calibration_error")))


if __name__ == "__main__":
    main()
