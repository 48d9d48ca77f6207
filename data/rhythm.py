"""Rate and regularity of a whole recording, from a plain R-peak detector.

A network that reads windows of a few seconds recognises shapes well but cannot judge rhythm; these numbers tell it
what the whole recording shows. They also carry over between hospitals: a heart rate is a heart rate.
"""

from functools import lru_cache

import numpy as np

from data.filters import band_pass, row_quantiles
from data.peaks import find_peaks

BAND = (6.0, 20.0)  # Hz, where a QRS complex is and P, T and mains hum are not
RATES = (50, 55, 60, 65, 72, 80, 90, 100, 115)  # beats per minute
VARIATIONS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25)  # coefficient of variation of the RR intervals
PREMATURE = (0.6, 0.7, 0.8, 0.9)  # shortest RR interval as a share of the median
SOFTNESS = (1.5, 0.01, 0.02)  # widths of the steps at the three kinds of limits
N_RHYTHM = len(RATES) + len(VARIATIONS) + len(PREMATURE)
MIN_INTERVALS = 3
REMEMBERED = 64  # signals
SHORT = 2**17  # bytes; 10 s at 100 Hz are 48,000
_LIMITS = np.array(RATES + VARIATIONS + PREMATURE)  # (N_RHYTHM,)
_KIND = np.repeat(np.arange(3), [len(RATES), len(VARIATIONS), len(PREMATURE)])  # (N_RHYTHM,)
_WIDTH = 2 * np.array(SOFTNESS)[_KIND]  # (N_RHYTHM,)


def r_peaks(signal: np.ndarray, sample_freq: float) -> np.ndarray:
    """Samples of the R peaks; signal (n_leads, T) mV -> (n,) int. Leads vote, so a silent or noisy one does little.

    Those of the last REMEMBERED short signals are not searched again: rhythm and measures ask for them in turn.
    """
    if signal.nbytes > SHORT:
        return _search(signal, sample_freq)
    return _remembered(signal.tobytes(), signal.dtype.str, signal.shape, sample_freq)


@lru_cache(REMEMBERED)
def _remembered(samples, dtype, shape, sample_freq):
    peaks = _search(np.frombuffer(samples, dtype).reshape(shape), sample_freq)
    peaks.flags.writeable = False
    return peaks


def _search(signal, sample_freq):
    strength = np.abs(band_pass(signal, BAND, sample_freq))  # (n_leads, T)
    strength /= row_quantiles(strength, 0.98) + 1e-3
    width = max(1, round(0.08 * sample_freq))
    strength = np.convolve(strength.mean(0), np.full(width, 1 / width), "same")  # (T,)
    high = row_quantiles(strength[None], 0.98).item()
    return find_peaks(strength, distance=max(1, 0.28 * sample_freq), height=0.35 * high, prominence=0.3 * high)


def rhythm(signal: np.ndarray, sample_freq: float) -> np.ndarray:
    """(N_RHYTHM,) float32 within -0.5 and 0.5: heart rate, variation of the RR intervals and the shortest of them,
    each against a row of limits (soft steps, so that a linear layer can draw any line between them). signal
    (n_leads, T) mV. All zero, which says nothing, where fewer than four beats are found or the rate is too low to see a
    QRS complex.
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
