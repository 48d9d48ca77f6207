"""The whole road as a user walks it: train.py -> driver.py -> evaluate_12ECG_score.py, from another working
directory.
"""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from conftest import history, interrupt_and_resume

from engine.inference import load_predictor
from evaluate_12ECG_score import evaluate_12ECG_score

TINY = tuple("--encoder xresnet --stem 16 --widths 16 16 --depths 1 1 --epochs 2 --batch_size 8 --forest 3".split())
SOURCES = ("chapman_shaoxing", "georgia", "ptb-xl")


def rows(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def best_row(run):
    return max(history(run / "history.csv"), key=lambda row: float(row["auroc"]))


def names_of(sample):
    """Of the shipped recordings, by listing the folder."""
    return {f"{file.parent.name}/{file.stem}" for file in sample.glob("*/*.hea")}


@pytest.mark.parametrize("source", SOURCES)
def test_driver_and_evaluator_give_the_scores_that_training_reported(source, sample, tmp_path, run_script):
    run_script("train.py", "--input_folder", sample, "--hold_out", source, "--folder", "run", *TINY, cwd=tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "run", tmp_path / "moved")  # a run folder works wherever it lies
    run_script("driver.py", tmp_path / "moved", sample / source, tmp_path / "out", cwd=tmp_path / "elsewhere")
    reported, scores = best_row(tmp_path / "moved"), evaluate_12ECG_score(sample / source, tmp_path / "out")[1]
    for name in ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric"):
        assert scores[name] == pytest.approx(float(reported[name]), abs=1e-12, nan_ok=True), name
    predicted = rows(tmp_path / "moved" / "valid_predictions.csv")
    assert len(predicted) == len(list((sample / source).glob("*.hea")))
    for row in predicted:
        record, _ = row.pop("record"), row.pop("dx")
        lines = (tmp_path / "out" / f"{record.split('/')[-1]}.csv").read_text().splitlines()
        written = dict(zip(lines[1].split(","), map(float, lines[3].split(","))))
        assert written.keys() == row.keys()
        assert max(abs(written[code] - float(row[code])) for code in row) <= 1e-6


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample, run_script):
    """A run folder trained for two epochs on the sample."""
    folder = tmp_path_factory.mktemp("trained")
    run_script("train.py", "--input_folder", sample, "--folder", "run", *TINY, cwd=folder)
    return folder / "run"


def test_run_folder_is_complete(trained, sample):
    assert {f.name for f in trained.iterdir()} == {
        "config.json",
        "model.pth",
        "final_model.pth",
        "checkpoint.pth",
        "history.csv",
        "history.png",
        "train_ids.txt",
        "valid_ids.txt",
        "valid_predictions.csv",
        "skipped_records.csv",
        "record_warnings.txt",
    }
    config = json.loads((trained / "config.json").read_text())
    assert (
        config["signal"]["unit"] == "mV"
        and config["signal"]["sample_freq"] == 100
        and len(config["classes"]["codes"]) == 24
    )
    train, valid = ((trained / f"{part}_ids.txt").read_text().split() for part in ("train", "valid"))
    assert not set(train) & set(valid) and {*train, *valid} == names_of(sample)


def test_same_seed_same_history(trained, sample, tmp_path, run_script):
    run_script("train.py", "--input_folder", sample, "--folder", "run", *TINY, cwd=tmp_path)
    assert history(tmp_path / "run" / "history.csv") == history(trained / "history.csv")


def test_a_resumed_run_ends_like_an_uninterrupted_one(trained, sample, tmp_path, run_script):
    args = ("--input_folder", sample, *TINY)
    interrupt_and_resume("train.py", *args, prefix="", cwd=tmp_path, run_script=run_script)
    refused = run_script("train.py", *args, "--folder", "run", cwd=tmp_path, check=False)
    assert refused.returncode != 0 and "--resume" in refused.stderr
    first, again = load_predictor(trained), load_predictor(tmp_path / "run")
    for a, b in zip(first.models[0].state_dict().values(), again.models[0].state_dict().values(), strict=True):
        assert (a == b).all()
    assert history(tmp_path / "run" / "history.csv") == history(trained / "history.csv")


def organisers_read(file):
    """data and header as the organisers' drivers read them: float64 ADC values through scipy, the header's lines."""
    from scipy.io import loadmat

    return np.asarray(loadmat(file.with_suffix(".mat"))["val"], dtype=np.float64), file.with_suffix(
        ".hea"
    ).read_text().splitlines(keepends=True)


def test_both_interfaces_of_the_organisers_agree_with_the_driver(trained, sample, tmp_path, run_script):
    import run_12ECG_classifier as interface

    run_script("driver.py", trained, sample / "georgia", tmp_path / "out", cwd=tmp_path)
    model = interface.load_12ECG_model(str(trained))
    for file in sorted((sample / "georgia").glob("*.hea")):
        data, header = organisers_read(file)
        label, score, classes = interface.run_12ECG_classifier(data, header, model)
        _, codes, labels, scores = (tmp_path / "out" / f"{file.stem}.csv").read_text().splitlines()
        assert codes.split(",") == list(classes) and [str(v) for v in label] == labels.split(",")
        assert np.allclose(score, [float(v) for v in scores.split(",")], atol=1e-6, rtol=0)
        wanted = ["AF", "164909002", "I-AVB"]
        label9, score9 = interface.run_12ECG_classifier(data, header, wanted, model)
        by_code = dict(zip(classes, score))
        assert (
            score9.tolist() == [by_code["164889003"], by_code["164909002"], by_code["270492004"]] and len(label9) == 3
        )


