"""Decisions by expected reward, against all possible answers and against the metric itself."""

import itertools

import numpy as np
import pytest

from data.labels import YEARS, load_class_set
from engine.decision import check_rule, decide, decide_by_reward, default_rule
from engine.metrics import challenge_metric, load_weights, normal_column
from engine.thresholds import choose_thresholds

ANSWERS = [set(answer) for n in range(1, 7) for answer in itertools.combinations(range(6), n)]  # of six classes


def promise(p, answer, weights):
    """The approximate expected reward that `decide_by_reward` maximises, of one recording, in plain loops."""
    reward = sum(p[i] * weights[i][j] for i in range(len(p)) for j in answer)
    return reward / (len(answer) + sum(p[i] for i in range(len(p)) if i not in answer))


def test_the_answer_is_the_best_of_all_or_close():
    rng = np.random.default_rng(0)
    exact = 0
    for _ in range(200):
        weights = np.eye(6) + 0.5 * rng.random((6, 6)) * (1 - np.eye(6))
        weights = (weights + weights.T) / 2
        p = rng.random(6) ** 3
        found = set(np.flatnonzero(decide_by_reward(p[None], weights, 1.0)[0]))
        best = max(ANSWERS, key=lambda answer: promise(p, answer, weights))
        assert found and promise(p, found, weights) > 0.97 * promise(p, best, weights)
        exact += found == best
    assert exact > 180


def test_calibrated_probabilities_earn_at_least_what_thresholds_fitted_elsewhere_do():
    rng = np.random.default_rng(1)
    groups, weights = load_weights(2020)
    normal = normal_column(groups)
    logits = rng.normal(-3, 1, (1, 24)) + rng.normal(0, 2.5, (4000, 24))
    p = 1 / (1 + np.exp(-logits))
    y = rng.random(p.shape) < p
    thresholds = choose_thresholds(y[:2000], p[:2000], weights, normal)
    by_reward = challenge_metric(y[2000:], decide_by_reward(p[2000:], weights, 1.0), weights, normal)
    assert by_reward > challenge_metric(y[2000:], p[2000:] > thresholds, weights, normal)


def test_every_recording_is_decided_by_itself():
    rng = np.random.default_rng(2)
    _, weights = load_weights(2020)
    p = rng.random((50, 24)) ** 4
    together = decide_by_reward(p, weights)
    alone = [decide_by_reward(row[None], weights) for row in p]
    assert np.array_equal(together, np.concatenate(alone))
    assert together.any(1).all()  # every recording gets an answer


@pytest.mark.parametrize("name", ["cinc2020", "cinc2021", "cpsc2018"])
def test_default_rules_hold(name):
    class_set = load_class_set(name)
    rule = default_rule(class_set)
    check_rule(rule, class_set)
    p = np.random.default_rng(3).random((5, len(class_set)))
    if name in YEARS:
        _, weights = load_weights(YEARS[name])
        expected = decide_by_reward(p, weights)
    else:
        expected = p > 0.5
    assert (decide(p, np.full(len(class_set), 0.5), rule) == expected).all()


@pytest.mark.parametrize(
    "rule",
    [
        None,
        {},
        {"rule": "oracle"},
        {"rule": "reward"},
        {"rule": "reward", "year": 2019, "confidence": 0.8},
        {"rule": "reward", "year": 2021, "confidence": 0.8, "odds": [1.0] * 24},
        {"rule": "reward", "year": 2020.0, "confidence": 0.8, "odds": [1.0] * 24},
        {"rule": "reward", "year": [2020], "confidence": 0.8, "odds": [1.0] * 24},
        {"rule": "reward", "year": 2020, "confidence": 0.0, "odds": [1.0] * 24},
        {"rule": "reward", "year": 2020, "confidence": 0.8, "odds": [1.0] * 23},
        {"rule": "reward", "year": 2020, "confidence": "much", "odds": [1.0] * 24},
        {"rule": "reward", "year": 2020, "confidence": 0.8, "odds": [0.0] * 24},
    ],
)
def test_foreign_rules_are_refused(rule):
    with pytest.raises(ValueError, match="rule"):
        check_rule(rule, load_class_set("cinc2020"))


def test_odds_change_how_often_a_class_is_called():
    class_set = load_class_set("cinc2020")
    rule = default_rule(class_set)
    p = np.random.default_rng(4).random((200, 24)) ** 3
    called = []
    for factor in (0.2, 1.0, 5.0):
        y_pred = decide(p, None, {**rule, "odds": [factor] + [1.0] * 23})
        called.append(y_pred[:, 0].sum())
    assert called[0] < called[1] < called[2]
