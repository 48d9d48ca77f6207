"""EDF, EDF+ and BDF, through edfio. Age and sex are those of EDF+ headers, where they are not blanked."""

import contextlib
import os

import numpy as np

from data.formats.physical import library, physical_header, sex_of
from data.headers import Header, RecordError
from data.leads import lead_name

DAYS = 365.25  # of a year


def read(path: str, part: None = None) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) float64 in the file's units, Header. Leads that are none of an ECG are left out.

    Raises RecordError: no lead of an ECG, or leads of unlike rates.
    """
    edfio = library(path, "edfio", "edfio")
    file = edfio.read_bdf(path) if path.lower().endswith(".bdf") else edfio.read_edf(path)
    signals = [signal for signal in file.signals if lead_name(signal.label)]
    if not signals:
        labels = ", ".join(signal.label for signal in file.signals)
        raise RecordError(f"{path}: none of its signals ({labels[:200]}) is a lead of an ECG")
    rates = {signal.sampling_frequency for signal in signals}
    if len(rates) > 1:
        raise RecordError(f"{path}: its leads have unlike rates: {', '.join(f'{rate:g} Hz' for rate in sorted(rates))}")
    values = np.stack([signal.data for signal in signals])
    others = [signal.label for signal in file.signals if not lead_name(signal.label)]
    age, sex = _person(file)
    return values, physical_header(
        os.path.splitext(os.path.basename(path))[0],
        rates.pop(),
        [signal.label for signal in signals],
        [signal.physical_dimension for signal in signals],
        values.shape[1],
        age,
        sex,
        warnings=[f"not one of the 12 leads, unused: {', '.join(map(repr, others))}"] if others else (),
    )


def _person(file):
    """-> age in years, sex; nan and None where the header does not say it, as in plain EDF."""
    age = float("nan")
    sex = None
    with contextlib.suppress(ValueError, LookupError):  # blanked, or not the fields of EDF+
        sex = sex_of(file.patient.sex)
        age = (file.recording.startdate - file.patient.birthdate).days // DAYS
    return age, sex
