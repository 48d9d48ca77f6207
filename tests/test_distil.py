"""Distillation: a student's targets, what it takes over from its teacher, and training on all recordings."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import history
from test_end_to_end import TINY

from data.dataset import Dataset, class_frequency
from data.labels import load_class_set
from engine.distil import Teacher, read_teacher
from engine.inference import load_predictor
from engine.run_folder import RunError
from engine.trained_run import load_run


class Names:
    """As much of a SignalCache as targets need."""

    names = ["ptb-xl/A", "ptb-xl/B", "ptb-xl/C"]


def dataset():
    targets = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float32)  # two classes and an auxiliary code
    mask = np.array([[1, 1, 1], [0, 1, 1], [1, 1, 1]], np.float32)
    return Dataset(Names(), targets > 0, targets, mask, np.zeros((3, 4), np.float32), None)


def test_targets_lie_between_labels_and_probabilities():
    teacher = Teacher("mdl", {}, None, {"A": np.array([0.5, 0.25]), "C": np.array([0.9, 0.9]), "X": np.ones(2)})
    data = dataset()
    soft = teacher.soften(data, np.array([0, 1]), 0.6)
    np.testing.assert_allclose(soft.targets, [[0.7, 0.15, 1], [0, 1, 0], [0, 0, 1]], atol=1e-6)  # C does not train
    assert (data.targets == dataset().targets).all() and (soft.mask == data.mask).all()


def test_a_teacher_that_knows_no_training_recording_is_refused():
    teacher = Teacher("mdl", {}, None, {"C": np.ones(2)})
    with pytest.raises(RunError, match="mdl: its valid_predictions.csv holds none of the training recordings"):
        teacher.soften(dataset(), np.array([0, 1]), 0.6)


def test_frequency_counts_a_class_among_the_recordings_where_it_is_known():
    np.testing.assert_allclose(class_frequency(dataset(), np.array([0, 1, 2])), [1 / 2, 1 / 3, 2 / 3])


@pytest.fixture(scope="module")
def teacher_run(sample, tmp_path_factory, run_script):
    folder = tmp_path_factory.mktemp("distil")
    flags = ("--input_folder", sample, "--cache", folder / "cache", "--no-plots", *TINY)
    run_script("train.py", *flags, "--folder", "teacher", cwd=folder)
    config = json.loads((folder / "teacher" / "config.json").read_text())
    config["decision"]["odds"][3] = 0.25
    (folder / "teacher" / "config.json").write_text(json.dumps(config))
    return folder, flags


def test_a_student_trains_on_all_recordings_and_decides_as_its_teacher(teacher_run, run_script):
    folder, flags = teacher_run
    student = ("--folder", "student", "--teacher", "teacher", "--valid_split", "0", "--lead_subsets", "0.4")
    done = run_script("train.py", *flags, *student, cwd=folder)
    with open(folder / "teacher" / "valid_predictions.csv", newline="") as lines:
        n_taught = len(list(csv.DictReader(lines)))
    n_records = len((folder / "student" / "train_ids.txt").read_text().splitlines())
    assert f"{n_taught} of {n_records} training recordings have a teacher's probabilities" in done.stdout
    assert not (folder / "student" / "valid_ids.txt").read_text()
    assert not (folder / "student" / "valid_predictions.csv").exists()
    with pytest.raises(RunError, match="valid_predictions.csv is missing: the run trained on all recordings"):
        read_teacher(folder / "student", load_class_set("cinc2020"))
    taught, config = load_predictor(folder / "student"), load_run(folder / "student").config
    assert taught.decision["odds"][3] == 0.25 and taught.models[0].lead_flags
    np.testing.assert_array_equal(taught.thresholds, load_predictor(folder / "teacher").thresholds)
    assert config["training"]["teacher"] == "teacher" and config["data"]["n_valid"] == 0
    first, last = (
        torch.load(folder / "student" / f"{name}.pth", weights_only=True) for name in ("model", "final_model")
    )
    for a, b in zip(first["members"][0].values(), last["members"][0].values(), strict=True):
        assert torch.equal(a, b)  # without validation the last epoch is kept
    assert all(math.isnan(float(row["auroc"])) for row in history(folder / "student" / "history.csv"))


def test_a_teacher_of_other_classes_is_refused(teacher_run):
    folder, _ = teacher_run
    with pytest.raises(RunError, match="answers other classes"):
        read_teacher(folder / "teacher", load_class_set("cpsc2018"))
