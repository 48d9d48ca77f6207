"""What a model is told of a whole recording beside its window: age and sex, and its rhythm."""

import math

import numpy as np

from data.preprocess import to_millivolts
from data.rhythm import N_RHYTHM, rhythm

N_DEMOGRAPHICS = 4
N_COVARIATES = N_DEMOGRAPHICS + N_RHYTHM


def recording_covariates(signal: np.ndarray, sample_freq: float, age: float, sex: str | None) -> np.ndarray:
    """What a model is told of a whole recording beside its window.

    Args:
        signal: (12, T) int16 microvolts.
        sample_freq: Hz.
        age: Years, or NaN.
        sex: 'Male', 'Female' or anything else.

    Returns:
        (N_COVARIATES,) float32: `demographics`, then `data.rhythm.rhythm`.
    """
    return np.concatenate([demographics(age, sex), rhythm(to_millivolts(signal), sample_freq)])


def demographics(age: float, sex: str | None) -> np.ndarray:
    """(N_DEMOGRAPHICS,) float32: (age - 60) / 20 in years (0 if unknown), 1 if age is known, sex (1 male, -1 female,
    0 unknown), 1 if it is known.
    """
    known_age = not math.isnan(age)
    return np.array(
        [
            (age - 60) / 20 if known_age else 0,
            known_age,
            {"Male": 1, "Female": -1}.get(sex, 0),
            sex in ("Male", "Female"),
        ],
        np.float32,
    )
