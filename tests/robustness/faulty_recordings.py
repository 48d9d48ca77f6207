"""A catalogue of faulty and odd recordings, each made in a few lines, with the answer that is expected of it.

CATALOGUE maps the id of a recording to (make, outcome, text): `make(folder, id)` writes it, outcome is READ, WARNED,
SKIPPED or IGNORED (no header, so no recording), and `text` stands in one of the warnings or in the reason for
skipping.
"""

import os

import numpy as np
from conftest import fake_ecg, write_record

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


# --- files
# ---------------------------------------------------------------------------------------------------------------


@entry(SKIPPED, "signal file is missing")
def no_mat(folder, name):
    write(folder, name)
    mat(folder, name).unlink()


@entry(IGNORED)
def no_header(folder, name):
    write(folder, name)
    hea(folder, name).unlink()


@entry(SKIPPED, "not a regular file")
def header_is_a_pipe(folder, name):
    os.mkfifo(hea(folder, name))


@entry(SKIPPED, "not a regular file")
def mat_is_a_pipe(folder, name):
    write(folder, name)
    mat(folder, name).unlink()
    os.mkfifo(mat(folder, name))


@entry(SKIPPED, "not a regular file")
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


@entry(READ)
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


# --- the .mat file
# -------------------------------------------------------------------------------------------------------

matrix(SKIPPED, "is empty", "mat_empty", lambda data: b"")
matrix(SKIPPED, "truncated: 10 bytes", "mat_of_10_bytes", lambda data: data[:10])
matrix(SKIPPED, "truncated", "mat_without_samples", lambda data: data[:24])
matrix(SKIPPED, "truncated", "mat_of_half", lambda data: data[: len(data) // 2])
matrix(SKIPPED, "truncated", "mat_lacks_a_byte", lambda data: data[:-1])
matrix(SKIPPED, "too long", "mat_with_a_byte_more", lambda data: data + b"\0")
matrix(SKIPPED, "'val' is 1000 x 12", "mat_transposed", lambda data: data[:4] + data[8:12] + data[4:8] + data[12:])
matrix(
    SKIPPED,
    "'val' is 8 x 1000",
    "mat_of_8_leads",
    lambda data: data[:4] + b"\x08\0\0\0" + data[8:24] + data[24 : 24 + 16000],
)
matrix(
    SKIPPED,
    "'val' is 12 x 2147483647",
    "mat_promises_2_to_the_31",
    lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:],
)
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


@entry(READ)
def dat_of_8_bits(folder, name):
    write(folder, name, ecg() // 16, gain=62.5)
    hea(folder, name).write_text(hea(folder, name).read_text().replace(".mat 16+24", ".dat 80"))
    np.ascontiguousarray((ecg() // 16 + 128).astype(np.uint8).T).tofile(folder / f"{name}.dat")


@entry(SKIPPED, "skew")
def dat_of_8_bits_with_huge_skew(folder, name):
    dat_of_8_bits(folder, name)
    hea(folder, name).write_text(hea(folder, name).read_text().replace(".dat 80", ".dat 80:999999999"))


def segmented(folder, name, *parts, n_samples=2000):
    """A multi-segment header, and the segments of which options are given: parts are (name, length, options or
    None).
    """
    for part, _, options in parts:
        if options is not None:
            write(folder, part, **options)
    lines = [f"{name}/{len(parts)} 12 500 {n_samples}", *(f"{part} {length}" for part, length, _ in parts)]
    hea(folder, name).write_text("\n".join([*lines, "#Dx: 426783006"]))


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


@entry(READ)
def segments_of_two_gains(folder, name):
    segmented(folder, name, (f"{name}_a", 1000, {}), (f"{name}_b", 1000, {"gain": 500}))


# --- samples
# -------------------------------------------------------------------------------------------------------------

samples(SKIPPED, "no signal", "all_zero", lambda signal: signal.fill(0))
samples(WARNED, "flat: V3", "one_flat_lead", lambda signal: signal[8].fill(17))
samples(WARNED, "saturated", "clipped", lambda signal: np.clip(signal, -150, 150, out=signal))
samples(WARNED, "interpolated", "invalid_stretch", lambda signal: signal[:, 100:300].fill(-32768))
samples(SKIPPED, "no signal", "invalid_everywhere", lambda signal: signal.fill(-32768))
samples(
    WARNED,
    "too large",
    "white_noise",
    lambda signal: np.random.default_rng(0).integers(-32767, 32768, signal.shape).astype(np.int16),
)
samples(WARNED, "0.5 s long", "half_a_second", lambda signal: signal[:, :250])
samples(SKIPPED, "no signal", "one_sample", lambda signal: signal[:, :1])
samples(SKIPPED, "no signal", "five_samples", lambda signal: signal[:, :5])


def sparse(folder, name, n, sample_freq):
    """n samples of zeros in a file that is a hole, and takes no room on disk."""
    write(folder, name, np.zeros((12, 1), np.int16), sample_freq=sample_freq)
    hea(folder, name).write_text(hea(folder, name).read_text().replace(f" {sample_freq} 1\n", f" {sample_freq} {n}\n"))
    data = mat(folder, name).read_bytes()
    mat(folder, name).write_bytes(data[:8] + np.array(n, "<i4").tobytes() + data[12:])
    os.truncate(mat(folder, name), 24 + 24 * n)


@entry(SKIPPED, "no signal")
def a_day_of_nothing(folder, name):
    sparse(folder, name, 24 * 3600 * 25 // 2, 12.5)


@entry(SKIPPED, "at the model's rate")
def a_hundred_days_at_1_Hz(folder, name):
    """200 MB that would become 40 GB at 100 Hz."""
    sparse(folder, name, 100 * 24 * 3600, 1)
