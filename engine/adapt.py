"""Adapt probabilities to the folder at hand, without its labels: class frequencies differ between hospitals."""

from __future__ import annotations

import numpy as np

STRENGTH = 20.0  # recordings that the training frequencies count as: a small folder moves them little


def adapt_to_frequencies(
    y_score: np.ndarray,
    frequency: np.ndarray,
    strength: float = STRENGTH,
    n_rounds: int = 100,
    tolerance: float = 1e-6,
) -> tuple[np.ndarray, np.ndarray]:
    """Correct for another frequency of each class, estimated from the scores alone by expectation-maximisation
    (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002), each class by itself.

    It assumes calibrated probabilities and that a class looks the same in both places; only its frequency may differ.

    Args:
        y_score: (R, C) probabilities.
        frequency: (C,) of the classes in training.
        strength: recordings that the training frequencies count as.
        n_rounds: of expectation and maximisation, at most.
        tolerance: change of a frequency below which the rounds end.

    Returns:
        adapted y_score (R, C) float32, and the estimated frequency (C,).
    """
    p = np.clip(np.asarray(y_score, np.float64), 1e-9, 1 - 1e-9)
    old = np.clip(np.asarray(frequency, np.float64), 1e-4, 1 - 1e-4)
    new = old.copy()
    for _ in range(n_rounds):
        adapted = _reweighted(p, old, new)
        estimate = (adapted.sum(0) + strength * old) / (len(p) + strength)
        moved = np.abs(estimate - new).max()
        new = estimate
        if moved < tolerance:
            break
    return _reweighted(p, old, new).astype(np.float32), new


def _reweighted(p, old, new):
    """Bayes' rule with the frequencies `new` in place of `old`; p (R, C)."""
    positive = p * new / old
    negative = (1 - p) * (1 - new) / (1 - old)
    return positive / (positive + negative)
