"""Splits: no patient on both sides, classes in their shares, clear errors."""

import numpy as np
import pytest

from data.earlier_split import rows_named, rows_with_hash, split_like
from data.metadata import NO_FOLD, Metadata
from data.splits import SPLIT_FLAGS, Split, stratified_by_patient, take_out_fold

FLAGS = {"split": "patient", "valid_split": 0.2, "valid_fold": None, "fold": None, "n_folds": 5, "hold_out": None}


def table(n=600, n_patients=400, seed=0):
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n_patients, n).astype(str)
    y = (rng.random((n, 6)) < [0.5, 0.2, 0.1, 0.05, 0.03, 0.01]).astype(np.float32)
    return y, patients


def metadata_of(patient_ids, folds=None, patients=None, columns=("record", "patient_id", "strat_fold")):
    patient_ids = np.array(list(patient_ids), str)
    n = len(patient_ids)
    return Metadata(
        patients=patient_ids if patients is None else np.array(list(patients), str),
        folds=np.full(n, NO_FOLD) if folds is None else np.array(folds),
        axis_unknown=np.zeros(n, bool),
        patient_ids=patient_ids,
        found=np.ones(n, bool),
        file="meta.csv",
        columns=columns,
    )


def rows(split, metadata, y=None, sources=None, seed=1):
    n = len(metadata)
    return split.rows(table(n)[0] if y is None else y, sources or [""] * n, metadata, seed)


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_patients_together_and_classes_in_proportion(seed):
    y, patients = table(seed=seed)
    part = stratified_by_patient(y, patients, np.full(5, 0.2), seed)
    assert set(part) == set(range(5))
    for patient in set(patients):
        assert len(set(part[patients == patient])) == 1
    for p in range(5):  # no fold is more than two recordings away from its fifth of any class
        assert np.abs(y[part == p].sum(0) - y.sum(0) / 5).max() <= 2
    assert (stratified_by_patient(y, patients, np.full(5, 0.2), seed) == part).all()


def test_folds_cover_every_recording_once():
    y, patients = table()
    meta = metadata_of(patients)
    seen = np.concatenate([rows(Split("cv", k, 5), meta, y)[1] for k in range(1, 6)])
    assert sorted(seen) == list(range(len(y)))


def test_a_share_of_the_patients_validates():
    y, patients = table()
    train, valid = rows(Split("patient", 0.2), metadata_of(patients), y)
    assert not set(patients[train]) & set(patients[valid]) and len(train) + len(valid) == 600
    assert len(valid) == pytest.approx(120, abs=3)


def test_hold_out_takes_the_hospital_and_its_sub_folders_only():
    sources = ["a", "a/x", "ab", "b", "a", "b"]
    train, valid = rows(Split("hold_out", "a"), metadata_of(list("pqrstu")), sources=sources)
    assert valid.tolist() == [0, 1, 4] and train.tolist() == [2, 3, 5]
    with pytest.raises(ValueError, match="no recording lies in the folder 'c'; there are"):
        rows(Split("hold_out", "c"), metadata_of(list("pqrstu")), sources=sources)


def test_a_patient_on_both_sides_is_an_error():
    meta = metadata_of(["p", "q", "p", "r"], folds=[1, 1, 2, 1])
    with pytest.raises(ValueError, match="1 patients"):
        rows(Split("fold", 2), meta)


def test_a_fold_table_decides_and_its_highest_fold_validates_by_default():
    meta = metadata_of(list("pqrstu"), folds=[1, 2, 3, 3, 1, 2])
    assert rows(Split("fold", None), meta)[1].tolist() == [2, 3]
    assert rows(Split("fold", 1), meta)[1].tolist() == [0, 4]
    with pytest.raises(ValueError, match=r"--valid_fold 7: meta.csv names no recording of this fold; .*\[1, 2, 3\]"):
        rows(Split("fold", 7), meta)


def test_folds_may_begin_at_0_and_recordings_without_one_are_in_none():
    meta = metadata_of(list("pqrstu"), folds=[0, 1, 2, NO_FOLD, 0, NO_FOLD])
    assert rows(Split("fold", 0), meta)[1].tolist() == [0, 4]
    train, valid = rows(Split("fold", None), meta)
    train, valid, test = take_out_fold(0, meta, train, valid)
    assert (train.tolist(), valid.tolist(), test.tolist()) == ([1, 3, 5], [2], [0, 4])
    from_1 = metadata_of(list("pqr"), folds=[1, 2, NO_FOLD])
    with pytest.raises(ValueError, match=r"--test_fold 0: meta.csv names no recording of this fold; .*\[1, 2\]"):
        take_out_fold(0, from_1, np.array([0, 2]), np.array([1]))


