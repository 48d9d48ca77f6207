"""Time our way and the reference's in turns, and print what came out."""

import contextlib
import json
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch


@dataclass
class Row:
    """One line of the table. Figures are items per second, or seconds where `unit` is 's'; the ratio is how many
    times better ours is.
    """

    stage: str
    unit: str
    ours: float
    ours_range: tuple  # lowest and highest of the repetitions
    reference: float = None
    reference_range: tuple = None
    reference_name: str = ""
    goal: str = ""
    limit: str = ""

    @property
    def ratio(self):
        if self.reference is None:
            return None
        return self.reference / self.ours if self.unit == "s" else self.ours / self.reference


def in_turns(functions, repetitions=5):
    """Call each function once to warm up, then all of them in turns -> list of their times, each a list of seconds."""
    for function in functions:
        function()
    seconds = [[] for _ in functions]
    for _ in range(repetitions):
        for function, times in zip(functions, seconds):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return seconds


_function = None  # of the process that `apart` starts


def _make(make, args):
    global _function
    _function = make(*args)


def _call():
    _function()


@contextlib.contextmanager
def apart(make, *args):
    """make(*args) in a process of its own -> a function that calls what it made there, and waits: so a reference has
    nothing of our process-wide settings, and our memory is not kept for it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_make, initargs=(make, args)) as process:
        yield lambda: process.submit(_call).result()


def compare(
    stage,
    ours,
    reference=None,
    *,
    n=1,
    n_reference=None,
    unit="/s",
    reference_name="",
    goal="",
    limit="",
    repetitions=5,
):
    """Row of ours() against reference(): calls that handle n items (n_reference, if the slow one gets fewer)."""
    times = in_turns([ours] + ([reference] if reference else []), repetitions)
    figures = [
        sorted(figure(seconds, count, unit) for seconds in row) for row, count in zip(times, (n, n_reference or n))
    ]
    values = [(statistics.median(f), (f[0], f[-1])) for f in figures] + [(None, None)]
    return Row(stage, unit, *values[0], *values[1], reference_name, goal, limit)


def figure(seconds, n, unit):
    return seconds if unit == "s" else n / seconds


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows):
    """Markdown."""
    lines = [
        "| stage | unit | ours (range) | reference (range) | ratio | goal | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = f"{number(row.ours)} ({number(row.ours_range[0])} to {number(row.ours_range[1])})"
        other = (
            ""
            if row.reference is None
            else f"{row.reference_name}: {number(row.reference)} ({number(row.reference_range[0])} to {number(row.reference_range[1])})"
        )
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        lines.append(f"| {row.stage} | {row.unit} | {ours} | {other} | {ratio} | {row.goal} | {row.limit} |")
    return "\n".join(lines)


def machine():
    """What the figures were taken on."""
    try:
        cpu = next(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        cpu = platform.processor()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "wfdb"))
    return f"{cpu}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {packages}"


def report(measure):
    """main of a benchmark module: print its rows as they come, and store them with --json. measure(folder of
    recordings) yields Rows.
    """
    import argparse

    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument(
        "--input_folder", default=None, help="recordings in the Challenge's layout (default: data/sample)"
    )
    parser.add_argument("--json", type=Path, default=None, help="store the rows in this file")
    args = parser.parse_args()
    rows = []
    print(machine(), flush=True)
    for row in measure(Path(args.input_folder or Path(__file__).resolve().parent.parent / "data" / "sample")):
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    if args.json:
        args.json.write_text(
            json.dumps({"machine": machine(), "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}, indent=1)
            + "\n"
        )
