"""Several processes that train together do what one does, and any number of them goes on with what another number
began.
"""

import csv
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, TINY_HIDDEN, TINY_PRETRAINING, history, kill_after_first_epoch, start_script

from data.cache import CacheError, open_cache
from data.dataset import PrefetchBatches, ResidentBatches, TrainBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig
from data.records import find_records
from engine.distributed import ProcessGroup
from engine.recordings import open_recordings
from engine.run_folder import PRETRAIN, ReadOnlyRunFolder, RunFolder
from engine.validation import predict_together

# Dropout draws other numbers on each process, and sums in bfloat16 depend on their order.
TINY = tuple(
    "--stem 8 --widths 8 8 --depths 1 1 --dropout 0 --head_dropout 0 --no-bf16 --batch_size 8 --epochs 3 --lr 0.003 "
    "--no-plots".split()
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_together(n, script, *args, cwd):
    """Run a script in n processes, each told by its environment who it is, as torchrun does. Returns a CompletedProcess
    with the status of the first that failed, else 0, and the output of all.
    """
    environment = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        pids = set()
        for rank in map(str, range(n)):
            own = environment | {"RANK": rank, "LOCAL_RANK": rank}
            pids.add(start_script(script, *args, cwd=cwd, stdout=stdout, stderr=stderr, environment=own))
        returncode = 0
        while pids:
            pid, status = os.wait()
            if pid not in pids:
                continue
            pids.discard(pid)
            if status and not returncode:
                returncode = os.waitstatus_to_exitcode(status)
                for other in pids:  # they would wait for it
                    os.kill(other, signal.SIGKILL)
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess((script, *args), returncode, stdout.read(), stderr.read())


def assert_same_history(a, b):
    a, b = history(a), history(b)
    assert len(a) == len(b) and a[0].keys() == b[0].keys()
    for one, other in zip(a, b):
        for name in one:
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-5, nan_ok=True), name


