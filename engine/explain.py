"""Which stretches of which leads carried a decision: integrated gradients of a class's logit.

Integrated gradients (Sundararajan, Taly & Yan 2017) share out among the samples by how much the logit of a recording
differs from that of a silent one. They are summed over the windows and over the members of an
ensemble, so that their sum is the difference itself (a test holds that). What is known of the whole recording (age,
sex, rhythm, which leads are there) stays as it is: these maps say where the network looked, given that. A forest beside
it decides on numbers and has no part in them.
"""

import numpy as np
import torch

from engine.inference import Predictor
from engine.windows import full_float32, window_batches

N_STEPS = 16  # points on the way from silence to the recording
SMOOTH = 0.12  # s over which attributions are averaged: about a QRS complex
SHARE = 0.1  # of all samples (leads x time) that count as important


def attribute(
    predictor: Predictor, signal: np.ndarray, covariates: np.ndarray, column: int, n_steps: int = N_STEPS
) -> np.ndarray:
    """Each sample's part in the logit of one class, the mean over windows and members.

    Args:
        predictor: the model or ensemble that decided.
        signal: (12, T) int16 microvolts, as `data.inputs.read_input` gives it.
        covariates: (N_COVARIATES,) of the recording.
        column: the class.
        n_steps: points of the integral; more are more exact and take as much longer.

    Returns:
        (12, T) float64; its sum is the recording's logit less that of a silent one. Positive speaks for the class.
    """
    total = np.zeros(signal.shape)
    for model, windows in zip(predictor.models, predictor.windows):
        starts = windows.starts(signal.shape[1])
        done = 0
        for x, lengths, _ in window_batches([signal], windows):
            parts = _integrated(model, x, lengths, covariates, column, n_steps, predictor.device)  # (b, 12, L)
            for part, length in zip(parts, lengths):
                start = starts[done]
                total[:, start : start + length] += part[:, :length] / len(starts)
                done += 1
    return total / len(predictor.models)


def _integrated(model, x, lengths, covariates, column, n_steps, device):
    """Integrated gradients of windows x (b, 12, L) mV -> (b, 12, L); the path starts at zero millivolts.

    Its points are denser there, in step with the square of their number, because the network's answer changes most
    where the signal is faint: 16 points miss the sum by a quarter of what evenly spaced ones do.
    """
    x, lengths = torch.from_numpy(x).to(device), torch.from_numpy(lengths).to(device)
    covariates = torch.from_numpy(covariates).to(device).expand(len(x), -1)
    total = torch.zeros_like(x)
    with full_float32(device):
        for step in range(n_steps):
            place = (step + 0.5) / n_steps  # midpoint rule
            point = (x * place**2).requires_grad_()
            logits = model(point, lengths, covariates)[:, column]  # (b,)
            total += torch.autograd.grad(logits.sum(), point)[0] * (2 * place)
    return (x * total / n_steps).double().cpu().numpy()


def mean_logits(predictor: Predictor, signal: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Logits of a recording, the mean over windows and members: what `attribute` shares out. -> (C,) float64."""
    totals = []
    with torch.inference_mode(), full_float32(predictor.device):
        for model, windows in zip(predictor.models, predictor.windows):
            logits = []
            for x, lengths, _ in window_batches([signal], windows):
                x, lengths = torch.from_numpy(x).to(predictor.device), torch.from_numpy(lengths).to(predictor.device)
                told = torch.from_numpy(covariates).to(predictor.device).expand(len(x), -1)
                logits.append(model(x, lengths, told).double().cpu().numpy())
            totals.append(np.concatenate(logits).mean(0))  # (C,)
    return np.mean(totals, axis=0)


def important(attribution: np.ndarray, sample_freq: float, share: float = SHARE) -> np.ndarray:
    """The `share` of the samples that speak most for the class: attribution (12, T) -> mask (12, T) bool.

    Attributions are averaged over SMOOTH seconds first, so that the mask consists of stretches that an eye can check.
    What speaks against the class is never marked, even if fewer samples than `share` are left.
    """
    from scipy.ndimage import uniform_filter1d  # 0.2 s that `predict.py` needs only here

    width = max(1, round(SMOOTH * sample_freq))
    smooth = uniform_filter1d(attribution, width, axis=1, mode="nearest")
    n = round(share * smooth.size)
    mask = np.zeros(smooth.size, bool)
    mask[np.argsort(-smooth, axis=None, kind="stable")[:n]] = True
    return mask.reshape(smooth.shape) & (smooth > 0)


def stretches(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of marked samples, mask (12, T) bool -> [(lead, first sample, sample after the last)] in order."""
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)  # (12, T + 1)
    leads, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return list(zip(leads.tolist(), starts.tolist(), ends.tolist()))


def lead_shares(attribution: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How the support within the mask is spread over the leads: (12,) that sums to 1, or zeros if there is none."""
    support = np.where(mask, np.maximum(attribution, 0), 0).sum(axis=1)  # (12,)
    total = support.sum()
    return support / total if total > 0 else support


def interpolated(signal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A copy of signal (12, T) in which every marked stretch is a straight line between the samples beside it; a
    lead that is marked altogether becomes zero. What deleting means in `benchmarks/explain.py`.
    """
    out = signal.copy()
    places = np.arange(signal.shape[1])
    for row, marked in zip(out, mask):
        if marked.all():
            row[:] = 0
        elif marked.any():
            row[marked] = np.interp(places[marked], places[~marked], row[~marked])
    return out


def as_random(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same stretches elsewhere: each lead's marks move to a lead drawn by lot, and around it by a random time."""
    leads = rng.permutation(len(mask))
    shifts = rng.integers(mask.shape[1], size=len(mask))
    return np.stack([np.roll(mask[lead], shift) for lead, shift in zip(leads, shifts)])
