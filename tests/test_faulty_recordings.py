"""Every faulty recording of the catalogue ends as expected: by itself, and all of them in one folder."""

import csv
import math
import os
import resource

import faulty_headers  # noqa: F401  its part of the catalogue
import numpy as np
import pytest
from conftest import LEADS, fake_ecg, write_record
from faulty_recordings import CATALOGUE, IGNORED, READ, SKIPPED, WARNED

import driver
from data.cache import open_cache
from data.inputs import read_input
from data.labels import load_class_set
from data.preprocess import SignalConfig, preprocess_with_quality
from data.records import RecordError, find_records, parse_header
from engine.run_folder import RunFolder
from engine.trained_run import make_config
from evaluate_12ECG_score import evaluate_12ECG_score
from models import DEFAULT_MODEL, build_model

CONFIG = SignalConfig(sample_freq=10)  # quick, and a day of signal stays small


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """What a hostile header announces must not be allocated: 6 GB of addresses are plenty."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def make_all(folder):
    folder.mkdir()
    for name, (make, _, _) in CATALOGUE.items():
        make(folder, name)
    for file in ("with, comma and 'quotes'", "n" * 251):
        assert (folder / f"{file}.hea").exists()
    return folder


def outcome_of(record, config=CONFIG):
    """(outcome, text) of one recording."""
    try:
        signal, _, header, warnings = read_input(record, config)
    except RecordError as error:
        return SKIPPED, str(error)
    assert (
        signal.shape == (12, math.ceil(header.n_samples * config.sample_freq / header.sample_freq))
        and signal.dtype == np.int16
    )
    return (WARNED if warnings else READ), "; ".join(warnings)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if len(name) < 200])
def test_one_by_one(name, tmp_path):
    make, outcome, text = CATALOGUE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder, name)
    if outcome == IGNORED:
        with pytest.raises(RecordError, match="holds no WFDB header"):
            find_records(folder)
        return
    (record,) = (r for r in find_records(folder) if r.record_id == name)
    got, reason = outcome_of(record)
    assert got == outcome and text in reason.replace(name, "")
    assert got != SKIPPED or name in reason or str(folder) in reason
    assert reason.isprintable() and len(reason) < 2500


def test_one_folder_of_them_all_in_the_cache(tmp_path):
    records = find_records(make_all(tmp_path / "in"))
    for workers in (3, 1):  # built by threads, then opened
        cache = open_cache(records, CONFIG, tmp_path / "cache", workers, quiet=True)
        warned, skipped = {name for name, _ in cache.warnings}, {row["record"] for row in cache.skipped_rows}
        assert len(cache) + len(skipped) == len(records) and not skipped & set(cache.names)
        for name, (_, outcome, _text) in CATALOGUE.items():
            assert (name in skipped, name in warned, name in cache.names) == {
                READ: (False, False, True),
                WARNED: (False, True, True),
                SKIPPED: (True, False, False),
                IGNORED: (False,) * 3,
            }[outcome], name
        for row in cache.skipped_rows:
            assert CATALOGUE[row["record"]][2] in row["reason"]
            assert row["stage"] in ("reading", "preprocessing")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained model in a run folder."""
    sizes = {**DEFAULT_MODEL, "stem": 8, "widths": [8, 8], "depths": [1, 1]}
    run = RunFolder(tmp_path_factory.mktemp("run"))
    config = make_config(
        CONFIG,
        load_class_set("cinc2020"),
        {"rule": "thresholds"},
        [{"model": sizes, "seq_length": 5000}],
        {},
        {"frequency": [0.1] * 24},
    )
    run.write_json("config.json", config)
    run.save("model.pth", {"members": [build_model(sizes).state_dict()]})
    return run.path


