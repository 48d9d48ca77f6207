"""Few leads: what a window of the training keeps, that the driver would read the same, and the shipped model."""

import numpy as np
import pytest
import torch
from conftest import ROOT, fake_ecg, write_record

import driver
from data.covariates import LEAD_SUBSETS, recording_covariates, subset_covariates
from data.labels import load_class_set
from data.leads import LEADS
from data.measures import recording_numbers
from data.preprocess import SignalConfig, preprocess, to_microvolts, to_millivolts
from data.records import parse_header, read_record
from engine.augment import augment, keep_lead_subset
from engine.inference import load_predictor
from models import build_model

RECORDED = (("I", "II"), ("I", "II", "V2"), ("I",))  # leads of a recorder that stand for each of LEAD_SUBSETS
TINY = {"encoder": "xresnet", "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": 4, "n_covariates": 3}


def header_of(names, n):
    return parse_header(
        [f"R {len(names)} 500 {n}"] + [f"R.dat 16 1000/mV 16 0 0 0 0 {name}" for name in names] + ["#Age: 50"]
    )


@pytest.mark.parametrize("number", range(len(LEAD_SUBSETS)))
def test_subsets_are_what_preprocessing_gives_for_a_recorder_with_few_leads(number):
    one, two, *_, v1, v2, v3, v4, v5, v6 = fake_ecg(np.random.default_rng(number)).astype(np.float64)
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]  # not rounded, so equal to the derived
    signal = np.array([*limb, v1, v2, v3, v4, v5, v6])
    rows = [LEADS.index(name) for name in RECORDED[number]]
    header = header_of(RECORDED[number], signal.shape[1])
    few = to_microvolts(preprocess(signal[rows], header, SignalConfig()))
    assert {name for name, lead in zip(LEADS, few) if lead.any()} == set(LEAD_SUBSETS[number])

    whole = to_microvolts(preprocess(signal, header_of(LEADS, signal.shape[1]), SignalConfig()))
    expected = recording_covariates(few, 100, 50, "Unknown")
    got = subset_covariates(whole, 100, recording_covariates(whole, 100, 50, "Unknown"))[number]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_a_window_keeps_exactly_one_subset_and_its_covariates():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 12, 8, generator=generator)
    every = torch.arange(4.0).expand(3000, 4)[:, :, None]  # covariate 0: all leads, 1 to 3: the subsets
    config = dict.fromkeys(("gain", "band", "mixup", "lead_dropout"), 0) | {"wander": 1.0, "noise": 1.0}
    y, mask, lengths = torch.zeros(3000, 2), torch.ones(3000, 2), torch.full((3000,), 8)
    noisy = augment(x, y, mask, lengths, config, generator)[0]
    kept, covariates = keep_lead_subset(noisy, every[:, 0], every[:, 1:], 0.6, generator)
    count = np.zeros(4)
    for window, before, number in zip(kept, noisy, covariates[:, 0].int().tolist()):
        names = (LEADS, *LEAD_SUBSETS)[number]
        for lead, lead_before, name in zip(window, before, LEADS):
            assert torch.equal(lead, lead_before) if name in names else not lead.any()
        count[number] += 1
    np.testing.assert_allclose(count / 3000, [0.4, 0.2, 0.2, 0.2], atol=0.04)  # four standard deviations


def test_no_window_changes_where_the_share_is_zero():
    x, covariates = torch.randn(9, 12, 8), torch.randn(9, 5)
    same, still = keep_lead_subset(x, covariates, torch.zeros(9, 3, 5), 0.0, torch.Generator())
    assert torch.equal(same, x) and torch.equal(still, covariates)


