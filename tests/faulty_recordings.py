"""A catalogue of faulty and odd recordings, each made in a few lines, with the answer that is expected of it.

CATALOGUE maps the id of a recording to (make, outcome, text): `make(folder, id)` writes it, outcome is READ, WARNED, SKIPPED
or IGNORED (no header, so no recording), and `text` stands in one of the warnings or in the reason for skipping.
"""
import os

import numpy as np

from conftest import LEADS, fake_ecg, write_record

READ, WARNED, SKIPPED, IGNORED = "read", "read with a warning", "skipped", "ignored"
CATALOGUE = {}


def entry(outcome, text="", record_id=None):
    """Register the decorated function under its own name or `record_id`."""
    def register(make):
        CATALOGUE[record_id or make.__name__] = (make, outcome, text)
        return make
    return register


def ecg(seconds=2, sample_freq=500):
    return fake_ecg(np.random.default_rng(7), seconds, sample_freq)


def write(folder, name, signal=None, **options):
    write_record(folder, name, ecg() if signal is None else signal, **options)


def mat(folder, name):
    return folder / f"{name}.mat"


def hea(folder, name):
    return folder / f"{name}.hea"


def rewrite(folder, name, change, **options):
    """A good recording whose header's bytes are changed by `change`."""
    write(folder, name, **options)
    before = hea(folder, name).read_bytes()
    after = change(before)
    assert after != before
    hea(folder, name).write_bytes(after)


def replaced(outcome, text, record_id, old, new, count=-1):
    """A recording in whose header `old` (bytes, or a function of the id) is replaced by `new`."""
    CATALOGUE[record_id] = (lambda folder, name: rewrite(folder, name, lambda data: data.replace(
        old(name) if callable(old) else old, new(name) if callable(new) else new, count)), outcome, text)


def record_line(outcome, text, record_id, line):
    """A recording with another record line; `line` is a format string for the id."""
    CATALOGUE[record_id] = (lambda folder, name: rewrite(folder, name, lambda data: b"\n".join(
        [line.format(name).encode(), *data.split(b"\n")[1:]])), outcome, text)


def signal_file(outcome, text, record_id, file_name):
    """A recording whose header names another signal file."""
    replaced(outcome, text, record_id, lambda name: f"\n{name}.mat ".encode(), lambda name: b"\n" + file_name + b" ")


def samples(outcome, text, record_id, change, **options):
    """A recording whose samples (12, n) int16 are changed in place, or replaced, by `change`."""
    def make(folder, name):
        signal = ecg()
        result = change(signal)
        write(folder, name, signal if result is None else result, **options)
    CATALOGUE[record_id] = (make, outcome, text)


def matrix(outcome, text, record_id, change):
    """A recording the bytes of whose .mat file are changed by `change`."""
    def make(folder, name):
        write(folder, name)
        mat(folder, name).write_bytes(change(mat(folder, name).read_bytes()))
    CATALOGUE[record_id] = (make, outcome, text)


def header_bytes(outcome, text, record_id, change):
    CATALOGUE[record_id] = (lambda folder, name: rewrite(folder, name, change), outcome, text)


# --- files ---------------------------------------------------------------------------------------------------------------

@entry(SKIPPED, "signal file is missing")
def no_mat(folder, name):
    write(folder, name)
    mat(folder, name).unlink()


@entry(IGNORED)
def no_header(folder, name):
    write(folder, name)
    hea(folder, name).unlink()


@entry(SKIPPED, "header is empty")
def header_is_a_pipe(folder, name):
    os.mkfifo(hea(folder, name))


@entry(SKIPPED, "no regular file")
def mat_is_a_pipe(folder, name):
    write(folder, name)
    mat(folder, name).unlink()
    os.mkfifo(mat(folder, name))


@entry(SKIPPED, "no regular file")
def mat_is_a_folder(folder, name):
    write(folder, name)
    mat(folder, name).unlink()
    mat(folder, name).mkdir()


@entry(SKIPPED, "header is missing")
def header_link_is_broken(folder, name):
    hea(folder, name).symlink_to("nowhere.hea")


