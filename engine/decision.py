"""From probabilities to diagnoses: thresholds, or the set of classes that promises the highest Challenge reward."""

from __future__ import annotations

import numpy as np

from data.labels import YEARS, ClassSet
from engine.metrics import load_weights

CONFIDENCE = 0.8  # share of each probability that counts: probabilities from another hospital promise a little too much


def default_rule(class_set: ClassSet) -> dict:
    """The decision rule of a class set, as config.json keeps it: by reward where a Challenge gives one, else by
    threshold. `odds` (C,) multiply the odds of each class before deciding, where it should be called more or less
    often than its probability says; probabilities stay as they are.
    """
    if class_set.year is not None:
        return {
            "rule": "reward",
            "year": class_set.year,
            "confidence": CONFIDENCE,
            "odds": [1.0] * len(class_set),
        }
    return {"rule": "thresholds"}


def choose_rule(name: str | None, class_set: ClassSet) -> dict:
    """The rule called `name`, "reward" or "thresholds", or the class set's default for None. Raises ValueError if its
    Challenge gives no rewards.
    """
    if name == "thresholds":
        return {"rule": "thresholds"}
    rule = default_rule(class_set)
    if name == "reward" and rule["rule"] != "reward":
        raise ValueError(f"--decision reward: no Challenge gives rewards for the classes {class_set.name}")
    return rule


def check_rule(rule: dict, class_set: ClassSet) -> None:
    """Refuse, with a ValueError, what `decide` cannot follow."""
    if rule == {"rule": "thresholds"}:
        return
    if not isinstance(rule, dict) or set(rule) != {"rule", "year", "confidence", "odds"} or rule["rule"] != "reward":
        raise ValueError(f"unknown decision rule {rule!r}")
    year = rule["year"]
    confidence = rule["confidence"]
    odds = rule["odds"]
    if not isinstance(year, int) or year not in YEARS.values():
        raise ValueError(f"decision rule {rule!r}: year is not one of {', '.join(map(str, YEARS.values()))}")
    if not isinstance(confidence, float) or not 0 < confidence <= 1:
        raise ValueError(f"decision rule {rule!r}: confidence is not a number above 0 and up to 1")
    if not isinstance(odds, list) or len(odds) != len(class_set):
        raise ValueError(f"decision rule: odds are not a list of {len(class_set)} numbers")
    if not all(isinstance(factor, float) and 1e-3 <= factor <= 1e3 for factor in odds):
        raise ValueError("decision rule: odds are not numbers from 0.001 to 1000")
    groups, _ = load_weights(year)
    if groups != list(class_set.members):
        raise ValueError(f"decision rule {rule!r} is for other classes than {class_set.name}")


def decide(y_score: np.ndarray, thresholds: np.ndarray | None, rule: dict) -> np.ndarray:
    """Call the classes of every recording.

    Args:
        y_score: (R, C) probabilities.
        thresholds: (C,), or None where the rule needs none.
        rule: as in config.json, see `default_rule`.

    Returns:
        y_pred (R, C) bool.
    """
    if rule["rule"] == "thresholds":
        return y_score > thresholds
    p = y_score.astype(np.float64)
    odds = np.array(rule["odds"])
    _, weights = load_weights(rule["year"])
    return decide_by_reward(p * odds / (1 - p + p * odds), weights, rule["confidence"])


def decide_by_reward(y_score: np.ndarray, weights: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """For each recording the classes whose expected reward is highest, found by adding the best class while it helps.

    The Challenge rewards a recording with sum_ij w_ij y_i d_j / |y or d| for labels y and answers d. For
    probabilities p the expectation is close to sum_j d_j (p W)_j / (|d| + sum of p over the classes not answered).
    Needs no threshold, so nothing is fitted to one hospital; every recording gets at least one answer.

    Args:
        y_score: (R, C) probabilities.
        weights: (C, C) reward matrix.
        confidence: share of each probability that counts.

    Returns:
        y_pred (R, C) bool.
    """
    p = y_score.astype(np.float64) * confidence
    earned = p @ weights  # (R, C): expected reward of each answer
    rows = np.arange(len(p))
    y_pred = np.zeros(p.shape, bool)
    reward = np.zeros(len(p))  # (R,): above the fraction bar, for the answers so far
    size = p.sum(1)  # (R,): below it
    value = np.full(len(p), -np.inf)  # (R,): the fraction
    growing = np.ones(len(p), bool)  # (R,): the last answer helped
    while growing.any():
        gain = np.where(y_pred, -np.inf, (reward[:, None] + earned) / (size[:, None] + 1 - p))  # (R, C)
        best = gain.argmax(1)
        growing &= gain[rows, best] > value
        added = (rows[growing], best[growing])
        y_pred[added] = True
        value[growing] = gain[added]
        reward[growing] += earned[added]
        size[growing] += 1 - p[added]
    return y_pred
