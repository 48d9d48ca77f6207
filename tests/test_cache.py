"""The cache holds what preprocess gives, whoever builds it, and is rebuilt where it is damaged."""

import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, fake_ecg, flip_a_sample, signals, write_record

from data.cache import CacheError, cache_key, open_cache
from data.covariates import demographics, recording_covariates
from data.inputs import read_input
from data.locks import locked
from data.preprocess import SignalConfig, preprocess, to_microvolts, to_millivolts
from data.records import find_records, read_record


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
