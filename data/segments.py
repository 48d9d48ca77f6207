"""Multi-segment records: segments, each with a header and signal files of its own, put together in time."""

import os
from typing import NamedTuple

import numpy as np

from data.header_files import read_header
from data.headers import INVALID_SAMPLE, MILLIVOLTS, Header, Lead, RecordError
from data.signal_files import MAX_UNCHECKED_VALUES, at_rate, read_leads


class _Segment(NamedTuple):
    start: int  # frames
    leads: tuple[Lead, ...]
    rows: np.ndarray | list[np.ndarray]  # samples of each lead, as they are stored


def read_segments(path: str, header: Header, check_sums: bool = False) -> tuple[np.ndarray, Header]:
    """Read a multi-segment record, lead by lead name.

    Segments may differ in format, gain, baseline, unit and samples a frame of a lead: all are brought to the scale
    that the lead has where it comes first, and to the highest rate. All must have the frame rate of the record.

    Args:
        path: Of the record, without extension.
        header: What its header file says: names and lengths of the segments.
        check_sums: Whether to compare first values and checksums with those in the segments' headers.

    Returns:
        adc (n_leads, n_samples), and the header with leads. Where a lead has no samples, adc is its format's invalid
        value, or NaN where a lead's segments differ in scale or rate; adc is float64 then.

    Raises:
        RecordError: A segment cannot be read, has segments of its own, or does not fit to what the record announces.
    """
    _check_size(path, header.n_leads * (header.n_samples or 0))
    segments = []
    warnings = []
    leads = {}
    diagnoses = {}
    start = 0
    for name, n_frames in header.segments:
        if name != "~":
            segment_path = os.path.join(os.path.dirname(path), name)
            part = _segment_header(segment_path, header, n_frames)
            diagnoses.update(dict.fromkeys(part.dx))
            _collect(leads, part.leads)
            if n_frames:
                rows, texts = read_leads(segment_path, part, check_sums)
                segments.append(_Segment(start, part.leads, rows))
                warnings += [f"segment {name}: {text}" for text in (*part.warnings, *texts)]
        start += n_frames
    if not segments or len(leads) != header.n_leads:
        raise RecordError(f"{path}: its segments hold {len(leads)} leads, the header announces {header.n_leads}")
    if diagnoses and not header.dx:
        warnings.append(f"#Dx of its segments, which its own header does not repeat: {', '.join(diagnoses)}"[:200])
    frame = max(lead.samples_per_frame for segment in segments for lead in segment.leads)
    _check_size(path, header.n_leads * header.n_samples * frame)
    adc = _join(path, segments, list(leads.values()), header.n_samples, frame)
    # Rate, first value and checksum were those of single segments.
    joined = [lead._replace(samples_per_frame=1, skew=0, initial_value=None, checksum=None) for lead in leads.values()]
    return adc, header._replace(
        leads=tuple(joined),
        segments=(),
        sample_freq=header.sample_freq * frame,
        n_samples=adc.shape[1],
        warnings=header.warnings + tuple(warnings),
    )


def _check_size(path, n_values):
    if n_values > MAX_UNCHECKED_VALUES:
        raise RecordError(f"{path}: more than {MAX_UNCHECKED_VALUES} values in a multi-segment record")


def _segment_header(path, header, n_frames):
    """Header of a segment that fits to the record's."""
    segment = read_header(path)
    if segment.segments:
        raise RecordError(f"{path}: a segment has segments of its own")
    if len(set(segment.lead_names)) != len(segment.leads):
        raise RecordError(f"{path}: a segment with two leads of one name")
    length = segment.n_samples or 0
    if segment.sample_freq != header.sample_freq or length != n_frames:
        raise RecordError(
            f"{path}: segment of {length} samples at {segment.sample_freq:g} Hz, the record announces {n_frames} at "
            f"{header.sample_freq:g} Hz"
        )
    return segment


def _collect(leads, more):
    """Adds a segment's leads to `leads`, {name: Lead as it comes first}."""
    for lead in more:
        known = leads.setdefault(lead.name, lead)
        if known.file_name == "~":  # a layout header knows the names only
            leads[lead.name] = lead


def _join(path, segments, leads, n_frames, frame):
    """-> adc (n_leads, n_frames * frame)."""
    place = {lead.name: row for row, lead in enumerate(leads)}
    pairs = [pair for segment in segments for pair in zip(segment.leads, segment.rows)]
    invalid = [INVALID_SAMPLE[lead.fmt] for lead in leads]
    alike = None not in invalid and all(_same_scale(leads[place[lead.name]], lead, frame) for lead, _ in pairs)
    if alike:
        types = [samples.dtype for _, samples in pairs] + [np.min_scalar_type(value) for value in invalid]
        fill = np.array(invalid, np.result_type(np.int16, *types))
    else:
        fill = np.full(len(leads), np.nan)
    adc = np.repeat(fill[:, None], n_frames * frame, axis=1)
    for segment in segments:
        start = segment.start * frame
        for lead, samples in zip(segment.leads, segment.rows):
            row = place[lead.name]
            values = samples if alike else _rescaled(path, at_rate(samples, lead, frame), lead, leads[row])
            adc[row, start : start + len(values)] = values
    return adc


def _same_scale(lead, other, frame):
    """Whether samples of `other` can stand beside those of `lead` as they are stored."""
    same = (lead.fmt, lead.gain, lead.baseline, lead.unit) == (other.fmt, other.gain, other.baseline, other.unit)
    return same and other.samples_per_frame == frame


def _rescaled(path, values, lead, wanted):
    """ADC values of `lead` -> those that mean the same in the scale of `wanted`."""
    if (lead.gain, lead.baseline, lead.unit) == (wanted.gain, wanted.baseline, wanted.unit):
        return values
    factor = 1.0
    if lead.unit.lower() != wanted.unit.lower():
        try:
            factor = MILLIVOLTS[lead.unit.lower()] / MILLIVOLTS[wanted.unit.lower()]
        except KeyError:
            raise RecordError(
                f"{path}: lead {lead.name} is in {wanted.unit!r} in one segment and in {lead.unit!r} in another"
            ) from None
    return (values - lead.baseline) * (factor * wanted.gain / lead.gain) + wanted.baseline
