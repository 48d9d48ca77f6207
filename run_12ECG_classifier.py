"""What the organisers' drivers import: load a model once, then classify one recording after another.

April 2020:   model = load_12ECG_model()
              label, score = run_12ECG_classifier(data, header_data, classes, model)     # in the order of `classes`
Final phase:  model = load_12ECG_model(folder)
              label, score, classes = run_12ECG_classifier(data, header_data, model)

`data` are the raw ADC values (12, n) as the drivers read them from the .mat file, `header_data` the lines of the .hea
file. This is a module: to classify a folder of recordings from the command line, type

    python driver.py IN OUT
"""

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.records import Header, RecordError, parse_header
from engine.inference import Predictor, load_predictor

DEFAULT_MODEL = Path(__file__).resolve().parent / "mdl"
CALLS = (
    "call run_12ECG_classifier(data, header_data, model), or run_12ECG_classifier(data, header_data, classes, model), "
    "with data: ADC values (leads, samples); header_data: the lines of the .hea file, as open('ID.hea').readlines(); "
    "classes: a list of codes or names; model: what load_12ECG_model() returned"
)


def load_12ECG_model(input_directory: str | Path | None = None) -> Predictor:
    """The trained model in `input_directory` (default: the one shipped in mdl/); a folder of run folders is an
    ensemble. Raises engine.run_folder.RunError.
    """
    return load_predictor(DEFAULT_MODEL if input_directory is None else input_directory)


def run_12ECG_classifier(
    data: np.ndarray,
    header_data: Iterable[str] | str,
    classes: Sequence[str] | Predictor | None = None,
    model: Predictor | None = None,
) -> tuple[np.ndarray, ...]:
    """Classify one recording. Called with three arguments, the third is the model.

    Args:
        data: (n_leads, n) ADC values, integers or floats.
        header_data: lines of the recording's header, with or without line ends; or all of its text in one str.
        classes: what to answer for: SNOMED CT codes, abbreviations or the first phase's names. A class that the model
            does not know gets label 0 and score 0, with a warning.
        model: from `load_12ECG_model`.

    Returns:
        (label, score), both (len(classes),), in the order of `classes`; without `classes` (label, score, classes) with
        the model's own ones, (C,) each. Labels are int 0 or 1, scores float32 probabilities.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
        data.records.RecordError: a ValueError too: the recording cannot be used.
    """
    if model is None:
        model = classes
        classes = None
    if not isinstance(model, Predictor):
        raise TypeError(f"model is {_shown(model)}: {CALLS}")
    if classes is not None:
        classes = _class_list(classes)
    header = parse_header(_header_lines(header_data))
    signal, covariates = model.read(_adc_values(data, header), header)
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


def _class_list(classes) -> list:
    """Classes in the order of the answer; a TypeError for a single one, and for a set, which has no order."""
    if isinstance(classes, (str, bytes, set, frozenset)) or not isinstance(classes, Iterable):
        raise TypeError(f"classes is {_shown(classes)}, not a list of str: {CALLS}")
    return list(classes)


def _header_lines(header_data) -> list[str]:
    """Lines of a header; a TypeError or ValueError for anything else, such as a rate or the path of a file."""
    if isinstance(header_data, str):
        lines = header_data.splitlines()
        if len(lines) < 2:  # every recording has a line for itself and one for each lead
            raise ValueError(f"header_data is {_shown(header_data)}, one line, maybe a path: {CALLS}")
        return lines
    if isinstance(header_data, (bytes, dict, Header)) or not isinstance(header_data, Iterable):
        raise TypeError(f"header_data is {_shown(header_data)}: {CALLS}")
    lines = list(header_data)
    if not lines:
        raise ValueError(f"header_data is empty: {CALLS}")
    for line in lines:
        if not isinstance(line, str):
            raise TypeError(f"header_data holds {_shown(line)}, not lines of text: {CALLS}")
    return lines


def _adc_values(data, header: Header) -> np.ndarray:
    """The signal as an array (n_leads, n) of numbers; an error that says what it is instead."""
    try:
        adc = np.asarray(data)
    except ValueError:  # rows of different lengths
        raise ValueError(f"data is {_shown(data)} whose rows differ in length: {CALLS}") from None
    if adc.dtype.kind not in "iuf":
        raise TypeError(f"data is {_shown(data)} of {adc.dtype}, not of numbers: {CALLS}")
    if adc.ndim != 2:
        raise ValueError(f"data has the shape {adc.shape}, not (leads, samples): {CALLS}")
    if header.segments:
        raise RecordError(
            f"{header.record_name}: the header lists segments, not leads: data.records.read_record puts them together "
            "and returns (adc, header), model.read takes these two"
        )
    if adc.shape[0] != header.n_leads and adc.shape[1] == header.n_leads:
        raise RecordError(
            f"{header.record_name}: data has the shape {adc.shape}, samples x leads; leads x samples are needed: "
            "pass data.T"
        )
    return adc


def _shown(value) -> str:
    """A value and its type, short enough for a message."""
    kind = type(value).__name__
    if value is None:
        return kind
    if isinstance(value, (str, bytes, int, float)):
        return f"{value!r:.80} ({kind})"
    return f"a {kind}"


def main(arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    print(
        "run_12ECG_classifier.py is a module for other programs to import; nothing was classified. To classify a "
        "folder of recordings type: python driver.py IN OUT. More: python run_12ECG_classifier.py --help",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
