"""Official scores on arrays, vectorised. Needs numpy only.

Definitions: the Challenge 2020 evaluator (physionetchallenges/evaluation-2020), and for `compute_scores_cpsc2018` the
one of the Challenge's first phase (April 2020). Everywhere y_true and y_pred are (R, C) bool, y_score (R, C) real: R
recordings, C classes. A score that is not defined (a class without positives, say) is NaN, and macro averages skip
it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data.labels import NORMAL, code_groups, read_matrix

BETA = 2  # of the F-beta and G-beta measures: a missed diagnosis weighs twice


def load_weights(year: int = 2020) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Reward matrix of the Challenge of `year`, equivalent classes merged to the first of each pair:
    (list of C tuples of codes, (C, C) float64). The normal class is `normal_column(groups)`.
    """
    columns, values = read_matrix(year)
    groups = list(code_groups(year))
    group_of = {code: i for i, group in enumerate(groups) for code in group}
    owner = np.array([group_of[name.split("|")[0]] for name in columns])  # (N,): the group of each row and column
    _, first = np.unique(owner, return_index=True)  # (C,): the first row of each group
    if not np.array_equal(values, values[np.ix_(first[owner], first[owner])]):  # rows of a group must not differ
        raise ValueError(f"reward matrix of {year}: equivalent classes have different weights")
    return groups, values[np.ix_(first, first)]


def normal_column(groups: Sequence[Sequence[str]]) -> int:
    """Column of sinus rhythm, the class of a classifier that never finds anything."""
    return next(i for i, group in enumerate(groups) if NORMAL in group)


def compute_scores(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    y_score: np.ndarray,
    weights: np.ndarray | None = None,
    normal_index: int | None = None,
) -> dict[str, float | np.ndarray]:
    """The official scores of 2020.

    Args:
        y_true: (R, C) bool, labels.
        y_pred: (R, C) bool, decisions.
        y_score: (R, C) real, probabilities.
        weights: (C, C) reward matrix, or None: no challenge metric.
        normal_index: column of sinus rhythm; needed with `weights`.

    Returns:
        dictionary of auroc, auprc, accuracy (all classes of a recording right), f_measure, f_beta_measure,
        g_beta_measure, challenge_metric (NaN without `weights`), and the arrays (C,) auroc_classes, auprc_classes,
        f_measure_classes.

    Raises:
        ValueError: the shapes differ or a score is NaN.
    """
    y_true, y_pred, y_score = checked(y_true, y_pred, y_score)
    auroc, auprc = _areas(y_true, y_score)
    f_measure = f_measure_per_class(y_true, y_pred)
    tp, fp, fn, _ = _counts(y_true, y_pred, _share_of_labels(y_true))
    f_beta, g_beta = _beta_measures(tp, fp, fn)
    metric = np.nan if weights is None else challenge_metric(y_true, y_pred, weights, normal_index)
    return {
        "auroc": _nanmean(auroc),
        "auprc": _nanmean(auprc),
        "accuracy": float(np.mean((y_true == y_pred).all(axis=1))),
        "f_measure": _nanmean(f_measure),
        "f_beta_measure": _nanmean(f_beta),
        "g_beta_measure": _nanmean(g_beta),
        "challenge_metric": metric,
        "auroc_classes": auroc,
        "auprc_classes": auprc,
        "f_measure_classes": f_measure,
    }


def auroc_per_class(y_true: np.ndarray, y_score: np.ndarray) -> np.ndarray:
    """(C,) areas under the ROC curve; recordings of equal score share one threshold."""
    return _areas(y_true, y_score)[0]


