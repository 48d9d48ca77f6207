"""Change of sampling rate as scipy does it."""

import numpy as np
from scipy.signal import resample_poly

from data.resample import ratio


def slow_resample(x: np.ndarray, fs_in: float, fs_out: float) -> np.ndarray:
    """(n_leads, n) from fs_in to fs_out Hz -> float64, the ends continued by their last value."""
    up, down = ratio(fs_in, fs_out)
    return resample_poly(x.astype(np.float64), up, down, axis=1, padtype="edge")