def test_the_head_is_told_which_leads_are_missing():
    torch.manual_seed(0)
    flagged = build_model({**TINY, "lead_flags": True}).eval()
    plain = build_model({**TINY, "n_covariates": 3 + 12}).eval()
    plain.load_state_dict(flagged.state_dict())
    x, covariates = torch.randn(2, 12, 100), torch.randn(2, 3)
    x[0, 1:] = 0
    flags = torch.zeros(2, 12)
    flags[0, 1:] = -1
    assert torch.equal(flagged(x, None, covariates), plain(x, None, torch.cat([covariates, flags], 1)))
    nothing = torch.cat([torch.zeros(2, 3), flags], 1)
    assert torch.equal(flagged(x), plain(x, None, nothing))
    alone = build_model({**TINY, "n_covariates": 0, "lead_flags": True}).eval()
    assert torch.equal(alone(x, None, covariates), alone(x))


@pytest.fixture(scope="module")
def shipped():
    return load_predictor(ROOT / "mdl")


def test_the_shipped_model_is_one_network_that_is_told_which_leads_are_missing(shipped):
    """And mdl/ stays small enough to clone."""
    assert [model.lead_flags for model in shipped.models] == [True]
    assert shipped.class_set == load_class_set("cinc2020") and shipped.decision["rule"] == "reward"
    assert sum(file.stat().st_size for file in (ROOT / "mdl").rglob("*")) < 25_000_000


@pytest.mark.parametrize("names", [("I",), ("I", "II"), LEADS[:8], LEADS], ids=["1", "2", "8", "12"])
def test_the_shipped_model_answers_for_any_leads(names, shipped, sample):
    """Against the head's linear layer on the mean and maximum of the encoder's features, age, sex, rhythm and flags, in
    one with the forest.
    """
    adc, header = read_record(sample / "georgia" / "E00001")
    rows = [row for row, name in enumerate(header.lead_names) if name in names]
    header = header._replace(n_leads=len(rows), leads=tuple(header.leads[row] for row in rows))
    signal, covariates = shipped.read(adc[rows], header)
    there = torch.from_numpy(signal.any(axis=1))
    assert there.sum() == {1: 1, 2: 6, 8: 8, 12: 12}[len(names)]  # two limb leads give six
    model = shipped.models[0]
    with torch.inference_mode():
        x = torch.from_numpy(to_millivolts(signal))
        windows = [x[:, start : start + 250] for start in shipped.windows[0].starts(x.shape[1])]
        features = model.encoder(torch.stack(windows))  # (W, D, T')
        known = torch.cat([torch.from_numpy(covariates), there.float() - 1])  # (N_COVARIATES + 12,)
        known = known.expand(len(windows), -1)
        told = model.head.linear(torch.cat([features.mean(2), features.amax(2), known], 1)).sigmoid().mean(0)
    np.testing.assert_allclose(shipped.without_forests().predict([signal], covariates[None])[0], told, atol=1e-5)
    numbers = recording_numbers([signal], 100, covariates[None])
    expected = model.forest.join(told[None], model.forest(torch.from_numpy(numbers)))[0]
    y_score = shipped.predict([signal], covariates[None])[0]
    np.testing.assert_allclose(y_score, expected, atol=1e-5)
    assert y_score.std() > 0.01


def test_the_driver_says_that_leads_are_missing(tmp_path, untrained_run, capsys):
    signal = fake_ecg(np.random.default_rng(0))
    write_record(tmp_path / "in", "R0", signal[:2])
    write_record(tmp_path / "in", "R1", signal)
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    driver.main(folders)
    said = "leads are missing in 1 recordings, most often V1, V2, V3, V4, V5, V6 (in 1): "
    assert f"{said}the network is told which leads are missing\n" in capsys.readouterr().out
    lines = (tmp_path / "out" / "record_warnings.txt").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["record", "R0", "R0"]
    assert (
        "for lack of leads, answered by other signs and by how often they occur: CRBBB, IRBBB (V1 or V2);" in lines[2]
    )
    driver.main([str(untrained_run(load_class_set("cinc2020")).path), *folders])
    assert f"{said}zeros stand for them (to train for that: --lead_subsets or --leads)" in capsys.readouterr().out
