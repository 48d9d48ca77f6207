"""driver.py --embeddings: features of every recording in one file, for linear probes, clustering and plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.files import written
from engine.run_folder import RunError, RunFolder


class Embedded(NamedTuple):
    """The features of some recordings."""

    names: list[str]  # unique within the input folder
    features: np.ndarray  # (R, D) float32
    covariates: np.ndarray  # (R, N_COVARIATES) float32


def prepare_embeddings_file(file: Path) -> None:
    """Make the folder of the file, and refuse, before anything is computed, what could not be written at the end.
    Raises RunError.
    """
    if file.suffix != ".npz" or file.is_dir():
        raise RunError(f"--embeddings {file}: name a file that ends in .npz")
    RunFolder(file.parent).create()


def write_embeddings(file: Path, parts: Sequence[Embedded], members: np.ndarray) -> None:
    """Write the arrays `record` (R,) str, `features` (R, D), `member` (D,) and `covariates` (R, N_COVARIATES), whole or
    not at all.

    Args:
        file: the .npz; numpy.load reads it, without pickle.
        parts: the recordings, in order.
        members: (D,) which member of the model each feature belongs to.

    Raises:
        RunError: it cannot be written, or there is no recording.
    """
    if not parts:
        raise RunError(f"{file}: there is no recording to embed")
    arrays = {
        "record": np.array([name for part in parts for name in part.names], str),
        "features": np.concatenate([part.features for part in parts]),
        "covariates": np.concatenate([part.covariates for part in parts]),
        "member": members,
    }
    partial = file.with_name(f".{os.getpid()}.partial")
    try:
        with written(partial) as out:
            np.savez(out, **arrays)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{file} cannot be written: {error.strerror}") from error
