"""driver.py by several processes: answers, tables and lists are those of one."""

import os
import signal
import time

import numpy as np
import pytest
from conftest import fake_ecg, start_script, write_record
from test_distributed import free_port, run_together

import driver
from data.labels import load_class_set
from engine.distributed import ProcessGroup
from engine.output_folder import ANSWERED_BY, JOURNAL, SKIPPED, WARNINGS

N_RECORDS = 150  # three batches


@pytest.fixture(scope="module")
def run(untrained_run):
    return untrained_run(load_class_set("cinc2020")).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Short recordings; every tenth has a flat lead, which is a warning, and some cannot be read."""
    folder = tmp_path_factory.mktemp("together") / "in"
    rng = np.random.default_rng(0)
    for i in range(N_RECORDS):
        ecg = fake_ecg(rng, 3, 200)
        if i % 10 == 0:
            ecg[6] = 0
        write_record(folder / "ab"[i % 2], f"R{i:03d}", ecg, sample_freq=200)
    for i in (3, 70, 149):
        (folder / "ab"[i % 2] / f"R{i:03d}.mat").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def alone(run, folder, tmp_path_factory):
    """What one process writes."""
    place = tmp_path_factory.mktemp("alone")
    assert driver.main([*map(str, (run, folder, place / "out")), *flags(place)]) == 1
    return place


def flags(place):
    return ["--summary", str(place / "all.csv"), "--embeddings", str(place / "all.npz")]


def contents(place):
    return {str(file.relative_to(place)): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def check_same(place, alone):
    """To the last bit, and nothing else is there."""
    ours = contents(place)
    expected = contents(alone)
    assert ours.keys() == expected.keys() and {f"out/{SKIPPED}", f"out/{WARNINGS}"} <= ours.keys()
    assert [name for name in ours if ours[name] != expected[name]] == []


@pytest.mark.parametrize("n", [2, 5])
def test_several_processes_write_what_one_writes(n, run, folder, alone, tmp_path):
    """Five processes for three batches: two of them have nothing to do."""
    done = run_together(n, "driver.py", run, folder, tmp_path / "out", *flags(tmp_path), cwd=tmp_path)
    assert done.stdout.count("147 recordings classified") == 1 and done.stdout.count("3 skipped, 14 warnings") == 1
    assert done.stdout.count("  skipped a/R070") == 1
    assert done.stderr.count("Classifying:   0%") == 1 and "150/150" in done.stderr  # one bar, which counts all
    check_same(tmp_path, alone)


def test_after_a_kill_skip_existing_does_the_rest(run, folder, alone, tmp_path):
    """Process 1 is killed as soon as an answer is there, then the other one, as torchrun does."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    arguments = (run, folder, tmp_path / "out")
    pids = []
    with open(os.devnull, "w") as nowhere:
        for rank in "01":
            own = together | {"RANK": rank, "LOCAL_RANK": rank}
            pids.append(
                start_script("driver.py", *arguments, cwd=tmp_path, stdout=nowhere, stderr=nowhere, environment=own)
            )
        for _ in range(6000):
            if list(tmp_path.glob("out/R*.csv")):
                break
            time.sleep(0.01)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    n_done = len(list(tmp_path.glob("out/R*.csv")))
    assert n_done > 0
    done = run_together(2, "driver.py", *arguments, "--skip_existing", cwd=tmp_path)
    assert f"{n_done} of {N_RECORDS} recordings have an output already" in done.stdout
    expected = {file.name: file for file in (alone / "out").iterdir()}
    found = {file.name: file for file in (tmp_path / "out").iterdir() if not file.name.endswith(".partial")}
    assert found.keys() == expected.keys() and found[SKIPPED].read_bytes() == expected[SKIPPED].read_bytes()
    assert sorted(found[WARNINGS].read_text().splitlines()) == sorted(expected[WARNINGS].read_text().splitlines())
    for name in found.keys() - {
        SKIPPED,
        WARNINGS,
        ANSWERED_BY,
    }:  # in other batches, which round differently
        np.testing.assert_allclose(probabilities(found[name]), probabilities(expected[name]), atol=1e-6)


def probabilities(file):
    return np.array(file.read_text().splitlines()[3].split(","), float)


def test_what_a_killed_helper_remarked_is_kept(run, folder, tmp_path):
    """Its journal holds warnings of records that have an answer: they are not looked at again."""
    arguments = [str(run), str(folder), str(tmp_path)]
    driver.main(arguments)
    whole = (tmp_path / WARNINGS).read_text()
    header, first, *rest = whole.splitlines()
    (tmp_path / WARNINGS).write_text("\n".join([header, *rest]) + "\n")
    (tmp_path / f"{JOURNAL}.7").write_text(first + "\n")
    driver.main([*arguments, "--skip_existing"])
    assert sorted((tmp_path / WARNINGS).read_text().splitlines()) == sorted(whole.splitlines())
    assert not list(tmp_path.glob(f"{JOURNAL}*"))


def test_an_error_of_the_main_process_ends_all(run, tmp_path):
    done = run_together(2, "driver.py", run, tmp_path / "nowhere", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("folder is missing") == 1 and "Traceback" not in done.stderr


def test_turns_are_put_in_order(monkeypatch):
    """Process r has every third value from r on; the last turn is not full."""
    parts = [[0, 3, 6], [1, 4], [2, 5]]

    def gather_object(value, found):
        found[:] = parts

    monkeypatch.setattr("engine.distributed.dist.gather_object", gather_object)
    assert ProcessGroup(0, 3).gather_in_turns(parts[0]) == [0, 1, 2, 3, 4, 5, 6]
    assert ProcessGroup().gather_in_turns([None, 1]) == [None, 1]


def test_batches_are_those_that_the_main_process_sees(monkeypatch):
    """A file is still being written: every process sees another size of it, and all records have their turn once."""
    records = list(range(10))
    seen = {0: [records[:4], records[4:]], 1: [records[:2], records[2:3], records[3:]]}
    sent = []

    def broadcast(group, value=None):
        sent.append(value)
        return sent[0]

    monkeypatch.setattr(ProcessGroup, "broadcast", broadcast)
    shares = []
    for rank in range(2):
        monkeypatch.setattr("driver.chunks", lambda *_, rank=rank: seen[rank])
        shares += driver.own_chunks(records, ProcessGroup(rank, 2))
    assert shares == seen[0]


def test_a_world_size_alone_is_not_torchrun(run, folder, tmp_path, monkeypatch):
    """Some schedulers set it for every process."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert driver.main([str(run), str(folder / "a"), str(tmp_path)]) == 1
    assert len(list(tmp_path.glob("R*.csv"))) == 74
