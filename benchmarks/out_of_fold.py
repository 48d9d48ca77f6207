"""What a recipe answers to recordings that it was not trained on, with all leads and with fewer.

    for k in 1 2 3 4; do python train.py --fold $k --n_folds 4 --folder runs/fold_$k ...; done
    python -m benchmarks.out_of_fold mdl runs/fold_1 runs/fold_2 runs/fold_3 runs/fold_4 --input_folder DIR

The runs are made as the model in the first folder was made, each without the patients of its fold. Their last epoch
answers these, and the model's decision rule decides. Prints Markdown, with 95 % bootstrap intervals; AUROC is the mean
over the classes with at least 5 recordings. The answers with all leads are kept as valid_predictions.csv beside the
model, from which `python -m benchmarks.model_card` makes its tables.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np

from benchmarks.few_leads import LEAD_SETS, answers_with, validated
from benchmarks.model_card import Scores
from benchmarks.runs import CLASS_SET, MIN_POSITIVES, Answers
from data.records import Record, find_records, read_header
from engine.inference import Predictor
from engine.run_folder import RunFolder
from engine.trained_run import load_run
from engine.validation import prediction_rows


def predictor_of(run: Path, rule: dict) -> Predictor:
    """The last epoch of a run, with another decision rule."""
    loaded = load_run(run, "final_model.pth")
    return Predictor(loaded.models, loaded.windows, loaded.signal, loaded.class_set, rule)


def answers_of(runs: list[Path], records: list[Record], rule: dict, names: tuple[str, ...]) -> Answers:
    """Answers to the recordings that each run validated on, run after run, from the leads `names` alone."""
    parts = [answers_with(predictor_of(run, rule), validated(run, records), names)[0] for run in runs]
    y_true, y_score, y_pred = (np.concatenate(of_runs) for of_runs in zip(*map(astuple, parts)))
    return Answers(y_true, y_score, y_pred)


def row(answers: Answers, rows: np.ndarray) -> str:
    """AUROC and Challenge metric of some of the recordings, with their intervals."""
    scores = Scores(answers.y_true[rows], answers.y_pred[rows], answers.y_score[rows], CLASS_SET)
    common = scores.y_true.sum(0) >= MIN_POSITIVES  # (C,)
    return f"{scores.auroc(common) if common.any() else ''} | {scores.challenge_metric()}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="run folder of the model; gets valid_predictions.csv")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of the cross-validation")
    parser.add_argument("--input_folder", required=True, help="the recordings of all of them")
    args = parser.parse_args(argv)
    rule = load_run(args.model).config["decision"]
    records = find_records(args.input_folder)
    order = [record for run in args.runs for record in validated(run, records)]
    if len(set(order)) < len(order):
        parser.error("some recordings were validated by several of the runs: are they of one cross-validation?")
    sources = np.array([record.source for record in order])
    largest = Counter(sources).most_common(1)[0][0]
    groups = {largest: sources == largest, "the others": sources != largest}
    groups = {f"{name} ({rows.sum()})": rows for name, rows in groups.items() if rows.any()}
    print("| leads | " + " | ".join(f"{name}: AUROC | Challenge metric" for name in groups) + " |")
    print("|---" * (1 + 2 * len(groups)) + "|")
    for names in LEAD_SETS:
        answers = answers_of(args.runs, records, rule, names)
        title = "all 12" if len(names) == 12 else ", ".join(names)
        print(f"| {title} | " + " | ".join(row(answers, rows) for rows in groups.values()) + " |", flush=True)
        if len(names) == 12:
            dx = [read_header(record.path).dx for record in order]
            rows = prediction_rows([record.name for record in order], dx, CLASS_SET, answers.y_score)
            RunFolder(args.model).write_rows("valid_predictions.csv", rows)


if __name__ == "__main__":
    main()