def test_two_processes_train_as_one(folder_of_records, tmp_path, run_script):
    args = "--input_folder", folder_of_records, *TINY
    run_script("train.py", *args, "--folder", "one", cwd=tmp_path)
    done = run_together(2, "train.py", *args, "--folder", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1  # one process speaks
    assert_same_history(tmp_path / "one" / "history.csv", tmp_path / "two" / "history.csv")
    assert sorted(f.name for f in (tmp_path / "one").iterdir()) == sorted(f.name for f in (tmp_path / "two").iterdir())
    one, two = (RunFolder(tmp_path / name).load("final_model.pth")["members"][0] for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)

    again = run_together(2, "train.py", *args, "--folder", "two", "--resume", cwd=tmp_path)
    assert again.returncode == 0 and "Nothing to resume" in again.stdout, again.stderr
    uneven = run_together(2, "train.py", *args, "--batch_size", 7, "--folder", "seven", cwd=tmp_path)
    assert uneven.returncode != 0 and "cannot be shared evenly by 2 processes" in uneven.stderr


@pytest.mark.slow
def test_torchrun_tells_the_processes_who_they_are(folder_of_records, tmp_path):
    args = "--input_folder", folder_of_records, *TINY, "--folder", "two"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = [*launcher, str(ROOT / "train.py"), *map(str, args)]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("epoch   1") == 1, done.stderr


def test_one_process_goes_on_with_what_two_began(folder_of_records, tmp_path, run_script):
    args = "--input_folder", folder_of_records, *TINY
    run_script("train.py", *args, "--folder", "one", cwd=tmp_path)
    kill_after_first_epoch("train.py", *args, "--folder", "other", cwd=tmp_path)
    done = run_together(2, "train.py", *args, "--folder", "other", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_history(tmp_path / "one" / "history.csv", tmp_path / "other" / "history.csv")


@pytest.mark.parametrize("flags", [TINY_PRETRAINING, TINY_HIDDEN], ids=["ahead", "hidden"])
def test_two_processes_pretrain_as_one(flags, few, tmp_path, run_script, monkeypatch):
    monkeypatch.setattr("models.hidden_samples.DROPOUT", 0.0)  # processes draw what they drop each for itself
    args = "--input_folder", few, *flags, "--dropout", "0", "--no-bf16", "--batch_size", "8"
    run_script("pretrain.py", *args, "--folder", "one", cwd=tmp_path)
    done = run_together(2, "pretrain.py", *args, "--folder", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_history(tmp_path / "one" / "pretrain_history.csv", tmp_path / "two" / "pretrain_history.csv")


@pytest.fixture
def flags(folder_of_records, tmp_path):
    """What open_recordings looks at."""
    cache = tmp_path / "cache"
    return SimpleNamespace(
        input_folder=folder_of_records, n_total=None, seed=1, cache=cache, workers=1, strict=False, records=500
    )


def test_processes_open_what_the_main_one_settled(flags, folder_of_records, tmp_path, monkeypatch):
    """Only the main process tries skipped recordings again, and nobody goes on who sees other recordings."""
    (folder_of_records / "a" / "R00.mat").rename(tmp_path / "R00.mat")
    how, real = [], open_cache
    monkeypatch.setattr("engine.recordings.open_cache", lambda *given: (how.append(given[-1]), real(*given))[1])
    monkeypatch.setattr(ProcessGroup, "broadcast", lambda group, value=True: value)
    monkeypatch.setattr(ProcessGroup, "all_gather_object", lambda group, value: [value] * 2)
    run = RunFolder(tmp_path / "run")
    main, other = (open_recordings(flags, SignalConfig(), run, ProcessGroup(rank, 2)) for rank in (0, 1))
    assert how == [True, False] and main.names == other.names and len(main) == 23
    monkeypatch.setattr(ProcessGroup, "all_gather_object", lambda group, value: [value, "another"])
    with pytest.raises(CacheError, match="the processes see different recordings"):
        open_recordings(flags, SignalConfig(), run, ProcessGroup(1, 2))


def test_what_only_the_first_process_writes_costs_the_others_nothing(tmp_path, monkeypatch):
    for module, name in (("torch", "save"), ("json", "dumps"), ("csv", "DictWriter")):
        monkeypatch.setattr(f"engine.run_folder.{module}.{name}", lambda *args, **kwargs: pytest.fail("made in vain"))
    run = ReadOnlyRunFolder(tmp_path)
    run.save("model.pth", {"members": []})
    run.write_rows("history.csv", [{"epoch": 1}], columns=["epoch"])
    run.write_json("config.json", {})
    run.write_text("train_ids.txt", "R1\n")
    run.write_bytes("a", b"a")
    run.remove("a")
    assert not list(tmp_path.iterdir())


def test_if_nothing_can_be_read_the_list_is_written_before_the_end(flags, folder_of_records, tmp_path):
    for file in folder_of_records.rglob("*.mat"):
        file.unlink()
    run = RunFolder(tmp_path / "run", PRETRAIN)
    run.create()
    with pytest.raises(
        CacheError, match="none of 24 .* 24 times .*; all are listed in .*run/pretrain_skipped_records.csv"
    ):
        open_recordings(flags, SignalConfig(), run, ProcessGroup())
    with open(run / "skipped_records.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 24 and rows[0]["record"] == "a/R00" and "missing" in rows[0]["reason"]


@pytest.fixture(scope="module")
def dataset(sample, tmp_path_factory):
    records = find_records(sample)[::5]
    cache = open_cache(records, SignalConfig(sample_freq=100.0), tmp_path_factory.mktemp("cache"), quiet=True)
    return unlabelled_dataset(cache, read_metadata(None, cache.names))


@pytest.mark.parametrize("seq_length", [250, 800, 1200])
def test_batches_cut_on_the_device_are_the_same(dataset, seq_length):
    args = dataset, np.arange(len(dataset)), seq_length, 6, 1
    for host, resident in zip(TrainBatches(*args).epoch(3), ResidentBatches(*args, device="cpu").epoch(3), strict=True):
        for name in ("x", "y", "mask", "lengths", "covariates"):
            assert torch.equal(getattr(host, name), getattr(resident, name)), name
        assert (host.index == resident.index).all()


@pytest.mark.parametrize("whole", [True, False])
def test_parts_of_a_batch_make_the_whole(dataset, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr("data.dataset.SHUFFLED_WHOLE", 0)
    args = dataset, np.arange(len(dataset)), 250, 6, 1
    parts = [TrainBatches(*args, rank, 3).epoch(2) for rank in range(3)]
    for batch, *shares in zip(TrainBatches(*args).epoch(2), *parts, strict=True):
        assert torch.equal(batch.x, torch.cat([share.x for share in shares]))
        assert all((share.index == batch.index).all() for share in shares)
    assert [ProcessGroup(rank, 3).local_rows(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_a_process_reads_its_own_share_of_a_large_set(dataset, monkeypatch):
    monkeypatch.setattr("data.dataset.SHUFFLED_WHOLE", 0)
    rows = np.random.default_rng(1).permutation(len(dataset))[:23]
    asked, real = [], dataset.cache.shards.signal
    monkeypatch.setattr(dataset.cache.shards, "signal", lambda row: (asked.append(row), real(row))[1])
    shares, orders = [], []
    for rank in range(3):
        batches, epochs = TrainBatches(dataset, rows, 250, 6, 1, rank, 3), []
        for epoch in range(20):
            epochs.append([batch.index for batch in batches.epoch(epoch)])
            assert len(epochs[-1]) == 3 and len(set(np.concatenate(epochs[-1]))) == 18  # nobody twice in an epoch
        assert set(asked) == set(batches.own.tolist())
        shares.append(sorted(set(asked)))
        orders.append(np.array(epochs))
        asked.clear()
    assert sum(shares, []) == sorted(rows.tolist())  # each a stretch of the recordings, and nobody left out
    assert (orders[0] == orders[1]).all() and (orders[0] == orders[2]).all() and (orders[0][0] != orders[0][1]).any()


def test_batches_prepared_ahead_are_the_same(dataset, monkeypatch):
    monkeypatch.setattr(PrefetchBatches, "_pin", staticmethod(lambda value: value))  # pinned memory needs a GPU
    args, cut = (dataset, np.arange(len(dataset)), 250, 4, 1), []
    real = PrefetchBatches._batch
    monkeypatch.setattr(PrefetchBatches, "_batch", lambda *a: (cut.append(1), real(*a))[1])
    n = 0
    for plain, ahead in zip(TrainBatches(*args).epoch(2), PrefetchBatches(*args).epoch(2), strict=True):
        n += 1
        assert (
            torch.equal(plain.x, ahead.x)
            and torch.equal(plain.lengths, ahead.lengths)
            and (plain.index == ahead.index).all()
        )
        assert n <= len(cut) <= n + 4  # some ahead, not all
    assert n == len(TrainBatches(*args)) > 5
    rest = PrefetchBatches(*args).epoch(2)
    next(rest)
    rest.close()  # a training that ends in the middle leaves no thread waiting


def test_resident_batches_hold_their_own_share(dataset, monkeypatch):
    monkeypatch.setattr("data.dataset.SHUFFLED_WHOLE", 0)
    monkeypatch.setattr("data.dataset.BLOCK", 4)
    args = dataset, np.arange(1, len(dataset)), 250, 6, 1, 1, 3
    resident = ResidentBatches(*args, device="cpu")
    assert len(resident.signals) == 12 * resident.n_samples[resident.own].sum() < dataset.cache.n_bytes / 4
    for host, here in zip(TrainBatches(*args).epoch(3), resident.epoch(3), strict=True):
        assert torch.equal(host.x, here.x) and torch.equal(host.covariates, here.covariates)


def test_validation_is_shared_out_in_stretches(dataset, monkeypatch):
    monkeypatch.setattr("engine.validation.fold_norms", lambda model: model)
    monkeypatch.setattr(
        "engine.validation.predict", lambda models, windows, signals, covariates, device, numbers: covariates
    )  # each recording answers with its row
    monkeypatch.setattr(ProcessGroup, "all_gather_object", lambda group, value: [value])
    rows = np.arange(1, 12)
    numbered = replace(dataset, covariates=np.arange(len(dataset), dtype=np.float32)[:, None])
    shares = [predict_together(None, 250, numbered, rows, ProcessGroup(rank, 3))[:, 0].tolist() for rank in range(3)]
    assert shares == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
