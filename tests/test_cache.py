"""The cache holds what preprocess gives, and is rebuilt whenever it cannot be trusted."""

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, fake_ecg, write_record

from data.cache import CacheError, NothingReadable, cache_key, open_cache
from data.covariates import demographics, recording_covariates
from data.files import write_atomically
from data.inputs import read_input
from data.locks import locked
from data.preprocess import SignalConfig, preprocess, to_microvolts, to_millivolts
from data.records import RecordError, find_records, read_record
from data.shards import Shards


def test_cache_holds_what_preprocess_gives(folder_of_records, tmp_path):
    records, config = find_records(folder_of_records), SignalConfig(sample_freq=100)
    for _ in range(2):  # built, then opened
        cache = open_cache(records, config, tmp_path / "cache", quiet=True)
        assert cache.names == [r.name for r in records] and not cache.skipped
        for i, record in enumerate(records):
            adc, header = read_record(record)
            expected = preprocess(adc, header, config)
            assert (
                cache.signal(i).dtype == np.int16
                and np.abs(to_millivolts(cache.signal(i)) - expected).max() <= 0.5001e-3
            )
            assert cache.dx[i] == header.dx
            assert (cache.covariates[i] == recording_covariates(cache.signal(i), 100, header.age, header.sex)).all()


def test_key_follows_names_and_configuration(folder_of_records):
    records = find_records(folder_of_records)
    keys = {cache_key(records, SignalConfig(sample_freq=f)) for f in (100, 125)}
    keys.add(cache_key(records[1:], SignalConfig(sample_freq=100)))
    assert len(keys) == 3


def signals(cache):
    return np.concatenate([cache.signal(i) for i in range(len(cache))], axis=1)


def flip_a_sample(file):
    data = bytearray(file.read_bytes())
    data[12345] ^= 0xFF
    file.write_bytes(data)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("data.shards.N_RECORDS", 5)


@pytest.mark.parametrize(
    "damage", ["flip a sample", "cut the signals", "no signals", "cut the index", "foreign meta", "no meta"]
)
def test_damaged_cache_is_rebuilt(damage, folder_of_records, tmp_path, capsys, small_shards):
    records, config = find_records(folder_of_records), SignalConfig()
    cache = open_cache(records, config, tmp_path / "cache", workers=1, quiet=True)
    good, path = signals(cache), cache.path
    assert len(list(path.glob("signals_*.i16"))) == 5
    if damage == "flip a sample":
        flip_a_sample(path / "signals_00003.i16")
    elif damage == "no meta":
        (path / "meta.json").unlink()
    elif damage == "foreign meta":
        (path / "meta.json").write_text("[1, 2]")
    else:
        file = path / ("signals_00004.i16" if "signals" in damage else "index.npz")
        file.unlink() if damage == "no signals" else file.write_bytes(file.read_bytes()[:-100])
    again = open_cache(records, config, tmp_path / "cache", workers=1, quiet=True)
    assert "rebuilt" in capsys.readouterr().out and (signals(again) == good).all()


def test_a_large_cache_is_opened_shard_by_shard(folder_of_records, tmp_path, monkeypatch, small_shards, capsys):
    records, config = find_records(folder_of_records), SignalConfig()
    cache = open_cache(records, config, tmp_path / "cache", workers=1, quiet=True)
    good, path = signals(cache), cache.path
    flip_a_sample(path / "signals_00003.i16")
    monkeypatch.setattr("data.cache.SMALL", 0)
    cache = open_cache(records, config, tmp_path / "cache", quiet=True)
    assert cache.shards.maps == [None] * 5
    assert (cache.signal(9) == good[:, 9 * 1000 : 10 * 1000]).all()
    assert [shard for shard, opened in enumerate(cache.shards.maps) if opened is not None] == [1]
    with pytest.raises(CacheError, match="recording 15 in signals_00003.i16 has another checksum"):
        cache.signal(17)
    again = open_cache(records, config, tmp_path / "cache", workers=1, quiet=True)
    assert (signals(again) == good).all() and "rebuilt" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_build_what_one_does(folder_of_records, tmp_path, monkeypatch, small_shards):
    (folder_of_records / "a" / "R00.mat").unlink()
    (folder_of_records / "b" / "R01.hea").write_text("nonsense")
    monkeypatch.setattr("data.shards.FEW", 0)
    records, config = find_records(folder_of_records), SignalConfig()
    one, two = (open_cache(records, config, tmp_path / str(workers), workers, quiet=True) for workers in (1, 2))
    for file in one.path.iterdir():
        assert file.read_bytes() == (two.path / file.name).read_bytes(), file.name
    assert len(two) == 22 and [name for name, _ in two.skipped] == ["a/R00", "b/R01"]


