"""How far a run's windows overlap: what its config.json says holds for every way in, against a slow plain loop."""

import csv
import json
import os
import shutil
import signal as signals_of_processes
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, fake_ecg, write_record

import driver
import train
from data.inputs import read_input
from data.labels import load_class_set
from data.preprocess import SignalConfig, to_millivolts
from data.records import find_records, read_record
from engine.ensemble import join
from engine.explain import attribute, mean_logits
from engine.inference import load_predictor
from engine.initial_run import InitialRun
from engine.run_folder import RunError, RunFolder
from engine.trained_run import load_run, make_config
from engine.windows import OVERLAP, Windows
from models import build_model
from models.folding import fold_norms
from run_12ECG_classifier import load_12ECG_model, run_12ECG_classifier

CLASSES = load_class_set("cinc2020")
SIZES = {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": len(CLASSES)}
TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --batch_size 8 --no-plots".split())
LENGTHS = (1, 100, 249, 250, 251, 375, 376, 500, 501, 999, 1000, 1001)  # samples of recordings


def plain_windows(x, seq_length, overlap):
    """Windows (W, n_leads, L) of x (n_leads, T) and the samples in each: as few as share `overlap`, spread evenly."""
    n = x.shape[1]
    if n < seq_length:
        return np.pad(x, ((0, 0), (0, seq_length - n)))[None], [n]
    count = 1
    while count * seq_length - (count - 1) * overlap < n:
        count += 1
    starts = [0] + [i * (n - seq_length) // (count - 1) for i in range(1, count)]
    assert starts[-1] == n - seq_length  # the last ends with the recording
    return np.stack([x[:, start : start + seq_length] for start in starts]), [seq_length] * count


def plain_logits(model, signal, covariates, seq_length, overlap):
    """Logits (W, C) of a recording's windows. `model` is folded."""
    x, lengths = plain_windows(to_millivolts(signal), seq_length, overlap)
    told = torch.from_numpy(covariates).expand(len(x), -1)
    with torch.inference_mode():
        return model(torch.from_numpy(x), torch.tensor(lengths), told)


def plain_mean(models, signal, covariates, seq_length, overlap):
    """Probabilities (C,) float32, the mean over windows and models."""
    total = 0
    for model in models:
        scores = torch.sigmoid(plain_logits(model, signal, covariates, seq_length, overlap)).numpy()
        total = total + sum(row.astype(float) for row in scores) / len(scores)
    return (total / len(models)).astype(np.float32)


def make_run(folder, overlap=None, seed=0):
    """A run folder with an untrained network whose answers vary; without `overlap` as earlier versions wrote it."""
    torch.manual_seed(seed)
    model = build_model(SIZES)
    torch.nn.init.normal_(model.head.linear.weight)
    member = {"model": SIZES, "seq_length": 250} | ({} if overlap is None else {"overlap": overlap})
    run = RunFolder(folder)
    run.create()
    rule = {"rule": "reward", "year": 2020, "confidence": 0.8, "odds": [1.0] * len(CLASSES)}
    run.write_json("config.json", make_config(SignalConfig(), CLASSES, rule, [member], {}, {"frequency": [0.1] * 24}))
    run.save("model.pth", {"members": [model.state_dict()]})
    return run


def folded(run):
    return fold_norms(load_run(run.path).models[0])


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 300, (12, n)).astype(np.int16) for n in LENGTHS]


@pytest.fixture(scope="module")
def covariates():
    return np.random.default_rng(1).normal(size=(len(LENGTHS), 23)).astype(np.float32)


