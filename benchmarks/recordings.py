"""Recordings to measure with."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from data.records import Record, read_header

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"


def of_10_s_at_500_hz(records: Sequence[Record]) -> list[Record]:
    """Those of the recordings that have the usual length and rate."""
    headers = [read_header(record.path) for record in records]
    usual = [header.sample_freq == 500 and header.n_samples == 5000 for header in headers]
    return list(itertools.compress(records, usual))


def replicate(originals: Sequence[Record], folder: Path, n: int) -> None:
    """Make n recordings, links to the original ones, each name once in a sub-folder. Hard links where the file system
    can, for a symbolic link costs a look-up of its own.

    Args:
        originals: recordings to link to, in turns.
        folder: where the links go.
        n: number of recordings.
    """
    for number, record in zip(range(n), itertools.cycle(originals)):
        place = folder / f"{number // len(originals):05d}"
        place.mkdir(parents=True, exist_ok=True)
        for ending in (".hea", ".mat"):
            original = os.path.abspath(record.path + ending)
            link = place / (record.record_id + ending)
            try:
                os.link(original, link)
            except OSError:
                os.symlink(original, link)