def test_when_the_processes_die_the_cache_is_still_built(folder_of_records, tmp_path, monkeypatch, small_shards):
    class Dying:
        def __init__(self, *_):
            pass

        def submit(self, *_):
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    monkeypatch.setattr("data.shards.FEW", 0)
    monkeypatch.setattr("data.shards.ProcessPoolExecutor", Dying)
    assert len(open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "cache", 3, quiet=True)) == 24


BUILDER = """
import sys, time
import data.shards
from data.cache import open_cache
from data.preprocess import SignalConfig
from data.records import find_records
read_input = data.shards.read_input
def slowly(record, config):
    time.sleep(0.5)
    return read_input(record, config)
data.shards.read_input = slowly  # here and in the processes that it starts, which run these lines as well
data.shards.FEW, data.shards.N_RECORDS = 0, 1
if __name__ == "__main__":
    open_cache(find_records(sys.argv[1]), SignalConfig(), sys.argv[2], workers=2, quiet=True)
"""


@pytest.mark.slow
def test_processes_end_with_a_killed_builder(folder_of_records, tmp_path):
    (tmp_path / "builder.py").write_text(BUILDER)
    command = [sys.executable, tmp_path / "builder.py", folder_of_records, tmp_path / "cache"]
    builder = subprocess.Popen(
        command, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while not list(tmp_path.glob("cache/*/signals_00000.i16")):  # it begins with the last, its process with the first
        assert builder.poll() is None
        time.sleep(0.05)
    builder.kill()
    builder.communicate(timeout=60)  # the pipe ends when the last process that holds it is gone
    assert list(tmp_path.glob("cache/*.partial-*"))
    cache = open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "cache", quiet=True)
    assert len(cache) == 24 and list((tmp_path / "cache").iterdir()) == [cache.path]


def test_a_shard_may_hold_no_recording(folder_of_records, tmp_path, monkeypatch):
    monkeypatch.setattr("data.shards.N_RECORDS", 1)
    for name in ("a/R00", "a/R10", "b/R23"):
        (folder_of_records / f"{name}.mat").unlink()
    records = find_records(folder_of_records)
    cache = open_cache(records, SignalConfig(), tmp_path / "cache", workers=1, quiet=True)
    readable = [record for record in records if record.name in cache.names]
    assert len(cache) == len(readable) == 21 and len(cache.shards.maps) == 24
    for i, record in enumerate(readable):
        assert (cache.signal(i) == read_input(record, SignalConfig())[0]).all()


def test_unreadable_recordings_are_skipped_with_a_reason(folder_of_records, tmp_path):
    (folder_of_records / "a" / "R00.mat").unlink()
    (folder_of_records / "b" / "R01.hea").write_text("nonsense")
    cache = open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "cache", quiet=True)
    assert (
        len(cache) == 22
        and [name for name, _ in cache.skipped] == ["a/R00", "b/R01"]
        and all(why for _, why in cache.skipped)
    )


def test_unwritable_cache_folder_is_a_clear_error(folder_of_records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="--cache"):
        open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "file", quiet=True)


def test_recordings_of_any_length(tmp_path):
    rng = np.random.default_rng(1)
    for i, seconds in enumerate((0.5, 3, 60)):
        write_record(tmp_path / "in", f"L{i}", fake_ecg(rng, seconds))
    cache = open_cache(find_records(tmp_path / "in"), SignalConfig(sample_freq=100), tmp_path / "cache", quiet=True)
    assert [cache.signal(i).shape for i in range(3)] == [(12, 50), (12, 300), (12, 6000)]


