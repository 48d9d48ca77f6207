"""The official scores once more, by plain loops over recordings, files and classes: slow, and built on other
definitions where there are any (AUROC by comparing pairs), so that agreement with engine/metrics.py means
something.
"""

import math
from pathlib import Path

NORMAL = "426783006"


def mean_of_known(values):
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def ratio(above, below, otherwise=math.nan):
    return above / below if below else otherwise


def auroc(truth, scores):
    """Share of (positive, negative) pairs in the right order, a tie counting one half."""
    positive = [s for t, s in zip(truth, scores) if t]
    negative = [s for t, s in zip(truth, scores) if not t]
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return ratio(won, len(positive) * len(negative))


def auprc(truth, scores):
    if not any(truth):
        return math.nan
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        answered = [t for t, s in zip(truth, scores) if s >= threshold]
        recall = sum(answered) / sum(truth)
        area += (recall - recall_before) * sum(answered) / len(answered)
        recall_before = recall
    return area


def counts(y_true, y_pred, k, share):
    table = {(t, p): 0.0 for t in (0, 1) for p in (0, 1)}
    for truth, answer in zip(y_true, y_pred):
        table[int(truth[k]), int(answer[k])] += 1 / max(sum(truth), 1) if share else 1
    return table[1, 1], table[0, 1], table[1, 0], table[0, 0]


def reward(truth, answer, weights):
    size = max(sum(t or a for t, a in zip(truth, answer)), 1)
    total = 0.0
    for j, t in enumerate(truth):
        for k, a in enumerate(answer):
            if t and a:
                total += weights[j][k] / size
    return total


def challenge_metric(y_true, y_pred, weights, normal):
    lazy = [k == normal for k in range(len(weights))]
    seen = sum(reward(t, p, weights) for t, p in zip(y_true, y_pred))
    best = sum(reward(t, t, weights) for t in y_true)
    worst = sum(reward(t, lazy, weights) for t in y_true)
    return 0.0 if best == worst else (seen - worst) / (best - worst)


def scores(y_true, y_pred, y_score, weights, normal):
    y_true, y_pred = ([[bool(value) for value in row] for row in rows] for rows in (y_true, y_pred))
    y_score = [[float(value) for value in row] for row in y_score]
    classes = range(len(y_true[0]))
    columns = [([row[k] for row in y_true], [row[k] for row in y_score]) for k in classes]
    f_measure, f_beta, g_beta = [], [], []
    for k in classes:
        tp, fp, fn, _ = counts(y_true, y_pred, k, share=False)
        f_measure.append(ratio(2 * tp, 2 * tp + fp + fn))
        tp, fp, fn, _ = counts(y_true, y_pred, k, share=True)
        f_beta.append(ratio(5 * tp, 5 * tp + fp + 4 * fn))
        g_beta.append(ratio(tp, tp + fp + 2 * fn))
    result = {
        "auroc_classes": [auroc(*column) for column in columns],
        "auprc_classes": [auprc(*column) for column in columns],
        "f_measure_classes": f_measure,
        "accuracy": sum(t == p for t, p in zip(y_true, y_pred)) / len(y_true),
        "f_beta_measure": mean_of_known(f_beta),
        "g_beta_measure": mean_of_known(g_beta),
        "challenge_metric": challenge_metric(y_true, y_pred, weights, normal),
    }
    return result | {name: mean_of_known(result[f"{name}_classes"]) for name in ("auroc", "auprc", "f_measure")}


def first_phase_scores_by_class(y_true, y_pred, y_score):
    per_class = {name: [] for name in ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure")}
    for k in range(len(y_true[0])):
        tp, fp, fn, tn = counts(y_true, y_pred, k, share=True)
        truth, ranks = [row[k] for row in y_true], [row[k] for row in y_score]
        curve = []  # (sensitivity, specificity, precision) at threshold 1 and at every score above 0
        for threshold in sorted({1.0, *ranks} - {0.0}, reverse=True):
            hits = sum(1 for t, s in zip(truth, ranks) if t and s >= threshold)
            alarms = sum(1 for t, s in zip(truth, ranks) if not t and s >= threshold)
            negative = len(truth) - sum(truth)
            curve.append(
                (ratio(hits, sum(truth), 1), ratio(negative - alarms, negative, 1), ratio(hits, hits + alarms, 1))
            )
        steps = list(zip(curve, curve[1:]))
        per_class["auroc"].append(sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in steps))
        per_class["auprc"].append(sum((b[0] - a[0]) * b[2] for a, b in steps))
        per_class["accuracy"].append((tp + tn) / (tp + fp + fn + tn))
        per_class["f_measure"].append(ratio(2 * tp, 2 * tp + fp + fn, 1))
        per_class["f_beta_measure"].append(ratio(5 * tp, 5 * tp + fp + 4 * fn, 1))
        per_class["g_beta_measure"].append(ratio(tp, tp + fp + 2 * fn, 1))
    return per_class


def first_phase_scores(y_true, y_pred, y_score):
    per_class = first_phase_scores_by_class(y_true, y_pred, y_score)
    return {name: sum(values) / len(values) for name, values in per_class.items()}


def read_matrix(path):
    """Reward matrix of 2020, or of 2021 with its a|b, as a table, one row and column per group of codes."""
    same = {"59118001": "713427006", "63593006": "284470004", "17338001": "427172004"}
    lines = [line.split(",") for line in Path(path).read_text().split()]
    codes = lines[0][1:]
    first = [same.get(code, code) for code in codes]
    kept = [code for code in codes if code not in same]
    same_head = [[code for code, head in zip(codes, first) if head == kept_code] for kept_code in kept]
    groups = [[name for code in group for name in code.split("|")] for group in same_head]
    return groups, [[float(lines[1 + codes.index(a)][1 + codes.index(b)]) for b in kept] for a in kept]


def read_label(path, groups):
    for line in Path(path).read_text().split("\n"):
        if line.startswith("#Dx"):
            codes = {code.strip() for code in line.split(": ")[1].split(",")}
            return [bool(codes & set(group)) for group in groups]
    raise AssertionError(f"{path}: no diagnosis")


def read_output(path, groups):
    rows = [line.split(",") for line in Path(path).read_text().split("\n") if line.strip() and line.strip()[0] != "#"]
    if len(rows) < 3 or any(len(row) != len(rows[0]) for row in rows):
        return [False] * len(groups), [0.0] * len(groups)
    decisions, scores = [], []
    for group in groups:
        columns = [i for i, code in enumerate(rows[0]) if code.strip() in group]
        decisions.append(any(rows[1][i].strip() in ("1", "True", "true", "T", "t") for i in columns))
        numbers = []
        for i in columns:
            try:
                numbers.append(float(rows[2][i]))
            except ValueError:
                numbers.append(0.0)
        score = mean_of_known(numbers)
        scores.append(0.0 if math.isnan(score) else score)
    return decisions, scores


def evaluate(labels, outputs, matrix):
    """Official scores of a label and an output folder, as `scores` gives them."""
    groups, weights = read_matrix(matrix)
    headers = sorted(Path(labels).glob("*.hea"))
    y_true = [read_label(path, groups) for path in headers]
    answers = [read_output(Path(outputs) / f"{path.stem}.csv", groups) for path in headers]
    normal = next(k for k, group in enumerate(groups) if NORMAL in group)
    return scores(y_true, [a for a, _ in answers], [s for _, s in answers], weights, normal)
