"""data/peaks.py against scipy.signal.find_peaks: the very same samples, whatever the curve."""

import numpy as np
import pytest
from scipy.signal import find_peaks as scipy_find_peaks

from data import rhythm
from data.peaks import find_peaks
from data.preprocess import SignalConfig, preprocess
from data.records import find_records, read_record


def noise(rng, n):
    return rng.normal(size=n)


def smooth(rng, n):
    return np.convolve(rng.normal(size=n), np.full(8, 1 / 8), "same")


def steps(rng, n):
    """Plateaus, and peaks of the same height."""
    return rng.integers(0, 5, n).astype(float)


def smooth_steps(rng, n):
    """Wide plateaus, some on a flank."""
    return np.round(smooth(rng, n), 1)


@pytest.mark.parametrize("curve", [noise, smooth, steps, smooth_steps])
def test_peaks_of_random_curves_are_scipys(curve):
    rng = np.random.default_rng(0)
    n_peaks = 0
    for _ in range(300):
        x = curve(rng, rng.integers(8, 400))
        distance = rng.uniform(1, 30)
        height = np.quantile(x, rng.uniform())
        prominence = rng.uniform(0, 1.5)
        expected, _ = scipy_find_peaks(x, distance=distance, height=height, prominence=prominence)
        np.testing.assert_array_equal(find_peaks(x, distance, height, prominence), expected)
        n_peaks += len(expected)
    assert n_peaks > 300


@pytest.mark.parametrize(
    "x",
    [
        [1],
        [1, 2],
        [1, 2, 1],
        [1, 2, 2],
        [2, 2, 1],
        [1, 2, 2, 1],
        [1, 2, 2, 2, 1],
        [0, 1, 1, 2, 1, 1, 0],
        [3, 0, 2, 0, 3],  # the ends are higher, and no peaks
        [0, 3, 1, 3, 0],
        np.zeros(50),
        np.arange(50),
    ],
)
@pytest.mark.parametrize("prominence", [0, 1, 2, 3])
def test_peaks_of_special_curves_are_scipys(x, prominence):
    x = np.array(x, float)
    expected, _ = scipy_find_peaks(x, distance=1, height=0, prominence=prominence)
    np.testing.assert_array_equal(find_peaks(x, 1, 0, prominence), expected)


def test_distance_is_rounded_up():
    x = np.zeros(100)
    x[[10, 38, 67]] = [1, 2, 1]
    assert find_peaks(x, 28, 0.5, 0.5).tolist() == [10, 38, 67]
    assert find_peaks(x, 0.28 * 100, 0.5, 0.5).tolist() == [38, 67]  # 28.000000000000004


def test_peaks_of_real_recordings_are_scipys(sample, monkeypatch):
    curves = []

    def checked(x, **limits):
        expected, _ = scipy_find_peaks(x, **limits)
        np.testing.assert_array_equal(find_peaks(x, **limits), expected)
        curves.append(x)
        return expected

    monkeypatch.setattr(rhythm, "find_peaks", checked)
    for record in find_records(sample):
        rhythm.rhythm(preprocess(*read_record(record), SignalConfig()), 100)
    assert len(curves) > 100
