"""Multi-segment records and leads with several samples a frame, against the wfdb package."""

import numpy as np
import pytest
import wfdb
from conftest import LEADS, fake_ecg, write_record
from scipy.signal import resample_poly

from data.inputs import read_input
from data.preprocess import SignalConfig, preprocess
from data.records import RecordError, find_records, read_record, record_files

AT_500 = SignalConfig(sample_freq=500.0, clip=1000.0)


def write_segment(folder, name, adc, leads=LEADS, gain=1000, baseline=0, unit="mV", fmt="16", freq=500):
    """A record as the wfdb package writes it; adc (n_leads, n)."""
    n = len(leads)
    wfdb.wrsamp(
        name,
        freq,
        [unit] * n,
        list(leads),
        d_signal=np.asarray(adc, np.int64).T,
        fmt=[fmt] * n,
        adc_gain=[gain] * n,
        baseline=[baseline] * n,
        write_dir=str(folder),
    )


def ecg(seed, seconds=5):
    return fake_ecg(np.random.default_rng(seed), seconds)


def physical(adc, header):
    """(n_leads, n) float64 in the units of the header, NaN where a sample is invalid."""
    gain = np.array([lead.gain for lead in header.leads])[:, None]
    baseline = np.array([lead.baseline for lead in header.leads])[:, None]
    return np.where((adc == -32768) | np.isnan(adc), np.nan, (adc - baseline) / gain)


def two_segments(folder, name="M", **second):
    """M with M_1 and M_2 of 2500 samples each; options of the second one."""
    write_segment(folder, f"{name}_1", ecg(1))
    write_segment(folder, f"{name}_2", ecg(2), **second)
    (folder / f"{name}.hea").write_text(
        f"{name}/2 12 500 5000\n{name}_1 2500\n{name}_2 2500\n#Age: 50\n#Dx: 426783006\n"
    )


# Which files are recordings
# -------------------------------------------------------------------------------------------------------------


def names(folder):
    return [record.name for record in find_records(folder)]


def test_a_record_of_two_segments_is_one_recording(tmp_path):
    two_segments(tmp_path)
    write_record(tmp_path, "other_1", ecg(3))  # no record names it: it is a recording
    (record, other) = find_records(tmp_path)
    assert (record.name, other.name) == ("M", "other_1")
    signal, _, header, warnings = read_input(record, SignalConfig())
    assert signal.shape == (12, 1000) and header.dx == ("426783006",) and header.age == 50 and warnings == []


def test_segments_and_layout_of_any_name_are_not_recordings(tmp_path):
    write_segment(tmp_path, "part", ecg(1))
    write_segment(tmp_path, "3544749_0001", ecg(2))
    layout = "lay-out 12 500 0\n" + "".join(f"~ 0 1000/mV 16 0 0 0 0 {name}\n" for name in LEADS)
    (tmp_path / "lay-out.hea").write_text(layout)
    (tmp_path / "M.hea").write_text(
        "\n# comment\r\n M/4 12 500 6000\r\nlay-out 0\r\n part 2500\r\n~ 1000\n3544749_0001 2500\n"
    )
    assert names(tmp_path) == ["M"]
    (tmp_path / "deeper").mkdir()
    two_segments(tmp_path / "deeper")
    assert names(tmp_path) == ["M", "deeper/M"]
    (tmp_path / "M.hea").unlink()
    assert names(tmp_path) == ["3544749_0001", "lay-out", "part", "deeper/M"]  # without it they are what they are


def test_a_record_with_a_signal_file_of_its_own_name_still_names_its_segments(tmp_path):
    """As where somebody has put the segments together and kept them."""
    two_segments(tmp_path)
    (tmp_path / "M.dat").write_bytes(bytes(100))
    assert names(tmp_path) == ["M"]


def test_records_that_name_each_other_or_nothing_are_not_lost(tmp_path):
    (tmp_path / "A.hea").write_text("A/1 12 500 10\nB 10\n")
    (tmp_path / "B.hea").write_text("B/1 12 500 10\nA 10\n")
    (tmp_path / "C.hea").write_text("C/1 12 500 10\nC 10\n")
    (tmp_path / "D.hea").write_text("D/2 12 500 10\n../A 5\nnowhere 5\n")
    (tmp_path / "E.hea").write_text("")
    records = find_records(tmp_path)
    assert [record.name for record in records] == ["A", "B", "C", "D", "E"]
    for record in records:
        with pytest.raises(RecordError, match="segments of its own|not a segment line|empty"):
            read_record(record)


def test_no_header_is_opened_where_each_has_its_signal_file(tmp_path, monkeypatch):
    for name in ("A0001", "A0002", "00001_lr"):
        write_record(tmp_path, name, ecg(0, 1))
    monkeypatch.setattr("data.header_files.open_regular", lambda path: pytest.fail(f"{path} was opened"))
    assert names(tmp_path) == ["00001_lr", "A0001", "A0002"]


