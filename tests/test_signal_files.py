"""Samples against the wfdb package, and files that must be refused."""

import numpy as np
import pytest
import wfdb
from conftest import LEADS, rewrite

from data.records import (
    RecordError,
    find_records,
    read_header,
    read_record,
)


def same_as_wfdb(path):
    """Reads a record both ways; -> adc, header, warnings."""
    adc, header = read_record(path, check_sums=True)
    expected = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(adc, expected.d_signal.T)
    assert (header.lead_names, header.sample_freq, header.n_samples) == (
        tuple(expected.sig_name),
        expected.fs,
        expected.sig_len,
    )
    assert [lead.gain for lead in header.leads] == expected.adc_gain
    assert [lead.baseline for lead in header.leads] == expected.baseline
    assert [lead.unit for lead in header.leads] == expected.units
    return adc, header, list(header.warnings)


def test_sample_equals_wfdb(sample):
    if not sample.is_dir():
        pytest.skip("no sample recordings")
    for record in find_records(sample)[::4]:
        adc, header, warnings = same_as_wfdb(record.path)
        assert adc.dtype == np.int16 and warnings == []
        fields = wfdb.rdheader(record.path)
        assert [lead.checksum for lead in header.leads] == fields.checksum
        assert [lead.initial_value for lead in header.leads] == fields.init_value
        assert list(header.comments) == fields.comments


@pytest.mark.parametrize("fmt, dtype", [("61", ">i2"), ("160", "<u2"), ("212", None), ("310", None), ("311", None)])
def test_formats_wfdb_cannot_write(fmt, dtype, tmp_path):
    content = np.random.default_rng(6).bytes(7200)  # any bytes are samples in these
    (tmp_path / "W.dat").write_bytes(content)
    n = {"61": 1200, "160": 1200, "212": 1600, "310": 1800, "311": 1800}[fmt]
    (tmp_path / "W.hea").write_text(f"W 3 100 {n}\n" + "".join(f"W.dat {fmt} 200 16\n" for _ in range(3)))
    adc, header = read_record(tmp_path / "W")
    np.testing.assert_array_equal(adc, wfdb.rdrecord(str(tmp_path / "W"), physical=False).d_signal.T)
    if dtype:
        expected = np.frombuffer(content, dtype).reshape(n, 3).T.astype(int)
        np.testing.assert_array_equal(adc, expected - 32768 * (fmt == "160"))
    rewrite(tmp_path / "W.hea", f"100 {n}", f"100 {n + 9}")
    with pytest.raises(RecordError, match="truncated"):
        read_record(tmp_path / "W")


@pytest.mark.parametrize("fmt", ["16", "80", "24", "32", "508", "516", "524"])
def test_formats_equal_wfdb(fmt, tmp_path):
    limit = 100 if fmt in ("80", "508") else 500
    adc = np.random.default_rng(2).integers(-limit, limit, (601, 3))
    wfdb.wrsamp(
        "W",
        257,
        ["mV", "uV", "V"],
        ["V1", "II", "x y"],
        d_signal=adc,
        fmt=[fmt] * 3,
        adc_gain=[1000, 1.5, 2e5],
        baseline=[0, -12, 7],
        write_dir=str(tmp_path),
    )
    read, _, warnings = same_as_wfdb(tmp_path / "W")
    np.testing.assert_array_equal(read, adc.T)
    assert warnings == []


def test_dat_is_read_directly_and_may_leave_its_length_open(tmp_path, monkeypatch):
    adc = np.random.default_rng(3).integers(-32768, 32768, (1234, 2))
    wfdb.wrsamp(
        "W",
        360.5,
        ["mV"] * 2,
        ["I", "II"],
        d_signal=adc,
        fmt=["16"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0, 0],
        write_dir=str(tmp_path),
    )
    rewrite(tmp_path / "W.hea", " 1234", "")
    monkeypatch.setattr(wfdb, "rdrecord", None)
    read, header = read_record(tmp_path / "W")
    np.testing.assert_array_equal(read, adc.T)
    assert header.n_samples == 1234 and read_header(tmp_path / "W").n_samples is None and header.sample_freq == 360.5