def f_measure_per_class(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """(C,) F1 of each class; NaN where it has neither labels nor outputs."""
    tp, fp, fn, _ = _counts(y_true, y_pred, np.ones(len(y_true)))
    return _ratio(2 * tp, 2 * tp + fp + fn)


def challenge_metric(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray, normal_index: int) -> float:
    """The Challenge's reward, scaled so that 1 is all right and 0 is 'normal' for everyone. Each recording's reward is
    divided by the number of classes that are labelled or answered.

    Args:
        y_true: (R, C) bool, labels.
        y_pred: (R, C) bool, decisions.
        weights: (C, C) reward matrix.
        normal_index: column of sinus rhythm.

    Returns:
        the metric; 0.0 where the two ends of the scale coincide.

    Raises:
        ValueError: weights or normal_index do not fit the classes.
    """
    y_true = np.asarray(y_true, bool)
    y_pred = np.asarray(y_pred, bool)
    weights = checked_weights(weights, normal_index, y_true.shape[1])
    worst, best = reward_scale(y_true, weights, normal_index)
    if best == worst:
        return 0.0
    return float((rewards(y_true, y_pred, weights).sum() - worst) / (best - worst))


def compute_scores_cpsc2018(y_true: np.ndarray, y_pred: np.ndarray, y_score: np.ndarray) -> dict[str, float]:
    """The six scores of the Challenge's first phase. Every count is divided by the recording's number of labels (1 if
    it has none), accuracy is a class's share of right answers, 0 / 0 counts as 1, and the curves start at threshold 1
    and leave out threshold 0.

    Args:
        y_true: (R, C) bool, labels.
        y_pred: (R, C) bool, decisions.
        y_score: (R, C) real, probabilities.

    Returns:
        dictionary of auroc, auprc, accuracy, f_measure, f_beta_measure, g_beta_measure, each the plain mean over the
        classes.

    Raises:
        ValueError: the shapes differ or a score is NaN.
    """
    values = _first_phase_values(y_true, y_pred, y_score)
    return {name: float(np.mean(value)) for name, value in values.items()}


def class_scores_cpsc2018(y_true, y_pred, y_score):
    """What `compute_scores_cpsc2018` takes the means of, as the arrays (C,) that `compute_scores` has: auroc_classes,
    auprc_classes, f_measure_classes.
    """
    values = _first_phase_values(y_true, y_pred, y_score)
    return {f"{name}_classes": values[name] for name in ("auroc", "auprc", "f_measure")}


def _first_phase_values(y_true, y_pred, y_score):
    """The first phase's six scores of each class, all (C,)."""
    y_true, y_pred, y_score = checked(y_true, y_pred, y_score)
    tp, fp, fn, tn = _counts(y_true, y_pred, _share_of_labels(y_true))
    f_beta, g_beta = _beta_measures(tp, fp, fn)
    areas = np.array([_first_phase_areas(*column) for column in zip(y_true.T, y_score.T)])  # (C, 2)
    values = {
        "auroc": areas[:, 0],
        "auprc": areas[:, 1],
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "f_measure": _ratio(2 * tp, 2 * tp + fp + fn),
        "f_beta_measure": f_beta,
        "g_beta_measure": g_beta,
    }
    return {name: np.nan_to_num(value, nan=1.0) for name, value in values.items()}


def expected_calibration_error(y_true: np.ndarray, y_score: np.ndarray, n_bins: int = 15) -> float:
    """Mean distance between probability and frequency: all R x C probabilities in bins of equal width, each bin
    weighted by what it holds.

    Args:
        y_true: (R, C) bool, labels.
        y_score: (R, C) probabilities.
        n_bins: number of bins.

    Returns:
        the error, from 0 to 1.

    Raises:
        ValueError: the shapes differ, or a score is outside 0 ... 1.
    """
    y_true, _, y_score = checked(y_true, y_true, y_score)
    if y_score.min() < 0 or y_score.max() > 1:
        raise ValueError("the calibration error needs probabilities between 0 and 1")
    bins = np.minimum((y_score * n_bins).astype(int), n_bins - 1).ravel()  # (R * C,)
    promised = np.bincount(bins, weights=y_score.ravel(), minlength=n_bins)  # positives by the probabilities
    found = np.bincount(bins[y_true.ravel()], minlength=n_bins)  # and by the labels
    return float(np.abs(promised - found).sum() / y_true.size)


def rewards(
    y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray, earned: np.ndarray | None = None
) -> np.ndarray:
    """(R,) reward of each recording for y_true, y_pred (R, C) bool and weights (C, C); `earned` is y_true @ weights
    (R, C), where it is known already.
    """
    if earned is None:
        earned = y_true @ weights
    return (earned * y_pred).sum(axis=1) / np.maximum((y_true | y_pred).sum(axis=1), 1)


def reward_scale(y_true: np.ndarray, weights: np.ndarray, normal_index: int) -> tuple[float, float]:
    """Rewards of the classifier that always answers normal and of the one that is always right, summed over y_true
    (R, C) bool.
    """
    normal = np.zeros_like(y_true)
    normal[:, normal_index] = True
    return rewards(y_true, normal, weights).sum(), rewards(y_true, y_true, weights).sum()


def checked_weights(weights: np.ndarray, normal_index: int | None, n_classes: int) -> np.ndarray:
    """(C, C) float64; ValueError if the weights or the column of sinus rhythm do not fit the classes."""
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n_classes, n_classes):
        raise ValueError(f"{n_classes} classes need weights ({n_classes}, {n_classes}), not {weights.shape}")
    if normal_index is None or not 0 <= normal_index < n_classes:
        raise ValueError(f"the challenge metric needs the column of the normal class, not {normal_index}")
    return np.nan_to_num(weights, nan=0.0)  # an empty cell of the table earns nothing


