"""Decision thresholds from validation records: the values that are best by the Challenge's reward, or by F1."""

from __future__ import annotations

import numpy as np

from engine.metrics import checked, checked_weights, ends_of_ties, reward_scale, rewards


def choose_thresholds(
    y_true: np.ndarray,
    y_score: np.ndarray,
    weights: np.ndarray | None = None,
    normal_index: int | None = None,
    shrink: float = 10.0,
) -> np.ndarray:
    """Decision thresholds for `y_score > threshold`, from validation records.

    First the best global threshold among quantiles of the scores; then class by class the value that is best with all
    other classes held, over every distinct score, until nothing improves. Best is the challenge metric, or the mean
    F1 where there are no `weights` (or the metric cannot tell answers apart). A class's own value is drawn towards
    the global one, with weight n / (n + shrink) for a class of n positive recordings, because the optimum of a
    handful of positives is noise: a class without any keeps the global threshold. No step may lower the metric, and
    the result is deterministic.

    Args:
        y_true: (R, C) bool, labels.
        y_score: (R, C) probabilities.
        weights: (C, C) reward matrix, or None: by the mean F1.
        normal_index: column of sinus rhythm; needed with `weights`.
        shrink: positive recordings that the global threshold counts as.

    Returns:
        thresholds (C,) float32.

    Raises:
        ValueError: the shapes differ, a score is not finite, there is no label at all, or shrink is negative.
    """
    y_true, _, y_score = checked(y_true, y_true, y_score)
    if not np.isfinite(y_score).all():
        raise ValueError("thresholds cannot be chosen: a score is infinite")
    if not y_true.any():
        raise ValueError("thresholds cannot be chosen: no recording has a label of any class")
    y_score = y_score.astype(np.float32)  # as the model gives them and the thresholds are kept
    gain = _F1Gain(y_true)
    if weights is not None:
        weights = checked_weights(weights, normal_index, y_true.shape[1])
        worst, best = reward_scale(y_true, weights, normal_index)
        if best > worst:
            gain = _RewardGain(y_true, weights)
    grid = np.unique(np.quantile(y_score[y_true], np.linspace(0, 1, 101))).astype(np.float32)
    grid = np.concatenate([[np.nextafter(grid[0], np.float32(-np.inf))], grid])
    start = grid[int(np.argmax([gain.total(y_score > threshold) for threshold in grid]))]
    return _ascend(gain, y_score, np.full(y_true.shape[1], start, np.float32), _trust(y_true, shrink))


def _trust(y_true, shrink):
    """(C,) weight of each class's own threshold, by its positive recordings."""
    if not shrink >= 0:
        raise ValueError(f"shrink is a number of recordings, 0 or more, not {shrink}")
    n = y_true.sum(axis=0)  # (C,)
    return np.divide(n, n + shrink, out=np.zeros(len(n)), where=n > 0)


def _ascend(gain, y_score, thresholds, trust, n_rounds=10):
    """Coordinate ascent from one common threshold. `gain.of_class(k, y_pred)` says what recording by recording is won
    by answering class k; its running sum down the sorted scores is the metric at every possible threshold at once.
    """
    start = thresholds[0]
    order = np.argsort(-y_score, axis=0, kind="stable")  # (R, C)
    ranked = np.take_along_axis(y_score, order, axis=0)  # (R, C)
    y_pred = y_score > thresholds  # (R, C)
    for _ in range(n_rounds):
        moved = False
        for k in np.flatnonzero(trust > 0):
            curve = gain.of_class(k, y_pred, order[:, k])  # (R + 1,): metric if the first n are positive
            scores = ranked[:, k]
            ends = np.concatenate([[0], ends_of_ties(scores)])  # recordings of equal score cannot be parted
            own = _between(scores, ends[np.argmax(curve[ends])])
            candidate = np.float32((1 - trust[k]) * start + trust[k] * own)
            n_before, n_after = y_pred[:, k].sum(), (scores > candidate).sum()
            if curve[n_after] > curve[n_before] + 1e-12 * abs(curve[n_before]):
                moved = True
                thresholds[k] = candidate
                y_pred[:, k] = y_score[:, k] > candidate
        if not moved:
            break
    return thresholds


def _between(ranked, n):
    """A threshold that the first `n` of the descending scores exceed, and no other."""
    if n == len(ranked):
        return np.nextafter(ranked[-1], np.float32(-np.inf))
    if n == 0:
        return ranked[0]
    middle = ranked[n - 1] / 2 + ranked[n] / 2
    return middle if middle < ranked[n - 1] else ranked[n]


class _RewardGain:
    """The challenge metric's unscaled reward. A recording earns (labels W outputs) / |labels or outputs|; switching one
    class changes both parts by one term, so one sum per recording gives every threshold of the class.
    """

    def __init__(self, y_true: np.ndarray, weights: np.ndarray):
        self.y_true = y_true
        self.weights = weights
        self.earned = y_true @ weights  # (R, C): reward of each output

    def total(self, y_pred: np.ndarray) -> float:
        """The metric of y_pred (R, C)."""
        return rewards(self.y_true, y_pred, self.weights, self.earned).sum()

    def of_class(self, k: int, y_pred: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(R + 1,): the metric with the first 0 ... R recordings of `order` answered by class k, the rest as y_pred."""
        others = y_pred.copy()
        others[:, k] = False
        reward = (self.earned * others).sum(axis=1)  # (R,)
        size = (self.y_true | others).sum(axis=1)  # (R,)
        off = reward / np.maximum(size, 1)
        on = (reward + self.earned[:, k]) / np.maximum(size + ~self.y_true[:, k], 1)
        return off.sum() + np.concatenate([[0.0], np.cumsum((on - off)[order])])


class _F1Gain:
    """Mean F1 over the classes that have labels; other classes do not touch a class's own F1."""

    def __init__(self, y_true: np.ndarray):
        self.y_true = y_true
        self.n_labels = y_true.sum(axis=0)

    def total(self, y_pred: np.ndarray) -> float:
        """The metric of y_pred (R, C)."""
        tp = (self.y_true & y_pred).sum(axis=0)
        f1 = 2 * tp / np.maximum(self.n_labels + y_pred.sum(axis=0), 1)  # (C,)
        return np.mean(f1[self.n_labels > 0])

    def of_class(self, k: int, y_pred: np.ndarray, order: np.ndarray) -> np.ndarray:
        """(R + 1,): the class's F1 with the first 0 ... R recordings of `order` answered by class k."""
        tp = np.concatenate([[0], np.cumsum(self.y_true[order, k])])
        return 2 * tp / np.maximum(self.n_labels[k] + np.arange(len(tp)), 1)
