"""The part of the catalogue of faulty recordings whose headers are wrong or odd: importing it adds to CATALOGUE."""

import numpy as np
from conftest import LEADS
from faulty_recordings import CATALOGUE, READ, SKIPPED, WARNED, ecg, entry, hea, rewrite, samples, write


def replaced(outcome, text, record_id, old, new, count=-1):
    """A recording in whose header `old` (bytes, or a function of the id) is replaced by `new`."""
    CATALOGUE[record_id] = (
        lambda folder, name: rewrite(
            folder,
            name,
            lambda data: data.replace(old(name) if callable(old) else old, new(name) if callable(new) else new, count),
        ),
        outcome,
        text,
    )


def record_line(outcome, text, record_id, line):
    """A recording with another record line; `line` is a format string for the id."""
    CATALOGUE[record_id] = (
        lambda folder, name: rewrite(
            folder, name, lambda data: b"\n".join([line.format(name).encode(), *data.split(b"\n")[1:]])
        ),
        outcome,
        text,
    )


def signal_file(outcome, text, record_id, file_name):
    """A recording whose header names another signal file."""
    replaced(outcome, text, record_id, lambda name: f"\n{name}.mat ".encode(), lambda name: b"\n" + file_name + b" ")


def header_bytes(outcome, text, record_id, change):
    CATALOGUE[record_id] = (lambda folder, name: rewrite(folder, name, change), outcome, text)


# --- header as text
# ------------------------------------------------------------------------------------------------------