def test_default_model_loads_and_answers(sample):
    import run_12ECG_classifier as interface

    data, header = organisers_read(sample / "georgia" / "E00001.hea")
    label, score, classes = interface.run_12ECG_classifier(data, header, interface.load_12ECG_model())
    assert len(label) == len(score) == len(classes) == 24 and all(0 <= s <= 1 for s in score)


def test_driver_goes_on_past_bad_recordings_and_skips_existing(trained, folder_of_records, tmp_path, run_script):
    (folder_of_records / "a" / "R00.mat").write_bytes(b"")
    (folder_of_records / "b" / "R03.hea").write_text("no header at all")
    done = run_script("driver.py", trained, folder_of_records, tmp_path / "out", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "a/R00" in done.stdout and "b/R03" in done.stdout and "Traceback" not in done.stderr
    assert len(list((tmp_path / "out").glob("R*.csv"))) == 22 and [
        row["record"] for row in rows(tmp_path / "out" / "skipped_records.csv")
    ] == ["a/R00", "b/R03"]
    kept = tmp_path / "out" / "R05.csv"
    kept.write_text("mine")
    run_script("driver.py", trained, folder_of_records, tmp_path / "out", "--skip_existing", cwd=tmp_path, check=False)
    assert kept.read_text() == "mine"


def test_same_id_in_two_folders_is_kept_apart(trained, folder_of_records, tmp_path, run_script):
    for ending in (".hea", ".mat"):
        shutil.copy(folder_of_records / "a" / f"R00{ending}", folder_of_records / "b" / f"R00{ending}")
    run_script("driver.py", trained, folder_of_records, tmp_path / "out", cwd=tmp_path)
    assert (tmp_path / "out" / "a" / "R00.csv").exists() and (tmp_path / "out" / "b" / "R00.csv").exists()
    assert (tmp_path / "out" / "R01.csv").exists()


def test_an_ensemble_is_the_mean_and_a_broken_member_is_an_error(trained, sample, tmp_path, run_script):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    data, header = organisers_read(sample / "georgia" / "E00001.hea")
    import run_12ECG_classifier as interface

    single = interface.run_12ECG_classifier(data, header, interface.load_12ECG_model(trained))[1]
    double = interface.run_12ECG_classifier(data, header, interface.load_12ECG_model(tmp_path / "runs"))[1]
    assert np.allclose(single, double, atol=1e-7)
    (tmp_path / "runs" / "two" / "model.pth").write_bytes(b"garbage")
    failed = run_script("driver.py", tmp_path / "runs", sample / "georgia", tmp_path / "out", cwd=tmp_path, check=False)
    assert failed.returncode != 0 and "two/model.pth" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--input_folder", "nowhere"), "no such folder"),
        (("--unknown_flag",), "unrecognized"),
        (("--resume",), "--folder"),
        (("--epochs", "0"), "positive"),
        (("--classes", "nonsense"), "nonsense"),
        (("--hold_out", "mars"), "mars"),
    ],
)
def test_wrong_flags_are_clear_errors(arguments, message, tmp_path, run_script):
    failed = run_script("train.py", *arguments, cwd=tmp_path, check=False)
    assert failed.returncode != 0 and message in failed.stderr and "Traceback" not in failed.stderr


def test_history_is_finite(trained):
    for row in rows(trained / "history.csv"):
        assert (
            math.isfinite(float(row["train_loss"]))
            and math.isfinite(float(row["valid_loss"]))
            and float(row["records_per_second"]) > 0
        )


def test_folds_join_into_one_run_with_out_of_fold_scores(sample, tmp_path, run_script):
    for k in (1, 2):
        flags = ("--input_folder", sample, "--fold", k, "--n_folds", 2, "--folder", f"fold_{k}")
        run_script("train.py", *flags, *TINY, cwd=tmp_path)
    folds = [{row["record"]: row for row in rows(tmp_path / f"fold_{k}" / "valid_predictions.csv")} for k in (1, 2)]
    assert not folds[0].keys() & folds[1].keys() and folds[0].keys() | folds[1].keys() == names_of(sample)
    from engine.ensemble import main

    main([str(tmp_path / "both"), str(tmp_path / "fold_1"), str(tmp_path / "fold_2")])
    assert {row["record"]: float(row["426177001"]) for row in rows(tmp_path / "both" / "valid_predictions.csv")} == {
        name: float(row["426177001"]) for name, row in {**folds[0], **folds[1]}.items()
    }
    both, parts = load_predictor(tmp_path / "both"), [load_predictor(tmp_path / f"fold_{k}") for k in (1, 2)]
    assert len(both.models) == 2
    rng = np.random.default_rng(0)
    signal, covariates = rng.integers(-500, 500, (12, 1000)).astype(np.int16), np.zeros((1, 23), np.float32)
    mean = np.mean([part.predict([signal], covariates) for part in parts], axis=0)
    assert np.allclose(both.predict([signal], covariates), mean, atol=1e-7)
