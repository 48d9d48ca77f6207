"""A trained model as a program of torch.export, described in a file inside it."""

from __future__ import annotations

import io
import json

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from data.covariates import N_COVARIATES
from engine.inference import Predictor
from engine.onnx_file import difference_over_noise, metadata, uses_covariates
from engine.whole_recording import recording_model

FORMAT = "12ecg-pt2-1"
DESCRIPTION = "metadata.json"  # name of the file inside that holds the description
TRACED = (3, 777)  # recordings and samples of what is traced: any numbers but 1


def program_bytes(predictor: Predictor) -> bytes:
    """The content of a .pt2 file: the program, and its description as torch.export's extra file DESCRIPTION."""
    n, n_samples = TRACED
    inputs = (torch.zeros(n, len(predictor.signal_config.leads), n_samples),)
    sizes = ({0: Dim("N", min=1), 2: Dim("T", min=1)},)
    if uses_covariates(predictor):
        inputs += (torch.zeros(n, N_COVARIATES),)
        sizes += ({0: sizes[0][0]},)
    with torch.no_grad():
        program = torch.export.export(recording_model(predictor), inputs, dynamic_shapes=sizes)
    description = metadata(predictor) | {"format": FORMAT}
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DESCRIPTION: json.dumps(description)})
    return buffer.getvalue()


def read_program(content: bytes) -> tuple[ExportedProgram, dict]:
    """The program in a .pt2 file and its description."""
    extra_files = {DESCRIPTION: ""}
    program = torch.export.load(io.BytesIO(content), extra_files=extra_files)
    return program, json.loads(extra_files[DESCRIPTION])


def run_program(program: torch.nn.Module, signal: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) of an exported module for signal (N, n_leads, T) mV.

    Args:
        program: from `ExportedProgram.module()`.
        signal: (N, n_leads, T) float32 mV.
        covariates: (N, N_COVARIATES) float32, left out where the program has no such input.
    """
    inputs = (torch.from_numpy(signal), torch.from_numpy(covariates))
    n_inputs = len(program.graph.find_nodes(op="placeholder"))
    with torch.inference_mode():
        return program(*inputs[:n_inputs]).numpy()


def largest_difference(content: bytes, predictor: Predictor) -> float:
    """How far the probabilities of a .pt2 file are from the Predictor's at most."""
    program = read_program(content)[0].module()
    return difference_over_noise(lambda signal, covariates: run_program(program, signal, covariates), predictor)
