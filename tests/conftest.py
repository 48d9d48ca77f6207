"""Recordings for tests: the shipped sample, and generated folders in the Challenge's layout."""

import csv
import gc
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # another number of threads rounds differently
PTB_XL_TABLE = ROOT / "tests" / "reference" / "ptbxl_database.csv"  # rows of the shipped recordings, as published
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
# The smallest encoders that look both ways.
SMALL = {
    "xresnet": {"encoder": "xresnet", "stem": 8, "widths": [8, 16], "depths": [1, 1], "dropout": 0.0},
    "resnet": {"encoder": "resnet", "filters": [8, 8, 16], "lengths": [16, 8, 4], "kernel": 5, "dropout": 0.0},
}
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sample():
    """The folder of shipped recordings."""
    return ROOT / "data" / "sample"


def write_record(folder, record_id, signal, sample_freq=500, dx="426783006", age="50", sex="Male", gain=1000):
    """Write a recording in the Challenge's layout: signal (12, n) int16, MATLAB v4 `val` and a header."""
    folder.mkdir(parents=True, exist_ok=True)
    n_leads, n = signal.shape
    mat_header = np.array([30, n_leads, n, 0, 4], "<i4").tobytes() + b"val\0"  # little-endian int16 matrix called val
    (folder / f"{record_id}.mat").write_bytes(mat_header + signal.astype("<i2").tobytes(order="F"))
    lines = [f"{record_id} {n_leads} {sample_freq} {n}"]
    for name, row in zip(LEADS, signal):
        checksum = int(row.astype(np.int64).sum()) & 0xFFFF
        checksum -= 0x10000 if checksum > 0x7FFF else 0
        lines.append(f"{record_id}.mat 16+24 {gain}/mV 16 0 {row[0]} {checksum} 0 {name}")
    lines += [f"#Age: {age}", f"#Sex: {sex}", f"#Dx: {dx}"]
    (folder / f"{record_id}.hea").write_text("\n".join(lines) + "\n")


def write_ptb_xl(folder, other_folds=()):
    """Write PTB-XL as downloaded, of 40 shipped recordings: both rates, headers without age, sex and diagnoses, and
    the table. `other_folds`: {fold: the one that stands in the table instead}.
    """
    with open(PTB_XL_TABLE, newline="") as lines:
        rows = list(csv.DictReader(lines))[:40]
    for row in rows:
        stored = (ROOT / "data" / "sample" / "ptb-xl" / f"HR{int(row['ecg_id']):05d}.mat").read_bytes()[24:]
        adc = np.frombuffer(stored, "<i2").reshape(-1, 12).T  # (12, 5000)
        for column, step in (("filename_hr", 1), ("filename_lr", 5)):
            place = folder / row[column]
            place.parent.mkdir(parents=True, exist_ok=True)
            samples = adc[:, ::step]
            place.with_suffix(".dat").write_bytes(samples.tobytes(order="F"))
            lines = [f"{place.name} 12 {500 // step} {samples.shape[1]}"]
            for name, lead in zip(LEADS, samples):
                checksum = lead.sum(dtype=np.int16)
                lines.append(f"{place.name}.dat 16 1000.0(0)/mV 16 0 {lead[0]} {checksum} 0 {name.upper()}")
            place.with_suffix(".hea").write_text("\n".join(lines) + "\n")
        row["strat_fold"] = dict(other_folds).get(row["strat_fold"], row["strat_fold"])
    with open(folder / "ptbxl_database.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fake_ecg(rng, seconds=10, sample_freq=500):
    """(12, n) int16 microvolt-like signal that obeys Einthoven's law: spikes at a random rate plus noise."""
    n = int(seconds * sample_freq)
    t = np.arange(n) / sample_freq
    beat = np.exp(-0.5 * (((t + rng.random()) % rng.uniform(0.5, 1.2) - 0.25) / 0.02) ** 2)
    one = rng.uniform(200, 900) * beat + rng.normal(0, 10, n)
    two = rng.uniform(200, 900) * beat + rng.normal(0, 10, n)
    chest = rng.uniform(-900, 900, (6, 1)) * beat + rng.normal(0, 10, (6, n))
    return np.vstack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, chest]).astype(np.int16)


@pytest.fixture
def folder_of_records(tmp_path):
    """A folder of 24 generated recordings with four diagnoses in two sub-folders."""
    rng = np.random.default_rng(0)
    codes = ("426783006", "164889003", "270492004,426783006", "164909002")
    for i in range(24):
        write_record(tmp_path / "in" / "ab"[i % 2], f"R{i:02d}", fake_ecg(rng), dx=codes[i % 4], age=str(30 + i))
    return tmp_path / "in"


def signals(cache):
    """Those of a cache, one after another."""
    return np.concatenate([cache.signal(i) for i in range(len(cache))], axis=1)


def flip_a_sample(file):
    """Damage a file as a bad disk does."""
    data = bytearray(file.read_bytes())
    data[12345] ^= 0xFF
    file.write_bytes(data)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("data.shards.N_RECORDS", 5)


def start_script(script, *args, cwd, stdout, stderr, environment=()):
    """Start one of the scripts in a forked process, its output into two open files; returns the process id.

    A fork has PyTorch imported already, which takes longer than most of what the tests let scripts do.
    """
    pid = os.fork()
    if pid:
        return pid
    gc.freeze()  # what earlier tests left stays: to collect a session of onnxruntime is to wait for threads not forked
    tqdm.set_lock(threading.RLock())  # its own: one that is killed while it draws would keep the shared one
    status = 1
    try:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        sys.stdout = open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False)
        os.chdir(cwd)
        os.environ.update(environment)
        sys.argv = [str(ROOT / script), *map(str, args)]
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)  # whatever happens, the child must not go on with the tests