# Segments against wfdb
# -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"gain": 500},
        {"baseline": -300},
        {"gain": 250.5, "baseline": 17},
        {"gain": 1, "unit": "uV"},
        {"gain": 1e6, "unit": "V"},
        {"fmt": "32"},
        {"fmt": "212", "gain": 1000},
        {"fmt": "24", "gain": 3000, "baseline": 100_000},
    ],
    ids=str,
)
def test_segments_of_another_scale_equal_wfdb(second, tmp_path):
    two_segments(tmp_path, **second)
    adc, header = read_record(tmp_path / "M", check_sums=True)
    first, other = (wfdb.rdrecord(str(tmp_path / f"M_{i}")).p_signal.T for i in (1, 2))
    factor = {"mV": 1, "uV": 1e-3, "V": 1e3}[second.get("unit", "mV")]
    expected = np.hstack([first, other * factor])
    np.testing.assert_allclose(physical(adc, header), expected, rtol=1e-9, atol=1e-9)
    if factor == 1:  # wfdb does not look at the units of segments
        np.testing.assert_allclose(physical(adc, header), wfdb.rdrecord(str(tmp_path / "M")).p_signal.T, atol=1e-9)
    if abs(second.get("baseline", 0)) < 1000:  # beyond it an offset is subtracted
        np.testing.assert_allclose(preprocess(adc, header, AT_500), expected, atol=1e-5)
    assert (adc.dtype.kind == "i") == (second == {}) and header.warnings == ()


def test_a_layout_gaps_and_segments_with_some_of_the_leads_equal_wfdb(tmp_path):
    layout = "L 3 500 0\n" + "".join(f"~ 0 200/mV 16 0 0 0 0 {name}\n" for name in ("I", "II", "V1"))
    (tmp_path / "L.hea").write_text(layout)
    write_segment(tmp_path, "M_1", ecg(1)[:2], ("I", "II"), gain=200, baseline=3)
    write_segment(tmp_path, "M_2", ecg(2)[:2], ("V1", "II"), gain=400)
    (tmp_path / "M.hea").write_text("M/5 3 500 5600\nL 0\nM_1 2500\n~ 500\nM_2 2500\n~ 100\n")
    assert names(tmp_path) == ["M"]
    adc, header = read_record(tmp_path / "M")
    expected = wfdb.rdrecord(str(tmp_path / "M"))
    order = [expected.sig_name.index(name) for name in header.lead_names]
    np.testing.assert_allclose(physical(adc, header), expected.p_signal.T[order], atol=1e-9)
    _, _, _, warnings = read_input(find_records(tmp_path)[0], SignalConfig())
    assert any("invalid samples, interpolated" in text for text in warnings)


@pytest.mark.parametrize("fmt", ["0", "8", "16", "24", "32", "80"])
def test_a_lead_that_only_the_layout_has_is_a_gap(fmt, tmp_path):
    (tmp_path / "L.hea").write_text(f"L 2 500 0\n~ {fmt} 200/mV 16 0 0 0 0 I\n~ {fmt} 200/mV 16 0 0 0 0 II\n")
    write_segment(tmp_path, "M_1", ecg(1)[:1], ("I",))
    (tmp_path / "M.hea").write_text("M/2 2 500 2500\nL 0\nM_1 2500\n")
    _, _, _, warnings = read_input(tmp_path / "M", SignalConfig())
    adc, header = read_record(tmp_path / "M")
    np.testing.assert_array_equal(adc[0], ecg(1)[0])
    assert header.lead_names == ("I", "II") and "2500 invalid samples, interpolated" in warnings


def test_sums_and_oddities_of_segments_are_remarked_upon(tmp_path):
    two_segments(tmp_path)
    header = tmp_path / "M_2.hea"
    header.write_text(header.read_text().replace(f" {ecg(2)[0, 0]} ", " 4321 ", 1) + "#Dx: 59118001\n")
    (tmp_path / "M.hea").write_text((tmp_path / "M.hea").read_text().replace("#Dx: 426783006\n", ""))
    warnings = read_record(tmp_path / "M", check_sums=True)[1].warnings
    assert warnings[0].startswith("segment M_2: lead I: first value 4321 stored")
    assert "does not repeat: 59118001" in warnings[1] and len(warnings) == 2


