"""What is hidden of a window, the network that predicts it, and the baselines beside it."""

import numpy as np
import pytest
import torch
from conftest import SMALL, SameBatch

from data.leads import INDEPENDENT, LEADS, limb_leads
from engine.hidden import by_kind
from engine.hidden_baselines import bridge, interpolated, regressed, second_moments
from engine.hiding import PATTERNS, Visible, hide
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.report_hidden import filled_in
from models import build_encoder
from models.hidden_samples import HiddenSamplesHead, HiddenSamplesModel


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


def test_samples_of_leads_that_were_not_recorded_do_not_count():
    """A missing lead is zero, which nobody should learn."""
    x, lengths = windows(16, 100), torch.full((16,), 100)
    visible = hide_with(x, lengths)
    values = torch.ones(16, 8, 100)
    every = by_kind(values, x, visible)
    assert every.sum() == visible.hidden.sum()
    x[:, 6] = 0
    assert by_kind(values, x, visible).sum() == visible.hidden.sum() - visible.hidden[:, 2].sum()


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
