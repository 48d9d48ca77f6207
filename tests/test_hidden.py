"""Pre-training of encoders that look both ways: what is hidden, what is asked, the baselines, and pretrain.py."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_HIDDEN, SameBatch, fake_ecg, history, interrupt_and_resume, write_record

import pretrain
import train
from data.beats import AFTER, BEFORE, N_COMPONENTS, UnseenBeats, find_beats, fit_components
from data.leads import INDEPENDENT, LEADS, limb_leads
from data.rhythm import r_peaks
from engine.distributed import ProcessGroup
from engine.handover import FINE_TUNING
from engine.hidden import HiddenSamples, Targets, by_kind, summary_sums
from engine.hidden_baselines import bridge, interpolated, regressed, second_moments
from engine.hiding import PATTERNS, Visible, hide
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.report_hidden import filled_in
from engine.run_folder import RunFolder
from engine.windows import half_overlapping
from models import build_encoder
from models.hidden_samples import HiddenSamplesHead, HiddenSamplesModel

SMALL = {
    "xresnet": {"encoder": "xresnet", "stem": 8, "widths": [8, 16], "depths": [1, 1], "dropout": 0.0},
    "resnet": {"encoder": "resnet", "filters": [8, 8, 16], "lengths": [16, 8, 4], "kernel": 5, "dropout": 0.0},
}


def small_model(name="xresnet", n_summary=3):
    torch.manual_seed(0)
    return HiddenSamplesModel(build_encoder(SMALL[name]), [0.2] * 8, n_summary).eval()


def windows(n, length, seed=0):
    """(n, 12, length) mV of noise that obeys Einthoven's law; no sample is zero."""
    leads = np.random.default_rng(seed).normal(size=(n, 8, length)).astype(np.float32)
    limb = np.stack([limb_leads(*window[:2]) for window in leads])
    return torch.from_numpy(np.concatenate([leads[:, :2], limb, leads[:, 2:]], 1))


def hide_with(x, lengths, seed=1, sample_freq=100.0):
    return hide(x, lengths, sample_freq, torch.Generator().manual_seed(seed))


def test_the_limb_leads_follow_from_two():
    leads = dict(zip(LEADS, windows(1, 9)[0].numpy()))
    assert leads["III"] == pytest.approx(leads["II"] - leads["I"], abs=1e-6)
    assert leads["aVR"] == pytest.approx(-(leads["I"] + leads["II"]) / 2, abs=1e-6)
    assert leads["aVL"] == pytest.approx((leads["I"] - leads["III"]) / 2, abs=1e-6)
    assert leads["aVF"] == pytest.approx((leads["II"] + leads["III"]) / 2, abs=1e-6)
    assert [LEADS[i] for i in INDEPENDENT] == ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]


