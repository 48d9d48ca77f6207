"""What is killed goes on where it stopped; `python tests/robustness/kill.py --n 50` is the long version."""


def test_killed_runs_go_on(tmp_path, run_script):
    n_writes = 3  # of the last files of a run, at each of which a training is killed too
    done = run_script("tests/robustness/kill.py", "--n", 3, "--writes", n_writes, "--disks", 2, cwd=tmp_path)
    lines = [line.partition(", ")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert lines == [
        "train.py: 3 kills",
        f"train.py at its writes: {n_writes} kills",
        "train.py on a full disk: 2 failures",
        "pretrain.py: 3 kills",
        f"pretrain.py at its writes: {n_writes} kills",
        "pretrain.py on a full disk: 2 failures",
        "driver.py: 3 kills",
    ]
