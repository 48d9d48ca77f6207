"""engine/metrics.py against a plain loop version of the definitions, and its threshold choice against brute force."""

import math

import numpy as np
import plain_evaluator as plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.metrics import (
    auroc_per_class,
    challenge_metric,
    compute_scores,
    compute_scores_cpsc2018,
    expected_calibration_error,
    f_measure_per_class,
    load_weights,
    normal_column,
)
from engine.thresholds import choose_thresholds


def random_case(seed, n_records, n_classes=24, n_levels=None):
    """Labels of uneven prevalence, scores that know something about them (in few levels: ties), decisions of a worse
    eye.
    """
    rng = np.random.default_rng(seed)
    prevalence = rng.choice([0.0, 0.02, 0.1, 0.3, 1.0], n_classes, p=[0.1, 0.2, 0.4, 0.25, 0.05])
    y_true = rng.random((n_records, n_classes)) < prevalence
    y_score = 1 / (1 + np.exp(-(rng.normal(size=y_true.shape) * 1.5 + 2 * y_true - 1.5)))
    if n_levels:
        y_score = np.round(y_score * n_levels) / n_levels
    return y_true, y_score + rng.normal(size=y_true.shape) * 0.1 > 0.5, y_score


def assert_same(ours, expected):
    assert set(ours) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-12, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_scores_equal_the_plain_loops(seed):
    case = random_case(seed, n_records=1 + 9 * seed, n_levels=[None, 10, 3][seed % 3])
    groups, weights = load_weights(2020)
    assert_same(
        compute_scores(*case, weights, normal_column(groups)), plain.scores(*case, weights, normal_column(groups))
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 10**6))
def test_small_cases_equal_the_plain_loops(n_records, n_classes, seed):
    rng = np.random.default_rng(seed)
    y_true, y_pred = rng.random((2, n_records, n_classes)) < rng.choice([0, 0.3, 0.7, 1], (2, 1, n_classes))
    y_score = rng.integers(-1, 4, y_true.shape) / 2.0  # ties, zeros, ones, and scores outside 0 ... 1
    weights = rng.random((n_classes, n_classes)) / 2
    np.fill_diagonal(weights, 1)  # as the official ones: always normal is then either as good as right or clearly worse
    normal = int(rng.integers(n_classes))
    assert_same(
        compute_scores(y_true, y_pred, y_score, weights, normal), plain.scores(y_true, y_pred, y_score, weights, normal)
    )
    y_score = np.abs(y_score).clip(0, 1)
    assert_same(
        compute_scores_cpsc2018(y_true, y_pred, y_score),
        plain.first_phase_scores(y_true.tolist(), y_pred.tolist(), y_score.tolist()),
    )


def test_known_values():
    y_true = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], bool)
    y_score = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.3], [0.1, 0.4]])
    found = compute_scores(y_true, y_score > 0.5, y_score)
    np.testing.assert_allclose(found["auroc_classes"], [3.5 / 4, np.nan])
    np.testing.assert_allclose(found["auprc_classes"], [0.5 * 1 + 0.5 * 2 / 3, np.nan])
    np.testing.assert_array_equal(auroc_per_class(y_true, y_score), found["auroc_classes"])
    inverted = compute_scores(~y_true, y_score > 0.5, y_score)  # the second class: positives only
    assert np.isnan(inverted["auroc_classes"][1]) and inverted["auprc_classes"][1] == 1
    np.testing.assert_array_equal(f_measure_per_class(y_true, y_score > 0.5), [0.8, np.nan])
    weights = [[1, 0.5], [0.5, 1]]
    assert challenge_metric(y_true[:, ::-1], y_true[:, ::-1], weights, 0) == 1
    assert challenge_metric(y_true[:, ::-1], np.tile([True, False], (4, 1)), weights, 0) == 0


def test_metric_is_zero_where_only_normal_or_nothing_is_labelled():
    y_true = np.zeros((5, 24), bool)
    y_true[:3, 20] = True
    groups, weights = load_weights(2020)
    assert normal_column(groups) == 20
    assert challenge_metric(y_true, ~y_true, weights, 20) == 0.0
    assert challenge_metric(y_true & False, ~y_true, weights, 20) == 0.0


def test_without_weights_the_metric_is_nan_and_bad_input_is_refused():
    case = random_case(1, 10, 3)
    assert math.isnan(compute_scores(*case)["challenge_metric"])
    with pytest.raises(ValueError, match=r"one shape .* \(9, 3\)"):
        compute_scores(case[0], case[1][:9], case[2])
    with pytest.raises(ValueError, match="1 recordings have a score that is NaN"):
        compute_scores(case[0], case[1], np.where(np.arange(30).reshape(10, 3) == 4, np.nan, case[2]))
    with pytest.raises(ValueError, match="normal class"):
        compute_scores(*case, np.eye(3))
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        compute_scores(*case, np.eye(4), 0)
    with pytest.raises(ValueError, match="no recording has a label"):
        choose_thresholds(case[0] & False, case[2])


