"""The benchmarks can be imported, and their references do what they stand for. Their figures are not tested."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from benchmarks import loops, out_of_fold, reference, runs
from benchmarks.accuracy import CONFIGURATIONS
from benchmarks.recordings import replicate
from benchmarks.timing import compare, table
from data.preprocess import SignalConfig, preprocess
from data.records import find_records, read_record
from engine.ensemble import read_predictions
from engine.inference import load_predictor
from engine.metrics import compute_scores, load_weights, normal_column
from models import build_model

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_imported(name):
    importlib.import_module(f"benchmarks.{name}")


def test_a_row_tells_how_many_times_better(monkeypatch):
    """By a clock that only our functions and the reference's move."""
    now = [0.0]
    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: now[0])

    def taking(*seconds):
        left = [100.0, *seconds]  # the first call warms up
        return lambda: now.__setitem__(0, now[0] + left.pop(0))

    fast = compare("a", taking(1, 4, 2), taking(9, 3, 6), n=12, reference_name="sum", repetitions=3)
    assert (fast.ours, fast.ours_range, fast.reference, fast.ratio) == (6, (3, 12), 2, 3)
    slow = compare("b", taking(1, 4, 2), taking(1, 1, 1), n=12, unit="s", repetitions=3)
    assert (slow.ours, slow.ours_range, slow.reference, slow.ratio) == (2, (1, 4), 1, 0.5)
    alone = compare("c", taking(1, 1, 1), repetitions=3)
    assert alone.ours == 1 and alone.ratio is None
    lines = table([fast, slow, alone]).splitlines()
    assert "sum: " in lines[2] and lines[4].startswith("| c | /s |") and len({line.count("|") for line in lines}) == 1


def test_the_plain_reader_reads_the_same_millivolts(sample):
    record = find_records(sample / "georgia")[0]
    ours = preprocess(*read_record(record), SignalConfig(sample_freq=500.0))
    np.testing.assert_allclose(reference.load_recording(record.path)[0], ours, atol=1e-5)


def test_the_plain_network_is_the_predecessors():
    plain = reference.PlainResNet()
    ours = build_model({"encoder": "resnet"})
    assert sum(p.numel() for p in plain.parameters()) == pytest.approx(7.0e6, rel=0.02)
    encoder = [p.shape.numel() for p in plain.parameters()]
    assert sum(encoder[:-2]) == sum(p.numel() for p in ours.encoder.parameters())
    assert plain.eval()(torch.zeros(2, 12, 4096)).shape == (2, 24)


def test_the_plain_loops_give_the_official_scores(tmp_path):
    groups, weights = load_weights(2020)
    codes = [code for group in groups for code in group]
    column = {code: k for k, group in enumerate(groups) for code in group}
    rng = np.random.default_rng(0)
    y_true = np.zeros((60, len(groups)), bool)
    y_pred = np.zeros((60, len(groups)), bool)
    y_score = np.zeros((60, len(groups)))
    for i in range(60):
        dx = rng.choice(codes, 3, replace=False)
        scores = rng.random(len(codes)).round(2)
        (tmp_path / f"{i:02d}.hea").write_text(f"x 12 500 5000\n#Dx: {','.join(dx)}\n")
        rows = [codes, (scores > 0.7).astype(int), scores]
        (tmp_path / f"{i:02d}.csv").write_text("#x\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
        y_true[i, [column[code] for code in dx]] = True
        for k, group in enumerate(groups):
            mine = [codes.index(code) for code in group]
            y_pred[i, k] = (scores[mine] > 0.7).any()
            y_score[i, k] = scores[mine].mean()
    normal = normal_column(groups)
    found = loops.evaluate(sorted(tmp_path.glob("*.hea")), sorted(tmp_path.glob("*.csv")), groups, weights, normal)
    expected = compute_scores(y_true, y_pred, y_score, weights, normal)
    names = ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric")
    assert found == pytest.approx([expected[name] for name in names], abs=1e-12)


def test_replicated_recordings_read_as_the_original(sample, tmp_path):
    originals = find_records(sample / "georgia")[:2]
    replicate(originals, tmp_path, 5)
    copies = find_records(tmp_path)
    first, second = (record.record_id for record in originals)
    assert sorted(copy.record_id for copy in copies) == [first] * 3 + [second] * 2
    samples = {record.record_id: read_record(record)[0] for record in originals}
    for copy in copies:
        np.testing.assert_array_equal(read_record(copy)[0], samples[copy.record_id])


def test_a_failing_script_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)status 1.*there is no such thing"):
        runs.run_python("-c", "raise SystemExit('there is no such thing')", log=tmp_path / "log")
    assert "no such thing" in (tmp_path / "log").read_text()


def test_answers_are_read_back_as_they_were_given(sample, tmp_path):
    """What driver.py writes, against the Predictor that it uses."""
    answers = runs.classify(ROOT / "mdl", sample / "georgia", tmp_path / "out")
    predictor = load_predictor(ROOT / "mdl")
    read = [predictor.read(*read_record(record)) for record in find_records(sample / "georgia")]
    y_score = predictor.predict([signal for signal, _ in read], np.array([covariates for _, covariates in read]))
    np.testing.assert_allclose(answers.y_score, y_score, atol=1e-5)
    np.testing.assert_array_equal(answers.y_pred, predictor.decide(y_score))
    assert answers.y_true.any(1).all() and len(answers[np.array([0, 0, 3])]) == 3
    assert set(runs.scores(answers)) == {"auroc", "challenge"}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_train_py_takes_the_flags_of_every_configuration(name, sample):
    args, pretrained = train.parse_args([*CONFIGURATIONS[name].split(), "--input_folder", str(sample)])
    assert pretrained is None and args.covariates == ("--no-covariates" not in CONFIGURATIONS[name])


def test_every_recording_is_answered_by_the_run_that_validated_it(sample, untrained_run, tmp_path, capsys):
    records = find_records(sample / "georgia")
    folders = []
    for k in range(2):
        torch.manual_seed(k)
        run = untrained_run(runs.CLASS_SET)
        run.write_text("valid_ids.txt", "".join(f"{record.name}\n" for record in records[k::2]))
        run.write_bytes("final_model.pth", (run / "model.pth").read_bytes())
        folders.append(run.path)
    out_of_fold.main([str(folders[0]), *map(str, folders), "--input_folder", str(sample / "georgia")])
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| all 12", "| I, II, V2", "| I, II", "| I"]
    found = read_predictions(runs.RunFolder(folders[0]), runs.CLASS_SET)
    assert sorted(found) == sorted(record.name for record in records)
    for k, folder in enumerate(folders):
        predictor = load_predictor(folder)
        signal, covariates = predictor.read(*read_record(records[k]))
        dx, y_score = found[records[k].name]
        np.testing.assert_allclose(y_score, predictor.predict([signal], covariates[None])[0], atol=1e-5)
        assert dx == read_record(records[k])[1].dx
    with pytest.raises(SystemExit):
        out_of_fold.main([str(folders[0]), str(folders[0]), str(folders[0]), "--input_folder", str(sample / "georgia")])
    assert "validated by several" in capsys.readouterr().err
