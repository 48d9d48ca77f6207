"""Time our way and the reference's in turns, and print what came out."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.recordings import SAMPLE


@dataclass
class Row:
    """One line of the table. Figures are items per second, or seconds where `unit` is 's'."""

    stage: str
    unit: str
    ours: float
    ours_range: tuple[float, float]  # lowest and highest of the repetitions
    reference: float | None = None
    reference_range: tuple[float, float] | None = None
    reference_name: str = ""
    goal: str = ""  # the project's own
    limit: str = ""  # what the machine could do at best

    @property
    def ratio(self) -> float | None:
        """How many times better ours is."""
        if self.reference is None:
            return None
        return self.reference / self.ours if self.unit == "s" else self.ours / self.reference


def in_turns(functions: Sequence[Callable[[], object]], repetitions: int = 5) -> list[list[float]]:
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
    global _function  # functions cannot be sent to a process, so it is made there and stays there
    _function = make(*args)


def _call():
    _function()


@contextlib.contextmanager
def apart(make: Callable[..., Callable[[], object]], *args: object) -> Iterator[Callable[[], object]]:
    """make(*args) in a process of its own -> a function that calls what it made there, and waits: so a reference has
    nothing of our process-wide settings, and our memory is not kept for it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_make, initargs=(make, args)) as process:
        yield lambda: process.submit(_call).result()


def compare(
    stage: str,
    ours: Callable[[], object],
    reference: Callable[[], object] | None = None,
    *,
    n: int = 1,
    n_reference: int | None = None,
    unit: str = "/s",
    reference_name: str = "",
    goal: str = "",
    limit: str = "",
    repetitions: int = 5,
) -> Row:
    """Time ours() against reference(), in turns.

    Args:
        stage, unit, reference_name, goal, limit: see `Row`.
        ours: handles n items in a call.
        reference: handles n_reference items in a call, or None.
        n: number of items.
        n_reference: number of items, if the slow one gets fewer than n.
        repetitions: calls of each.

    Returns:
        the medians and ranges.
    """
    if reference is None:
        (seconds,) = in_turns([ours], repetitions)
        return Row(stage, unit, *_median_and_range(seconds, n, unit), goal=goal, limit=limit)
    seconds, reference_seconds = in_turns([ours, reference], repetitions)
    return Row(
        stage,
        unit,
        *_median_and_range(seconds, n, unit),
        *_median_and_range(reference_seconds, n_reference or n, unit),
        reference_name,
        goal,
        limit,
    )


def _median_and_range(seconds, n, unit):
    figures = sorted(time if unit == "s" else n / time for time in seconds)
    return statistics.median(figures), (figures[0], figures[-1])


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_range(value: float, value_range: tuple[float, float]) -> str:
    """A figure, lowest and highest behind it."""
    low, high = value_range
    return f"{number(value)} ({number(low)} to {number(high)})"


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| stage | unit | ours (range) | reference (range) | ratio | goal | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = with_range(row.ours, row.ours_range)
        reference = ""
        ratio = ""
        if row.reference is not None:
            reference = f"{row.reference_name}: {with_range(row.reference, row.reference_range)}"
            ratio = f"{row.ratio:.1f}"
        lines.append(f"| {row.stage} | {row.unit} | {ours} | {reference} | {ratio} | {row.goal} | {row.limit} |")
    return "\n".join(lines)


def machine() -> str:
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


def report(measure: Callable[[Path], Iterator[Row]]) -> None:
    """main of a benchmark module: print its rows as they come, and store them with --json. measure(folder of
    recordings) yields Rows.
    """
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument(
        "--input_folder", type=Path, default=SAMPLE, help="recordings in the Challenge's layout (default: data/sample)"
    )
    parser.add_argument("--json", type=Path, default=None, help="store the rows in this file")
    args = parser.parse_args()
    rows = []
    print(machine(), flush=True)
    for row in measure(args.input_folder):
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    print("\n" + table(rows))
    if args.json:
        content = {"machine": machine(), "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