header_bytes(SKIPPED, "header is empty", "header_empty", lambda data: b"")
header_bytes(SKIPPED, "header is empty", "header_blank", lambda data: b"\r\n \n\n")
header_bytes(SKIPPED, "zero bytes", "header_binary", lambda data: bytes(range(256)))
header_bytes(SKIPPED, "UTF-16", "header_utf16", lambda data: data.decode().encode("utf-16"))
header_bytes(SKIPPED, "exceeds", "header_too_large", lambda data: data + b"#" * 2**20)
header_bytes(SKIPPED, "no record line", "header_comments_only", lambda data: b"#Age: 40\n#Dx: 426783006\n")
header_bytes(SKIPPED, "line 1", "header_html", lambda data: b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
header_bytes(
    SKIPPED, "ends after 6 of the 12", "header_cut_after_6_leads", lambda data: b"\n".join(data.split(b"\n")[:7])
)
header_bytes(SKIPPED, "ends after 0 of the 12", "header_record_line_only", lambda data: data.split(b"\n")[0])
header_bytes(
    SKIPPED, "without format", "header_cut_in_a_lead", lambda data: b"\n".join(data.split(b"\n")[:4]) + b"\nx.mat"
)
header_bytes(SKIPPED, "beyond the 12", "header_13_leads", lambda data: data + data.split(b"\n")[12] + b"\n")
header_bytes(READ, "", "header_bom", lambda data: b"\xef\xbb\xbf" + data)
header_bytes(READ, "", "header_crlf", lambda data: data.replace(b"\n", b"\r\n"))
header_bytes(READ, "", "header_cr", lambda data: data.replace(b"\n", b"\r"))
header_bytes(READ, "", "header_without_last_line_end", lambda data: data.rstrip())
header_bytes(READ, "", "header_blank_lines_between", lambda data: data.replace(b"\n", b"\n\n"))
header_bytes(READ, "", "header_tabs", lambda data: data.replace(b" ", b"\t"))
header_bytes(
    READ, "", "header_latin1", lambda data: data + "#Hospital: Universitätsklinik Würzburg\n".encode("latin-1")
)
header_bytes(READ, "", "header_utf8", lambda data: data + "#Hospital: 北京\n".encode())

# --- record line
# ---------------------------------------------------------------------------------------------------------

record_line(SKIPPED, "0 Hz", "fs_0", "{} 12 0 1000")
record_line(SKIPPED, "-500 Hz", "fs_negative", "{} 12 -500 1000")
record_line(SKIPPED, "line 1", "fs_nan", "{} 12 nan 1000")
record_line(SKIPPED, "line 1", "fs_infinite", "{} 12 inf 1000")
record_line(SKIPPED, "line 1", "fs_with_unit", "{} 12 500Hz 1000")
record_line(SKIPPED, "Hz", "fs_10_MHz", "{} 12 1e7 1000")
record_line(SKIPPED, "Hz", "fs_half_a_hertz", "{} 12 0.5 1000")
record_line(WARNED, "no sampling frequency", "fs_absent", "{} 12")
record_line(READ, "", "fs_with_counter", "{} 12 500/1000.5(-3) 1000")
record_line(WARNED, "of 1 Hz", "fs_1_Hz", "{} 12 1 1000")
record_line(WARNED, "0.2 s long", "fs_5_kHz", "{} 12 5000 1000")
record_line(READ, "", "fs_not_integer", "{} 12 257.31 1000")
record_line(READ, "", "samples_absent", "{} 12 500")
record_line(READ, "", "samples_0", "{} 12 500 0")
record_line(READ, "", "date_is_a_year", "{} 12 500 1000 2006")
record_line(READ, "", "date_of_ISO_8601", "{} 12 500 1000 2006-05-04")
record_line(WARNED, "'yesterday' is neither a time nor a date", "date_is_a_word", "{} 12 500 1000 yesterday")
record_line(READ, "", "record_named_like_its_file", "{}.mat 12 500 1000")
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

# --- signal lines
# --------------------------------------------------------------------------------------------------------

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
replaced(SKIPPED, "not an integer", "resolution_word", b" 16 0 ", b" sixteen 0 ")
replaced(WARNED, "first value", "first_value_wrong", f" 0 {ecg()[0, 0]} ".encode(), b" 0 4321 ")
replaced(WARNED, "checksum", "checksum_wrong", b" 0 V6", b"0 0 V6")
replaced(SKIPPED, "truncated", "format_32_for_16", b" 16+24 ", b" 32+24 ")

# --- leads
# ---------------------------------------------------------------------------------------------------------------

replaced(SKIPPED, "stands twice", "lead_doubled", b" 0 V6\n", b" 0 V5\n")
replaced(SKIPPED, "stands twice", "lead_doubled_in_other_spelling", b" 0 V6\n", b" 0 MLII\n")
replaced(WARNED, "unused: 'V10'", "lead_unknown", b" 0 V6\n", b" 0 V10\n")


def rename_leads(outcome, text, record_id, names):
    """A recording with the leads `names` in place of the 12 usual ones, or of the first of them."""

    def change(data):
        lines = data.split(b"\n")
        lines[1:13] = [line.rpartition(b" ")[0] + b" " + name.encode() for line, name in zip(lines[1:13], names)]
        return b"\n".join(lines)

    CATALOGUE[record_id] = (
        lambda folder, name: rewrite(folder, name, change, signal=ecg()[: len(names)]),
        outcome,
        text,
    )


rename_leads(READ, "", "leads_in_capitals", [name.upper() for name in LEADS])
rename_leads(READ, "", "leads_in_lower_case", [name.lower() for name in LEADS])
rename_leads(SKIPPED, "none of its leads", "leads_numbered", [f"ch{i}" for i in range(12)])
rename_leads(SKIPPED, "none of its leads", "leads_without_names", [""] * 12)
rename_leads(WARNED, "are leads swapped", "leads_I_and_II_swapped", ["II", "I", *LEADS[2:]])
rename_leads(WARNED, "missing, set to zero: V1", "leads_I_and_II_only", ["i", "ii"])
rename_leads(WARNED, "missing, set to zero: I,", "lead_V1_only", ["v1"])
samples(
    WARNED,
    "aVR + aVL + aVF = 0 does not hold",
    "lead_aVR_upside_down",
    lambda signal: signal.__setitem__(3, -signal[3]),
)


@entry(WARNED, "unused")
def leads_15(folder, name):
    """Frank leads beside the 12, as in the PTB database."""
    write(folder, name)
    lines = hea(folder, name).read_text().splitlines()
    extra = [lines[1].rpartition(" ")[0].replace(".mat", ".dat") + f" {lead}" for lead in ("vx", "vy", "vz")]
    extra = [line.replace("16+24", "16") for line in extra]
    np.repeat(ecg()[0], 3).astype("<i2").tofile(folder / f"{name}.dat")
    hea(folder, name).write_text("\n".join([lines[0].replace(" 12 ", " 15 "), *lines[1:13], *extra, *lines[13:]]))


# --- comments
# ------------------------------------------------------------------------------------------------------------

replaced(READ, "", "dx_absent", b"#Dx: 426783006\n", b"")
replaced(READ, "", "dx_unknown", b"#Dx: 426783006", b"#Dx: Unknown")
replaced(READ, "", "dx_empty", b"#Dx: 426783006", b"#Dx:")
replaced(WARNED, "not a diagnosis code: 'abc'", "dx_unknown_codes", b"426783006", b"12345,abc,,426783006")
replaced(READ, "", "dx_with_semicolons", b"#Dx: 426783006", b"# Dx: 426783006; 164889003 | 59118001")
replaced(READ, "", "dx_of_floats_in_brackets", b"426783006", b"[426783006.0, '164889003.0']")
replaced(WARNED, "'sinus rhythm'", "dx_with_text", b"426783006", b"426783006 (sinus rhythm)")
replaced(READ, "", "dx_of_the_first_phase", b"426783006", b"I-AVB,AF")
replaced(READ, "", "dx_of_half_a_megabyte", b"426783006", b",".join(b"%d" % i for i in range(80000)))
replaced(READ, "", "dx_twice", b"#Dx: 426783006", b"#Dx: 426783006\n#Dx: 164889003")
replaced(READ, "", "age_300", b"#Age: 50", b"#Age: 300")
replaced(READ, "", "age_text", b"#Age: 50", b"#Age: fifty")
replaced(READ, "", "sex_unknown", b"#Sex: Male", b"#Sex: ?")