def test_microvolts_round_trip_and_clip():
    signal = np.array([[0.0, 0.0004, 0.0006, -1.2346, 40.0, -40.0]], np.float32)
    assert to_microvolts(signal).tolist() == [[0, 0, 1, -1235, 32767, -32767]]
    assert to_millivolts(np.array([1, -2], np.int16)).dtype == np.float32


def test_demographics_mark_the_unknown():
    assert np.allclose(demographics(50.0, "Male"), [-0.5, 1, 1, 1]) and np.allclose(demographics(float("nan"), None), 0)
    assert np.allclose(demographics(80.0, "Female"), [1, 1, -1, 1])


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(folder_of_records, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CacheError, match="No space left"):
        open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "cache", quiet=True)
    assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_builder_left_is_cleared_away_but_not_what_another_still_writes(folder_of_records, tmp_path):
    records, config = find_records(folder_of_records), SignalConfig()
    dead, alive = (tmp_path / "cache" / f"{cache_key(records, config)}.partial-{i}" for i in (1, 2))
    for partial in (dead, alive):
        partial.mkdir(parents=True)
        (partial / "signals_00000.i16").write_bytes(b"half")
    with locked(alive):
        assert len(open_cache(records, config, tmp_path / "cache", quiet=True)) == 24
        assert alive.exists() and not dead.exists()


def test_of_two_builders_the_first_wins(folder_of_records, tmp_path, monkeypatch):
    records, config = find_records(folder_of_records), SignalConfig()
    real = np.savez

    def slow(*args, **kwargs):
        monkeypatch.setattr("numpy.savez", real)
        open_cache(records, config, tmp_path / "cache", quiet=True)  # another process comes, and is done first
        monkeypatch.undo()
        real(*args, **kwargs)

    monkeypatch.setattr("numpy.savez", slow)
    cache = open_cache(records, config, tmp_path / "cache", quiet=True)
    assert len(cache) == 24 and list((tmp_path / "cache").iterdir()) == [cache.path]


def test_one_enormous_header_does_not_make_the_index_enormous(folder_of_records, tmp_path):
    """An array of texts is as wide as the longest of them: 24 recordings would take 60 MB."""
    header = folder_of_records / "a" / "R00.hea"
    header.write_text(header.read_text().replace("#Dx: ", "#Dx: " + "1234567," * 80_000))
    cache = open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "cache", quiet=True)
    (index,) = (tmp_path / "cache").rglob("index.npz")
    assert len(cache) == 24 and index.stat().st_size < 2**21


