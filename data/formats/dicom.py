"""DICOM waveforms, such as the 12-lead ECG, through pydicom."""

import os
import re

import numpy as np

from data.formats.physical import library, number, physical_header, sex_of
from data.headers import Header, RecordError
from data.leads import lead_name

# The last number of a channel's code in the schemes SCPECG (5.6.3-9-1) and MDC (2:1), by which ECG leads are named.
LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"} | {n + 2: f"V{n}" for n in range(1, 7)}
SCHEMES = ("SCPECG", "MDC")
UNITS_OF_AGE = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}  # of a year


def read(path: str, part: None = None) -> tuple[np.ndarray, Header]:
    """-> values (n_leads, n_samples) float64 in the file's units, Header.

    Of several groups of channels the one with most leads of an ECG is read, and of these the longest: others hold
    median beats. Raises RecordError: no waveform, no unit.
    """
    pydicom = library(path, "pydicom", "pydicom")
    waveforms = library(path, "pydicom.waveforms", "pydicom")
    data = pydicom.dcmread(path)
    groups = data.get("WaveformSequence")
    if not groups:
        raise RecordError(f"{path}: is a DICOM file without a waveform")
    sizes = [(sum(map(bool, map(lead_name, _names(group)))), group.NumberOfWaveformSamples) for group in groups]
    chosen = sizes.index(max(sizes))
    group = groups[chosen]
    channels = group.ChannelDefinitionSequence
    if any("ChannelSensitivity" not in channel for channel in channels):
        raise RecordError(f"{path}: a channel has no ChannelSensitivity, so its unit is unknown")
    values = waveforms.multiplex_array(data, chosen, as_raw=False).T  # (n_leads, n_samples)
    if "WaveformPaddingValue" in group:
        raw = waveforms.multiplex_array(data, chosen, as_raw=True).T
        padding = np.frombuffer(group.WaveformPaddingValue, "<i2")[0]
        values = np.where(raw == padding, np.nan, values)
    return values, physical_header(
        os.path.splitext(os.path.basename(path))[0],
        float(group.SamplingFrequency),
        _names(group),
        [channel.ChannelSensitivityUnitsSequence[0].CodeValue for channel in channels],
        values.shape[1],
        _age(data.get("PatientAge")),
        sex_of(data.get("PatientSex")),
    )


def _names(group):
    return [_lead(channel.ChannelSourceSequence[0]) for channel in group.ChannelDefinitionSequence]


def _lead(source):
    """Name of a lead by its code, or by what is written beside it: 'Lead aVR', 'Lead I (Einthoven)'."""
    match = re.search(r"[-:](\d+)$", str(source.get("CodeValue", "")))
    if source.get("CodingSchemeDesignator") in SCHEMES and match and int(match[1]) in LEADS:
        return LEADS[int(match[1])]
    return re.split(r"[(,]", str(source.get("CodeMeaning", "")))[0].strip()


def _age(text):
    """Years of '045Y', '018M', '003W' or '012D'; nan of anything else."""
    match = re.fullmatch(r"(\d{1,3})([YMWD])", str(text or ""))
    return number(match[1]) / UNITS_OF_AGE[match[2]] if match else float("nan")