def test_a_fold_is_kept_out_where_nothing_validates():
    meta = metadata_of(list("pqrs"), folds=[1, 2, 2, 3])
    train, valid, test = take_out_fold(3, meta, *rows(Split("patient", 0), meta))
    assert (train.tolist(), valid.tolist(), test.tolist()) == ([0, 1, 2], [], [3])
    with pytest.raises(ValueError, match="--test_fold 3 leaves 3 recordings for training and 0 for validation"):
        take_out_fold(3, meta, np.arange(3), np.array([3]))
    with pytest.raises(ValueError, match="--test_fold 3 leaves 0 recordings for training and 0 for validation"):
        take_out_fold(3, meta, np.array([3]), np.zeros(0, int))


@pytest.mark.parametrize("value, flag", [(None, "--split fold"), (3, "--valid_fold 3")])
def test_a_missing_fold_is_told_as_it_is(value, flag):
    without = metadata_of(list("pqr"), columns=("record", "patient_id"))
    with pytest.raises(ValueError, match=f"{flag} needs a column strat_fold, which meta.csv does not have"):
        rows(Split("fold", value), without)
    empty = metadata_of(list("pqr"))
    with pytest.raises(
        ValueError, match=f"{flag}: meta.csv (has a column strat_fold, but it is empty|names no record)"
    ):
        rows(Split("fold", value), empty)


@pytest.mark.parametrize(
    "typed, by, value",
    [
        ({}, "patient", 0.2),
        ({"valid_split": 0.3}, "patient", 0.3),
        ({"split": "patient", "valid_split": 0.3}, "patient", 0.3),
        ({"split": "patient", "fold": 2}, "cv", 2),
        ({"split": "patient", "hold_out": "a"}, "hold_out", "a"),
        ({"fold": 2, "n_folds": 3}, "cv", 2),
        ({"split": "fold"}, "fold", None),
        ({"split": "fold", "valid_fold": 8}, "fold", 8),
        ({"valid_fold": 8}, "fold", 8),
        ({"hold_out": "./a/x/"}, "hold_out", "a/x"),
    ],
)
def test_flags_become_a_split(typed, by, value):
    split = Split.from_flags(FLAGS | typed, typed)
    assert (split.by, split.value) == (by, value)
    assert split.n_folds == ((FLAGS | typed)["n_folds"] if by == "cv" else None)


@pytest.mark.parametrize(
    "typed, message",
    [
        ({"fold": 1, "valid_fold": 2}, "--fold 1 and --valid_fold 2 are different ways"),
        ({"fold": 1, "hold_out": "a"}, "--fold 1 and --hold_out a are different ways"),
        ({"valid_fold": 1, "hold_out": "a"}, "--valid_fold 1 and --hold_out a"),
        ({"valid_split": 0.1, "fold": 1}, "--fold 1 and --valid_split 0.1"),
        ({"valid_split": 0.2, "hold_out": "a"}, "--hold_out a and --valid_split 0.2"),  # its default, but typed
        ({"valid_split": 0.1, "valid_fold": 1}, "--valid_fold 1 and --valid_split 0.1"),
        ({"n_folds": 5}, "--n_folds 5 needs --fold"),
        ({"n_folds": 5, "hold_out": "a"}, "--n_folds 5 needs --fold"),
        ({"split": "fold", "fold": 1}, "--split fold .* contradicts --fold 1"),
        ({"split": "fold", "hold_out": "a"}, "--split fold .* contradicts --hold_out a"),
        ({"split": "fold", "valid_split": 0.1}, "--split fold .* contradicts --valid_split 0.1"),
        ({"split": "patient", "valid_fold": 1}, "--split patient contradicts --valid_fold 1"),
        ({"valid_split": 1.0}, "not between 0 and 1"),
        ({"valid_split": float("nan")}, "not between 0 and 1"),
        ({"valid_fold": -1}, "--valid_fold -1 is negative"),
        ({"test_fold": -1}, "--test_fold -1 is negative"),
        ({"valid_fold": 0, "test_fold": 0}, "--valid_fold and --test_fold are both 0"),
        ({"fold": 6}, "--fold 6 is not within 1 and --n_folds 5"),
        ({"fold": 0}, "--fold 0 is not within"),
        ({"fold": 1, "n_folds": 1}, "--n_folds 1: there must be 2 or more"),
        ({"hold_out": "./"}, "--hold_out names no folder"),
    ],
)
def test_contradictory_flags_are_refused(typed, message):
    with pytest.raises(ValueError, match=message):
        Split.from_flags(FLAGS | typed, typed)


def test_split_flags_are_those_that_a_split_is_made_of():
    assert Split.from_flags({name: FLAGS[name] for name in SPLIT_FLAGS}).by == "patient"
    assert set(SPLIT_FLAGS) == set(FLAGS)


