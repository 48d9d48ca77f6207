"""What a training is about to use, in a table by source, and what it can neither learn nor measure."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.cache import SignalCache
from data.dataset import Dataset
from data.labels import CLASS_SETS, ClassSet, diagnosis_table, is_diagnosis, load_class_set
from data.leads import LEADS
from data.metadata import Metadata
from data.needed_leads import needs_lines

FEW = 5  # recordings with a class; of fewer nothing is learned, and nothing is measured on them
NAMED_SETS = tuple(name for name in CLASS_SETS if name != "dset")  # those that do not depend on the data
MAX_SOURCES = 12  # lines of the table; of more, folders are put together
MAX_CODES = 10  # that are shown
MAX_NAMES = 3  # of recordings that are shown
MAX_CLASSES = 30  # that are named as rare


def overview(
    data: Dataset, class_set: ClassSet | None, train: np.ndarray, valid: np.ndarray, leads: Sequence[str] = LEADS
) -> list[str]:
    """Lines that say what a training is about to use.

    Args:
        data: the recordings, with labels if there is a class set.
        class_set: what is learned; None where nothing is, in pre-training.
        train, valid: rows that train and that validate.
        leads: that the model reads.

    Returns:
        lines of text: a table by source, duplicates, rare classes, codes outside the class set, classes that the leads
        do not suffice for.

    Raises:
        ValueError: no recording that trains, or none that validates, has a label of the class set, see check_labels.
    """
    if class_set is not None:
        check_labels(data, class_set, train, valid)
    lines = source_table(data.cache, data.metadata, data.targets if class_set is not None else None)
    lines += duplicate_lines(data.cache)
    if class_set is not None:
        n_classes = len(class_set)
        lines += rare_class_lines(data.targets[train, :n_classes], data.y_true[valid], class_set)
        lines += outside_lines(data.cache.dx, class_set, data.auxiliary)
        lines += needs_lines(class_set, leads)
    return lines


def source_table(cache: SignalCache, metadata: Metadata, targets: np.ndarray | None) -> list[str]:
    """A table by source: recordings, with a label, with metadata, patients.

    Args:
        cache: R recordings.
        metadata: of the same.
        targets: (R, C) labels of the class set, or None to leave the column out.

    Returns:
        its lines, columns aligned.
    """
    sources = np.array(_grouped(cache.sources), str)
    labelled = np.zeros(len(cache), bool) if targets is None else (targets > 0).any(1)
    head = ["source", "recordings", "with a label", "with metadata", "patients"]
    rows = []
    for source in [*dict.fromkeys(sorted(sources)), None]:
        chosen = np.ones(len(cache), bool) if source is None else sources == source
        counts = [chosen.sum(), labelled[chosen].sum(), metadata.found[chosen].sum()]
        counts.append(len(np.unique(metadata.patients[chosen])))
        rows.append(["all" if source is None else source or ".", *map(str, counts)])
    if len(rows) == 2:  # one source: the line of all says the same
        rows = rows[:1]
    table = [head, *rows]
    if targets is None:
        table = [[cell for column, cell in enumerate(row) if column != 2] for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table]


def _grouped(sources: Sequence[str]) -> list[str]:
    """Sources as far as there are few of them: of many, those in one folder count as one, and then the smallest."""
    groups = list(sources)
    if len(set(groups)) > MAX_SOURCES:
        groups = [source.partition("/")[0] for source in sources]
    counts = Counter(groups)
    if len(counts) > MAX_SOURCES:
        named = {source for source, _ in counts.most_common(MAX_SOURCES - 1)}
        others = f"({len(counts) - len(named)} others)"
        groups = [group if group in named else others for group in groups]
    return groups


def duplicate_lines(cache: SignalCache) -> list[str]:
    """A line on recordings with identical signals, if there are any."""
    n = sum(len(group) for group in cache.duplicates)
    if not n:
        return []
    shown = "; ".join(" = ".join(group[:MAX_NAMES]) for group in cache.duplicates[:MAX_NAMES])
    more = "; ..." if len(cache.duplicates) > MAX_NAMES else ""
    return [f"copies of each other, one patient for all of a group: {n} recordings: {shown}{more}"]


def rare_class_lines(train_targets: np.ndarray, valid_y_true: np.ndarray, class_set: ClassSet) -> list[str]:
    """Lines that name the classes of which too few recordings are there.

    Args:
        train_targets: (n, C) 0/1, labels of the recordings that train.
        valid_y_true: (m, C) 0/1, labels of those that validate, as the scorer counts them; there may be none.
        class_set: the C classes.

    Returns:
        no line, or up to three.
    """
    lines = []
    for labels, what in ((train_targets, "not learned"), (valid_y_true, "not measured")):
        counts = (labels > 0).sum(0)  # (C,)
        part = "training" if what == "not learned" else "validation"
        rare = [f"{_title(class_set, c)} ({counts[c]})" for c in np.flatnonzero(counts < FEW)]
        if rare and len(labels):
            more = [f"and {len(rare) - MAX_CLASSES} more"] if len(rare) > MAX_CLASSES else []
            named = ", ".join(rare[:MAX_CLASSES] + more)
            lines.append(f"{what}, for fewer than {FEW} {part} recordings have them: {named}")
    one_sided = (valid_y_true > 0).all(0) | ~(valid_y_true > 0).any(0)  # (C,)
    if one_sided.all() and len(valid_y_true):
        lines.append(
            "AUROC and AUPRC cannot be computed: of no class are there validation recordings with it and without it"
        )
    return lines


def _title(class_set: ClassSet, column: int) -> str:
    return class_set.abbreviations[column] or class_set.names[column] or class_set.codes[column]


def outside_lines(dx: Sequence[Sequence[str]], class_set: ClassSet, auxiliary: Sequence[str] = ()) -> list[str]:
    """A line on the codes that the class set does not have.

    Args:
        dx: diagnosis codes of each recording.
        class_set: what is learned.
        auxiliary: codes that are learned beside it.

    Returns:
        no line, or one with the most frequent codes and how many recordings have them.
    """
    inside = class_set.taught_codes
    counts = Counter(code for codes in dx for code in set(codes) if code not in inside and is_diagnosis(code))
    if not counts:
        return []
    further = f", {len(auxiliary)} of them learned beside the classes" if auxiliary else ""
    return [f"codes outside the class set {class_set.name}: {len(counts)}{further}: {_counted(counts)}"]


def _counted(counts: Counter) -> str:
    """The most frequent codes with their names and counts."""
    table = diagnosis_table()
    shown = []
    for code, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_CODES]:
        name = table[code][1] if code in table else "not in the Challenge's tables"
        shown.append(f"{code[:40]} ({name}) {n}")
    return ", ".join(shown) + (", ..." if len(counts) > MAX_CODES else "")


def check_labels(data: Dataset, class_set: ClassSet, train: np.ndarray, valid: np.ndarray) -> None:
    """Refuse to train where there is nothing to learn or nothing to measure.

    Args:
        data: the recordings.
        class_set: what is to be learned.
        train, valid: rows that train and that validate.

    Raises:
        ValueError: if no recording that trains, or none that validates where some do, has a label of the class set. It
            says what was looked for, which codes the data have, and what to type.
    """
    n_classes = len(class_set)
    for part, labels in (("train", data.targets[train, :n_classes]), ("validate", data.y_true[valid])):
        if labels.any() or (part == "validate" and not len(labels)):
            continue
        titles = [_title(class_set, column) for column in range(n_classes)]
        looked_for = ", ".join(titles[:MAX_CODES] + ["..."] * (n_classes > MAX_CODES))
        counts = Counter(code for codes in data.cache.dx for code in set(codes))
        raise ValueError(
            f"none of the {len(labels)} recordings that {part} has a label of the class set {class_set.name} "
            f"({n_classes} classes: {looked_for}). {_what_to_do(data, counts)}"
        )


def _what_to_do(data: Dataset, counts: Counter) -> str:
    if not counts:
        return (
            f"No header of these {len(data)} recordings has a line '#Dx: CODE,CODE' with a code: write the diagnoses "
            f"into the headers, or name another --input_folder; pretrain.py needs no diagnoses"
        )
    if data.targets.any():
        advice = "Choose another split (--valid_split, --fold, --seed), or add recordings that have one"
    else:
        advice = "Take all codes in the data with --classes dset, or list the codes that you want in --classes FILE.csv"
        for name in NAMED_SETS:
            n = int(load_class_set(name).encode_all(data.cache.dx).any(1).sum())
            advice += f"; --classes {name} would find labels in {n} recordings" if n else ""
    return f"The codes in the data are: {_counted(counts)}. {advice}"
