"""Rhythm numbers, against beats whose times are known, and against the diagnoses of real recordings."""

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt, sosfreqz

from data import filters
from data.filters import band_pass, row_quantiles
from data.preprocess import SignalConfig, preprocess
from data.records import find_records, read_record
from data.rhythm import BAND, N_RHYTHM, PREMATURE, RATES, SOFTNESS, VARIATIONS, r_peaks, rhythm


def beats(times, seconds=10, fs=100, noise=0.01, seed=0):
    """(12, T) mV with a QRS-like spike at each time, of another size and sign in every lead."""
    t = np.arange(int(seconds * fs)) / fs
    spikes = sum(
        np.exp(-0.5 * ((t - time) / 0.012) ** 2) - 0.4 * np.exp(-0.5 * ((t - time - 0.03) / 0.012) ** 2)
        for time in times
    )
    rng = np.random.default_rng(seed)
    return (rng.uniform(-1.5, 1.5, (12, 1)) * spikes + rng.normal(0, noise, (12, len(t)))).astype(np.float32)


@pytest.mark.parametrize("fs", [100, 125, 250, 500])
@pytest.mark.parametrize("interval", [0.5, 0.83, 1.3])
def test_peaks_are_where_the_beats_are(fs, interval):
    times = np.arange(0.4, 9.6, interval)
    found = r_peaks(beats(times, fs=fs), fs) / fs
    assert len(found) == len(times) and np.abs(found - times).max() < 0.04


@pytest.mark.parametrize("rate", [47, 62.5, 95, 130])
def test_rate_lies_between_its_limits(rate):
    steps = rhythm(beats(np.arange(0.3, 9.8, 60 / rate)), 100)[: len(RATES)]
    assert ((steps > 0) == (np.array(RATES) < rate)).all()


def test_irregular_beats_vary_and_a_premature_one_is_short():
    rng = np.random.default_rng(3)
    regular = rhythm(beats(np.arange(0.5, 9.5, 0.8)), 100)
    irregular = rhythm(beats(np.cumsum(rng.uniform(0.45, 1.2, 11))), 100)
    n = len(RATES)
    assert (regular[n : n + len(VARIATIONS)] < 0).all() and (irregular[n : n + len(VARIATIONS)] > 0).sum() >= 4
    premature = np.arange(0.5, 9.5, 0.8)
    premature[5] -= 0.35
    assert (regular[-4:] > 0).all() and (rhythm(beats(premature), 100)[-4:] < 0).any()


@pytest.mark.parametrize(
    "signal, fs",
    [(np.zeros((12, 1000)), 100), (np.zeros((12, 30)), 100), (np.ones((12, 400)), 40), (beats([1, 2], 3), 100)],
)
def test_nothing_to_judge_says_nothing(signal, fs):
    assert (rhythm(signal.astype(np.float32), fs) == np.zeros(N_RHYTHM)).all()


def test_real_diagnoses_of_rate_agree(sample):
    right, n = 0, 0
    for record in find_records(sample):
        adc, header = read_record(record)
        expected = {"426177001": -1, "427084000": 1}.keys() & set(header.dx)  # sinus bradycardia, sinus tachycardia
        if len(expected) == 1:
            steps = dict(zip(RATES, rhythm(preprocess(adc, header, SignalConfig()), 100)))
            right += steps[65] < 0 if "426177001" in expected else steps[90] > 0
            n += 1
    assert n >= 10 and right >= 0.9 * n


def plain_rhythm(signal, fs):
    """The definition, with the usual functions and no thought of time."""
    strength = np.abs(sosfiltfilt(butter(2, BAND, "bandpass", fs=fs, output="sos"), signal.astype(float), axis=1))
    strength = (strength / (np.quantile(strength, 0.98, axis=1, keepdims=True) + 1e-3)).mean(0)
    width = round(0.08 * fs)
    strength = np.convolve(strength, np.full(width, 1 / width), "same")
    high = np.quantile(strength, 0.98)
    rr = np.diff(find_peaks(strength, distance=0.28 * fs, height=0.35 * high, prominence=0.3 * high)[0]) / fs
    values = 60 / np.median(rr), rr.std() / rr.mean(), rr.min() / np.median(rr)
    return np.concatenate(
        [
            np.tanh((value - np.array(limits)) / (2 * soft)) / 2
            for value, limits, soft in zip(values, (RATES, VARIATIONS, PREMATURE), SOFTNESS)
        ]
    )


@pytest.mark.parametrize("fs", [100, 257, 500])
def test_rhythm_of_real_recordings_is_the_plain_one(sample, fs):
    for record in find_records(sample)[::7]:
        signal = preprocess(*read_record(record), SignalConfig(sample_freq=fs))
        got = rhythm(signal, fs)
        if got.any():
            np.testing.assert_allclose(got, plain_rhythm(signal, fs), atol=1e-6)


@pytest.mark.parametrize("fs", [45, 99.5, 100, 257, 500, 700])
@pytest.mark.parametrize("n", [100, 449, 1000, 5001])
def test_band_pass_is_scipys(fs, n):
    signal = np.random.default_rng(n).normal(2, 1, (3, n))
    expected = sosfiltfilt(butter(2, BAND, "bandpass", fs=fs, output="sos"), signal, axis=1)
    np.testing.assert_allclose(band_pass(signal, BAND, fs), expected, atol=1e-9)


@pytest.mark.parametrize("fs", [100, 700])
@pytest.mark.parametrize("n", [2800, 4001, 4100, 9999])
def test_band_pass_of_long_signals_is_scipys(monkeypatch, fs, n):
    monkeypatch.setattr(filters, "BLOCK", 500)
    signal = np.random.default_rng(n).normal(2, 1, (3, n))
    expected = sosfiltfilt(butter(2, BAND, "bandpass", fs=fs, output="sos"), signal, axis=1)
    np.testing.assert_allclose(band_pass(signal, BAND, fs), expected, atol=1e-9)


@pytest.mark.parametrize("band, fs", [(BAND, 41), (BAND, 100), (BAND, 1000), ((0.5, 40), 257)])
def test_response_is_scipys(band, fs):
    sections = butter(2, band, "bandpass", fs=fs, output="sos")
    expected = sosfreqz(sections, np.linspace(0, np.pi, 2401))[1]
    np.testing.assert_allclose(filters._response(band, fs, 4800), expected, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 50, 51, 99, 1000])
@pytest.mark.parametrize("q", [0, 0.3, 0.5, 0.98])
def test_quantile_is_numpys(n, q):
    x = np.random.default_rng(n).integers(0, 9, (4, n)).astype(float)
    np.testing.assert_array_equal(row_quantiles(x, q), np.quantile(x, q, axis=1, keepdims=True))
