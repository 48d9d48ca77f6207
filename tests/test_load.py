"""Many recordings and readers at once; `python tests/robustness/load.py` is the long version, with 100,000 of them."""

import pytest


@pytest.mark.slow
def test_memory_and_counts_under_load(tmp_path, run_script):
    done = run_script("tests/robustness/load.py", "--sizes", 300, "--readers", 8, "--hours", 0.5, cwd=tmp_path)
    assert "8 processes read one cache" in done.stdout and done.stdout.count("driver.py") == 2
