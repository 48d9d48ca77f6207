"""Score predictions of whole recordings, choose thresholds, and write them down."""

import copy

import numpy as np

from data.labels import NORMAL
from engine.decision import decide
from engine.inference import predict
from engine.metrics import choose_thresholds, compute_scores, load_weights
from models.folding import fold_norms

SCORES = ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric")


def predict_together(model, seq_length, cache, covariates, rows, group):
    """Probabilities (R, C) of the recordings `rows` of a SignalCache, shared out over the processes of a ProcessGroup; every
    process gets all of them. covariates: those of all recordings of the cache.
    """
    mine = np.array_split(rows, group.world_size)[group.rank]  # a stretch of them lies in few of the cache's files
    y_score = predict(
        [fold_norms(copy.deepcopy(model))],
        [seq_length],
        [cache.signal(i) for i in mine],
        covariates[mine],
        group.device,
    )  # (about R / size, C)
    return np.concatenate(group.all_gather_object(y_score))


def official_weights(class_set):
    """(reward matrix, column of sinus rhythm) of the class set's Challenge, or (None, None) if it has none."""
    if class_set.year is None:
        return None, None
    return load_weights(class_set.year)[1], class_set.column(NORMAL)


def score_validation(y_true, targets, mask, y_score, class_set, rule):
    """Thresholds (C,) chosen on these recordings, and the dictionary of scores that the decision rule gives.

    y_true (R, C) bool as the official scorer sees it; targets, mask (R, C) as training does; y_score (R, C).
    Thresholds are chosen on what training asked for: where a source writes a class by an alias only (PTB-XL's
    ventricular ectopics), the scorer's view would raise that class's threshold until it is never called.
    """
    weights, normal = official_weights(class_set)
    thresholds = np.full(y_true.shape[1], 0.5, np.float32)
    if targets.any():
        thresholds = choose_thresholds(targets > 0, y_score, weights, normal)
    scores = compute_scores(y_true, decide(y_score, thresholds, rule), y_score, weights, normal)
    p = np.clip(y_score.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -(mask * (targets * np.log(p) + (1 - targets) * np.log(1 - p))).sum() / max(mask.sum(), 1)
    return thresholds, {"valid_loss": float(loss), **{name: scores[name] for name in SCORES}}


def prediction_rows(names, dx, class_set, y_score):
    """Rows of valid_predictions.csv: record, its diagnoses, and a probability per class."""
    return [
        {"record": name, "dx": "|".join(codes), **dict(zip(class_set.codes, map(float, row)))}
        for name, codes, row in zip(names, dx, y_score)
    ]
