"""Write recordings of any format that can be read as WFDB, in the layout of the Challenges.

    python -m data.convert IN OUT                   everything in IN, in the same sub-folders
    python -m data.convert IN OUT --overwrite       also what is there already
    python -m data.convert IN OUT --sample_freq_in 500 --unit mV --leads I II III aVR aVL aVF V1 V2 V3 V4 V5 V6

The last form reads arrays, one recording a file, which say neither rate nor unit nor leads: `.npy`, `.npz` with one
array, and the columns of `.csv` (a line of names is left out if it has no number) and `.parquet`. An array is leads x
samples or samples x leads, told apart by the number of leads that you name.

OUT gets ID.hea and ID.mat of each recording: 16-bit samples with their checksums, age, sex and diagnoses. 16-bit
samples of WFDB are written as they are; others in steps of a microvolt, or coarser ones where they would not fit.
Invalid samples stay invalid. What cannot be read is skipped and listed in OUT/skipped_records.csv; the exit status is
then 1. Warnings stand in OUT/record_warnings.txt. A recording whose header is in OUT already is left as it is.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.files import FolderError, walk_files, write_atomically
from data.formats.arrays import ENDINGS, ArrayLayout, read_array
from data.headers import INVALID_SAMPLE, MAX_MESSAGE, MILLIVOLTS, Header, RecordError, printable
from data.leads import lead_name
from data.records import Record, find_records, read_record

INVALID = -(2**15)  # WFDB's mark for 'no sample here' in 16 bits
MAX_VALUE = 2**15 - 1
STEPS = 1000.0  # ADC units per mV
MAT_HEADER = 24  # bytes of a MATLAB version 4 file before its samples


def as_wfdb(record_id: str, adc: np.ndarray, header: Header) -> tuple[str, bytes]:
    """Text of the header and content of the .mat file of a recording.

    Args:
        record_id: its name, without white space or slashes.
        adc: (n_leads, n_samples) with the gains, baselines and units of the header.
        header: of the recording.

    Raises:
        RecordError: it cannot be written: a unit that is none of voltage, or nothing in it.
    """
    if adc.size == 0:
        raise RecordError(f"{record_id}: has no samples")
    samples, scales = _as_int16(record_id, adc, header)  # (n_leads, n_samples)
    n_leads, n_samples = samples.shape
    lines = [f"{record_id} {n_leads} {header.sample_freq:.10g} {n_samples}"]
    sums = samples.sum(axis=1, dtype=np.int16)
    for lead, row, checksum, scale in zip(header.leads, samples, sums, scales):
        name = lead_name(lead.name) or lead.name
        lines.append(f"{record_id}.mat 16+{MAT_HEADER} {scale} 16 0 {row[0]} {checksum} 0 {printable(name)}")
    age = "Unknown" if np.isnan(header.age) else f"{header.age:g}"
    codes = [code for code in header.dx if "," not in code and code.isprintable()]
    snomed = [code for code in codes if ":" not in code]
    lines += [f"# Age: {age}", f"# Sex: {header.sex or 'Unknown'}", f"# Dx: {','.join(snomed) or 'Unknown'}"]
    if len(snomed) < len(codes):
        lines.append(f"# Statements: {', '.join(code for code in codes if ':' in code)}")
    start = np.array([30, n_leads, n_samples, 0, 4], "<i4").tobytes() + b"val\0"  # a little-endian int16 matrix
    return "\n".join(lines) + "\n", start + samples.astype("<i2").tobytes(order="F")


def _as_int16(record_id, adc, header):
    """-> samples (n_leads, n_samples) int16, text of each lead's gain, baseline and unit."""
    if adc.dtype.kind == "i" and all(lead.fmt == "16" for lead in header.leads):  # wfdb gives them as other integers
        scales = [f"{lead.gain:.10g}({lead.baseline})/{lead.unit}" for lead in header.leads]
        return adc.astype(np.int16, copy=False), scales
    unknown = [lead.unit for lead in header.leads if lead.unit.lower() not in MILLIVOLTS]
    if unknown:
        raise RecordError(f"{record_id}: a lead in {unknown[0]!r}, not in V, mV, uV or nV")
    samples = np.empty(adc.shape, np.int16)
    scales = []
    for out, row, lead in zip(samples, adc, header.leads):
        x = (row.astype(np.float64) - lead.baseline) / lead.gain * MILLIVOLTS[lead.unit.lower()]  # mV
        mark = INVALID_SAMPLE[lead.fmt]  # None, which equals nothing, where a format has none
        good = np.isfinite(x) & (row != mark)
        peak = np.abs(x[good]).max(initial=0.0)
        steps = STEPS if peak * STEPS <= MAX_VALUE else MAX_VALUE / peak
        steps = float(f"{steps:.6g}") if steps == STEPS else float(f"{steps * 0.999:.6g}")
        out[:] = np.where(good, np.rint(np.where(good, x, 0) * steps), INVALID)
        scales.append(f"{steps:.10g}(0)/mV")
    return samples, scales


