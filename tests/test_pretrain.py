"""Pre-training: causal encoders, the loss, the baselines, and pretrain.py as a user runs it."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import TINY_HIDDEN, TINY_PRETRAINING, SameBatch, history, interrupt_and_resume
from hypothesis import given, settings
from hypothesis import strategies as st

import pretrain
from data.preprocess import SignalConfig
from engine.baselines import HISTORY, RIDGE, Persistence, fit_linear
from engine.forecasting import error_unit, huber, losses_ahead, typical_spread
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.run_folder import RunFolder
from models import CAUSAL_ENCODERS, build_encoder
from models.next_sample import NextSampleHead, NextSampleModel, samples_ahead

SMALL = {
    "transformer": {"encoder": "transformer", "patch": 4, "width": 16, "depth": 2, "n_heads": 2},
    "causal_resnet": {"encoder": "causal_resnet", "stem": 8, "widths": [8, 16], "depths": [2, 2], "kernel": 5},
}


def small_encoder(name, **changes):
    torch.manual_seed(0)
    return build_encoder(SMALL[name] | changes)


@pytest.mark.parametrize("name", CAUSAL_ENCODERS)
@pytest.mark.parametrize("mode", ["train", "eval"])
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_no_output_depends_on_later_samples(name, mode, data):
    encoder = small_encoder(name).train(mode == "train")
    length = data.draw(st.integers(3, 90), label="length")
    t = data.draw(st.integers(0, length - 1), label="t")
    x = torch.randn(2, 12, length, generator=torch.Generator().manual_seed(length))
    changed = x.clone()
    changed[..., t:] = data.draw(st.sampled_from([0.0, 3.0, -50.0]), label="value")
    outputs = []
    for signal in (x, changed):
        torch.manual_seed(1)  # the same dropout
        outputs.append(encoder(signal))
    seen = t // encoder.stride  # frames that end before t
    assert outputs[0].shape == (2, encoder.out_channels, -(-length // encoder.stride))
    assert torch.equal(outputs[0][..., :seen], outputs[1][..., :seen])
    assert not torch.equal(outputs[0][..., seen:], outputs[1][..., seen:])  # and the later ones do see it


def test_the_bidirectional_transformer_sees_everything_with_the_same_weights():
    causal, both = small_encoder("transformer").eval(), small_encoder("transformer", bidirectional=True).eval()
    both.load_state_dict(causal.state_dict(), strict=True)
    x = torch.randn(1, 12, 40)
    changed = x.clone()
    changed[..., -1] += 1
    assert torch.equal(causal(x)[..., :9], causal(changed)[..., :9]) and (both(x) != both(changed)).any(1).all()


@pytest.mark.parametrize(
    "name, changes", [("transformer", {}), ("transformer", {"bidirectional": True}), ("causal_resnet", {})]
)
@pytest.mark.parametrize("lengths", [1, 21, 24, 37])
def test_padding_changes_no_valid_frame(name, changes, lengths):
    encoder = small_encoder(name, **changes).eval()
    x = torch.randn(2, 12, 48)
    alone = encoder(x[:1, :, :lengths])
    padded = encoder(x, torch.tensor([lengths, 48]))  # what lies in the padding is noise here: it must be ignored
    assert torch.allclose(padded[:1, :, : alone.shape[2]], alone, atol=1e-5)
    assert torch.allclose(padded[1], encoder(x[1:])[0], atol=1e-5)


def test_attention_is_relative_in_time():
    """Rotary positions: a signal that starts later gives the same states later, when nothing lies before it."""
    encoder = small_encoder("transformer").eval()
    q, k = torch.randn(2, 1, 2, 1, 8)
    cos, sin = encoder.positions(30, "cpu")
    from models.transformer import rotate

    score = [
        (rotate(q, cos[i : i + 1, :4], sin[i : i + 1, :4]) * rotate(k, cos[j : j + 1, :4], sin[j : j + 1, :4])).sum(-1)
        for i, j in ((5, 2), (25, 22), (25, 2))
    ]
    assert torch.allclose(score[0], score[1], atol=1e-5) and not torch.allclose(score[0], score[2], atol=1e-3)


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_samples_ahead_against_a_loop(stride):
    x, lengths, ks = torch.randn(3, 12, 30), torch.tensor([30, 17, 4]), [1, 3, 9]
    last, future, valid = samples_ahead(x, lengths, ks, stride)
    frames = -(-30 // stride)
    assert last.shape == (3, 12, 1, frames) and future.shape == (3, 12, 3, frames) and valid.shape == (3, 1, 3, frames)
    for b in range(3):
        for i in range(frames):
            for j, k in enumerate(ks):
                seen = (i + 1) * stride - 1
                assert valid[b, 0, j, i] == (seen + k < lengths[b])
                if valid[b, 0, j, i]:
                    assert torch.equal(last[b, :, 0, i], x[b, :, seen]) and torch.equal(
                        future[b, :, j, i], x[b, :, seen + k]
                    )


def test_an_untrained_head_says_that_nothing_changes():
    last = torch.randn(2, 12, 1, 5)
    assert torch.equal(NextSampleHead(8, [1, 4], [0.1] * 12)(torch.randn(2, 8, 5), last), last.expand(2, 12, 2, 5))
    with pytest.raises(ValueError, match="k_steps_ahead"):
        NextSampleHead(8, [0, 4], [0.1] * 12)


def plain_loss(prediction, x, lengths, ks, stride, scale):
    """The loss of engine.forecasting, sample by sample; prediction(b, lead, seen, k) -> mV."""
    total, count = np.zeros(len(ks)), np.zeros(len(ks))
    for b, n in enumerate(lengths):
        for lead in range(12):
            signal = x[b, lead, :n].astype(np.float64)
            unit = max(scale[lead], np.abs(signal - signal.mean()).mean())
            for seen in range(stride - 1, n, stride):
                for j, k in enumerate(ks):
                    if seen + k < n:
                        error = abs(prediction(b, lead, seen, k) - signal[seen + k]) / unit
                        total[j] += error**2 / 2 if error < 1 else error - 0.5
                        count[j] += 1
    return total / count


def windows_of(rng, lengths, n=60):
    """x (B, 12, n) mV with noise in the padding, and as int16 recordings of those lengths."""
    x = rng.normal(0, 200, (len(lengths), 12, n)).astype(np.int16)
    x[0, 3] *= 40  # one noisy lead
    return [row[:, :length] for row, length in zip(x, lengths)]


def test_persistence_and_loss_against_a_plain_loop():
    signals, ks, stride = windows_of(np.random.default_rng(0), [60, 60, 33]), [1, 7, 20], 4
    scale = typical_spread(signals)
    for lead in range(12):
        spreads = [np.abs(s[lead] / 1000 - np.mean(s[lead] / 1000)).mean() for s in signals]
        assert scale[lead] == pytest.approx(sorted(spreads)[1], rel=1e-4)
    x = np.stack([np.pad(s, ((0, 0), (0, 60 - s.shape[1]))) for s in signals]) / 1000
    expected = plain_loss(lambda b, lead, seen, k: x[b, lead, seen], x, [60, 60, 33], ks, stride, scale)
    assert losses_ahead(Persistence(ks, stride), signals, 60, ks, stride, scale) == pytest.approx(expected, rel=1e-4)


def test_padding_never_counts_in_the_loss():
    torch.manual_seed(0)
    model = NextSampleModel(small_encoder("transformer"), [2, 9], [0.1] * 12).eval()
    torch.nn.init.normal_(model.head.out.weight)
    x, lengths = torch.randn(2, 12, 40), torch.tensor([40, 22])
    noisy = x.clone()
    noisy[1, :, 22:] = 1000.0
    sums = []
    for signal in (x, noisy):
        prediction, future, valid = model(signal, lengths)
        sums.append(huber(prediction, future, valid, error_unit(signal, lengths, torch.full((12,), 0.1))))
    assert torch.allclose(sums[0][0], sums[1][0]) and torch.equal(sums[0][1], sums[1][1])
    assert sums[0][1].tolist() == [12 * (9 + 5), 12 * (7 + 3)]  # frames with a sample 2 and 9 ahead, counted by hand


def test_one_noisy_lead_does_not_dominate():
    x = torch.randn(4, 12, 200) * 0.1
    x[:, 5] *= 1000
    lengths, scale = torch.full((4,), 200), torch.full((12,), 0.08)
    last, future, valid = samples_ahead(x, lengths, [10], 4)
    unit = error_unit(x, lengths, scale)
    whole = huber(last, future, valid, unit)[0]
    noisy = huber(last[:, 5:6], future[:, 5:6], valid, unit[:, 5:6])[0]
    assert 0.05 < (noisy / whole).item() < 0.15  # a twelfth is 0.083


def test_the_linear_predictor_against_least_squares():
    rng = np.random.default_rng(1)
    signals = [np.cumsum(rng.normal(0, 30, (12, n)), axis=1).astype(np.int16) for n in (80, 80, 64, 30)]
    ks, stride, freq = [1, 6], 4, 8.0
    order, scale = round(HISTORY * freq), typical_spread(signals)
    rows, targets = [], []
    for signal in signals:
        x = signal / 1000 / np.array(scale)[:, None]
        unit = [max(scale[lead], np.abs(s - s.mean()).mean()) / scale[lead] for lead, s in enumerate(signal / 1000)]
        for seen in range(stride - 1, x.shape[1], stride):
            if seen + max(ks) < x.shape[1]:
                history = [x[lead, max(seen - order + 1 + p, 0)] for lead in range(12) for p in range(order)]
                rows.append(np.array(history + [1]) / np.mean(unit))
                targets.append(
                    np.array([x[lead, seen + k] - x[lead, seen] for lead in range(12) for k in ks]) / np.mean(unit)
                )
    penalty = np.sqrt(RIDGE * len(rows)) * np.eye(12 * order + 1)[:-1]  # ridge as more equations; the constant is free
    expected = np.linalg.lstsq(
        np.vstack([rows, penalty]), np.vstack([targets, np.zeros((len(penalty), 24))]), rcond=None
    )[0]
    linear = fit_linear(signals, 80, ks, stride, scale, freq)
    assert np.allclose(linear.weights, expected, atol=1e-4)
    x = torch.from_numpy(signals[0][None] / 1000).float()
    history = [x[0, lead, 11 - order + 1 + p] / scale[lead] for lead in range(12) for p in range(order)]
    by_hand = x[0, 7, 11] + scale[7] * (np.array(history + [1]) @ expected)[7 * 2 + 1]
    assert linear(x, torch.tensor([80]))[0, 7, 1, 2] == pytest.approx(float(by_hand), abs=1e-4)
    with pytest.raises(ValueError, match="samples ahead"):
        fit_linear(signals, 80, [79], stride, scale, freq)


@pytest.mark.parametrize("name", CAUSAL_ENCODERS)
def test_a_model_learns_a_sine(name):
    torch.manual_seed(0)
    ks, lengths, scale = [3, 10], torch.full((8,), 64), torch.full((12,), 0.3)
    model = NextSampleModel(small_encoder(name, dropout=0.0), ks, scale.tolist())
    optimizer = make_optimizer(model, 1e-2, 0.0)

    def loss_of(predict, x):
        _, future, valid = samples_ahead(x, lengths, ks, 4)
        error, n = huber(predict(x, lengths), future, valid, error_unit(x, lengths, scale))
        return (error / n).mean()

    def sines():
        return torch.sin(torch.rand(8, 1, 1) * 6.28 + torch.arange(64) * 0.2) * torch.linspace(-1, 1, 12)[:, None]

    trainer = Trainer(
        model,
        optimizer,
        make_schedule(optimizer, 60),
        lambda model, _: loss_of(lambda x, n: model(x, n)[0], sines()),
        ema_decay=0.8,
    )
    trainer.train_one_epoch(SameBatch(60), 1)
    x = sines()
    with torch.no_grad():
        assert loss_of(lambda x, n: trainer.ema_model(x, n)[0], x) < 0.3 * loss_of(Persistence(ks, 4), x)


def test_the_run_folder_is_complete(pretrained):
    assert {f.name.removeprefix("pretrain_") for f in pretrained.iterdir()} == {
        "config.json",
        "model.pth",
        "final_model.pth",
        "checkpoint.pth",
        "history.csv",
        "history.png",
        "recordings.csv",
        "train_ids.txt",
        "valid_ids.txt",
        "skipped_records.csv",
        "record_warnings.txt",
    }
    config = json.loads((pretrained / "pretrain_config.json").read_text())
    assert (
        config["signal"] == SignalConfig().to_dict()
        and config["encoder"]["width"] == 16
        and config["head"]["k_steps_ahead"] == [5, 20]
    )
    train, valid = ((pretrained / f"pretrain_{part}_ids.txt").read_text().split() for part in ("train", "valid"))
    assert not set(train) & set(valid) and len(train) + len(valid) == 24


def test_the_history_compares_with_both_baselines(pretrained):
    epochs = history(pretrained / "pretrain_history.csv")
    assert len(epochs) == 2
    for row in epochs:
        row = {name: float(value) for name, value in row.items()}
        assert all(map(math.isfinite, row.values()))
        for baseline in ("persistence", "linear"):
            for end in ("", "_5", "_20"):
                assert row[f"skill_{baseline}{end}"] == pytest.approx(
                    1 - row[f"valid_loss{end}"] / row[f"{baseline}_loss{end}"]
                )
        assert row["valid_loss"] == pytest.approx((row["valid_loss_5"] + row["valid_loss_20"]) / 2)
    first, second = epochs
    assert first["linear_loss"] == second["linear_loss"]
    assert float(second["train_loss"]) < float(first["train_loss"])


def test_a_resumed_run_ends_like_an_uninterrupted_one(pretrained, few, tmp_path, run_script):
    args = ("--input_folder", few, *TINY_PRETRAINING)
    interrupt_and_resume("pretrain.py", *args, prefix="pretrain_", cwd=tmp_path, run_script=run_script)
    first, again = (RunFolder(run).load("pretrain_final_model.pth") for run in (pretrained, tmp_path / "run"))
    for part in ("encoder", "head"):
        assert first[part].keys() == again[part].keys() and all(
            torch.equal(first[part][name], again[part][name]) for name in first[part]
        )


@pytest.mark.parametrize("size", [TINY_PRETRAINING, TINY_HIDDEN], ids=["ahead", "hidden"])
def test_without_validation_the_last_epoch_is_kept(size, few, tmp_path, run_script):
    flags = ("--input_folder", few, "--folder", "run", *size, "--valid_split", 0, "--no-plots")
    run_script("pretrain.py", *flags, cwd=tmp_path)
    rows = history(tmp_path / "run" / "pretrain_history.csv")
    assert all(math.isnan(float(row["valid_loss"])) and math.isfinite(float(row["train_loss"])) for row in rows)
    best, last = (RunFolder(tmp_path / "run").load(f"pretrain_{name}.pth")["head"] for name in ("model", "final_model"))
    assert all(torch.equal(best[name], last[name]) for name in last)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--k_steps_ahead", "0", "5"), "--k_steps_ahead"),
        (("--k_steps_ahead", "900"), "--seq_length"),
        (("--encoder", "xresnet", "--k_steps_ahead", "5"), "looks both ways"),
        (("--encoder", "xresnet", "--width", "8"), "--width is not a size"),
        (("--widths", "8", "8"), "--widths is not a size"),
        (("--input_folder", "nowhere"), "no such folder"),
        (("--bidirectional",), "--bidirectional"),
    ],
)
def test_wrong_flags_are_clear_errors(arguments, message, capsys):
    with pytest.raises(SystemExit):
        pretrain.parse_args(arguments)
    assert message in capsys.readouterr().err


def test_sizes_that_do_not_fit_are_a_clear_error(few, tmp_path, run_script):
    failed = run_script("pretrain.py", "--input_folder", few, "--width", "15", cwd=tmp_path, check=False)
    assert failed.returncode != 0 and "width 15" in failed.stderr and "Traceback" not in failed.stderr
