"""Schedule, EMA, checkpoints and run folders."""

import json
import math
import platform
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SameBatch

from data.labels import load_class_set
from data.preprocess import SignalConfig, window_starts
from engine.loop import MovingAverage, Trainer, make_optimizer, make_schedule
from engine.run_folder import RunError, RunFolder, new_run_path
from engine.trained_run import load_run, make_config
from engine.windows import BATCH, Windows, half_overlapping, in_threads, predict, window_batches
from models import build_model

ROOT = Path(__file__).resolve().parent.parent
MODEL = {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": 24}


def test_schedule_warms_up_and_ends_at_zero():
    optimizer = make_optimizer(torch.nn.Linear(3, 2), 0.1, 0.01)
    schedule = make_schedule(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(0.1) and rates[9] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:])) and rates[-1] < 1e-4


def test_vectors_are_not_decayed():
    decay = {
        p.ndim: group["weight_decay"]
        for group in make_optimizer(build_model(MODEL), 0.1, 0.5).param_groups
        for p in group["params"]
    }
    assert decay[1] == 0 and decay[2] == 0.5 and decay[4] == 0.5


def test_ema_is_the_weighted_mean_of_the_weights():
    model = torch.nn.Linear(1, 1, bias=False)
    ema = MovingAverage(model, 0.9)
    expected = model.weight.item()
    for step in range(1, 50):
        with torch.no_grad():
            model.weight.fill_(step)
        ema.update_parameters(model)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * step
    assert ema.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_a_nan_loss_stops_before_the_weights_change():
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, 0.1, 0)
    trainer = Trainer(model, optimizer, make_schedule(optimizer, 10), lambda m, b: m.weight.sum() * math.nan)
    trainer.names = list("abcdefgh")
    with pytest.raises(RunError, match="epoch 3: the loss or its gradient is NaN or infinite.* held e, h$"):
        trainer.train_one_epoch(SameBatch(2, [4, 7]), 3)
    assert (model.weight == before).all()


@pytest.fixture
def saved(tmp_path):
    model = build_model(MODEL)
    run = RunFolder(tmp_path)
    model.head.thresholds.uniform_()
    run.write_json(
        "config.json",
        make_config(
            SignalConfig(),
            load_class_set("cinc2020"),
            {"rule": "thresholds"},
            [{"model": MODEL, "seq_length": 250}],
            {},
            {"frequency": [0.1] * 24},
        ),
    )
    run.save("model.pth", {"members": [model.state_dict()]})
    return model, run


def test_save_and_load_give_the_same_model(saved):
    model, run = saved
    models, windows, signal, classes, _ = load_run(run.path)
    assert windows == [Windows(250, 125)] and signal == SignalConfig() and classes == load_class_set("cinc2020")
    for a, b in zip(model.state_dict().values(), models[0].state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("damage", ["truncated", "other sizes", "missing", "empty"])
def test_bad_weights_are_refused_by_name(damage, saved):
    _, run = saved
    if damage == "truncated":
        (run / "model.pth").write_bytes((run / "model.pth").read_bytes()[:1000])
    elif damage == "other sizes":
        run.save("model.pth", {"members": [build_model({**MODEL, "widths": [8, 16]}).state_dict()]})
    elif damage == "empty":
        run.save("model.pth", {"members": []})
    else:
        (run / "model.pth").unlink()
    with pytest.raises(RunError, match="model.pth"):
        load_run(run.path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"format": "other"},
        {"surprise": 1},
        {"members": []},
        {"members": [{"model": {"encoder": "nonsense"}, "seq_length": 1}]},
        {"signal": {"sample_freq": 100}},
        {"classes": None},
        {"decision": {"rule": "oracle"}},
        {"data": {}},
        {"data": {"frequency": [0.5]}},
    ],
)
def test_bad_configs_are_refused_by_name(change, saved):
    _, run = saved
    config = json.loads((run / "config.json").read_text())
    run.write_json("config.json", {**config, **change})
    with pytest.raises(RunError, match="config.json"):
        load_run(run.path)


def test_run_paths_follow_the_trailing_slash(tmp_path):
    assert new_run_path("some/run").as_posix() == "some/run"
    inside = new_run_path(f"{tmp_path}/")
    assert inside.parent == tmp_path
    assert re.fullmatch(r"output_\d{4}-\d\d-\d\d(_\d\d){3}_\d{6}", inside.name)


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.write_text("a.txt", "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="No space left"):
        run.write_text("a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_window_batches_hold_all_windows_of_all_recordings_and_pad_the_short():
    rng = np.random.default_rng(0)
    signals = [rng.integers(-2000, 2000, (12, n), np.int16) for n in (7, 250, 251, 1000, 20_000)]
    seen = {row: [] for row in range(len(signals))}
    for x, lengths, rows in window_batches(signals, half_overlapping(250)):
        assert x.dtype == np.float32 and len(x) <= BATCH
        for window, n, row in zip(x, lengths, rows):
            assert not window[:, n:].any()
            seen[row].append(window[:, :n])
    for row, signal in enumerate(signals):
        starts = window_starts(signal.shape[1], 250, 125)
        assert len(seen[row]) == len(starts)
        for window, start in zip(seen[row], starts):
            np.testing.assert_allclose(window, signal[:, start : start + 250] / 1000, atol=1e-6)


def test_windows_of_a_day_are_made_batch_by_batch():
    day = np.lib.stride_tricks.as_strided(np.zeros(1, np.int16), (12, 100 * 86_400), (0, 0))  # takes no memory itself
    tracemalloc.start()
    batches = sum(1 for _ in window_batches([day], half_overlapping(250)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert batches == math.ceil(len(window_starts(100 * 86_400, 250, 125)) / BATCH) and peak < 50e6


def test_threads_answer_in_order_and_read_little_ahead():
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    for i, (item, square) in enumerate(in_threads(lambda n: n * n, items(), 3)):
        assert (item, square) == (i, i * i)
        assert len(taken) <= i + 8
    assert len(taken) == 50
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 / n, range(3), 3))


def test_threads_change_no_probability(monkeypatch):
    torch.manual_seed(0)
    models = [build_model(MODEL).eval() for _ in range(3)]
    windows = [Windows(250, 0), Windows(250, 125), Windows(400, 0)]
    rng = np.random.default_rng(0)
    signals = [rng.integers(-900, 900, (12, n)).astype(np.int16) for n in (100, 250, 1000, 3333)]
    covariates = rng.random((4, 23)).astype(np.float32)
    alone = predict(models, windows, signals, covariates)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert np.array_equal(predict(models, windows, signals, covariates), alone)
    each = [predict([model], [own], signals, covariates) for model, own in zip(models, windows)]
    np.testing.assert_allclose(alone, np.mean(each, axis=0), atol=1e-7)


def test_memory_is_kept_where_the_c_library_can():
    """In a process of its own: the setting stays."""
    code = "from engine.allocator import keep_freed_memory; print(keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{platform.libc_ver()[0] == 'glibc'}\n"


def test_an_infinite_gradient_ends_training_before_it_reaches_the_weights():
    """The root of zero: the loss is a number, its derivative is not."""
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, 0.1, 0)
    trainer = Trainer(
        model,
        optimizer,
        make_schedule(optimizer, 10),
        lambda m, batch: (0 * m.weight.sum()).sqrt(),
        names=list("abcdefgh"),
    )
    with pytest.raises(RunError, match="held e, h$"):
        trainer.train_one_epoch(SameBatch(2, [4, 7]), 1)
    assert torch.equal(model.weight, before)
