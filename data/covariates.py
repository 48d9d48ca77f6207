"""What a model is told of a whole recording beside its window: age and sex, and its rhythm."""

import math

import numpy as np

from data.leads import LEADS
from data.preprocess import to_millivolts
from data.rhythm import N_RHYTHM, rhythm

N_DEMOGRAPHICS = 4
N_COVARIATES = N_DEMOGRAPHICS + N_RHYTHM
# What recorders with fewer leads give. Two limb leads are six: preprocessing computes the others.
LEAD_SUBSETS = (LEADS[:6], (*LEADS[:6], "V2"), LEADS[:1])


def recording_covariates(signal: np.ndarray, sample_freq: float, age: float, sex: str | None) -> np.ndarray:
    """What a model is told of a whole recording beside its window.

    Args:
        signal: (n_leads, T) int16 microvolts, all that the model sees: the beats are found on these.
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


def subset_covariates(signal: np.ndarray, sample_freq: float, covariates: np.ndarray) -> np.ndarray:
    """(S, N_COVARIATES) float32, the covariates of a recording if it had the leads of each of LEAD_SUBSETS only.

    Args:
        signal: (12, T) int16 microvolts, all leads.
        sample_freq: Hz.
        covariates: (N_COVARIATES,) of all leads, for age and sex.
    """
    rows = np.tile(covariates, (len(LEAD_SUBSETS), 1))
    for row, subset in zip(rows, LEAD_SUBSETS):
        kept = np.array([name in subset for name in LEADS])
        row[N_DEMOGRAPHICS:] = rhythm(to_millivolts(signal * kept[:, None]), sample_freq)
    return rows
