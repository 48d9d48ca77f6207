"""Splits: no patient on both sides, classes in their shares, clear errors."""

import numpy as np
import pytest

from data.metadata import read_metadata, stratified_by_patient, train_valid_split


def table(n=600, n_patients=400, seed=0):
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, n_patients, n).astype(str)
    y = (rng.random((n, 6)) < [0.5, 0.2, 0.1, 0.05, 0.03, 0.01]).astype(np.float32)
    return y, patients


def metadata_of(patients, folds=None):
    names = [f"s/R{i}" for i in range(len(patients))]
    meta = read_metadata(None, names)
    return type(meta)(patients, np.zeros(len(patients), int) if folds is None else folds, np.zeros(len(patients), bool))


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
    meta, sources = metadata_of(patients), ["s"] * len(y)
    seen = np.concatenate([train_valid_split(y, sources, meta, 0.2, 1, fold=k, n_folds=5)[1] for k in range(1, 6)])
    assert sorted(seen) == list(range(len(y)))


def test_hold_out_takes_the_hospital_and_its_sub_folders_only():
    y, patients = table(6, 1000)
    sources = ["a", "a/x", "ab", "b", "a", "b"]
    train, valid = train_valid_split(y, sources, metadata_of(patients), 0.2, 1, hold_out="a")
    assert valid.tolist() == [0, 1, 4] and train.tolist() == [2, 3, 5]


def test_a_patient_on_both_sides_is_an_error():
    y, _ = table(4)
    meta = metadata_of(np.array(["p", "q", "p", "r"]), folds=np.array([1, 1, 2, 1]))
    with pytest.raises(ValueError, match="1 patients"):
        train_valid_split(y, [""] * 4, meta, 0.2, 1, valid_fold=2)


def test_a_fold_table_decides_and_its_highest_fold_validates_by_default():
    y, _ = table(6)
    meta = metadata_of(np.array(list("pqrstu")), folds=np.array([1, 2, 3, 3, 1, 2]))
    assert train_valid_split(y, [""] * 6, meta, 0.2, 1, split="fold")[1].tolist() == [2, 3]
    assert train_valid_split(y, [""] * 6, meta, 0.2, 1, split="fold", valid_fold=1)[1].tolist() == [0, 4]
    with pytest.raises(ValueError, match="strat_fold"):
        train_valid_split(y, [""] * 6, metadata_of(np.array(list("pqrstu"))), 0.2, 1, split="fold")


def test_metadata_is_matched_by_name_and_the_unknown_stay_alone(tmp_path):
    file = tmp_path / "meta.csv"
    file.write_text("ecg_id,patient_id,strat_fold,heart_axis\n7,p1,3,\n8,p1,4,LAD\n")
    meta = read_metadata(file, ["x/HR00007", "HR00008", "x/E00001"])
    assert meta.patients.tolist() == ["p1", "p1", "x/E00001"] and meta.folds.tolist() == [3, 4, 0]
    assert meta.axis_unknown.tolist() == [True, False, False]
    file.write_text("id\n1\n")
    with pytest.raises(ValueError, match="meta.csv"):
        read_metadata(file, ["a"])
