"""Scores of a trained model per class, from the predictions that it kept of recordings it was not trained on.

    python -m benchmarks.model_card mdl

reads valid_predictions.csv and config.json of a run folder (of an ensemble: out-of-fold predictions) and prints
Markdown: overall scores and, for each class, recordings with the diagnosis, threshold, AUROC with a 95 % bootstrap
interval, sensitivity and positive predictive value. Labels are those of the official scorer together with the aliases
that training counts as the same.
"""

import argparse
import sys

import numpy as np

from engine.ensemble import out_of_fold
from engine.inference import load_predictor
from engine.metrics import auroc_per_class, challenge_metric, compute_scores, expected_calibration_error
from engine.run_folder import RunError, RunFolder
from engine.validation import official_weights

N_DRAWS = 500


def intervals(y_true, y_score, y_pred, weights, normal):
    """95 % bootstrap intervals over recordings: AUROC of each class (C, 2), macro AUROC (2,), challenge metric (2,)."""
    rng, n = np.random.default_rng(0), len(y_true)
    classes, macro, challenge = [], [], []
    for _ in range(N_DRAWS):
        rows = rng.integers(0, n, n)
        classes.append(auroc_per_class(y_true[rows], y_score[rows]))
        macro.append(np.nanmean(classes[-1]))
        if weights is not None:
            challenge.append(challenge_metric(y_true[rows], y_pred[rows], weights, normal))
    return (
        np.nanpercentile(classes, (2.5, 97.5), axis=0).T,
        np.percentile(macro, (2.5, 97.5)),
        np.percentile(challenge, (2.5, 97.5)) if challenge else None,
    )


def card(folder):
    """Markdown lines."""
    predictor = load_predictor(folder)
    class_set = predictor.class_set
    _, dx, y_score = out_of_fold([RunFolder(folder)], class_set)
    y_true, y_pred = class_set.encode_all(dx, training=True) > 0, predictor.decide(y_score)
    weights, normal = official_weights(class_set)
    scores = compute_scores(y_true, y_pred, y_score, weights, normal)
    by_class, macro, challenge = intervals(y_true, y_score, y_pred, weights, normal)
    lines = [
        f"{len(y_true)} recordings, each predicted only by members that were not trained on it: macro AUROC {scores['auroc']:.3f} "
        f"({macro[0]:.3f} to {macro[1]:.3f}), macro AUPRC {scores['auprc']:.3f}, F-measure {scores['f_measure']:.3f}, "
        + (
            f"Challenge metric {scores['challenge_metric']:.3f} ({challenge[0]:.3f} to {challenge[1]:.3f}), "
            if challenge is not None
            else ""
        )
        + f"expected calibration error {expected_calibration_error(y_true, y_score):.3f}.",
        "",
        "| code | | diagnosis | recordings | threshold | AUROC | sensitivity | positive predictive value |",
        "|---" * 8 + "|",
    ]
    for k, code in enumerate(class_set.codes):
        n, hits, called = int(y_true[:, k].sum()), int((y_true & y_pred)[:, k].sum()), int(y_pred[:, k].sum())
        auroc = (
            f"{scores['auroc_classes'][k]:.3f} ({by_class[k][0]:.3f} to {by_class[k][1]:.3f})"
            if n > 1
            else "not measurable"
        )
        lines.append(
            f"| {code} | {class_set.abbreviations[k]} | {class_set.names[k]} | {n} | {predictor.thresholds[k]:.2f} | {auroc} | "
            f"{hits / n if n else float('nan'):.2f} | {hits / called if called else float('nan'):.2f} |"
        )
    return lines


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="run folder")
    try:
        print("\n".join(card(parser.parse_args(argv).folder)))
    except RunError as error:
        sys.exit(f"model_card: {error}")


if __name__ == "__main__":
    main()
