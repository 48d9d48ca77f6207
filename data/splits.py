"""Which recordings train and which validate: by patient, stratified over all classes, by fold table or by hospital."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.metadata import NO_FOLD, Metadata

SPLIT_FLAGS = ("valid_split", "split", "valid_fold", "fold", "n_folds", "hold_out")  # which `Split.from_flags` reads
WAYS = {"fold": "cv", "valid_fold": "fold", "hold_out": "hold_out"}  # {flag: Split.by}


@dataclass(frozen=True)
class Split:
    """How recordings are divided into training and validation.

    by           value                                            validates
    "patient"    share of the patients, e.g. 0.2; 0: none         patients dealt so that each class has its share
    "cv"         number of the fold, 1 to `n_folds`               the same, in `n_folds` folds
    "fold"       a strat_fold of the metadata, or None            that fold; None: the highest one
    "hold_out"   a folder below the input folder (a hospital)     the recordings in it, at any depth
    """

    by: str = "patient"
    value: float | int | str | None = 0.2
    n_folds: int | None = None  # with "cv" only

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], explicit: Collection[str] = ()) -> "Split":
        """The Split that flags ask for.

        Args:
            flags: values of --split, --valid_split, --valid_fold, --fold, --n_folds and --hold_out by name, defaults
                filled in (`vars(args)`).
            explicit: names of the flags that were typed.

        Raises:
            ValueError: if they contradict each other, or a value is out of range.
        """
        _check_fold("--test_fold", flags.get("test_fold"))
        if flags.get("test_fold") is not None and flags["test_fold"] == flags["valid_fold"]:
            raise ValueError(f"--valid_fold and --test_fold are both {flags['test_fold']}: they must differ")
        chosen = [name for name in WAYS if flags[name] is not None]
        if "valid_split" in explicit:
            chosen.append("valid_split")
        if len(chosen) > 1:
            shown = " and ".join(f"--{name} {flags[name]}" for name in chosen)
            raise ValueError(f"{shown} are different ways to choose the validation recordings: give only one of them")
        if "n_folds" in explicit and flags["fold"] is None:
            raise ValueError(f"--n_folds {flags['n_folds']} needs --fold K, the one of them that validates")
        if flags["split"] == "fold" and chosen and chosen != ["valid_fold"]:
            raise ValueError(
                f"--split fold takes the folds of the metadata and contradicts --{chosen[0]} {flags[chosen[0]]}: "
                f"leave one of them out (--valid_fold K chooses a fold of the metadata)"
            )
        if "split" in explicit and flags["split"] == "patient" and chosen == ["valid_fold"]:
            raise ValueError(
                f"--split patient contradicts --valid_fold {flags['valid_fold']}, a fold of the metadata: leave one of "
                f"them out"
            )
        if flags["split"] == "fold":
            return cls._checked("fold", flags["valid_fold"])
        if chosen and chosen[0] in WAYS:
            return cls._checked(WAYS[chosen[0]], flags[chosen[0]], flags["n_folds"])
        return cls._checked("patient", flags["valid_split"])

    @classmethod
    def _checked(cls, by: str, value: Any, n_folds: int | None = None) -> "Split":
        if by == "patient" and not 0 <= value < 1:
            raise ValueError(f"--valid_split {value} is not between 0 and 1")
        if by == "fold":
            _check_fold("--valid_fold", value)
        if by == "cv" and n_folds < 2:
            raise ValueError(f"--n_folds {n_folds}: there must be 2 or more, one of which validates")
        if by == "cv" and not 1 <= value <= n_folds:
            raise ValueError(f"--fold {value} is not within 1 and --n_folds {n_folds}")
        if by == "hold_out":
            value = "/".join(part for part in value.split("/") if part not in ("", "."))
            if not value:
                raise ValueError("--hold_out names no folder below the input folder")
        return cls(by, value, n_folds if by == "cv" else None)

    def rows(
        self, targets: np.ndarray, sources: Sequence[str], metadata: Metadata, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Divide R recordings.

        Args:
            targets: (R, C) 0/1 labels, over which patients are stratified.
            sources: R folders relative to the input folder.
            metadata: of the same recordings; identical signals have one patient in it.
            seed: decides which patients validate, where chance does.

        Returns:
            rows that train and rows that validate, sorted. Recordings of a folder or fold that trains, but which are
            linked by identical signals to one that validates, are in neither, and a line says so.

        Raises:
            ValueError: if a patient would be on both sides, or a side is empty; it says why and what to do.
        """
        if self.by == "patient" and self.value == 0:
            return np.arange(len(targets)), np.zeros(0, int)
        validates = self._validates(targets, sources, metadata, seed)
        train, valid = np.flatnonzero(~validates), np.flatnonzero(validates)
        shared = set(metadata.patient_ids[train]) & set(metadata.patient_ids[valid])
        if shared:
            patient = sorted(shared)[0]
            raise ValueError(
                f"{len(shared)} patients would be in training and validation, e.g. {patient} (see patient_id in "
                f"{metadata.file}): choose another split, or leave these recordings out"
            )
        copied = np.isin(metadata.patients[train], metadata.patients[valid])
        if copied.any():
            print(
                f"{copied.sum()} recordings do not train: they, or others of their patients, have the same signals as "
                f"recordings that validate"
            )
            train = train[~copied]
        if not len(train) or not len(valid):
            raise ValueError(
                f"the split leaves {len(train)} recordings for training and {len(valid)} for validation: "
                f"{self._why_empty(metadata, copied.any())}"
            )
        return train, valid

    def _validates(self, targets, sources, metadata, seed) -> np.ndarray:
        """(R,) bool, the recordings that validate."""
        if self.by == "hold_out":
            valid = np.array([source == self.value or source.startswith(f"{self.value}/") for source in sources], bool)
            if not valid.any():
                raise ValueError(f"no recording lies in the folder {self.value!r}; there are: {sorted(set(sources))}")
            return valid
        if self.by == "fold":
            fold = _highest_fold(metadata) if self.value is None else self.value
            valid = metadata.folds == fold
            if not valid.any():
                raise ValueError(_no_such_fold(f"--valid_fold {fold}", metadata))
            return valid
        if self.by == "cv":
            proportions, part = np.full(self.n_folds, 1 / self.n_folds), self.value - 1
        else:
            proportions, part = np.array([1 - self.value, self.value]), 1
        return stratified_by_patient(targets, metadata.patients, proportions, seed) == part

    def _why_empty(self, metadata: Metadata, copied: bool) -> str:
        """Why a side has no recordings, and what to do."""
        n, patients = len(metadata), np.unique(metadata.patients)
        if n == 1:
            return "there is only one recording; give more"
        if len(patients) == 1:
            same_id = len(np.unique(metadata.patient_ids)) == 1
            cause = (
                f"patient_id {str(patients[0])!r} in {metadata.file}"
                if same_id
                else "their signals are identical or linked"
            )
            return f"all {n} are of one patient ({cause}), who is never divided; add recordings of other patients"
        if copied:
            return "all that would train have the same signals as those that validate; choose another split"
        if self.by == "hold_out":
            return f"all lie in {self.value!r}, the folder held out; add other sources, or split with --valid_split"
        if self.by == "fold":
            return f"all have the same strat_fold in {metadata.file}; split with --valid_split or --fold"
        if self.by == "cv":
            return f"{len(patients)} patients do not fill {self.n_folds} folds; give a smaller --n_folds"
        return (
            f"{len(patients)} patients cannot be divided with --valid_split {self.value:g}; "
            f"give one nearer to 0.5, or more patients"
        )


