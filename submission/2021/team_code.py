"""What the scripts of the PhysioNet/Computing in Cardiology Challenge 2021 import.

    training_code(data_directory, model_directory)                     in train_model.py
    model = load_model(model_directory, leads)                         in test_model.py, once for each set of leads
    classes, labels, probabilities = run_model(model, header, recording)           once for each recording

One network answers for twelve, six, four, three and two leads. Leads are placed by name; a missing limb lead is
computed from two others, a missing chest lead is zero, as in two fifths of the training windows (--lead_subsets).
"""

import os
from collections.abc import Sequence

import numpy as np

from engine.inference import Predictor
from run_12ECG_classifier import load_12ECG_model, run_12ECG_classifier
from submission.training import train_run

# Of train.py; add here what is to be trained differently. Two fifths of the windows have few leads.
FLAGS = ["--classes", "cinc2021", "--lead_subsets", "0.4"]


def training_code(data_directory: str | os.PathLike, model_directory: str | os.PathLike) -> None:
    """Make a run folder of `model_directory` from the recordings below `data_directory`. See `train_run`."""
    train_run(data_directory, model_directory, FLAGS)


def load_model(model_directory: str | os.PathLike, leads: Sequence[str]) -> Predictor:
    """The trained model. It is the same one for all `leads`, names such as ("I", "II", "V2").
    Raises engine.run_folder.RunError.
    """
    return load_12ECG_model(model_directory)


def run_model(model: Predictor, header: str, recording: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Classify one recording.

    Args:
        model: from `load_model`.
        header: text of the recording's header, which lists the leads of `recording` in their order.
        recording: (n_leads, n) ADC values.

    Returns:
        classes: the C SNOMED CT codes.
        labels: (C,) int, 0 or 1.
        probabilities: (C,) float32.

    Raises:
        data.records.RecordError: the recording cannot be used.
    """
    labels, probabilities, classes = run_12ECG_classifier(recording, header, model)
    return classes, labels, probabilities