@pytest.fixture(scope="session")
def run_script():
    """Run one of the scripts as a user does, from another working directory; returns the finished process."""
    torch.optim.AdamW([torch.zeros(1)])  # the first optimizer imports for a second: once here, not in every script

    def run(script, *args, cwd, check=True):
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            status = os.waitpid(start_script(script, *args, cwd=cwd, stdout=stdout, stderr=stderr), 0)[1]
            stdout.seek(0)
            stderr.seek(0)
            done = subprocess.CompletedProcess(
                (script, *args), os.waitstatus_to_exitcode(status), stdout.read(), stderr.read()
            )
        assert not check or done.returncode == 0, f"{script} {args}:\n{done.stdout}\n{done.stderr}"
        return done

    return run


class SameBatch:
    """So many times the same batch, in the form of TrainBatches."""

    batch_size = 1

    def __init__(self, n, index=()):
        self.n = n
        self.index = index

    def __len__(self):
        return self.n

    def epoch(self, number):
        return [self] * self.n


TINY_PRETRAINING = tuple("--width 16 --depth 1 --n_heads 2 --epochs 2 --seq_length 400 --k_steps_ahead 5 20".split())

TINY_HIDDEN = tuple("--encoder xresnet --stem 8 --widths 8 8 --depths 1 1 --epochs 2 --batch_size 8".split())


@pytest.fixture(scope="session")
def few(tmp_path_factory, sample):
    """A folder of 24 real recordings, half of them without diagnoses."""
    folder = tmp_path_factory.mktemp("few")
    for i, header in enumerate(sorted(sample.glob("*/*.hea"))[::6]):
        lines = header.read_text().splitlines(keepends=True)
        (folder / header.name).write_text("".join(line for line in lines if i % 2 or not line.startswith("#Dx")))
        shutil.copy(header.with_suffix(".mat"), folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(few, tmp_path_factory, run_script):
    """A run folder pre-trained for two epochs on `few`."""
    folder = tmp_path_factory.mktemp("pretrained")
    run_script("pretrain.py", "--input_folder", few, "--folder", "run", *TINY_PRETRAINING, cwd=folder)
    return folder / "run"


@pytest.fixture(scope="session")
def pretrained_xresnet(few, tmp_path_factory, run_script):
    """A run folder of an encoder that looks both ways, pre-trained for two epochs on `few`."""
    folder = tmp_path_factory.mktemp("pretrained_xresnet")
    run_script("pretrain.py", "--input_folder", few, "--folder", "run", *TINY_HIDDEN, cwd=folder)
    return folder / "run"


def kill_after_first_epoch(script, *args, cwd):
    """Start a training script and kill it (SIGKILL) as soon as it reports its first epoch."""
    read, write = os.pipe()
    with open(read) as lines, open(os.devnull, "w") as nowhere:
        with open(write, "w") as out:
            pid = start_script(script, *args, cwd=cwd, stdout=out, stderr=nowhere)
        for line in lines:
            if line.startswith("epoch   1"):
                os.kill(pid, signal.SIGKILL)
                break
        os.waitpid(pid, 0)


def interrupt_and_resume(script, *args, prefix, cwd, run_script):
    """Kill a training after its first epoch and resume it to its end, in the folder `run` of cwd; other flags than it
    began with are refused. `prefix`: of the names of its files.
    """
    args = (*args, "--folder", "run")
    kill_after_first_epoch(script, *args, cwd=cwd)
    names = {file.name for file in (cwd / "run").iterdir()}
    assert f"{prefix}checkpoint.pth" in names and f"{prefix}final_model.pth" not in names
    other = run_script(script, *args, "--lr", "0.1", "--resume", cwd=cwd, check=False)
    assert other.returncode != 0 and "--lr" in other.stderr
    run_script(script, *args, "--resume", cwd=cwd)


def history(file):
    """Rows of a history, texts by column, without what depends on the machine."""
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    return [{k: v for k, v in row.items() if k not in ("seconds", "records_per_second")} for row in rows]


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """A function that makes a run folder with a small, untrained model for the classes of a ClassSet."""
    from data.preprocess import SignalConfig
    from engine.run_folder import RunFolder
    from engine.trained_run import make_config
    from models import DEFAULT_MODEL, build_model

    def make(class_set):
        n_classes = len(class_set)
        sizes = {**DEFAULT_MODEL, "stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": n_classes}
        members = [{"model": sizes, "seq_length": 250}]
        data = {"frequency": [0.1] * n_classes}
        run = RunFolder(tmp_path_factory.mktemp("untrained"))
        config = make_config(SignalConfig(), class_set, {"rule": "thresholds"}, members, {}, data)
        run.write_json("config.json", config)
        run.save("model.pth", {"members": [build_model(sizes).state_dict()]})
        return run

    return make


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def record(tmp_path):
    """A readable recording of 12 leads x 1000 samples; its path without extension."""
    write_record(tmp_path, "A", fake_ecg(np.random.default_rng(1), seconds=2))
    return tmp_path / "A"


@pytest.fixture
def bounded_memory():
    """6 GB of addresses are plenty for everything here."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
