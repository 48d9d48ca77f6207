"""Score predictions of whole recordings, choose thresholds, and write them down."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

from data.dataset import Dataset
from data.labels import NORMAL, ClassSet
from engine.decision import decide
from engine.distributed import ProcessGroup
from engine.metrics import compute_scores, load_weights
from engine.run_folder import RunFolder
from engine.thresholds import choose_thresholds
from engine.windows import Windows, predict
from models import ECGModel
from models.folding import fold_norms

SCORES = ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric")
SHOWN_OF_TEST = {"auroc": "macro AUROC", "auprc": "macro AUPRC", "challenge_metric": "challenge"}


class Validator:
    """Scores a model on the validation recordings, the way driver.py and the official evaluator would.

    Args:
        data: recordings with their labels.
        rows: of those that validate.
        class_set: the model's classes.
        rule: how probabilities become diagnoses, see engine.decision.
        windows: how the model reads recordings.
        group: the processes that share the work.
    """

    def __init__(
        self,
        data: Dataset,
        rows: np.ndarray,
        class_set: ClassSet,
        rule: dict,
        windows: Windows,
        group: ProcessGroup,
    ):
        self.data = data
        self.rows = rows
        self.class_set = class_set
        self.rule = rule
        self.windows = windows
        self.group = group

    def __call__(self, model: ECGModel) -> tuple[dict[str, float], np.ndarray]:
        """Choose thresholds, which are kept in the model, and score -> (scores, y_score (R, C)). Without recordings the
        scores are NaN, and the model's thresholds stay as they are.
        """
        data = self.data
        n_classes = len(self.class_set)
        if not len(self.rows):
            return dict.fromkeys(("valid_loss", *SCORES), math.nan), np.zeros((0, n_classes), np.float32)
        y_score = predict_together(model, self.windows, data, self.rows, self.group)
        thresholds, scores = score_validation(
            data.y_true[self.rows],
            data.targets[self.rows, :n_classes],
            data.mask[self.rows, :n_classes],
            y_score,
            self.class_set,
            self.rule,
        )
        model.head.thresholds.copy_(torch.from_numpy(thresholds))
        return scores, y_score

    def test(self, model: ECGModel) -> tuple[dict[str, float], np.ndarray]:
        """Score with the thresholds that the model has -> (scores, y_score (R, C))."""
        data = self.data
        weights, normal = official_weights(self.class_set)
        y_score = predict_together(model, self.windows, data, self.rows, self.group)
        y_pred = decide(y_score, model.head.thresholds.cpu().numpy(), self.rule)
        scores = compute_scores(data.y_true[self.rows], y_pred, y_score, weights, normal)
        return {name: float(scores[name]) for name in SCORES}, y_score

    def prediction_rows(self, y_score: np.ndarray) -> list[dict]:
        """Rows of valid_predictions.csv."""
        cache = self.data.cache
        names = [cache.names[i] for i in self.rows]
        return prediction_rows(names, [cache.dx[i] for i in self.rows], self.class_set, y_score)


def score_test(tester: Validator, model: ECGModel, run: RunFolder) -> str:
    """Score the best epoch of a run on recordings that were kept out; writes test_predictions.csv and test_scores.json.

    Args:
        tester: the Validator of these recordings.
        model: gets the weights of the best epoch.
        run: of the training.

    Returns:
        a line with the scores. AUROC is the plain mean over the classes, as in PTB-XL's benchmark.
    """
    with tester.group.main_process_first():
        model.load_state_dict(run.load("model.pth")["members"][0])
    scores, y_score = tester.test(model)
    run.write_rows("test_predictions.csv", tester.prediction_rows(y_score))
    run.write_json("test_scores.json", {name: None if math.isnan(value) else value for name, value in scores.items()})
    shown = [f"{name} {scores[key]:.4f}" for key, name in SHOWN_OF_TEST.items() if not math.isnan(scores[key])]
    return "  ".join([f"Test, {len(tester.rows)} recordings:", *shown])


def predict_together(
    model: ECGModel,
    windows: Windows,
    data: Dataset,
    rows: np.ndarray,
    group: ProcessGroup,
) -> np.ndarray:
    """Probabilities (R, C) of some recordings, shared out over the processes of a group; every process gets all of
    them.

    Args:
        model: it stays as it is.
        windows: how it reads recordings.
        data: the recordings, with `numbers` if the model has a forest.
        rows: R of them.
        group: who shares the work.
    """
    mine = np.array_split(rows, group.world_size)[group.rank]  # a stretch of them lies in few of the cache's files
    folded = fold_norms(copy.deepcopy(model))
    signals = [data.cache.signal(i) for i in mine]
    y_score = predict(
        [folded], [windows], signals, data.covariates[mine], group.device, lambda: data.numbers[mine]
    )  # (about R / world_size, C)
    return np.concatenate(group.all_gather_object(y_score))


def official_weights(class_set: ClassSet) -> tuple[np.ndarray, int] | tuple[None, None]:
    """(reward matrix, column of sinus rhythm) of the class set's Challenge, or (None, None) if it has none."""
    if class_set.year is None:
        return None, None
    return load_weights(class_set.year)[1], class_set.column(NORMAL)


def score_validation(
    y_true: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
    y_score: np.ndarray,
    class_set: ClassSet,
    rule: dict,
) -> tuple[np.ndarray, dict[str, float]]:
    """Thresholds (C,) chosen on these recordings, and the scores that the decision rule gives.

    Thresholds are chosen on training's labels: where a source writes a class by an alias only (PTB-XL's ventricular
    ectopics), the scorer's view would raise that class's threshold until it is never called. But unlike in training, a
    label that is unknown counts as absent, as for the scorer: the mask is for the loss alone.

    Args:
        y_true: (R, C) bool, as the official scorer sees it.
        targets, mask: (R, C), as training does.
        y_score: (R, C) probabilities.
        class_set: names of the C columns.
        rule: of engine.decision.
    """
    weights, normal = official_weights(class_set)
    thresholds = np.full(y_true.shape[1], 0.5, np.float32)
    if targets.any():
        thresholds = choose_thresholds(targets > 0, y_score, weights, normal)
    scores = compute_scores(y_true, decide(y_score, thresholds, rule), y_score, weights, normal)
    p = np.clip(y_score.astype(np.float64), 1e-7, 1 - 1e-7)
    loss = -(mask * (targets * np.log(p) + (1 - targets) * np.log(1 - p))).sum() / max(mask.sum(), 1)
    return thresholds, {"valid_loss": float(loss), **{name: scores[name] for name in SCORES}}


def prediction_rows(names: list[str], dx: list[tuple], class_set: ClassSet, y_score: np.ndarray) -> list[dict]:
    """Rows of valid_predictions.csv: record, its diagnoses, and a probability per class.

    Args:
        names: of R recordings.
        dx: their diagnosis codes.
        class_set: names of the C columns.
        y_score: (R, C).
    """
    return [
        {"record": name, "dx": "|".join(codes), **dict(zip(class_set.codes, row))}
        for name, codes, row in zip(names, dx, y_score.astype(np.float32))  # written in as few digits as it takes
    ]