@entry(SKIPPED, "cannot be read")
def mat_links_to_itself(folder, name):
    write(folder, name)
    mat(folder, name).unlink()
    mat(folder, name).symlink_to(f"{name}.mat")


@entry(SKIPPED, "leads outside")
def mat_links_outside(folder, name):
    write(folder, name)
    outside = folder.parent / "outside.mat"
    mat(folder, name).rename(outside)
    mat(folder, name).symlink_to(outside)


@entry(READ)
def both_files_are_links(folder, name):
    """As data sets are often replicated."""
    store = folder.parent / "store"
    write(store, name)
    for file in (hea(store, name), mat(store, name)):
        (folder / file.name).symlink_to(file)


@entry(READ, record_id="with, comma and 'quotes'")
def odd_name(folder, name):
    write(folder, "plain_name")
    hea(folder, "plain_name").rename(hea(folder, name))


@entry(READ, record_id="n" * 251)
def long_name(folder, name):
    """The longest name that a file system allows."""
    write(folder, "short_name")
    hea(folder, "short_name").rename(hea(folder, name))


@entry(READ, record_id="two\\nlines")
def name_with_line_end(folder, name):
    write(folder, "one_line")
    hea(folder, "one_line").rename(folder / "two\nlines.hea")


@entry(READ, record_id="no_utf8_\\udcff")
def name_is_no_text(folder, name):
    write(folder, "utf8")
    hea(folder, "utf8").rename(os.fsdecode(os.fsencode(folder) + b"/no_utf8_\xff.hea"))


# --- header as text ------------------------------------------------------------------------------------------------------

