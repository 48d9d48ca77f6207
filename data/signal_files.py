"""Samples from disk, as the ADC values that were stored.

16-bit files (`.mat` of MATLAB version 4, `.dat`), which is what the Challenges ship, are read directly; every other
WFDB format goes through the wfdb package. Nothing in a file is executed, and nothing larger than the file itself is
allocated on the word of a header. What a header names lies in its folder; where the file of that name leads, being a
link, is followed.
"""

import os
import shutil
import stat
import struct
import tempfile
from operator import attrgetter

import numpy as np

from data.files import link_note, open_regular, pointer_note
from data.headers import INVALID_SAMPLE, Header, Lead, RecordError

# Values (leads x samples) accepted where the size of the file cannot vouch for them: compressed or segmented records,
# and leads of unlike rates.
MAX_UNCHECKED_VALUES = 2**28  # 12 leads of 12 hours at 500 Hz

_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}
_INT16 = {"16": "<i2", "61": ">i2"}  # formats that are read directly
_FILE_NAME = attrgetter("file_name")
_PER_FRAME = attrgetter("samples_per_frame")
_STORAGE = attrgetter("fmt", "skew", "byte_offset")
_MAT_HEADER = 24  # bytes: five int32 and the name 'val\0'
_MAT_INT16 = 30  # type word of a full little-endian int16 matrix
_MAX_POINTER = 1024  # bytes of a file that stands for one that was not downloaded
# What wfdb raises on files that are not what their header says (it has no common base class).
_WFDB_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, RuntimeError, MemoryError)


def read_samples(path: str, header: Header, check_sums: bool = False) -> tuple[np.ndarray, Header]:
    """Read a record without segments.

    Args:
        path: Of the record, without extension.
        header: What its header file says.
        check_sums: Whether to compare first values and checksums with those in the header.

    Returns:
        adc (n_leads, n_samples), int16 where the file is of format 16, and the header with the rate, the number of
        samples and the warnings that go with them. Leads with fewer samples a frame than others are brought to the
        highest rate; all are float64 then.

    Raises:
        RecordError: A signal file is missing, is not a regular file, is shorter (or, in format 16, longer) than the
            header announces, or is none that WFDB knows.
    """
    rows, warnings = read_leads(path, header, check_sums)
    frame = max(map(_PER_FRAME, header.leads))
    if isinstance(rows, np.ndarray):
        adc = rows
    else:
        adc, resampled = _at_one_rate(path, rows, header.leads, frame)
        if resampled:
            warnings.append(f"resampled to {header.sample_freq * frame:g} Hz: {', '.join(resampled)}")
    if frame > 1 or header.n_samples is None or warnings:
        leads = tuple(lead._replace(samples_per_frame=1) for lead in header.leads) if frame > 1 else header.leads
        header = header._replace(
            leads=leads,
            sample_freq=header.sample_freq * frame,
            n_samples=adc.shape[1],
            warnings=header.warnings + tuple(warnings),
        )
    return adc, header


