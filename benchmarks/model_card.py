"""Scores of a trained model per class, from the predictions that it kept of recordings it was not trained on.

    python -m benchmarks.model_card mdl/ensemble

reads valid_predictions.csv and config.json of a run folder (of an ensemble: out-of-fold predictions) and prints
Markdown: overall scores and, for each class, recordings with the diagnosis, threshold, AUROC with a 95 % bootstrap
interval, sensitivity and positive predictive value. Labels are those of the official scorer together with the aliases
that training counts as the same.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from engine.ensemble import out_of_fold
from engine.inference import load_predictor
from engine.metrics import auroc_per_class, challenge_metric, compute_scores, expected_calibration_error
from engine.run_folder import RunError, RunFolder
from engine.validation import official_weights

N_DRAWS = 500


def intervals(
    y_true: np.ndarray, y_score: np.ndarray, y_pred: np.ndarray, weights: np.ndarray | None, normal: int | None
) -> dict[str, np.ndarray]:
    """95 % bootstrap intervals over recordings.

    Args:
        y_true: (R, C) bool.
        y_score: (R, C) probabilities.
        y_pred: (R, C) bool.
        weights: (C, C) reward matrix, or None.
        normal: column of sinus rhythm, or None.

    Returns:
        "auroc_classes" (2, C), "auroc" (2,) and, with weights, "challenge_metric" (2,): lower and upper ends.
    """
    rng = np.random.default_rng(0)
    draws = {"auroc_classes": [], "auroc": []}
    if weights is not None:
        draws["challenge_metric"] = []
    for _ in range(N_DRAWS):
        rows = rng.integers(0, len(y_true), len(y_true))
        auroc = auroc_per_class(y_true[rows], y_score[rows])
        draws["auroc_classes"].append(auroc)
        draws["auroc"].append(np.nanmean(auroc))
        if weights is not None:
            draws["challenge_metric"].append(challenge_metric(y_true[rows], y_pred[rows], weights, normal))
    return {name: np.nanpercentile(values, (2.5, 97.5), axis=0) for name, values in draws.items()}


def with_interval(value: float, interval: np.ndarray) -> str:
    """A score, and the ends of its interval (2,) behind it."""
    low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def ratio(above: int, below: int) -> float:
    """above / below, NaN where below is 0."""
    return above / below if below else float("nan")


def card(folder: str) -> list[str]:
    """Markdown lines."""
    predictor = load_predictor(folder)
    class_set = predictor.class_set
    _, dx, y_score = out_of_fold([RunFolder(folder)], class_set)
    y_true = class_set.encode_all(dx, training=True) > 0
    y_pred = predictor.decide(y_score)
    weights, normal = official_weights(class_set)
    scores = compute_scores(y_true, y_pred, y_score, weights, normal)
    ends = intervals(y_true, y_score, y_pred, weights, normal)
    overall = [
        f"macro AUROC {with_interval(scores['auroc'], ends['auroc'])}",
        f"macro AUPRC {scores['auprc']:.3f}",
        f"F-measure {scores['f_measure']:.3f}",
    ]
    if weights is not None:
        overall.append(f"Challenge metric {with_interval(scores['challenge_metric'], ends['challenge_metric'])}")
    overall.append(f"expected calibration error {expected_calibration_error(y_true, y_score):.3f}")
    lines = [
        f"{len(y_true)} recordings, each predicted only by members that were not trained on it: {', '.join(overall)}.",
        "",
        "| code | | diagnosis | recordings | threshold | AUROC | sensitivity | positive predictive value |",
        "|---" * 8 + "|",
    ]
    for k, code in enumerate(class_set.codes):
        n = int(y_true[:, k].sum())
        hits = int((y_true & y_pred)[:, k].sum())
        called = int(y_pred[:, k].sum())
        auroc = "not measurable"
        if n > 1:
            auroc = with_interval(scores["auroc_classes"][k], ends["auroc_classes"][:, k])
        names = f"{code} | {class_set.abbreviations[k]} | {class_set.names[k]}"
        figures = f"{n} | {predictor.thresholds[k]:.2f} | {auroc} | {ratio(hits, n):.2f} | {ratio(hits, called):.2f}"
        lines.append(f"| {names} | {figures} |")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Print the scores of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="run folder")
    try:
        print("\n".join(card(parser.parse_args(argv).folder)))
    except RunError as error:
        sys.exit(f"model_card: {error}")


if __name__ == "__main__":
    main()