NAMES = ["a", "b", "c"]
CHANGES = {  # of an index of three recordings in one shard
    "offsets too few": lambda index: {"offsets": index["offsets"][:-1]},
    "offsets backwards": lambda index: {"offsets": index["offsets"][::-1]},
    "no offsets": lambda index: {"offsets": np.zeros(0, np.int64)},
    "offsets of two dimensions": lambda index: {"offsets": index["offsets"][:, None]},
    "offsets within leads": lambda index: {"offsets": index["offsets"] - [0, 1, 1, 0]},
    "offsets as floats": lambda index: {"offsets": index["offsets"].astype(float)},
    "checksums too few": lambda index: {"crc": index["crc"][:2]},
    "checksums as texts": lambda index: {"crc": index["crc"].astype(str)},
    "shards too few": lambda index: {"first": index["first"][:-1]},
    "shards elsewhere": lambda index: {"first": index["first"] + 1},
    "no shards": lambda index: {"first": np.zeros(0, np.int64)},
    "one number for shards": lambda index: {"first": np.int64(3)},
    "covariates too narrow": lambda index: {"covariates": index["covariates"][:, :1]},
    "covariates NaN": lambda index: {"covariates": index["covariates"] * np.nan},
    "texts a list": b"[]",
    "texts cut": b"{",
    "texts nested": b"[" * 10**6,
    "texts binary": b"\xff\0",
    "objects": lambda index: {"texts": np.array([{}])},
    "names numbers": {"names": [1, 2, 3]},
    "names of others": {"names": ["a", "b", "x"]},
    "names too few": {"names": NAMES[:2]},
    "names one text": {"names": "abc"},
    "diagnoses numbers": {"dx": [5] * 3},
    "diagnoses texts": {"dx": NAMES},
    "diagnoses of numbers": {"dx": [[5]] * 3},
    "diagnoses too few": {"dx": [["1"]]},
    "skipped without names": {"skipped": [{"x": 1}]},
    "skipped numbers": {"skipped": [5]},
    "skipped without a reason": {"names": NAMES[:2], "skipped": [{"record": "c", "stage": "reading"}]},
    "layouts texts": {"layouts": ["/.hea"]},
    "layouts empty": {"layouts": [[""]]},
    "no layouts": {"layouts": []},
    "layouts negative": lambda index: {"layout": index["layout"] - 1},
    "stamps too narrow": lambda index: {"stamps": index["stamps"][:, 1:]},
    "hashes of texts": lambda index: {"hashes": index["hashes"].astype("S1")},
    "hashes too few": lambda index: {"hashes": index["hashes"][1:]},
    "constants as numbers": lambda index: {"constant": index["constant"].astype(int)},
    "warnings numbers": {"warnings": [5]},
    "warnings alone": {"warnings": [["a"]]},
    "warnings a dictionary": {"warnings": {"ab": 1}},
}