@pytest.fixture
def one_thread():
    """Several threads may round otherwise within an operation than one in each of several batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_that_does_not_say_it_overlaps_by_half_to_the_last_bit(sample, one_thread):
    """The shipped ensemble; and one that says the same in words."""
    shipped = load_predictor(ROOT / "mdl" / "ensemble")
    assert "overlap" not in load_run(ROOT / "mdl" / "ensemble").config["members"][0]
    for record in find_records(sample)[17::60]:  # of 15.18 s, and others
        signal, covariates, _, _ = read_input(record, shipped.signal_config)
        expected = plain_mean(shipped.models, signal, covariates, 250, 125)
        np.testing.assert_array_equal(shipped.predict([signal], covariates[None])[0], expected)
        assert np.abs(plain_mean(shipped.models[:1], signal, covariates, 250, 0) - expected).max() > 1e-3


@pytest.mark.parametrize("overlap", [None, 0, 1, 125, 200])
def test_probabilities_are_the_mean_over_the_windows_that_the_run_says(overlap, signals, covariates, tmp_path):
    run = make_run(tmp_path, overlap)
    predictor = load_predictor(run.path)
    expected = [
        plain_mean(predictor.models, *recording, 250, 125 if overlap is None else overlap)
        for recording in zip(signals, covariates)
    ]
    np.testing.assert_allclose(predictor.predict(signals, covariates), expected, atol=1e-6)


def test_every_way_in_keeps_to_the_run(tmp_path):
    """driver.py, run_12ECG_classifier, features and explanations of a run whose windows do not overlap."""
    adc = fake_ecg(np.random.default_rng(0), seconds=7.77)
    write_record(tmp_path / "in", "R", adc)
    run = make_run(tmp_path / "run", overlap=0)
    predictor = load_predictor(run.path)
    signal, covariates, _, _ = read_input(tmp_path / "in" / "R", predictor.signal_config)
    assert signal.shape[1] == 777  # 4 windows; 6 if they overlapped by half
    expected = plain_mean(predictor.models, signal, covariates, 250, 0)

    driver.main([str(run.path), str(tmp_path / "in"), str(tmp_path / "out"), "--embeddings", str(tmp_path / "f.npz")])
    _, _, _, scores = csv.reader((tmp_path / "out" / "R.csv").read_text().splitlines())
    np.testing.assert_allclose(np.array(scores, float), expected, atol=1e-6)

    header = (tmp_path / "in" / "R.hea").read_text().splitlines()
    _, score, _ = run_12ECG_classifier(adc, header, load_12ECG_model(run.path))
    np.testing.assert_allclose(score, expected, atol=1e-6)

    x, _ = plain_windows(to_millivolts(signal), 250, 0)
    assert len(x) == 4
    with torch.inference_mode():
        pooled = predictor.models[0].encoder(torch.from_numpy(x))  # (W, D, T')
    features = torch.cat([pooled.mean(2), pooled.amax(2)], 1).mean(0)
    with np.load(tmp_path / "f.npz") as arrays:
        np.testing.assert_allclose(arrays["features"][0], features, atol=1e-5)

    logits = plain_logits(predictor.models[0], signal, covariates, 250, 0).mean(0)
    np.testing.assert_allclose(mean_logits(predictor, signal, covariates), logits, atol=1e-5)
    silent = plain_logits(predictor.models[0], 0 * signal, covariates, 250, 0).mean(0)
    shared_out = attribute(predictor, signal, covariates, column=3, n_steps=64).sum()
    assert shared_out == pytest.approx(float(logits[3] - silent[3]), rel=0.05, abs=0.05)


def test_a_run_inside_a_run_has_no_part_in_its_answers(signals, covariates, tmp_path):
    run = make_run(tmp_path / "run", overlap=0)
    make_run(tmp_path / "run" / "inside", seed=1)
    found = load_predictor(run.path).predict(signals[-1:], covariates[-1:])[0]
    np.testing.assert_allclose(found, plain_mean([folded(run)], signals[-1], covariates[-1], 250, 0), atol=1e-6)


def test_runs_that_overlap_differently_are_joined_and_each_reads_as_before(signals, covariates, tmp_path):
    runs = [
        make_run(tmp_path / "runs" / name, overlap, seed) for seed, (name, overlap) in enumerate(zip("ab", (None, 0)))
    ]
    for run in runs:
        rows = [
            {"record": str(i), "dx": code} | dict.fromkeys(CLASSES.codes, 0.1) for i, code in enumerate(CLASSES.codes)
        ]
        run.write_rows("valid_predictions.csv", rows)
        run.write_rows("history.csv", [{"epoch": 1}])
    join(tmp_path / "joined", [run.path for run in runs])
    with pytest.raises(RunError, match="config.json is there already: name another folder"):
        join(runs[0].path, [runs[1].path])
    expected = np.mean(
        [
            [plain_mean([folded(run)], *recording, 250, overlap) for recording in zip(signals, covariates)]
            for run, overlap in zip(runs, (125, 0))
        ],
        axis=0,
    )
    for folder in (tmp_path / "joined", tmp_path / "runs"):  # `load_predictor` joins a folder of runs, too
        predictor = load_predictor(folder)
        assert predictor.windows == [Windows(250, 125), Windows(250, 0)]
        np.testing.assert_allclose(predictor.predict(signals, covariates), expected, atol=1e-6)


@pytest.mark.parametrize("value", [-1, 250, 10**30, 1.5, 0.0, "0", True, None, [0]])
def test_other_values_are_refused_and_the_message_says_which_would_do(value, tmp_path):
    run = make_run(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["members"][0]["overlap"] = value
    run.write_json("config.json", config)
    with pytest.raises(RunError, match=r"config.json: ValueError: overlap is .*, not a whole number from 0 to 249$"):
        load_run(run.path)
    with pytest.raises(ValueError, match="overlap is "):
        make_config(SignalConfig(), CLASSES, config["decision"], config["members"], {}, {})


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """A run of one epoch, and the cache of its recordings."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ["--input_folder", str(few), "--cache", str(folder / "cache"), "--folder", str(folder / "run")]
    train.main([*flags, *TINY, "--epochs", "1", "--valid_split", "0.5"])
    return RunFolder(folder / "run")


