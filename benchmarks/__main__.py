"""All benchmarks of speed in one table: python -m benchmarks [--input_folder Training_WFDB] [--json results.json]"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import loading, networks, scripts
from benchmarks.timing import Row, report


def measure(folder: Path) -> Iterator[Row]:
    """Speed of every stage against references measured in the same run."""
    for module in (loading, networks, scripts):
        yield from module.measure(folder)


if __name__ == "__main__":
    report(measure)
