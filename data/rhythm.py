"""Rate and regularity of a whole recording, from a plain R-peak detector.

A network that reads windows of a few seconds recognises shapes well but cannot judge rhythm; these numbers tell it what the
whole recording shows. They also carry over between hospitals: a heart rate is a heart rate.
"""
from functools import lru_cache

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

BAND = (6.0, 20.0)                                  # Hz, where a QRS complex is and P, T and mains hum are not
RATES = (50, 55, 60, 65, 72, 80, 90, 100, 115)      # beats per minute
VARIATIONS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25)     # coefficient of variation of the RR intervals
PREMATURE = (0.6, 0.7, 0.8, 0.9)                    # shortest RR interval as a share of the median
SOFTNESS = (1.5, 0.01, 0.02)                        # widths of the steps at the three kinds of limits
N_RHYTHM = len(RATES) + len(VARIATIONS) + len(PREMATURE)
MIN_INTERVALS = 3


@lru_cache(maxsize=16)
def band_pass(sample_freq):
    """Second-order sections of the filter; its design takes as long as its use."""
    return butter(2, BAND, "bandpass", fs=sample_freq, output="sos")


def r_peaks(signal, sample_freq):
    """Samples of the R peaks; signal (12, T) mV -> (n,) int. All leads vote, so a silent or noisy one does little."""
    strength = np.abs(sosfiltfilt(band_pass(sample_freq), signal, axis=1))                                    # (12, T)
    strength = (strength / (np.quantile(strength, 0.98, axis=1, keepdims=True) + 1e-3)).mean(0)
    width = max(1, round(0.08 * sample_freq))
    strength = np.convolve(strength, np.full(width, 1 / width), "same")                    # (T,)
    high = np.quantile(strength, 0.98)
    return find_peaks(strength, distance=max(1, 0.28 * sample_freq), height=0.35 * high, prominence=0.3 * high)[0]


def rhythm(signal, sample_freq):
    """(N_RHYTHM,) float32 within -0.5 and 0.5: heart rate, variation of the RR intervals and the shortest of them, each against
    a row of limits (soft steps, so that a linear layer can draw any line between them). signal (12, T) mV. All zero, which
    says nothing, where fewer than four beats are found or the rate is too low to see a QRS complex."""
    if sample_freq <= 2 * BAND[1] or signal.shape[1] < sample_freq:
        return np.zeros(N_RHYTHM, np.float32)
    intervals = np.diff(r_peaks(signal, sample_freq)) / sample_freq                        # s
    if len(intervals) < MIN_INTERVALS:
        return np.zeros(N_RHYTHM, np.float32)
    typical = np.median(intervals)
    values = (60 / typical, intervals.std() / intervals.mean(), intervals.min() / typical)
    steps = [np.tanh((value - np.array(limits)) / (2 * soft)) / 2 for value, limits, soft in zip(values, (RATES, VARIATIONS, PREMATURE), SOFTNESS)]
    return np.concatenate(steps).astype(np.float32)