header_bytes(SKIPPED, "header is empty", "header_empty", lambda data: b"")
header_bytes(SKIPPED, "header is empty", "header_blank", lambda data: b"\r\n \n\n")
header_bytes(SKIPPED, "zero bytes", "header_binary", lambda data: bytes(range(256)))
header_bytes(SKIPPED, "UTF-16", "header_utf16", lambda data: data.decode().encode("utf-16"))
header_bytes(SKIPPED, "exceeds", "header_too_large", lambda data: data + b"#" * 2**20)
header_bytes(SKIPPED, "no record line", "header_comments_only", lambda data: b"#Age: 40\n#Dx: 426783006\n")
header_bytes(SKIPPED, "line 1", "header_html", lambda data: b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
header_bytes(SKIPPED, "ends after 6 of the 12", "header_cut_after_6_leads", lambda data: b"\n".join(data.split(b"\n")[:7]))
header_bytes(SKIPPED, "ends after 0 of the 12", "header_record_line_only", lambda data: data.split(b"\n")[0])
header_bytes(SKIPPED, "without format", "header_cut_in_a_lead", lambda data: b"\n".join(data.split(b"\n")[:4]) + b"\nx.mat")
header_bytes(SKIPPED, "beyond the 12", "header_13_leads", lambda data: data + data.split(b"\n")[12] + b"\n")
header_bytes(READ, "", "header_bom", lambda data: b"\xef\xbb\xbf" + data)
header_bytes(READ, "", "header_crlf", lambda data: data.replace(b"\n", b"\r\n"))
header_bytes(READ, "", "header_cr", lambda data: data.replace(b"\n", b"\r"))
header_bytes(READ, "", "header_without_last_line_end", lambda data: data.rstrip())
header_bytes(READ, "", "header_blank_lines_between", lambda data: data.replace(b"\n", b"\n\n"))
header_bytes(READ, "", "header_tabs", lambda data: data.replace(b" ", b"\t"))
header_bytes(READ, "", "header_latin1", lambda data: data + "#Hospital: Universitätsklinik Würzburg\n".encode("latin-1"))
header_bytes(READ, "", "header_utf8", lambda data: data + "#Hospital: 北京\n".encode())

# --- record line ---------------------------------------------------------------------------------------------------------

record_line(SKIPPED, "0 Hz", "fs_0", "{} 12 0 1000")
record_line(SKIPPED, "-500 Hz", "fs_negative", "{} 12 -500 1000")
record_line(SKIPPED, "line 1", "fs_nan", "{} 12 nan 1000")
record_line(SKIPPED, "line 1", "fs_infinite", "{} 12 inf 1000")
record_line(SKIPPED, "line 1", "fs_with_unit", "{} 12 500Hz 1000")
record_line(SKIPPED, "Hz", "fs_10_MHz", "{} 12 1e7 1000")
record_line(SKIPPED, "Hz", "fs_half_a_hertz", "{} 12 0.5 1000")
record_line(READ, "", "fs_absent", "{} 12")
record_line(READ, "", "fs_with_counter", "{} 12 500/1000.5(-3) 1000")
record_line(READ, "", "fs_1_Hz", "{} 12 1 1000")
record_line(READ, "", "fs_10_kHz", "{} 12 10000 1000")
record_line(READ, "", "fs_not_integer", "{} 12 257.31 1000")
record_line(READ, "", "samples_absent", "{} 12 500")
record_line(READ, "", "samples_0", "{} 12 500 0")
record_line(READ, "", "date_before_time", "{} 12 500 1000 12-May-2020 12:33:59")
record_line(READ, "", "other_record_name", "somebody_else 12 500 1000")
record_line(SKIPPED, "line 1", "samples_negative", "{} 12 500 -1000")
record_line(SKIPPED, "1000000000000 samples", "samples_10_to_the_12", "{} 12 500 1000000000000")
record_line(SKIPPED, "samples", "samples_of_a_year", "{} 12 500 15768000000")
record_line(SKIPPED, "1728000000", "samples_of_40_days", "{} 12 500 1728000000")
record_line(SKIPPED, "1000000 leads", "leads_10_to_the_6", "{} 1000000 500 1000")
record_line(SKIPPED, "line 1", "leads_10_to_the_30", "{} 1000000000000000000000000000000 500 1000")
record_line(SKIPPED, "beyond the 0", "leads_0", "{} 0 500 1000")
record_line(SKIPPED, "beyond the 11", "leads_11", "{} 11 500 1000")
record_line(SKIPPED, "line 1", "record_name_with_path", "../{} 12 500 1000")
record_line(SKIPPED, "segments", "segments_10_to_the_9", "{}/999999999 12 500 1000")
header_bytes(SKIPPED, "no leads", "no_leads_at_all", lambda data: b"x 0 500 1000\n")

# --- signal lines --------------------------------------------------------------------------------------------------------

signal_file(SKIPPED, "not a plain name", "file_above", b"../no_mat.mat")
signal_file(SKIPPED, "not a plain name", "file_absolute", b"/etc/passwd")
signal_file(SKIPPED, "not a plain name", "file_in_subfolder", b"sub/x.mat")
signal_file(SKIPPED, "not a plain name", "file_url", b"https://example.org/x.mat")
signal_file(SKIPPED, "not a plain name", "file_bucket", b"s3://bucket/x.mat")
signal_file(SKIPPED, "not a plain name", "file_of_windows", b"C:\\x.mat")
signal_file(SKIPPED, "not a plain name", "file_is_parent", b"..")
signal_file(SKIPPED, "not a plain name", "file_is_stdin", b"-")
signal_file(SKIPPED, "missing", "file_of_nothing", b"~")
replaced(SKIPPED, "absurd", "gain_tiny", b"1000/mV", b"1e-30/mV")
replaced(SKIPPED, "absurd", "gain_huge", b"1000/mV", b"1e30/mV")
replaced(SKIPPED, "gain 'nan/mV'", "gain_nan", b"1000/mV", b"nan/mV")
replaced(SKIPPED, "gain", "gain_is_word", b"1000/mV", b"unity/mV")
replaced(SKIPPED, "gain", "baseline_absurd", b"1000/mV", b"1000(99999999999999)/mV")
replaced(READ, "", "gain_0", b"1000/mV", b"0/mV")
replaced(READ, "", "gain_negative", b"1000/mV", b"-1000/mV")
replaced(READ, "", "gain_with_baseline", b"1000/mV", b"1000(0)/mv")
replaced(READ, "", "gain_in_microvolts", b"1000/mV", b"1/uV")
replaced(WARNED, "too large", "volts_for_millivolts", b"1000/mV", b"1000/V")
replaced(WARNED, "too small", "nanovolts_for_microvolts", b"1000/mV", b"1/nV")
replaced(WARNED, "too large", "gain_1", b"1000/mV", b"1/mV")
replaced(SKIPPED, "'mmHg'", "unit_of_pressure", b"1000/mV", b"1000/mmHg")
replaced(SKIPPED, "format '99+24'", "format_unknown", b" 16+24 ", b" 99+24 ")
replaced(SKIPPED, "format 'int16'", "format_word", b" 16+24 ", b" int16 ")
replaced(SKIPPED, "start at byte 24", "offset_absent", b" 16+24 ", b" 16 ")
replaced(SKIPPED, "start at byte 24", "offset_beyond_the_end", b" 16+24 ", b" 16+999999999999 ")
replaced(SKIPPED, "samples per frame", "frame_of_0", b" 16+24 ", b" 16x0+24 ")
replaced(SKIPPED, "samples per frame", "frame_of_10_to_the_5", b" 16+24 ", b" 16x100000+24 ")
replaced(SKIPPED, "truncated", "frame_of_1000", b" 16+24 ", b" 16x1000+24 ")
replaced(SKIPPED, "skew", "skew_huge", b" 16+24 ", b" 16:999999999+24 ")
replaced(SKIPPED, "no integer", "resolution_word", b" 16 0 ", b" sixteen 0 ")
replaced(WARNED, "first value", "first_value_wrong", f" 0 {ecg()[0, 0]} ".encode(), b" 0 4321 ")
replaced(WARNED, "checksum", "checksum_wrong", b" 0 V6", b"0 0 V6")
replaced(SKIPPED, "truncated", "format_32_for_16", b" 16+24 ", b" 32+24 ")

# --- leads ---------------------------------------------------------------------------------------------------------------

replaced(SKIPPED, "stands twice", "lead_doubled", b" 0 V6\n", b" 0 V5\n")
replaced(SKIPPED, "stands twice", "lead_doubled_in_other_spelling", b" 0 V6\n", b" 0 MLII\n")
replaced(WARNED, "unused: 'V10'", "lead_unknown", b" 0 V6\n", b" 0 V10\n")


def rename_leads(outcome, text, record_id, names):
    """A recording with the leads `names` in place of the 12 usual ones, or of the first of them."""
    def change(data):
        lines = data.split(b"\n")
        lines[1:13] = [line.rpartition(b" ")[0] + b" " + name.encode() for line, name in zip(lines[1:13], names)]
        return b"\n".join(lines)
    CATALOGUE[record_id] = (lambda folder, name: rewrite(folder, name, change, signal=ecg()[:len(names)]), outcome, text)


rename_leads(READ, "", "leads_in_capitals", [name.upper() for name in LEADS])
rename_leads(READ, "", "leads_in_lower_case", [name.lower() for name in LEADS])
rename_leads(SKIPPED, "none of its leads", "leads_numbered", [f"ch{i}" for i in range(12)])
rename_leads(SKIPPED, "none of its leads", "leads_without_names", [""] * 12)
rename_leads(WARNED, "are leads swapped", "leads_I_and_II_swapped", ["II", "I", *LEADS[2:]])
rename_leads(WARNED, "missing, set to zero: V1", "leads_I_and_II_only", ["i", "ii"])
rename_leads(WARNED, "missing, set to zero: I,", "lead_V1_only", ["v1"])
samples(WARNED, "aVR + aVL + aVF = 0 does not hold", "lead_aVR_upside_down", lambda signal: signal.__setitem__(3, -signal[3]))


@entry(WARNED, "unused")
def leads_15(folder, name):
    """Frank leads beside the 12, as in the PTB database."""
    write(folder, name)
    lines = hea(folder, name).read_text().splitlines()
    extra = [lines[1].rpartition(" ")[0].replace(".mat", ".dat") + f" {lead}" for lead in ("vx", "vy", "vz")]
    extra = [line.replace("16+24", "16") for line in extra]
    np.repeat(ecg()[0], 3).astype("<i2").tofile(folder / f"{name}.dat")
    hea(folder, name).write_text("\n".join([lines[0].replace(" 12 ", " 15 "), *lines[1:13], *extra, *lines[13:]]))


# --- the .mat file -------------------------------------------------------------------------------------------------------

matrix(SKIPPED, "is empty", "mat_empty", lambda data: b"")
matrix(SKIPPED, "truncated: 10 bytes", "mat_of_10_bytes", lambda data: data[:10])
matrix(SKIPPED, "truncated", "mat_without_samples", lambda data: data[:24])
matrix(SKIPPED, "truncated", "mat_of_half", lambda data: data[:len(data) // 2])
matrix(SKIPPED, "truncated", "mat_lacks_a_byte", lambda data: data[:-1])
matrix(SKIPPED, "too long", "mat_with_a_byte_more", lambda data: data + b"\0")
matrix(SKIPPED, "'val' is 1000 x 12", "mat_transposed", lambda data: data[:4] + data[8:12] + data[4:8] + data[12:])
matrix(SKIPPED, "'val' is 8 x 1000", "mat_of_8_leads", lambda data: data[:4] + b"\x08\0\0\0" + data[8:24] + data[24:24 + 16000])
matrix(SKIPPED, "'val' is 12 x 2147483647", "mat_promises_2_to_the_31", lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:])
matrix(SKIPPED, "int16 matrix 'val'", "mat_val_missing", lambda data: data[:20] + b"ecg\0" + data[24:])
matrix(SKIPPED, "int16 matrix 'val'", "mat_of_doubles", lambda data: b"\0\0\0\0" + data[4:])
matrix(SKIPPED, "int16 matrix 'val'", "mat_big_endian", lambda data: b"\0\0\x04\x06" + data[4:])
matrix(SKIPPED, "int16 matrix 'val'", "mat_is_text", lambda data: b"0.1, 0.2, 0.3\n" * 2000)
matrix(SKIPPED, "version 7.3", "mat_v7_3", lambda data: b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + data)
matrix(SKIPPED, "HDF5", "mat_hdf5", lambda data: b"\x89HDF\r\n\x1a\n" + data)


@entry(SKIPPED, "version 5")
def mat_v5(folder, name):
    from scipy.io import savemat
    write(folder, name)
    savemat(mat(folder, name), {"val": ecg()}, format="5")


@entry(READ)
def dat_plain(folder, name):
    rewrite(folder, name, lambda data: data.replace(b".mat 16+24", b".dat 16"))
    (folder / f"{name}.dat").write_bytes(mat(folder, name).read_bytes()[24:])
    mat(folder, name).unlink()


@entry(SKIPPED, "truncated")
def dat_truncated(folder, name):
    dat_plain(folder, name)
    (folder / f"{name}.dat").write_bytes((folder / f"{name}.dat").read_bytes()[:-2])


@entry(WARNED, "saturated")
def dat_of_8_bits(folder, name):
    write(folder, name, ecg() // 16, gain=62.5)  # so coarse that the peaks are flat
    hea(folder, name).write_text(hea(folder, name).read_text().replace(".mat 16+24", ".dat 80"))
    np.ascontiguousarray((ecg() // 16 + 128).astype(np.uint8).T).tofile(folder / f"{name}.dat")


@entry(SKIPPED, "skew")
def dat_of_8_bits_with_huge_skew(folder, name):
    dat_of_8_bits(folder, name)
    hea(folder, name).write_text(hea(folder, name).read_text().replace(".dat 80", ".dat 80:999999999"))


def segmented(folder, name, *parts, n_samples=2000):
    """A multi-segment header, and the segments of which options are given: parts are (name, length, options or None)."""
    for part, _, options in parts:
        if options is not None:
            write(folder, part, **options)
    lines = [f"{name}/{len(parts)} 12 500 {n_samples}", *(f"{part} {length}" for part, length, _ in parts)]
    hea(folder, name).write_text("\n".join(lines))


@entry(READ)
def segments_two(folder, name):
    segmented(folder, name, (f"{name}_a", 1000, {}), (f"{name}_b", 1000, {}))


@entry(WARNED, "interpolated")
def segments_with_a_gap(folder, name):
    segmented(folder, name, (f"{name}_a", 1000, {}), ("~", 1000, None))


@entry(SKIPPED, "header is missing")
def segment_missing(folder, name):
    segmented(folder, name, (f"{name}_a", 2000, None))


@entry(SKIPPED, "segments of its own")
def segment_of_itself(folder, name):
    segmented(folder, name, (name, 2000, None))


@entry(SKIPPED, "not a segment line")
def segment_elsewhere(folder, name):
    segmented(folder, name, ("../outside", 2000, None))


@entry(SKIPPED, "1500 samples")
def segments_of_other_length(folder, name):
    segmented(folder, name, ("one", 1000, None), ("two", 500, None))


@entry(SKIPPED, "another format, gain")
def segments_of_two_gains(folder, name):
    segmented(folder, name, (f"{name}_a", 1000, {}), (f"{name}_b", 1000, {"gain": 500}))


# --- samples -------------------------------------------------------------------------------------------------------------

samples(WARNED, "flat: I, II, III, aVR", "all_zero", lambda signal: signal.fill(0))
samples(WARNED, "flat: V3", "one_flat_lead", lambda signal: signal[8].fill(17))
samples(WARNED, "saturated", "clipped", lambda signal: np.clip(signal, -150, 150, out=signal))
samples(WARNED, "interpolated", "invalid_stretch", lambda signal: signal[:, 100:300].fill(-32768))
samples(WARNED, "interpolated", "invalid_everywhere", lambda signal: signal.fill(-32768))
samples(WARNED, "too large", "white_noise", lambda signal: np.random.default_rng(0).integers(-32767, 32768, signal.shape).astype(np.int16))
samples(READ, "", "half_a_second", lambda signal: signal[:, :250])
samples(WARNED, "flat", "one_sample", lambda signal: signal[:, :1])
samples(READ, "", "five_samples", lambda signal: signal[:, :5])


def sparse(folder, name, n, sample_freq):
    """n samples of zeros in a file that is a hole, and takes no room on disk."""
    write(folder, name, np.zeros((12, 1), np.int16), sample_freq=sample_freq)
    hea(folder, name).write_text(hea(folder, name).read_text().replace(f" {sample_freq} 1\n", f" {sample_freq} {n}\n"))
    data = mat(folder, name).read_bytes()
    mat(folder, name).write_bytes(data[:8] + np.array(n, "<i4").tobytes() + data[12:])
    os.truncate(mat(folder, name), 24 + 24 * n)


@entry(WARNED, "flat")
def a_day_of_nothing(folder, name):
    sparse(folder, name, 24 * 3600 * 25 // 2, 12.5)


@entry(SKIPPED, "at the model's rate")
def a_hundred_days_at_1_Hz(folder, name):
    """200 MB that would become 40 GB at 100 Hz."""
    sparse(folder, name, 100 * 24 * 3600, 1)


# --- comments ------------------------------------------------------------------------------------------------------------

replaced(READ, "", "dx_absent", b"#Dx: 426783006\n", b"")
replaced(READ, "", "dx_unknown", b"#Dx: 426783006", b"#Dx: Unknown")
replaced(READ, "", "dx_empty", b"#Dx: 426783006", b"#Dx:")
replaced(READ, "", "dx_unknown_codes", b"426783006", b"12345,abc,,426783006")
replaced(READ, "", "dx_of_half_a_megabyte", b"426783006", b",".join(b"%d" % i for i in range(80000)))
replaced(READ, "", "dx_twice", b"#Dx: 426783006", b"#Dx: 426783006\n#Dx: 164889003")
replaced(READ, "", "age_300", b"#Age: 50", b"#Age: 300")
replaced(READ, "", "age_text", b"#Age: 50", b"#Age: fifty")
replaced(READ, "", "sex_unknown", b"#Sex: Male", b"#Sex: ?")
