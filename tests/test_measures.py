"""What is measured of recordings: on beats drawn with known widths, intervals, axes and heights."""

import numpy as np
import pytest
from plain_waves import plain_waves

from data.covariates import N_COVARIATES
from data.inputs import read_input
from data.leads import LEADS
from data.measures import N_MEASURES, N_NUMBERS, NAMES, measure, recording_numbers
from data.preprocess import SignalConfig, to_millivolts
from data.records import find_records
from data.waves import OF_LEAD, WHOLE, measure_waves

RR = 0.8  # s


def bump(time, centre, width):
    """A wave that is over at centre +- width, of height 1."""
    return np.where(np.abs(time - centre) < width, np.cos(np.pi * (time - centre) / width / 2) ** 2, 0)


def drawn(sample_freq=500, seconds=10, qrs=0.1, pr=0.16, qt=0.38, axis=30, t_height=0.3, q_height=0.0):
    """(12, T) mV: P, QRS and T waves with a heart axis in degrees; chest leads are all alike."""
    time = np.arange(round(seconds * sample_freq)) / sample_freq
    since = (time + RR / 2) % RR - RR / 2  # from the nearest R peak
    wave = bump(since, 0, qrs / 2) + t_height * bump(since, -qrs / 2 + qt - 0.08, 0.08)
    wave += 0.1 * bump(since, -qrs / 2 - pr + 0.045, 0.045)
    wave -= q_height * bump(since, -qrs / 2, 0.03)
    one, foot = np.cos(np.radians(axis)), np.sin(np.radians(axis))  # projections on I and aVF
    limb = [one, foot + one / 2, foot - one / 2, -(3 * one / 2 + foot) / 2, (3 * one / 2 - foot) / 2, foot]
    scale = np.array([*limb, *[1.0] * 6])
    return scale[:, None] * wave


def measured(signal, sample_freq=500):
    return dict(zip(NAMES, measure([signal], sample_freq)[0].tolist()))


@pytest.mark.parametrize("sample_freq", [100, 250, 500, 1000])
def test_what_was_drawn_is_measured(sample_freq):
    for qrs, pr, qt in ((0.08, 0.14, 0.36), (0.12, 0.2, 0.42)):
        found = measured(drawn(sample_freq, qrs=qrs, pr=pr, qt=qt), sample_freq)
        assert found["qrs_duration"] == pytest.approx(1000 * qrs, abs=25)  # the ends of a wave are faint
        assert found["pr"] == pytest.approx(1000 * pr, abs=40)
        assert found["qt"] == pytest.approx(1000 * qt, abs=45)
        assert found["rr"] == pytest.approx(RR, abs=0.01)
        assert found["r V1"] == pytest.approx(1, abs=0.05)
        assert found["t V1"] == found["t_top V1"] == pytest.approx(0.3, abs=0.03)
        assert found["p V1"] == pytest.approx(0.1, abs=0.03)
        assert found["rr_variation"] < 0.02 and found["other_beats"] == 0 and found["likeness_worst"] > 0.99


def test_longer_is_measured_as_longer():
    """The differences are right to the sample, whatever the definition of an end."""
    narrow, wide = measured(drawn(qrs=0.08)), measured(drawn(qrs=0.14))
    assert wide["qrs_duration"] - narrow["qrs_duration"] == pytest.approx(60, abs=12)
    early, late = measured(drawn(pr=0.14)), measured(drawn(pr=0.24))
    assert late["pr"] - early["pr"] == pytest.approx(100, abs=8)
    short, long = measured(drawn(qt=0.34)), measured(drawn(qt=0.44))
    assert long["qt"] - short["qt"] == pytest.approx(100, abs=8)
    assert long["qt_bazett"] == pytest.approx(long["qt"] / np.sqrt(RR), rel=0.01)


@pytest.mark.parametrize("axis", [-150, -60, -10, 45, 100, 170])
def test_the_axis_is_found(axis):
    found = measured(drawn(axis=axis))
    assert (found["qrs_axis"] - axis + 180) % 360 - 180 == pytest.approx(0, abs=8)
    assert found["qrs_t_angle"] < 10


def test_inverted_waves_and_q_waves_have_a_sign():
    found = measured(drawn(t_height=-0.3, q_height=0.2))
    assert found["t V2"] == found["t_bottom V2"] == pytest.approx(-0.3, abs=0.05)
    assert found["q V2"] == pytest.approx(-0.2, abs=0.07) and found["q_duration V2"] > 15
    assert found["qrs_t_angle"] > 150


def test_heights_scale_and_durations_do_not():
    once, twice = measured(drawn()), measured(2 * drawn())
    for name in NAMES:
        height = name.split()[0] in ("q", "r", "s", "j", "st", "t", "t_top", "t_bottom", "p", "limb_height")
        if height:
            assert twice[name] == pytest.approx(2 * once[name], abs=1e-4), name
    for name in ("qrs_duration", "qt", "pr", "qrs_axis"):
        assert twice[name] == pytest.approx(once[name], abs=1), name


def test_an_early_broad_beat_is_seen():
    signal = drawn()
    time = np.arange(signal.shape[1]) / 500
    signal -= 1.5 * bump(time - 5 * RR - 0.45, 0, 0.12)  # an extrasystole, three times as broad, upside down
    found = measured(signal)
    assert found["other_beats"] >= 1 and found["other_early"] < 0.8 and found["likeness_worst"] < 0.85


