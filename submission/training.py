"""How every year's entry points train: train.py, with the two folders that the organisers name."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

import train


def train_run(data_directory: str | os.PathLike, model_directory: str | os.PathLike, flags: Sequence[str]) -> None:
    """Train on all recordings below a folder, on a GPU if there is one.

    An interrupted training in `model_directory` goes on; a finished one stays as it is.

    Args:
        data_directory: WFDB recordings at any depth.
        model_directory: becomes the run folder.
        flags: further ones of train.py.

    Raises:
        SystemExit: it cannot be done; with the reason.
    """
    device = ["--cuda"] if torch.cuda.is_available() else []
    folders = ["--input_folder", str(Path(data_directory)), "--folder", str(Path(model_directory))]
    with tempfile.TemporaryDirectory() as cache:  # where the scripts are called from may not be writable
        train.main([*folders, "--cache", cache, "--resume", *device, *flags])
