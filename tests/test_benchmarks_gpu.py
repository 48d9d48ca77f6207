"""benchmarks/gpu.py with the processor as its device: all that a GPU would do but the name. Its figures are not
tested.
"""

from pathlib import Path

import pytest
import torch
from conftest import TINY_PRETRAINING

import driver
from benchmarks import findings, gpu, gpu_answers, gpu_speed
from benchmarks.recordings import of_10_s_at_500_hz, replicate
from data.dataset import PrefetchBatches, ResidentBatches
from data.labels import load_class_set
from data.records import find_records
from engine.loop import Trainer
from engine.windows import full_float32

TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --batch_size 8".split())


@pytest.fixture(scope="module")
def top(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    for n in (1, 24):
        replicate(of_10_s_at_500_hz(find_records(sample))[::4], folder / f"in_{n}", n)
    return folder


def test_without_a_gpu_one_line_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as end:  # a text ends a script with status 1
        gpu.main([])
    assert end.value.code == gpu.NO_GPU and "\n" not in gpu.NO_GPU


def test_the_processor_answers_like_itself(top, untrained_run):
    rows = list(gpu_answers.answers("cpu", top / "in_24", untrained_run(load_class_set("cinc2020")).path))
    assert all(row.passed for row in rows) and len(rows) == 6
    assert {row.found for row in rows if "float32" in row.what} == {"0.0e+00"}


@pytest.mark.parametrize("variant", gpu_speed.VARIANTS)
@pytest.mark.parametrize("script, flags", [("train", TINY), ("pretrain", TINY_PRETRAINING + ("--batch_size", "8"))])
def test_a_training_is_measured_by_its_script(script, flags, variant, top, monkeypatch):
    """With the batches that were asked for, in all epochs, and a network that is compiled if that was asked for."""
    seen = []
    compiled = []
    real = Trainer.train_one_epoch
    monkeypatch.setattr(PrefetchBatches, "_pin", staticmethod(lambda value: value))  # pinned memory needs a GPU
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    monkeypatch.setattr(Trainer, "train_one_epoch", lambda *a: seen.append(type(a[1])) or real(*a))
    network = gpu_speed.Network("a network", script, flags, 24)
    rate, busy = gpu_speed.training(network, variant, "cpu", top, 3)
    assert seen == 3 * [PrefetchBatches if "ahead" in variant else ResidentBatches]
    assert len(compiled) == ("--compile" in variant)
    assert rate.what == f"a network, {variant}: records/s" and float(rate.found.split()[0].replace(",", "")) > 0
    assert busy.found.endswith(" %") and int(busy.found.split()[0]) > 0


@pytest.fixture
def no_start(monkeypatch):
    """driver.py runs in this process, unless torchrun starts it: starting takes longest."""
    real = gpu_answers.run_python

    def run(first, *args):
        if first == "-m":
            real(first, *args)
        else:
            assert first.name == "driver.py" and driver.main([str(word) for word in args]) == 0

    monkeypatch.setattr(gpu_answers, "run_python", run)


@pytest.mark.slow
def test_two_processes_are_compared_with_one(top, tmp_path, no_start):
    (row,) = gpu_answers.equal_training("cpu", top / "in_24", tmp_path, TINY)
    assert row.passed and row.found == "0.0e+00"
    rows = list(gpu_answers.two_processes("cpu", 2, top / "in_24", tmp_path, TINY))
    assert len(rows) == 3 and all(row.passed for row in rows), rows
    (row,) = gpu_answers.two_processes("cpu", 1, top / "in_24", tmp_path)
    assert row.found == "not measured: there is 1 GPU"


def test_driver_is_compared_with_itself(top, tmp_path, no_start):
    rows = list(gpu_answers.driver("cpu", top / "in_1", top / "in_24", tmp_path))
    assert len(rows) == 6 and all(row.passed for row in rows), rows


def test_every_stage_has_its_turn_and_none_stops_the_others():
    def fails():
        yield findings.at_most("a", 2.0, 1.0)
        raise ValueError("too | bad")

    now = iter([0, 1, 2, 1000])
    late = ("d", lambda: iter(()))
    stages = [("b", fails), ("c", lambda: iter([findings.at_most("c", float("nan"), 1)])), late]
    rows = list(gpu.measured(iter(stages), lambda: next(now)))
    assert [row.what for row in rows] == ["a", "b", "c", "d"]
    assert [row.passed for row in rows] == [False, False, False, True]
    assert rows[1].found == "ValueError: too / bad" and rows[3].found.startswith("not measured: 8 minutes")
    lines = findings.table(rows).splitlines()
    assert len(lines) == 6 and {line.count("|") for line in lines} == {4}
    assert lines[2] == "| a | 2.0e+00 | at most 1: **failed** |"
    names = [name for name, _ in gpu.stages("cpu", 1, Path(), Path())]
    assert len(names) == len(set(names)) == 4 + len(gpu_speed.NETWORKS) * len(gpu_speed.VARIANTS)


def test_time_is_covered_once():
    assert gpu_speed.covered([]) == 0
    assert gpu_speed.covered([(5, 7), (0, 2), (1, 3), (1.5, 2), (3, 4)]) == 6


def test_float32_is_no_tf32_on_a_gpu():
    """The switches of PyTorch can be set without a GPU."""

    def switches():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = switches()
    assert before[0]  # otherwise this test says nothing
    with pytest.raises(KeyError), full_float32("cuda:1"):
        assert switches() == (False, False)
        raise KeyError
    assert switches() == before
    with full_float32("cpu"):
        assert switches() == before
