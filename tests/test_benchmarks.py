"""The benchmarks can be imported, and their references do what they stand for. Their figures are not tested."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import loops, reference
from benchmarks.timing import compare, table
from data.preprocess import SignalConfig, preprocess
from data.records import find_records, read_record
from engine.metrics import compute_scores, load_weights, normal_column
from models import build_model

MODULES = sorted(file.stem for file in (Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_can_be_imported(name):
    importlib.import_module(f"benchmarks.{name}")


def test_a_row_tells_how_many_times_better():
    fast, slow = (
        compare("a", lambda: None, lambda: sum(range(20_000)), n=1, reference_name="sum"),
        compare("b", lambda: sum(range(20_000)), lambda: None, unit="s"),
    )
    assert fast.ratio > 1 > slow.ratio and "sum: " in table([fast, slow])


def test_the_plain_reader_reads_the_same_millivolts(sample):
    record = find_records(sample / "georgia")[0]
    ours = preprocess(*read_record(record), SignalConfig(sample_freq=500.0))
    np.testing.assert_allclose(reference.load_recording(record.path)[0], ours, atol=1e-5)


def test_the_plain_network_is_the_predecessors():
    plain, ours = reference.PlainResNet(), build_model({"encoder": "resnet"})
    assert sum(p.numel() for p in plain.parameters()) == pytest.approx(7.0e6, rel=0.02)
    encoder = [p.shape.numel() for p in plain.parameters()]
    assert sum(encoder[:-2]) == sum(p.numel() for p in ours.encoder.parameters())
    assert plain.eval()(torch.zeros(2, 12, 4096)).shape == (2, 24)


def test_the_plain_loops_give_the_official_scores(tmp_path):
    groups, weights = load_weights(2020)
    rng, codes = np.random.default_rng(0), [code for group in groups for code in group]
    y_true, y_pred, y_score = (
        np.zeros((60, len(groups)), bool),
        np.zeros((60, len(groups)), bool),
        np.zeros((60, len(groups))),
    )
    place = {code: k for k, group in enumerate(groups) for code in group}
    for i in range(60):
        dx, scores = rng.choice(codes, 3, replace=False), rng.random(len(codes)).round(2)
        (tmp_path / f"{i:02d}.hea").write_text(f"x 12 500 5000\n#Dx: {','.join(dx)}\n")
        rows = [codes, (scores > 0.7).astype(int), scores]
        (tmp_path / f"{i:02d}.csv").write_text("#x\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
        y_true[i, [place[code] for code in dx]] = True
        for k, group in enumerate(groups):
            mine = [codes.index(code) for code in group]
            y_pred[i, k], y_score[i, k] = (scores[mine] > 0.7).any(), scores[mine].mean()
    found = loops.evaluate(
        sorted(tmp_path.glob("*.hea")), sorted(tmp_path.glob("*.csv")), groups, weights, normal_column(groups)
    )
    expected = compute_scores(y_true, y_pred, y_score, weights, normal_column(groups))
    names = ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric")
    assert found == pytest.approx([expected[name] for name in names], abs=1e-12)