@pytest.mark.parametrize("year, n_columns, n_codes", [(2020, 24, 27), (2021, 26, 30)])
def test_weights(year, n_columns, n_codes):
    groups, weights = load_weights(year)
    assert weights.shape == (n_columns, n_columns) and len(groups) == n_columns and sum(map(len, groups)) == n_codes
    assert (np.diag(weights) == 1).all() and (weights == weights.T).all()
    at = {code: k for k, group in enumerate(groups) for code in group}
    assert weights[at["164889003"], at["426783006"]] == 0.25 and weights[at["17338001"], at["59931005"]] == 0.375


@pytest.mark.parametrize("use_weights", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_free_thresholds_are_a_coordinate_optimum(seed, use_weights):
    """Without shrinkage no single threshold can be moved, over every distinct score, so that the metric rises."""
    y_true, _, y_score = random_case(seed, 40, 5, n_levels=[None, 6][seed % 2])
    y_score = y_score.astype(np.float32)
    weights = np.random.default_rng(seed).uniform(0, 0.5, (5, 5)) if use_weights else None
    if use_weights:
        np.fill_diagonal(weights, 1)

    def metric(thresholds):
        y_pred = y_score > thresholds
        if use_weights:
            return challenge_metric(y_true, y_pred, weights, 2)
        return np.nanmean(np.where(y_true.any(axis=0), f_measure_per_class(y_true, y_pred), np.nan))

    thresholds = choose_thresholds(y_true, y_score, weights, 2, shrink=0)
    assert thresholds.shape == (5,) and thresholds.dtype == np.float32
    reached = metric(thresholds)
    for k in np.flatnonzero(y_true.any(axis=0)):
        for value in [-1, *y_score[:, k]]:
            moved = thresholds.copy()
            moved[k] = value
            assert metric(moved) <= reached + 1e-9
    common = [metric(value) for value in np.quantile(y_score[y_true], np.linspace(0, 1, 101))]
    assert reached >= max(common) - 1e-9


def test_shrinkage_draws_rare_classes_to_the_global_threshold():
    rng = np.random.default_rng(5)
    y_true = rng.random((600, 3)) < [0.3, 0.3, 0.005]
    y_score = rng.random(y_true.shape) * 0.5 + y_true * [0.45, 0.15, 0.05]
    weights = np.full((3, 3), 0.3) + 0.7 * np.eye(3)
    own = choose_thresholds(y_true, y_score, weights, 0, shrink=0)
    drawn = choose_thresholds(y_true, y_score, weights, 0)
    common = choose_thresholds(y_true, y_score, weights, 0, shrink=1e12)
    np.testing.assert_allclose(common, common[0])
    assert (np.abs(drawn - common) <= np.abs(own - common) + 0.02).all()
    assert 0 < abs(own[2] - common[2]) and abs(drawn[2] - common[2]) < 0.2 * abs(own[2] - common[2])
    y_true[:, 2] = False  # a class without positives takes the global threshold
    drawn = choose_thresholds(y_true, y_score, weights, 0)
    common = choose_thresholds(y_true, y_score, weights, 0, shrink=1e12)
    assert drawn[2] == common[0]


def test_thresholds_never_score_below_the_global_one_and_are_repeatable():
    y_true, _, y_score = random_case(11, 2000)
    _, weights = load_weights(2020)
    thresholds = choose_thresholds(y_true, y_score.astype(np.float32), weights, 20)
    np.testing.assert_array_equal(thresholds, choose_thresholds(y_true, y_score.astype(np.float32), weights, 20))
    scores = [challenge_metric(y_true, y_score > value, weights, 20) for value in (thresholds, *np.linspace(0, 1, 50))]
    assert scores[0] > max(scores[1:])


def test_a_perfect_classifier_gets_perfect_thresholds():
    y_true = random_case(3, 200)[0]
    y_true[0] = True
    y_score = y_true * 0.9 + 0.05
    _, weights = load_weights(2020)
    thresholds = choose_thresholds(y_true, y_score, weights, 20)
    assert challenge_metric(y_true, y_score > thresholds, weights, 20) == 1


def test_calibration_error():
    y_true = np.array([[1], [0], [0], [0]])
    assert expected_calibration_error(y_true, np.full((4, 1), 0.25)) == 0
    assert expected_calibration_error(y_true, np.full((4, 1), 0.75)) == pytest.approx(0.5)
    assert expected_calibration_error(y_true, np.array([[0.9], [0.1], [0.1], [0.1]]), 10) == pytest.approx(0.1)
    assert expected_calibration_error(np.ones((2, 1)), np.ones((2, 1))) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_calibration_error(y_true, np.full((4, 1), 1.5))
