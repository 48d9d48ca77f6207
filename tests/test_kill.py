"""What is killed goes on where it stopped; `python tests/robustness/kill.py --n 50` is the long version."""

import pytest

N_KILLS = 3  # of each script, at random moments
N_WRITES = 3  # of the last files of a run, at each of which a training is killed too
N_DISKS = 2


@pytest.mark.slow
def test_killed_runs_go_on(tmp_path, run_script):
    flags = ("--n", N_KILLS, "--writes", N_WRITES, "--disks", N_DISKS)
    done = run_script("tests/robustness/kill.py", *flags, cwd=tmp_path)
    lines = [line.partition(", ")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert lines == [
        f"train.py: {N_KILLS} kills",
        f"train.py at its writes: {N_WRITES} kills",
        f"train.py on a full disk: {N_DISKS} failures",
        f"pretrain.py: {N_KILLS} kills",
        f"pretrain.py at its writes: {N_WRITES} kills",
        f"pretrain.py on a full disk: {N_DISKS} failures",
        f"driver.py: {N_KILLS} kills",
    ]
