"""Kill train.py and driver.py at random moments, many times, and see whether what they leave behind can be gone on with.

    python tests/kill.py --n 50            50 kills of each; prints what was survived, exit status 1 at the first fault
    python tests/kill.py --n 0 --writes 99 kill train.py before each file that it writes or removes, one after another

Each run is a process of its own that is killed (SIGKILL, now and then SIGTERM or Ctrl-C) at a random moment of the time that an
undisturbed run takes: while the cache is built, in an epoch, while a file is written. The same command is then given again,
with --resume or --skip_existing, until it comes to its end; the result must be that of the undisturbed run, bit by bit.
"""
import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent)]

import numpy as np
import torch

import driver
import train
from conftest import fake_ecg, write_record
from engine.run_folder import RunFolder

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMING = ("seconds", "records_per_second")
N_RECORDS = 48


def die_at_write(number):
    """Let this process kill itself where it would rename or remove a file for the `number`-th time (from 0); -> list of one
    number, how many are left until then."""
    left = [number]

    def counted(method):
        def change(self, *args, **kwargs):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return method(self, *args, **kwargs)
        return change
    Path.replace, Path.unlink = counted(Path.replace), counted(Path.unlink)
    return left


def start(main, arguments, log, write=None):
    """Run main(arguments) in a forked process, its output into the file `log`; -> process id. It dies at its `write`-th
    write, if given."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        left = None if write is None else die_at_write(write)
        with open(log, "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            status = main(arguments) or 0
            if write is not None:
                print(f"\nwrites: {write - left[0]}", flush=True)
    except SystemExit as error:
        os.write(2, str(error.code).encode())
        status = 0 if error.code in (None, 0) else 1
    finally:
        if status:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(status)


def finish(main, arguments, log):
    """Run to the end; -> seconds."""
    begin = time.perf_counter()
    status = os.waitpid(start(main, arguments, log), 0)[1]
    if status:
        raise AssertionError(f"{' '.join(arguments)} failed:\n{Path(log).read_text()}")
    return time.perf_counter() - begin


def disturb(main, arguments, log, seconds, rng):
    """Run and kill after up to `seconds`; -> whether it was killed before it came to its end."""
    pid, chosen = start(main, arguments, log), rng.choice(SIGNALS)
    time.sleep(rng.uniform(0, seconds))
    os.kill(pid, chosen)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        return False
    killed = os.WIFSIGNALED(status) or chosen == signal.SIGINT
    if not killed:
        raise AssertionError(f"{' '.join(arguments)} failed:\n{Path(log).read_text()}")
    return True


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


def training(folder, name):
    """Arguments of train.py for the run folder `name`."""
    return ["--input_folder", str(folder / "in"), "--folder", str(folder / name), "--cache", str(folder / f"{name}_cache"), "--encoder", "xresnet",
            "--stem", "8", "--widths", "8", "8", "--depths", "1", "1", "--epochs", "2", "--batch_size", "8", "--workers", "2", "--resume"]


def check_same(folder):
    """The folder `run` holds what `reference` does."""
    for name in ("model.pth", "final_model.pth"):
        assert same(RunFolder(folder / "run").load(name), RunFolder(folder / "reference").load(name)), f"{name} is another one"
    assert table(folder / "run" / "history.csv") == table(folder / "reference" / "history.csv"), "history.csv is another one"
    names = [sorted(file.name for file in (folder / run).iterdir()) for run in ("run", "reference")]
    assert [name for name in names[0] if not name.endswith(".partial")] == names[1], names


def kill_training(folder, n, rng):
    """-> number of kills, and of runs that came to their end in spite of them."""
    arguments, log = training(folder, "run"), folder / "log"
    seconds = finish(train.main, training(folder, "reference"), log)
    n_kills = n_runs = 0
    while n_kills < n or (folder / "run").exists():
        if n_kills < n and disturb(train.main, arguments, log, 0.9 * seconds, rng):
            n_kills += 1
            if (folder / "run").exists():
                check_whole(folder / "run")
            continue
        finish(train.main, arguments, log)
        check_same(folder)
        assert len(list((folder / "run_cache").iterdir())) == 1, "abandoned caches are left over"
        n_runs += 1
        for name in ("run", "run_cache"):
            shutil.rmtree(folder / name)
    return n_kills, n_runs


def kill_at_writes(folder, n):
    """Kill a training at each of its last n writes; -> number of kills, and of runs that came to their end in spite of them."""
    arguments, log = training(folder, "run"), folder / "log"
    os.waitpid(start(train.main, arguments, log, 10**6), 0)
    total = int(log.read_text().rpartition("writes: ")[2])
    check_same(folder)
    shutil.rmtree(folder / "run")
    for write in range(max(total - n, 0), total):
        os.waitpid(start(train.main, arguments, log, write), 0)
        check_whole(folder / "run")
        finish(train.main, arguments, log)
        check_same(folder)
        shutil.rmtree(folder / "run")
    return min(n, total), min(n, total)


def kill_driver(folder, n, rng):
    """-> number of kills, and of folders that were completed in spite of them."""
    def arguments(name):
        return [str(folder / "reference"), str(folder / "in"), str(folder / name), "--skip_existing"]
    seconds = finish(driver.main, arguments("answers"), folder / "log")
    expected = {file.name: file.read_bytes() for file in (folder / "answers").iterdir()}
    assert len(expected) == N_RECORDS
    n_kills = n_runs = 0
    while n_kills < n or (folder / "out").exists():
        if n_kills < n and disturb(driver.main, arguments("out"), folder / "log", seconds, rng):
            n_kills += 1
        else:
            finish(driver.main, arguments("out"), folder / "log")
            assert {file.name for file in (folder / "out").iterdir()} == expected.keys()
            n_runs += 1
        for file in (folder / "out").glob("[!.]*"):
            assert file.read_bytes() == expected[file.name], f"{file} is half-written"
        if len(list((folder / "out").glob("[!.]*"))) == N_RECORDS:
            shutil.rmtree(folder / "out")
    return n_kills, n_runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50, help="kills of each script (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--writes", type=int, default=99, help="so many of the last writes of train.py to kill it at (default: all)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder, noise = Path(folder), np.random.default_rng(0)
        for i in range(N_RECORDS):
            write_record(folder / "in", f"R{i:02d}", fake_ecg(noise), dx=("426783006", "164889003", "270492004")[i % 3])
        killings = [("train.py", lambda: kill_training(folder, args.n, rng)), ("train.py at its writes", lambda: kill_at_writes(folder, args.writes)),
                    ("driver.py", lambda: kill_driver(folder, args.n, rng))]
        for name, kill in killings:
            n_kills, n_runs = kill()
            print(f"{name}: {n_kills} kills, {n_runs} runs ended like an undisturbed one", flush=True)


if __name__ == "__main__":
    main()
