"""What the organisers' drivers import: load a model once, then classify one recording after another.

April 2020:   model = load_12ECG_model()
              label, score = run_12ECG_classifier(data, header_data, classes, model)     # in the order of `classes`
Final phase:  model = load_12ECG_model(folder)
              label, score, classes = run_12ECG_classifier(data, header_data, model)

`data` are the raw ADC values (12, n) as the drivers read them from the .mat file, `header_data` the lines of the .hea
file.
"""

import warnings
from pathlib import Path

import numpy as np

from data.records import parse_header
from engine.inference import load_predictor

DEFAULT_MODEL = Path(__file__).resolve().parent / "mdl"


def load_12ECG_model(input_directory=None):
    """The trained model in `input_directory` (default: the one shipped in mdl/); a folder of run folders is an
    ensemble.
    """
    return load_predictor(DEFAULT_MODEL if input_directory is None else input_directory)


def run_12ECG_classifier(data, header_data, classes, model=None):
    """Classify one recording.

    data (n_leads, n) ADC values, header_data list of str. Called as (data, header_data, classes, model) it returns
    (label, score), both (len(classes),), in the order of `classes`: SNOMED CT codes, abbreviations or the first
    phase's names; a class that the model does not know gets label 0 and score 0, with a warning. Called as (data,
    header_data, model) it returns (label, score, classes) with the model's own classes. Labels are int 0/1, scores
    probabilities. Raises data.records.RecordError if the recording cannot be used.
    """
    if model is None:
        classes, model = None, classes
    signal, covariates = model.read(np.asarray(data), parse_header(header_data))
    y_score = model.predict([signal], covariates[None])  # (1, C)
    y_pred = model.decide(y_score)[0].astype(int)  # (C,)
    if classes is None:
        return y_pred, y_score[0], list(model.class_set.codes)
    columns = [model.class_set.column(name) for name in classes]
    unknown = [name for name, column in zip(classes, columns) if column is None]
    if unknown:
        warnings.warn(f"the model does not know the classes {unknown}: they are answered with 0", stacklevel=2)
    label = np.array([0 if column is None else y_pred[column] for column in columns], int)
    score = np.array([0.0 if column is None else y_score[0, column] for column in columns], np.float32)
    return label, score
