"""data/resample.py against scipy."""

import math

import numpy as np
import pytest
from plain_resample import slow_resample
from scipy.signal import firwin

from data.resample import _filter, ratio, resample


@pytest.mark.parametrize(
    "fs_in, fs_out",
    [
        (500, 100),
        (500, 400),
        (500, 250),
        (1000, 100),
        (1000, 400),
        (257, 100),
        (257, 400),
        (360, 100),
        (360.5, 100),
        (128, 250),
        (1, 100),
        (10000, 100),
        (62.4725, 100),
        (499.93, 100),
    ],
)
@pytest.mark.parametrize("n", [1, 7, 3001])
def test_resampling_equals_scipy(fs_in, fs_out, n):
    x = (np.random.default_rng(n).standard_normal((3, n)).cumsum(axis=1) * 0.02 + 1).astype(np.float32)
    y = resample(x, fs_in, fs_out)
    expected = slow_resample(x, fs_in, fs_out)
    assert y.shape == expected.shape and y.dtype == np.float32 and y.flags.c_contiguous
    np.testing.assert_allclose(y, expected, rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("up, down", [(1, 5), (5, 1), (100, 257), (4, 5), (200, 721), (499, 997)])
def test_filter_is_scipys(up, down):
    expected = up * firwin(20 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 5.0))
    np.testing.assert_allclose(_filter(up, down), expected, atol=1e-12, rtol=0)


def test_ratio_is_exact_or_close():
    assert ratio(500, 100) == (1, 5) and ratio(360.5, 100) == (200, 721) and ratio(257, 400) == (400, 257)
    for fs in np.random.default_rng(0).uniform(1, 10000, 500).tolist() + [499.9999, 100.00001, 3.0001]:
        up, down = ratio(fs, 100)
        assert max(up, down) <= 50_000 and abs(up / down * fs / 100 - 1) <= 1 / 50_000
    for fs in (0, -1, math.nan, math.inf, 1e-3, 1e9):
        with pytest.raises(ValueError, match="cannot resample"):
            ratio(fs, 100)


def test_equal_rates_change_nothing_and_offsets_do_not_ring():
    x = np.full((2, 1000), 3.25, np.float32)
    assert resample(x, 250, 250) is x
    for fs in (100, 400, 97.3):
        np.testing.assert_allclose(resample(x, 500, fs), 3.25, atol=2e-3)  # the filter's ripple, as in scipy


def test_frequencies_above_the_new_nyquist_are_removed():
    t = np.arange(5000) / 500
    low, high = (np.sin(2 * np.pi * f * t)[None].astype(np.float32) for f in (10, 70))
    middle = slice(100, 900)
    np.testing.assert_allclose(
        resample(low, 500, 100)[:, middle], np.sin(2 * np.pi * 10 * np.arange(1000) / 100)[None, middle], atol=5e-3
    )
    assert np.abs(resample(high, 500, 100)[:, middle]).max() < 2e-3


@pytest.mark.parametrize("fs_in, fs_out", [(500, 100), (257, 400), (499.93, 100)])
def test_long_signals_are_done_in_blocks(fs_in, fs_out):
    x = np.random.default_rng(0).standard_normal((1, 300_000)).astype(np.float32)
    np.testing.assert_allclose(resample(x, fs_in, fs_out), slow_resample(x, fs_in, fs_out), atol=1e-5)
