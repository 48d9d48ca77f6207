"""Samples from disk, as the ADC values that were stored.

16-bit files (`.mat` of MATLAB version 4, `.dat`), which is what the Challenges ship, are read directly; every other
WFDB format goes through the wfdb package. Nothing in a file is executed or followed, and nothing larger than the file
itself is allocated on the word of a header.
"""

import os
import stat
import struct

import numpy as np

from data.files import open_regular
from data.headers import INVALID_SAMPLE, RecordError

# Values (leads x samples) accepted where the size of the file cannot vouch for them: compressed or segmented records.
MAX_UNCHECKED_VALUES = 2**28  # 12 leads of 12 hours at 500 Hz

_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
_MAT_HEADER = 24  # bytes: five int32 and the name 'val\0'
_MAT_INT16 = 30  # type word of a full little-endian int16 matrix
# What wfdb raises on files that are not what their header says (it has no common base class).
_WFDB_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, RuntimeError, MemoryError)


def read_samples(path, header, warnings=None):
    """-> adc (n_leads, n_samples), as `data.records.read_signal` describes it, of a record without segments."""
    if not header.leads:
        raise RecordError(f"{path}: the header announces no leads")
    file_names = list(dict.fromkeys(lead.file_name for lead in header.leads))
    sizes = {name: _check_file(path, name) for name in file_names}
    lead = header.leads[0]
    usual = (lead.file_name, "16", 1, 0, lead.byte_offset)
    same = all(other[:5] == usual for other in header.leads)  # file name to byte offset
    adc = _read_int16(path, header, sizes[lead.file_name]) if same else _read_with_wfdb(path, header, sizes)
    if warnings is not None:
        warnings.extend(_compare_sums(adc, header))
    return adc