def test_real_recordings_have_consistent_heights(sample):
    for record in find_records(sample / "georgia")[:5]:
        signal, _, _, _ = read_input(record, SignalConfig())
        x = to_millivolts(signal)
        found = measured(x, 100)
        for lead, row in zip(LEADS, x):
            assert 0 <= found[f"r {lead}"] - found[f"s {lead}"] < 1.2 * np.ptp(row) + 0.05, lead
            assert found[f"t {lead}"] in (found[f"t_top {lead}"], found[f"t_bottom {lead}"])


def test_what_is_not_there_is_not_measured():
    signal = drawn()
    signal[[2, 3, 4, 5, 7]] = 0
    found = measured(signal)
    assert np.isnan(found["r V2"]) and np.isnan(found["t III"]) and np.isfinite(found["r V1"])
    signal[1:] = 0
    found = measured(signal)
    assert np.isnan(found["qrs_axis"]) and np.isnan(found["chest_height"]) and np.isfinite(found["qrs_duration"])


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.2])
def test_short_recordings_have_no_numbers(seconds):
    signal = (1000 * drawn(100, seconds=seconds)).astype(np.int16)
    [numbers] = recording_numbers([signal], 100, np.zeros((1, N_COVARIATES)))
    assert numbers.shape == (N_NUMBERS,) and (np.isnan(numbers).all() or np.isfinite(numbers[-1]))
    assert np.isnan(measured(np.zeros((12, 1000)), 100)["qrs_duration"])
    assert np.isnan(measure([drawn(30)], 30)).all()  # too slow to see a QRS complex


def test_numbers_hold_measures_covariates_and_missing_leads():
    signal = (1000 * drawn(100)).astype(np.int16)
    signal[7] = 0
    covariates = np.arange(N_COVARIATES, dtype=np.float32)
    [numbers] = recording_numbers([signal], 100, covariates[None])
    np.testing.assert_array_equal(numbers[:N_MEASURES], measure([to_millivolts(signal)], 100)[0])
    np.testing.assert_array_equal(numbers[N_MEASURES : N_MEASURES + N_COVARIATES], covariates)
    np.testing.assert_array_equal(numbers[-12:], np.eye(12)[7])


def odd_signal(rng, kind, n, sample_freq):
    """(12, n) microvolts: noise, spikes, a wandering line, a constant, square waves, pulses, the last bit."""
    time = np.arange(n) / sample_freq
    spikes = np.zeros((12, n))
    spikes[:, rng.integers(0, n, 1 + n // 60)] = rng.uniform(-10000, 10000)
    return (
        rng.normal(0, 10 ** rng.uniform(0, 4), (12, n)),
        spikes,
        np.cumsum(rng.normal(0, 100, (12, n)), 1),
        np.full((12, n), rng.integers(-10000, 10000)),
        10000 * np.sign(np.sin(time * rng.uniform(1, 60))) * np.ones((12, 1)),
        rng.normal(0, 300, (12, n)) * (time % 1 < 0.03),
        rng.integers(-1, 2, (12, n)),
    )[kind]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", range(7))
def test_odd_signals_are_no_fault(kind):
    rng = np.random.default_rng(kind)
    for _ in range(40):
        sample_freq = float(rng.choice([41, 50, 100, 257, 500, 1000]))
        signal = odd_signal(rng, kind, int(rng.integers(1, 12 * sample_freq)), sample_freq)
        signal = signal.clip(-10000, 10000).astype(np.int16)
        signal[rng.random(12) < rng.choice([0, 0.6])] = 0
        [numbers] = recording_numbers([signal], sample_freq, np.zeros((1, N_COVARIATES)))
        assert numbers.shape == (N_NUMBERS,) and not np.isinf(numbers).any()


def test_a_long_recording_is_measured_on_some_of_its_beats():
    found = measured(np.tile(drawn(100, seconds=8), 60), 100)
    assert found["beats"] > 500 and found["r V1"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rate", [334, 500, 748])
def test_beats_of_many_recordings_are_measured_as_one_alone(rate):
    """By loops over slices, on beats of ECGs and on noise, with leads and RR intervals missing."""
    rng = np.random.default_rng(rate)
    shapes = [
        drawn(rate, 1, rng.uniform(0.06, 0.16), rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.5), rng.uniform(-180, 180))
        for _ in range(12)
    ]
    shapes += list(np.cumsum(rng.normal(0, 0.05, (12, 12, rate)), 2))
    beats = np.stack([np.roll(shape, round(0.4 * rate), 1) for shape in shapes])  # the R peak at 0.4 s
    beats = (beats + rng.normal(0, 0.01, beats.shape)).astype(np.float32)
    there = rng.random((len(beats), 12)) < 0.8
    typical = np.where(rng.random(len(beats)) < 0.8, rng.uniform(0.29, 2, len(beats)), np.nan)
    whole, in_leads = measure_waves(beats, round(0.4 * rate), rate, typical, there)
    names = [*WHOLE, *(f"{name} {lead}" for name in OF_LEAD for lead in LEADS)]
    for i, found in enumerate(np.concatenate([whole, in_leads], 1)):
        expected = plain_waves(beats[i].astype(float), round(0.4 * rate), rate, typical[i], there[i])
        assert sorted(names) == sorted(expected)
        np.testing.assert_allclose(found, [expected[name] for name in names], rtol=1e-3, atol=1e-4, err_msg=str(i))
    assert not np.isnan(whole[there[:, :2].all(1) & ~np.isnan(typical)]).any()
