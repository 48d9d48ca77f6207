"""Which recordings an earlier run, a pre-training say, has seen, and a split that keeps to its sides."""

from collections.abc import Collection, Sequence

import numpy as np

from data.record_names import NameIndex


def rows_with_hash(hashes: Sequence[str], constant: np.ndarray, wanted: Collection[str]) -> np.ndarray:
    """The recordings of a cache whose signals are among those that another run has seen.

    Args:
        hashes: R of `SignalCache.hashes`.
        constant: (R,) bool of `SignalCache.constant`; these signals say nothing about whose they are and never count.
        wanted: hashes of the other run's recordings.

    Returns:
        (R,) bool.
    """
    return np.isin(np.array(hashes, str), np.array(sorted(wanted), str)) & ~constant


def rows_named(names: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """The recordings that another run called `ids`, when its input folder may have been another level of the tree.

    Args:
        names: R names 'source/record_id' as they are now.
        ids: names as they were; 'R00' and 'hospital/R00' are the same where no other recording fits.

    Returns:
        (R,) bool, the recordings that were found.

    Raises:
        ValueError: if one may mean several recordings, or if none of them is found.
    """
    found = np.zeros(len(names), bool)
    index = NameIndex(names)
    for name in ids:
        rows = index.rows(name)
        if len(rows) > 1:
            shown = " or ".join(names[row] for row in rows[:3])
            raise ValueError(f"recording {name!r} may be {shown}: give the same input folder as then")
        found[rows] = True
    if len(ids) and not found.any():
        raise ValueError(
            f"none of its {len(ids)} recordings is found among the data: they were called e.g. {ids[0]!r}, "
            f"the data have e.g. {names[0]!r}; give the same input folder as then"
        )
    return found


def split_like(
    was_train: np.ndarray, was_valid: np.ndarray, patients: np.ndarray, train: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move recordings to the side that they, or others of their patients, had in an earlier split.

    Args:
        was_train, was_valid: (R,) bool, the recordings that trained and validated then (`rows_with_hash`, or
            `rows_named` where only names are known).
        patients: (R,) of `Metadata.patients`.
        train, valid: rows of the present split.

    Returns:
        rows that train and rows that validate, sorted.

    Raises:
        ValueError: if a patient was on both sides, or if a side is empty; it says why and what to do.
    """
    both = set(patients[was_train]) & set(patients[was_valid])
    if both:
        raise ValueError(
            f"patient {sorted(both)[0]} has recordings on both sides of the split: pre-train with the same --metadata"
        )
    sides = np.zeros(len(patients), bool)  # (R,) True: validation
    sides[valid] = True
    sides[np.isin(patients, patients[was_train])] = False
    sides[np.isin(patients, patients[was_valid])] = True
    rows = np.union1d(train, valid)
    new_train, new_valid = rows[~sides[rows]], rows[sides[rows]]
    if not len(new_train) or not len(new_valid):
        then = "trained" if not len(new_valid) else "validated"
        raise ValueError(
            f"the split leaves {len(new_train)} recordings for training and {len(new_valid)} for validation: all, or "
            f"others of their patients, {then} in pre-training; add recordings that it has not seen, or give the input "
            f"folder that it had"
        )
    return new_train, new_valid