def convert(found: Iterator[tuple[Record, tuple[np.ndarray, Header] | RecordError]], out: Path, overwrite: bool):
    """Write recordings; -> number written, number left as they were, rows (record, stage, reason) of those that were
    skipped, rows (record, warning).
    """
    n_written = 0
    n_left = 0
    names = {}
    skipped = []
    warnings = []
    for record, content in found:
        folder = out / record.source
        name = record.record_id.replace("/", "_").replace(" ", "_")
        try:
            if isinstance(content, RecordError):
                raise content
            if names.setdefault(folder / name, record.name) != record.name:
                raise RecordError(f"{record.name}: its name without spaces is that of {names[folder / name]}")
            if (folder / f"{name}.hea").exists() and not overwrite:
                n_left += 1
                continue
            text, samples = as_wfdb(name, *content)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"{name}.mat", samples)
            write_atomically(folder / f"{name}.hea", text.encode("utf-8"))  # last: a header means that all is there
            n_written += 1
            warnings += [(record.name, printable(warning[:MAX_MESSAGE])) for warning in content[1].warnings]
        except RecordError as error:
            skipped.append((record.name, error.stage, str(error)))
    return n_written, n_left, skipped, warnings


def contents(records: list[Record]) -> Iterator[tuple[Record, tuple[np.ndarray, Header] | RecordError]]:
    """Yield each recording with its samples and header, or the reason why it cannot be read."""
    for record in tqdm(records, desc="Converting", unit="rec", disable=None):
        try:
            yield record, read_record(record, check_sums=True)
        except RecordError as error:
            yield record, error


def arrays(folder: str, layout: ArrayLayout) -> Iterator[tuple[Record, tuple[np.ndarray, Header] | RecordError]]:
    """The same of the arrays in a folder."""
    for listing in walk_files(folder):
        for name in sorted(listing.names):
            stem, ending = os.path.splitext(name)
            if ending.lower() not in ENDINGS:
                continue
            path = os.path.join(listing.path, stem)
            record = Record(printable(stem), path, printable(listing.inside), ending=ending)
            try:
                yield record, read_array(path + ending, layout)
            except RecordError as error:
                yield record, error


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", metavar="IN", help="folder of recordings")
    parser.add_argument("output", metavar="OUT", help="folder to write into")
    parser.add_argument("--overwrite", action="store_true", help="write what is there already, too")
    group = parser.add_argument_group("for arrays, which do not say it")
    group.add_argument("--sample_freq_in", type=float, metavar="HZ", help="their rate, e.g. 500")
    group.add_argument("--unit", choices=("V", "mV", "uV", "nV"), help="their unit")
    group.add_argument("--leads", nargs="+", metavar="LEAD", help="their leads in order, e.g. I II III")
    args = parser.parse_args(argv)
    stated = [args.sample_freq_in, args.unit, args.leads]
    if any(stated) and not all(stated):
        parser.error("--sample_freq_in, --unit and --leads go together: arrays say none of them")
    if args.sample_freq_in is not None and args.sample_freq_in <= 0:
        parser.error("--sample_freq_in must be positive")
    if os.path.realpath(args.input) == os.path.realpath(args.output):
        parser.error("IN and OUT are the same folder")
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    out = Path(args.output)
    try:
        if args.leads:
            found = arrays(args.input, ArrayLayout(args.sample_freq_in, args.unit, tuple(args.leads)))
        else:
            found = contents(find_records(args.input))
        n_written, n_left, skipped, warnings = convert(found, out, args.overwrite)
        if not n_written + n_left + len(skipped):
            raise RecordError(f"{args.input}: holds no array ({', '.join(ENDINGS)})")
        out.mkdir(parents=True, exist_ok=True)
        _write_rows(out / "skipped_records.csv", ("record", "stage", "reason"), skipped)
        _write_rows(out / "record_warnings.txt", ("record", "warning"), warnings)
    except (RecordError, FolderError, OSError) as error:
        print(f"data.convert: {error}", file=sys.stderr)
        return 1
    left = f", {n_left} were there already" if n_left else ""
    print(f"{n_written} recordings written into {printable(str(out))}{left}, {len(skipped)} skipped")
    for name, _, reason in skipped:
        print(f"  skipped {printable(f'{name}: {reason}')}")
    return 1 if skipped else 0


def _write_rows(file: Path, columns: tuple[str, ...], rows: list[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    sys.exit(main())