def _check_fold(flag: str, fold: int | None) -> None:
    if fold is not None and fold < 0:
        raise ValueError(f"{flag} {fold} is negative: folds of the metadata are 0 or more")


def _highest_fold(metadata: Metadata) -> int:
    if metadata.file is None:
        raise ValueError("--split fold needs --metadata FILE.csv with a column strat_fold")
    if "strat_fold" not in metadata.columns:
        raise ValueError(
            f"--split fold needs a column strat_fold, which {metadata.file} does not have; its columns are: "
            f"{', '.join(metadata.columns)}"
        )
    if (metadata.folds == NO_FOLD).all():
        raise ValueError(
            f"--split fold: {metadata.file} has a column strat_fold, but it is empty for all {metadata.found.sum()} "
            f"recordings that have a row"
        )
    return int(metadata.folds.max())


def _no_such_fold(flag: str, metadata: Metadata) -> str:
    if metadata.file is None:
        return f"{flag} needs --metadata FILE.csv with a column strat_fold"
    if "strat_fold" not in metadata.columns:
        columns = ", ".join(metadata.columns)
        return f"{flag} needs a column strat_fold, which {metadata.file} does not have; it has: {columns}"
    folds = sorted(set(metadata.folds[metadata.folds != NO_FOLD].tolist()))
    return f"{flag}: {metadata.file} names no recording of this fold; there are: {folds}"


def take_out_fold(
    fold: int | None, metadata: Metadata, train: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep a fold of the metadata, and all other recordings of its patients, out of training and validation.

    Args:
        fold: a strat_fold, or None: nothing is kept out.
        metadata: of R recordings.
        train, valid: rows.

    Returns:
        rows that train, that validate, and that are of the fold.

    Raises:
        ValueError: there is no such fold, or it leaves nothing to train on, or takes all that validated; it says why.
    """
    if fold is None:
        return train, valid, np.zeros(0, int)
    test = np.flatnonzero(metadata.folds == fold)
    if not len(test):
        raise ValueError(_no_such_fold(f"--test_fold {fold}", metadata))
    of_its_patients = np.isin(metadata.patients, metadata.patients[test])
    had_valid = len(valid) > 0  # with --valid_split 0 nothing validates
    train = train[~of_its_patients[train]]
    valid = valid[~of_its_patients[valid]]
    if not len(train) or (had_valid and not len(valid)):
        raise ValueError(
            f"--test_fold {fold} leaves {len(train)} recordings for training and {len(valid)} for validation: choose "
            f"another split"
        )
    return train, valid, test


def stratified_by_patient(y: np.ndarray, patients: np.ndarray, proportions: np.ndarray, seed: int) -> np.ndarray:
    """Deal patients into parts so that each part holds its share of every class.

    Greedy iterative stratification (Sechidis et al., ECML 2011) on patients: the class with the fewest recordings
    left is dealt first, each of its patients to the part that still lacks most of that class.

    Args:
        y: (R, C) 0/1 labels.
        patients: (R,) any.
        proportions: (P,) shares of the parts, which sum up to 1.
        seed: decides the order of the patients.

    Returns:
        (R,) int, the part of each recording.
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


def share_of(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of some recordings, at least one, drawn by seed; a smaller share is part of a larger one.

    Args:
        rows: of the recordings.
        share: above 0, at most 1; a ValueError otherwise.
        seed: decides which.

    Returns:
        rows, sorted.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} of the recordings is not within 0 and 1")
    return np.sort(np.random.default_rng(seed).permutation(rows)[: max(1, round(share * len(rows)))])
