"""What looks fine in the official scores and is not.

The official script answers with numbers to nearly everything: to outputs of another code system, to decisions that it
does not understand, to labels that it cannot split. Those numbers stay as they are; here is said what is behind them.
Where labels and outputs have no class in common there is nothing to score, and that is an error.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.labels import YEARS, code_groups, diagnosis_table
from engine.score_files import Groups, Outputs, Pairs, ScoreFileError, nothing_shared

MAX_LISTED = 10  # files or classes in one warning
_WORD = re.compile(r"[^\s;|,\[\]()'\"]+")


def check_scores(pairs: Pairs, outputs: Outputs, y_true: np.ndarray, groups: Groups, year: int) -> list[str]:
    """Remarks on labels and outputs of SNOMED CT codes, one line each.

    Args:
        pairs: labels and output files of R recordings.
        outputs: what the output files say, (R, C).
        y_true: (R, C) bool.
        groups: codes of each of the C columns.
        year: of the reward matrix.

    Raises:
        ScoreFileError: labels and outputs share no class, however their codes are separated.
    """
    diagnoses = pairs.diagnoses()
    if not _words(diagnoses, groups) & _words(outputs.names, groups):
        raise ScoreFileError(nothing_shared(diagnoses, outputs.names))
    warnings = [f"{path}: not a well-formed output file, counted as all negative" for path in outputs.malformed]
    if len(warnings) > MAX_LISTED:
        n_more = len(warnings) - MAX_LISTED
        warnings[MAX_LISTED:] = [f"... and {n_more} more files that are not well-formed"]
    warnings += _labels_that_are_no_codes(pairs, diagnoses)
    warnings += _names_that_are_no_codes(outputs)
    warnings += _missing_columns(outputs, y_true, groups)
    warnings += _another_year(outputs, year)
    return warnings + check_values(pairs, outputs)


def check_values(pairs: Pairs, outputs: Outputs) -> list[str]:
    """Remarks on decisions, scores and files without a label, in either phase of the Challenge."""
    warnings = []
    if outputs.odd_decisions:
        warnings.append(f"{_fields(outputs.odd_decisions, 'decisions')} neither 0 nor 1: they count as 0")
    elif outputs.names and len(np.unique(outputs.y_pred[outputs.has_column])) == 1:
        decision = int(outputs.y_pred[outputs.has_column][0])
        warnings.append(
            f"every decision is {decision}: the scores that depend on decisions say nothing about the model"
        )
    if outputs.odd_scores:
        warnings.append(f"{_fields(outputs.odd_scores, 'scores')} not numbers: they count as 0")
    scores = outputs.y_score[outputs.has_column]
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        warnings.append(
            f"the scores reach from {scores.min():g} to {scores.max():g}: they are not probabilities between 0 and 1"
        )
    elif scores.size > 1 and scores.min() == scores.max():
        warnings.append(f"every score is {scores[0]:g}: AUROC and AUPRC say nothing about the model")
    if pairs.unlabelled:
        n_files = len(pairs.unlabelled)
        warnings.append(f"{n_files} output files without a label file are left out: {_some(pairs.unlabelled)}")
    return warnings


def _words(names, groups):
    """Canonical forms of the names, however they are separated, in brackets or with .0 behind them."""
    canonical = {code: group[0] for group in groups for code in group}
    words = {word.removesuffix(".0") for name in names for word in (name, *_WORD.findall(name))}
    return {canonical.get(word, word) for word in words}


def _labels_that_are_no_codes(pairs, diagnoses):
    odd = {word for word in diagnoses if not word.isdigit()}
    if not odd:
        return []
    rows = [(header, word) for header, dx in zip(pairs.headers, pairs.dx) for word in dx if word in odd]
    fields = _fields(rows, "diagnoses of the labels")
    return [f"{fields} not SNOMED CT codes separated by commas: they count as unknown classes"]


def _names_that_are_no_codes(outputs):
    odd = Counter({name: n for name, n in outputs.names.items() if not name.isdigit()})
    if not odd:
        return []
    shown = ", ".join(repr(name[:80]) for name, _ in odd.most_common(3))
    return [
        f"{len(odd)} classes of the output files are not SNOMED CT codes separated by commas: they count as unknown "
        f"classes: {shown}{', ...' if len(odd) > 3 else ''}"
    ]


def _missing_columns(outputs, y_true, groups):
    """Labelled classes of which some recording's output, or every one, has no column."""
    well_formed = outputs.has_column.any(axis=1) | ~y_true.any(axis=1)
    nowhere, partly = [], []
    for column, group in enumerate(groups):
        n_labels = int(y_true[:, column].sum())
        n_missing = int((y_true[:, column] & ~outputs.has_column[:, column] & well_formed).sum())
        if n_labels and not outputs.has_column[:, column].any():
            nowhere.append(f"{_named(group)} ({n_labels} recordings)")
        elif n_missing:
            partly.append(f"{_named(group)} ({n_missing} of {n_labels} recordings)")
    warnings = []
    if nowhere:
        warnings.append(f"classes of the labels that no output file has, counted as negative: {_some(nowhere)}")
    if partly:
        warnings.append(
            f"classes that the outputs of recordings labelled so lack, counted as negative: {_some(partly)}"
        )
    if not y_true.any():
        warnings.append("no recording has a label of a scored class: most scores are nan")
    return warnings


def _another_year(outputs, year):
    """Columns that only the reward matrix of another year scores."""
    scored = {code for group in code_groups(year) for code in group}
    warnings = []
    for other in YEARS.values():
        only_there = {code for group in code_groups(other) for code in group} - scored
        extra = sorted(outputs.names.keys() & only_there)
        if extra:
            warnings.append(
                f"classes of the output files that are scored in {other} and not in {year}: "
                f"{_some([_named((code,)) for code in extra])}; --year {other} scores them"
            )
    return warnings


def _named(group):
    """'AF 164889003' of a group of equivalent codes."""
    abbreviation = diagnosis_table().get(group[0], ("", ""))[0]
    return f"{abbreviation} {'|'.join(group)}".strip()


def _fields(rows: Sequence[tuple[str, str]], what: str) -> str:
    """'3 decisions (the first: '1.0' in PATH) are', of rows (path, field)."""
    path, word = rows[0]
    return f"{len(rows)} {what} (the first: {word[:80]!r} in {path}) are"


def _some(words):
    """As many as fit into a warning."""
    shown = ", ".join(words[:MAX_LISTED])
    return f"{shown}, ..." if len(words) > MAX_LISTED else shown
