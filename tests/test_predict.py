"""predict.py: one recording by name, equal to what driver.py says; and what carried a decision."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, fake_ecg, write_record

import predict
from benchmarks.explain import measure, ratio_of
from data.groups import GROUPS, NAMES, OTHER, clinical_order, group_of
from data.inputs import read_input
from data.labels import diagnosis_table, load_class_set
from data.records import RecordError, find_records
from engine.answers import Answer, answer_of, diagnoses
from engine.explain import as_random, attribute, important, interpolated, lead_shares, mean_logits, stretches
from engine.inference import load_predictor


@pytest.fixture(scope="module")
def predictor():
    return load_predictor(ROOT / "mdl")


@pytest.fixture(scope="module")
def six(sample):
    """Six recordings of six sources."""
    records = find_records(sample)
    return [
        next(record for record in records if record.source == source)
        for source in dict.fromkeys(r.source for r in records)
    ]


def as_json(capsys, *words):
    """predict.py --json of some words: (exit status, what it printed as values)."""
    status = predict.main([*map(str, words), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_probabilities_are_those_of_the_driver(tmp_path, six, run_script, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for record in six:
        for ending in (".hea", ".mat"):
            (folder / f"{record.record_id}{ending}").symlink_to(record.path + ending)
    run_script("driver.py", folder, tmp_path / "out", cwd=tmp_path)
    status, content = as_json(capsys, *(folder / record.record_id for record in six))
    assert status == 0 and content["format"] == "12ecg-prediction" and content["version"] == 1
    for record, values in zip(six, content["recordings"]):
        _, classes, decisions, scores = (tmp_path / "out" / f"{record.record_id}.csv").read_text().splitlines()
        of_driver = dict(zip(classes.split(","), zip(map(float, scores.split(",")), map(int, decisions.split(",")))))
        of_predict = {row["code"]: (row["probability"], int(row["called"])) for row in values["diagnoses"]}
        assert of_predict.keys() == of_driver.keys()
        for code, (probability, called) in of_driver.items():
            assert of_predict[code] == (pytest.approx(probability, abs=1e-6), called)


def test_any_ending_means_the_same_recording(six, capsys):
    record = six[0]
    found = []
    for ending in ("", ".hea", ".mat"):
        _, content = as_json(capsys, record.path + ending)
        found.append(content["recordings"][0])
    assert found[0] == found[1] == found[2] and found[0]["record"] == record.record_id


def test_json_says_what_was_read(tmp_path, capsys):
    signal = fake_ecg(np.random.default_rng(1))[:2]
    signal[1] = 7
    write_record(tmp_path, "two", signal, dx="164889003,426783006", age="NaN", sex="Female")
    _, content = as_json(capsys, tmp_path / "two")
    values = content["recordings"][0]
    assert values["leads"] == ["I", "II"] and values["missing"] == [f"V{i}" for i in range(1, 7)]
    assert (values["sample_freq"], values["seconds"], values["units"]) == (500, 10, ["mV"])
    assert (values["age"], values["sex"], values["labels"]) == (None, "Female", ["164889003", "426783006"])
    assert any("flat: II" in text for text in values["warnings"])
    assert len(values["diagnoses"]) == 24


def test_heart_rate_is_that_of_the_beats(tmp_path, predictor):
    """Spikes at exactly 75 per minute."""
    t = np.arange(5000) / 500
    beat = 800 * np.exp(-0.5 * ((t % 0.8 - 0.4) / 0.02) ** 2)
    write_record(tmp_path, "beats", np.outer(np.linspace(0.5, 1, 12), beat).astype(np.int16))
    write_record(tmp_path, "none", np.outer(np.ones(12), np.linspace(-200, 200, 5000)).astype(np.int16))
    found = {record.record_id: answer_of(predictor, record) for record in find_records(tmp_path)}
    assert found["beats"].heart_rate == pytest.approx(75, abs=1)
    assert found["none"].heart_rate is None


def test_table_has_groups_in_clinical_order_with_the_called_first(predictor, six):
    class_set = predictor.class_set
    y_score = np.linspace(0.01, 0.97, 24).astype(np.float32)
    y_pred = np.zeros(24, bool)
    y_pred[[3, 20]] = True
    answer = answer_of(predictor, six[0])
    answer = Answer(answer.record, answer.header, answer.signal, 100.0, answer.covariates, [], y_score, y_pred)
    rows = diagnoses(answer, class_set)
    assert [NAMES.index(row["group"]) for row in rows] == sorted(NAMES.index(row["group"]) for row in rows)
    for name in NAMES:
        own = [(row["called"], row["probability"]) for row in rows if row["group"] == name]
        assert own == sorted(own, reverse=True)
    text = predict.table({"diagnoses": rows}, everything=False)
    called = [line for line in text.splitlines() if line.startswith("  * ")]
    assert len(called) == 2 and class_set.codes[3] in text and class_set.codes[20] in text
    assert "classes below 0.1 are not shown" in text
    assert "not shown" not in predict.table({"diagnoses": rows}, everything=True)


@pytest.mark.parametrize("name", ["cinc2020", "cinc2021", "cpsc2018"])
def test_every_class_has_a_clinical_group(name):
    class_set = load_class_set(name)
    assert OTHER not in {group_of(members) for members in class_set.members}
    assert sorted(clinical_order(class_set.members)) == list(range(len(class_set)))


def test_groups_hold_known_codes_once_and_unknown_ones_are_other():
    codes = [code for text in GROUPS.values() for code in text.split()]
    assert len(codes) == len(set(codes)) and set(codes) <= diagnosis_table().keys()
    assert group_of(["1234"]) == OTHER
    assert group_of(["164889003"]) == "rhythm" and group_of(["164934002"]) == "repolarisation and infarction"


def test_a_bad_recording_is_named_and_the_others_go_on(six, capsys, tmp_path):
    status = predict.main([str(tmp_path / "nothing"), str(tmp_path), six[0].path])
    found = capsys.readouterr()
    assert status == 1
    assert "nothing.hea: there is no such header" in found.err and "driver.py" in found.err
    assert six[0].record_id in found.out and "*: called" in found.out
    status, content = as_json(capsys, tmp_path / "nothing.mat", six[0].path)
    assert status == 1 and "error" in content["recordings"][0] and "diagnoses" in content["recordings"][1]


@pytest.mark.parametrize("words", [["x", "--plot", "a.doc"], ["--plot", "x"], []])
def test_wrong_command_lines(words, capsys):
    with pytest.raises(SystemExit) as stop:
        predict.parse_args(words)
    assert stop.value.code == 2 and "usage" in capsys.readouterr().err


def test_picture_and_explanation(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for record_id in "ab":
        write_record(tmp_path, record_id, fake_ecg(np.random.default_rng(3), seconds=2.5))
    assert predict.main(["a", "--plot", "--explain"]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "carried by" in out and "%" in out
    assert predict.main(["a", "b", "--plot", "e.svg"]) == 0
    assert {"e_a.svg", "e_b.svg"} <= {file.name for file in tmp_path.iterdir()}
    assert predict.main(["a", "--start", "99"]) == 1
    assert "--start 99" in capsys.readouterr().err


def test_every_recording_has_a_picture_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, (folder, record_id) in enumerate([("A", "R1"), ("B", "R1"), ("B", "R2"), ("B", "A_R1")]):
        write_record(tmp_path / folder, record_id, fake_ecg(np.random.default_rng(number), seconds=2.5))
    assert predict.main(["A/R1", "B/R1", "B/R2", "B/A_R1", "A/R1.hea", "--plot", "ecg.svg"]) == 0
    names = ["ecg_A_R1.svg", "ecg_B_R1.svg", "ecg_R2.svg", "ecg_A_R1_2.svg"]
    printed = capsys.readouterr().out
    assert [line.split("picture: ")[1] for line in printed.splitlines() if "picture: " in line] == [*names, names[0]]
    assert sorted(file.name for file in tmp_path.glob("*.svg")) == sorted(names)
    monkeypatch.chdir(tmp_path / "A")
    assert predict.main(["nothing", "R1", "../B/R1", "--plot"]) == 1
    assert {"A_R1.png", "B_R1.png"} <= {file.name for file in (tmp_path / "A").iterdir()}


def test_records_are_found_as_typed(tmp_path):
    write_record(tmp_path, "a.b", fake_ecg(np.random.default_rng(0)))
    for text in ("a.b", "a.b.hea", "a.b.mat"):
        assert predict.find_record(str(tmp_path / text)).path == str(tmp_path / "a.b")
    with pytest.raises(RecordError, match="no such header"):
        predict.find_record(str(tmp_path / "a"))


def test_attributions_add_up_to_the_difference_that_they_explain(predictor, six):
    """Completeness of integrated gradients, for a recording of several windows and one shorter than a window."""
    for n in (None, 180):
        signal, covariates, _, _ = read_input(six[0], predictor.signal_config)
        signal = np.ascontiguousarray(signal[:, :n])
        column = predictor.class_set.column("NSR")
        found = attribute(predictor, signal, covariates, column, n_steps=64)
        silent = (signal != 0).astype(np.int16)  # 1 microvolt: of leads without any, the network is told that they lack
        wanted = mean_logits(predictor, signal, covariates) - mean_logits(predictor, silent, covariates)
        assert found.shape == signal.shape
        assert found.sum() == pytest.approx(wanted[column], rel=0.05, abs=0.05)


def test_mean_logits_agree_with_the_probabilities_of_one_window(predictor, six):
    signal, covariates, _, _ = read_input(six[0], predictor.signal_config)
    signal = signal[:, : predictor.windows[0].seq_length]
    logits = torch.from_numpy(mean_logits(predictor, signal, covariates))
    network = predictor.without_forests()
    assert torch.sigmoid(logits).numpy() == pytest.approx(network.predict([signal], covariates[None])[0], abs=1e-5)


def test_important_samples_stretches_and_shares():
    attribution = np.full((12, 1000), -0.01)
    attribution[6, 100:130] = 1.0
    attribution[1, 500:520] = 2.0
    mask = important(attribution, 100, share=0.1)
    assert mask[6, 105:125].all() and mask[1, 503:517].all() and mask.sum() <= 0.1 * mask.size
    assert not mask[[0, 2, 3]].any()  # what speaks against is never marked
    found = stretches(mask)
    assert [lead for lead, _, _ in found] == [1, 6]
    rebuilt = np.zeros_like(mask)
    for lead, begin, end in found:
        rebuilt[lead, begin:end] = True
    assert np.array_equal(rebuilt, mask)
    shares = lead_shares(attribution, mask)
    assert shares.sum() == pytest.approx(1) and shares[1] == pytest.approx(40 / 70, abs=0.02)
    assert lead_shares(-np.ones((12, 10)), np.zeros((12, 10), bool)).sum() == 0
    moved = as_random(mask, np.random.default_rng(0))
    assert moved.sum() == mask.sum() and not np.array_equal(moved, mask)


def test_deleting_draws_a_straight_line():
    signal = np.tile(np.arange(10, dtype=np.int16) ** 2, (12, 1))
    mask = np.zeros((12, 10), bool)
    mask[0, 3:6] = True
    mask[1] = True
    out = interpolated(signal, mask)
    assert out[0].tolist() == [0, 1, 4, 12, 20, 28, 36, 49, 64, 81] and not out[1].any()
    assert np.array_equal(out[2:], signal[2:]) and signal[0, 3] == 9


def test_explanations_mean_something(predictor, six):
    """The small version of benchmarks/explain.py: what is marked matters three times more than as much at random."""
    found = ratio_of(measure(predictor, [record for record in six if record.source in ("georgia", "ptb-xl")], n=2))
    assert found["n"] >= 2 and found["important"] > 0
    assert found["important"] >= 3 * abs(found["random"])
