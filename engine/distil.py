"""Distillation: a network also learns what a trained run, or an ensemble of runs, answered on its training recordings.

    python train.py --teacher mdl/ensemble        one network in place of several

A run predicts its validation recordings, an ensemble of cross-validation runs all recordings, each by members that were
not trained on it (valid_predictions.csv). Such out-of-fold probabilities say how sure one may be: where a network has
seen the labels, it answers with the labels. A student's targets lie between labels and probabilities.

Whether the teacher's members saw the student's *validation* recordings, nobody checks: for an honest score, give a
teacher that was trained without them (see docs/runs.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from data.dataset import Dataset
from data.labels import ClassSet
from data.record_names import NameIndex
from engine.ensemble import read_predictions
from engine.run_folder import RunError, RunFolder
from engine.trained_run import load_run


@dataclass(frozen=True)
class Teacher:
    """Answers of a finished run or ensemble on recordings that its networks were not trained on."""

    path: os.PathLike
    rule: dict  # how it decides, see engine.decision
    thresholds: np.ndarray  # (C,)
    y_score: dict[str, np.ndarray]  # {recording: probabilities (C,)}

    def soften(self, data: Dataset, rows: np.ndarray, share: float) -> Dataset:
        """The same Dataset with targets (1 - share) * label + share * probability for those of the recordings `rows`
        that the teacher knows; the others keep their labels. What is unknown (mask) stays so.

        Args:
            data: targets (R, C + A); the C classes come first.
            rows: of recordings that train.
            share: from 0 to 1.

        Raises:
            RunError: the teacher knows none of them.
        """
        index = NameIndex(data.cache.names)
        targets = data.targets.copy()
        training, n_found = set(rows.tolist()), 0
        for name, y_score in self.y_score.items():
            found = index.rows(name)
            if len(found) == 1 and found[0] in training:
                row = targets[found[0], : len(y_score)]
                row += share * (y_score.astype(np.float32) - row)
                n_found += 1
        if not n_found:
            raise RunError(f"--teacher {self.path}: its valid_predictions.csv holds none of the training recordings")
        print(f"{n_found} of {len(rows)} training recordings have a teacher's probabilities ({self.path})")
        return replace(data, targets=targets)


def read_teacher(folder: str | os.PathLike, class_set: ClassSet) -> Teacher:
    """The Teacher in a run folder. Raises RunError if it answers other classes, or has no out-of-fold predictions."""
    loaded = load_run(folder)
    if loaded.class_set != class_set:
        raise RunError(f"--teacher {folder} answers other classes than the ones to be learned: see --classes")
    thresholds = np.mean([model.head.thresholds.numpy() for model in loaded.models], axis=0)
    predictions = read_predictions(RunFolder(folder), class_set)
    y_score = {record: scores for record, (_, scores) in predictions.items()}
    return Teacher(folder, loaded.config["decision"], thresholds, y_score)