@pytest.mark.parametrize(
    "second, fault",
    [
        ({"unit": "mmHg"}, "lead I is in 'mV' in one segment and in 'mmHg' in another"),
        ({"freq": 250}, "segment of 2500 samples at 250 Hz"),
        ({"leads": ("I", "II", "II", *LEADS[3:])}, "two leads of one name"),
        ({"leads": ("I", "X", *LEADS[2:])}, "its segments hold 13 leads, the header announces 12"),
    ],
)
def test_segments_that_do_not_fit_together(second, fault, tmp_path):
    write_segment(tmp_path, "M_1", ecg(1))
    header = "M/2 12 500 5000\nM_1 2500\nM_2 2500\n"
    (tmp_path / "M.hea").write_text(header)
    try:
        write_segment(tmp_path, "M_2", ecg(2), **second)
    except ValueError:  # wfdb writes no two leads of one name
        write_segment(tmp_path, "M_2", ecg(2))
        text = (tmp_path / "M_2.hea").read_text()
        (tmp_path / "M_2.hea").write_text(text.replace(" III\n", " II\n"))
    with pytest.raises(RecordError) as error:
        read_record(tmp_path / "M")
    assert fault in str(error.value)


def test_segments_cannot_announce_more_than_memory(tmp_path):
    write_segment(tmp_path, "M_1", ecg(1))
    (tmp_path / "M.hea").write_text("M/2 12 500 2000002500\nM_1 2500\n~ 2000000000\n")
    with pytest.raises(RecordError, match="more than .* values in a multi-segment record"):
        read_record(tmp_path / "M")
    (tmp_path / "M.hea").write_text("M/1 12 500 2500\nN 2500\n")
    (tmp_path / "N.hea").write_text("N/1 12 500 2500\nM_1 2500\n")
    with pytest.raises(RecordError, match="segments of its own"):
        read_record(tmp_path / "M")


# Frames
# -------------------------------------------------------------------------------------------------------------


def write_frames(folder, name, adc, per_frame, fmt="16", scale="1000/mV", leads=LEADS, freq=50):
    """A record whose lead i has per_frame[i] samples a frame; adc: arrays (n_frames * per_frame[i],)."""
    columns = [np.asarray(x).reshape(-1, k) for x, k in zip(adc, per_frame)]
    np.hstack(columns).astype({"16": "<i2", "61": ">i2", "32": "<i4"}[fmt]).tofile(folder / f"{name}.dat")
    lines = [f"{name} {len(adc)} {freq} {len(columns[0])}"]
    for lead, x, k in zip(leads, adc, per_frame):
        total = int(np.asarray(x, np.int64).sum()) & 0xFFFF
        lines.append(f"{name}.dat {fmt}x{k} {scale} 16 0 {x[0]} {total} 0 {lead}")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("fmt", ["16", "61", "32"])
def test_ten_samples_a_frame_are_all_read(fmt, tmp_path):
    signal = ecg(1)
    write_frames(tmp_path, "F", signal, [10] * 12, fmt)
    adc, header = read_record(tmp_path / "F", check_sums=True)
    np.testing.assert_array_equal(adc, signal)
    assert (header.sample_freq, header.n_samples, header.warnings) == (500, 2500, ())
    if fmt != "61":  # of which wfdb cannot give all samples
        expected = wfdb.rdrecord(str(tmp_path / "F"), physical=False, smooth_frames=False).e_d_signal
        np.testing.assert_array_equal(adc, expected)
    write_record(tmp_path, "plain", signal)
    framed, plain = (read_input(tmp_path / name, AT_500) for name in ("F", "plain"))
    np.testing.assert_array_equal(framed[0], plain[0])
    np.testing.assert_array_equal(framed[1][4:], plain[1][4:])  # its rhythm; this header knows no age and sex


def test_first_values_and_checksums_of_frames_are_checked(tmp_path):
    signal = ecg(1)
    write_frames(tmp_path, "F", signal, [10] * 12)
    good = (tmp_path / "F.hea").read_text()
    total = int(signal[11].astype(int).sum()) & 0xFFFF
    (tmp_path / "F.hea").write_text(good.replace(f" {total} 0 V6", f" {total + 1} 0 V6"))
    assert read_record(tmp_path / "F", check_sums=True)[1].warnings[0].startswith("lead V6: checksum")
    (tmp_path / "F.hea").write_text(good.replace(f" {signal[0, 0]} ", " 4321 ", 1))
    assert "lead I: first value 4321 stored" in read_record(tmp_path / "F", check_sums=True)[1].warnings[0]


