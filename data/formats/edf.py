"""EDF, EDF+ and BDF, through edfio. Age and sex are those of EDF+ headers, where they are not blanked."""

import contextlib
import os
import re

import numpy as np

from data.formats.physical import library, physical_header, sex_of
from data.headers import Header, RecordError
from data.leads import lead_name

DAYS = 365.25  # of a year
DISCONTINUOUS = ("EDF+D", "BDF+D")  # what the header says where time may pass between data records


def read(path: str, part: None = None) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) float64 in the file's units, Header. Leads that are none of an ECG are left out.

    Raises RecordError: no lead of an ECG, leads of unlike rates, or time is missing between samples.
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
    if file.reserved.startswith(DISCONTINUOUS):
        _check_gaps(path, file, 1 / signals[0].sampling_frequency)
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


def _check_gaps(path, file, tolerance):
    """Raise RecordError if a data record begins more than `tolerance` seconds off the end of the one before."""
    onsets = _onsets(path, file)
    gaps = np.diff(onsets) - file.data_record_duration  # each with the one before: durations in headers are rounded
    found = np.flatnonzero(np.abs(gaps) > tolerance)
    if len(found):
        before = found[0] + 1  # data records
        seconds = before * file.data_record_duration
        kind = f"a gap of {gaps[found[0]]:g} s" if gaps[found[0]] > 0 else f"a step back of {-gaps[found[0]]:g} s"
        raise RecordError(
            f"{path}: is discontinuous ({file.reserved[:5]}): {kind} after its first {seconds:g} s "
            f"({before} data records): write each stretch without a gap into a file of its own"
        )


def _onsets(path, file):
    """When each data record begins, in seconds: what its first annotation says. Nothing else is read, and edfio offers
    no function for it.
    """
    with open(path, "rb") as opened:
        header = opened.read(file.bytes_in_header_record)
    n_signals = int(header[252:256])
    labels = [header[256 + 16 * i :][:16].strip() for i in range(n_signals)]
    sizes = [int(header[256 + 216 * n_signals + 8 * i :][:8]) for i in range(n_signals)]  # samples per data record
    bytes_per_sample = 3 if file.reserved.startswith("BDF") else 2
    label = file.reserved[:3].encode() + b" Annotations"
    if label not in labels:
        raise RecordError(f"{path}: is discontinuous ({file.reserved[:5]}), and does not say where its gaps are")
    place = labels.index(label)
    start, stop = (bytes_per_sample * sum(sizes[:end]) for end in (place, place + 1))
    shape = (file.num_data_records, bytes_per_sample * sum(sizes))
    data = np.memmap(path, np.uint8, "r", file.bytes_in_header_record, shape)
    onsets = []
    for row in data[:, start:stop]:
        match = re.match(rb"[+-]\d+(\.\d*)?(?=[\x14\x15])", row.tobytes())
        if match is None:
            raise RecordError(f"{path}: its data record {len(onsets) + 1} does not say when it begins")
        onsets.append(float(match[0]))
    return np.array(onsets)


def _person(file):
    """-> age in years, sex; nan and None where the header does not say it, as in plain EDF."""
    age = float("nan")
    sex = None
    with contextlib.suppress(ValueError, LookupError):  # blanked, or not the fields of EDF+
        sex = sex_of(file.patient.sex)
        age = (file.recording.startdate - file.patient.birthdate).days // DAYS
    return age, sex
