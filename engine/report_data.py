"""What a report on a run says, as numbers: predictions with their labels, scores with intervals, curves, confusions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.labels import NORMAL, ClassSet
from engine.bootstrap import areas, counts, draw_weights, interval, ratio
from engine.ensemble import out_of_fold
from engine.inference import Predictor
from engine.metrics import curve, load_weights, rewards
from engine.run_folder import RunError, RunFolder
from engine.score_files import find_pairs, read_outputs

CURVE_POINTS = 120  # of a curve in a picture


@dataclass(frozen=True)
class Predictions:
    """Answers on R recordings and what is known of them."""

    names: list  # 'source/record_id'
    dx: list  # tuples of codes
    y_true: np.ndarray  # (R, C) bool, as training saw them: clinical aliases count
    y_official: np.ndarray  # (R, C) bool, as the Challenge's scorer sees them
    y_score: np.ndarray  # (R, C)
    y_pred: np.ndarray  # (R, C) bool
    where: str  # in words: where they come from

    @property
    def sources(self) -> np.ndarray:
        """(R,) folder of each recording, '.' for the top."""
        return np.array([name.rpartition("/")[0] or "." for name in self.names])


def validation_predictions(run: RunFolder, predictor: Predictor) -> Predictions:
    """Predictions on the recordings that a run (or an ensemble's members) validated on; of a run that trained on all,
    those of a cross-validation (benchmarks.out_of_fold).
    """
    names, dx, y_score = out_of_fold([run], predictor.class_set)
    if not names:
        raise RunError(f"{run / 'valid_predictions.csv'} holds no recordings")
    where = "validation recordings, which training did not learn from (but chose the best epoch by)"
    if run.read_config()["data"].get("n_valid") == 0:
        where = "each answered by a model that was made in the same way without it, for this one learned from all"
    return _predictions(names, dx, predictor.class_set, y_score, predictor.decide(y_score), where)


def folder_predictions(labels: str, outputs: str, class_set: ClassSet) -> Predictions:
    """Predictions in a folder of CSV files as driver.py writes them. Raises ScoreFileError, RunError."""
    pairs = find_pairs(labels, outputs)
    found = read_outputs(pairs.outputs, class_set.members)
    if found.malformed:
        raise RunError(f"{found.malformed[0]} is not an answer of driver.py ({len(found.malformed)} files are not)")
    if not found.has_column.all():
        raise RunError(f"{outputs}: its answers have other classes than the run: name the RUN that gave them")
    names = [Path(header).relative_to(labels).with_suffix("").as_posix() for header in pairs.headers]
    return _predictions(
        names, pairs.dx, class_set, found.y_score, found.y_pred, f"answers in {outputs}, labels in {labels}"
    )


def _predictions(names, dx, class_set, y_score, y_pred, where):
    y_true, y_official = (class_set.encode_all(dx, training).astype(bool) for training in (True, False))
    return Predictions(names, dx, y_true, y_official, y_score, y_pred, where)


@dataclass(frozen=True)
class Scores:
    """Scores of some recordings, each as (value, low, high); limits are those of the bootstrap over recordings."""

    n_records: int
    positives: np.ndarray  # (C,)
    classes: dict  # {auroc, auprc, sensitivity, ppv, f: three arrays (C,)}
    macro: dict  # {the same: three floats}, the mean over the classes where the score is defined
    reward: tuple | None  # Challenge metric, three floats; None where the class set has no rewards
    reward_aliases: tuple | None  # the same, clinical aliases of a class counted


def score(p: Predictions, class_set: ClassSet, rows: np.ndarray | None = None) -> Scores:
    """Scores of the recordings `rows` (default: all)."""
    rows = np.arange(len(p.names)) if rows is None else rows
    y_true, y_score, y_pred = p.y_true[rows], p.y_score[rows], p.y_pred[rows]
    weights = draw_weights(len(rows))
    drawn = dict(zip(("auroc", "auprc"), areas(y_true, y_score, weights)))
    drawn |= _decided(*counts(y_true, y_pred, weights))
    once = np.ones((1, len(rows)), np.int16)
    values = dict(zip(("auroc", "auprc"), areas(y_true, y_score, once)))
    values |= _decided(*counts(y_true, y_pred, once))
    whole = {name: value[0] for name, value in values.items()}
    found = {name: (whole[name], *interval(drawn[name])) for name in whole}
    macro = {name: _macro(whole[name], drawn[name]) for name in whole}
    rewards = [_challenge(labels, y_pred, weights, class_set) for labels in (p.y_official[rows], y_true)]
    return Scores(len(rows), y_true.sum(0), found, macro, *rewards)


def _decided(tp, fp, fn):
    return {"sensitivity": ratio(tp, tp + fn), "ppv": ratio(tp, tp + fp), "f": ratio(2 * tp, 2 * tp + fp + fn)}


def _macro(whole, drawn):
    """(mean over the classes that are defined on all recordings, low, high)."""
    known = ~np.isnan(whole)
    if not known.any():
        return np.nan, np.nan, np.nan
    some = drawn[:, known]
    defined = ~np.isnan(some)
    means = ratio(np.where(defined, some, 0).sum(1), defined.sum(1))
    return float(whole[known].mean()), *(float(value) for value in interval(means))


def _challenge(y_true, y_pred, weights, class_set):
    """Challenge metric with its interval: rewards are sums over recordings, so a draw is a weighted sum."""
    if class_set.year is None:
        return None
    matrix = load_weights(class_set.year)[1]
    normal = np.zeros_like(y_true)
    normal[:, class_set.column(NORMAL)] = True
    earned, worst, best = (rewards(y_true, answers, matrix) for answers in (y_pred, normal, y_true))
    drawn = np.concatenate([np.ones((1, len(y_true))), weights])  # the first is no draw but all recordings
    values = ratio(drawn @ (earned - worst), drawn @ (best - worst))
    low, high = interval(values[1:])
    return float(values[0]), float(low), float(high)


def curves(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """{'roc': (false positive rate, sensitivity), 'pr': (sensitivity, precision)} of one class, thinned for a picture.

    y_true (R,) bool, y_score (R,) -> None if the class has no positives or no negatives.
    """
    if y_true.all() or not y_true.any():
        return None
    tp, fp = curve(y_true, y_score)  # (T + 1,)
    sensitivity = tp / tp[-1]
    fpr = fp / fp[-1]
    roc = _thinned(fpr, sensitivity, along=fpr + sensitivity)
    pr = _thinned(sensitivity[1:], tp[1:] / (tp[1:] + fp[1:]), along=sensitivity[1:])
    return {"roc": roc, "pr": pr}


def _thinned(x, y, along):
    """At most CURVE_POINTS points, evenly spread in `along` (which grows)."""
    wanted = np.linspace(along[0], along[-1], CURVE_POINTS)
    keep = np.unique(np.concatenate([[0], np.searchsorted(along, wanted).clip(max=len(along) - 1)]))
    return x[keep], y[keep]


def reliability(y_true: np.ndarray, y_score: np.ndarray, n_bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean probability, frequency, number) of all R x C answers in bins of equal width; empty bins are left out."""
    bins = np.minimum((y_score * n_bins).astype(int), n_bins - 1).ravel()
    n = np.bincount(bins, minlength=n_bins)
    some = n > 0
    promised = np.bincount(bins, weights=y_score.ravel(), minlength=n_bins)[some] / n[some]
    seen = np.bincount(bins, weights=y_true.ravel(), minlength=n_bins)[some] / n[some]
    return promised, seen, n[some]


def confusion(p: Predictions) -> np.ndarray:
    """(C, C): how much of the recordings' labels (rows) met which answers (columns), as the Challenge counts it: every
    pair of a recording's label and answer counts 1 / (number of classes that are labelled or answered).
    """
    y_true, y_pred = p.y_official.astype(float), p.y_pred.astype(float)
    share = 1 / np.maximum((p.y_official | p.y_pred).sum(1), 1)  # (R,)
    return (y_true * share[:, None]).T @ y_pred


def losses(p: Predictions) -> np.ndarray:
    """(R,) cross-entropy of each recording over the classes: how wrong the model was."""
    q = np.clip(p.y_score.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.where(p.y_true, np.log(q), np.log(1 - q)).sum(1)


def threshold_for(y_true: np.ndarray, y_score: np.ndarray, sensitivity: float) -> tuple[float, float, float] | None:
    """(threshold, specificity, PPV) of the highest threshold that finds at least this share of the positives.

    A class is called at the threshold and above. y_true (R,) bool, y_score (R,) -> None without positives.
    """
    if not y_true.any():
        return None
    found = np.sort(y_score[y_true])[::-1]
    threshold = found[int(np.ceil(sensitivity * len(found))) - 1]
    called = y_score >= threshold
    specificity = float(np.mean(~called[~y_true])) if (~y_true).any() else np.nan
    return float(threshold), specificity, float(y_true[called].mean())