def _check_file(path, file_name):
    """Size in bytes of a signal file beside the header, once it is known to be a plain file of that folder."""
    file_path = os.path.join(os.path.dirname(path), file_name)
    try:
        info = os.lstat(file_path)
        if stat.S_ISLNK(info.st_mode):
            _check_link(path, file_path)
            info = os.stat(file_path)
    except FileNotFoundError:
        raise RecordError(f"{file_path}: signal file is missing") from None
    except OSError as error:
        raise RecordError(f"{file_path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        raise RecordError(f"{file_path}: is no regular file")
    if info.st_size == 0:
        raise RecordError(f"{file_path}: is empty")
    return info.st_size


def _check_link(path, file_path):
    """A linked signal file must lie in the record's folder, or beside the header that the record's header links to: so
    a data set replicated by links works, while a header cannot fetch some other file through a link."""
    folder = os.path.dirname(os.path.realpath(file_path))
    if folder != os.path.dirname(os.path.realpath(path + ".hea")) and folder != os.path.realpath(
        os.path.dirname(path) or "."
    ):
        raise RecordError(f"{file_path}: is a link that leads outside the folder of the record")


def _read_int16(path, header, size):
    """-> adc (n_leads, n_samples) int16: the file holds the leads interleaved, after `byte_offset` bytes."""
    lead = header.leads[0]
    file_path = os.path.join(os.path.dirname(path), lead.file_name)
    n_leads, n_samples = len(header.leads), header.n_samples
    n_bytes = size - lead.byte_offset
    if n_samples is None:
        n_samples = max(n_bytes, 0) // (2 * n_leads)
    expected = 2 * n_leads * n_samples
    agree = n_samples and n_bytes == expected
    content = _read_bytes(file_path, size if agree else min(size, _MAT_HEADER))
    if file_path.endswith(".mat"):
        _check_mat(file_path, content[:_MAT_HEADER], lead.byte_offset, n_leads, n_samples)
    if not agree:
        fault = "truncated" if n_bytes < max(expected, 1) else "too long"
        raise RecordError(
            f"{file_path}: {fault}: {max(n_bytes, 0)} bytes of samples, the header announces {expected} "
            f"({n_leads} leads x {n_samples} samples)"
        )
    if len(content) != size:
        raise RecordError(f"{file_path}: truncated while it was read")
    adc = np.frombuffer(content, "<i2", offset=lead.byte_offset).reshape(n_samples, n_leads)
    return np.ascontiguousarray(adc.T, np.int16)


def _read_bytes(file_path, n):
    """The first n bytes of a file, in one go; what the system refuses is a RecordError."""
    try:
        file = open_regular(file_path)
        try:
            return os.read(file, n)
        finally:
            os.close(file)
    except OSError as error:
        raise RecordError(f"{file_path}: cannot be read: {error.strerror}") from None


def _check_mat(file_path, start, byte_offset, n_leads, n_samples):
    """The head of a MATLAB version 4 file must announce the very matrix that the header describes."""
    for signature, version in ((b"MATLAB 5.0", "5"), (b"MATLAB 7.3", "7.3"), (b"\x89HDF", "7.3 (HDF5)")):
        if start.startswith(signature):
            raise RecordError(f"{file_path}: is a MATLAB version {version} file; WFDB needs version 4")
    if byte_offset != _MAT_HEADER:
        raise RecordError(
            f"{file_path}: samples of a .mat file start at byte {_MAT_HEADER}, the header says {byte_offset}"
        )
    if len(start) < _MAT_HEADER:
        raise RecordError(f"{file_path}: truncated: {len(start)} bytes")
    kind, rows, columns, imaginary, name_length = struct.unpack("<5i", start[:20])
    if (kind, imaginary, name_length, start[20:]) != (_MAT_INT16, 0, 4, b"val\0"):
        raise RecordError(f"{file_path}: does not begin with an int16 matrix 'val' of MATLAB version 4")
    if (rows, columns) != (n_leads, n_samples):
        raise RecordError(f"{file_path}: 'val' is {rows} x {columns}, the header announces {n_leads} x {n_samples}")


def _read_with_wfdb(path, header, sizes):
    """-> adc (n_leads, n_samples), of any integer type. Leads with several samples a frame are averaged to one."""
    _check_sizes(path, header, sizes)
    import wfdb  # here, for it takes a second to import and most data never needs it

    path = os.path.abspath(
        path
    )  # it never looks like the address of a cloud store; without pn_dir wfdb stays off the network
    try:
        same = _files_for_wfdb(wfdb.rdheader(path)) == [lead[:5] for lead in header.leads]
        adc = wfdb.rdrecord(path, physical=False).d_signal if same else None
    except _WFDB_ERRORS as error:
        raise RecordError(f"{path}: wfdb cannot read its signals: {type(error).__name__}: {error}") from error
    if not same:
        raise RecordError(
            f"{path}: wfdb finds other signal lines in its header: are there control or non-ASCII characters in it?"
        )
    if adc is None or adc.size == 0 or adc.shape != (header.n_samples or len(adc), header.n_leads):
        raise RecordError(f"{path}: wfdb reads other than {header.n_leads} leads x {header.n_samples} samples")
    return adc.T


def _files_for_wfdb(record):
    """File name to byte offset of each lead as wfdb understands the header. It breaks lines at more characters than
    we do and drops what is not ASCII, so that it might open other files than those that were checked.
    """
    return [
        (name, fmt, per_frame, skew or 0, offset or 0)
        for name, fmt, per_frame, skew, offset in zip(
            record.file_name, record.fmt, record.samps_per_frame, record.skew, record.byte_offset, strict=True
        )
    ]


def _check_sizes(path, header, sizes):
    """No file may be too small for the samples announced, so that no more than it holds is allocated."""
    if (header.n_samples or 0) * header.n_leads > MAX_UNCHECKED_VALUES and not all(
        x.fmt in _BITS for x in header.leads
    ):
        raise RecordError(f"{path}: more than {MAX_UNCHECKED_VALUES} values announced in a compressed format")
    for file_name, size in sizes.items():
        leads = [lead for lead in header.leads if lead.file_name == file_name]
        if leads[0].fmt not in _BITS:
            continue
        bits = _BITS[leads[0].fmt] * sum(lead.samples_per_frame for lead in leads)  # per frame
        n_bytes = size - leads[0].byte_offset
        if n_bytes < int(bits * (header.n_samples or 1) / 8):
            raise RecordError(
                f"{os.path.join(os.path.dirname(path), file_name)}: truncated: {n_bytes} bytes of samples, "
                f"the header announces {header.n_samples} frames of {bits:g} bits"
            )


def _compare_sums(adc, header):
    """Texts on leads whose first value or 16-bit checksum is not the one stored in the header."""
    if any(lead.samples_per_frame != 1 or lead.skew for lead in header.leads):
        return []  # wfdb has averaged or shifted the samples that were summed
    texts = []
    sums = _checksums(adc)
    for lead, first, total in zip(header.leads, adc[:, 0].tolist(), sums):
        if lead.initial_value is not None and lead.initial_value != first:
            texts.append(f"lead {lead.name}: first value {lead.initial_value} stored, {first} read")
        if lead.checksum is not None and (lead.checksum - total) % 65536:
            texts.append(f"lead {lead.name}: checksum {lead.checksum} stored, {total} read")
    return texts


def _checksums(adc):
    """The WFDB checksum: the sum of a lead's samples, as a signed 16-bit number that wraps around."""
    return adc.astype(np.int16, copy=False).sum(axis=1, dtype=np.int16).tolist()


def read_segments(path, header, read_header):
    """-> adc (n_leads, n_samples), header with leads, of a multi-segment record: its segments, read one by one and put
    together by lead name. Where a lead has no samples it holds its format's invalid value. All segments must agree
    on rate, and on format, gain, baseline and unit of a lead."""
    if header.n_leads * (header.n_samples or 0) > MAX_UNCHECKED_VALUES:
        raise RecordError(f"{path}: more than {MAX_UNCHECKED_VALUES} values in a multi-segment record")
    parts, leads = [], {}
    start = 0
    for name, n_samples in header.segments:
        if name != "~":
            segment_path = os.path.join(os.path.dirname(path), name)
            segment = read_header(segment_path)
            _check_segment(segment_path, segment, header, n_samples)
            for lead in segment.leads:
                known = leads.setdefault(lead.name, lead)
                if known.file_name == "~":  # a layout header knows the names only
                    leads[lead.name] = known = lead
                if n_samples and not _same_scale(known, lead):
                    raise RecordError(
                        f"{segment_path}: lead {lead.name} has another format, gain, baseline or unit than "
                        "in the segments before"
                    )
            if n_samples:
                parts.append((start, segment, read_samples(segment_path, segment)))
        start += n_samples
    if not parts or len(leads) != header.n_leads:
        raise RecordError(f"{path}: its segments hold {len(leads)} leads, the header announces {header.n_leads}")
    return _join(parts, list(leads.values()), header)


def _same_scale(lead, other):
    return (lead.fmt, lead.gain, lead.baseline, lead.unit) == (other.fmt, other.gain, other.baseline, other.unit)


def _check_segment(path, segment, header, n_samples):
    if segment.segments:
        raise RecordError(f"{path}: a segment has segments of its own")
    if len(set(segment.lead_names)) != len(segment.leads):
        raise RecordError(f"{path}: a segment with two leads of one name")
    if segment.sample_freq != header.sample_freq or (segment.n_samples or 0) != n_samples:
        raise RecordError(
            f"{path}: segment of {segment.n_samples} samples at {segment.sample_freq:g} Hz, the record "
            f"announces {n_samples} at {header.sample_freq:g} Hz"
        )


def _join(parts, leads, header):
    rows = {lead.name: row for row, lead in enumerate(leads)}
    dtype = np.result_type(np.int16, *(adc for _, _, adc in parts))
    fill = np.array([INVALID_SAMPLE[lead.fmt] or 0 for lead in leads], dtype)
    adc = np.repeat(fill[:, None], header.n_samples, axis=1)  # (n_leads, n_samples)
    for start, segment, samples in parts:
        adc[[rows[name] for name in segment.lead_names], start : start + samples.shape[1]] = samples
    leads = [lead._replace(initial_value=None, checksum=None) for lead in leads]  # those were of single segments
    return adc, header._replace(leads=tuple(leads), segments=())