def test_hidden_samples_never_influence_the_output():
    """Nor do they by way of the leads that follow from them."""
    x, lengths = windows(64, 200), torch.full((64,), 200)
    hidden = hide_with(x, lengths).hidden
    changed = x.clone()
    changed[:, list(INDEPENDENT)] += 7 * hidden
    for window in changed:
        window[2:6] = torch.from_numpy(limb_leads(*window[:2].numpy()))
    ways = [hide_with(signal, lengths) for signal in (x, changed)]
    assert hidden.any() and not torch.equal(x, changed)
    # Where both leads are visible the others are computed anew here, which rounds.
    torch.testing.assert_close(ways[0].x, ways[1].x, atol=1e-6, rtol=0)
    model = small_model()
    for one, other in zip(*(model(way.x, lengths) for way in ways)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_what_is_hidden_is_zero_and_the_rest_as_it_was():
    lengths = torch.tensor([200, 130] * 200)
    x = windows(400, 200) * (torch.arange(200) < lengths[:, None])[:, None]
    visible = hide_with(x, lengths)
    for i in range(400):
        for j, lead in enumerate(INDEPENDENT):
            shown = visible.leads[i, j] & visible.moments[i]
            assert torch.equal(visible.x[i, lead], torch.where(shown, x[i, lead], 0.0))
            assert torch.equal(visible.hidden[i, j, : lengths[i]], ~shown[: lengths[i]])
        both = visible.leads[i, 0] & visible.leads[i, 1] & visible.moments[i]
        assert torch.equal(visible.x[i, 2:6], torch.where(both, x[i, 2:6], 0.0))
        assert not visible.hidden[i, :, lengths[i] :].any()  # padding never counts
        stretch = (~visible.moments[i, : lengths[i]]).nonzero().flatten()
        if len(stretch):  # one, of 0.3 to 1.2 s, and half of a window at the most
            assert len(stretch) == stretch[-1] - stretch[0] + 1
            assert 30 <= len(stretch) <= min(120, lengths[i] // 2)


def test_how_often_what_is_hidden():
    visible = hide_with(torch.zeros(8000, 12, 250), torch.full((8000,), 250))
    leads = visible.leads
    limb = leads[:, :2].sum(1)
    n_chest = leads[:, 2:].sum(1)
    assert sum(share for share, *_ in PATTERNS) == pytest.approx(1)
    assert (limb == 1).float().mean() == pytest.approx(0.6 * 0.15, abs=0.015)  # lead I alone
    assert leads[limb == 1, 0].all() and (n_chest[limb == 1] == 0).all()
    assert (limb == 0).float().mean() == pytest.approx(0.6 * 0.2, abs=0.015)
    assert leads[limb == 0, 2:].float().mean() == pytest.approx(0.7, abs=0.02)
    assert (n_chest[limb == 2] == 0).float().mean() == pytest.approx((0.6 * (0.15 + 0.5 / 64)) / 0.79, abs=0.015)
    assert (n_chest[limb == 2] == 6).float().mean() == pytest.approx((0.4 + 0.3 / 64) / 0.79, abs=0.02)
    length = (~visible.moments).sum(1)
    assert (length > 0).float().mean() == pytest.approx(0.6, abs=0.02)
    assert length[length > 0].float().mean() == pytest.approx(75, abs=2)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("length", [36, 64])
def test_a_padded_window_is_answered_like_the_window_alone(name, length):
    model, x = small_model(name), windows(2, 96)
    x[0, :, length:] = 0
    samples, summary = model(x, torch.tensor([length, 96]))
    alone, alone_summary = model(x[:1, :, :length])
    torch.testing.assert_close(samples[:1, :, :length], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(summary[:1], alone_summary, atol=1e-5, rtol=1e-4)


def test_the_decoders_samples_are_in_order():
    """Frame i says the samples i * stride to (i + 1) * stride - 1 of each lead: against a loop."""
    head = HiddenSamplesHead(6, 4, [0.1, 2.0], 1).eval()
    features = torch.randn(3, 6, 5)
    samples, _ = head(features, None, 18)
    frames = head.decoder(features)  # (3, 2 * 4, 5)
    assert samples.shape == (3, 2, 18)
    for lead, scale in ((0, 0.1), (1, 2.0)):
        for t in range(18):
            torch.testing.assert_close(samples[:, lead, t], frames[:, lead * 4 + t % 4, t // 4] * scale)


def test_a_model_learns_to_copy_what_it_sees_where_it_is():
    torch.manual_seed(0)
    model = HiddenSamplesModel(build_encoder(SMALL["xresnet"]), [1.0] * 8, 1)

    def impulses():
        x = torch.zeros(16, 12, 64)
        place = torch.randint(8, 56, (16,))
        x[torch.arange(16), :, place] = 5.0
        return x, place

    def loss_fn(model, _):
        x, _ = impulses()
        return (model(x)[0] - x[:, list(INDEPENDENT)]).square().mean()

    optimizer = make_optimizer(model, 1e-2, 0.0)
    Trainer(model, optimizer, make_schedule(optimizer, 80), loss_fn, ema_decay=0.9).train_one_epoch(SameBatch(80), 1)
    x, place = impulses()
    with torch.no_grad():
        found = model.train()(x)[0].mean(1).argmax(1)
    assert (found == place).float().mean() > 0.9


# ---- baselines


def test_the_linear_baseline_against_least_squares():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(8, 8))
    recordings = []
    for n in (400, 300):
        leads = np.round(mixing @ rng.normal(size=(8, n)) * 200).astype(np.int16)
        recordings.append(np.concatenate([leads[:2], np.zeros((4, n), np.int16), leads[2:]]))
    data = np.concatenate([r[list(INDEPENDENT)] for r in recordings], 1) / 1000  # (8, 700)
    x = torch.from_numpy(recordings[0][None, :, :50] / 1000).float()
    shown = torch.tensor([[True, True, False, True, False, False, True, False]])
    moments = torch.ones(1, 50, dtype=torch.bool)
    moments[0, 20:30] = False
    every = torch.cat([shown[:, :2], torch.ones(1, 4, dtype=torch.bool), shown[:, 2:]], 1)
    left = x * every[:, :, None] * moments[:, None]
    visible = Visible(left, shown, moments, ~(shown[:, :, None] & moments[:, None]))
    predicted = regressed(visible, second_moments(recordings))[0]
    inputs = data[shown[0].numpy()]  # (4, 700)
    weights = np.linalg.lstsq(inputs.T, data.T, rcond=None)[0]  # (4, 8)
    expected = (inputs[:, :50].T @ weights).T
    outside = moments[0].numpy()
    assert predicted[:, outside].numpy() == pytest.approx(expected[:, outside], abs=1e-3)
    assert torch.equal(predicted[:, ~outside], interpolated(visible)[0][:, ~outside])  # nothing is visible there


def test_a_silent_lead_does_not_break_the_linear_baseline():
    x = windows(4, 60)
    x[:, 8] = 0
    visible = hide_with(x, torch.full((4,), 60))
    signals = [(window * 1000).numpy().astype(np.int16) for window in x]
    assert torch.isfinite(regressed(visible, second_moments(signals))).all()
    assert torch.isfinite(regressed(visible, torch.zeros(8, 8, dtype=torch.float64))).all()


def test_interpolation_against_numpy():
    x = torch.randn(3, 8, 40)
    moments = torch.ones(3, 40, dtype=torch.bool)
    moments[0, 10:20] = False
    moments[1, :7] = False
    moments[2, 25:] = False
    filled = bridge(x, moments)
    for i in range(3):
        known = np.flatnonzero(moments[i])
        for lead in range(8):
            expected = np.interp(np.arange(40), known, x[i, lead, known].numpy())
            assert filled[i, lead].numpy() == pytest.approx(expected, abs=1e-5)
    nothing = torch.zeros(1, 40, dtype=torch.bool)
    assert torch.isfinite(bridge(x[:1], nothing)).all()


# ---- the unseen beats


@pytest.fixture(scope="module")
def ecgs():
    """{row: (12, 1000) int16 microvolts}, 100 Hz, of recordings with beats that resemble each other."""
    rng = np.random.default_rng(3)
    drawn = [fake_ecg(rng, 10, 100) for _ in range(30)]
    kept = [signal for signal in drawn if find_beats(signal / 1000, 100.0).typical.sum() > 4]
    return dict(enumerate(kept[:12]))


@pytest.mark.parametrize("sample_freq", [100.0, 250.0])
def test_beats_against_a_slow_plain_version(sample_freq):
    rng = np.random.default_rng(1)
    signal = fake_ecg(rng, 12, int(sample_freq)) / 1000
    found = find_beats(signal, sample_freq)
    step = 1 if sample_freq == 100 else 2
    before, after = round(BEFORE * sample_freq / step) * step, round(AFTER * sample_freq / step) * step
    shapes, begins = [], []
    for peak in r_peaks(signal, sample_freq):
        if peak - before < 0 or peak + after > signal.shape[1]:
            continue
        shape = []
        for lead in INDEPENDENT:
            level = np.median(signal[lead])
            for t in range(peak - before, peak + after, step):
                shape.append(np.clip(np.mean([signal[lead, t + i] - level for i in range(step)]), -3, 3))
        shapes.append(shape)
        begins.append(peak - before)
    assert found.begins.tolist() == begins and (found.ends - found.begins == before + after).all()
    assert found.shapes == pytest.approx(np.array(shapes), abs=1e-5)
    median = np.median(shapes, axis=0)
    assert found.typical.tolist() == [np.corrcoef(shape, median)[0, 1] > 0.85 for shape in shapes]


def test_targets_against_a_slow_plain_version(ecgs):
    train = np.arange(9)
    unseen = UnseenBeats(ecgs, train, 100.0, 250)
    beats = {row: find_beats(signal / 1000, 100.0) for row, signal in ecgs.items()}
    means = np.array([beats[row].shapes[beats[row].typical].mean(0) for row in train], np.float64)
    values, axes = np.linalg.eigh(np.cov(means.T, bias=True))
    order = np.argsort(values)[::-1][:8]  # nine mean beats have eight axes
    spread = np.sqrt(values[order])
    weights = axes[:, order] / np.sqrt(spread) / np.sqrt(spread.sum() / N_COMPONENTS)
    mine = unseen.components.weights
    assert (mine[:, 8:] == 0).all()
    weights *= np.sign((weights * mine[:, :8]).sum(0))
    rows, starts = np.array([0, 4, 10, 11]), np.array([0, 333, 750, 500])
    answer = unseen(rows, starts)
    logs = []
    for row in train:
        numbers = (beats[row].shapes - means.mean(0)) @ weights
        logs.append(np.log(numbers.std(0) + 0.03))
    for i, (row, start) in enumerate(zip(rows, starts)):
        outside, typical = [], []
        for begin, end, shape, is_typical in zip(*vars(beats[row]).values()):
            if end <= start or begin >= start + 250:  # no sample of the beat is in the window
                outside.append((shape - means.mean(0)) @ weights)
                typical += [outside[-1]] if is_typical else []
        assert answer.has_beat[i] == (len(typical) > 0) and answer.has_variation[i] == (len(outside) > 2)
        assert answer.beat[i, :8] == pytest.approx(np.mean(typical, axis=0), abs=2e-3)
        expected = (np.log(np.std(outside, axis=0) + 0.03) - np.mean(logs, axis=0)) / np.std(logs, axis=0)
        assert answer.variation[i, :8] == pytest.approx(expected, abs=2e-2)
        assert (answer.beat[i, 8:] == 0).all() and np.abs(answer.variation[i, 8:]).max() < 1e-6


def test_targets_use_no_beat_that_the_window_shows(ecgs):
    unseen = UnseenBeats(ecgs, np.arange(9), 100.0, 250)
    before = unseen(np.array([2]), np.array([400]))
    beats = unseen.beats[2]
    numbers = beats.shapes
    shown = [i for i in range(len(numbers)) if set(range(beats.begins[i], beats.ends[i])) & set(range(400, 650))]
    assert 0 < len(shown) < len(numbers)
    numbers[shown] = np.nan
    after = unseen(np.array([2]), np.array([400]))
    assert after.has_beat and np.array_equal(before.beat, after.beat)
    assert np.array_equal(before.variation, after.variation)


def test_what_validation_keeps_is_what_it_would_find_anew(ecgs, monkeypatch):
    """Also once the beats of its recordings are forgotten; those that train are still known."""
    signals = [ecgs[row] for row in sorted(ecgs)]
    windows = half_overlapping(250)
    cache = SimpleNamespace(signal=signals.__getitem__, covariates=np.zeros((len(signals), 23), np.float32))
    train_rows, valid_rows = np.arange(9), np.arange(9, len(signals))
    recordings = SimpleNamespace(cache=cache, train=train_rows, valid=valid_rows)
    monkeypatch.setattr("engine.windows.BATCH", 3)
    flags = SimpleNamespace(seq_length=250, sample_freq=100.0)
    objective = HiddenSamples(flags, build_encoder(SMALL["xresnet"]), recordings, ProcessGroup(), None)
    anew = UnseenBeats(ecgs, train_rows, 100.0, 250)
    places = [(row, start) for row in valid_rows for start in windows.starts(signals[row].shape[1])]
    for _ in range(2):
        batches = [targets for *_, targets in objective._valid_windows()]
        assert len(batches) == -(-len(places) // 3) > 1
        known = torch.cat([targets.known for targets in batches])
        beats, variations = (torch.cat([targets.values[i] for targets in batches]).numpy() for i in (0, 1))
        for i, (row, start) in enumerate(places):
            unseen = anew(np.array([row]), np.array([start]))
            assert beats[i] == pytest.approx(unseen.beat[0], abs=1e-5)
            assert variations[i] == pytest.approx(unseen.variation[0], abs=1e-5)
            assert known[i].tolist() == [unseen.has_beat[0], unseen.has_variation[0], False]
    assert set(objective.beats.beats) == set(train_rows)


def test_of_many_recordings_some_are_enough_for_the_components(ecgs, monkeypatch):
    """The components are those of the recordings that were taken; the beats of all are known in them."""
    monkeypatch.setattr("data.beats.FIT_ON", 3)
    unseen = UnseenBeats(ecgs, np.arange(9), 100.0, 250)
    of_some = UnseenBeats({row: ecgs[row] for row in (0, 4, 8)}, np.array([0, 4, 8]), 100.0, 250)
    assert np.array_equal(unseen.components.weights, of_some.components.weights)
    shapes = find_beats(ecgs[5] / 1000, 100.0).shapes
    assert unseen.beats[5].shapes == pytest.approx(unseen.components(shapes), abs=1e-4)
    assert set(unseen.beats) == set(ecgs)


def test_an_amplified_recording_has_amplified_targets():
    shapes = np.random.default_rng(0).normal(size=(30, 80)).astype(np.float32)
    components = fit_components(shapes)
    assert np.square(components(shapes)).mean() == pytest.approx(1, abs=1e-3)
    of_mean = components.of_mean
    assert (components(shapes) + of_mean) * 1.3 - of_mean == pytest.approx(components(1.3 * shapes), abs=1e-3)


def test_recordings_without_beats_have_no_targets():
    flat = {row: np.zeros((12, 300 + 100 * row), np.int16) for row in range(3)}
    short = {3: fake_ecg(np.random.default_rng(0), 2.5, 100), 4: np.zeros((12, 40), np.int16)}
    unseen = UnseenBeats(flat | short, np.arange(5), 100.0, 250)
    answer = unseen(np.arange(5), np.zeros(5, int))
    assert not answer.has_beat.any() and not answer.has_variation.any()
    assert not answer.beat.any() and not answer.variation.any()
    assert len(find_beats(fake_ecg(np.random.default_rng(0), 10, 30) / 1000, 30.0).begins) == 0


def test_targets_that_are_not_known_do_not_count():
    values = (torch.randn(4, 64), torch.randn(4, 16), torch.randn(4, 19))
    known = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    summary = torch.randn(4, 99)
    sums = torch.cat(summary_sums(summary, Targets(values, known)))
    beat = sum(((summary[i, :64] - values[0][i]) ** 2).mean() for i in (0, 1, 3))
    rhythm = sum(((summary[i, 80:] - values[2][i]) ** 2).mean() for i in (0, 2, 3)) * 4
    torch.testing.assert_close(sums, torch.stack([beat, torch.tensor(0.0), rhythm]))


# ---- pretrain.py and what follows


def test_the_history_compares_with_baselines(pretrained_xresnet):
    rows = history(pretrained_xresnet / "pretrain_history.csv")
    assert len(rows) == 2
    for row in rows:
        row = {name: float(value) for name, value in row.items()}
        assert all(map(math.isfinite, row.values()))
        for end in ("", "_stretches", "_leads"):
            for baseline in ("interpolation", "linear"):
                saved = 1 - row[f"hidden_loss{end}"] / row[f"hidden_{baseline}_loss{end}"]
                assert row[f"skill_{baseline}{end}"] == pytest.approx(saved)
        for name in ("beat", "variation", "rhythm"):
            assert row[f"skill_{name}"] == pytest.approx(1 - row[f"{name}_loss"] / row[f"{name}_constant_loss"])
        parts = row["hidden_loss"] + row["beat_loss"] + 0.3 * row["variation_loss"] + 0.3 * row["rhythm_loss"]
        assert row["valid_loss"] == pytest.approx(parts)
        assert row["hidden_linear_loss_leads"] < row["hidden_interpolation_loss_leads"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    config = json.loads((pretrained_xresnet / "pretrain_config.json").read_text())
    flags = config["training"]
    assert (flags["lr"], flags["weight_decay"], flags["ema_decay"], flags["seq_length"]) == (0.005, 0.01, 0.995, 250)
    assert len(config["head"]["scale"]) == 8


def test_a_resumed_run_ends_like_an_uninterrupted_one(pretrained_xresnet, few, tmp_path, run_script):
    args = ("--input_folder", few, *TINY_HIDDEN)
    interrupt_and_resume("pretrain.py", *args, prefix="pretrain_", cwd=tmp_path, run_script=run_script)
    first, again = (RunFolder(run).load("pretrain_final_model.pth") for run in (pretrained_xresnet, tmp_path / "run"))
    for part in ("encoder", "head"):
        assert first[part].keys() == again[part].keys()
        assert all(torch.equal(first[part][name], again[part][name]) for name in first[part])
    both = (history(run / "pretrain_history.csv") for run in (pretrained_xresnet, tmp_path / "run"))
    assert next(both) == next(both)


@pytest.mark.parametrize("sample_freq, seconds", [(50, 2), (400, 4)])
def test_other_rates_and_short_recordings(sample_freq, seconds, tmp_path, run_script):
    rng = np.random.default_rng(0)
    for i in range(10):
        signal = fake_ecg(rng, seconds) if i else np.zeros((12, 500 * seconds), np.int16)
        write_record(tmp_path / "in", f"R{i}", signal)
    flags = ("--input_folder", "in", "--folder", "run", "--sample_freq", sample_freq, *TINY_HIDDEN, "--batch_size", 4)
    run_script("pretrain.py", *flags, "--epochs", 1, "--no-plots", cwd=tmp_path)
    (row,) = history(tmp_path / "run" / "pretrain_history.csv")
    assert math.isfinite(float(row["train_loss"])) and math.isfinite(float(row["valid_loss"]))
    assert math.isfinite(float(row["hidden_loss"])) and math.isfinite(float(row["beat_loss"])) == (seconds > 2)


def test_fine_tuning_starts_from_the_weights(pretrained_xresnet, few, tmp_path, run_script):
    shutil.copytree(pretrained_xresnet, tmp_path / "run")
    brief = ("--epochs", "1", "--batch_size", "8", "--no-plots", "--freeze_encoder")
    run_script("train.py", "--input_folder", few, "--folder", "run", *brief, cwd=tmp_path)
    trained = RunFolder(tmp_path / "run").load("model.pth")["members"][0]
    saved = RunFolder(pretrained_xresnet).load("pretrain_model.pth")["encoder"]
    assert all(torch.equal(trained[f"encoder.{name}"], value) for name, value in saved.items())


def test_fine_tuning_has_its_own_defaults(pretrained_xresnet, pretrained, few, tmp_path):
    base = ["--input_folder", str(few)]
    args, start = train.parse_args([*base, "--folder", str(pretrained_xresnet)])
    assert start.encoder["encoder"] == "xresnet"
    assert {name: getattr(args, name) for name in FINE_TUNING["xresnet"]} == FINE_TUNING["xresnet"]
    assert args.model_config(3)["head_dropout"] == 0.5 and args.encoder_config()["dropout"] == 0.3
    # What is typed holds, also where it is what training from scratch would do.
    typed = ["--lr", "0.002", "--epochs", "60", "--encoder_lr_factor", "0.3", "--dropout", "0.1", "--head_dropout", "0"]
    args, _ = train.parse_args([*base, "--folder", str(pretrained_xresnet), *typed])
    assert (args.lr, args.epochs, args.encoder_lr_factor, args.dropout, args.head_dropout) == (0.002, 60, 0.3, 0.1, 0)
    args, _ = train.parse_args([*base, "--folder", str(pretrained)])
    assert (args.lr, args.epochs, args.encoder_lr_factor, args.dropout) == (0.002, 60, 0.3, 0.1)
    args, _ = train.parse_args(base)
    assert (args.lr, args.epochs, args.encoder_lr_factor) == (0.01, 60, 0.3)


def test_a_fine_tuning_as_long_as_one_from_scratch_is_resumed(pretrained_xresnet, few, tmp_path):
    """Flags that were typed as what is usual from scratch are not taken for unset ones."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(pretrained_xresnet, run.path)
    typed = ["--epochs", "60", "--encoder_lr_factor", "0.3"]
    args, _ = train.parse_args(["--input_folder", str(few), "--folder", str(run.path), *typed])
    config = json.loads((run / "pretrain_config.json").read_text())
    kept = {name: config[name] for name in ("signal", "data", "versions", "git_commit")}
    added = {"format": "12ecg-run", "version": 2, "classes": {}, "decision": {}, "members": []}
    run.write_json("config.json", {**kept, **added, "training": args.settings()})
    resumed, _ = train.parse_args(["--folder", str(run.path), "--resume"])
    assert resumed.settings() == args.settings() and (resumed.epochs, resumed.encoder_lr_factor) == (60, 0.3)


def test_what_is_drawn_is_the_models(tmp_path):
    model = small_model()
    signal = windows(1, 1000)[0].numpy()
    page = filled_in(model, signal, 100.0, 250)
    middle = slice(335, 415)  # 0.8 s about 3.75 s, the middle of the second column
    x = torch.from_numpy(signal[None, :, 250:500].copy())
    x[..., 85:165] = 0
    with torch.inference_mode():
        leads = model(x)[0][0, :, 85:165].numpy()
    assert page[list(INDEPENDENT), middle] == pytest.approx(leads, abs=1e-6)
    assert page[2, middle] == pytest.approx(leads[1] - leads[0], abs=1e-6)
    assert np.isfinite(page).all(0).sum() == 4 * 80
    assert np.isnan(filled_in(model, signal[:, :100], 100.0, 250)).all()


def test_samples_of_leads_that_were_not_recorded_do_not_count():
    """A missing lead is zero, which nobody should learn."""
    x, lengths = windows(16, 100), torch.full((16,), 100)
    visible = hide_with(x, lengths)
    values = torch.ones(16, 8, 100)
    every = by_kind(values, x, visible)
    assert every.sum() == visible.hidden.sum()
    x[:, 6] = 0
    assert by_kind(values, x, visible).sum() == visible.hidden.sum() - visible.hidden[:, 2].sum()


def test_without_validation_the_last_epoch_is_kept(few, tmp_path, run_script):
    flags = ("--input_folder", few, "--folder", "run", *TINY_HIDDEN, "--valid_split", 0, "--no-plots")
    run_script("pretrain.py", *flags, cwd=tmp_path)
    rows = history(tmp_path / "run" / "pretrain_history.csv")
    assert all(math.isnan(float(row["valid_loss"])) and math.isfinite(float(row["train_loss"])) for row in rows)
    best, last = (RunFolder(tmp_path / "run").load(f"pretrain_{name}.pth")["head"] for name in ("model", "final_model"))
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_defaults_follow_the_encoder(pretrained, few):
    base = ["--input_folder", str(few)]
    args = pretrain.parse_args(base)
    assert (args.encoder, args.lr, args.epochs, args.seq_length, args.gain) == ("transformer", 0.002, 50, 800, 0.2)
    assert args.k_steps_ahead[-1] == 100
    args = pretrain.parse_args([*base, "--encoder", "resnet", "--lr", "0.1"])
    assert (args.lr, args.epochs, args.seq_length, args.ema_decay, args.gain) == (0.1, 100, 250, 0.995, 0.25)
    assert args.k_steps_ahead is None and args.dropout is None
    # --config with another encoder takes over what was chosen, not what was usual for the first one.
    repeat = ["--config", str(pretrained / "pretrain_config.json"), "--encoder", "causal_resnet"]
    args = pretrain.parse_args(repeat)
    assert (args.k_steps_ahead, args.seq_length, args.epochs, args.lr) == ([5, 20], 400, 2, 0.002)
    with pytest.raises(SystemExit):
        pretrain.parse_args([*repeat[:-1], "xresnet"])
    args = pretrain.parse_args([*repeat[:2]])
    assert args.k_steps_ahead == [5, 20] and args.width == 16
