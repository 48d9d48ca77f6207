"""From probabilities to diagnoses: thresholds, or the set of classes that promises the highest Challenge reward."""

import numpy as np

from data.labels import ClassSet
from engine.metrics import load_weights

CONFIDENCE = 0.8  # share of each probability that counts: probabilities from another hospital promise a little too much


def default_rule(class_set):
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


def check_rule(rule, class_set):
    """Refuse, with a ValueError, what `decide` cannot follow."""
    if rule == {"rule": "thresholds"}:
        return
    if not isinstance(rule, dict) or set(rule) != {"rule", "year", "confidence", "odds"} or rule["rule"] != "reward":
        raise ValueError(f"unknown decision rule {rule!r}")
    if rule["year"] not in (2020, 2021) or not isinstance(rule["confidence"], float) or not 0 < rule["confidence"] <= 1:
        raise ValueError(f"decision rule {rule!r}: year is 2020 or 2021, confidence a number within 0 and 1")
    odds = rule["odds"]
    if (
        not isinstance(odds, list)
        or len(odds) != len(class_set)
        or not all(isinstance(o, float) and 1e-3 <= o <= 1e3 for o in odds)
    ):
        raise ValueError(f"decision rule: odds are no list of {len(class_set)} numbers within 0.001 and 1000")
    if load_weights(rule["year"])[0] != list(class_set.members):
        raise ValueError(f"decision rule {rule!r} is for other classes than {class_set.name}")


def decide(y_score, thresholds, rule):
    """y_score (R, C) probabilities, thresholds (C,), a rule as in config.json -> y_pred (R, C) bool."""
    if rule["rule"] == "thresholds":
        return y_score > thresholds
    p, odds = y_score.astype(np.float64), np.array(rule["odds"])
    return decide_by_reward(p * odds / (1 - p + p * odds), load_weights(rule["year"])[1], rule["confidence"])


def decide_by_reward(y_score, weights, confidence=CONFIDENCE):
    """For each recording the classes whose expected reward is highest, found by adding the best class while it helps.

    The Challenge rewards a recording with sum_ij w_ij y_i d_j / |y or d| for labels y and answers d. For
    probabilities p the expectation is close to sum_j d_j (p W)_j / (|d| + sum of p over the classes not answered).
    Needs no threshold, so nothing is fitted to one hospital; every recording gets at least one answer. y_score (R,
    C), weights (C, C) -> (R, C) bool.
    """
    p = y_score.astype(np.float64) * confidence
    earned, rows = p @ weights, np.arange(len(p))  # (R, C): expected reward of each answer
    y_pred, reward, size = np.zeros(p.shape, bool), np.zeros(len(p)), p.sum(1)
    value, growing = np.full(len(p), -np.inf), np.ones(len(p), bool)  # (R,)
    while growing.any():
        gain = np.where(y_pred, -np.inf, (reward[:, None] + earned) / (size[:, None] + 1 - p))
        best = gain.argmax(1)
        growing &= gain[rows, best] > value
        added = rows[growing], best[growing]
        y_pred[added], value[growing] = True, gain[added]
        reward[growing] += earned[added]
        size[growing] += 1 - p[added]
    return y_pred
