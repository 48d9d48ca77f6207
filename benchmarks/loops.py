"""The official scores by loops over files, recordings and classes, as the organisers' script goes about it: what ours
is measured against.

python -m benchmarks.loops LABELS OUTPUTS SCORES.csv
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.metrics import load_weights, normal_column

BETA = 2
Groups = Sequence[Sequence[str]]  # the codes of each class


def read_labels(files: Sequence[Path], groups: Groups) -> np.ndarray:
    """(R, C) bool from the #Dx line of every header."""
    labels = np.zeros((len(files), len(groups)), bool)
    for i, file in enumerate(files):
        with open(file) as lines:
            for line in lines:
                if line.startswith("#Dx"):
                    codes = [code.strip() for code in line.split(": ")[1].split(",")]
                    for k, group in enumerate(groups):
                        labels[i, k] = any(code in group for code in codes)
    return labels


def read_table(file: Path) -> list[list[str]]:
    """Cells of an answer's lines, comments left out."""
    table = []
    with open(file) as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                table.append([cell.strip() for cell in line.split(",")])
    return table


def read_outputs(files: Sequence[Path], groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """(R, C) bool and float from the answers: any label and the mean probability of the columns of a class."""
    labels = np.zeros((len(files), len(groups)), bool)
    scores = np.zeros((len(files), len(groups)))
    for i, file in enumerate(files):
        table = read_table(file)
        if len(table) < 3 or len({len(row) for row in table}) > 1:
            continue
        codes, binary, probabilities = table[:3]
        for k, group in enumerate(groups):
            columns = [j for j, code in enumerate(codes) if code in group]
            if columns:
                labels[i, k] = np.any([binary[j] in ("1", "True", "true", "T", "t") for j in columns])
                scores[i, k] = np.nanmean([float(probabilities[j]) for j in columns])
    return labels, scores


def areas(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Areas under the ROC and the precision-recall curve of one class, one threshold after another."""
    order = np.argsort(scores)[::-1]
    n_positive = int(np.sum(truth))
    n_negative = len(truth) - n_positive
    if not n_positive:
        return np.nan, np.nan
    roc = precision_recall = 0.0
    tp = fp = i = 0
    while i < len(order):
        tp_before = tp
        fp_before = fp
        threshold = scores[order[i]]
        while i < len(order) and scores[order[i]] == threshold:
            if truth[order[i]]:
                tp += 1
            else:
                fp += 1
            i += 1
        if n_negative:
            roc += (fp - fp_before) / n_negative * (tp + tp_before) / 2 / n_positive
        precision_recall += (tp - tp_before) / n_positive * tp / (tp + fp)
    return roc if n_negative else np.nan, precision_recall


def tables(labels: np.ndarray, outputs: np.ndarray, shared: bool) -> np.ndarray:
    """(C, 2, 2) counts by label and output; `shared`: a recording's weight is spread over its labels."""
    counts = np.zeros((labels.shape[1], 2, 2))
    for i in range(labels.shape[0]):
        weight = 1 / max(np.sum(labels[i]), 1) if shared else 1
        for k in range(labels.shape[1]):
            if labels[i, k] and outputs[i, k]:
                counts[k, 1, 1] += weight
            elif labels[i, k]:
                counts[k, 1, 0] += weight
            elif outputs[i, k]:
                counts[k, 0, 1] += weight
            else:
                counts[k, 0, 0] += weight
    return counts


def reward(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float:
    """Sum of the rewards of all pairs of a label and an output."""
    counts = np.zeros(weights.shape)
    for i in range(labels.shape[0]):
        size = max(float(np.sum(np.any((labels[i], outputs[i]), axis=0))), 1.0)
        for j in range(labels.shape[1]):
            if labels[i, j]:
                for k in range(labels.shape[1]):
                    if outputs[i, k]:
                        counts[j, k] += 1 / size
    return np.nansum(weights * counts)


def ratio(above: float, below: float) -> float:
    """above / below, NaN where below is 0."""
    return above / below if below else np.nan


def f_measure(t: np.ndarray) -> float:
    """F1 of one class from its counts (2, 2)."""
    return ratio(2 * t[1, 1], 2 * t[1, 1] + t[0, 1] + t[1, 0])


def f_beta_measure(t: np.ndarray) -> float:
    """F-beta of one class from its counts (2, 2)."""
    hits = (1 + BETA**2) * t[1, 1]
    return ratio(hits, hits + t[0, 1] + BETA**2 * t[1, 0])


def g_beta_measure(t: np.ndarray) -> float:
    """G-beta of one class from its counts (2, 2)."""
    return ratio(t[1, 1], t[1, 1] + t[0, 1] + BETA * t[1, 0])


def evaluate(
    label_files: Sequence[Path], output_files: Sequence[Path], groups: Groups, weights: np.ndarray, normal: int
) -> list[float]:
    """The seven scores.

    Args:
        label_files, output_files: R headers and the R answers to them, in one order.
        groups: the codes of each of C classes.
        weights: (C, C) reward matrix.
        normal: column of sinus rhythm.

    Returns:
        AUROC, AUPRC, accuracy, F, F-beta, G-beta, Challenge metric.
    """
    labels = read_labels(label_files, groups)
    outputs, scores = read_outputs(output_files, groups)
    auroc, auprc = np.nanmean([areas(labels[:, k], scores[:, k]) for k in range(len(groups))], axis=0)
    accuracy = sum(1 for i in range(len(labels)) if np.all(labels[i] == outputs[i])) / len(labels)
    f = [f_measure(t) for t in tables(labels, outputs, False)]
    shared = tables(labels, outputs, True)
    f_beta = [f_beta_measure(t) for t in shared]
    g_beta = [g_beta_measure(t) for t in shared]
    always_normal = np.zeros_like(labels)
    always_normal[:, normal] = True
    worst = reward(labels, always_normal, weights)
    best = reward(labels, labels, weights)
    challenge = ratio(reward(labels, outputs, weights) - worst, best - worst)
    return [auroc, auprc, accuracy, np.nanmean(f), np.nanmean(f_beta), np.nanmean(g_beta), challenge]


if __name__ == "__main__":
    groups, weights = load_weights(2020)
    label_files, output_files = (sorted(Path(folder).iterdir()) for folder in sys.argv[1:3])
    result = evaluate(label_files, output_files, groups, weights, normal_column(groups))
    Path(sys.argv[3]).write_text(",".join(map(str, result)) + "\n")