def checked(y_true: np.ndarray, y_pred: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and decisions (R, C) as bool, scores as floats; ValueError if the shapes differ or a score is NaN."""
    y_true = np.asarray(y_true)
    y_pred = np.asarray(y_pred)
    y_score = np.asarray(y_score)
    one_shape = y_true.shape == y_pred.shape == y_score.shape
    if y_true.ndim != 2 or not y_true.size or not one_shape:
        raise ValueError(
            f"labels, outputs and scores need one shape (R, C), not {y_true.shape}, {y_pred.shape} and {y_score.shape}"
        )
    if np.isnan(y_score).any():
        raise ValueError(f"{int(np.isnan(y_score).any(axis=1).sum())} recordings have a score that is NaN")
    if not np.issubdtype(y_score.dtype, np.floating):
        y_score = y_score.astype(np.float64)
    return y_true.astype(bool), y_pred.astype(bool), y_score


def _share_of_labels(y_true):
    """(R,) weight of a recording that is spread over its labels."""
    return 1 / np.maximum(y_true.sum(axis=1), 1)


def _counts(y_true, y_pred, share):
    """Weighted true positives, false positives, false negatives and true negatives, each (C,)."""
    tp = share @ (y_true & y_pred)
    fp = share @ (~y_true & y_pred)
    fn = share @ (y_true & ~y_pred)
    tn = share @ (~y_true & ~y_pred)
    return tp, fp, fn, tn


def _beta_measures(tp, fp, fn):
    """F-beta and G-beta of each class, both (C,)."""
    hits = (1 + BETA**2) * tp
    return _ratio(hits, hits + fp + BETA**2 * fn), _ratio(tp, tp + fp + BETA * fn)


def _areas(y_true, y_score):
    """AUROC and AUPRC of each class, both (C,)."""
    y_true = np.asarray(y_true, bool)
    y_score = np.asarray(y_score)
    auroc = np.full(y_true.shape[1], np.nan)
    auprc = np.full(y_true.shape[1], np.nan)
    for k in range(y_true.shape[1]):
        tp, fp = curve(y_true[:, k], y_score[:, k])
        if not tp[-1]:
            continue  # without positives neither is defined
        tpr = tp / tp[-1]
        auprc[k] = _sum_in_order(np.diff(tpr) * (tp[1:] / (tp[1:] + fp[1:])))
        if fp[-1]:
            tnr = (fp[-1] - fp) / fp[-1]
            auroc[k] = _sum_in_order(0.5 * np.diff(tpr) * (tnr[1:] + tnr[:-1]))
    return auroc, auprc


def curve(y_true: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives (T + 1,) of one class, y_true (R,) bool and y_score (R,), as the threshold falls through
    the T distinct scores, from none on.
    """
    order = np.argsort(-y_score, kind="stable")
    ranked = y_score[order]
    ends = ends_of_ties(ranked)
    tp = np.concatenate([[0], np.cumsum(y_true[order])[ends - 1]])
    return tp, np.concatenate([[0], ends]) - tp


def ends_of_ties(ranked: np.ndarray) -> np.ndarray:
    """(T,) how many of the sorted scores there are down to the end of each run of equal ones."""
    return np.append(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1, len(ranked))


def _first_phase_areas(y_true, y_score):
    """(AUROC, AUPRC) of one class by the first phase's curve."""
    thresholds = np.unique(y_score)[::-1]
    if thresholds[0] != 1:
        thresholds = np.insert(thresholds, 0, 1)
    if thresholds[-1] == 0:
        thresholds = thresholds[:-1]
    thresholds = np.minimum.accumulate(thresholds)  # scores above 1 count at 1
    positive = np.sort(y_score[y_true])
    negative = np.sort(y_score[~y_true])
    tp = len(positive) - np.searchsorted(positive, thresholds)
    fp = len(negative) - np.searchsorted(negative, thresholds)
    tpr = tp / len(positive) if len(positive) else np.ones(len(tp))
    tnr = (len(negative) - fp) / len(negative) if len(negative) else np.ones(len(fp))
    precision = np.nan_to_num(_ratio(tp, tp + fp), nan=1.0)
    auroc = _sum_in_order(0.5 * np.diff(tpr) * (tnr[1:] + tnr[:-1]))
    return auroc, _sum_in_order(np.diff(tpr) * precision[1:])


def _sum_in_order(terms):
    """Sum from first to last, as the official loop adds; np.sum adds pairwise and rounds differently."""
    return np.cumsum(terms)[-1] if len(terms) else 0.0


def _ratio(above, below):
    """above / below, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) != 0)


def _nanmean(values):
    """Mean of what is defined; NaN, without numpy's warning, where nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