def read_leads(path: str, header: Header, check_sums: bool = False) -> tuple[np.ndarray | list[np.ndarray], list[str]]:
    """-> the samples of each lead as they are stored: adc (n_leads, n_samples) where all stand in one file and have one
    sample a frame, else a list of arrays (n_frames x samples per frame,); warnings. Arguments and errors as above.
    """
    leads = header.leads
    if not leads:
        raise RecordError(f"{path}: the header announces no leads")
    folder = os.path.dirname(path)
    file_names = dict.fromkeys(map(_FILE_NAME, leads))
    if len(file_names) == 1:
        rows = _read_file(os.path.join(folder, leads[0].file_name), leads, header.n_samples)
    else:
        rows = [None] * len(leads)
        for file_name in file_names:
            places = [row for row, lead in enumerate(leads) if lead.file_name == file_name]
            found = _read_file(os.path.join(folder, file_name), [leads[row] for row in places], header.n_samples)
            for row, samples in zip(places, found):
                rows[row] = samples
        n_frames = {len(samples) // lead.samples_per_frame for samples, lead in zip(rows, leads)}
        if len(n_frames) > 1:
            raise RecordError(f"{path}: its files hold unlike numbers of samples: {sorted(n_frames)}")
    return rows, _compare_sums(rows, leads) if check_sums else []


def _read_file(file_path, leads, n_frames):
    """-> the samples of the leads that one file holds: (n_leads, n_frames), or a list of a row each."""
    try:
        size = check_file(file_path)
        kinds = set(map(_STORAGE, leads))
        fmt, skew, _ = next(iter(kinds))
        if len(kinds) == 1 and fmt in _INT16 and not skew:
            return _read_int16(file_path, leads, n_frames, size)
        return _read_with_wfdb(file_path, leads, n_frames, size)
    except RecordError as error:
        raise RecordError(f"{error}{link_note(file_path)}") from None


def check_file(file_path: str) -> int:
    """Size in bytes of a signal file, once it is known to be, or to lead to, a regular file. Raises RecordError."""
    try:
        info = os.stat(file_path)
    except FileNotFoundError:
        raise RecordError(f"{file_path}: signal file is missing") from None
    except OSError as error:
        raise RecordError(f"{file_path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        raise RecordError(f"{file_path}: is not a regular file")
    if info.st_size == 0:
        raise RecordError(f"{file_path}: is empty")
    if info.st_size <= _MAX_POINTER and (note := pointer_note(_read_bytes(file_path, _MAX_POINTER))):
        raise RecordError(f"{file_path}: {note}")
    return info.st_size


def _read_int16(file_path, leads, n_frames, size):
    """The file holds frame after frame, and in a frame the samples of lead after lead, behind `byte_offset` bytes."""
    offset = leads[0].byte_offset
    per_frame = list(map(_PER_FRAME, leads))
    n_columns = sum(per_frame)
    n_bytes = size - offset
    if n_frames is None:
        n_frames = max(n_bytes, 0) // (2 * n_columns)
    expected = 2 * n_columns * n_frames
    agree = n_frames > 0 and n_bytes == expected
    content = _read_bytes(file_path, size if agree else min(size, _MAT_HEADER))
    in_frames = n_columns > len(leads)
    # By the name that the header gives it: what it leads to may be named by its hash.
    if file_path.lower().endswith(".mat") and (agree or not in_frames):
        _check_mat(file_path, content[:_MAT_HEADER], offset, n_columns, n_frames)
    if not agree:
        fault = "truncated" if n_bytes < max(expected, 1) else "too long"
        raise RecordError(
            f"{file_path}: {fault}: {max(n_bytes, 0)} bytes of samples, the header announces {expected} "
            f"({n_columns} {'samples a frame' if in_frames else 'leads'} x {n_frames} "
            f"{'frames' if in_frames else 'samples'})"
        )
    if len(content) != size:
        raise RecordError(f"{file_path}: truncated while it was read")
    frames = np.frombuffer(content, _INT16[leads[0].fmt], offset=offset).reshape(n_frames, n_columns)
    if not in_frames:
        return np.ascontiguousarray(frames.T, np.int16)
    parts = np.split(frames, np.cumsum(per_frame)[:-1], axis=1)  # each (n_frames, samples per frame)
    return [part.astype(np.int16).reshape(-1) for part in parts]


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


def _read_with_wfdb(file_path, leads, n_frames, size):
    """-> (n_leads, n_frames), or a list of arrays (n_frames x samples per frame,), of any integer type.

    wfdb is given a header of our own and a link to the one file, in a folder made for it. So it reads the very file
    that was checked: it breaks the lines of headers at more characters than we do, drops what is not ASCII, and does
    not know names such as 'X.HEA', so that it might otherwise open another one, or none.
    """
    _check_size(file_path, leads, n_frames, size)
    import wfdb  # here, for it takes a second to import and most data never needs it

    lines = [f"r {len(leads)} 500" + ("" if n_frames is None else f" {n_frames}")]
    for lead in leads:
        fmt = f"{lead.fmt}x{lead.samples_per_frame}:{lead.skew}+{lead.byte_offset}"
        lines.append(f"s.dat {fmt} 200 {lead.adc_resolution} {lead.adc_zero} {lead.initial_value or 0} 0 0 x")
    in_frames = any(lead.samples_per_frame > 1 for lead in leads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "r.hea"), "w", encoding="ascii") as out:
                out.write("\n".join(lines) + "\n")
            _link(os.path.abspath(file_path), os.path.join(folder, "s.dat"))
            record = wfdb.rdrecord(os.path.join(folder, "r"), physical=False, smooth_frames=not in_frames)
    except _WFDB_ERRORS as error:
        raise RecordError(f"{file_path}: wfdb cannot read its signals: {type(error).__name__}: {error}") from error
    rows = record.e_d_signal if in_frames else record.d_signal.T
    n_frames = n_frames or len(rows[0]) // leads[0].samples_per_frame
    if n_frames == 0 or [len(row) for row in rows] != [n_frames * lead.samples_per_frame for lead in leads]:
        raise RecordError(f"{file_path}: wfdb reads other than {len(leads)} leads x {n_frames} frames")
    return rows


def _link(original, place):
    try:
        os.symlink(original, place)
    except (OSError, NotImplementedError):  # Windows, for most users
        shutil.copyfile(original, place)


def _check_size(file_path, leads, n_frames, size):
    """No file may be too small for the samples announced, so that no more than it holds is allocated."""
    fmt = leads[0].fmt
    per_frame = sum(lead.samples_per_frame for lead in leads)
    if fmt not in _BITS:
        if (n_frames or 0) * per_frame > MAX_UNCHECKED_VALUES:
            raise RecordError(f"{file_path}: more than {MAX_UNCHECKED_VALUES} values announced in a compressed format")
        return
    bits = _BITS[fmt] * per_frame
    n_bytes = size - leads[0].byte_offset
    if n_bytes < int(bits * (n_frames or 1) / 8):
        raise RecordError(
            f"{file_path}: truncated: {n_bytes} bytes of samples, the header announces {n_frames} frames of "
            f"{bits:g} bits"
        )


def _compare_sums(rows, leads):
    """Texts on leads whose first value or 16-bit checksum is not the one stored in the header."""
    if isinstance(rows, np.ndarray):
        firsts = rows[:, 0].tolist()
        sums = _checksums(rows)
    else:
        firsts = [int(row[0]) for row in rows]
        sums = [_checksums(row[None])[0] for row in rows]
    texts = []
    for lead, first, total in zip(leads, firsts, sums):
        if lead.skew:  # wfdb has shifted the samples that were summed
            continue
        if lead.initial_value is not None and lead.initial_value != first:
            texts.append(f"lead {lead.name}: first value {lead.initial_value} stored, {first} read")
        if lead.checksum is not None and (lead.checksum - total) % 65536:
            texts.append(f"lead {lead.name}: checksum {lead.checksum} stored, {total} read")
    return texts


def _checksums(adc):
    """The WFDB checksum: the sum of a lead's samples, as a signed 16-bit number that wraps around."""
    return adc.astype(np.int16, copy=False).sum(axis=1, dtype=np.int16).tolist()


def _at_one_rate(path, rows, leads, frame):
    """-> adc (n_leads, n_frames * frame), names of the leads that were resampled for it."""
    per_frame = [lead.samples_per_frame for lead in leads]
    if min(per_frame) == frame:
        return np.stack(rows), []
    n_samples = len(rows[0]) // per_frame[0] * frame
    if n_samples * len(leads) > MAX_UNCHECKED_VALUES:
        raise RecordError(f"{path}: more than {MAX_UNCHECKED_VALUES} values at the rate of its fastest lead")
    adc = np.stack([at_rate(row, lead, frame) for row, lead in zip(rows, leads)])
    return adc, [lead.name for lead in leads if lead.samples_per_frame < frame]


def at_rate(samples: np.ndarray, lead: Lead, frame: int) -> np.ndarray:
    """-> (n_frames * frame,) float64 ADC values, NaN where the stored ones are invalid.

    Args:
        samples: (n_frames * lead.samples_per_frame,) ADC values as they are stored.
        lead: Whose they are.
        frame: Samples a frame that are wanted, at least those of the lead.
    """
    values = samples.astype(np.float64)
    invalid = INVALID_SAMPLE[lead.fmt]
    bad = np.zeros(len(values), bool) if invalid is None else samples == invalid
    values[bad] = np.nan
    per_frame = lead.samples_per_frame
    if per_frame == frame or bad.all():
        return values if per_frame == frame else np.full(len(values) // per_frame * frame, np.nan)
    index = np.arange(len(values))
    filled = np.interp(index, index[~bad], values[~bad] - lead.baseline)  # a gap would ring in its neighbours
    from data.resample import resample  # here: the evaluator, which reads headers only, must not wait for PyTorch

    out = resample(filled[None].astype(np.float32), per_frame, frame)[0].astype(np.float64) + lead.baseline
    if bad.any():
        nearest = (np.arange(len(out)) * per_frame + frame // 2) // frame  # stored sample beside each new one
        out[bad[np.minimum(nearest, len(bad) - 1)]] = np.nan
    return out
