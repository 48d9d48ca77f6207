"""A trained model as an ONNX file, described in its own metadata."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable

import numpy as np
import torch

from data.covariates import N_COVARIATES
from data.extras import MissingPackageError, load_extra
from data.preprocess import to_millivolts
from data.rhythm import PREMATURE, RATES, SOFTNESS, VARIATIONS
from engine.inference import Predictor
from engine.metrics import load_weights
from engine.whole_recording import recording_model

FORMAT = "12ecg-onnx-1"
OPSET = 17
DYNAMIC = {"signal": {0: "N", 2: "T"}, "covariates": {0: "N"}, "probabilities": {0: "N"}}
SHORT = 32  # samples of the recording that is traced


def uses_covariates(predictor: Predictor) -> bool:
    """Whether any member looks at age, sex or rhythm."""
    return any(model.head.n_covariates for model in predictor.models)


def onnx_bytes(predictor: Predictor) -> bytes:
    """The content of an ONNX file. Raises MissingPackageError without the package onnx."""
    onnx = load_extra("onnx", "writing ONNX")
    n_leads = len(predictor.signal_config.leads)
    # Shorter than a window: only then do the operations that mask the padding become part of the graph.
    inputs = {"signal": torch.zeros(2, n_leads, SHORT)}
    if uses_covariates(predictor):
        inputs["covariates"] = torch.zeros(2, N_COVARIATES)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter by tracing is called old, and the tracer says of every number that it might be constant. The new
        # exporter refuses lengths that decide how many windows there are; that none is constant is tested.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            recording_model(predictor),
            tuple(inputs.values()),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["probabilities"],
            dynamic_axes={name: axes for name, axes in DYNAMIC.items() if name in (*inputs, "probabilities")},
        )
    model = onnx.load_from_string(buffer.getvalue())
    for name, value in metadata(predictor).items():
        entry = model.metadata_props.add()
        entry.key = name
        entry.value = json.dumps(value)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def metadata(predictor: Predictor) -> dict:
    """What one must know to use the graph, in plain values; docs/onnx.md explains each."""
    config = predictor.signal_config
    return {
        "format": FORMAT,
        "classes": list(predictor.class_set.codes),
        "abbreviations": list(predictor.class_set.abbreviations),
        "names": list(predictor.class_set.names),
        "thresholds": predictor.thresholds.tolist(),
        "decision": decision_rule(predictor.decision),
        "sample_freq": config.sample_freq,
        "leads": list(config.leads),
        "unit": "mV",
        "clip": config.clip,
        "windows": [[windows.seq_length, windows.overlap] for windows in predictor.windows],
        "rhythm": rhythm_steps() if uses_covariates(predictor) else [],
    }


def decision_rule(rule: dict) -> dict:
    """The rule of config.json; one by reward with the rewards (C, C) that it needs."""
    if rule["rule"] != "reward":
        return rule
    return {**rule, "rewards": load_weights(rule["year"])[1].tolist()}


def rhythm_steps() -> list[tuple[str, float, float]]:
    """(which value, limit, width) of each rhythm covariate, which is tanh((value - limit) / width) / 2."""
    kinds = zip(("rate", "variation", "shortest"), (RATES, VARIATIONS, PREMATURE), SOFTNESS)
    return [(name, limit, 2 * softness) for name, limits, softness in kinds for limit in limits]


def largest_difference(content: bytes, predictor: Predictor) -> float | None:
    """How far onnxruntime's probabilities are from PyTorch's at most, see `difference_over_noise`; None if onnxruntime
    is not installed.
    """
    try:
        onnxruntime = load_extra("onnxruntime", "the comparison")
    except MissingPackageError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return difference_over_noise(lambda signal, covariates: run_session(session, signal, covariates), predictor)


def difference_over_noise(answer: Callable[[np.ndarray, np.ndarray], np.ndarray], predictor: Predictor) -> float:
    """How far an exported model's probabilities are from the Predictor's at most, over noise of several lengths.

    Args:
        answer: (signal (N, 12, T) mV, covariates (N, N_COVARIATES)) -> probabilities (N, C), of the exported model.
        predictor: what was exported.
    """
    rng = np.random.default_rng(0)
    differences = []
    seq_lengths = [windows.seq_length for windows in predictor.windows]
    for n_samples in (SHORT // 2, seq_lengths[0], 3 * max(seq_lengths) + 1):
        signals = rng.normal(0, 300, (3, len(predictor.signal_config.leads), n_samples)).astype(np.int16)  # microvolts
        covariates = rng.uniform(-0.5, 0.5, (3, N_COVARIATES)).astype(np.float32)
        found = answer(to_millivolts(signals), covariates)
        differences.append(np.abs(found - predictor.predict(list(signals), covariates)).max())
    return float(max(differences))


def run_session(session, signal: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of an onnxruntime session for signal (N, n_leads, T) mV and covariates (N, N_COVARIATES),
    which are left out where the graph has no such input.
    """
    given = {"signal": signal, "covariates": covariates}
    return session.run(None, {entry.name: given[entry.name] for entry in session.get_inputs()})[0]