def test_what_is_not_typed_contradicts_nothing():
    """A resumed run has all its flags from its config."""
    assert Split.from_flags(FLAGS | {"fold": 2, "n_folds": 3}).by == "cv"
    assert Split.from_flags(FLAGS | {"split": "fold", "valid_fold": 8}).by == "fold"


@pytest.mark.parametrize(
    "split, metadata, reason",
    [
        (Split(), metadata_of(["p"]), "there is only one recording"),
        (Split(), metadata_of(["p"] * 12), "all 12 are of one patient .patient_id 'p' in meta.csv."),
        (Split(), metadata_of("abc", patients="aaa"), "all 3 are of one patient .their signals are identical"),
        (Split("cv", 5, 5), metadata_of("abc"), "3 patients do not fill 5 folds"),
        (Split("patient", 0.001), metadata_of("abcd"), "4 patients cannot be divided with --valid_split 0.001"),
        (Split("fold", 1), metadata_of("abc", folds=[1, 1, 1]), "all have the same strat_fold in meta.csv"),
        (Split("hold_out", "a"), metadata_of("abc"), "all lie in 'a', the folder held out"),
    ],
)
def test_an_empty_side_says_why(split, metadata, reason):
    n = len(metadata)
    with pytest.raises(ValueError, match=f"leaves .* for validation: {reason}"):
        rows(split, metadata, np.ones((n, 1), np.float32), ["a"] * n)


def test_copies_of_what_validates_do_not_train(capsys):
    """Recording 1 is a copy of 3, and 0 is of the same patient as 1: neither may train when 3 validates."""
    meta = metadata_of("ppqrs", folds=[1, 1, 1, 2, 1], patients="ppqps")
    train, valid = rows(Split("fold", 2), meta)
    assert (train.tolist(), valid.tolist()) == ([2, 4], [3])
    assert (
        "2 recordings do not train: they, or others of their patients, have the same signals" in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="all that would train have the same signals as those that validate"):
        rows(Split("hold_out", "b"), metadata_of("pqrs", patients="pqpq"), sources=["a", "a", "b", "b"])


def test_split_like_moves_recordings_and_their_patients():
    patients = np.array(list("abcdde"))
    was_train, was_valid = np.array([1, 0, 0, 0, 0, 0], bool), np.array([0, 1, 0, 1, 0, 0], bool)
    train, valid = split_like(was_train, was_valid, patients, np.array([1, 2, 3, 4]), np.array([0, 5]))
    assert (train.tolist(), valid.tolist()) == ([0, 2], [1, 3, 4, 5])
    with pytest.raises(ValueError, match="patient d .*both sides.*--metadata"):
        split_like(np.array([0, 0, 0, 0, 1, 0], bool), was_valid, patients, np.array([0]), np.array([1]))
    everything = np.ones(6, bool)
    with pytest.raises(
        ValueError, match="leaves 6 recordings for training and 0 for validation: all, .*trained in pre-"
    ):
        split_like(everything, ~everything, patients, np.arange(4), np.arange(4, 6))


def test_recordings_are_found_by_content():
    hashes, constant = ["aa", "bb", "cc", "bb"], np.zeros(4, bool)
    assert rows_with_hash(hashes, constant, ["bb", "dd"]).tolist() == [False, True, False, True]
    assert not rows_with_hash(hashes, constant, []).any()
    constant[3] = True  # a signal without a patient, which others may have as well
    assert rows_with_hash(hashes, constant, ["bb", "dd"]).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    "names, ids",
    [
        (["hospital/R00", "hospital/R01", "other/X"], ["R00", "hospital/R01"]),  # a level above
        (["R00", "R01", "X"], ["hospital/R00", "deep/hospital/R01"]),  # a level below
        (["a/R00", "a/R01", "b/R00"], ["a/R00", "a/R01"]),  # the same level
        (["in/a/R00", "in/a/R01", "in/b/R00"], ["a/R00", "a/R01"]),
    ],
)
def test_recordings_are_found_by_name_at_any_level(names, ids):
    assert rows_named(names, ids).tolist() == [True, True, False]


def test_names_that_fit_several_recordings_or_none_are_errors():
    with pytest.raises(ValueError, match="'R00' may be a/R00 or b/R00"):
        rows_named(["a/R00", "b/R00"], ["R00"])
    with pytest.raises(
        ValueError, match="none of its 2 recordings is found .* e.g. 'c/R07', the data have e.g. 'a/R00'"
    ):
        rows_named(["a/R00", "b/R00"], ["c/R07", "c/R00"])
    assert not rows_named(["a/R00"], []).any()
