"""Forests: the same answers as scikit-learn's, beside a network, in a run folder, taken over, and damaged."""

import copy
from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

import driver
import train
from data.measures import N_NUMBERS, recording_numbers
from data.records import find_records, read_record
from engine import forest as growing
from engine.inference import load_predictor
from engine.run_folder import RunError, RunFolder
from engine.trained_run import load_run
from models import build_model
from models.forest import SURE, Forest

FLAGS = ("--epochs", "1", "--batch_size", "8", "--no-plots")
GROW = Namespace(forest=20, seed=3, lead_subsets=0.0, sample_freq=100.0)


def dataset(n=400, n_classes=3, seed=0):
    """Numbers (n, N_NUMBERS) of which the first two decide on class 0, the third alone on class 2; class 1 is rare."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, N_NUMBERS)).astype(np.float32)
    targets = np.zeros((n, n_classes + 1), np.float32)  # and an auxiliary code
    targets[:, 0] = numbers[:, 0] + numbers[:, 1] > 0
    targets[:3, 1] = 1
    targets[:, 2] = numbers[:, 2] > 1
    return SimpleNamespace(numbers=numbers, targets=targets, mask=np.ones_like(targets))


@pytest.fixture(scope="module")
def grown():
    return growing.grow(dataset(), np.arange(400), 3, GROW)


@pytest.mark.parametrize("kind", [ExtraTreesClassifier, RandomForestClassifier])
def test_the_answers_are_those_of_scikit_learn(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 12)).astype(np.float32)
    target = x[:, 3] + x[:, 5] > 0.5
    theirs = kind(25, min_samples_leaf=2, random_state=1).fit(x, target)
    ours = growing._as_forest([tree.tree_ for tree in theirs.estimators_], np.array([1]), 3, np.zeros(12, np.float32))
    ours.check()
    for asked in (x, rng.normal(size=(300, 12)).astype(np.float32)):
        expected = theirs.predict_proba(asked)[:, 1].clip(SURE, 1 - SURE)
        found = ours(torch.from_numpy(asked))
        np.testing.assert_allclose(found[:, 1], expected, atol=1e-6)
        assert torch.isnan(found[:, [0, 2]]).all()


def test_a_forest_learns_what_decides(grown):
    fresh = dataset(seed=1)
    answers = grown(torch.from_numpy(fresh.numbers))
    assert torch.isnan(answers[:, 1]).all()  # three recordings have it: too few
    for column, least in ((0, 0.7), (2, 0.8)):
        has = fresh.targets[:, column] > 0
        ranks = answers[:, column].numpy().argsort().argsort()
        auroc = (ranks[has].sum() - has.sum() * (has.sum() - 1) / 2) / (has.sum() * (~has).sum())
        assert auroc > least


def test_labels_that_are_unknown_teach_nothing():
    data = dataset()
    data.mask[:, 2] = data.numbers[:, 2] < 1  # its positives are all unknown
    forest = growing.grow(data, np.arange(400), 3, GROW)
    assert torch.isnan(forest(torch.from_numpy(data.numbers))[:, 2]).all()


def test_no_more_is_measured_than_a_forest_grows_on(monkeypatch):
    measured, every = [], dataset()
    monkeypatch.setattr(growing, "with_numbers", lambda data, rows, freq: (measured.append(rows.tolist()), every)[1])
    split = SimpleNamespace(train=np.arange(300), valid=np.arange(300, 350), test=np.arange(350, 400))
    for most in (300, 100):
        monkeypatch.setattr(growing, "MAX_RECORDINGS", most)
        _, forest = growing.forest_of(GROW, None, every, split, range(3))
        rows = measured.pop()
        assert len(rows) == most + 100 and set(rows[:most]) <= set(range(300)) and rows[most:] == [*range(300, 400)]
        same = growing.grow(every, np.array(rows[:most]), 3, GROW)
        assert all(torch.equal(one, other) for one, other in zip(forest.buffers(), same.buffers()))
    assert rows[:most] == sorted(set(rows[:most])) != list(range(100))  # drawn, each once


def test_without_enough_positives_there_is_no_forest(capsys):
    assert growing.grow(dataset(), np.arange(3), 3, GROW) is None
    assert "20 trees for each of 0 classes" in capsys.readouterr().out


def test_what_is_unknown_counts_as_typical_and_nothing_known_is_no_answer(grown):
    numbers = dataset(seed=2).numbers[:4]
    some = numbers.copy()
    some[:, 2:] = np.nan
    filled = np.where(np.isnan(some), grown.typical.numpy(), some)
    assert torch.equal(grown(torch.from_numpy(some))[:, 0], grown(torch.from_numpy(filled))[:, 0])
    assert torch.isnan(grown(torch.full((2, N_NUMBERS), torch.nan))).all()
    assert grown(torch.zeros(0, N_NUMBERS)).shape == (0, 3)


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_answers_are_joined_by_their_logits(grown, share):
    network = torch.tensor([[0.5, 0.9, 0.0, 1.0]], dtype=torch.float64)
    forest = torch.tensor([[0.5, torch.nan, 0.5, 0.001]], dtype=torch.float64)
    both = copy.copy(grown)
    both.forest_share = share
    joined = both.join(network, forest)
    assert joined[0, 0] == pytest.approx(0.5) and joined[0, 1] == 0.9
    assert 0 < joined[0, 2] < 0.01
    assert torch.logit(joined[0, 3]).item() == pytest.approx(
        share * np.log(1 / 999) + (1 - share) * np.log(1e6), abs=1e-3
    )


@pytest.fixture(scope="module")
def run(sample, tmp_path_factory):
    """A run with a forest, trained on some of the shipped recordings."""
    folder = tmp_path_factory.mktemp("forest") / "run"
    train.main(["--input_folder", str(sample), "--folder", str(folder), "--forest", "5", *FLAGS])
    return RunFolder(folder)


def test_the_predictor_joins_network_and_forest(run, sample):
    predictor = load_predictor(run.path)
    (model,) = predictor.models
    record = find_records(sample)[7]
    signal, covariates = predictor.read(*read_record(record))
    alone = predictor.without_forests().predict([signal], covariates[None])
    numbers = recording_numbers([signal], 100.0, covariates[None])
    forest = model.forest(torch.from_numpy(numbers))
    expected = model.forest.join(torch.from_numpy(alone), forest)
    np.testing.assert_allclose(predictor.predict([signal], covariates[None]), expected, atol=1e-5)
    assert np.abs(expected.numpy() - alone).max() > 0.01
    assert run.read_config()["members"][0]["model"]["n_trees"] == 5


def test_a_batch_of_which_nothing_can_be_read_is_skipped(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.hea").write_text("broken 12 500 5000\n")
    assert driver.main([str(run.path), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "0 recordings classified" in capsys.readouterr().out
    assert "broken" in (tmp_path / "out" / "skipped_records.csv").read_text()


def test_validation_and_driver_say_the_same(run, sample, tmp_path):
    assert driver.main([str(run.path), str(sample / "georgia"), str(tmp_path)]) == 0
    rows = {line.split(",")[0]: line for line in (run / "valid_predictions.csv").read_text().splitlines()}
    names = [name for name in rows if name.startswith("georgia/")]
    assert names
    for name in names:
        expected = [float(value) for value in rows[name].split(",")[2:]]
        answer = (tmp_path / f"{name.split('/')[1]}.csv").read_text().splitlines()
        np.testing.assert_allclose([float(value) for value in answer[3].split(",")], expected, atol=1e-3)


def test_fine_tuning_takes_the_trees_of_shared_classes_over(run, sample, tmp_path):
    (tmp_path / "own.csv").write_text("code,abbreviation,equivalents\n164865005,MI,\n426783006,NSR,\n")
    flags = ["--input_folder", str(sample), "--init", str(run.path), "--classes", str(tmp_path / "own.csv")]
    still = ["--freeze_encoder", "--lr", "1e-30", "--valid_split", "0"]
    train.main([*flags, "--folder", str(tmp_path / "new"), *still, *FLAGS])
    old, new = load_predictor(run.path), load_predictor(tmp_path / "new")
    signal, covariates = old.read(*read_record(find_records(sample)[3]))
    was, now = (p.predict([signal], covariates[None])[0] for p in (old, new))
    assert now[1] == pytest.approx(was[old.class_set.column("NSR")], abs=1e-6)
    assert new.models[0].forest.columns[0] == len(new.models[0].forest.roots)  # no trees for what is new


@pytest.mark.parametrize("name, value", [("roots", 10**6), ("steps", -1), ("steps", 30000), ("columns", 99)])
def test_trees_that_lead_nowhere_are_refused(run, tmp_path, name, value):
    damaged = RunFolder(tmp_path)
    damaged.write_json("config.json", run.read_config())
    state = run.load("model.pth")["members"][0]
    state[f"forest.{name}"].view(-1)[0] = value
    damaged.save("model.pth", {"members": [state]})
    with pytest.raises(RunError, match=f"model.pth is damaged: forest.{name} leads beyond"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_numbers": 9},
        {"n_trees": 10**5},
        {"n_nodes": 1},
        {"n_nodes": -1},
        {"n_nodes": 2**40},
        {"tree_depth": 65},
        {"forest_share": 1.5},
    ],
)
def test_impossible_sizes_are_refused(run, tmp_path, sizes):
    config = run.read_config()
    config["members"][0]["model"] |= sizes
    damaged = RunFolder(tmp_path)
    damaged.write_json("config.json", config)
    damaged.save("model.pth", run.load("model.pth"))
    with pytest.raises(RunError, match=r"config\.json"):
        load_run(tmp_path)


@pytest.mark.parametrize("flags", [("--leads", "I", "II"), ("--no-covariates",), ("--forest", "-1")])
def test_flags_that_contradict_are_refused(sample, tmp_path, flags, capsys):
    with pytest.raises(SystemExit):
        train.main(["--input_folder", str(sample), "--folder", str(tmp_path / "r"), "--forest", "5", *flags])
    assert "--forest" in capsys.readouterr().err


def test_a_model_is_built_from_the_sizes_of_its_forest(grown):
    config = {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": 3}
    model = build_model(config | grown.sizes)
    model.forest.load_state_dict(grown.state_dict())
    assert model.forest_sizes == grown.sizes and build_model(config).forest is None
    assert isinstance(model.forest, Forest)
    old = {name: size for name, size in grown.sizes.items() if name != "forest_share"}  # of runs before it was stored
    assert build_model(config | old).forest.forest_share == 0.5 and grown.forest_share == 0.6
