"""Kill train.py, pretrain.py and driver.py at random moments, many times, and see whether they can be resumed.

    python tests/robustness/kill.py --n 50              50 kills of each, and the other two with their defaults
    python tests/robustness/kill.py --n 0 --writes 99   kill the trainings before each file that they write or remove
    python tests/robustness/kill.py --n 0 --disks 20    let the disk be full at 20 sizes

Prints what was survived; the exit status is 1 at the first fault.

Each run is a process of its own that is killed (SIGKILL, now and then SIGTERM or Ctrl-C) at a random moment of the
time that an undisturbed run takes: while the cache is built, in an epoch, while a file is written. The same command
is then given again, with --resume or --skip_existing, until it comes to its end; the result must be that of the
undisturbed run: trained models bit by bit, the driver's probabilities to 1e-6. A full disk is a limit on the size of
files: the write fails as it does where no space is left.
"""

import argparse
import csv
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch
from conftest import fake_ecg, write_record
from tqdm import tqdm

import driver
import pretrain
import train
from engine.output_folder import ANSWERED_BY
from engine.run_folder import RunFolder
from engine.script import INTERRUPTED, TERMINATED

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
SCRIPTS = (
    ("train.py", train.main, "", ("--stem", "8", "--widths", "8", "8", "--depths", "1", "1")),
    (
        "pretrain.py",
        pretrain.main,
        "pretrain_",
        ("--width", "16", "--depth", "1", "--n_heads", "2", "--k_steps_ahead", "5", "20"),
    ),
)
TIMING = ("seconds", "records_per_second")
AS_USUAL = "ended like an undisturbed one"
DX = ("426783006", "164889003", "270492004")
N_RECORDS = 48
EPOCHS = 6
SMALLEST_DISK = 20_000  # bytes, for the log must fit


