"""The whole check of the code on a GPU in one command of at most ten minutes: python -m benchmarks.gpu

It compares with the processor what the shipped model answers, what a training without chance comes to, and what
driver.py writes; it measures training by train.py and pretrain.py themselves, and the share of the time in which the
GPU computes. With two GPUs, two processes share the work by NCCL. One Markdown table for docs/clusters.md comes out.
What fails, or would begin after eight minutes, is a line of the table like the rest. The exit status is 1 if a check
failed, or if there is no GPU and so nothing was measured.

How it is measured: the GPU is waited for before a clock is read; the first epoch, which warms up and compiles, does not
count; figures are the median of the next ones with the lowest and highest. "Busy" is the time covered by kernels and
copies in one more epoch, which torch.profiler watches and which does not count either (watched, it takes longer),
divided by the time of the median one.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.findings import Finding, table
from benchmarks.gpu_answers import answers, driver, equal_training, two_processes
from benchmarks.gpu_speed import N_LONG, N_RECORDS, NETWORKS, VARIANTS, training
from benchmarks.recordings import SAMPLE, of_10_s_at_500_hz, replicate
from benchmarks.timing import machine
from data.records import find_records

NO_GPU = "benchmarks.gpu: there is no CUDA device (or this is a CPU build of PyTorch): nothing was measured"
LAST_START = 480  # s after which nothing is begun: so it ends within ten minutes

Stage = tuple[str, Callable[[], Iterator[Finding]]]


def stages(device: str, n_devices: int, folder: Path, top: Path) -> Iterator[Stage]:
    """(name, what yields its Findings) of everything, what matters most first.

    Args:
        device: "cuda".
        n_devices: number of them.
        folder: of recordings.
        top: a folder to work in.
    """
    yield "answers", functools.partial(answers, device, folder)
    yield "equal training", functools.partial(equal_training, device, folder, top)
    yield "driver.py", functools.partial(driver, device, top / "in_1", top / f"in_{N_LONG}", top)
    for variant in VARIANTS:
        for network in NETWORKS:
            name = f"{network.name}, {variant}"
            yield name, functools.partial(training, network, variant, device, top)
        if variant == "batches prepared ahead":  # compiling, which takes longest, comes last
            yield "two processes", functools.partial(two_processes, device, n_devices, folder, top)


def findings(name: str, measure: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The Findings of a stage; if it fails, one that says why: the other stages go on."""
    try:
        yield from measure()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        yield Finding(name, f"{type(error).__name__}: {lines[-1][:200]}".replace("|", "/"), "no error", False)


def measured(stages: Iterator[Stage], clock: Callable[[], float] = time.monotonic) -> Iterator[Finding]:
    """The Findings of all stages, those left out that would begin after LAST_START."""
    start = clock()
    for name, measure in stages:
        if clock() - start > LAST_START:
            yield Finding(name, f"not measured: {LAST_START // 60} minutes were over")
            continue
        yield from findings(name, measure)


def gpu() -> str:
    """What the figures were taken on."""
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cudnn = torch.backends.cudnn.version()
    return f"{', '.join(names)}; torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}; {machine()}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_folder", type=Path, default=SAMPLE, help="recordings (default: data/sample)")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.exit(NO_GPU)
    print(gpu(), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as top:
        originals = of_10_s_at_500_hz(find_records(args.input_folder))
        for n in (1, N_LONG, N_RECORDS):
            replicate(originals, Path(top) / f"in_{n}", n)
        for row in measured(stages("cuda", torch.cuda.device_count(), args.input_folder, Path(top))):
            rows.append(row)
            print(table([row]).splitlines()[-1], flush=True)
    print(f"\n{gpu()}\n\n{table(rows)}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
