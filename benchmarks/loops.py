"""The official scores by loops over files, recordings and classes, as the organisers' script goes about it: what ours
is measured against.

python -m benchmarks.loops LABELS OUTPUTS SCORES.csv
"""

import sys
from pathlib import Path

import numpy as np

from engine.metrics import load_weights, normal_column

BETA = 2


def read_labels(files, groups):
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


def read_outputs(files, groups):
    """(R, C) bool and float from the answers: any label and the mean probability of the columns of a class."""
    labels, scores = np.zeros((len(files), len(groups)), bool), np.zeros((len(files), len(groups)))
    for i, file in enumerate(files):
        with open(file) as lines:
            table = [
                [cell.strip() for cell in line.split(",")]
                for line in lines
                if line.strip() and not line.startswith("#")
            ]
        if len(table) < 3 or len({len(row) for row in table}) > 1:
            continue
        codes, binary, probabilities = table[:3]
        for k, group in enumerate(groups):
            columns = [j for j, code in enumerate(codes) if code in group]
            if columns:
                labels[i, k] = np.any([binary[j] in ("1", "True", "true", "T", "t") for j in columns])
                scores[i, k] = np.nanmean([float(probabilities[j]) for j in columns])
    return labels, scores


def walk(truth, scores):
    """Areas under the ROC and the precision-recall curve of one class, one threshold after another."""
    order, n_positive = np.argsort(scores)[::-1], int(np.sum(truth))
    n_negative, tp, fp, i = len(truth) - n_positive, 0, 0, 0
    if not n_positive:
        return np.nan, np.nan
    roc = precision_recall = 0.0
    while i < len(order):
        tp_before, fp_before, threshold = tp, fp, scores[order[i]]
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


def tables(labels, outputs, shared):
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


def reward(labels, outputs, weights):
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


def ratio(above, below):
    return above / below if below else np.nan


def evaluate(label_files, output_files, groups, weights, normal):
    """The seven scores: AUROC, AUPRC, accuracy, F, F-beta, G-beta, Challenge metric."""
    labels, (outputs, scores) = read_labels(label_files, groups), read_outputs(output_files, groups)
    areas = np.array([walk(labels[:, k], scores[:, k]) for k in range(len(groups))])
    accuracy = sum(1 for i in range(len(labels)) if np.all(labels[i] == outputs[i])) / len(labels)
    f = [ratio(2 * t[1, 1], 2 * t[1, 1] + t[0, 1] + t[1, 0]) for t in tables(labels, outputs, False)]
    beta = tables(labels, outputs, True)
    f_beta = [ratio((1 + BETA**2) * t[1, 1], (1 + BETA**2) * t[1, 1] + t[0, 1] + BETA**2 * t[1, 0]) for t in beta]
    g_beta = [ratio(t[1, 1], t[1, 1] + t[0, 1] + BETA * t[1, 0]) for t in beta]
    lazy = np.zeros_like(labels)
    lazy[:, normal] = True
    worst, best = reward(labels, lazy, weights), reward(labels, labels, weights)
    challenge = ratio(reward(labels, outputs, weights) - worst, best - worst)
    return [*np.nanmean(areas, axis=0), accuracy, np.nanmean(f), np.nanmean(f_beta), np.nanmean(g_beta), challenge]


if __name__ == "__main__":
    groups, weights = load_weights(2020)
    label_files, output_files = (sorted(Path(folder).iterdir()) for folder in sys.argv[1:3])
    result = evaluate(label_files, output_files, groups, weights, normal_column(groups))
    Path(sys.argv[3]).write_text(",".join(map(str, result)) + "\n")
