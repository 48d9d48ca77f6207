"""data.convert: what it writes is read by wfdb, and is what was there."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import wfdb
from conftest import LEADS, fake_ecg, write_record

from data import convert
from data.inputs import read_input
from data.preprocess import SignalConfig
from data.records import find_records, read_record

ARRAY_FLAGS = ["--sample_freq_in", "250", "--unit", "uV", "--leads", *LEADS]


def test_round_trip(sample, tmp_path):
    """16-bit samples, checksums and answers stay as they are, whatever the source's gains, baselines and lengths."""
    for source in ("ptb", "georgia", "chapman_shaoxing"):
        assert convert.main([str(sample / source), str(tmp_path / source)]) == 0
        for record in find_records(tmp_path / source):
            theirs = wfdb.rdrecord(str(sample / source / record.record_id))
            ours = wfdb.rdrecord(record.path)
            assert np.array_equal(ours.p_signal, theirs.p_signal) and ours.fs == theirs.fs
            before = read_input(sample / source / record.record_id, SignalConfig())
            after = read_input(record, SignalConfig())
            assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
            assert before[2].dx == after[2].dx and before[2].sex == after[2].sex and after[3] == before[3]


def write_dat(folder, name, adc, fmt, dtype=None):
    """Write a record of one format, 200 per mV: its samples as they are in an integer type, or packed by wfdb."""
    if dtype is None:
        parts = {"fmt": [fmt] * 12, "adc_gain": [200.0] * 12, "baseline": [0] * 12, "write_dir": str(folder)}
        wfdb.wrsamp(name, 500, ["mV"] * 12, list(LEADS), d_signal=adc.T, **parts)
        return
    adc.T.astype(dtype).tofile(folder / f"{name}.dat")
    lines = [f"{name} 12 500 {adc.shape[1]}"]
    lines += [
        f"{name}.dat {fmt} 200(0)/mV 16 0 {row[0]} {row.sum(dtype=np.int16)} 0 {lead}" for lead, row in zip(LEADS, adc)
    ]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["32", "16:5", "212", "gap"])
def test_invalid_samples_stay_invalid(kind, tmp_path):
    adc = fake_ecg(np.random.default_rng(0)).astype(int) // 5  # 200 per mV
    place = tmp_path / "in"
    place.mkdir()
    if kind == "32":
        adc[6, 1000:1010] = -(2**31)
        write_dat(place, "R1", adc, "32", "<i4")
    elif kind == "16:5":  # wfdb fills the end with the mark
        write_dat(place, "R1", adc, "16:5", "<i2")
    elif kind == "212":
        adc[7, 2000:2050] = -(2**11)
        write_dat(place, "R1", adc, "212")
    else:
        write_dat(place, "s0", adc[:, :2000], "212")
        write_dat(place, "s1", adc[:, 2000:], "212")
        (place / "R1.hea").write_text("R1/3 12 500 6000\ns0 2000\n~ 1000\ns1 3000\n")
    assert convert.main([str(place), str(tmp_path / "out")]) == 0
    if kind == "gap":  # which wfdb cannot read
        theirs = np.insert(adc / 200, [2000] * 1000, np.nan, axis=1).T
    else:
        theirs = wfdb.rdrecord(str(place / "R1")).p_signal
    ours = wfdb.rdrecord(str(tmp_path / "out" / "R1")).p_signal
    assert np.isnan(theirs).any()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)  # and NaN in the same places
    stored = read_record(tmp_path / "out" / "R1")[0]
    assert stored.dtype == np.int16 and np.array_equal(stored == -(2**15), np.isnan(theirs).T)
    before, after = (read_input(folder / "R1", SignalConfig()) for folder in (place, tmp_path / "out"))
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
    assert any("invalid samples" in text for text in after[3]) and after[3] == before[3]


def test_a_second_call_leaves_what_is_there(tmp_path, capsys):
    write_record(tmp_path / "in" / "a", "R1", fake_ecg(np.random.default_rng(0)))
    for written in (1, 0):
        assert convert.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
        assert f"{written} recordings written" in capsys.readouterr().out
    header = (tmp_path / "out" / "a" / "R1.hea").read_text()
    assert "# Age: 50" in header and "# Sex: Male" in header and "# Dx: 426783006" in header


def test_what_cannot_be_read_is_skipped(tmp_path, capsys):
    write_record(tmp_path / "in", "R1", fake_ecg(np.random.default_rng(0)))
    write_record(tmp_path / "in", "R2", fake_ecg(np.random.default_rng(1)))
    (tmp_path / "in" / "R2.mat").unlink()
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "skipped R2" in capsys.readouterr().out
    assert "R2,reading" in (tmp_path / "out" / "skipped_records.csv").read_text()
    assert [record.record_id for record in find_records(tmp_path / "out")] == ["R1"]


