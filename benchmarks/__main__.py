"""All benchmarks of speed in one table: python -m benchmarks [--input_folder Training_WFDB] [--json results.json]"""

from benchmarks import loading, networks, scripts
from benchmarks.timing import report


def measure(folder):
    """Speed of every stage against references measured in the same run."""
    for module in (loading, networks, scripts):
        yield from module.measure(folder)


if __name__ == "__main__":
    report(measure)