def test_a_new_run_does_without_overlap_and_is_validated_so(trained, few):
    assert OVERLAP == 0
    config = trained.read_config()
    assert list(config["members"][0]) == ["model", "seq_length", "overlap"] and config["members"][0]["overlap"] == 0
    assert "overlap" not in config["training"]
    with open(trained / "valid_predictions.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) >= 10
    model = folded(trained)
    differences = []
    for row in rows:
        signal, covariates, _, _ = read_input(few / row["record"], SignalConfig())
        written = np.array([float(row[code]) for code in CLASSES.codes])
        np.testing.assert_allclose(written, plain_mean([model], signal, covariates, 250, 0), atol=1e-6)
        differences.append(np.abs(written - plain_mean([model], signal, covariates, 250, 125)).max())
    assert max(differences) > 1e-5


@pytest.mark.parametrize("overlap", [None, 200])
def test_a_run_that_goes_on_keeps_its_windows(overlap, trained, tmp_path, monkeypatch):
    """As one that an earlier version began."""
    shutil.copytree(trained.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    config = run.read_config()
    del config["members"][0]["overlap"]
    if overlap is not None:
        config["members"][0]["overlap"] = overlap
    run.write_json("config.json", config)
    asked = []

    def predict(models, windows, signals, covariates, device, numbers):
        asked.extend(windows)
        return np.full((len(signals), len(CLASSES)), 0.5, np.float32)

    monkeypatch.setattr("engine.validation.predict", predict)
    train.main(["--folder", str(run.path), "--resume", "--epochs", "2"])
    kept = Windows(250, 125 if overlap is None else overlap)
    assert asked == [kept] and load_run(run.path).windows == [kept]


def test_fine_tuning_keeps_the_windows_of_its_run(tmp_path):
    for overlap, kept in ((None, 125), (0, 0)):
        run = make_run(tmp_path / str(overlap), overlap)
        start = InitialRun(str(run.path), load_run(run.path), None)
        args = train.parse_args(["--init", str(run.path), "--folder", str(tmp_path / "new")])[0]
        assert train.windows_of(args, start, RunFolder(tmp_path / "new")) == Windows(250, kept)


def test_a_config_that_does_not_say_it_sanely_is_not_resumed(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    config = run.read_config()
    config["members"][0]["overlap"] = 250
    run.write_json("config.json", config)
    with pytest.raises(SystemExit, match="config.json: overlap is 250, not a whole number from 0 to 249"):
        train.main(["--folder", str(run.path), "--resume", "--epochs", "2"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_answers_too(sample):
    """The threads that its parent has used are not there."""
    shipped = load_predictor(ROOT / "mdl")

    def answer():
        x, covariates = shipped.read(*read_record(str(sample / "georgia" / "E00001")))
        return shipped.predict([x], covariates[None])

    expected = answer()
    pid = os.fork()
    if not pid:
        os._exit(0 if np.array_equal(answer(), expected) else 1)
    for _ in range(600):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signals_of_processes.SIGKILL)
        os.waitpid(pid, 0)
        pytest.fail("it waits for ever")
    assert status == 0
