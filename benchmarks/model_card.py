"""Scores of a trained model per class, from the predictions that it kept of recordings it was not trained on.

    python -m benchmarks.model_card mdl/ensemble

reads valid_predictions.csv and config.json of a run folder (of an ensemble: out-of-fold predictions) and prints
Markdown: overall scores with 95 % bootstrap intervals; for each class, recordings with the diagnosis, AUROC,
sensitivity and positive predictive value; for each source, AUROC and Challenge metric. Labels are those of the official
scorer together with the aliases that training counts as the same. By number of leads: benchmarks.few_leads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.runs import MIN_POSITIVES
from data.labels import ClassSet
from engine.ensemble import out_of_fold
from engine.inference import load_predictor
from engine.metrics import auroc_per_class, challenge_metric, compute_scores, expected_calibration_error
from engine.run_folder import RunError, RunFolder
from engine.validation import official_weights

N_DRAWS = 500


def interval(score: Callable[[np.ndarray], np.ndarray | float], n_recordings: int) -> np.ndarray:
    """Lower and upper end (2, ...) of the 95 % bootstrap interval of a score, a function of rows of the recordings."""
    rng = np.random.default_rng(0)
    draws = [score(rng.integers(0, n_recordings, n_recordings)) for _ in range(N_DRAWS)]
    return np.nanpercentile(draws, (2.5, 97.5), axis=0)


def with_interval(score: Callable[[np.ndarray], float], n_recordings: int) -> str:
    """The score of all recordings, and the ends of its interval behind it."""
    low, high = interval(score, n_recordings)
    return f"{score(np.arange(n_recordings)):.3f} ({low:.3f} to {high:.3f})"


def ratio(above: int, below: int) -> float:
    """above / below, NaN where below is 0."""
    return above / below if below else float("nan")


class Scores:
    """Scores of R recordings, with their intervals.

    Args:
        y_true, y_pred: (R, C) bool.
        y_score: (R, C) probabilities.
        class_set: of the C columns.
    """

    def __init__(self, y_true: np.ndarray, y_pred: np.ndarray, y_score: np.ndarray, class_set: ClassSet):
        self.y_true = y_true
        self.y_pred = y_pred
        self.y_score = y_score
        self.class_set = class_set
        self.weights, self.normal = official_weights(class_set)

    def __len__(self) -> int:
        return len(self.y_true)

    def auroc_classes(self, rows: np.ndarray) -> np.ndarray:
        """(C,), NaN where it is not defined."""
        return auroc_per_class(self.y_true[rows], self.y_score[rows])

    def auroc(self, classes: np.ndarray) -> str:
        """Macro AUROC over some classes (C,) bool, of which each is measurable."""

        def score(rows):
            found = auroc_per_class(self.y_true[rows][:, classes], self.y_score[rows][:, classes])
            return np.nanmean(found) if np.isfinite(found).any() else np.nan

        return with_interval(score, len(self))

    def challenge_metric(self) -> str:
        """'' for classes of no Challenge."""
        if self.weights is None:
            return ""

        def score(rows):
            return challenge_metric(self.y_true[rows], self.y_pred[rows], self.weights, self.normal)

        return with_interval(score, len(self))

    def overall(self) -> str:
        """All of them in a line."""
        scores = compute_scores(self.y_true, self.y_pred, self.y_score, self.weights, self.normal)
        found = [
            f"macro AUROC {self.auroc(self.y_true.any(0))}",
            f"macro AUPRC {scores['auprc']:.3f}",
            f"F-measure {scores['f_measure']:.3f}",
        ]
        if self.weights is not None:
            found.append(f"Challenge metric {self.challenge_metric()}")
        found.append(f"expected calibration error {expected_calibration_error(self.y_true, self.y_score):.3f}")
        return ", ".join(found)


def class_rows(scores: Scores) -> list[str]:
    """A row of the table for each of the C classes."""
    auroc = scores.auroc_classes(np.arange(len(scores)))  # (C,)
    ends = interval(scores.auroc_classes, len(scores))  # (2, C)
    rows = []
    for k, code in enumerate(scores.class_set.codes):
        n = int(scores.y_true[:, k].sum())
        hits = int((scores.y_true & scores.y_pred)[:, k].sum())
        called = int(scores.y_pred[:, k].sum())
        shown = "not measurable"
        if n > 1:
            shown = f"{auroc[k]:.3f} ({ends[0, k]:.3f} to {ends[1, k]:.3f})"
        names = f"{code} | {scores.class_set.abbreviations[k]} | {scores.class_set.names[k]}"
        figures = f"{n} | {shown} | {ratio(hits, n):.2f} | {ratio(hits, called):.2f}"
        rows.append(f"| {names} | {figures} |")
    return rows


def source_rows(records: list[str], scores: Scores) -> list[str]:
    """A row of the table for each source, the first part of the R recordings' names. AUROC is over the classes with
    MIN_POSITIVES there, as in the other benchmarks.
    """
    sources = np.array([name.partition("/")[0] if "/" in name else "." for name in records])
    rows = []
    for source in sorted(set(sources)):
        own = sources == source
        of_source = Scores(scores.y_true[own], scores.y_pred[own], scores.y_score[own], scores.class_set)
        common = of_source.y_true.sum(0) >= MIN_POSITIVES  # (C,)
        auroc = of_source.auroc(common) if common.any() else ""
        rows.append(f"| {source} | {len(of_source)} | {common.sum()} | {auroc} | {of_source.challenge_metric()} |")
    return rows


def card(folder: str) -> list[str]:
    """Markdown lines."""
    predictor = load_predictor(folder)
    class_set = predictor.class_set
    records, dx, y_score = out_of_fold([RunFolder(folder)], class_set)
    y_true = class_set.encode_all(dx, training=True) > 0
    scores = Scores(y_true, predictor.decide(y_score), y_score, class_set)
    return [
        f"{len(scores)} recordings, each predicted only by members that were not trained on it: {scores.overall()}.",
        "",
        "| code | | diagnosis | recordings | AUROC | sensitivity | positive predictive value |",
        "|---" * 7 + "|",
        *class_rows(scores),
        "",
        f"| source | recordings | classes with {MIN_POSITIVES} or more | their AUROC | Challenge metric |",
        "|---" * 5 + "|",
        *source_rows(records, scores),
    ]


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
