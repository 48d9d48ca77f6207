"""export.py: what onnxruntime computes with the file is what PyTorch computes with the run."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, LEADS, ROOT
from test_docs import blocks

import export
from data.covariates import N_COVARIATES
from data.inputs import read_input
from data.labels import load_class_set
from data.preprocess import SignalConfig, to_millivolts
from data.records import find_records
from data.rhythm import r_peaks, rhythm
from engine.decision import decide_by_reward, default_rule
from engine.inference import Predictor, load_predictor
from engine.onnx_file import largest_difference, metadata, onnx_bytes, rhythm_steps, run_session
from engine.torch_file import largest_difference as largest_difference_of_program
from engine.torch_file import program_bytes, read_program, run_program
from engine.whole_recording import cut_windows, recording_model
from engine.windows import Windows, window_batches
from models import build_model

CLASSES = load_class_set("cinc2020")
TINY = {
    "xresnet": {"stem": 8, "widths": [8, 8], "depths": [1, 1]},
    "resnet": {"filters": [8, 8], "lengths": [64, 16], "kernel": 5},
    "transformer": {"width": 16, "depth": 1, "n_heads": 2},
    "bidirectional": {"encoder": "transformer", "width": 16, "depth": 1, "n_heads": 2, "bidirectional": True},
    "causal_resnet": {"stem": 8, "widths": [8, 8], "depths": [1, 1]},
    "no covariates": {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_covariates": 0},
    "lead flags": {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "lead_flags": True},
}
HALF = (Windows(250, 125),)
THREE = (Windows(250, 0), Windows(401, 200), Windows(250, 125))  # of three members


def predictor_of(*names, windows=HALF):
    """A Predictor of untrained networks, whose norms have statistics as if they were trained."""
    models = [build_model({"encoder": name, **TINY[name], "n_classes": len(CLASSES)}) for name in names]
    generator = torch.Generator().manual_seed(0)
    for model in models:
        model.train()
        model(torch.randn(8, 12, 256, generator=generator))
        torch.nn.init.normal_(model.head.linear.weight, generator=generator)
    return Predictor(models, windows, SignalConfig(), CLASSES, default_rule(CLASSES))


@pytest.fixture(scope="module")
def onnxruntime():
    pytest.importorskip("onnx", reason="onnx of requirements-extra.txt is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime of requirements-extra.txt is not installed")


@pytest.mark.parametrize("windows", [Windows(250, 125), Windows(250, 0), Windows(333, 0), Windows(333, 332)], ids=str)
@pytest.mark.parametrize("n_samples", [1, 100, 249, 250, 251, 375, 376, 1000, 5003])
def test_windows_are_those_of_inference(n_samples, windows):
    signal = np.random.default_rng(n_samples).integers(-9000, 9000, (12, n_samples)).astype(np.int16)
    expected = list(window_batches([signal], windows))
    x, lengths = cut_windows(torch.from_numpy(to_millivolts(signal))[None], windows)
    np.testing.assert_array_equal(x[0], np.concatenate([x for x, _, _ in expected]))
    np.testing.assert_array_equal(lengths[0], np.concatenate([lengths for _, lengths, _ in expected]))


def test_one_module_is_the_predictor():
    """Members of different windows, a length that both divide and one that neither does; amplitudes beyond the clip."""
    predictor = predictor_of("xresnet", "causal_resnet", "xresnet", windows=THREE)
    rng = np.random.default_rng(0)
    for n_samples in (120, 333, 1000):
        signals = rng.normal(0, 3000, (3, 12, n_samples)).clip(-10000, 10000).astype(np.int16)
        covariates = rng.normal(size=(3, N_COVARIATES)).astype(np.float32)
        with torch.inference_mode():
            found = recording_model(predictor)(torch.from_numpy(to_millivolts(signals)), torch.from_numpy(covariates))
        np.testing.assert_allclose(found, predictor.predict(list(signals), covariates), atol=1e-5)


def answers_alike(exported, predictor, shapes, tolerance):
    """An exported model, (signal (n, 12, T) mV, covariates (n, N_COVARIATES)) -> probabilities, on noise of these
    shapes (n, T).
    """
    rng = np.random.default_rng(0)
    for n, n_samples in shapes:
        signals = rng.normal(0, 300, (n, 12, n_samples)).astype(np.int16)
        covariates = rng.normal(size=(n, N_COVARIATES)).astype(np.float32)
        expected = predictor.predict(list(signals), covariates)
        found = exported(to_millivolts(signals), covariates)
        assert found.shape == expected.shape == (n, len(CLASSES)) and expected.std() > 0.01
        np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("name", TINY)
def test_every_network_can_be_exported(name, onnxruntime):
    predictor = predictor_of(name)
    session = onnxruntime.InferenceSession(onnx_bytes(predictor))
    answers_alike(partial(run_session, session), predictor, ((1, 1000), (3, 777), (2, 250), (4, 90)), 1e-5)


@pytest.fixture(scope="module")
def exported(onnxruntime, tmp_path_factory):
    """The shipped model as a file."""
    file = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert export.main([str(ROOT / "mdl"), str(file)]) == 0
    return file


def test_the_shipped_network_answers_as_in_the_driver(exported, onnxruntime, sample, capsys):
    predictor = load_predictor(ROOT / "mdl").without_forests()
    session = onnxruntime.InferenceSession(exported)
    records = find_records(sample)[::20]
    for record in records:
        signal, covariates, _, _ = read_input(record, predictor.signal_config)
        expected = predictor.predict([signal], covariates[None])
        np.testing.assert_allclose(
            run_session(session, to_millivolts(signal[None]), covariates[None]), expected, atol=1e-5
        )
    about = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert about["classes"] == list(CLASSES.codes) and about["leads"] == list(LEADS)
    assert about["sample_freq"] == 100 and about["unit"] == "mV"
    assert about["windows"] == [[predictor.windows[0].seq_length, predictor.windows[0].overlap]]
    np.testing.assert_allclose(about["thresholds"], predictor.thresholds)
    rule = about["decision"]
    odds = expected * np.array(rule["odds"])
    called = decide_by_reward(odds / (1 - expected + odds), np.array(rule["rewards"]), rule["confidence"])
    np.testing.assert_array_equal(called, predictor.decide(expected))


@pytest.mark.slow
def test_the_documented_example_needs_nothing_of_this_code(exported, sample, tmp_path):
    """It gets R peaks, age and sex, and prints the driver's probabilities."""
    code, _ = blocks(ROOT / "docs" / "onnx.md", "python")
    predictor = load_predictor(ROOT / "mdl").without_forests()
    freq = predictor.signal_config.sample_freq
    signal, covariates, header, _ = read_input(sample / "georgia" / "E00004", predictor.signal_config)
    x = to_millivolts(signal)
    np.savez(tmp_path / "recording.npz", signal=x, r_peaks=r_peaks(x, freq) / freq, age=header.age, sex=header.sex)
    (tmp_path / "model.onnx").symlink_to(exported)
    code += "\nnp.save('answer.npy', probabilities)\nimport sys\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = predictor.predict([signal], covariates[None])
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, atol=1e-5)
    assert "sinus rhythm" in done.stdout


