"""An exported model in onnxruntime beside PyTorch: the same probabilities, and how fast.

    python -m benchmarks.exported --input_folder Training_WFDB

The first N recordings of 10 s at 500 Hz, each engine with as many threads as PyTorch has here. Before the table it says
how far the probabilities are apart, and what changes if rhythm, age and sex are left out (zeros).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.recordings import of_10_s_at_500_hz
from benchmarks.timing import Row, compare, report
from data.covariates import N_DEMOGRAPHICS
from data.extras import load_extra
from data.inputs import read_input
from data.preprocess import to_millivolts
from data.records import find_records
from engine.inference import Predictor, load_predictor
from engine.onnx_file import onnx_bytes, run_session
from engine.windows import BATCH
from run_12ECG_classifier import DEFAULT_MODEL

N = 200


def open_session(predictor: Predictor):
    """The exported model in onnxruntime."""
    onnxruntime = load_extra("onnxruntime", "this benchmark")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(onnx_bytes(predictor), options, providers=["CPUExecutionProvider"])


def exported_scores(session, signals: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Probabilities (R, C) of signals (R, 12, T) int16 microvolts and covariates, BATCH recordings at a time."""
    parts = [slice(i, i + BATCH) for i in range(0, len(signals), BATCH)]
    return np.concatenate([run_session(session, to_millivolts(signals[part]), covariates[part]) for part in parts])


def measure(folder: Path) -> Iterator[Row]:
    """The exported model in onnxruntime beside PyTorch."""
    predictor = load_predictor(DEFAULT_MODEL).without_forests()
    session = open_session(predictor)
    records = of_10_s_at_500_hz(find_records(folder))[:N]
    read = [read_input(record, predictor.signal_config) for record in records]
    signals = np.stack([signal for signal, *_ in read])  # (R, 12, T)
    covariates = np.stack([row for _, row, *_ in read])  # (R, N_COVARIATES)
    y_score = predictor.predict(list(signals), covariates)  # (R, C)
    difference = np.abs(exported_scores(session, signals, covariates) - y_score).max()
    print(f"{len(records)} recordings: apart from PyTorch by {difference:.1g} at most")
    no_rhythm = covariates.copy()
    no_rhythm[:, N_DEMOGRAPHICS:] = 0
    for name, hidden in (("rhythm", no_rhythm), ("rhythm, age and sex", np.zeros_like(covariates))):
        other = exported_scores(session, signals, hidden)
        changed = (predictor.decide(other) != predictor.decide(y_score)).any(1).mean()
        print(f"without {name}: probabilities move by {np.abs(other - y_score).mean():.4f} on average,", end=" ")
        print(f"and {100 * changed:.0f} % of the recordings get other diagnoses")
    for n in (1, BATCH):
        yield compare(
            f"exported model, {n} recording{'s' if n > 1 else ''} at once",
            lambda n=n: exported_scores(session, signals[:n], covariates[:n]),
            lambda n=n: predictor.predict(list(signals[:n]), covariates[:n]),
            n=n,
            reference_name="PyTorch",
        )


if __name__ == "__main__":
    report(measure)