def test_leads_of_unlike_rates_are_brought_to_the_highest(tmp_path):
    signal = ecg(1)
    per_frame = [10] * 6 + [5] * 4 + [2, 1]
    down = [x[:: 10 // k] for x, k in zip(signal, per_frame)]
    write_frames(tmp_path, "F", down, per_frame)
    adc, header = read_record(tmp_path / "F", check_sums=True)
    stored = wfdb.rdrecord(str(tmp_path / "F"), physical=False, smooth_frames=False).e_d_signal
    assert adc.shape == (12, 2500) and (header.sample_freq, header.n_samples) == (500, 2500)
    for row, samples, k in zip(adc, stored, per_frame):
        expected = samples if k == 10 else resample_poly(samples.astype(float), 10 // k, 1, padtype="edge")
        np.testing.assert_allclose(row, expected, atol=1e-2)
    assert header.warnings == ("resampled to 500 Hz: V1, V2, V3, V4, V5, V6",)


def test_a_gap_does_not_ring_where_a_lead_is_resampled(tmp_path):
    slow, fast = ecg(1)[0, ::2].copy(), ecg(1)[1]
    slow[400:500] = -32768
    write_frames(tmp_path, "F", [slow, fast], [5, 10], leads=("I", "II"))
    adc, _ = read_record(tmp_path / "F")
    bad = np.isnan(adc[0])
    assert bad.sum() == 200 and bad[800:999].all() and np.nanmin(adc[0]) > -2000
    assert any("invalid samples" in text for text in read_input(tmp_path / "F", SignalConfig())[3])


def test_files_of_unlike_frames_and_formats_equal_wfdb(tmp_path):
    rng = np.random.default_rng(4)
    a, b = rng.integers(-99, 99, 500), rng.integers(-99, 99, 1000)
    a.astype("<i2").tofile(tmp_path / "a.dat")
    (b + 128).astype(np.uint8).tofile(tmp_path / "b.dat")
    lines = [f"a.dat 16 200 16 0 {a[0]} {a.sum()} 0 I", f"b.dat 80x2 200 8 0 {b[0]} {b.sum()} 0 II"]
    (tmp_path / "W.hea").write_text("\n".join(["W 2 100 500", *lines]))
    adc, header = read_record(tmp_path / "W", check_sums=True)
    stored = wfdb.rdrecord(str(tmp_path / "W"), physical=False, smooth_frames=False).e_d_signal
    np.testing.assert_array_equal(adc[1], stored[1])
    np.testing.assert_allclose(adc[0, ::2], stored[0], atol=0.5)  # the filter passes the samples that there were
    assert header.sample_freq == 200 and header.warnings == ("resampled to 200 Hz: I",)


def test_segments_in_frames(tmp_path):
    """As in the waveforms of intensive care: ECG at four times the rate of the frames, some segments without it."""
    signal = ecg(1)
    half = signal[:, :1250], signal[:, 1250:]
    for i, part in enumerate(half, 1):
        write_frames(tmp_path, f"M_{i}", part, [10] * 12)
    write_frames(tmp_path, "M_3", [np.arange(50)], [1], leads=("V6",))
    (tmp_path / "M.hea").write_text("M/3 12 50 300\nM_1 125\nM_2 125\nM_3 50\n")
    adc, header = read_record(tmp_path / "M", check_sums=True)
    assert adc.shape == (12, 3000) and header.sample_freq == 500 and header.n_samples == 3000
    np.testing.assert_array_equal(adc[:, :2500], signal)
    assert np.isnan(adc[:11, 2500:]).all() and not np.isnan(adc[11]).any()
    (tmp_path / "M.hea").write_text("M/2 12 50 250\nM_1 125\nM_2 125\n")
    adc, _ = read_record(tmp_path / "M", check_sums=True)
    np.testing.assert_array_equal(adc, signal)
    assert adc.dtype == np.int16


def test_frames_that_the_file_does_not_hold(tmp_path):
    write_frames(tmp_path, "F", ecg(1), [10] * 12)
    header = tmp_path / "F.hea"
    good = header.read_text()
    for text in (good.replace(" 250\n", " 251\n"), good.replace("16x10", "16x11"), good.replace("16x10", "16x9")):
        header.write_text(text)
        with pytest.raises(RecordError, match="truncated|too long"):
            read_record(tmp_path / "F")


# Every file of a recording
# -------------------------------------------------------------------------------------------------------------


def test_record_files(tmp_path):
    two_segments(tmp_path)
    write_record(tmp_path, "A", ecg(0, 1))
    (tmp_path / "B.hea").write_text("B 3 500 9\nlimb.dat 16\nchest.dat 16\nlimb.dat 16\n/etc/x 16\n#c\n")
    (tmp_path / "C.hea").write_text("\0\0")
    (tmp_path / "D.hea").symlink_to("nowhere")
    found = {record.name: record_files(record) for record in find_records(tmp_path)}
    base = f"{tmp_path}/"
    assert found == {
        "A": [base + "A.hea", base + "A.mat"],
        "B": [base + "B.hea", base + "limb.dat", base + "chest.dat"],
        "C": [base + "C.hea"],
        "D": [base + "D.hea"],
        "M": [base + name for name in ("M.hea", "M_1.hea", "M_1.dat", "M_2.hea", "M_2.dat")],
    }