@pytest.mark.parametrize(
    "name", [name if name == "xresnet" else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
)
def test_every_network_becomes_a_program(name):
    """For numbers and lengths of recordings that were not traced, a single one and a single sample among them."""
    predictor = predictor_of(name)
    program, about = read_program(program_bytes(predictor))
    shapes = ((1, 1000), (3, 778), (2, 250), (4, 90), (1, 1), (1, 376))
    answers_alike(partial(run_program, program.module()), predictor, shapes, 1e-6)
    assert about.pop("format") == "12ecg-pt2-1"
    expected = json.loads(json.dumps(metadata(predictor)))
    del expected["format"]
    assert about == expected


ODD = (Windows(333, 0),)


def largest_difference_at_odd_lengths(answer, predictor):
    """How far answer(signal, covariates) is from the Predictor for recordings about as long as some windows."""
    rng = np.random.default_rng(0)
    differences = []
    for n_samples in (1, 332, 333, 334, 666, 667, 1001, 1500):
        signals = rng.normal(0, 300, (2, 12, n_samples)).astype(np.int16)
        covariates = rng.normal(size=(2, N_COVARIATES)).astype(np.float32)
        found = answer(to_millivolts(signals), covariates)
        differences.append(np.abs(found - predictor.predict(list(signals), covariates)).max())
    return max(differences)


def test_windows_without_overlap_can_be_exported(onnxruntime):
    predictor = predictor_of("xresnet", windows=ODD)
    session = onnxruntime.InferenceSession(onnx_bytes(predictor))
    assert largest_difference_at_odd_lengths(lambda *given: run_session(session, *given), predictor) < 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["windows"]) == [[333, 0]]


def test_windows_without_overlap_become_a_program():
    predictor = predictor_of("xresnet", windows=ODD)
    program, about = read_program(program_bytes(predictor))
    module = program.module()
    assert largest_difference_at_odd_lengths(lambda *given: run_program(module, *given), predictor) < 1e-6
    assert about["windows"] == [[333, 0]]


