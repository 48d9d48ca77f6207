"""Which recordings train and which validate: by patient, stratified over all classes, by fold table or by hospital."""

import csv
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Metadata:
    """Facts of recordings beside their headers, one row per recording in the order asked for."""

    patients: np.ndarray  # (R,) str, the recording's own name where the table does not know it
    folds: np.ndarray  # (R,) int, 0 where the table does not know it
    axis_unknown: np.ndarray  # (R,) bool, the heart axis was not annotated (an empty `heart_axis` field)


def read_metadata(file, names):
    """Metadata of recordings `names` ('source/record_id') from a CSV with the columns `record` (or PTB-XL's `ecg_id`)
    and any of `patient_id`, `strat_fold`, `heart_axis`. Without a file every recording is its own patient. Raises
    ValueError.
    """
    rows = {} if file is None else _read_rows(file)
    found = [rows.get(name, rows.get(name.rpartition("/")[2], {})) for name in names]
    try:
        folds = np.array([int(row.get("strat_fold") or 0) for row in found], int)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{file}: a strat_fold is no whole number ({error})") from error
    return Metadata(
        patients=np.array([row.get("patient_id") or name for row, name in zip(found, names)], str),
        folds=folds,
        axis_unknown=np.array(["heart_axis" in row and not row["heart_axis"] for row in found], bool),
    )


def _read_rows(file):
    """{record name or id: row} of a metadata file."""
    rows = {}
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        try:
            if not {"record", "ecg_id"} & set(reader.fieldnames or ()):
                raise ValueError("neither a column 'record' nor 'ecg_id'")
            for row in reader:
                rows[row.get("record") or f"HR{int(row.get('ecg_id') or ''):05d}"] = row
        except (ValueError, csv.Error) as error:  # a text that is no UTF-8 is a ValueError too
            raise ValueError(f"{file}, line {reader.line_num}: {error}") from None
    return rows


def stratified_by_patient(y, patients, proportions, seed):
    """Deal patients into len(proportions) parts so that each part holds its share of every class; -> part (R,) int.

    Greedy iterative stratification (Sechidis et al., ECML 2011) on patients: the class with the fewest recordings
    left is dealt first, each of its patients to the part that still lacks most of that class. y (R, C) 0/1, patients
    (R,) any.
    """
    _, group = np.unique(patients, return_inverse=True)  # (R,)
    counts = np.zeros((group.max() + 1, y.shape[1] + 1))  # (G, C + 1)
    np.add.at(counts, group, np.concatenate([y, np.ones((len(y), 1))], axis=1))  # last column: recordings
    wanted = np.outer(proportions, counts.sum(0))  # (P, C + 1)
    part = np.full(len(counts), -1)
    order = np.random.default_rng(seed).permutation(len(counts))
    left = counts.sum(0)
    while (part < 0).any():
        open_classes = np.flatnonzero(left[:-1] > 0)
        label = open_classes[np.argmin(left[open_classes])] if len(open_classes) else y.shape[1]
        for g in order[(part[order] < 0) & (counts[order, label] > 0)]:
            part[g] = np.lexsort((-wanted[:, -1], -wanted[:, label]))[0]
            wanted[part[g]] -= counts[g]
            left -= counts[g]
    return part[group]


def train_valid_split(
    y, sources, metadata, valid_split, seed, fold=None, n_folds=None, hold_out=None, valid_fold=None, split="patient"
):
    """(train, valid) indices. In this order of precedence: hold out a source; the metadata's own fold `valid_fold`
    (with split="fold" its highest fold, if none is named); fold `fold` of `n_folds` (1-based, patient-wise and
    stratified); a share `valid_split` of the patients.
    """
    if split == "fold" and valid_fold is None:
        valid_fold = int(metadata.folds.max())
        if valid_fold == 0:
            raise ValueError("--split fold needs --metadata with a column strat_fold")
    if hold_out is not None:
        valid = np.array([source == hold_out or source.startswith(hold_out + "/") for source in sources])
        if not valid.any():
            raise ValueError(f"no recording lies in the folder {hold_out!r}; there are: {sorted(set(sources))}")
    elif valid_fold is not None:
        valid = metadata.folds == valid_fold
        if not valid.any():
            raise ValueError(
                f"the metadata names no recording of fold {valid_fold}; there are: {sorted(set(metadata.folds.tolist()))}"
            )
    elif fold is not None:
        if not 1 <= fold <= n_folds:
            raise ValueError(f"fold {fold} is not within 1 and n_folds = {n_folds}")
        valid = stratified_by_patient(y, metadata.patients, np.full(n_folds, 1 / n_folds), seed) == fold - 1
    else:
        valid = stratified_by_patient(y, metadata.patients, np.array([1 - valid_split, valid_split]), seed) == 1
    train, valid = np.flatnonzero(~valid), np.flatnonzero(valid)
    shared = set(metadata.patients[train]) & set(metadata.patients[valid])
    if shared:
        raise ValueError(f"{len(shared)} patients would be in training and validation, e.g. {sorted(shared)[0]}")
    if not len(train) or not len(valid):
        raise ValueError(f"the split leaves {len(train)} recordings for training and {len(valid)} for validation")
    return train, valid


def share_of(rows, share, seed):
    """A share of some recordings, at least one, drawn by seed; a smaller share is part of a larger one. -> rows,
    sorted.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} of the recordings is not within 0 and 1")
    return np.sort(np.random.default_rng(seed).permutation(rows)[: max(1, round(share * len(rows)))])
