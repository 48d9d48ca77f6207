"""What is killed goes on where it stopped; `python tests/kill.py --n 50` is the long version."""


def test_killed_runs_go_on(tmp_path, run_script):
    n_writes = 4  # of the last files of a run, at each of which train.py is killed too
    done = run_script("tests/kill.py", "--n", 3, "--writes", n_writes, cwd=tmp_path)
    assert [line.partition(" kills")[0] for line in done.stdout.splitlines()] == ["train.py: 3", f"train.py at its writes: {n_writes}", "driver.py: 3"]
