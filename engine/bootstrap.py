"""How uncertain scores are: intervals over recordings drawn with replacement, all draws at once.

A draw is a weight per recording, how often it was drawn. Scores by threshold are then sums over sorted scores, so one
sort serves every draw.
"""

import numpy as np

N_DRAWS = 400
LEVEL = 0.95
_BLOCK = 4_000_000  # values in memory at once


def draw_weights(n_records: int, n_draws: int = N_DRAWS, seed: int = 0) -> np.ndarray:
    """(n_draws, R) int16: how often each recording is drawn."""
    rng = np.random.default_rng(seed)
    weights = np.empty((n_draws, n_records), np.int16)
    for row in weights:
        row[:] = np.bincount(rng.integers(n_records, size=n_records), minlength=n_records)
    return weights


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the middle LEVEL of the draws, (n_draws, ...) -> two arrays (...); NaN where most of them are."""
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(values).mean(0) >= 0.5
        filled = np.where(usable, values, 0.0)
        low, high = np.nanquantile(filled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def areas(y_true: np.ndarray, y_score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AUPRC of each class in each draw.

    Args:
        y_true: (R, C) bool.
        y_score: (R, C).
        weights: (n_draws, R).

    Returns:
        Two arrays (n_draws, C), AUROC and AUPRC as `engine.metrics.compute_scores` gives them of each class for
        recordings repeated by their weight; NaN where a draw has no positives (or, for AUROC, no negatives).
    """
    n_draws, n_records = weights.shape
    auroc, auprc = np.full((2, n_draws, y_true.shape[1]), np.nan)
    step = max(1, _BLOCK // max(1, n_records))
    for k in range(y_true.shape[1]):
        order = np.argsort(-y_score[:, k], kind="stable")
        ranked = y_score[order, k]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # ties share one threshold
        positive = y_true[order, k]
        for begin in range(0, n_draws, step):
            part = slice(begin, begin + step)
            drawn = weights[part][:, order].astype(np.float32)  # (b, R)
            tp, fp = (np.cumsum(drawn * side, axis=1, dtype=np.float64)[:, ends] for side in (positive, ~positive))
            auroc[part, k], auprc[part, k] = _areas(tp, fp)
    return auroc, auprc


def _areas(tp, fp):
    """Areas from true and false positives (b, T) down the distinct scores."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.diff(tp, axis=1, prepend=0)  # (b, T)
        below = fp[:, -1:] - fp
        won = (gained * (below + np.diff(fp, axis=1, prepend=0) / 2)).sum(1)
        auroc = won / (tp[:, -1] * fp[:, -1])
        precision = np.where(tp + fp > 0, tp / (tp + fp), 0)
        auprc = (gained * precision).sum(1) / tp[:, -1]
    return auroc, np.where(tp[:, -1] > 0, auprc, np.nan)


def counts(y_true: np.ndarray, y_pred: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and false negatives of each class in each draw: three arrays (n_draws, C)."""
    drawn = weights.astype(np.float64)
    return tuple(drawn @ hit for hit in (y_true & y_pred, ~y_true & y_pred, y_true & ~y_pred))


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
