"""Adaptation to another class frequency, against the truth that made the scores."""

import numpy as np

from engine.adapt import adapt_to_frequencies


def scores_of(n, frequency, old, rng):
    """Labels (n,) of recordings whose class has this frequency, and probabilities (n,) calibrated at another one,
    `old`: two unit Gaussians, 2 apart.
    """
    y = rng.random(n) < frequency
    evidence = rng.normal(0, 1, n) + 2 * y
    ratio = np.exp(2 * evidence - 2) * old / (1 - old)  # posterior odds under the old frequency
    return y, ratio / (1 + ratio)


def test_estimated_frequency_and_probabilities_approach_the_truth():
    rng = np.random.default_rng(0)
    old, true = np.array([0.1, 0.5]), np.array([0.4, 0.5])
    columns = [scores_of(4000, frequency, before, rng) for frequency, before in zip(true, old)]
    y = np.stack([labels for labels, _ in columns], 1)  # (4000, 2)
    p = np.stack([scores for _, scores in columns], 1)
    adapted, estimate = adapt_to_frequencies(p, old)
    assert np.abs(estimate - true).max() < 0.03 and adapted.shape == p.shape

    def log_loss(q):
        return -np.where(y, np.log(q), np.log(1 - q)).mean(0)

    assert log_loss(adapted)[0] < log_loss(p)[0] - 0.05 and abs(log_loss(adapted)[1] - log_loss(p)[1]) < 0.01
    assert (np.diff(adapted[np.argsort(p[:, 0]), 0]) >= 0).all()  # the ranking stays


def test_one_recording_moves_little():
    adapted, estimate = adapt_to_frequencies(np.array([[0.9, 0.01]]), np.array([0.1, 0.1]))
    assert np.abs(estimate - 0.1).max() < 0.05 and adapted[0, 0] > 0.8
