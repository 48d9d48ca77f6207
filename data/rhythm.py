"""Rate and regularity of a whole recording, from a plain R-peak detector.

A network that reads windows of a few seconds recognises shapes well but cannot judge rhythm; these numbers tell it
what the whole recording shows. They also carry over between hospitals: a heart rate is a heart rate.
"""

from functools import lru_cache

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, find_peaks, sos2zpk, sosfiltfilt, sosfreqz

BAND = (6.0, 20.0)  # Hz, where a QRS complex is and P, T and mains hum are not
RATES = (50, 55, 60, 65, 72, 80, 90, 100, 115)  # beats per minute
VARIATIONS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25)  # coefficient of variation of the RR intervals
PREMATURE = (0.6, 0.7, 0.8, 0.9)  # shortest RR interval as a share of the median
SOFTNESS = (1.5, 0.01, 0.02)  # widths of the steps at the three kinds of limits
N_RHYTHM = len(RATES) + len(VARIATIONS) + len(PREMATURE)
MIN_INTERVALS = 3


FORGOTTEN = 1e-12  # what is left of the filter's response where it counts as over
MAX_REACH, MAX_SAMPLES = (
    1000,
    2**17,
)  # beyond them (620 Hz, 20 minutes) the filter runs as scipy does it, for memory's sake
_LIMITS = np.array(RATES + VARIATIONS + PREMATURE)  # (N_RHYTHM,)
_KIND = np.repeat(np.arange(3), [len(RATES), len(VARIATIONS), len(PREMATURE)])  # (N_RHYTHM,)
_WIDTH = 2 * np.array(SOFTNESS)[_KIND]  # (N_RHYTHM,)


@lru_cache(maxsize=16)
def _filter(sample_freq):
    """-> second-order sections; samples K within which the response is over; (K, K) what the first and the last K
    samples give each other beside the convolution, for sosfiltfilt continues a signal beyond its ends.
    """
    sections = butter(2, BAND, "bandpass", fs=sample_freq, output="sos")
    reach = int(np.log(FORGOTTEN) / np.log(np.abs(sos2zpk(sections)[1]).max()))
    if reach > MAX_REACH:
        return sections, reach, None, None
    ends = np.eye(4 * reach)[np.r_[:reach, -reach:0]]  # (2K, 4K) impulses near the ends
    beside = sosfiltfilt(sections, ends, axis=1) - _convolved(ends, _response(sample_freq, 5 * reach))
    return sections, reach, beside[:reach, :reach], beside[reach:, -reach:]


@lru_cache(maxsize=64)
def _response(sample_freq, n):
    """Of the filter run forwards and backwards, at the frequencies of an rfft of n samples or somewhat more, an even
    number.
    """
    n = 2 * next_fast_len(n // 2 + 1)
    sections = butter(2, BAND, "bandpass", fs=sample_freq, output="sos")
    return np.abs(sosfreqz(sections, 2 * np.pi / n * np.arange(n // 2 + 1))[1]) ** 2


def _convolved(x, response):
    n = 2 * len(response) - 2
    return irfft(rfft(x, n, axis=1) * response, n, axis=1)[:, : x.shape[1]]


def band_pass(signal, sample_freq):
    """What scipy's sosfiltfilt gives (to 1e-7), in less than half of its time: the signal within BAND, no sample
    delayed. (12, T) -> (12, T) float64.
    """
    sections, reach, first, last = _filter(sample_freq)
    n = signal.shape[1]
    if first is None or not 2 * reach <= n <= MAX_SAMPLES:
        return sosfiltfilt(sections, signal, axis=1)
    signal = signal.astype(np.float64)
    y = _convolved(signal, _response(sample_freq, n + reach))
    y[:, :reach] += signal[:, :reach] @ first
    y[:, -reach:] += signal[:, -reach:] @ last
    return y


def _quantile(x, q):
    """(n, T) -> (n, 1), as numpy's for q < 1, in a fraction of its time."""
    place = q * (x.shape[1] - 1)
    low, share = int(place), place - int(place)
    x = np.partition(x, low, axis=1)
    a, b = x[:, low : low + 1], x[:, low + 1 :].min(axis=1, keepdims=True)
    return a + (b - a) * share if share < 0.5 else b - (b - a) * (1 - share)


def r_peaks(signal, sample_freq):
    """Samples of the R peaks; signal (12, T) mV -> (n,) int. All leads vote, so a silent or noisy one does little."""
    strength = np.abs(band_pass(signal, sample_freq))  # (12, T)
    strength /= _quantile(strength, 0.98) + 1e-3
    width = max(1, round(0.08 * sample_freq))
    strength = np.convolve(strength.mean(0), np.full(width, 1 / width), "same")  # (T,)
    high = _quantile(strength[None], 0.98).item()
    return find_peaks(strength, distance=max(1, 0.28 * sample_freq), height=0.35 * high, prominence=0.3 * high)[0]


def rhythm(signal, sample_freq):
    """(N_RHYTHM,) float32 within -0.5 and 0.5: heart rate, variation of the RR intervals and the shortest of them,
    each against a row of limits (soft steps, so that a linear layer can draw any line between them). signal (12, T)
    mV. All zero, which says nothing, where fewer than four beats are found or the rate is too low to see a QRS
    complex.
    """
    if sample_freq <= 2 * BAND[1] or signal.shape[1] < sample_freq:
        return np.zeros(N_RHYTHM, np.float32)
    intervals = np.sort(np.diff(r_peaks(signal, sample_freq)) / sample_freq)  # s
    n = len(intervals)
    if n < MIN_INTERVALS:
        return np.zeros(N_RHYTHM, np.float32)
    typical = (intervals[(n - 1) // 2] + intervals[n // 2]) / 2
    values = np.array([60 / typical, intervals.std() / intervals.mean(), intervals[0] / typical])
    return (np.tanh((values[_KIND] - _LIMITS) / _WIDTH) / 2).astype(np.float32)
