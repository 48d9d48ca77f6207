"""The beats of a recording, and what a window does not show of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, fake_ecg

from data.beats import AFTER, BEFORE, N_COMPONENTS, UnseenBeats, find_beats, fit_components
from data.leads import INDEPENDENT
from data.rhythm import r_peaks
from engine.distributed import ProcessGroup
from engine.hidden import HiddenSamples, Targets, summary_sums
from engine.windows import half_overlapping
from models import build_encoder


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