@pytest.fixture
def built(tmp_path):
    """(path of a cache of three recordings, function that opens it, or builds it again)."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_record(tmp_path / "in", name, fake_ecg(rng, 2))
    records, config = find_records(tmp_path / "in"), SignalConfig()

    def opened():
        return open_cache(records, config, tmp_path / "cache", quiet=True)

    return opened().path, opened


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_does_not_fit_is_not_trusted(change, built, capsys):
    path, opened = built
    with np.load(path / "index.npz") as index:
        good = dict(index)
    change = CHANGES[change]
    if isinstance(change, dict):
        change = json.dumps(json.loads(good["texts"].tobytes()) | change).encode()
    np.savez(
        path / "index.npz",
        **good | ({"texts": np.frombuffer(change, np.uint8)} if isinstance(change, bytes) else change(good)),
    )
    cache = opened()
    assert (
        "rebuilt: its index" in capsys.readouterr().out
        and cache.names == NAMES
        and not cache.skipped
        and not cache.warnings
    )


@pytest.mark.parametrize("name", ["meta.json", "index.npz", "signals_00000.i16"])
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        os.mkdir,
        lambda file: file.symlink_to("/dev/zero"),
        lambda file: file.symlink_to(file.name),
        lambda file: file.write_bytes(b"[" * 10**6),
    ],
    ids=["pipe", "folder", "endless device", "link to itself", "nested"],
)
def test_what_is_no_file_of_a_cache_is_neither_waited_for_nor_read(name, put, built, capsys):
    path, opened = built
    (path / name).unlink()
    put(path / name)
    assert opened().names == NAMES and "rebuilt" in capsys.readouterr().out


def test_an_index_that_unpacks_to_more_than_itself_is_not_unpacked(built, capsys):
    path, opened = built
    with zipfile.ZipFile(path / "index.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("texts.npy", b"\0" * 10**8)
    assert (
        opened().names == NAMES
        and "unpacks to 100000000)" not in (out := capsys.readouterr().out)
        and "unpacks to 100000000" in out
    )


def test_builders_of_one_process_number_do_not_meet(built, tmp_path, monkeypatch):
    """Two containers that share a cache folder: the process numbers are the same, often 1."""
    path, opened = built
    (path / "meta.json").unlink()
    other = path.with_name(f"{path.name.partition('-')[0]}.partial-{os.getpid()}")
    other.mkdir()
    with locked(other):
        assert opened().names == NAMES and other.exists()


def test_the_folder_of_a_builder_that_has_not_locked_it_yet_stays(built, monkeypatch):
    path, opened = built
    (path / "meta.json").unlink()
    new = path.with_name(f"{path.name.partition('-')[0]}.partial-1")
    new.mkdir()
    assert opened().names == NAMES and new.exists()


def test_every_file_is_flushed_before_the_folder_is_renamed(built, monkeypatch):
    """After a power cut the index must not be empty while meta.json says that all is well."""
    path, opened = built
    (path / "meta.json").unlink()
    flushed, real = set(), os.fsync

    def fsync(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    opened()
    assert {file.stat().st_ino for file in path.iterdir()} == flushed and len(flushed) == 3


def test_what_does_not_fit_into_memory_is_skipped_and_warnings_are_printable(built, tmp_path, monkeypatch):
    def scarce(signal, *_):
        raise MemoryError

    write_record(tmp_path / "odd", "d", np.zeros((12, 1000), np.int16))
    header = tmp_path / "odd" / "d.hea"
    header.write_text(
        header.read_text().replace(" 0 0 0 I\n", " 7 0 0 I\n").replace(" 0 0 0 II\n", " 7 0 0 I\x1b[2JI\n")
    )
    (record,) = find_records(tmp_path / "odd")
    warnings = read_input(record, SignalConfig())[3]
    assert any("[2J" in text for text in warnings) and all(text.isprintable() for text in warnings)
    monkeypatch.setattr("data.covariates.rhythm", scarce)
    with pytest.raises(
        NothingReadable, match="none of 1 recordings could be read: 1 times 'ID: does not fit into"
    ) as e:
        open_cache([record], SignalConfig(), tmp_path / "cache", quiet=True)
    assert e.value.skipped_rows == [
        {"record": "d", "stage": "preprocessing", "reason": f"{record.path}: does not fit into memory"}
    ]


def write_two_files(folder, name, signal):
    """A recording whose limb leads lie in NAME_limb.dat and whose chest leads lie in NAME_chest.dat."""
    write_record(folder, name, signal)
    lines = (folder / f"{name}.hea").read_text().splitlines()
    for part, rows in (("limb", slice(0, 6)), ("chest", slice(6, 12))):
        (folder / f"{name}_{part}.dat").write_bytes(signal[rows].astype("<i2").tobytes(order="F"))
        for row in range(12)[rows]:
            lines[1 + row] = lines[1 + row].replace(f"{name}.mat 16+24", f"{name}_{part}.dat 16")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mat").unlink()


@pytest.fixture
def reads(monkeypatch):
    """Names of the recordings that are read for a cache, in order."""
    names = []

    def spy(record, config):
        names.append(record.name)
        return read_input(record, config)

    monkeypatch.setattr("data.shards.read_input", spy)
    monkeypatch.setattr("data.cache.read_input", spy)
    return names


@pytest.fixture
def opened(tmp_path):
    """Function that opens the cache of tmp_path/in as it is now."""
    return lambda **how: open_cache(
        find_records(tmp_path / "in"), SignalConfig(), tmp_path / "cache", workers=1, quiet=True, **how
    )


@pytest.mark.parametrize("fate", ["changed", "deleted", "late", "touched"])
@pytest.mark.parametrize("linked", [False, True])
def test_every_file_that_a_header_names_is_watched(fate, linked, tmp_path, opened, reads):
    rng = np.random.default_rng(0)
    ecgs = [fake_ecg(rng, 2) for _ in range(3)]
    for i in range(3):
        write_two_files(tmp_path / "in", f"R{i}", ecgs[i])
    chest = tmp_path / "in" / "R1_chest.dat"
    if linked:  # as git-annex and Hugging Face keep files: what counts is the file at the end of the links
        store = tmp_path / "store"
        store.mkdir()
        chest.rename(store / "content")
        (store / "again").symlink_to("content")
        chest.symlink_to(store / "again")
        chest = store / "content"
    content = chest.read_bytes()
    if fate == "late":
        chest.unlink()
    first = opened()
    assert first.names == (["R0", "R2"] if fate == "late" else ["R0", "R1", "R2"])
    reads.clear()
    assert opened().names == first.names and reads == (["R1"] if fate == "late" else [])
    if fate == "changed":
        chest.write_bytes(fake_ecg(rng, 2)[6:].astype("<i2").tobytes(order="F"))
        os.utime(chest, ns=(1, 1))
    elif fate == "deleted":
        chest.unlink()
    elif fate == "touched":
        os.utime(chest, ns=(1, 1))
    else:
        chest.write_bytes(content)
    reads.clear()
    second = opened()
    assert set(reads) == {"R1"}  # the others come from the earlier cache
    assert second.names == (["R0", "R2"] if fate == "deleted" else ["R0", "R1", "R2"])
    for i, name in enumerate(second.names):
        assert (second.signal(i) == read_input(find_records(tmp_path / "in")[int(name[1])], SignalConfig())[0]).all()


def test_a_segment_that_changes_is_noticed(tmp_path, opened):
    rng = np.random.default_rng(0)
    for i in (1, 2):
        write_record(tmp_path / "in", f"M_{i}", fake_ecg(rng, 2))
    (tmp_path / "in" / "M.hea").write_text("M/2 12 500 2000\nM_1 1000\nM_2 1000\n")
    first = opened()
    assert first.names == ["M"]
    assert first.layouts == [["/.hea", "/_1.hea", "/_1.mat", "/_2.hea", "/_2.mat"]]
    write_record(tmp_path / "in", "M_2", fake_ecg(rng, 2))
    os.utime(tmp_path / "in" / "M_2.mat", ns=(1, 1))
    assert (opened().signal(0) != first.signal(0)).any()


def test_failures_are_tried_again_and_only_they(folder_of_records, tmp_path, opened, reads, monkeypatch):
    """Whatever the reason was: here memory, which leaves no trace in the files."""
    real = read_input

    def scarce(record, config):
        reads.append(record.name)
        if record.name in ("a/R00", "b/R01"):
            error = RecordError(f"{record.path}: does not fit into memory")
            error.stage = "reading"
            raise error
        return real(record, config)

    monkeypatch.setattr("data.shards.read_input", scarce)
    first = opened()
    assert len(first) == 22 and [name for name, _ in first.skipped] == ["a/R00", "b/R01"]
    reads.clear()
    assert len(opened(retry=False)) == 22 and reads == []
    monkeypatch.undo()
    second = opened()
    assert second.names == sorted([*first.names, "a/R00", "b/R01"]) and not second.skipped
    assert first.path.exists() and (first.signal(0) == second.signal(1)).all()  # somebody may train from it
    fresh = open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "fresh", workers=1, quiet=True)
    for file in fresh.path.iterdir():  # as if there had been no earlier one
        assert file.read_bytes() == (second.path / file.name).read_bytes(), file.name


def test_of_two_caches_the_one_with_fewer_skipped_is_opened(folder_of_records, opened, reads, monkeypatch):
    header = folder_of_records / "a" / "R00.hea"
    header.rename(header.with_suffix(".away"))
    header.symlink_to("nowhere")
    assert len(opened()) == 23
    header.unlink()
    header.with_suffix(".away").rename(header)  # as after `git annex get`, or chmod
    reads.clear()
    assert len(opened()) == 24 and set(reads) == {"a/R00"}
    reads.clear()
    assert len(opened()) == 24 and reads == []


def test_the_reason_is_that_of_today(folder_of_records, opened):
    signal = folder_of_records / "a" / "R00.mat"
    content = signal.read_bytes()
    signal.unlink()
    assert "missing" in opened().skipped_rows[0]["reason"]
    signal.write_bytes(content[:5000])
    (row,) = opened().skipped_rows
    assert "missing" not in row["reason"] and list(row) == ["record", "stage", "reason"]


def test_a_damaged_earlier_cache_is_not_copied_from(folder_of_records, opened, reads, monkeypatch, small_shards):
    first = opened()
    monkeypatch.setattr("data.cache.SMALL", 0)  # checksums are not compared before they are needed
    flip_a_sample(first.path / "signals_00000.i16")
    os.utime(folder_of_records / "b" / "R23.mat", ns=(1, 1))
    reads.clear()
    second = opened()
    assert reads == ["a/R00", "b/R23"] and second.path != first.path
    assert (second.signal(0) == read_input(find_records(folder_of_records)[0], SignalConfig())[0]).all()


def test_if_nothing_can_be_read_the_reasons_are_told(folder_of_records, tmp_path, opened):
    for signal in folder_of_records.rglob("*.mat"):
        signal.unlink()
    for header in list(folder_of_records.glob("b/*.hea"))[:5]:
        header.write_text("nonsense")
    with pytest.raises(NothingReadable) as caught:
        opened()
    message, skipped = str(caught.value), caught.value.skipped_rows
    assert message.startswith("none of 24 recordings could be read: 19 times 'ID.mat: signal file is missing', 5 times")
    assert len(skipped) == 24 and set(skipped[0]) == {"record", "stage", "reason"} and "\n" not in message
    assert not list((tmp_path / "cache").iterdir())
    (folder_of_records / "a" / "R00.hea").write_text("nonsense")
    write_record(folder_of_records / "a", "R00", fake_ecg(np.random.default_rng(0)))
    assert len(opened()) == 1


def test_at_most_three_reasons_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        write_record(tmp_path / "in", f"R{i}", fake_ecg(rng, 2))
        (tmp_path / "in" / f"R{i}.hea").write_text(f"R{i} {'x' * i}\n")
    with pytest.raises(NothingReadable, match="and 2 other reasons$"):
        open_cache(find_records(tmp_path / "in"), SignalConfig(), tmp_path / "cache", workers=1, quiet=True)


def test_copies_are_found_by_content(tmp_path, opened):
    rng = np.random.default_rng(0)
    ecg, other = fake_ecg(rng, 2), fake_ecg(rng, 2)
    flat = np.full((12, 1000), 7, np.int16)
    almost = ecg.copy()
    almost[3, 500:] += 50
    signals = {"a/A": ecg, "a/B": other, "b/C": ecg, "c/d/E": ecg, "c/F": almost, "c/G": ecg[:, :900]}
    for name, signal in {**signals, "a/Z": flat, "b/Z": flat}.items():
        folder, _, record_id = name.rpartition("/")
        write_record(tmp_path / "in" / folder, record_id, signal, age=str(30 + len(folder)), dx=str(len(folder)))
    cache = opened()
    assert cache.duplicates == [("a/A", "b/C", "c/d/E")]  # and not the constant ones, which belong to nobody
    by_name = dict(zip(cache.names, cache.hashes))
    assert by_name["a/Z"] == by_name["b/Z"] and len(set(by_name.values())) == 5
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in cache.hashes)
    assert [name for name, constant in zip(cache.names, cache.constant) if constant] == ["a/Z", "b/Z"]
    assert {name for name, _ in cache.warnings} >= {"a/Z", "b/Z"}  # flat leads are remarked upon
    again = opened()
    assert (again.hashes, again.duplicates) == (cache.hashes, cache.duplicates)


def test_the_hash_is_that_of_the_microvolts(folder_of_records, opened):
    cache = opened()
    for i in (0, 23):
        content = cache.signal(i).astype("<i2").tobytes()
        assert cache.hashes[i] == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomically(file, b"old")
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept" and (tmp_path / "link").read_bytes() == b"new"
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and sorted(f.name for f in tmp_path.iterdir()) == ["file", "link", "target"]


def test_of_caches_that_are_out_of_date_no_signal_is_read(folder_of_records, opened, monkeypatch):
    """They stay, for somebody may be training from them, but they must not make every start slower."""
    for i in range(3):
        os.utime(folder_of_records / "a" / "R00.mat", ns=(i, i))
        last = opened()
    asked, real = [], Shards.open_all
    monkeypatch.setattr(Shards, "open_all", lambda shards: (asked.append(shards.folder), real(shards))[1])
    assert opened().path == last.path and asked == [last.path] and len(list(last.path.parent.iterdir())) == 3