def test_checksums_and_first_values(record):
    adc, header = read_record(record, check_sums=True)
    assert header.warnings == () and adc.shape == (12, 1000)
    total = int(adc[7].astype(int).sum())
    rewrite(record.with_suffix(".hea"), f" {header.leads[7].checksum} 0 V2", f" {header.leads[7].checksum + 1} 0 V2")
    rewrite(
        record.with_suffix(".hea"),
        f"16 0 {adc[0, 0]} {header.leads[0].checksum}",
        f"16 0 4444 {header.leads[0].checksum}",
    )
    warnings = read_record(record, check_sums=True)[1].warnings
    assert read_record(record)[1].warnings == ()
    assert len(warnings) == 2 and warnings[0] == f"lead I: first value 4444 stored, {adc[0, 0]} read"
    assert warnings[1].startswith("lead V2: checksum") and (int(warnings[1].split()[-2]) - total) % 65536 == 0


MAT_FAULTS = {
    "missing": (lambda path: path.unlink(), "missing"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
    "only head": (lambda path: path.write_bytes(path.read_bytes()[:24]), "truncated"),
    "half a head": (lambda path: path.write_bytes(path.read_bytes()[:9]), "truncated"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "too long"),
    "wrong name": (lambda path: path.write_bytes(path.read_bytes().replace(b"val\0", b"lav\0", 1)), "'val'"),
    "float64": (lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]), "int16 matrix"),
    "transposed": (
        lambda path: path.write_bytes(np.array([30, 1000, 12, 0, 4], "<i4").tobytes() + path.read_bytes()[20:]),
        "1000 x 12",
    ),
    "v5": (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), "version 5"),
    "v7.3": (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200)), "version 7.3"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)), "version 7.3"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
}


@pytest.mark.parametrize("fault", MAT_FAULTS)
def test_faulty_mat_files(record, fault):
    spoil, message = MAT_FAULTS[fault]
    spoil(record.with_suffix(".mat"))
    with pytest.raises(RecordError) as error:
        read_record(record)
    assert str(error.value).startswith(f"{record}.mat: ") and message in str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("A 12 500 1000", "A 12 500 2147483647", "'val' is 12 x 1000"),
        ("A 12 500 1000", "A 12 500 999", "'val' is 12 x 1000"),
        ("16+24", "16+0", "start at byte 24"),
        ("16+24", "212+24", "truncated|wfdb"),
        ("16+24", "16x1000", "truncated"),
        ("16+24", "16+999999999999999999", "start at byte 24"),
        ("A.mat 16+24", "B.mat 16+24", "B.mat: signal file is missing"),
    ],
)
def test_header_that_does_not_fit_its_file(record, old, new, message):
    rewrite(record.with_suffix(".hea"), old, new)
    if message == "truncated|wfdb":  # 12 bits a sample fit into the file: read, and the checksums tell
        assert len(read_record(record, check_sums=True)[1].warnings) >= 12
        return
    with pytest.raises(RecordError, match=message):
        read_record(record)


def test_no_memory_on_the_word_of_a_header(tmp_path):
    (tmp_path / "A.dat").write_bytes(bytes(100))
    for fmt in ("16", "212", "516", "8", "24x1000"):
        leads = "".join(f"A.dat {fmt} 200 16 0 0 0 0 {name}\n" for name in LEADS)
        (tmp_path / "A.hea").write_text(f"A 12 500 2000000000\n{leads}")
        with pytest.raises(RecordError, match="truncated|compressed format"):
            read_record(tmp_path / "A")
    (tmp_path / "A.hea").write_text("A 0 500 10\n")
    with pytest.raises(RecordError, match="no leads"):
        read_record(tmp_path / "A")


def test_wfdb_failures_are_record_errors(tmp_path):
    (tmp_path / "A.dat").write_bytes(bytes(100))  # not the FLAC stream that format 516 calls for
    (tmp_path / "A.hea").write_text("A 1 500 10\nA.dat 516 200 16 0 0 0 0 I\n")
    with pytest.raises(RecordError, match="wfdb cannot read"):
        read_record(tmp_path / "A")