def write_array(file, x, leads=LEADS):
    if file.suffix == ".npy":
        np.save(file, x)
    elif file.suffix == ".npz":
        np.savez(file, x.T)
    elif file.suffix == ".csv":
        np.savetxt(file, x.T, delimiter=",", header=",".join(leads), comments="")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(dict(zip(leads, x))), file)


def needs_pyarrow(ending):
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is not installed: pip install pyarrow")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".parquet"])
def test_arrays(ending, tmp_path):
    needs_pyarrow(ending)
    x = fake_ecg(np.random.default_rng(0)).astype(float)[:, :1000] + 0.25  # uV
    x[2, 10] = np.nan
    x[3, 20] = 50_000.0  # would not fit into 16 bits of a microvolt
    (tmp_path / "in").mkdir()
    write_array(tmp_path / "in" / f"R1{ending}", x)
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *ARRAY_FLAGS]) == 0
    record = wfdb.rdrecord(str(tmp_path / "out" / "R1"))
    assert record.fs == 250 and tuple(record.sig_name) == LEADS and set(record.units) == {"mV"}
    read = record.p_signal.T * 1000
    assert np.isnan(read[2, 10]) and np.abs(read[3] - x[3]).max() < 1.6
    others = np.delete(np.arange(12), 3)
    assert np.nanmax(np.abs(read[others] - x[others])) <= 0.5 + 1e-6
    assert read_record(tmp_path / "out" / "R1", check_sums=True)[1].warnings == ()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_names_of_columns_must_be_those_of_the_leads(ending, tmp_path, capsys):
    needs_pyarrow(ending)
    chest_first = [*LEADS[6:], *(f"Lead {lead}" for lead in LEADS[:6])]  # all known, in another order
    x = fake_ecg(np.random.default_rng(0)).astype(float)[:, :1000]
    (tmp_path / "in").mkdir()
    write_array(tmp_path / "in" / f"swapped{ending}", x, chest_first)
    write_array(tmp_path / "in" / f"few{ending}", x[:2], LEADS[:2])
    write_array(tmp_path / "in" / f"spelt{ending}", x, [f"ECG {lead.lower()}" for lead in LEADS])
    write_array(tmp_path / "in" / f"unknown{ending}", x, [f"V{n}" for n in range(1, 13)])  # as R names columns
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *ARRAY_FLAGS]) == 1
    out = capsys.readouterr().out
    assert f"swapped{ending}: its columns are named V1 V2 V3 V4 V5 V6 I II III aVR aVL aVF, --leads says I II" in out
    assert f"few{ending}: its columns are named I II, --leads says" in out
    assert [record.record_id for record in find_records(tmp_path / "out")] == ["spelt", "unknown"]
    stated = [*ARRAY_FLAGS[:5], *chest_first]
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *stated]) == 1
    assert np.allclose(wfdb.rdrecord(str(tmp_path / "out" / "swapped")).p_signal[:, 0] * 1000, x[0], atol=0.51)


@pytest.mark.parametrize("first", ["# I,V1", '"II","I"'])
def test_names_in_a_csv_may_be_quoted_or_a_comment(first, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "R1.csv").write_text(f"{first}\n1,2\n3,4\n5,6\n")
    flags = [*ARRAY_FLAGS[:5], "I", "II"]
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *flags]) == 1
    assert "R1.csv: its columns are named I" in capsys.readouterr().out


def test_the_numbers_that_pandas_writes_above_columns_are_no_sample(tmp_path):
    x = fake_ecg(np.random.default_rng(0))[:, :1000]
    (tmp_path / "in").mkdir()
    pd.DataFrame(x.T).to_csv(tmp_path / "in" / "R1.csv", index=False)
    np.savetxt(tmp_path / "in" / "R2.csv", [np.arange(1, 13), *x.T], "%d", delimiter=",")  # a first sample like them
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *ARRAY_FLAGS]) == 0
    for name, n_before in (("R1", 0), ("R2", 1)):
        read = wfdb.rdrecord(str(tmp_path / "out" / name)).p_signal.T * 1000
        assert read.shape == (12, 1000 + n_before) and np.allclose(read[:, n_before:], x)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "R1.csv").write_text("0\n1\n2\n")
    flags = [*ARRAY_FLAGS[:5], "I"]
    assert convert.main([str(tmp_path / "one"), str(tmp_path / "out_one"), *flags]) == 0
    assert len(wfdb.rdrecord(str(tmp_path / "out_one" / "R1")).p_signal) == 3


def test_arrays_are_never_guessed(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "R1.npy", np.zeros((12, 12)))
    np.save(tmp_path / "in" / "R2.npy", np.array([object()]), allow_pickle=True)
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "--sample_freq_in" in capsys.readouterr().err
    assert convert.main([str(tmp_path / "in"), str(tmp_path / "out"), *ARRAY_FLAGS]) == 1
    out = capsys.readouterr().out
    assert "R1.npy: is 12 x 12" in out and "R2.npy: cannot be read" in out
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path / "in"), str(tmp_path / "out"), "--unit", "mV"])
