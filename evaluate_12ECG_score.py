"""Score the outputs of a classifier as the organisers of the PhysioNet/CinC Challenge 2020 do.

    python evaluate_12ECG_score.py LABELS OUTPUTS                                     print the scores
    python evaluate_12ECG_score.py LABELS OUTPUTS scores.csv                          write them
    python evaluate_12ECG_score.py LABELS OUTPUTS scores.csv class_scores.csv         and those of every class
    python evaluate_12ECG_score.py LABELS OUTPUTS --year 2021                         with the reward matrix of 2021

LABELS holds the recordings' headers (.hea, with their #Dx line), OUTPUTS one ID.csv for each, as driver.py writes
them. Textual labels (AF, I-AVB, ...) are scored as in the Challenge's first phase. Text and CSV files are those of
the official script, without its progress messages; classes carry the first code of each pair of equivalents. What is
wrong is said on stderr; the exit status is then 1 (2 for a wrong command line).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.files import write_atomically
from data.headers import printable
from engine.arguments import path_argument
from engine.metrics import (
    class_scores_cpsc2018,
    compute_scores,
    compute_scores_cpsc2018,
    load_weights,
    normal_column,
)
from engine.score_checks import check_scores, check_values
from engine.score_files import ScoreFileError, find_pairs, read_first_phase, read_labels, read_outputs

SCORES = {
    "AUROC": "auroc",
    "AUPRC": "auprc",
    "Accuracy": "accuracy",
    "F-measure": "f_measure",
    "Fbeta-measure": "f_beta_measure",
    "Gbeta-measure": "g_beta_measure",
    "Challenge metric": "challenge_metric",
}
CLASS_SCORES = {"AUROC": "auroc_classes", "AUPRC": "auprc_classes", "F-measure": "f_measure_classes"}


def evaluate_12ECG_score(
    label_folder: str | Path, output_folder: str | Path, year: int = 2020
) -> tuple[list[str], dict[str, Any]]:
    """Score a folder of outputs. What is remarkable about them is said on stderr.

    Args:
        label_folder: of headers with their #Dx line, nested or not.
        output_folder: of one CSV for each.
        year: of the reward matrix, 2020 or 2021.

    Returns:
        Names of the C classes, and the dictionary of `compute_scores`, or those of `compute_scores_cpsc2018` and
        `class_scores_cpsc2018` for textual labels.

    Raises:
        ScoreFileError: a file is missing or cannot be read, or labels and outputs have no class in common.
    """
    pairs = find_pairs(label_folder, output_folder)
    if pairs.textual:
        classes, outputs = read_first_phase(pairs)
        y_true = read_labels(pairs.dx, [(name,) for name in classes])
        warn(check_values(pairs, outputs))
        arrays = (y_true, outputs.y_pred, outputs.y_score)  # (R, C) each
        return classes, compute_scores_cpsc2018(*arrays) | class_scores_cpsc2018(*arrays)
    groups, weights = load_weights(year)
    outputs = read_outputs(pairs.outputs, groups)
    y_true = read_labels(pairs.dx, groups)
    warn(check_scores(pairs, outputs, y_true, groups, year))
    scores = compute_scores(y_true, outputs.y_pred, outputs.y_score, weights, normal_column(groups))
    return [group[0] for group in groups], scores


def warn(lines: Sequence[str]) -> None:
    """Say on stderr, apart from the scores, what stands behind them."""
    for line in lines:
        print(printable(line), file=sys.stderr)


def scores_text(scores: dict[str, Any]) -> str:
    """The official two lines: names and values. The first phase has six scores and parts them by |."""
    names = [name for name in SCORES if SCORES[name] in scores]
    mark = "," if "challenge_metric" in scores else "|"
    return mark.join(names) + "\n" + mark.join(f"{scores[SCORES[name]]:.3f}" for name in names)


def class_scores_text(classes: Sequence[str], scores: dict[str, Any]) -> str:
    """The official four lines: classes and their AUROC, AUPRC and F-measure."""
    lines = [["Classes", *classes]]
    lines += [[name, *(f"{value:.3f}" for value in scores[key])] for name, key in CLASS_SCORES.items()]
    return "\n".join(map(",".join, lines))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    try:
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise ScoreFileError(f"{path} cannot be written: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=path_argument, help="folder of label headers, nested or not")
    parser.add_argument("outputs", type=path_argument, help="folder of output CSV files")
    parser.add_argument("scores", type=path_argument, nargs="?", help="write the scores here in place of printing them")
    parser.add_argument("class_scores", type=path_argument, nargs="?", help="write the scores of every class here")
    parser.add_argument("--year", type=int, choices=(2020, 2021), default=2020, help="reward matrix (default: 2020)")
    args = parser.parse_args(arguments)
    try:
        classes, scores = evaluate_12ECG_score(args.labels, args.outputs, args.year)
        if args.scores is None:
            print(scores_text(scores))
        else:
            write_text(args.scores, scores_text(scores))
        if args.class_scores:
            write_text(args.class_scores, class_scores_text(classes, scores))
    except (ScoreFileError, OSError) as error:
        print(f"evaluate_12ECG_score.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
