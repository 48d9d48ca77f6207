"""What train_model.py of the PhysioNet/Computing in Cardiology Challenge 2020, final phase, imports: the training.

The model is used by run_12ECG_classifier.py at the top of the repository, which the organisers' driver.py imports, and
by the driver.py there, which is called in the same way.
"""

import os

from submission.training import train_run

FLAGS = ["--classes", "cinc2020"]  # of train.py; add here what is to be trained differently


def train_12ECG_classifier(input_directory: str | os.PathLike, output_directory: str | os.PathLike) -> None:
    """Make a run folder of `output_directory` from the recordings below `input_directory`. See `train_run`."""
    train_run(input_directory, output_directory, FLAGS)