def rows(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_one_folder_of_them_all_through_the_driver(run, tmp_path, run_script, capsys):
    folder = make_all(tmp_path / "in")
    write_record(
        folder, "skipped_records", fake_ecg(np.random.default_rng(0), 2)
    )  # its answer would have the name of a list
    done = run_script("driver.py", run, folder, "out", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    skipped = {row["record"]: row for row in rows(tmp_path / "out" / "skipped_records.csv")}
    warned = {row["record"] for row in rows(tmp_path / "out" / "record_warnings.txt")}
    answered = {file.name[:-4] for file in (tmp_path / "out").glob("[!.]*")} - {"skipped_records", "record_warnings"}
    assert answered | set(skipped) == {record.record_id for record in find_records(folder)} and not answered & set(
        skipped
    )
    assert skipped["skipped_records"]["stage"] == "writing"
    for name, (_, outcome, _) in CATALOGUE.items():
        assert (name in skipped, name in warned) == (outcome == SKIPPED, outcome == WARNED), name
    for name in answered:
        first, classes, labels, scores = (tmp_path / "out" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
        assert first == f"#{name}" and len(classes.split(",")) == len(labels.split(",")) == 24
        assert all(0 <= float(score) <= 1 for score in scores.split(","))
    assert driver.main([str(run), str(folder), str(tmp_path / "out"), "--skip_existing"]) == 1
    assert f"0 recordings classified into {tmp_path / 'out'}, {len(skipped)} skipped" in capsys.readouterr().out
    assert {row["record"] for row in rows(tmp_path / "out" / "skipped_records.csv")} == set(skipped)


def test_strict_makes_warnings_a_failure_and_lists_are_no_answers(run, tmp_path, capsys):
    good = fake_ecg(np.random.default_rng(0), 2)
    for name in ("a", "b"):
        write_record(tmp_path / "in", name, good)
    arguments = [str(run), str(tmp_path / "in"), str(tmp_path / "out")]
    assert driver.main([*arguments, "--strict"]) == 0
    assert "0 skipped, 0 warnings" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "out").glob("[!.]*")) == ["a.csv", "b.csv"]
    before = evaluate_12ECG_score(tmp_path / "in", tmp_path / "out")
    good[8] = 0
    write_record(tmp_path / "in", "b", good)
    assert driver.main(arguments) == 0 and driver.main([*arguments, "--strict"]) == 1
    assert rows(tmp_path / "out" / "record_warnings.txt") == [{"record": "b", "warning": "flat: V3"}]
    np.testing.assert_equal(evaluate_12ECG_score(tmp_path / "in", tmp_path / "out")[0], before[0])


def test_two_drivers_do_not_mix_their_output(run, tmp_path):
    write_record(tmp_path / "in", "a", fake_ecg(np.random.default_rng(0), 2))
    (tmp_path / "out").mkdir()
    with RunFolder(tmp_path / "out").only_writer(), pytest.raises(SystemExit, match="in use"):
        driver.main([str(run), str(tmp_path / "in"), str(tmp_path / "out")])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("output", ["in/a.hea", "in/a.hea/below"])
def test_an_output_that_is_no_folder_is_a_clear_error(output, run, tmp_path):
    write_record(tmp_path / "in", "a", fake_ecg(np.random.default_rng(0), 2))
    with pytest.raises(SystemExit, match="cannot be made"):
        driver.main([str(run), str(tmp_path / "in"), str(tmp_path / output)])


def test_folders_that_link_to_each_other_end(tmp_path, monkeypatch):
    """Twelve folders with links to all the others have more than a billion paths."""
    monkeypatch.setattr("data.files.MAX_FOLDERS", 3000)
    for i in range(12):
        (tmp_path / str(i)).mkdir()
        for j in range(12):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j))
    with pytest.raises(RecordError, match="more than 3000 folders"):
        find_records(tmp_path)


HEADER = ["x 12 500 1000", *(f"x.mat 16+24 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS)]


@pytest.mark.parametrize("value, n_bad", [(np.nan, 12), (np.inf, 12), (-np.inf, 12), (-32768.0, 12), (1e300, 0)])
def test_numbers_that_are_none(value, n_bad):
    """The organisers' drivers pass float64: what is no sample is interpolated, what is absurd is cut off."""
    adc = fake_ecg(np.random.default_rng(0), 2).astype(np.float64)
    adc[:, 500] = value
    x, quality = preprocess_with_quality(adc, parse_header(HEADER), CONFIG)
    assert np.isfinite(x).all() and np.abs(x).max() <= CONFIG.clip and quality.n_nan in (n_bad, 12)
    assert n_bad == 0 or quality.n_nan == n_bad


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_lead_of_nothing_else_is_zero_and_flat(value):
    adc = fake_ecg(np.random.default_rng(0), 2).astype(np.float64)
    adc[3] = value
    x, quality = preprocess_with_quality(adc, parse_header(HEADER), CONFIG)
    assert not x[3].any() and quality.flat == ["aVR"] and quality.n_nan == 1000
    with pytest.raises(RecordError, match="no signal"):
        preprocess_with_quality(np.full((12, 1000), value), parse_header(HEADER), CONFIG)


def test_an_input_error_of_the_system_is_a_record_error(tmp_path, monkeypatch):
    """A disk that fails while the file is read."""
    write_record(tmp_path, "a", fake_ecg(np.random.default_rng(0), 2))
    (record,) = find_records(tmp_path)
    real = os.open

    def failing(file, *args, **kwargs):
        if str(file).endswith(".mat"):
            os.unlink(file)
            os.mkdir(file)
        return real(file, *args, **kwargs)

    monkeypatch.setattr("os.open", failing)
    assert outcome_of(record)[0] == SKIPPED