def die_at_write(number):
    """Let this process kill itself where it would rename or remove a file for the `number`-th time (from 0); -> list
    of one number, how many are left until then.
    """
    left = [number]  # a list, so that the functions below share it

    def counted(method):
        def change(self, *args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return method(self, *args, **kwargs)

        return change

    Path.replace = counted(Path.replace)
    Path.unlink = counted(Path.unlink)
    return left


def start(main, arguments, log, write=None):
    """Run main(arguments) in a forked process, its output into the file `log`; -> process id. It dies at its `write`-th
    write, if given."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child can say that it was interrupted
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return pid
    status = 1
    tqdm.set_lock(threading.RLock())  # its own: one that is killed while it draws would keep the shared one
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        left = None if write is None else die_at_write(write)
        with open(log, "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            status = main(arguments) or 0
            if write is not None:
                print(f"\nwrites: {write - left[0]}", flush=True)
    except SystemExit as error:
        os.write(2, str(error.code).encode())
        status = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:  # before the script has begun, or after its end
        status = INTERRUPTED
    finally:
        try:
            if status:
                traceback.print_exc()
                sys.stderr.flush()
        finally:
            os._exit(status)  # whatever happens, the child must not go on as its parent


def finish(main, arguments, log):
    """Run to the end; -> seconds."""
    begin = time.perf_counter()
    status = os.waitpid(start(main, arguments, log), 0)[1]
    if status:
        raise AssertionError(f"{' '.join(arguments)} failed:\n{Path(log).read_text()}")
    return time.perf_counter() - begin


def disturb(main, arguments, log, seconds, rng):
    """Run and kill after up to `seconds`; -> name of the signal, or None if it came to its end before."""
    chosen = rng.choice(SIGNALS)
    pid = start(main, arguments, log)
    time.sleep(rng.uniform(0, seconds))
    os.kill(pid, chosen)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        return None
    if not (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == STATUS.get(chosen)):
        raise AssertionError(f"{' '.join(arguments)} failed:\n{Path(log).read_text()}")
    return chosen.name


def fill_disk(main, arguments, log, n_bytes):
    """Run where no file can be larger than n_bytes; -> whether that ended it."""

    def limited(args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))
        return main(args)

    return os.waitpid(start(limited, arguments, log), 0)[1] != 0


def table(file):
    with open(file, newline="") as lines:
        return [{key: value for key, value in row.items() if key not in TIMING} for row in csv.DictReader(lines)]


def check_whole(run):
    """Every file of a run folder can be read."""
    for file in Path(run).glob("[!.]*"):
        if file.suffix == ".pth":
            RunFolder(run).load(file.name)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        else:
            assert file.read_text().endswith("\n"), f"{file} is half-written"


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(same, a, b)) if isinstance(a, list) else a == b


@dataclass
class Training:
    """train.py or pretrain.py on the recordings in folder / "in", each run with a cache of its own."""

    main: Callable
    folder: Path
    prefix: str  # of the names of its files
    flags: tuple[str, ...]

    def arguments(self, name):
        return [
            "--input_folder",
            str(self.folder / "in"),
            "--folder",
            str(self.folder / name),
            "--cache",
            str(self.folder / f"{name}_cache"),
            "--epochs",
            str(EPOCHS),
            "--batch_size",
            "8",
            "--workers",
            "2",
            "--resume",
            "--no-plots",
            *self.flags,
        ]

    def check(self):
        """The folder `run` holds what `reference` does, and one cache."""
        run = RunFolder(self.folder / "run")
        reference = RunFolder(self.folder / "reference")
        for name in (f"{self.prefix}model.pth", f"{self.prefix}final_model.pth"):
            assert same(run.load(name), reference.load(name)), f"{name} is another one"
        assert table(run / f"{self.prefix}history.csv") == table(reference / f"{self.prefix}history.csv"), (
            "the history is another one"
        )
        names = sorted(file.name for file in run.path.iterdir() if not file.name.endswith(".partial"))
        assert names == sorted(file.name for file in reference.path.iterdir()), names
        assert len(list((self.folder / "run_cache").iterdir())) == 1, "abandoned caches are left over"

    def remove(self):
        for name in ("run", "run_cache"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def finish(self, log):
        """Go on to the end, and compare; the folders are then free for the next run."""
        finish(self.main, self.arguments("run"), log)
        self.check()
        self.remove()


def phase(run, prefix):
    """How far a killed training had come."""
    if (run / f"{prefix}final_model.pth").exists():
        return "at its end"
    if (run / f"{prefix}checkpoint.pth").exists():
        return "after the first epoch"
    return "before the end of the first epoch" if (run / f"{prefix}config.json").exists() else "reading recordings"


def kill_training(training, n, rng):
    """-> Counter of (signal, phase) of the kills, and the number of runs that came to their end in spite of them."""
    log = training.folder / "log"
    kills = Counter()
    n_runs = 0
    seconds = finish(training.main, training.arguments("reference"), log)
    while kills.total() < n or (training.folder / "run").exists():
        name = None
        if kills.total() < n:
            name = disturb(training.main, training.arguments("run"), log, 0.9 * seconds, rng)
        if name:
            kills[name, phase(training.folder / "run", training.prefix)] += 1
            if (training.folder / "run").exists():
                check_whole(training.folder / "run")
            continue
        training.finish(log)
        n_runs += 1
    return kills, n_runs


def kill_at_writes(training, n):
    """Kill a training at each of its last n writes; -> number of kills, after each of which it came to its end."""
    arguments = training.arguments("run")
    log = training.folder / "log"
    os.waitpid(start(training.main, arguments, log, 10**6), 0)
    total = int(log.read_text().rpartition("writes: ")[2])
    training.check()
    training.remove()
    for write in range(max(total - n, 0), total):
        os.waitpid(start(training.main, arguments, log, write), 0)
        check_whole(training.folder / "run")
        training.finish(log)
    return min(n, total)


def fill_disks(training, n):
    """Let the disk be full for files of n sizes, up to that of the largest file of a run; -> number of runs that this
    ended, after which each came to its end.
    """
    log = training.folder / "log"
    n_ended = 0
    largest = max(
        file.stat().st_size
        for folder in ("reference", "reference_cache")
        for file in (training.folder / folder).rglob("*")
    )
    for n_bytes in np.geomspace(SMALLEST_DISK, largest, n, endpoint=False).astype(int):
        if fill_disk(training.main, training.arguments("run"), log, int(n_bytes)):
            assert "cannot be written" in log.read_text() and "Traceback" not in log.read_text(), log.read_text()
            n_ended += 1
        if (training.folder / "run").exists():
            check_whole(training.folder / "run")
        training.finish(log)
    return n_ended


def same_answer(text, expected):
    """Whether two answers are the same; a recording's neighbours in a batch may change the last digits of its
    probabilities.
    """
    *lines, scores, end = text.split("\n")
    *expected_lines, expected_scores, _ = expected.split("\n")
    return (lines, end) == (expected_lines, "") and np.allclose(
        np.array(scores.split(","), float), np.array(expected_scores.split(","), float), rtol=0, atol=1e-6
    )


def kill_driver(folder, n, rng):
    """-> number of kills, and of folders that were completed in spite of them."""

    def arguments(name):
        return [str(folder / "reference"), str(folder / "in"), str(folder / name), "--skip_existing", "--workers", "2"]

    seconds = finish(driver.main, arguments("answers"), folder / "log")
    expected = {file.name: file.read_text() for file in (folder / "answers").glob("[!.]*")}
    assert len(expected) == N_RECORDS
    n_kills = 0
    n_runs = 0
    while n_kills < n or (folder / "out").exists():
        if n_kills < n and disturb(driver.main, arguments("out"), folder / "log", seconds, rng):
            n_kills += 1
        else:
            finish(driver.main, arguments("out"), folder / "log")
            assert {file.name for file in (folder / "out").iterdir()} - {ANSWERED_BY} == expected.keys()
            n_runs += 1
        for file in (folder / "out").glob("[!.]*"):
            assert same_answer(file.read_text(), expected[file.name]), f"{file} is half-written"
        if len(list((folder / "out").glob("[!.]*"))) == N_RECORDS:
            shutil.rmtree(folder / "out")
    return n_kills, n_runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="kills of each script (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--writes", type=int, default=99, help="so many of the last writes of a training to kill it at (default: all)"
    )
    parser.add_argument("--disks", type=int, default=10, help="so many sizes of a full disk (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # the first optimizer imports for a second: once here, not in every run
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0)
        for script, main, prefix, flags in SCRIPTS:
            training = Training(main, Path(folder, script), prefix, flags)
            for i in range(N_RECORDS):
                write_record(training.folder / "in", f"R{i:02d}", fake_ecg(noise), dx=DX[i % 3])
            kills, n_runs = kill_training(training, args.n, rng)
            print(f"{script}: {kills.total()} kills, {n_runs} runs {AS_USUAL}", flush=True)
            for (name, place), count in sorted(kills.items()):
                print(f"    {count:3d} {name} {place}")
            print(f"{script} at its writes: {kill_at_writes(training, args.writes)} kills, all {AS_USUAL}", flush=True)
            print(f"{script} on a full disk: {fill_disks(training, args.disks)} failures, all {AS_USUAL}", flush=True)
        n_kills, n_runs = kill_driver(Path(folder, "train.py"), args.n, rng)
        print(f"driver.py: {n_kills} kills, {n_runs} folders {AS_USUAL}", flush=True)


if __name__ == "__main__":
    main()