@pytest.mark.slow
def test_a_program_joins_members_of_different_windows():
    predictor = predictor_of("xresnet", "causal_resnet", windows=THREE[:2])
    assert largest_difference_of_program(program_bytes(predictor), predictor) < 1e-6


@pytest.fixture(scope="module")
def exported_program(tmp_path_factory):
    """The shipped model as a file for PyTorch."""
    file = tmp_path_factory.mktemp("program") / "model.pt2"
    assert export.main([str(ROOT / "mdl"), str(file)]) == 0
    assert [path.name for path in file.parent.iterdir()] == ["model.pt2"]
    return file


def test_a_program_answers_as_the_network_in_the_driver(exported_program, sample):
    predictor = load_predictor(ROOT / "mdl").without_forests()
    module = read_program(exported_program.read_bytes())[0].module()
    for record in find_records(sample)[::10]:
        signal, covariates, _, _ = read_input(record, predictor.signal_config)
        found = run_program(module, to_millivolts(signal[None]), covariates[None])
        np.testing.assert_allclose(found, predictor.predict([signal], covariates[None]), atol=1e-6)


@pytest.mark.slow
def test_the_documented_program_needs_nothing_of_this_code(exported_program, sample, tmp_path):
    """In another folder, where none of these modules can be imported."""
    _, code = blocks(ROOT / "docs" / "onnx.md", "python")
    predictor = load_predictor(ROOT / "mdl").without_forests()
    signal, covariates, _, _ = read_input(sample / "georgia" / "E00004", predictor.signal_config)
    np.savez(tmp_path / "recording.npz", signal=to_millivolts(signal), covariates=covariates)
    (tmp_path / "model.pt2").symlink_to(exported_program)
    code += "\nnp.save('answer.npy', probabilities)\n"
    code += "import sys\nassert not {'models', 'engine', 'data'} & set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = predictor.predict([signal], covariates[None])
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, atol=1e-6)
    assert "sinus rhythm" in done.stdout


def test_a_program_with_other_answers_is_not_written(untrained_run, tmp_path, monkeypatch):
    run = untrained_run(CLASSES)
    monkeypatch.setattr("engine.torch_file.largest_difference", lambda content, predictor: 0.1)
    with pytest.raises(SystemExit, match="torch.export and PyTorch give different probabilities, by up to 0.1"):
        export.main([str(run.path), str(tmp_path / "model.pt2")])
    assert not list(tmp_path.iterdir())


def test_the_rhythm_follows_from_its_description(sample):
    signal, _, _, _ = read_input(find_records(sample / "georgia")[0], SignalConfig())
    x = to_millivolts(signal)
    intervals = np.diff(r_peaks(x, 100.0)) / 100
    values = {
        "rate": 60 / np.median(intervals),
        "variation": intervals.std() / intervals.mean(),
        "shortest": intervals.min() / np.median(intervals),
    }
    described = [np.tanh((values[name] - limit) / width) / 2 for name, limit, width in rhythm_steps()]
    np.testing.assert_allclose(described, rhythm(x, 100.0), atol=1e-5)


def test_a_rule_by_threshold_has_no_rewards():
    predictor = predictor_of("no covariates")
    predictor.decision = {"rule": "thresholds"}
    about = metadata(predictor)
    assert about["decision"] == {"rule": "thresholds"} and about["rhythm"] == []


def test_without_the_package_one_line_says_what_to_install(untrained_run, tmp_path, monkeypatch):
    run = untrained_run(CLASSES)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit, match=r"^export.py: writing ONNX needs the package onnx.*requirements-extra.txt$"):
        export.main([str(run.path), str(tmp_path / "m.onnx")])
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_the_file_is_written_and_not_compared(
    untrained_run, onnxruntime, tmp_path, monkeypatch, capsys
):
    run = untrained_run(CLASSES)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert export.main([str(run.path), str(tmp_path / "m.onnx")]) == 0
    assert "onnxruntime is not installed: not compared" in capsys.readouterr().out
    content = (tmp_path / "m.onnx").read_bytes()
    assert largest_difference(content, load_predictor(run.path)) < 1e-5


def test_another_ending_and_another_answer_are_refused(untrained_run, onnxruntime, tmp_path, monkeypatch, capsys):
    run = untrained_run(CLASSES)
    with pytest.raises(SystemExit):
        export.main([str(run.path), str(tmp_path / "model.pth")])
    assert "ends in .onnx or .pt2" in capsys.readouterr().err
    monkeypatch.setattr("engine.onnx_file.largest_difference", lambda content, predictor: 0.1)
    with pytest.raises(SystemExit, match="different probabilities, by up to 0.1"):
        export.main([str(run.path), str(tmp_path / "model.onnx")])
    assert not list(tmp_path.iterdir())
